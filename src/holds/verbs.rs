//! What operators do with a change that is held: APPROVE, REJECT, CANCEL, RETRY, FORCE and UNFORCE.
//!
//! It owns nothing. It keeps true: an operator who may not decide is told why, and the change stays as it is.

use super::actor::{Actor, HoldVerb};
use super::{Decided, Held, Holds};
use crate::gate::change::{Impossible, State, transition};
use crate::pg::sqlstate;
use crate::report::Report;
use std::time::SystemTime;

impl Holds {
    /// Does a verb, and says what the change is then.
    ///
    /// # Errors
    /// There is no such change (42704). The user is its author (42501). The change is in a state in which the verb means nothing (55000).
    pub async fn act(&self, number: u64, verb: HoldVerb, actor: &Actor<'_>) -> Result<Report, Report> {
        let said = |text: String| Report::notice(sqlstate::SUCCESSFUL_COMPLETION, text);
        if let Some(keeper) = self.keeper() {
            return keeper.act(number, verb, actor).await.map(said);
        }
        let held = self.act_here(number, verb, actor, SystemTime::now())?;
        let text = format!("schema change {} is {}", held.number, held.change.state());
        Ok(said(text).detail(format!("It has {} approvals.", held.approvals())))
    }

    /// Does a verb without a ledger, and gives the change as it is then.
    pub(super) fn act_here(
        &self,
        number: u64,
        verb: HoldVerb,
        actor: &Actor<'_>,
        now: SystemTime,
    ) -> Result<Held, Report> {
        let mut table = self.lock();
        table.sweep(now);
        let Some(held) = table.changes.get(&number) else { return Err(missing(number)) };
        let event = verb.event(actor.user);
        if let Err(why) = transition(&held.change, &event) {
            return Err(impossible(why, held, verb));
        }
        let (by, from) = (actor.user.to_owned(), actor.from.to_owned());
        let decided = Decided { verb: verb.tag(), by, from, why: actor.why.unwrap_or_default().to_owned(), at: now };
        table.step(number, &event, Some(decided), now);
        table.changes.get(&number).cloned().ok_or_else(|| missing(number))
    }
}

fn missing(number: u64) -> Report {
    Report::error(sqlstate::UNDEFINED_OBJECT, format!("schema change {number} is not held"))
        .hint("SHOW CHANGES lists the ones there are.")
}

fn impossible(why: Impossible, held: &Held, verb: HoldVerb) -> Report {
    let (number, tag) = (held.number, verb.tag());
    match why {
        Impossible::OwnChange => {
            Report::error(sqlstate::INSUFFICIENT_PRIVILEGE, format!("schema change {number} is your own"))
                .detail(format!(
                    "The role {} has sent it. An approval by its author does not count.",
                    held.change.author()
                ))
                .hint("Somebody else approves it. FORCE lets it run without an approval, and is logged as such.")
        }
        Impossible::ApprovedBefore => Report::error(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("you have approved schema change {number} already"),
        )
        .detail(format!("It has the approvals {}.", held.approvals())),
        Impossible::InState(state) => {
            let hint = match state {
                State::Rejected | State::Cancelled | State::Expired | State::Failed => {
                    format!("RETRY {number} asks for a decision anew.")
                }
                State::Running => format!("CANCEL {number} ends it."),
                _ => "SHOW CHANGES shows where it stands.".to_owned(),
            };
            Report::error(
                sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("schema change {number} is {state}, so that {tag} has no effect"),
            )
            .hint(hint)
        }
    }
}
