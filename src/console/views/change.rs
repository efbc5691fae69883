//! SHOW CHANGES, CHANGE, BLOCKERS and LANES: the schema changes that run in this proxy or are held, what they wait for, and their lanes.
//!
//! It owns nothing. It keeps true: the statement is shown as the log shows it, without its strings.

use crate::console::host::Host;
use crate::console::table::Value;
use crate::holds::{Elsewhere, Held};
use crate::registry::{ChangeEntry, Registry};
use std::time::SystemTime;

/// The process id of the backend on which a change runs.
fn backend(registry: &Registry, change: &ChangeEntry) -> Value {
    let pid = registry.session(change.session).and_then(|session| session.backend());
    pid.map_or(Value::Null, Value::number)
}

pub(super) fn changes(host: &dyn Host) -> Vec<Vec<Value>> {
    let registry = host.registry();
    let (running, held) = (registry.changes(), host.holds().all(SystemTime::now()));
    let alone = held.iter().filter(|held| !running.iter().any(|change| change.known_as() == held.number));
    let with_client = running.iter().map(|change| {
        let number = change.known_as();
        (number, row(registry, change, held.iter().find(|held| held.number == number)))
    });
    let elsewhere = host.holds().elsewhere();
    let elsewhere = elsewhere.iter().map(|change| (change.number, row_elsewhere(change)));
    let mut rows: Vec<(u64, Vec<Value>)> =
        with_client.chain(alone.map(|held| (held.number, row_alone(held)))).chain(elsewhere).collect();
    rows.sort_by_key(|(number, _)| *number);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// A change whose client is here.
fn row(registry: &Registry, change: &ChangeEntry, held: Option<&Held>) -> Vec<Value> {
    let progress = change.progress();
    let session = registry.session(change.session);
    let client = session.as_ref().map(|session| &session.client);
    let (waiting, since) = progress.waiting.unzip();
    let phase = |number: usize| if progress.phases == 0 { Value::Null } else { Value::number(number) };
    let mut row = vec![
        Value::number(change.known_as()),
        Value::number(change.session),
        Value::maybe(client.map(|client| client.user.as_str())),
        Value::maybe(client.map(|client| client.database.as_str())),
        backend(registry, change),
        Value::text(&change.statement),
        phase(progress.phase),
        phase(progress.phases),
        Value::Time(change.began),
        Value::maybe(waiting),
        since.map_or(Value::Null, Value::Time),
    ];
    match held {
        Some(held) => row.extend(decision(held)),
        None => row.extend([Value::text("running"), Value::Null, Value::Null, Value::Null]),
    }
    row
}

/// A change without a client: it was decided, or it waits for its client to come back.
fn row_alone(held: &Held) -> Vec<Value> {
    let mut row = vec![
        Value::number(held.number),
        Value::Null,
        Value::text(held.change.author()),
        Value::text(&held.database),
        Value::Null,
        Value::text(&*held.statement),
        Value::Null,
        Value::Null,
        Value::Time(held.since),
        Value::Null,
        Value::Null,
    ];
    row.extend(decision(held));
    row
}

/// A change that runs in another proxy of the ledger.
fn row_elsewhere(change: &Elsewhere) -> Vec<Value> {
    let phase = |number: Option<i32>| number.filter(|number| *number > 0).map_or(Value::Null, Value::number);
    vec![
        Value::number(change.number),
        Value::Null,
        Value::text(&change.author),
        Value::text(&change.database),
        Value::Null,
        Value::text(&change.statement),
        phase(change.phase),
        phase(change.phases),
        Value::Time(change.since),
        Value::maybe(change.waiting.as_deref()),
        Value::Null,
        Value::text("running"),
        Value::Null,
        Value::Null,
        Value::Null,
    ]
}

fn decision(held: &Held) -> [Value; 4] {
    [
        Value::text(held.change.state().as_str()),
        Value::text(&held.rule),
        Value::Text(held.approvals()),
        held.expires_at().map_or(Value::Null, Value::Time),
    ]
}

/// One change that is or was held. `None`: there is no such change.
pub(super) fn one(host: &dyn Host, number: u64) -> Option<Vec<Vec<Value>>> {
    let held = host.holds().get(number)?;
    let forced = if held.change.is_forced() { ", forced" } else { "" };
    let time = |time: SystemTime| Value::Time(time).as_text().unwrap_or_default();
    let mut rows = vec![
        ("number", held.number.to_string()),
        ("state", format!("{}{forced}", held.change.state())),
        ("statement", held.statement.to_string()),
        ("author", held.change.author().to_owned()),
        ("database", held.database.clone()),
        ("application", held.application.clone()),
        ("address", held.client.clone()),
        ("session", held.session.to_string()),
        ("rule", held.rule.clone()),
        ("because", held.because.clone()),
        ("approvals", held.approvals()),
        ("since", time(held.since)),
        ("expires", held.expires_at().map(time).unwrap_or_default()),
        ("clients_waiting", held.waiting.to_string()),
        ("digest", held.digest.to_string()),
    ];
    if let Some(decided) = &held.decided {
        let why = if decided.why.is_empty() { String::new() } else { format!(": {}", decided.why) };
        rows.push((
            "decided",
            format!("{} by {} from {}, {}{why}", decided.verb, decided.by, decided.from, time(decided.at)),
        ));
    }
    rows.extend(held.plan.lines().map(|line| ("plan", line.to_owned())));
    rows.extend(held.difference.iter().flat_map(|all| all.lines()).map(|line| ("difference", line.to_owned())));
    Some(rows.into_iter().map(|(name, value)| vec![Value::text(name), Value::Text(value)]).collect())
}

pub(super) fn blockers(host: &dyn Host) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for change in host.registry().changes() {
        let progress = change.progress();
        // What was in the way of an earlier wait is not in the way now.
        for blocker in progress.blockers.into_iter().filter(|_| progress.waiting.is_some()) {
            rows.push(vec![
                Value::number(change.known_as()),
                blocker.pid.map_or(Value::Null, Value::number),
                Value::maybe(blocker.application),
                Value::maybe(blocker.user),
                Value::maybe(blocker.state),
                blocker.age_ms.map_or(Value::Null, Value::number),
                Value::text(blocker.mode),
                Value::text(blocker.relation),
            ]);
        }
    }
    rows
}

pub(super) fn lanes(host: &dyn Host) -> Vec<Vec<Value>> {
    let registry = host.registry();
    let mut rows = Vec::new();
    for change in registry.changes() {
        for (oid, relation) in change.progress().lanes {
            rows.push(vec![
                Value::number(oid),
                Value::maybe(relation),
                Value::number(change.known_as()),
                backend(registry, &change),
            ]);
        }
    }
    rows
}
