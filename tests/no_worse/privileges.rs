//! Roles without privileges that every role has by default: their schema changes do what they do directly.

use super::common::{Client, drop_database, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use std::sync::LazyLock;

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const RELATIONS: [&str; 14] = [
    "pg_locks",
    "pg_stat_activity",
    "pg_database",
    "pg_event_trigger",
    "pg_roles",
    "pg_prepared_xacts",
    "pg_class",
    "pg_constraint",
    "pg_index",
    "pg_inherits",
    "pg_description",
    "pg_proc",
    "pg_type",
    "pg_stat_progress_vacuum",
];

const FUNCTIONS: [&str; 21] = [
    "set_config(text, text, boolean)",
    "current_setting(text)",
    "current_setting(text, boolean)",
    "pg_sleep(float8)",
    "pg_try_advisory_lock(int, int)",
    "pg_try_advisory_xact_lock(int, int)",
    "pg_advisory_unlock(int, int)",
    "pg_backend_pid()",
    "pg_relation_size(regclass, text)",
    "pg_relation_size(regclass)",
    "pg_table_size(regclass)",
    "pg_relation_filenode(regclass)",
    "to_regclass(text)",
    "to_regnamespace(text)",
    "current_schemas(boolean)",
    "has_table_privilege(oid, text)",
    "has_function_privilege(oid, text)",
    "json_build_object(VARIADIC \"any\")",
    "to_jsonb(anyelement)",
    "pg_get_constraintdef(oid)",
    "txid_current_if_assigned()",
];

const TABLES: &str = "
    CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r SELECT generate_series(1, 10);
    CREATE TABLE t (id int, a int, b text); INSERT INTO t SELECT g, g % 10 + 1, 'x' FROM generate_series(1, 500) g;
    CREATE TABLE u (id int); INSERT INTO u VALUES (1)";

/// At the first try, in phases, by a build, by a backfill, in a block, in a string, and what fails.
const STATEMENTS: [&str; 20] = [
    "ALTER TABLE t ADD COLUMN c int",
    "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0)",
    "ALTER TABLE t ALTER a SET NOT NULL",
    "CREATE INDEX ia ON t (a)",
    "CREATE INDEX CONCURRENTLY ib ON t (b)",
    "ALTER TABLE t ADD COLUMN d float8 DEFAULT random() NOT NULL",
    "ALTER TABLE t ADD CONSTRAINT of_r FOREIGN KEY (a) REFERENCES r",
    "ALTER TABLE t ADD UNIQUE (id)",
    "BEGIN",
    "ALTER TABLE t ADD COLUMN e int DEFAULT 1",
    "CREATE INDEX ie ON t (e)",
    "SAVEPOINT s",
    "ALTER TABLE t DROP COLUMN no_such",
    "ROLLBACK TO SAVEPOINT s",
    "COMMIT",
    "ALTER TABLE t ADD COLUMN f int; CREATE INDEX ig ON t (f); DROP INDEX ia",
    "ALTER TABLE t ADD CONSTRAINT broken CHECK (a > 5)",
    "ALTER TABLE t ALTER a TYPE bigint",
    "TRUNCATE u",
    "DROP TABLE u",
];

const STATE: &str = "
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
      SELECT concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attisdropped) AS line
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND attnum > 0
      UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
      UNION ALL SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid)
        FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = 'public'::regnamespace
      UNION ALL SELECT concat_ws(' ', count(*), count(d)) FROM t) AS state";

/// What is said of each statement, and the schema that comes of all.
fn outcome(port: u16, database: &str, way: fn(&mut Client, &str) -> super::common::Outcome) -> (Vec<String>, usize) {
    let mut client = Client::connect(port, "plain", database);
    client.ok(TABLES);
    let (mut said, mut told) = (Vec::new(), 0);
    for sql in STATEMENTS {
        let outcome = if sql.contains("; ") { client.query(sql) } else { way(&mut client, sql) };
        told += outcome.notices.iter().filter(|notice| notice.contains("run as written")).count();
        said.push(format!("{sql}: {:?} {:?} {:?}", outcome.tags, outcome.error, outcome.status));
    }
    let mut admin = Client::connect(SERVER.port, &SERVER.user, database);
    said.push(admin.value(STATE));
    admin.ok("DROP TABLE t, r");
    (said, told)
}

/// `revoked`: behind REVOKE … ON.
fn check(proxy: u16, revoked: &str, expected_to_tell: bool) {
    let database = new_database(&SERVER, "revoked");
    let mut admin = Client::connect(SERVER.port, &SERVER.user, &database);
    admin.ok("GRANT CREATE ON SCHEMA public TO plain");
    admin.ok(&format!("REVOKE ALL ON {revoked} FROM PUBLIC"));
    let (direct, _) = outcome(SERVER.port, &database, |client, sql| client.query(sql));
    let (simple, told) = outcome(proxy, &database, |client, sql| client.query(sql));
    assert_eq!(simple, direct, "without {revoked}");
    assert_eq!(told, usize::from(expected_to_tell), "without {revoked} it is told once");
    let (extended, _) = outcome(proxy, &database, |client, sql| client.execute(sql));
    assert_eq!(extended, direct, "without {revoked}, by the extended protocol");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    wait_until("no lane is left", || admin.value(locks) == "0");
    drop(admin);
    drop_database(&SERVER, &database);
}

