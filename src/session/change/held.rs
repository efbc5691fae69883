//! A statement that a rule of the gate holds until somebody approves it.
//!
//! It owns nothing: the change is in [`crate::holds`]. It keeps true:
//!
//! - A held statement has changed nothing, has no lane, and holds no lock that makes others wait. In a transaction that has such locks, it does not
//!   wait: its client gets the ticket at once.
//! - What runs is what was approved. After a wait the statement is planned again, and another plan is asked about anew.
//! - The wait is visible in `pg_stat_activity`, and ends with a cancel, the session's own timeout, and the end of the client.

use super::context::{Place, StatementContext};
use super::gate;
use super::nap::nap;
use super::not_run::not_run;
use super::{told, turn};
use crate::catalog::Facts;
use crate::config::{HoldSettings, format_time};
use crate::execute::RunError;
use crate::execute::turn::Turn;
use crate::gate::change::State;
use crate::gate::digest::{Digest, Identity, SETTINGS};
use crate::gate::{Decision, Rule, answer};
use crate::holds::{Held, HoldRequest, Joined, LedgerState, Waiting};
use crate::pg::sqlstate;
use crate::plan::{Plan, logged};
use crate::report::{Report, Severity};
use crate::session::statement::shown;
use crate::session::text::parse_options;
use std::time::{Duration, Instant, SystemTime};

/// How long a client waits if its rule does not say so. Helm and other tools give up after five minutes.
pub(super) const WAIT_FOR: Duration = Duration::from_secs(240);
/// How long an approval counts if its rule does not say so.
const EXPIRES: Duration = Duration::from_secs(2 * 86_400);
/// The client hears at least this often that its statement is held.
pub(super) const NOTICES: Duration = Duration::from_secs(30);
/// A nap takes a twentieth of the time waited so far, within these bounds: people decide in minutes, and each nap costs the server a query.
pub(super) const SHARE: u32 = 20;
const SHORTEST_NAP: Duration = Duration::from_millis(50);
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// What becomes of a statement behind its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldOutcome {
    Run,
    /// It has waited, and has given its lanes back. Its facts are out of date.
    PlanAgain,
}

/// A statement as the gate has seen it.
struct HeldStatement<'s> {
    decision: &'s Decision,
    facts: &'s Facts,
    plan: &'s Plan,
}

/// Waits until the statement may run. `decision`: that of the rule which holds the statement; `None`: no rule holds it.
///
/// # Errors
/// The statement may not run, or not yet. The client's transaction has failed.
pub(super) async fn wait(
    context: &mut StatementContext<'_>,
    decision: Option<&Decision>,
    (facts, plan): (&Facts, &Plan),
    turn: &mut Turn,
) -> Result<HeldOutcome, RunError> {
    let Some(decision) = decision else { return Ok(HeldOutcome::Run) };
    let request = request_of(context, decision, Some((facts, plan))).await?;
    if matches!(context.place(), Place::InBlock(None)) {
        // It was let run before the transaction was suspended.
        let passage = context.log.shared().holds().resume(&request.text).await;
        passage.into_iter().for_each(|passage| context.keep_passage(passage));
        return Ok(HeldOutcome::Run);
    }
    let passage = context.take_passage();
    let goes_on = passage.is_some();
    let joined = context.log.shared().holds().join(request, passage).await;
    joined.iter().for_each(|joined| told::joined(context, decision, joined, goes_on));
    match joined {
        Ok(Joined::Go(passage)) => {
            context.keep_passage(passage);
            Ok(HeldOutcome::Run)
        }
        Ok(Joined::Lost) => {
            let statement = HeldStatement { decision, facts, plan };
            if makes_others_wait(context, facts).await? {
                return Err(not_run(context, answer::lost(decision, &plan.tag), decision).await?);
            }
            turn::end(context, turn, Ok(())).await?;
            wait_for_ledger(context, &statement).await
        }
        Ok(Joined::Rejected(held)) => Err(not_run(context, held.ended(), decision).await?),
        Err(full) => Err(not_run(context, full, decision).await?),
        Ok(Joined::Wait(waiting)) => {
            let statement = HeldStatement { decision, facts, plan };
            if makes_others_wait(context, facts).await? {
                let why = "The transaction holds locks that make others wait, so that it does not wait itself.";
                return Err(ticket(context, &statement, &waiting, Some(why)).await?);
            }
            turn::end(context, turn, Ok(())).await?;
            wait_for_decision(context, &statement, &waiting).await
        }
    }
}

