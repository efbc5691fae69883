//! Tests that no wait of the proxy's makes the application wait for longer than the stall budget, not even when two schema
//! changes block each other or when one is undone.
//!
//! The server reports the waits: it logs each session that has waited for a lock for `deadlock_timeout`.

use super::common::{Client, new_database, port, proxy, wait_until};
use pgsluice::config::{Config, OnDisconnect};
use pgsluice::dev::{Options, Postgres};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The stall budget, and what two cores that a whole test suite shares may add to it.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

const TABLES: &str = "CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o SELECT generate_series(0, 99);
    CREATE TABLE t (id bigint PRIMARY KEY, v int NOT NULL, n int, w text);
    INSERT INTO t SELECT g, 0, g % 100, 'x' || g FROM generate_series(1, 30000) g;
    CREATE TABLE u (id bigint PRIMARY KEY, t bigint); INSERT INTO u SELECT g, g FROM generate_series(1, 30000) g";

/// Statements of two sessions at once, and what makes all as it was.
const CONFLICTS: [(&str, &str, &str); 6] = [
    (
        "ALTER TABLE t ADD COLUMN c float8 DEFAULT random()",
        "ALTER TABLE t ADD CHECK (v >= 0)",
        "ALTER TABLE t DROP COLUMN IF EXISTS c, DROP CONSTRAINT IF EXISTS t_v_check",
    ),
    (
        "ALTER TABLE u ADD FOREIGN KEY (t) REFERENCES t",
        "ALTER TABLE t ADD COLUMN c float8 DEFAULT random()",
        "ALTER TABLE u DROP CONSTRAINT IF EXISTS u_t_fkey; ALTER TABLE t DROP COLUMN IF EXISTS c",
    ),
    (
        "ALTER TABLE u ADD FOREIGN KEY (t) REFERENCES t",
        "ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES o, ADD FOREIGN KEY (id) REFERENCES u",
        "ALTER TABLE u DROP CONSTRAINT IF EXISTS u_t_fkey; ALTER TABLE t DROP CONSTRAINT IF EXISTS t_n_fkey, DROP CONSTRAINT IF EXISTS t_id_fkey",
    ),
    (
        "CREATE INDEX made ON t (v)",
        "ALTER TABLE t ALTER n SET NOT NULL",
        "DROP INDEX IF EXISTS made; ALTER TABLE t ALTER n DROP NOT NULL",
    ),
    ("CREATE INDEX made ON t (v)", "CREATE INDEX made_too ON t (n)", "DROP INDEX IF EXISTS made, made_too"),
    (
        "ALTER TABLE t ADD COLUMN c serial UNIQUE",
        "ALTER TABLE t DROP COLUMN w, ADD COLUMN w text",
        "ALTER TABLE t DROP COLUMN IF EXISTS c",
    ),
];

fn server() -> Postgres {
    let milliseconds = LONGEST_WAIT.as_millis().to_string();
    let options = Options::default().setting("log_lock_waits", "on").setting("deadlock_timeout", milliseconds);
    Postgres::start(options.setting("autovacuum", "off")).expect("a throw-away server")
}

fn tweak(config: &mut Config) {
    config.ddl.small_table = 0;
    config.backfill.pause_ratio = 1.0;
}

/// Writes and reads until it is told to stop; which backend it was.
fn application(mut client: Client, number: u64, stop: &AtomicBool, done: &AtomicU64) -> i32 {
    let mut nth = number;
    while !stop.load(Ordering::Relaxed) {
        let id = 1 + nth * 7919 % 30_000;
        client.ok(&format!("UPDATE t SET v = v + 1 WHERE id = {id}"));
        client.ok(&format!("SELECT v FROM t WHERE id = {id}"));
        client.ok(&format!("UPDATE u SET t = t WHERE id = {id}"));
        done.fetch_add(1, Ordering::Relaxed);
        nth += 3;
    }
    client.pid
}

/// What the application has waited for, while `meanwhile` goes on.
fn waits_of_the_application(postgres: &Postgres, database: &str, meanwhile: impl FnOnce()) -> Vec<String> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let from = postgres.log().len();
    let pids: Vec<i32> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..3)
            .map(|number| {
                let client = Client::connect(postgres.port, &postgres.user, database);
                let (stop, done) = (&stop, &done);
                scope.spawn(move || application(client, number, stop, done))
            })
            .collect();
        wait_until("the application works", || done.load(Ordering::Relaxed) > 50);
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        sessions.into_iter().map(|session| session.join().expect("a session")).collect()
    });
    let log = postgres.log();
    let theirs = |line: &&str| pids.iter().any(|pid| line.contains(&format!("process {pid} still waiting")));
    log[from..].lines().filter(theirs).map(str::to_owned).collect()
}

