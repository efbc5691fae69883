//! SHOW SESSIONS: the clients that have logged in.
//!
//! It owns nothing. It keeps true: what a client has sent in its startup packet is shown as it came, and nothing else of it.

use crate::console::host::Host;
use crate::console::table::Value;
use std::collections::HashMap;

pub(super) fn sessions(host: &dyn Host) -> Vec<Vec<Value>> {
    let registry = host.registry();
    let changes: HashMap<u64, u64> =
        registry.changes().iter().map(|change| (change.session, change.known_as())).collect();
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
            changes.get(&session.number).map_or(Value::Null, |number| Value::number(*number)),
            Value::Boolean(session.console),
        ]
    };
    registry.sessions().iter().map(row).collect()
}
