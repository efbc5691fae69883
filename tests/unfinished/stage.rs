//! The setting for the tests of unfinished statements: tables, a statement that dies, and proxies that know nothing of each other.

use crate::common::stop::send_and_stop;
use crate::common::{Client, Outcome, new_database, port, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::time::Duration;

pub(super) const TABLES: &str = "
    CREATE TABLE o (id int PRIMARY KEY);
    INSERT INTO o SELECT generate_series(1, 100);
    CREATE TABLE t (id int, v text, j int);
    INSERT INTO t SELECT g, repeat('x', 100), g FROM generate_series(1, 20000) g;
    CREATE TABLE p (id int, v text) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (10000);
    INSERT INTO p SELECT g, 'x' FROM generate_series(1, 2000) g";

pub(super) const DROPS: &str = "DROP TABLE t, o, p";

/// Kills its own session at the 5000th value, once.
pub(super) const DEADLY: &str = "
    CREATE SEQUENCE calls;
    CREATE FUNCTION deadly() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
    DECLARE n bigint := nextval('calls');
    BEGIN
      IF n = 5000 THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10); END IF;
      RETURN n;
    END $$";

/// Comments on types, none of which is anybody's but ours; locks and invalid indexes.
pub(super) const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_description WHERE classoid = 'pg_type'::regclass AND description LIKE 'pgsluice%')
      || ' ' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
      || ' ' || (SELECT count(*) FROM pg_index WHERE NOT indisvalid)";

pub(super) struct Stage<'a> {
    pub(super) postgres: &'a Postgres,
    pub(super) database: String,
    pub(super) running: Running,
    pub(super) watcher: Client,
}

pub(super) fn running(postgres: &Postgres) -> Running {
    proxy(postgres, |config| {
        config.ddl.small_table = 0;
        config.backfill.pause_ratio = 0.0;
        config.backfill.batch_time = Duration::from_millis(2);
        config.ddl.record_interval = Duration::from_millis(1);
        config.locks.deadline = Duration::from_secs(20);
    })
}

impl<'a> Stage<'a> {
    pub(super) fn new(postgres: &'a Postgres) -> Self {
        let running = running(postgres);
        let database = new_database(postgres, "unfinished");
        let mut watcher = Client::connect(postgres.port, &postgres.user, &database);
        watcher.ok(DEADLY);
        watcher.ok(TABLES);
        Self { postgres, database, running, watcher }
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, &self.database)
    }

    pub(super) fn direct(&self) -> Client {
        Client::connect(self.postgres.port, &self.postgres.user, &self.database)
    }

    /// What one proxy remembers another does not know.
    pub(super) fn another_proxy(&mut self) {
        let another = running(self.postgres);
        std::mem::replace(&mut self.running, another).stop_now();
    }

    pub(super) fn until_gone(&mut self, pid: i32) {
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("its backend is gone", || self.watcher.value(&gone) == "0");
    }

    /// The statement's session is terminated at a step.
    pub(super) fn lose(&mut self, sql: &str, pattern: &str) {
        let mut holder = self.direct();
        let mut client = self.client();
        send_and_stop(&mut client, sql, pattern, &mut self.watcher, &mut holder);
        let pid = client.pid;
        self.watcher.ok(&format!("SELECT pg_terminate_backend({pid})"));
        self.until_gone(pid);
        holder.goodbye();
    }

    /// A statement whose default is `deadly()` dies half-way.
    pub(super) fn die(&mut self, sql: &str) {
        let mut client = self.client();
        client.send_query(sql);
        let pid = client.pid;
        client.last_words();
        self.until_gone(pid);
    }

    pub(super) fn record(&mut self, table: &str) -> String {
        let text = format!(
            "SELECT coalesce(obj_description(reltype, 'pg_type'), '') FROM pg_class WHERE oid = '{table}'::regclass"
        );
        self.watcher.value(&text)
    }

    pub(super) fn counts(&mut self, table: &str) -> Vec<String> {
        let rows = self.watcher.ok(&format!("SELECT count(*), count(r), count(DISTINCT r) FROM {table}")).rows;
        rows.into_iter().flatten().flatten().collect()
    }
}

pub(super) fn continued(outcome: &Outcome) -> bool {
    outcome.notices.iter().any(|notice| notice.contains("continuing this ALTER TABLE, begun at"))
}

/// Not continued: a WARNING says why, and the server's error is what it would be directly.
#[track_caller]
pub(super) fn warned(outcome: &Outcome, why: &str) {
    assert!(outcome.notices.iter().any(|notice| notice.contains("WARNING") && notice.contains(why)), "{outcome:?}");
    assert_eq!(outcome.error.as_deref(), Some("42701"), "{outcome:?}");
}

/// Its first step is the client's.
pub(super) const NULLABLE: &str = "ALTER TABLE t ADD COLUMN r bigint DEFAULT deadly()";

pub(super) const ADD: &str = "ALTER TABLE t ADD COLUMN r bigint NOT NULL DEFAULT deadly()";

/// Steps that make a column NOT NULL by the proof of a CHECK: before 12 there is no such thing, from 18 on the constraint itself
/// may be NOT VALID.
pub(super) const FROM_12_TO_17: [&str; 2] = ["%SET NOT NULL", "%DROP CONSTRAINT%"];
