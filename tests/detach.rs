//! Tests of DETACH PARTITION while others use the table. The statement is ended at each of its moments. Then the partition
//! is attached as before, or detached, or half detached with a message about it; the next DETACH finishes a half detached
//! one.

mod common;

use common::end::End;
use common::program::Program;
use common::{Client, Outcome, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::Config;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::time::Duration;

struct Scene {
    postgres: Postgres,
    running: Running,
    database: String,
}

const TABLES: &str = "
    CREATE TABLE o (id int PRIMARY KEY);
    INSERT INTO o SELECT generate_series(0, 500);
    CREATE TABLE p (id int REFERENCES o, i int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (500);
    CREATE INDEX ON p (i);
    INSERT INTO p SELECT g, g FROM generate_series(1, 100) g;
    CREATE TABLE q (id int PRIMARY KEY, i int) PARTITION BY RANGE (id);
    CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (50) TO (500);
    INSERT INTO q SELECT g, g FROM generate_series(51, 100) g";

const DETACH: &str = "ALTER TABLE p DETACH PARTITION p2";

/// Is it a partition, is it half detached, has it a CHECK?
const STATE: &str = "
    SELECT format('%s %s %s', relispartition, (SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = c.oid),
                  (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c'))
      FROM pg_class c WHERE oid = 'p2'::regclass";
const ATTACHED: &str = "t f 0";
const HALF_WAY: &str = "t t 1";
const DETACHED: &str = "f  0";

impl Scene {
    fn new(tweak: impl FnOnce(&mut Config)) -> Self {
        let postgres = postgres();
        let running = proxy(&postgres, |config| {
            config.ddl.small_table = 0;
            tweak(config);
        });
        let database = new_database(&postgres, "detach");
        let scene = Self { postgres, running, database };
        scene.direct().ok(TABLES);
        scene
    }

    /// Nobody is old enough to be waited for before it begins.
    fn in_haste() -> Self {
        Self::new(|config| config.locks.stall_budget = Duration::from_secs(60))
    }

    fn direct(&self) -> Client {
        Client::connect(self.postgres.port, &self.postgres.user, &self.database)
    }

    fn through(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, &self.database)
    }

    /// A transaction that is old enough (by the default of `locks.stall_budget`) to be waited for before anything begins.
    fn old(&self, sql: &str) -> Client {
        let mut old = self.direct();
        old.ok(&format!("BEGIN; {sql}"));
        self.wait_for("it is old", &old, "clock_timestamp() - xact_start > '200 ms'");
        old
    }

    fn state(&self) -> String {
        self.direct().value(STATE)
    }

    fn wait_for(&self, what: &str, client: &Client, condition: &str) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND {condition}", client.pid);
        let mut watcher = self.direct();
        wait_until(what, || watcher.value(&sql) == "1");
    }

    /// A client whose DETACH waits for a transaction, of which nobody can tell any more whether it saw the partition.
    fn half_way(&self) -> (Client, Client) {
        let (mut old, mut client) = (self.direct(), self.through());
        old.ok("BEGIN; SELECT FROM ONLY p");
        client.send_query(DETACH);
        self.wait_for("it is half-way", &client, "wait_event = 'virtualxid' AND query LIKE '%CONCURRENTLY'");
        assert_eq!(self.state(), HALF_WAY);
        (client, old)
    }

    /// What a server that was shut down at the wrong moment leaves; and one with an old snapshot, who keeps it so.
    fn left_half_way(&self) -> Client {
        let (mut old, mut client) = (self.direct(), self.direct());
        old.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM p");
        client.ok("SET lock_timeout = '10ms'");
        assert_eq!(client.query(&format!("{DETACH} CONCURRENTLY")).error.as_deref(), Some("55P03"));
        assert_eq!(self.state(), HALF_WAY);
        old
    }
}

fn notices(outcome: &Outcome) -> String {
    outcome.notices.join("\n")
}

#[test]
fn the_table_stays_in_use() {
    let scene = Scene::new(|_| {});
    let (mut old, mut client, mut application) = (scene.old("SELECT FROM p"), scene.through(), scene.direct());
    client.send_query(DETACH);
    let waits = "query LIKE '/* pgsluice: waiting for%on public.p2%'";
    scene.wait_for("it waits", &client, waits);
    application.ok("SET lock_timeout = '2s'");
    application.ok("INSERT INTO p VALUES (7, 7), (70, 70); UPDATE p SET i = i + 1; SELECT FROM p2");
    // It has not begun, so that it can be given up.
    client.cancel(port(&scene.running));
    assert_eq!(client.outcome().error.as_deref(), Some("57014"));
    assert_eq!(scene.state(), ATTACHED);
    client.send_query(DETACH);
    scene.wait_for("it waits", &client, waits);
    old.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.tags.as_slice()), (None, ["ALTER TABLE".to_owned()].as_slice()));
    assert_eq!(scene.state(), DETACHED);
    assert_eq!(application.value("SELECT count(*) FROM p"), "50");
    assert_eq!(application.value("SELECT count(*) FROM p2"), "52");
    assert_eq!(client.value("SHOW lock_timeout"), "0");
    scene.running.stop_now();
}

