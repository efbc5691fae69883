//! Tests of every plan while sessions insert, update, delete and read. No statement of theirs fails, and none stands in a
//! lock queue for longer than it may. Afterwards every row is as the sessions made it, and the schema is that of a direct
//! run.
//!
//! The server reports the waits: it logs a session that has waited for a lock for `deadlock_timeout` and is still in the
//! queue. So neither the speed of the test nor that of the network counts. `PGSLUICE_FIRE_ROWS` sets the number of rows
//! (20,000; a million by hand), and `FIRE=word` selects cases.

#[path = "parity/catalog.rs"]
mod catalog;
mod common;

use common::{Client, new_database, port, proxy};
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::Running;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Each has rows of its own, so that they never wait for each other.
const SESSIONS: i64 = 3;

/// The stall budget (200 ms), which is for one lock attempt; and as much again and a half for the step that then holds the
/// lock, whose statements each may have to wait for one of two cores that a whole test suite shares.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// `{rows}` is the number of rows.
const TABLES: &str = "
    CREATE TABLE o (id int PRIMARY KEY);
    INSERT INTO o SELECT g FROM generate_series(0, 99) g;
    CREATE TABLE t (id bigint CONSTRAINT t_pk PRIMARY KEY, v int NOT NULL, n int, r int CONSTRAINT t_old REFERENCES o, w text,
      CONSTRAINT t_check CHECK (v >= -1));
    CREATE INDEX t_w ON t (w);
    INSERT INTO t SELECT g, 0, g % 7, g % 100, 'x' || g FROM generate_series(1, {rows}) g;
    CREATE TABLE keyless (id bigint, v int NOT NULL, n int, r int, w text);
    INSERT INTO keyless SELECT * FROM t;
    CREATE INDEX keyless_i ON keyless (id);
    CREATE TABLE p (id bigint NOT NULL, v int NOT NULL, n int, r int, w text) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (50000000) PARTITION BY RANGE (id);
    CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (1000) TO (10000);
    CREATE TABLE p2b PARTITION OF p2 DEFAULT;
    CREATE TABLE p_rest PARTITION OF p DEFAULT;
    INSERT INTO p SELECT * FROM t;
    CREATE INDEX p_i ON p (id);
    CREATE TABLE q (id bigint NOT NULL, v int NOT NULL, n int, r int, w text) PARTITION BY RANGE (id);
    CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (-1000) TO (0);
    CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (0) TO (50000000);
    INSERT INTO q SELECT * FROM t;
    CREATE INDEX q_i ON q (id);
    CREATE TABLE h (id bigint, v int NOT NULL, n int, r int, w text);
    CREATE TABLE h1 () INHERITS (h);
    INSERT INTO h SELECT * FROM t WHERE id % 2 = 0;
    INSERT INTO h1 SELECT * FROM t WHERE id % 2 = 1;
    CREATE INDEX h_i ON h (id);
    CREATE INDEX h1_i ON h1 (id);
    CREATE TABLE d (t bigint REFERENCES t, o int REFERENCES o);
    CREATE TABLE loose (LIKE t INCLUDING CONSTRAINTS);
    INSERT INTO loose SELECT 90000000 + id, v, n, r, w FROM t;
    CREATE MATERIALIZED VIEW m AS SELECT id, n FROM t WHERE n = 3;
    CREATE UNIQUE INDEX m_key ON m (id)";

