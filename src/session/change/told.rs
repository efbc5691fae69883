//! The webhook is told of a statement that has come to a rule which holds it: that it is held, or that it goes on since it is approved.
//!
//! It owns nothing. It keeps true: that a change is held is told once, whoever sends it again meanwhile, and not to those who want to know no such
//! thing. An event has what the log may show.

use super::context::StatementContext;
use super::ended::change_of;
use crate::config::WebhookEvent;
use crate::gate::{Decision, answer};
use crate::holds::{Held, Joined};
use crate::webhook::Event;
use std::time::{Duration, SystemTime};

/// A statement has joined its change. `goes_on`: it ran under an approval before, and its plan was made anew.
pub(super) fn joined(context: &StatementContext<'_>, decision: &Decision, joined: &Joined, goes_on: bool) {
    let shared = context.log.shared();
    let (kind, held, reason) = match joined {
        Joined::Go(passage) if !goes_on && shared.webhook.wants(WebhookEvent::Approved) => {
            let held = shared.holds().get(passage.number());
            let reason = held.as_ref().map(let_go);
            (WebhookEvent::Approved, held, reason)
        }
        Joined::Wait(waiting) if shared.webhook.wants(WebhookEvent::Held) => {
            // A change that was held before is as it was.
            let held = waiting.held().filter(|_| waiting.is_new());
            (WebhookEvent::Held, held, Some(answer::why(decision)))
        }
        _ => return,
    };
    let Some(held) = held else { return };
    let took = SystemTime::now().duration_since(held.since).unwrap_or(Duration::ZERO);
    let (rule, number) = (Some(held.rule.clone()), Some(held.number));
    let change = change_of(context);
    shared.webhook.notify(&Event { reason, rule, number, ..Event::new(kind, &change, took) });
}

/// Who has let a change go on, and why: `2 of 2: ann, ben; APPROVE by ben from 10.0.0.7: looks fine`.
fn let_go(held: &Held) -> String {
    let Some(decided) = &held.decided else { return held.approvals() };
    let why = Some(decided.why.as_str()).filter(|why| !why.is_empty()).map(|why| format!(": {why}"));
    let (verb, by, from) = (decided.verb, &decided.by, &decided.from);
    format!("{}; {verb} by {by} from {from}{}", held.approvals(), why.unwrap_or_default())
}