/// Short transactions, one always under way, starve nobody.
#[test]
fn who_comes_and_goes_is_not_in_the_way() {
    let scene = Scene::new(|_| {});
    let (mut one, mut other, mut client) = (scene.direct(), scene.direct(), scene.through());
    one.ok("BEGIN; SELECT FROM p");
    client.send_query(DETACH);
    scene.wait_for("it waits", &client, "query LIKE '/* pgsluice: waiting for%on public.p2%'");
    let mut watcher = scene.direct();
    wait_until("it is detached", || {
        other.ok("BEGIN; SELECT FROM p");
        one.ok("COMMIT");
        std::mem::swap(&mut one, &mut other);
        watcher.value(STATE) == DETACHED
    });
    assert_eq!(client.outcome().tags, ["ALTER TABLE"]);
    scene.running.stop_now();
}

#[test]
fn what_cannot_be_taken_back_is_finished() {
    for end in [End::Cancel, End::CancelBackend, End::Reset, End::Close] {
        let scene = Scene::in_haste();
        let (client, mut old) = scene.half_way();
        let pid = client.pid;
        let left = end.come(client, &mut scene.direct(), port(&scene.running));
        if let Some(mut client) = left {
            let outcome = client.outcome();
            assert_eq!(outcome.tags, ["ALTER TABLE"], "{end:?}: {outcome:?}");
            assert!(notices(&outcome).contains("has been detached nevertheless"), "{end:?}: {outcome:?}");
            assert_eq!(client.value("SHOW lock_timeout"), "0");
            client.goodbye();
        }
        let mut watcher = scene.direct();
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("it is over", || watcher.value(&gone) == "0");
        assert_eq!(scene.state(), DETACHED, "{end:?}");
        old.ok("COMMIT");
        scene.running.stop_now();
    }
}

#[test]
fn the_next_detach_finishes_what_was_left() {
    let scene = Scene::in_haste();
    let (client, mut old) = scene.half_way();
    assert!(End::Terminate.come(client, &mut scene.direct(), port(&scene.running)).is_some());
    old.ok("COMMIT");
    assert_eq!(scene.state(), HALF_WAY);
    // Another of its partitions cannot go concurrently now.
    scene.through().ok("ALTER TABLE p DETACH PARTITION p1");
    let outcome = scene.through().ok(DETACH);
    assert!(notices(&outcome).contains("is half detached already"), "{outcome:?}");
    assert_eq!(scene.state(), DETACHED);
    scene.running.stop_now();
}

/// Nobody finishes it for a session that was lost: the log says what is left.
#[test]
fn what_a_lost_session_left_half_way_is_logged() {
    let scene = Scene::new(|_| {});
    let settings = "[ddl]\nsmall_table = \"0B\"\n[locks]\nstall_budget = \"10s\"\n";
    let program = Program::with(&scene.postgres, settings);
    let mut client = program.client(&scene.postgres.user, &scene.database);
    let mut old = scene.direct();
    old.ok("BEGIN; SELECT FROM ONLY p");
    client.send_query(DETACH);
    scene.wait_for("it is half-way", &client, "wait_event = 'virtualxid' AND query LIKE '%CONCURRENTLY'");
    assert!(End::Terminate.come(client, &mut scene.direct(), program.port).is_some());
    wait_until("it is logged", || program.log().contains("may be half detached"));
    assert_eq!(scene.state(), HALF_WAY);
    let log = program.log();
    assert!(
        log.contains(r#"remedy="ALTER TABLE \"public\".\"p\" DETACH PARTITION \"public\".\"p2\" FINALIZE""#),
        "{log}"
    );
    old.ok("COMMIT");
    scene.direct().ok("ALTER TABLE public.p DETACH PARTITION public.p2 FINALIZE");
    scene.running.stop_now();
}

#[test]
fn an_old_snapshot_is_waited_for_without_hurting_anybody() {
    let scene = Scene::new(|_| {});
    let mut old = scene.left_half_way();
    let mut client = scene.through();
    client.send_query(DETACH);
    scene.wait_for("it waits", &client, "query LIKE '/* pgsluice: waiting to finish%'");
    let mut application = scene.direct();
    application.ok("SET lock_timeout = '2s'; INSERT INTO p VALUES (7, 7); INSERT INTO p2 VALUES (70, 70)");
    old.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["ALTER TABLE"]);
    assert_eq!(scene.state(), DETACHED);
    scene.running.stop_now();
}

