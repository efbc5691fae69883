//! SHOW CHANGES, BLOCKERS and LANES: the schema changes that run in this proxy, what they wait for, and the lanes that they hold.
//!
//! It owns nothing. It keeps true: the statement is shown as the log shows it, without its strings.

use crate::console::host::Host;
use crate::console::table::Value;
use crate::registry::{ChangeEntry, Registry};

/// The process id of the backend on which a change runs.
fn backend(registry: &Registry, change: &ChangeEntry) -> Value {
    let pid = registry.session(change.session).and_then(|session| session.backend());
    pid.map_or(Value::Null, Value::number)
}

pub(super) fn changes(host: &dyn Host) -> Vec<Vec<Value>> {
    let registry = host.registry();
    let row = |change: &std::sync::Arc<ChangeEntry>| {
        let progress = change.progress();
        let session = registry.session(change.session);
        let client = session.as_ref().map(|session| &session.client);
        let (waiting, since) = progress.waiting.unzip();
        let phase = |number: usize| if progress.phases == 0 { Value::Null } else { Value::number(number) };
        vec![
            Value::number(change.number),
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
        ]
    };
    registry.changes().iter().map(row).collect()
}

pub(super) fn blockers(host: &dyn Host) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for change in host.registry().changes() {
        let progress = change.progress();
        // What was in the way of an earlier wait is not in the way now.
        for blocker in progress.blockers.into_iter().filter(|_| progress.waiting.is_some()) {
            rows.push(vec![
                Value::number(change.number),
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
                Value::number(change.number),
                backend(registry, &change),
            ]);
        }
    }
    rows
}