/// A held statement that cannot wait: it runs if it is approved, and otherwise its client gets the ticket. So it is for a session that may not ask
/// for facts, since its role may not be allowed to nap, and for a change that a dead session has begun, since its record is taken. `known`: its
/// facts and plan.
///
/// # Errors
/// As for [`wait`].
pub(super) async fn at_once(
    context: &mut StatementContext<'_>,
    decision: &Decision,
    known: Option<(&Facts, &Plan)>,
    tag: &str,
) -> Result<(), RunError> {
    let request = request_of(context, decision, known).await?;
    let passage = context.take_passage();
    let goes_on = passage.is_some();
    let joined = context.log.shared().holds().join(request, passage).await;
    joined.iter().for_each(|joined| told::joined(context, decision, joined, goes_on));
    match joined {
        Ok(Joined::Go(passage)) => {
            context.keep_passage(passage);
            Ok(())
        }
        Ok(Joined::Lost) => Err(not_run(context, answer::lost(decision, tag), decision).await?),
        Ok(Joined::Rejected(held)) => Err(not_run(context, held.ended(), decision).await?),
        Err(full) => Err(not_run(context, full, decision).await?),
        Ok(Joined::Wait(waiting)) => {
            let held = waiting.held();
            let report = match &held {
                Some(held) => answer::ticket(decision, tag, &held.ticket(), held.number, None),
                None => answer::held(decision, tag),
            };
            Err(not_run(context, report, decision).await?)
        }
    }
}

/// Whether the client's transaction has locks for which others may have to wait: strong ones, or those of rows that it has changed or locked. Locks of
/// readers make nobody wait but schema changes, which are tried without a wait.
pub(super) async fn makes_others_wait(context: &mut StatementContext<'_>, facts: &Facts) -> Result<bool, RunError> {
    if !facts.session.in_transaction || facts.session.strongest_lock.is_some() {
        return Ok(facts.session.in_transaction);
    }
    let answer = context.channel.ask_one(WRITES_SQL, &[]).await?;
    Ok(answer.ok().map_err(RunError::Server)?.value() == Some("t"))
}

