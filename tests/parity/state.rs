//! The state after a script: the session's settings and leftovers, and the database's schema and rows.

use crate::catalog;
use crate::common::{Client, wait_until};
use pgsluice::dev::Postgres;

/// Of the session that ran the script.
pub(crate) fn of_session(client: &mut Client) -> Vec<String> {
    let mut lines = Vec::new();
    // A script may leave a block open, or failed.
    client.query("ROLLBACK");
    for sql in [
        "RESET ROLE",
        "SELECT name, setting FROM pg_settings WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name <> 'role' ORDER BY 1",
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')",
        "SELECT locktype, mode, count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' GROUP BY 1, 2",
        "SELECT name FROM pg_prepared_statements ORDER BY 1",
        "SELECT name, is_holdable FROM pg_cursors ORDER BY 1",
        "SELECT c.relname, c.relkind FROM pg_class c WHERE c.relpersistence = 't' ORDER BY 1",
    ] {
        lines.push(format!("{:?}", client.ok(sql).rows));
    }
    lines
}

const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// What `pg_dump --schema-only` does not show.
const INVALID: &str = "SELECT 'invalid index', i.indexrelid::regclass::text FROM pg_index i \
     WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) \
     UNION ALL SELECT 'not validated', conrelid::regclass || ' ' || conname FROM pg_constraint WHERE NOT convalidated \
     UNION ALL SELECT 'ours', relname FROM pg_class WHERE relname LIKE 'pgsluice%' ORDER BY 1, 2";

/// Every table and materialized view of the scripts', and sequences.
const RELATIONS: &str = "SELECT c.oid::regclass::text, c.relkind FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
     AND (c.relkind <> 'm' OR c.relispopulated) ORDER BY 1";

pub(crate) fn of_database(postgres: &Postgres, database: &str) -> Vec<String> {
    let mut lines = of_catalogue(postgres, database);
    if postgres.has("pg_dump") {
        lines.extend(dump(postgres, database));
    }
    lines
}

/// Without the words of `pg_dump`, which take longer than all else.
pub(crate) fn of_catalogue(postgres: &Postgres, database: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut client = Client::connect(postgres.port, &postgres.user, database);
    // The session that ran the script takes its temporary tables with it, which takes a moment.
    wait_until("the script's session has ended", || client.value(OTHERS) == "0");
    lines.push(format!("{:?}", client.ok(INVALID).rows));
    for relation in client.ok(RELATIONS).rows {
        let name = relation[0].clone().unwrap_or_default();
        let sql = match relation[1].as_deref() {
            Some("S") => format!("SELECT last_value, is_called FROM {name}"),
            _ => format!("SELECT t::text FROM ONLY {name} AS t ORDER BY 1"),
        };
        lines.push(format!("{name}: {:?}", client.ok(&sql).rows));
    }
    lines.extend(catalog::lines(&mut client));
    lines
}

fn dump(postgres: &Postgres, database: &str) -> Vec<String> {
    let port = postgres.port.to_string();
    let mut command = postgres.command("pg_dump");
    command.args(["--schema-only", "-h", "127.0.0.1", "-p", &port, "-U", &postgres.user, "-d", database]);
    let output = command.output().expect("pg_dump");
    assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let noise = |line: &&str| {
        !line.is_empty() && !["\\restrict", "\\unrestrict", "-- Dumped "].iter().any(|start| line.starts_with(start))
    };
    text.lines().filter(noise).map(str::to_owned).collect()
}