/// It is neither taken back nor finished: so it is said.
#[test]
fn what_can_neither_be_taken_back_nor_finished_is_told() {
    let scene = Scene::new(|_| {});
    let mut old = scene.left_half_way();
    let mut client = scene.through();
    client.send_query(DETACH);
    scene.wait_for("it waits", &client, "query LIKE '/* pgsluice: waiting to finish%'");
    client.cancel(port(&scene.running));
    let outcome = client.outcome();
    assert_eq!(outcome.error.as_deref(), Some("57014"));
    assert!(notices(&outcome).contains("WARNING"), "{outcome:?}");
    assert_eq!(scene.state(), HALF_WAY);
    old.ok("COMMIT");
    client.ok(DETACH);
    assert_eq!(scene.state(), DETACHED);
    scene.running.stop_now();
}

/// What DROP TABLE has detached half-way is attached again, with all its rows.
#[test]
fn a_drop_that_is_given_up_leaves_the_partition_attached() {
    for end in [End::Cancel, End::CancelBackend, End::Reset] {
        let scene = Scene::in_haste();
        let (mut old, mut client) = (scene.direct(), scene.through());
        old.ok("BEGIN; SELECT FROM ONLY q");
        client.send_query("DROP TABLE q2");
        scene.wait_for("it is half-way", &client, "wait_event = 'virtualxid' AND query LIKE '%CONCURRENTLY'");
        let pid = client.pid;
        if let Some((client, _)) =
            end.come(client, &mut scene.direct(), port(&scene.running)).and_then(|client| end.heard(client))
        {
            client.goodbye();
        }
        let mut watcher = scene.direct();
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("it is over", || watcher.value(&gone) == "0");
        assert_eq!(watcher.value(&STATE.replace("p2", "q2")), ATTACHED, "{end:?}");
        assert_eq!(watcher.value("SELECT count(*) FROM q"), "50", "{end:?}");
        old.ok("COMMIT");
        scene.through().ok("DROP TABLE q2");
        assert_eq!(watcher.value("SELECT count(*) FROM q"), "0");
        scene.running.stop_now();
    }
}

#[test]
fn a_drop_of_a_partition_leaves_its_table_in_use() {
    let scene = Scene::new(|_| {});
    let (mut old, mut client, mut application) = (scene.old("SELECT FROM q"), scene.through(), scene.direct());
    client.send_query("DROP TABLE q2");
    scene.wait_for("it waits", &client, "query LIKE '/* pgsluice: waiting for%on public.q2%'");
    application.ok("SET lock_timeout = '2s'");
    application.ok("INSERT INTO q VALUES (170, 7); UPDATE q SET i = i + 1; SELECT FROM q2");
    old.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["DROP TABLE"]);
    assert_eq!(application.value("SELECT count(*) FROM pg_class WHERE relname = 'q2'"), "0");
    scene.running.stop_now();
}

/// The CHECK that goes is the server's, not one that came while the statement waited.
#[test]
fn a_check_that_comes_meanwhile_stays() {
    let scene = Scene::new(|_| {});
    let (mut old, mut client) = (scene.old("SELECT FROM ONLY p"), scene.through());
    client.send_query(DETACH);
    scene.wait_for("it waits", &client, "query LIKE '/* pgsluice: waiting for%on public.p2%'");
    scene.direct().ok("ALTER TABLE p2 ADD CHECK (id IS NOT NULL AND id >= 50 AND id < 500)");
    old.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["ALTER TABLE"]);
    assert_eq!(scene.state(), "f  1");
    scene.running.stop_now();
}

/// PostgreSQL drops it as it is.
#[test]
fn what_was_left_half_detached_can_be_dropped() {
    let scene = Scene::in_haste();
    let (client, mut old) = scene.half_way();
    assert!(End::Terminate.come(client, &mut scene.direct(), port(&scene.running)).is_some());
    old.ok("COMMIT");
    assert_eq!(scene.state(), HALF_WAY);
    scene.through().ok("DROP TABLE p2");
    assert_eq!(scene.direct().value("SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), "0");
    scene.running.stop_now();
}