/// Whether the transaction has changed or locked rows of a relation. The facts have only stronger locks than these.
const WRITES_SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
       AND l.mode OPERATOR(pg_catalog.=) ANY (ARRAY['RowShareLock', 'RowExclusiveLock']) \
       AND c.relpersistence::pg_catalog.text OPERATOR(pg_catalog.<>) 't' \
       AND NOT (n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog', 'pg_toast']::pg_catalog.name[])))";

async fn wait_for_decision(
    context: &mut StatementContext<'_>,
    statement: &HeldStatement<'_>,
    waiting: &Waiting,
) -> Result<HeldOutcome, RunError> {
    let (begun, mut told) = (Instant::now(), None::<Instant>);
    context.channel.change_joins(waiting.number());
    context.metrics().ddl_held.add();
    let limit = hold_settings(statement.decision).wait_for.unwrap_or(WAIT_FOR);
    let limit = Some(limit).filter(|limit| !limit.is_zero());
    let timeout = Duration::from_millis(statement.facts.session.statement_timeout_ms);
    loop {
        let held = waiting.held().filter(|held| waiting.is_of(held));
        let Some(held) = held else { return Ok(HeldOutcome::PlanAgain) };
        match held.change.state() {
            State::Held | State::Running => {}
            State::Rejected | State::Cancelled => {
                return Err(not_run(context, held.ended(), statement.decision).await?);
            }
            _ => return Ok(HeldOutcome::PlanAgain),
        }
        if !gate::holds_still(context, statement.facts, statement.plan, statement.decision) {
            // RELOAD or RELEASE has changed the rules.
            if held.change.state() == State::Held {
                context.log.shared().holds().release(held.number, SystemTime::now());
            }
            return Ok(HeldOutcome::PlanAgain);
        }
        let waited = begun.elapsed();
        if !timeout.is_zero() && waited >= timeout {
            let report = Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
            return Err(not_run(context, report.detail(held.ticket()), statement.decision).await?);
        }
        if limit.is_some_and(|limit| waited >= limit) {
            return Err(ticket(context, statement, waiting, None).await?);
        }
        if told.is_none_or(|at| at.elapsed() >= NOTICES.min(context.config().ddl.progress_interval)) {
            told = Some(Instant::now());
            tell(context, statement, &held, limit.map(|limit| limit.saturating_sub(waited)));
        }
        let left = limit.into_iter().chain([timeout].into_iter().filter(|timeout| !timeout.is_zero()));
        let left = left.map(|limit| limit.saturating_sub(waited)).min().unwrap_or(LONGEST_NAP);
        let time = (waited / SHARE).clamp(SHORTEST_NAP, LONGEST_NAP).min(left.max(SHORTEST_NAP));
        nap_held(context, &held, time).await?;
    }
}

/// Waits until the ledger can be asked again: without it nothing is allowed that a rule holds.
async fn wait_for_ledger(
    context: &mut StatementContext<'_>,
    statement: &HeldStatement<'_>,
) -> Result<HeldOutcome, RunError> {
    let (begun, mut told) = (Instant::now(), None::<Instant>);
    let limit = hold_settings(statement.decision).wait_for.unwrap_or(WAIT_FOR);
    let timeout = Duration::from_millis(statement.facts.session.statement_timeout_ms);
    let limit = [limit, timeout].into_iter().filter(|limit| !limit.is_zero()).min();
    let is_lost = |context: &StatementContext<'_>| {
        let keeper = context.log.shared().holds().keeper();
        keeper.is_some_and(|keeper| matches!(keeper.state(), LedgerState::Lost(..)))
    };
    let report = answer::lost(statement.decision, &statement.plan.tag);
    while is_lost(context) {
        let waited = begun.elapsed();
        if limit.is_some_and(|limit| waited >= limit) {
            return Err(not_run(context, report, statement.decision).await?);
        }
        if told.is_none_or(|at| at.elapsed() >= NOTICES.min(context.config().ddl.progress_interval)) {
            told = Some(Instant::now());
            if context.config().ddl.notices && !statement.facts.session.hushed {
                context.channel.notify(&Report {
                    severity: Severity::Notice,
                    sqlstate: sqlstate::SUCCESSFUL_COMPLETION,
                    ..report.clone()
                });
            }
        }
        let time = (waited / SHARE).clamp(SHORTEST_NAP, LONGEST_NAP);
        nap(context, "the ledger cannot be asked, and a rule holds this change", time).await?;
    }
    Ok(HeldOutcome::PlanAgain)
}

/// Naps on the server, with the reason in the nap's comment. An error: the statement is over, and so is what it has asked for.
async fn nap_held(context: &mut StatementContext<'_>, held: &Held, time: Duration) -> Result<(), RunError> {
    let words = format!("change {} is held by rule \"{}\", approvals {}", held.number, held.rule, held.approvals());
    let napped = nap(context, &words, time).await;
    if matches!(napped, Err(RunError::Server(_) | RunError::Report(_))) {
        context.log.shared().holds().withdraw(held.number, SystemTime::now());
    }
    napped
}

/// Tells the client that its statement is held.
fn tell(context: &mut StatementContext<'_>, statement: &HeldStatement<'_>, held: &Held, left: Option<Duration>) {
    let number = held.number;
    let mut detail = format!("{} It has {} approvals.", answer::why(statement.decision), held.approvals());
    if let Some(difference) = &held.difference {
        detail += &format!(" Its plan has changed since it was held first:\n{difference}");
    }
    let left =
        left.map(|left| format!(" The client waits for {} more.", format_time(Duration::from_secs(left.as_secs()))));
    let hint = format!(
        "On the console of pgsluice: SHOW CHANGE {number}; APPROVE {number}; REJECT {number} REASON 'text'.{}",
        left.unwrap_or_default()
    );
    let message = format!("{} is held: change {number}", answer::subject(&statement.plan.tag));
    let report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail).hint(hint);
    if context.config().ddl.notices && !statement.facts.session.hushed {
        context.channel.notify(&report);
    }
}

