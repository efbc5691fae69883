//! SHOW CHANGES, CHANGE, BLOCKERS and LANES: the schema changes that run in this proxy or are held, what they wait for, and their lanes.
//!
//! It owns nothing. It keeps true: the statement is shown as the log shows it, without its strings.

use super::session::here_or_left;
use crate::console::host::Host;
use crate::console::table::Value;
use crate::holds::{Elsewhere, Held};
use crate::registry::{ChangeEntry, Order, Registry};
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
        None => row.extend([Value::Null, Value::Null, Value::Null, Value::Null]),
    }
    if let Some(state) = state_of_run(change, held) {
        row[STATE] = Value::text(state);
    }
    row.push(here_or_left(change.client_has_left()));
    row
}

/// The column of the state.
const STATE: usize = 11;

/// The state of a change that runs. `None`: it has not begun, so that its approvals tell the state.
fn state_of_run(change: &ChangeEntry, held: Option<&Held>) -> Option<&'static str> {
    if change.steering.orders().stopped.is_some() {
        return Some("held");
    }
    held.is_none().then_some("running")
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
    row.push(Value::Null);
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
        // Whether its client is here is known there.
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

/// One change that runs, or that is or was held. `None`: there is no such change.
pub(super) fn one(host: &dyn Host, number: u64) -> Option<Vec<Vec<Value>>> {
    let running = host.registry().changes().into_iter().find(|change| change.known_as() == number);
    let held = host.holds().get(number);
    let mut rows = match (&held, &running) {
        (Some(held), _) => rows_of_held(held),
        (None, Some(change)) => rows_of_running(host.registry(), change),
        (None, None) => return None,
    };
    running.iter().for_each(|change| rows.extend(rows_of_run(change)));
    Some(rows.into_iter().map(|(name, value)| vec![Value::text(name), Value::Text(value)]).collect())
}

type NamedRow = (&'static str, String);

fn time(time: SystemTime) -> String {
    Value::Time(time).as_text().unwrap_or_default()
}

/// Who has sent a change that no rule has held.
fn rows_of_running(registry: &Registry, change: &ChangeEntry) -> Vec<NamedRow> {
    let session = registry.session(change.session);
    let client = session.as_ref().map(|session| &session.client);
    vec![
        ("number", change.number.to_string()),
        ("state", state_of_run(change, None).unwrap_or_default().to_owned()),
        ("statement", change.statement.clone()),
        ("author", client.map(|client| client.user.clone()).unwrap_or_default()),
        ("database", client.map(|client| client.database.clone()).unwrap_or_default()),
        ("application", client.map(|client| client.application_name.clone()).unwrap_or_default()),
        ("session", change.session.to_string()),
        ("since", time(change.began)),
    ]
}

/// How far a change is, and what operators have said about its run.
fn rows_of_run(change: &ChangeEntry) -> Vec<NamedRow> {
    let (progress, orders) = (change.progress(), change.steering.orders());
    let mut rows = Vec::new();
    if progress.phases > 0 {
        rows.push(("phase", format!("{} of {}", progress.phase, progress.phases)));
    }
    rows.extend(progress.waiting.map(|(words, since)| ("waiting", format!("{words}, since {}", time(since)))));
    let order = |order: &Order| format!("from {}, {}", order.from, time(order.since));
    rows.extend(orders.throttled.map(|throttled| ("throttle", format!("{throttled}; {}", order(&throttled.order)))));
    rows.extend(orders.hold.map(|hold| ("hold", format!("{hold}; {}", order(&hold)))));
    rows.extend(orders.stopped.map(|why| ("stopped", why)));
    rows
}

fn rows_of_held(held: &Held) -> Vec<NamedRow> {
    let forced = if held.change.is_forced() { ", forced" } else { "" };
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
        ("gate", if held.cut_over { "cut-over" } else { "launch" }.to_owned()),
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
    rows
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
