//! The events of a change that is held: what has happened to it, by whom, and why.
//!
//! It owns nothing. It keeps true: the events are logged at every level, and their texts are what the log may show. The ledger can take them over here.

use super::{Decided, Held};
use crate::logging::AUDIT;

/// Leaves an event. The log gives the time. `decided`: who has decided last.
pub(super) fn note(what: &str, held: &Held, decided: Option<&Decided>) {
    let Held { number, rule, statement, database, client, session, .. } = held;
    let (author, state) = (held.change.author(), held.change.state().as_str());
    let digest = held.digest.to_string();
    let forced = held.change.is_forced();
    let (verb, by, from, why) = decided.map_or(("", "", "", ""), |one| (one.verb, &one.by, &one.from, &one.why));
    tracing::warn!(
        target: AUDIT,
        change = number,
        state,
        author,
        database,
        client,
        session,
        rule,
        verb,
        by,
        from,
        why,
        forced,
        approvals = held.approvals(),
        digest,
        %statement,
        "a schema change was {what}"
    );
}
