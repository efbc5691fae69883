//! A concurrent index build in place of a plain one, while another session holds an old snapshot. The plain build would not
//! wait for that snapshot.

use super::common::raw::{bind, execute, flush, parse, sync};
use super::common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::Config;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

fn stage(rows: u32, tweak: impl FnOnce(&mut Config)) -> (String, Running, Client) {
    let database = new_database(&SERVER, "waiting");
    let running = proxy(&SERVER, |config| {
        // None of the tables is; 0 would say that nothing is to be built on plainly.
        config.ddl.small_table = 1;
        tweak(config);
    });
    let mut admin = Client::connect(SERVER.port, &SERVER.user, &database);
    admin.ok(&format!(
        "CREATE TABLE t (id int, a int, b text); INSERT INTO t SELECT g, g, repeat('x', 100) FROM generate_series(1, {rows}) g; \
         CREATE TABLE history (version int); INSERT INTO history SELECT generate_series(1, 10); \
         CREATE TABLE p (id int, a int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10000); \
         INSERT INTO p SELECT g, g FROM generate_series(1, 5000) g"
    ));
    (database, running, admin)
}

/// In a transaction whose last portal is open, as Flyway's other connection is: it pins a snapshot. Idle, or amid a pipeline.
fn pin(mut client: Client, end: &[u8]) -> Client {
    client.ok("BEGIN");
    let portal = [parse("", "SELECT version FROM history"), bind("", "", &[]), execute("", 1)].concat();
    client.send(&[&portal, end].concat());
    client.read_up_to(if end == sync() { b"Z" } else { b"s" });
    client
}

const BUILDS: [&str; 6] = [
    "CREATE INDEX ia ON t (a)",
    "CREATE UNIQUE INDEX IF NOT EXISTS ib ON t (id)",
    "ALTER TABLE t ADD CONSTRAINT t_key UNIQUE (id, a)",
    "ALTER TABLE t ADD PRIMARY KEY (id)",
    "CREATE INDEX ON p (a)",
    "ALTER TABLE t ADD COLUMN u int UNIQUE",
];

/// Invalid indexes, advisory locks, records.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_index WHERE NOT indisvalid) || ' ' || \
     (SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE datname = current_database() AND locktype = 'advisory') \
     || ' ' || (SELECT count(*) FROM pg_description WHERE classoid = 'pg_type'::regclass AND description LIKE 'pgsluice%')";

/// What is small enough is built on plainly: nobody would ever end the wait for the client's own other connection.
#[test]
fn a_build_does_not_wait_for_the_same_client() {
    let (database, running, mut admin) = stage(20_000, |_| ());
    let connect = || Client::connect(port(&running), &SERVER.user, &database);
    let pinned = pin(connect(), &sync());
    let mut client = connect();
    for (nth, sql) in BUILDS.iter().enumerate() {
        let begun = Instant::now();
        let outcome = if nth % 2 == 0 { client.query(sql) } else { client.execute(sql) };
        assert_eq!(outcome.error, None, "{sql}: {outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{sql}: {:?}", begun.elapsed());
        let told = outcome.notices.iter().filter(|notice| notice.contains("is built at once")).count();
        assert_eq!(told, 1, "{sql}: {:?}", outcome.notices);
    }
    assert_eq!(client.query("CREATE UNIQUE INDEX ON t ((a % 10))").error.as_deref(), Some("23505"));
    assert_eq!(admin.value(LEFT), "0 0 0");
    assert_eq!(client.value("SHOW lock_timeout"), "0");
    drop(pinned);
}

/// The same of anybody's snapshot, also of one that was too young to be told of before the build; the application goes on meanwhile.
#[test]
fn a_build_does_not_wait_for_anybody_longer_than_it_takes() {
    let (database, running, mut admin) = stage(20_000, |_| ());
    let mut other = Client::connect(SERVER.port, &SERVER.user, &database);
    other.ok("SET application_name = 'report'");
    other.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM history");
    // Writes that come and go.
    let mut writer = Client::connect(SERVER.port, &SERVER.user, &database);
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.send_query("CREATE INDEX ia ON t (a)");
    let valid =
        "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE relname = 'ia' AND indisvalid";
    wait_until("it is built", || {
        let begun = Instant::now();
        writer.ok("UPDATE t SET b = 'y' WHERE id = 1");
        // The stall budget, and what a busy machine adds.
        assert!(begun.elapsed() < Duration::from_millis(1200), "a write waited for {:?}", begun.elapsed());
        admin.value(valid) == "1"
    });
    let outcome = client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert_eq!(admin.value(LEFT), "0 0 0");
    other.ok("COMMIT");
}

/// What would take too long is told of before it begins, and is done when the other ends; a cancel leaves nothing.
#[test]
fn what_is_larger_is_told_of() {
    // Nothing can be built within that.
    let (database, running, mut admin) = stage(20_000, |config| {
        config.locks.stall_budget = Duration::from_millis(1);
        config.locks.ladder_start = Duration::from_millis(1);
        config.locks.fallback_timeout = Duration::from_millis(1);
    });
    let connect = || Client::connect(port(&running), &SERVER.user, &database);
    for (ends, end) in [(true, flush()), (false, sync())] {
        let mut pinned = pin(connect(), &end);
        let mut client = connect();
        let begun = Instant::now();
        client.send_query("CREATE INDEX ia ON t (a)");
        let notice = client.read_up_to(b"N").pop().expect("a notice");
        assert!(begun.elapsed() < Duration::from_secs(10));
        let text = |code| notice.field(code).unwrap_or_default();
        assert!(text(b'M').contains("waits for an older snapshot"), "{notice:?}");
        assert!(
            text(b'D').contains(&format!("pid {}", pinned.pid)) && text(b'D').contains("same client"),
            "{notice:?}"
        );
        assert!(text(b'H').contains("end the transaction"), "{notice:?}");
        let waits =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'virtualxid'", client.pid);
        wait_until("the build waits", || admin.value(&waits) == "1");
        if ends {
            pinned.send(&sync());
            pinned.outcome();
            pinned.ok("COMMIT");
            assert_eq!(client.outcome().error, None);
            client.ok("DROP INDEX ia");
        } else {
            client.cancel(port(&running));
            assert_eq!(client.outcome().error.as_deref(), Some("57014"));
        }
        assert_eq!(admin.value(LEFT), "0 0 0");
    }
}

/// Whoever writes CONCURRENTLY wants to wait.
#[test]
fn what_is_written_concurrently_waits() {
    let (database, running, mut admin) = stage(1_000, |_| ());
    let connect = || Client::connect(port(&running), &SERVER.user, &database);
    let mut pinned = pin(connect(), &flush());
    let mut client = connect();
    client.send_query("CREATE INDEX CONCURRENTLY ia ON t (a)");
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'virtualxid' AND now() - query_start > '1500ms'",
        client.pid
    );
    wait_until("the build waits", || admin.value(&waits) == "1");
    pinned.send(&sync());
    pinned.outcome();
    pinned.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
}
