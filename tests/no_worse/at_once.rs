//! The same statement from several sessions at once, as when every pod runs its migrations at boot.
//!
//! Without the proxy the server runs the statements one behind the other: a session that waited for the lock sees what the
//! others have made. The same must hold through the proxy, although it runs a statement in several steps.

use crate::catalog;
use crate::common::{Client, drop_database, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

const SESSIONS: usize = 3;

const TABLES: &str = "
    CREATE TABLE r (id int PRIMARY KEY);
    INSERT INTO r SELECT generate_series(0, 9);
    CREATE TABLE t (id bigint PRIMARY KEY, a int, b text);
    INSERT INTO t SELECT g, g % 10, 'x' FROM generate_series(1, 20000) g;
    CREATE TABLE pp (id int NOT NULL, a int) PARTITION BY RANGE (id);
    CREATE TABLE pp0 PARTITION OF pp FOR VALUES FROM (0) TO (10000);
    CREATE TABLE pp_rest PARTITION OF pp DEFAULT;
    INSERT INTO pp SELECT g, g FROM generate_series(1, 9000) g;
    INSERT INTO pp SELECT 50000 + g, g FROM generate_series(1, 9000) g";

/// What a pod's migration may be, and what each of the sessions gets: whoever comes later finds it there, or does it again.
const STATEMENTS: [(&str, Later); 18] = [
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS u float8 DEFAULT random()", Later::Done),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS f int UNIQUE", Later::Done),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS k int DEFAULT 1 NOT NULL CHECK (k > 0)", Later::Done),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS e int REFERENCES r", Later::Done),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS e int DEFAULT 1 REFERENCES r", Later::Done),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS s serial", Later::Done),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS i int GENERATED ALWAYS AS IDENTITY", Later::Done),
    ("ALTER TABLE t ALTER a SET NOT NULL", Later::Done),
    ("CREATE INDEX IF NOT EXISTS ia ON t (a)", Later::Done),
    ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS iu ON t (id, a)", Later::Done),
    ("CREATE TABLE IF NOT EXISTS pp1 PARTITION OF pp FOR VALUES FROM (10000) TO (20000)", Later::Done),
    ("CREATE INDEX IF NOT EXISTS ipp ON pp (a)", Later::Done),
    ("ALTER TABLE pp ADD COLUMN IF NOT EXISTS u float8 DEFAULT random()", Later::Done),
    // Each makes one of its own.
    ("ALTER TABLE t ADD CHECK (a < 10)", Later::Done),
    ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES r", Later::Done),
    ("ALTER TABLE t ADD COLUMN u float8 DEFAULT random()", Later::Fails("42701")),
    ("ALTER TABLE t ADD CONSTRAINT one UNIQUE (id)", Later::Fails("42P07")),
    ("ALTER TABLE t ADD CONSTRAINT small CHECK (a < 10)", Later::Fails("42710")),
];

#[derive(Clone, Copy)]
enum Later {
    Done,
    /// All but one of them, with this SQLSTATE.
    Fails(&'static str),
}

/// What they are told, sorted: a SQLSTATE or a tag; then what is there. `together`: not one behind the other.
fn sent(postgres: &Postgres, ports: &[u16], sql: &str, extended: bool, together: bool) -> (Vec<String>, Vec<String>) {
    let database = new_database(postgres, "at_once");
    let mut admin = Client::connect(postgres.port, &postgres.user, &database);
    admin.ok(TABLES);
    let barrier = Barrier::new(SESSIONS);
    let turn = Mutex::new(());
    let mut told: Vec<String> = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|n| {
                let (database, barrier, turn, port) = (&database, &barrier, &turn, ports[n % ports.len()]);
                scope.spawn(move || {
                    let mut client = Client::connect(port, &postgres.user, database);
                    barrier.wait();
                    let _one_at_a_time = (!together).then(|| turn.lock().expect("a turn"));
                    let outcome = if extended { client.execute(sql) } else { client.query(sql) };
                    outcome.error.unwrap_or_else(|| outcome.tags.join(" "))
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().expect("a session")).collect()
    });
    told.sort_unstable();
    let others = "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    wait_until("their sessions have ended", || admin.value(others) == "0");
    let mut there = catalog::lines(&mut admin);
    for left in [
        "SELECT 'lock ' || count(*) FROM pg_locks WHERE locktype = 'advisory'",
        "SELECT 'invalid ' || count(*) FROM pg_index WHERE NOT indisvalid",
        "SELECT 'record ' || count(*) FROM pg_description WHERE description LIKE 'pgsluice%'",
    ] {
        there.push(admin.value(left));
    }
    drop(admin);
    drop_database(postgres, &database);
    (told, there)
}

#[test]
fn every_pod_runs_its_migration_at_boot() {
    let postgres = postgres();
    let proxies = [(); 2].map(|()| {
        proxy(&postgres, |config| {
            no_table_is_small(config);
            config.backfill.pause_ratio = 0.0;
            config.locks.hold_budget = Duration::from_secs(60);
        })
    });
    let ports = [port(&proxies[0]), port(&proxies[1])];
    let mut worse = Vec::new();
    for (sql, later) in STATEMENTS {
        for extended in [false, true] {
            // At once, even the server has a race or two of its own (a deadlock of concurrent builds).
            let (_, there_directly) = sent(&postgres, &[postgres.port], sql, extended, false);
            let (told, there) = sent(&postgres, &ports, sql, extended, true);
            let errors: Vec<&String> = told.iter().filter(|told| told.len() == 5 && !told.contains(' ')).collect();
            let expected = match later {
                Later::Done => errors.is_empty(),
                Later::Fails(sqlstate) => errors.len() == SESSIONS - 1 && errors.iter().all(|told| *told == sqlstate),
            };
            if !expected {
                worse.push(format!("{sql} (extended: {extended}): {told:?}"));
            }
            for (direct, proxied) in there_directly.iter().zip(&there).filter(|(a, b)| a != b).take(4) {
                worse.push(format!("{sql} (extended: {extended}):\n- {direct}\n+ {proxied}"));
            }
            if there_directly.len() != there.len() {
                worse.push(format!("{sql} (extended: {extended}): {} and {} lines", there_directly.len(), there.len()));
            }
        }
    }
    assert!(worse.is_empty(), "{}", worse.join("\n"));
}
