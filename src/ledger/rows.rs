//! The rows of the ledger, as the gate knows them.
//!
//! It owns nothing. It keeps true: a row that this version cannot read is left out and logged; it is held by whoever asks for it.

use crate::gate::change::{Change, State};
use crate::gate::digest::Digest;
use crate::holds::{Decided, Elsewhere, Held, HoldRequest, Kept, Scope, ScopeHold};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use tokio_postgres::{Error, Row};

/// The columns of a change that a rule holds or has held.
pub(super) const HELD: &str = "SELECT c.id, c.digest, c.text_digest, c.state, c.author, c.needs, c.approvals, c.forced, c.database, c.application, c.client, \
     c.session, c.tag, c.statement, c.plan, c.difference, c.rule, c.because, c.expires_ms, c.since, c.changed, \
     c.decided_verb, c.decided_by, c.decided_from, c.decided_why, c.decided_at, \
     (SELECT pg_catalog.sum(w.clients) FROM pgsluice.waiter w WHERE w.change OPERATOR(pg_catalog.=) c.id) AS waiting, \
     c.cancel_asked, c.proxy \
     FROM pgsluice.change c WHERE c.digest IS NOT NULL AND ";

/// The changes that run in other proxies, and that no rule has held. $1: this proxy.
pub(super) const ELSEWHERE: &str = "SELECT c.id, c.author, c.database, c.statement, c.since, c.phase, c.phases, c.waiting \
     FROM pgsluice.change c WHERE c.digest IS NULL AND c.state OPERATOR(pg_catalog.=) 'running' \
     AND c.proxy OPERATOR(pg_catalog.<>) $1 ORDER BY c.id LIMIT 1000";

pub(super) const SCOPES: &str =
    "SELECT h.kind, h.name, h.by, h.\"from\", h.why, h.since FROM pgsluice.hold h ORDER BY h.since";

/// A change, from a row of [`HELD`].
pub(super) fn held(row: &Row) -> Option<Held> {
    let held = read_held(row);
    held.inspect_err(|error| tracing::error!(%error, "a row of the ledger could not be read")).ok().flatten()
}

fn read_held(row: &Row) -> Result<Option<Held>, Error> {
    let text = |name: &str| row.try_get::<_, Option<String>>(name).map(Option::unwrap_or_default);
    let number = |name: &str| row.try_get::<_, Option<i64>>(name).map(|value| natural(value.unwrap_or_default()));
    let (digest, request) = (Digest::from_text(&text("digest")?), Digest::from_text(&text("text_digest")?));
    let (Some(digest), Some(request), Some(state)) = (digest, request, State::from_word(&text("state")?)) else {
        return Ok(None);
    };
    let needs = natural(i64::from(row.try_get::<_, i32>("needs")?));
    let approvals: BTreeSet<String> = row.try_get::<_, Vec<String>>("approvals")?.into_iter().collect();
    let (verb, at) =
        (row.try_get::<_, Option<String>>("decided_verb")?, row.try_get::<_, Option<SystemTime>>("decided_at")?);
    let decided = match (verb, at) {
        (Some(verb), Some(at)) => Some(Decided {
            verb: verb_of(&verb),
            by: text("decided_by")?,
            from: text("decided_from")?,
            why: text("decided_why")?,
            at,
        }),
        _ => None,
    };
    let kept = Kept {
        change: Change::known(state, text("author")?, needs, approvals, row.try_get("forced")?),
        difference: row.try_get("difference")?,
        since: row.try_get("since")?,
        changed: row.try_get("changed")?,
        waiting: usize::try_from(number("waiting")?).unwrap_or_default(),
        decided,
    };
    let request = HoldRequest {
        number: number("id")?,
        digest,
        text: request,
        author: text("author")?,
        database: text("database")?,
        application: text("application")?,
        client: text("client")?,
        session: number("session")?,
        tag: text("tag")?,
        statement: text("statement")?,
        plan: text("plan")?,
        rule: text("rule")?,
        because: text("because")?,
        needs,
        expires: Duration::from_millis(number("expires_ms")?),
    };
    Ok(Some(Held::kept(request, kept)))
}

fn verb_of(word: &str) -> &'static str {
    use crate::holds::HoldVerb as Verb;
    let all = [Verb::Approve, Verb::Reject, Verb::Cancel, Verb::Retry, Verb::Force, Verb::Unforce];
    all.into_iter().map(Verb::tag).find(|tag| *tag == word).unwrap_or("DECIDE")
}

/// A change that runs elsewhere, from a row of [`ELSEWHERE`].
pub(super) fn elsewhere(row: &Row) -> Result<Elsewhere, Error> {
    Ok(Elsewhere {
        number: natural(row.try_get(0)?),
        author: row.try_get(1)?,
        database: row.try_get(2)?,
        statement: row.try_get(3)?,
        since: row.try_get(4)?,
        phase: row.try_get(5)?,
        phases: row.try_get(6)?,
        waiting: row.try_get(7)?,
    })
}

/// What is held by hand, from a row of [`SCOPES`].
pub(super) fn scope(row: &Row) -> Result<ScopeHold, Error> {
    let (kind, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let scope = match kind.as_str() {
        "database" => Scope::Database(name),
        "relation" => Scope::Relation(name),
        _ => Scope::All,
    };
    Ok(ScopeHold { scope, by: row.try_get(2)?, from: row.try_get(3)?, why: row.try_get(4)?, since: row.try_get(5)? })
}

/// A scope as the ledger has it: its kind and its name.
pub(super) fn scope_words(scope: &Scope) -> (&'static str, &str) {
    match scope {
        Scope::All => ("all", ""),
        Scope::Database(name) => ("database", name),
        Scope::Relation(name) => ("relation", name),
    }
}

/// A number of this proxy's as the ledger has it.
pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
