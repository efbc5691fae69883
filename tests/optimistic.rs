//! Tests of the optimistic try: what it does in one round trip, which statements it leaves to the full way, and that it
//! leaves nothing of its own behind.

mod common;

use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;
use std::time::Duration;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const TABLES: &str = "CREATE TABLE o (id int PRIMARY KEY);
    CREATE TABLE t (id int PRIMARY KEY, a int, b text);
    INSERT INTO t SELECT g, g, g FROM generate_series(1, 100) g; CREATE INDEX i ON t (b);
    CREATE TABLE large (id int, a int, b text); CREATE INDEX large_i ON large (b);
    INSERT INTO large SELECT g, g, repeat('x', 100) FROM generate_series(1, 20000) g;
    CREATE TABLE child (LIKE t) INHERITS (t); CREATE TABLE alone (id int PRIMARY KEY, a int);
    CREATE TABLE pointing (a int REFERENCES alone); CREATE VIEW v AS SELECT id FROM large;
    CREATE TABLE parted (id int, a int CONSTRAINT positive CHECK (a > 0)) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF parted DEFAULT PARTITION BY RANGE (id); CREATE TABLE leaf PARTITION OF part DEFAULT;
    CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE FUNCTION slow() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(2)'";

struct Stage {
    running: Running,
    direct: Client,
    /// In no transaction, so that it sees the server's activity as it is.
    watcher: Client,
    client: Client,
}

impl Stage {
    fn new(name: &str) -> Self {
        let running = proxy(&SERVER, |config| config.locks.hold_budget = Duration::from_secs(1));
        let database = new_database(&SERVER, name);
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
        direct.ok(TABLES);
        let client = Client::connect(port(&running), &SERVER.user, &database);
        let watcher = Client::connect(SERVER.port, &SERVER.user, &database);
        Self { running, direct, watcher, client }
    }

    /// How many statements were done at the first try so far.
    fn done(&self) -> u64 {
        self.running.shared().metrics.first_tries_done.value()
    }

    /// Whether it is done at the first try.
    fn is_first(&mut self, sql: &str) -> bool {
        let before = self.done();
        self.client.ok(sql);
        self.done() > before
    }
}

#[test]
fn ordinary_tables_need_no_facts() {
    let mut stage = Stage::new("first");
    for sql in [
        "ALTER TABLE o ADD COLUMN a int",
        "ALTER TABLE o ADD COLUMN c float DEFAULT random()",
        "ALTER TABLE o ALTER a TYPE bigint",
        "ALTER TABLE alone ALTER a TYPE bigint",
        "CREATE INDEX ON o (a)",
        "DROP INDEX o_a_idx",
        "DROP INDEX IF EXISTS o_a_idx",
        "DROP INDEX IF EXISTS nowhere.o_a_idx",
        "ALTER TABLE large ADD COLUMN c int",
        "BEGIN; ALTER TABLE large ADD COLUMN d int; COMMIT",
        "CREATE TABLE n (o int REFERENCES o, l int)",
        "DROP TABLE n",
        "DROP TABLE IF EXISTS n",
        "DROP TABLE IF EXISTS nowhere.n",
        "CREATE TABLE n (o int REFERENCES o, l int UNIQUE)",
        "CREATE TABLE m (n int REFERENCES n (l))",
        "ALTER TABLE n DROP COLUMN l CASCADE",
        "DROP TABLE IF EXISTS n, nowhere.n CASCADE",
        "DROP TABLE m CASCADE",
        "CREATE OR REPLACE VIEW v AS SELECT id, a FROM large",
        "BEGIN; DROP VIEW v; ROLLBACK",
        "ALTER TABLE parted ADD COLUMN b int, ALTER a SET DEFAULT 7",
        "ALTER TABLE parted ADD CONSTRAINT c CHECK (b > 0) NOT VALID",
        "CREATE TRIGGER g AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION fires()",
        "BEGIN; ALTER TABLE parted RENAME b TO c; COMMIT",
        "DROP VIEW IF EXISTS nothing, nowhere.nothing",
    ] {
        assert!(stage.is_first(sql), "{sql}");
    }
    // The size, children, keys that point to it, a view under another name's lock.
    for sql in [
        "ALTER TABLE large ADD COLUMN e float DEFAULT random()",
        "CREATE INDEX ON large (a)",
        "DROP INDEX large_i",
        "ALTER TABLE t ADD COLUMN c int",
        "ALTER TABLE alone ALTER id TYPE bigint",
        "COMMENT ON COLUMN v.id IS 'x'",
        "ALTER TABLE leaf ALTER a SET DEFAULT 3",
        "ALTER TABLE parted ADD COLUMN d int DEFAULT 7",
        "ALTER TABLE parted DROP CONSTRAINT positive",
        "COMMENT ON COLUMN parted.a IS 'x'",
    ] {
        assert!(!stage.is_first(sql), "{sql}");
    }
    stage.running.stop_now();
}

/// A lock or a lane that is taken: the full way waits for it.
#[test]
fn who_is_in_the_way_is_waited_for() {
    let mut stage = Stage::new("way");
    let before = stage.done();
    for (table, take, give) in [
        ("o", "BEGIN; SELECT * FROM o", "COMMIT"),
        (
            "o",
            "SELECT pg_advisory_lock(1885827948, 'o'::regclass::oid::int)",
            "SELECT pg_advisory_unlock(1885827948, 'o'::regclass::oid::int)",
        ),
        ("parted", "BEGIN; SELECT * FROM leaf", "COMMIT"),
    ] {
        stage.direct.ok(take);
        stage.client.send_query(&format!("ALTER TABLE {table} ADD COLUMN n int"));
        let pid = stage.client.pid;
        let waits =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '/* pgsluice: waiting%'");
        wait_until("it waits", || stage.watcher.value(&waits) == "1");
        stage.direct.ok(give);
        assert_eq!(stage.client.outcome().error, None);
        stage.client.ok("ALTER TABLE large DROP COLUMN IF EXISTS nothing");
        stage.direct.ok(&format!("ALTER TABLE {table} DROP COLUMN n"));
    }
    assert_eq!(stage.done(), before + 3, "those that drop nothing");
    stage.running.stop_now();
}

