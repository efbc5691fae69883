//! A way of sending: every schema change comes from several sessions at once, as when several pods run their migrations at
//! boot.
//!
//! Without the proxy the changes are sent one behind the other, as the server runs them when they come at once: a session
//! that waited for the lock sees what the others have done. The replies are compared without their order, and so is the
//! database at the end.

use crate::common::{self, Client, Outcome, port, proxy};
use crate::runner;
use crate::script::{self, Script};
use crate::state;
use pgsluice::dev::Postgres;
use pgsluice::sql::{Class, parse};
use std::fmt::Write as _;

const SESSIONS: usize = 3;

/// Scripts whose statements mean the same in every session: no settings, no roles, nothing temporary.
const SCRIPTS: [&str; 13] = [
    "attach",
    "columns",
    "constraints",
    "filled",
    "generated",
    "indexes",
    "inherits",
    "new_partition",
    "partitioned_foreign_keys",
    "partitioned_indexes",
    "partitioned_keys",
    "phased",
    "replaced",
];

/// Whether it is one change of tables that exist. The server has races of its own where several make a table, or a type, of one name.
fn is_for_all(text: &str) -> bool {
    let statements = parse(text).unwrap_or_default();
    let [statement] = statements.as_slice() else { return false };
    let Class::Ddl(ddl) = &statement.class else { return false };
    matches!(ddl.tag.as_str(), "ALTER TABLE" | "CREATE INDEX" | "DROP INDEX") && !ddl.concurrently
}

fn has_transaction(text: &str) -> bool {
    let statements = parse(text).unwrap_or_default();
    statements.iter().any(|statement| matches!(statement.class, Class::Transaction(_)))
}

fn told(outcome: Outcome) -> String {
    outcome.error.unwrap_or_else(|| outcome.tags.join(" "))
}

/// What was told, and what is there afterwards. `together`: not one behind the other.
fn run(postgres: &Postgres, port: u16, script: &Script, together: bool) -> Vec<String> {
    let database = common::new_database(postgres, "at_once");
    let mut clients: Vec<Client> = (0..SESSIONS).map(|_| Client::connect(port, &postgres.user, &database)).collect();
    let mut lines = Vec::new();
    for part in script.parts.iter().filter(|part| part.runs("simple")) {
        let sent = part.sent(postgres.version, true);
        // Whoever is in a transaction would keep the others waiting.
        let alone = sent.chunks.iter().any(|chunk| has_transaction(chunk));
        let mut data = sent.copy_data.clone();
        for chunk in sent.chunks {
            lines.push(format!("> {}", chunk.trim_end()));
            if alone || !is_for_all(chunk) {
                clients[0].send_query(chunk);
                let mut answers = Vec::new();
                crate::ways::answers(&mut clients[0], &mut data, false, &mut answers);
                continue;
            }
            let mut outcomes: Vec<String> = if together {
                clients.iter_mut().for_each(|client| client.send_query(chunk));
                clients.iter_mut().map(|client| told(client.outcome())).collect()
            } else {
                clients.iter_mut().map(|client| told(client.query(chunk))).collect()
            };
            outcomes.sort_unstable();
            lines.push(outcomes.join(", "));
        }
    }
    drop(clients);
    lines.push("--- the database".to_owned());
    lines.extend(state::of_database(postgres, &database));
    common::drop_database(postgres, &database);
    lines
}

/// The scripts of [`SCRIPTS`] from several sessions at once; the differences, as text.
pub(crate) fn scripts(postgres: &Postgres, wanted: impl Fn(&Script) -> bool) -> String {
    let running = proxy(postgres, |config| {
        runner::unhurried(config);
        common::no_table_is_small(config);
        config.backfill.pause_ratio = 0.0;
    });
    let mut failures = String::new();
    for script in script::all().iter().filter(|script| SCRIPTS.contains(&script.name.as_str()) && wanted(script)) {
        let direct = run(postgres, postgres.port, script, false);
        let found = runner::difference(&direct, &run(postgres, port(&running), script, true));
        if !found.is_empty() {
            let _ = writeln!(failures, "=== {}/at-once\n{found}", script.name);
        }
    }
    failures
}
