//! SHOW SESSIONS: the clients that have logged in.
//!
//! It owns nothing. It keeps true: what a client has sent in its startup packet is shown as it came, and nothing else of it.

use crate::console::host::Host;
use crate::console::table::Value;
use std::collections::HashMap;

/// Whether the client of a session or of a change is there, in a word.
pub(super) fn here_or_left(has_left: bool) -> Value {
    Value::text(if has_left { "left" } else { "here" })
}

pub(super) fn sessions(host: &dyn Host) -> Vec<Vec<Value>> {
    let registry = host.registry();
    let changes: HashMap<u64, _> = registry.changes().into_iter().map(|change| (change.session, change)).collect();
    let row = |session: &std::sync::Arc<crate::registry::SessionEntry>| {
        vec![
            Value::number(session.number),
            Value::text(&session.client.user),
            Value::text(&session.client.database),
            Value::text(&session.client.application_name),
            Value::maybe(session.address.map(|address| address.to_string())),
            Value::Boolean(session.encrypted),
            session.backend().filter(|_| !session.console).map_or(Value::Null, Value::number),
            Value::Time(session.began),
            changes.get(&session.number).map_or(Value::Null, |change| Value::number(change.known_as())),
            Value::Boolean(session.console),
            here_or_left(changes.get(&session.number).is_some_and(|change| change.client_has_left())),
        ]
    };
    registry.sessions().iter().map(row).collect()
}