#[test]
fn two_schema_changes_in_each_others_way() {
    let postgres = server();
    let running = proxy(&postgres, tweak);
    let database = new_database(&postgres, "conflict");
    let connect = || Client::connect(port(&running), &postgres.user, &database);
    let mut direct = Client::connect(postgres.port, &postgres.user, &database);
    direct.ok(TABLES);
    let mut all = Vec::new();
    for _ in 0..2 {
        for (one, other, back) in CONFLICTS {
            let waits = waits_of_the_application(&postgres, &database, || {
                let (mut first, mut second) = (connect(), connect());
                first.send_query(one);
                second.send_query(other);
                let ends = [first.outcome().error, second.outcome().error];
                assert!(ends.contains(&None), "{one} | {other}: {ends:?}");
            });
            for wait in waits {
                all.push(format!("{one} | {other}: {wait}"));
            }
            direct.ok(back);
        }
    }
    running.stop_now();
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn a_client_that_is_cut_off() {
    let postgres = server();
    let running = proxy(&postgres, |config| {
        tweak(config);
        config.ddl.on_disconnect = OnDisconnect::Undo;
    });
    let database = new_database(&postgres, "cut");
    let connect = || Client::connect(port(&running), &postgres.user, &database);
    let mut direct = Client::connect(postgres.port, &postgres.user, &database);
    direct.ok(TABLES);
    let mut all = Vec::new();
    let column = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'";
    let filled = "SELECT count(*) > 3000 FROM t WHERE c IS NOT NULL";
    for round in 0..4 {
        let waits = waits_of_the_application(&postgres, &database, || {
            let mut client = connect();
            client.send_query("ALTER TABLE t ADD COLUMN c float8 NOT NULL DEFAULT random()");
            wait_until("the column is there", || direct.value(column) == "1");
            wait_until("it is being filled", || direct.value(filled) == "t");
            drop(client);
            wait_until("the column is gone", || direct.value(column) == "0");
        });
        all.extend(waits.into_iter().map(|wait| format!("{round}: {wait}")));
    }
    running.stop_now();
    assert!(all.is_empty(), "{all:#?}");
}

/// Transactions of both tables overlap, so that NOWAIT never has them, and neither is to be had at once: all that is waited for has one
/// budget together.
#[test]
fn a_statement_that_queues_for_two_tables() {
    let postgres = server();
    let running = proxy(&postgres, |config| {
        tweak(config);
        config.locks.starve_after = Duration::from_millis(100);
        config.locks.ladder_start = Duration::from_millis(200);
    });
    let database = new_database(&postgres, "queue");
    let mut direct = Client::connect(postgres.port, &postgres.user, &database);
    direct.ok(TABLES);
    let stop = AtomicBool::new(false);
    let waits = thread::scope(|scope| {
        for (number, table) in ["t", "t", "u", "u"].into_iter().enumerate() {
            let (stop, mut client) = (&stop, Client::connect(postgres.port, &postgres.user, &database));
            scope.spawn(move || {
                // Apart from each other.
                client.ok(&format!("SELECT pg_sleep(0.03 * {number})"));
                while !stop.load(Ordering::Relaxed) {
                    client
                        .ok(&format!("BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE; SELECT pg_sleep(0.08); COMMIT"));
                }
            });
        }
        let waits = waits_of_the_application(&postgres, &database, || {
            let mut client = Client::connect(port(&running), &postgres.user, &database);
            for _ in 0..3 {
                client.ok("ALTER TABLE u ADD CONSTRAINT fk FOREIGN KEY (t) REFERENCES t");
                client.ok("ALTER TABLE u DROP CONSTRAINT fk");
            }
        });
        stop.store(true, Ordering::Relaxed);
        waits
    });
    assert!(waits.is_empty(), "{waits:#?}");
    running.stop_now();
}

/// Of many that wait for one table, one looks who is in the way. The others are told so, and can be cancelled.
#[test]
fn who_is_not_first_in_a_lane_looks_seldom() {
    let options = Options::default().setting("log_statement", "all").setting("log_line_prefix", "[%p] ");
    let postgres = Postgres::start(options).expect("a throw-away server");
    let running = proxy(&postgres, |_| {});
    let database = new_database(&postgres, "seldom");
    let connect = || Client::connect(port(&running), &postgres.user, &database);
    let mut holder = Client::connect(postgres.port, &postgres.user, &database);
    holder.ok("CREATE TABLE t (id int)");
    holder.ok("BEGIN; SELECT * FROM t");
    let mut clients: Vec<Client> = (0..8).map(|_| connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_query(&format!("ALTER TABLE t ADD COLUMN c{number} int"));
    }
    for client in &mut clients {
        let notice = client.read();
        assert_eq!((notice.tag, notice.field(b'V').as_deref()), (b'N', Some("NOTICE")));
    }
    let counted = |log: &str, pid: i32, what: &str| {
        log.lines().filter(|line| line.starts_with(&format!("[{pid}] ")) && line.contains(what)).count()
    };
    let naps = |pid: i32| counted(&postgres.log(), pid, "pg_sleep");
    wait_until("they have napped", || clients.iter().all(|client| naps(client.pid) > 20));
    let log = postgres.log();
    let looks: Vec<usize> = clients.iter().map(|client| counted(&log, client.pid, "WITH RECURSIVE need")).collect();
    assert!(looks.iter().filter(|looks| **looks > 2).count() <= 1, "{looks:?}");
    clients[5].cancel(port(&running));
    assert_eq!(clients[5].outcome().error.as_deref(), Some("57014"));
    holder.ok("COMMIT");
    for (number, client) in clients.iter_mut().enumerate().filter(|(number, _)| *number != 5) {
        assert_eq!(client.outcome().error, None, "{number}");
    }
    running.stop_now();
}