/// The table that the application uses, and the schema change.
const CASES: [(&str, &str); 40] = [
    ("t", "ALTER TABLE t ALTER COLUMN n SET NOT NULL"),
    ("t", "ALTER TABLE t ADD CHECK (v >= 0)"),
    ("t", "ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES o"),
    ("t", "ALTER TABLE t ADD UNIQUE (w)"),
    ("keyless", "ALTER TABLE keyless ADD PRIMARY KEY (id)"),
    ("t", "ALTER TABLE t ADD COLUMN c text"),
    ("t", "ALTER TABLE t ADD COLUMN c float8 NOT NULL DEFAULT random()"),
    ("t", "ALTER TABLE t ADD COLUMN c serial"),
    ("t", "ALTER TABLE t ADD COLUMN c bigint GENERATED ALWAYS AS IDENTITY"),
    ("keyless", "ALTER TABLE keyless ADD COLUMN c bigserial PRIMARY KEY"),
    ("t", "ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT 7 CHECK (c > 0) REFERENCES o"),
    ("t", "ALTER TABLE t ADD COLUMN c uuid DEFAULT gen_random_uuid() UNIQUE"),
    (
        "t",
        "ALTER TABLE t ADD COLUMN c serial, ALTER n SET NOT NULL, ADD CHECK (r >= 0), ADD FOREIGN KEY (n) REFERENCES o",
    ),
    ("t", "CREATE INDEX ON t (v)"),
    ("t", "CREATE UNIQUE INDEX made ON t (w)"),
    ("t", "REINDEX TABLE t"),
    ("t", "DROP INDEX t_w"),
    ("t", "ALTER TABLE t DROP CONSTRAINT t_check"),
    ("t", "ALTER TABLE t DROP CONSTRAINT t_old"),
    ("t", "ALTER TABLE t DROP CONSTRAINT t_check, ADD CONSTRAINT t_check CHECK (v > -2)"),
    ("t", "ALTER TABLE t DROP COLUMN w"),
    ("t", "ALTER TABLE t RENAME COLUMN w TO words"),
    ("t", "CREATE TABLE referencing (t bigint REFERENCES t)"),
    ("t", "DROP TABLE d"),
    ("t", "TRUNCATE d"),
    ("h", "ALTER TABLE h ADD CHECK (v >= 0)"),
    ("h", "ALTER TABLE h ALTER COLUMN n SET NOT NULL"),
    ("h", "ALTER TABLE h ADD COLUMN c float8 NOT NULL DEFAULT random()"),
    ("t", "REFRESH MATERIALIZED VIEW m"),
    ("p", "CREATE INDEX ON p (v)"),
    ("p", "ALTER TABLE p ADD UNIQUE (id)"),
    ("p", "ALTER TABLE p ADD PRIMARY KEY (id)"),
    ("p", "ALTER TABLE p ADD FOREIGN KEY (n) REFERENCES o"),
    ("p", "ALTER TABLE p ALTER COLUMN n SET NOT NULL"),
    ("p", "ALTER TABLE p ADD CHECK (v >= 0)"),
    ("p", "ALTER TABLE p ADD COLUMN c float8 DEFAULT random()"),
    ("p", "ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM (90000000) TO (1000000000)"),
    ("p", "CREATE TABLE p_new PARTITION OF p FOR VALUES FROM (2000000000) TO (2100000000)"),
    ("q", "ALTER TABLE q DETACH PARTITION q1"),
    ("q", "DROP TABLE q1"),
];

fn rows() -> i64 {
    std::env::var("PGSLUICE_FIRE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(20_000)
}

#[test]
fn the_application_goes_on_while_its_schema_changes() {
    let milliseconds = LONGEST_WAIT.as_millis().to_string();
    let options = Options::default().setting("log_lock_waits", "on").setting("deadlock_timeout", milliseconds);
    // The directory's own load is no part of this.
    let postgres = Postgres::start(options.setting("autovacuum", "off")).expect("a throw-away server");
    let running = proxy(&postgres, |config| {
        config.ddl.small_table = 0;
        // More of a backfill's time is batches than the default would let be.
        config.backfill.pause_ratio = 1.0;
    });
    let template = new_database(&postgres, "fire");
    patient(&postgres, &template).ok(&TABLES.replace("{rows}", &rows().to_string()));
    let wanted = std::env::var("FIRE").unwrap_or_default();
    for (table, sql) in CASES.into_iter().filter(|(_, sql)| sql.contains(&wanted)) {
        Fire { postgres: &postgres, running: &running, template: &template }.case(table, sql);
    }
    running.stop_now();
}

/// A session past the proxy that waits for as long as it takes: a million rows are not loaded, nor a table of them written anew,
/// within what is called a hang elsewhere, and nothing is measured meanwhile.
fn patient(postgres: &Postgres, database: &str) -> Client {
    let client = Client::connect(postgres.port, &postgres.user, database);
    client.stream.set_read_timeout(None).expect("no timeout");
    client
}

/// The measure itself: a schema change past the proxy, which holds its lock for too long, is noticed.
#[test]
fn a_long_wait_would_be_seen() {
    let milliseconds = LONGEST_WAIT.as_millis().to_string();
    let options = Options::default().setting("log_lock_waits", "on").setting("deadlock_timeout", milliseconds);
    let postgres = Postgres::start(options).expect("a throw-away server");
    let connect = || Client::connect(postgres.port, &postgres.user, "postgres");
    let (mut change, mut client) = (connect(), connect());
    change.ok("CREATE TABLE t (id bigint PRIMARY KEY, v int)");
    change.ok("BEGIN; ALTER TABLE t ADD CHECK (v > 0)");
    client.send_query("SELECT v FROM t WHERE id = 1");
    let mut sessions = [Session { number: 0, table: "t", client, rows: BTreeMap::new(), next: 0 }];
    common::wait_until("the wait is logged", || !waits(&postgres.log(), &sessions).is_empty());
    change.ok("COMMIT");
    assert_eq!(sessions[0].client.outcome().error, None);
    assert!(waits(&postgres.log(), &sessions).iter().all(|wait| *wait >= LONGEST_WAIT));
}

struct Fire<'a> {
    postgres: &'a Postgres,
    running: &'a Running,
    template: &'a str,
}