#[test]
fn what_may_not_be_asked_is_not_needed() {
    Client::connect(SERVER.port, &SERVER.user, "postgres").ok("CREATE ROLE plain LOGIN");
    let running = proxy(&SERVER, no_table_is_small);
    for relation in RELATIONS {
        check(port(&running), &format!("pg_catalog.{relation}"), true);
    }
    for function in FUNCTIONS {
        check(port(&running), &format!("FUNCTION pg_catalog.{function}"), true);
    }
    // Such a role has its plans still where nothing is revoked.
    check(port(&running), "pg_catalog.pg_ts_dict", false);
    in_the_way(port(&running));
}

/// Somebody is in the way for longer than a try lasts: the statement waits, and nobody waits long behind it.
fn in_the_way(proxy: u16) {
    let database = new_database(&SERVER, "in_the_way");
    let mut admin = Client::connect(SERVER.port, &SERVER.user, &database);
    admin.ok("GRANT CREATE ON SCHEMA public TO plain; REVOKE ALL ON pg_catalog.pg_locks FROM PUBLIC");
    let mut client = Client::connect(proxy, "plain", &database);
    client.ok(TABLES);
    for block in [false, true] {
        if block {
            client.ok("BEGIN; SET LOCAL lock_timeout = '20s'");
        }
        admin.ok("BEGIN; SELECT count(*) FROM t");
        client.send_query("ALTER TABLE t ADD COLUMN IF NOT EXISTS late int");
        let mut reader = Client::connect(SERVER.port, "plain", &database);
        for _ in 0..20 {
            let begun = std::time::Instant::now();
            reader.ok("SELECT count(*) FROM t");
            assert!(begun.elapsed() < std::time::Duration::from_millis(900), "{:?}", begun.elapsed());
        }
        admin.ok("COMMIT");
        assert_eq!(client.outcome().error, None);
        assert_eq!(client.value("SHOW lock_timeout"), if block { "20s" } else { "0" });
        client.query("COMMIT");
    }
    client.ok("SET lock_timeout = '300ms'");
    admin.ok("BEGIN; SELECT count(*) FROM t");
    assert_eq!(client.query("ALTER TABLE t DROP COLUMN late").error.as_deref(), Some("55P03"));
    admin.ok("COMMIT");
}

/// What was free when it was asked is revoked while the session is there.
#[test]
fn a_privilege_is_revoked_meanwhile() {
    let running = proxy(&SERVER, no_table_is_small);
    let database = new_database(&SERVER, "meanwhile");
    let mut admin = Client::connect(SERVER.port, &SERVER.user, &database);
    admin.ok("CREATE ROLE later LOGIN; GRANT CREATE ON SCHEMA public TO later");
    let mut client = Client::connect(port(&running), "later", &database);
    client.ok(TABLES);
    client.ok("CREATE INDEX first ON t (a)");
    admin.ok("REVOKE ALL ON pg_catalog.pg_locks FROM PUBLIC");
    for (nth, sql) in ["CREATE INDEX second ON t (b)", "ALTER TABLE t ADD CHECK (a > 0)"].iter().enumerate() {
        let outcome = client.ok(sql);
        let told = outcome.notices.iter().filter(|notice| notice.contains("run as written")).count();
        assert_eq!(told, usize::from(nth == 0), "{outcome:?}");
    }
    client.ok("BEGIN");
    client.ok("ALTER TABLE t ADD COLUMN z float8 DEFAULT random()");
    client.ok("COMMIT");
    assert_eq!(admin.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid"), "2");
}

/// What is cancelled or left while it pauses ends there, and a session that may not idle in its transaction for long is not ended.
#[test]
fn a_pause_can_be_ended() {
    let running = proxy(&SERVER, no_table_is_small);
    let database = new_database(&SERVER, "pause");
    let mut admin = Client::connect(SERVER.port, &SERVER.user, &database);
    admin.ok("CREATE ROLE pauses LOGIN; GRANT CREATE ON SCHEMA public TO pauses");
    admin.ok("REVOKE ALL ON pg_catalog.pg_locks FROM PUBLIC");
    let mut client = Client::connect(port(&running), "pauses", &database);
    client.ok(TABLES);
    admin.ok("BEGIN; SELECT count(*) FROM t");
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
    let tried = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state LIKE 'idle%' AND query = 'SHOW lock_timeout'",
        client.pid
    );
    for block in [false, true] {
        if block {
            client.ok("BEGIN; SET LOCAL idle_in_transaction_session_timeout = '700ms'");
        }
        client.send_query("ALTER TABLE t ADD COLUMN c int");
        let begun = std::time::Instant::now();
        // Long enough for the pauses to have grown.
        wait_until("it pauses", || watcher.value(&tried) == "1" && begun.elapsed() > std::time::Duration::from_secs(3));
        client.cancel(port(&running));
        let outcome = client.outcome();
        assert_eq!(outcome.error.as_deref(), Some("57014"), "{outcome:?}");
        assert_eq!(outcome.status, if block { 'E' } else { 'I' });
    }
    client.ok("ROLLBACK");
    client.send_query("ALTER TABLE t ADD COLUMN c int");
    wait_until("it pauses", || watcher.value(&tried) == "1");
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", client.pid);
    client.reset();
    wait_until("its session has ended", || watcher.value(&gone) == "0");
    admin.ok("COMMIT");
    assert_eq!(admin.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'"), "0");
}
