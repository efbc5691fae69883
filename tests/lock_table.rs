//! A client's own LOCK TABLE: it waits in the proxy, so that nobody queues behind it, and everything else is as it is directly.

mod common;

#[path = "lock_table/answers.rs"]
mod answers;
#[path = "lock_table/blocks.rs"]
mod blocks;
#[path = "lock_table/waits.rs"]
mod waits;

use common::raw::{bind, close, describe, execute, parse, run, sync};
use common::{Client, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Config, LockWaits};
use pgsluice::dev::Postgres;
use pgsluice::metrics::Metrics;
use pgsluice::server::Running;
use std::sync::LazyLock;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const TABLES: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT g, g FROM generate_series(1, 20000) g;
    CREATE TABLE u (id int); CREATE TABLE versions (v int); CREATE VIEW of_u AS SELECT * FROM u;
    CREATE TABLE parent (id int) PARTITION BY RANGE (id); CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (9)";

struct Stage {
    database: String,
    running: Running,
    watcher: Client,
}

impl Stage {
    fn new(tweak: impl FnOnce(&mut Config)) -> Self {
        let database = new_database(&SERVER, "lock_table");
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            tweak(config);
        });
        let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
        watcher.ok(TABLES);
        Self { database, running, watcher }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.running), &SERVER.user, &self.database)
    }

    fn direct(&self) -> Client {
        Client::connect(SERVER.port, &SERVER.user, &self.database)
    }

    fn metrics(&self) -> &Metrics {
        &self.running.shared().metrics
    }

    /// The session waits in the proxy: its last attempt has failed.
    fn until_it_polls(&mut self, pid: i32) {
        let polls = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '/* pgsluice: LOCK TABLE%'"
        );
        wait_until("a session polls for the lock", || self.watcher.value(&polls) == "1");
    }

    /// The session waits in the server's lock queue.
    fn until_it_queues(&mut self, pid: i32) {
        let queues = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'");
        wait_until("a session waits in the server", || self.watcher.value(&queues) == "1");
    }

    fn until_it_ends(&mut self, pid: i32) {
        let lives = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("a backend ends", || self.watcher.value(&lives) == "0");
    }
}

/// A session that holds a lock, in a transaction.
fn holder(stage: &Stage, lock: &str) -> Client {
    let mut holder = stage.direct();
    holder.ok("BEGIN");
    holder.ok(lock);
    holder
}

/// A way to send one statement.
type Send = fn(&mut Client, &str);

fn send_simple(client: &mut Client, sql: &str) {
    client.send_query(sql);
}

fn send_extended(client: &mut Client, sql: &str) {
    client.send(&[run(sql), sync()].concat());
}

/// Prepared under a name, then executed in a pipeline of its own.
fn send_prepared(client: &mut Client, sql: &str) {
    client.send(&[close(b'S', "named"), parse("named", sql), describe(b'S', "named"), sync()].concat());
    assert_eq!(client.outcome().error, None, "{sql}");
    client.send(&[bind("", "named", &[]), execute("", 0), sync()].concat());
}

const WAYS: [(&str, Send); 3] = [("simple", send_simple), ("extended", send_extended), ("prepared", send_prepared)];

#[test]
fn it_may_be_left_to_the_server() {
    let mut stage = Stage::new(|config| config.locks.lock_table = LockWaits::Relay);
    for (_, way) in WAYS {
        let mut holder = holder(&stage, "SELECT FROM t");
        let mut client = stage.client();
        client.ok("BEGIN");
        way(&mut client, "LOCK TABLE t");
        stage.until_it_queues(client.pid);
        holder.ok("COMMIT");
        assert_eq!(client.outcome().error, None);
    }
    assert_eq!(stage.metrics().lock_attempts.value(), 0);
}

/// A role that may not ask who is in the way waits all the same, and the view's tables are waited for with the view.
#[test]
fn a_role_that_may_not_ask_waits() {
    let mut stage = Stage::new(|_| ());
    stage
        .watcher
        .ok("REVOKE SELECT ON pg_locks FROM public; CREATE ROLE asks_nothing; GRANT ALL ON u, of_u TO asks_nothing");
    let mut holder = holder(&stage, "INSERT INTO u VALUES (1)");
    let mut client = stage.client();
    client.ok("SET ROLE asks_nothing");
    client.ok("BEGIN");
    // Views can be locked since 11.
    let views = stage.watcher.value("SELECT current_setting('server_version_num')::int >= 110000") == "t";
    client.send_query(&format!("LOCK TABLE {} IN SHARE MODE", if views { "of_u" } else { "u" }));
    stage.until_it_polls(client.pid);
    holder.ok("SELECT pg_sleep(0.5)");
    holder.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    assert_eq!(client.value("SELECT count(*) FROM u"), "1");
    client.ok("COMMIT");
    drop(client);
    stage.watcher.ok("DROP OWNED BY asks_nothing; DROP ROLE asks_nothing");
}