impl Fire<'_> {
    fn case(&self, table: &'static str, sql: &str) {
        let [direct, proxied] = ["direct", "proxied"].map(|name| self.copy(name));
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pauses = Pauses::watch(Arc::clone(&stop));
        let application: Vec<JoinHandle<Session>> = (0..SESSIONS)
            .map(|number| {
                let client = Client::connect(port(self.running), &self.postgres.user, &proxied);
                let session = Session { number, table, client, rows: BTreeMap::new(), next: 0 };
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                thread::spawn(move || session.work(&stop, &done))
            })
            .collect();
        let log = self.postgres.log().len();
        let worked = |least: u64| common::wait_until("the application works", || done.load(Ordering::Relaxed) >= least);
        worked(100);
        let begun = Instant::now();
        let outcome = Client::connect(port(self.running), &self.postgres.user, &proxied).query(sql);
        let took = begun.elapsed();
        worked(done.load(Ordering::Relaxed) + 100);
        stop.store(true, Ordering::Relaxed);
        let sessions: Vec<Session> =
            application.into_iter().map(|session| session.join().expect("a session")).collect();
        let still = pauses.longest();
        assert_eq!(outcome.error, None, "{sql}: {outcome:?}");
        assert!(!outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{sql}: {:?}", outcome.notices);
        let waits = waits(&self.postgres.log()[log..], &sessions);
        let late = waits.iter().any(|wait| *wait > LONGEST_WAIT + still);
        assert!(!late, "{sql}: {waits:?}; the machine stood still for {still:?}");
        eprintln!("{sql}: {took:?}, {} statements", done.load(Ordering::Relaxed));
        let mut watcher = Client::connect(self.postgres.port, &self.postgres.user, &proxied);
        self.rows_are_right(&mut watcher, table, sql, &sessions);
        let mut twin = patient(self.postgres, &direct);
        assert_eq!(twin.query(sql).tags, outcome.tags, "{sql}");
        assert_eq!(catalog::lines(&mut twin), catalog::lines(&mut watcher), "{sql}");
        drop((twin, watcher, sessions));
        for database in [direct, proxied] {
            common::drop_database(self.postgres, &database);
        }
    }

    fn copy(&self, name: &str) -> String {
        let mut admin = Client::connect(self.postgres.port, &self.postgres.user, "postgres");
        let database = format!("{}_{name}", self.template);
        let copy = format!("CREATE DATABASE {database} TEMPLATE {}", self.template);
        common::wait_until("the template is free", || admin.query(&copy).error.is_none());
        database
    }

    /// What the sessions have made of their rows, and the rows that they left alone.
    fn rows_are_right(&self, watcher: &mut Client, table: &str, sql: &str, sessions: &[Session]) {
        let theirs: BTreeMap<i64, i64> = sessions.iter().flat_map(|session| session.rows.clone()).collect();
        let attached = if sql.contains("ATTACH") { rows() } else { 0 };
        let found = watcher.ok(&format!("SELECT id, v FROM {table} WHERE id > {} AND id < 90000000", rows())).rows;
        let value = |row: &Vec<Option<String>>, at: usize| row[at].as_deref().unwrap_or_default().parse().unwrap_or(-7);
        let found: BTreeMap<i64, i64> = found.iter().map(|row| (value(row, 0), value(row, 1))).collect();
        assert_eq!(found, theirs, "{sql}");
        let old =
            format!("SELECT count(*) FROM {table} WHERE id <= {} AND v = 0 AND r = id % 100 OR id >= 90000000", rows());
        assert_eq!(watcher.value(&old), (rows() + attached).to_string(), "{sql}");
        let column =
            format!("SELECT count(*) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'c'");
        if sql.contains("DEFAULT") || sql.contains("serial") || sql.contains("IDENTITY") {
            assert_eq!(watcher.value(&column), "1", "{sql}");
            assert_eq!(watcher.value(&format!("SELECT count(*) FROM {table} WHERE c IS NULL")), "0", "{sql}");
        }
        if sql.contains("serial") || sql.contains("IDENTITY") {
            assert_eq!(watcher.value(&format!("SELECT count(*) - count(DISTINCT c) FROM {table}")), "0", "{sql}");
        }
    }
}