/// Whatever the session had set holds behind it, in the transaction and after it.
#[test]
fn the_timeouts_are_the_sessions_own() {
    let mut stage = Stage::new("timeouts");
    let both = "SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')";
    stage.client.ok("SET lock_timeout = '3s'; SET statement_timeout = '1min'");
    assert!(stage.is_first("ALTER TABLE o ADD COLUMN a int"));
    assert_eq!(stage.client.value(both), "3s 1min");
    stage.client.ok("BEGIN; SET LOCAL lock_timeout = '7s'; SET LOCAL statement_timeout = '2min'");
    assert!(stage.is_first("ALTER TABLE o ADD COLUMN b int"));
    assert_eq!(stage.client.value(both), "7s 2min");
    let lanes = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    assert_eq!(stage.client.value(lanes), "0", "in the block");
    // One that comes to nothing at the first try.
    stage.client.ok("ALTER TABLE t ADD COLUMN c int");
    assert_eq!(stage.client.value(both), "7s 2min");
    stage.client.ok("COMMIT");
    assert_eq!(stage.client.value(both), "3s 1min");
    assert_eq!(stage.client.value("SELECT count(*) FROM pg_prepared_statements"), "0");
    assert_eq!(stage.client.value(lanes), "0");
    stage.running.stop_now();
}

/// A step that takes long though its table is small.
#[test]
fn a_slow_step_goes_another_way() {
    let mut stage = Stage::new("slow");
    let slow = "ALTER TABLE o ADD COLUMN s int DEFAULT slow()";
    stage.direct.ok("INSERT INTO o VALUES (1)");
    // The hold budget ends it; then it is done in phases.
    let outcome = stage.client.ok(slow);
    assert!(!outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{outcome:?}");
    assert_eq!(stage.running.shared().metrics.hold_budget_outlived.value(), 1);
    stage.direct.ok("ALTER TABLE o DROP COLUMN s");
    // The session's own limit, which is stricter, is an error.
    stage.client.ok("SET statement_timeout = '100ms'");
    assert_eq!(stage.client.query(slow).error.as_deref(), Some("57014"));
    stage.client.ok("RESET statement_timeout");
    // By the client, in a block, which is failed as it would be directly.
    stage.client.ok("BEGIN");
    stage.client.send_query(slow);
    let pid = stage.client.pid;
    let sleeps = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    wait_until("it sleeps", || stage.direct.value(&sleeps) == "1");
    stage.client.cancel(port(&stage.running));
    let outcome = stage.client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'E'));
    stage.client.ok("ROLLBACK");
    let left = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'o'::regclass AND attname = 's'";
    assert_eq!(stage.direct.value(left), "0");
    stage.running.stop_now();
}

/// A session tries nothing twice that it knows to be in vain; another one knows nothing of it.
#[test]
fn what_was_in_vain_is_remembered() {
    let mut stage = Stage::new("vain");
    assert!(!stage.is_first("CREATE INDEX ON large (a)"));
    stage.direct.ok("TRUNCATE large");
    assert!(!stage.is_first("CREATE INDEX ON large (a)"));
    assert!(stage.is_first("ALTER TABLE large ADD COLUMN n int"), "what does not depend on its size");
    stage.client =
        Client::connect(port(&stage.running), &SERVER.user, &stage.client.value("SELECT current_database()"));
    assert!(stage.is_first("CREATE INDEX ON large (a)"));
    stage.running.stop_now();
}

/// A concurrent build asks for little; what it leaves when it fails goes, and nothing else.
#[test]
fn a_failed_build_takes_its_own_index_alone_with_it() {
    let mut stage = Stage::new("build");
    stage.direct.ok("INSERT INTO large VALUES (1, 1, 'twice')");
    assert_eq!(
        stage.direct.query("CREATE UNIQUE INDEX CONCURRENTLY theirs ON large (id)").error.as_deref(),
        Some("23505")
    );
    let outcome = stage.client.query("CREATE UNIQUE INDEX CONCURRENTLY ours ON large (id)");
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("23505"), 'I'), "{outcome:?}");
    let invalid = "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE NOT indisvalid";
    assert_eq!(stage.direct.value(invalid), "theirs");
    // Its name is taken: as an index by one that was left, which goes first, and by a table.
    stage.direct.ok("DELETE FROM large WHERE b = 'twice'");
    let outcome = stage.client.ok("CREATE UNIQUE INDEX CONCURRENTLY theirs ON large (id)");
    assert!(
        outcome.notices.iter().any(|notice| notice.contains("of an earlier build is dropped first")),
        "{outcome:?}"
    );
    assert_eq!(stage.client.query("CREATE INDEX CONCURRENTLY o ON large (id)").error.as_deref(), Some("42P07"));
    assert_eq!(stage.client.query("CREATE INDEX CONCURRENTLY i2 ON nothing (id)").error.as_deref(), Some("42P01"));
    assert_eq!(stage.client.query("CREATE INDEX CONCURRENTLY i2 ON v (id)").error.as_deref(), Some("42809"));
    stage.client.ok("CREATE INDEX CONCURRENTLY i2 ON large (id)");
    assert_eq!(stage.direct.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
    stage.running.stop_now();
}