/// Ends the statement by an error with which its client can come back. `why`: why it does not wait.
async fn ticket(
    context: &mut StatementContext<'_>,
    statement: &HeldStatement<'_>,
    waiting: &Waiting,
    why: Option<&str>,
) -> Result<RunError, RunError> {
    let tag = &statement.plan.tag;
    let report = match waiting.held() {
        Some(held) => answer::ticket(statement.decision, tag, &held.ticket(), held.number, why),
        None => answer::held(statement.decision, tag),
    };
    not_run(context, report, statement.decision).await
}

/// What the session has that is a part of a change's identity.
const SESSION_SQL: &str = "SELECT session_user::pg_catalog.text AS a, current_user::pg_catalog.text AS b, pg_catalog.current_setting('search_path', true) AS c, \
     pg_catalog.current_setting('role', true) AS d, pg_catalog.current_setting('TimeZone', true) AS e, \
     pg_catalog.current_setting('default_tablespace', true) AS f, pg_catalog.current_setting('default_table_access_method', true) AS g";

/// The values of [`SESSION_SQL`]: both users, and the settings of [`SETTINGS`] in their order.
pub(super) async fn session_values(context: &mut StatementContext<'_>) -> Result<Vec<String>, RunError> {
    let answer = context.channel.ask_rows(SESSION_SQL, &[]).await?.ok().map_err(RunError::Server)?;
    let row = answer.rows.into_iter().next().unwrap_or_default();
    Ok(row.into_iter().map(Option::unwrap_or_default).collect())
}

/// The request of a statement. `known`: its facts and plan, if they may be asked for.
pub(super) async fn request_of(
    context: &mut StatementContext<'_>,
    decision: &Decision,
    known: Option<(&Facts, &Plan)>,
) -> Result<HoldRequest, RunError> {
    let values = session_values(context).await?;
    let value = |at: usize| values.get(at).map(String::as_str).unwrap_or_default();
    let settings: Vec<(&str, &str)> = SETTINGS.iter().enumerate().map(|(at, name)| (*name, value(at + 2))).collect();
    let options = parse_options(context.channel, context.log.shared());
    let relations = known.map(|(facts, _)| facts.relations.as_slice()).unwrap_or_default();
    let relations: Vec<u32> =
        relations.iter().map(|named| named.found.as_ref().map_or(0, |found| found.id.oid)).collect();
    let identity = Identity {
        text: &context.statement.text,
        options,
        session_user: value(0),
        current_user: value(1),
        database: context.log.database(),
        relations: &relations,
        settings: &settings,
        plan: known.map(|(_, plan)| plan),
        in_transaction: context.channel.status() != b'I',
    };
    let hold = hold_settings(decision);
    let tag = known.map(|(_, plan)| plan.tag.clone()).unwrap_or_default();
    Ok(HoldRequest {
        number: context.channel.change_number(),
        digest: Digest::of(&identity),
        text: Digest::of_text(&identity),
        author: value(0).to_owned(),
        database: context.log.database().to_owned(),
        application: context.log.application().to_owned(),
        client: context.log.address().to_string(),
        session: context.log.session().number,
        tag,
        statement: shown(context.statement).to_owned(),
        plan: known.map(|(_, plan)| logged::to_text(plan, options)).unwrap_or_default(),
        rule: decision.rule.as_deref().map(Rule::name).unwrap_or_default().to_owned(),
        because: decision.because.join(", "),
        needs: hold.approvers.unwrap_or(1),
        cut_over: false,
        expires: hold.expires.unwrap_or(EXPIRES),
    })
}

fn hold_settings(decision: &Decision) -> HoldSettings {
    decision.rule.as_deref().map(|rule| rule.settings().hold).unwrap_or_default()
}