/// A session of the application, which knows what its rows must be.
struct Session {
    number: i64,
    table: &'static str,
    client: Client,
    rows: BTreeMap<i64, i64>,
    next: i64,
}

impl Session {
    /// Goes on until it is stopped; every statement must do what it says.
    fn work(mut self, stop: &AtomicBool, done: &AtomicU64) -> Self {
        while !stop.load(Ordering::Relaxed) {
            self.turn();
            done.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    fn turn(&mut self) {
        let (table, nth) = (self.table, self.next);
        self.next += 1;
        let id = rows() + 1 + nth * SESSIONS + self.number;
        self.change(
            &format!("INSERT INTO {table} (id, v, n, r) VALUES ({id}, 0, {}, {})", nth % 7, nth % 100),
            "INSERT 0 1",
        );
        self.rows.insert(id, 0);
        let older = rows() + 1 + (nth / 2) * SESSIONS + self.number;
        match nth % 4 {
            0 => self.block(older),
            1 if self.rows.remove(&older).is_some() => {
                self.change(&format!("DELETE FROM {table} WHERE id = {older}"), "DELETE 1");
            }
            _ => {
                if let Some(v) = self.rows.get_mut(&older) {
                    *v += 1;
                    self.change(&format!("UPDATE {table} SET v = v + 1 WHERE id = {older}"), "UPDATE 1");
                }
            }
        }
        let read = self.client.ok(&format!("SELECT v FROM {table} WHERE id = {older}")).rows;
        let expected: Vec<_> = self.rows.get(&older).map(|v| vec![Some(v.to_string())]).into_iter().collect();
        assert_eq!(read, expected, "row {older}");
    }

    /// A transaction of several statements.
    fn block(&mut self, id: i64) {
        let table = self.table;
        self.change("BEGIN", "BEGIN");
        if let Some(v) = self.rows.get_mut(&id) {
            *v += 2;
            self.change(&format!("UPDATE {table} SET v = v + 1 WHERE id = {id}"), "UPDATE 1");
            self.change(&format!("UPDATE {table} SET v = v + 1 WHERE id = {id}"), "UPDATE 1");
        }
        self.change("COMMIT", "COMMIT");
    }

    fn change(&mut self, sql: &str, tag: &str) {
        assert_eq!(self.client.ok(sql).tags, [tag], "{sql}");
    }
}

/// `process 4711 still waiting for … after 500.123 ms`, `process 4711 acquired … after 501.234 ms`, of the application.
fn waits(log: &str, sessions: &[Session]) -> Vec<Duration> {
    let of_theirs = |line: &&str| sessions.iter().any(|s| line.contains(&format!("process {} ", s.client.pid)));
    let time = |line: &str| line.rsplit_once(" after ")?.1.split_once(" ms")?.0.parse::<f64>().ok();
    log.lines().filter(of_theirs).filter_map(time).map(|ms| Duration::from_secs_f64(ms / 1000.0)).collect()
}

/// When the whole machine stands still, so do those who hold locks: a thread that only sleeps notices.
struct Pauses(JoinHandle<Duration>);

impl Pauses {
    /// Longer than a busy scheduler lets a sleeper oversleep.
    const NOTABLE: Duration = Duration::from_millis(100);
    const NAP: Duration = Duration::from_millis(5);

    fn watch(stop: Arc<AtomicBool>) -> Self {
        Self(thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                thread::sleep(Self::NAP);
                longest = longest.max(begun.elapsed().saturating_sub(Self::NAP));
            }
            longest
        }))
    }

    /// Zero if it was not worth to be noticed.
    fn longest(self) -> Duration {
        let longest = self.0.join().expect("the watch");
        if longest < Self::NOTABLE { Duration::ZERO } else { longest }
    }
}
