//! Tests of partitioned tables while others use and change them: what is built on their partitions, and in which state it
//! ends.

mod common;

use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;

/// A server, a proxy for which no table is small, and a database with a partitioned table.
struct Scene {
    postgres: Postgres,
    running: Running,
    database: String,
}

const TABLES: &str = "
    CREATE TABLE p (id int NOT NULL, i int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (500);
    INSERT INTO p SELECT g, g FROM generate_series(1, 100) g";

const INDEXES: &str = "
    SELECT string_agg(format('%s %s %s', indexrelid::regclass, indisvalid, inhparent::regclass), ', '
                      ORDER BY indexrelid::regclass::text)
      FROM pg_index LEFT JOIN pg_inherits ON inhrelid = indexrelid
      JOIN pg_class c ON c.oid = indrelid AND relnamespace = 'public'::regnamespace";

impl Scene {
    fn new() -> Self {
        let postgres = postgres();
        let running = proxy(&postgres, |config| config.ddl.small_table = 0);
        let database = new_database(&postgres, "partitions");
        let scene = Self { postgres, running, database };
        scene.direct().ok(TABLES);
        scene
    }

    fn direct(&self) -> Client {
        Client::connect(self.postgres.port, &self.postgres.user, &self.database)
    }

    fn through(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, &self.database)
    }

    /// A client whose statement waits in a concurrent build, for the one who is given too.
    fn building(&self, sql: &str) -> (Client, Client) {
        let (mut old, mut client) = (self.direct(), self.through());
        // An old snapshot: a concurrent build waits for its end.
        old.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1");
        client.send_query(sql);
        let mut watcher = self.direct();
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'virtualxid'
             AND query LIKE '%CONCURRENTLY%'",
            client.pid
        );
        wait_until("the build waits", || watcher.value(&waits) == "1");
        (client, old)
    }
}

#[test]
fn a_build_on_a_partitioned_table_blocks_nobody() {
    let scene = Scene::new();
    let (mut client, mut old) = scene.building("CREATE INDEX ON p (i)");
    let mut application = scene.direct();
    application.ok("SET lock_timeout = '2s'");
    application.ok("INSERT INTO p VALUES (7, 7), (70, 70)");
    application.ok("UPDATE p SET i = i + 1 WHERE id < 60");
    assert_eq!(application.value("SELECT count(*) FROM p"), "102");
    old.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["CREATE INDEX"]);
    assert_eq!(application.value(INDEXES), "p1_i_idx t p_i_idx, p2_i_idx t p_i_idx, p_i_idx t ");
    scene.running.stop_now();
}

#[test]
fn a_partition_that_comes_meanwhile_has_the_index_too() {
    let scene = Scene::new();
    let (mut client, mut old) = scene.building("CREATE INDEX ON p (i)");
    let mut application = scene.direct();
    application.ok("CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (500) TO (600); INSERT INTO p VALUES (501, 1)");
    old.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    let mut watcher = scene.direct();
    let indexes = "p1_i_idx t p_i_idx, p2_i_idx t p_i_idx, p3_i_idx t p_i_idx, p_i_idx t ";
    assert_eq!(watcher.value(INDEXES), indexes);
    // And so has the next one.
    watcher.ok("CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (600) TO (700)");
    assert_eq!(watcher.value("SELECT count(*) FROM pg_index WHERE indrelid = 'p4'::regclass"), "1");
    scene.running.stop_now();
}

#[test]
fn a_partition_that_goes_meanwhile_ends_it_with_nothing_left() {
    let scene = Scene::new();
    let (mut client, mut old) = scene.building("CREATE INDEX ON p (i)");
    // The build holds a lock on p1 that waits for nobody; p2 may go.
    scene.direct().ok("ALTER TABLE p DETACH PARTITION p2");
    old.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!(outcome.error.as_deref(), Some("40001"), "{outcome:?}");
    assert_eq!(scene.direct().value(INDEXES), "");
    client.ok("CREATE INDEX ON p (i)");
    scene.running.stop_now();
}

/// What a proxy that died left of such a build is made good by the next one.
#[test]
fn an_invalid_index_of_a_partition_is_built_anew() {
    let scene = Scene::new();
    let mut watcher = scene.direct();
    watcher.ok("INSERT INTO p VALUES (60, 7), (60, 7)");
    assert_eq!(watcher.query("CREATE UNIQUE INDEX CONCURRENTLY left_over ON p2 (id, i)").error.unwrap(), "23505");
    watcher.ok("DELETE FROM p WHERE i = 7");
    let outcome = scene.through().ok("CREATE UNIQUE INDEX ON p (id, i)");
    assert_eq!(outcome.notices.len(), 1, "{outcome:?}");
    assert_eq!(watcher.value(INDEXES), "left_over t p_id_i_idx, p1_id_i_idx t p_id_i_idx, p_id_i_idx t ");
    scene.running.stop_now();
}

#[test]
fn a_unique_index_that_a_partition_breaks_is_taken_back() {
    let scene = Scene::new();
    let mut watcher = scene.direct();
    watcher.ok("INSERT INTO p VALUES (60, 7), (60, 7); CREATE INDEX there ON p1 (id, i)");
    let outcome = scene.through().query("CREATE UNIQUE INDEX ON p (id, i)");
    assert_eq!(outcome.error.as_deref(), Some("23505"), "{outcome:?}");
    assert_eq!(outcome.message.unwrap(), "could not create unique index \"p2_id_i_idx\"");
    assert_eq!(watcher.value(INDEXES), "there t ");
    scene.running.stop_now();
}

const LOOSE: &str = "
    CREATE TABLE loose (id int NOT NULL, i int);
    INSERT INTO loose SELECT 500 + g, g FROM generate_series(1, 50) g;
    CREATE TABLE p_rest PARTITION OF p DEFAULT; INSERT INTO p VALUES (1000, 1);
    CREATE INDEX ON p (i)";

/// The constraints of the proxy's own, and whether the table is a partition.
const ATTACHED: &str =
    "SELECT (SELECT count(*) FROM pg_constraint WHERE conname LIKE 'pgsluice%') || ' ' || relispartition
    FROM pg_class WHERE oid = 'loose'::regclass";

#[test]
fn a_table_that_becomes_a_partition_stays_in_use() {
    let scene = Scene::new();
    let mut application = scene.direct();
    application.ok(LOOSE);
    let (mut client, mut old) = scene.building("ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM (500) TO (600)");
    application.ok("SET lock_timeout = '2s'");
    application
        .ok("INSERT INTO loose VALUES (560, 1); UPDATE loose SET i = i + 1; INSERT INTO p VALUES (7, 7), (1001, 1)");
    assert_eq!(application.value("SELECT count(*) FROM loose"), "51");
    old.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["ALTER TABLE"]);
    assert_eq!(application.value(ATTACHED), "0 true");
    assert_eq!(application.value("SELECT relispartition FROM pg_class WHERE relname = 'loose_i_idx'"), "t");
    scene.running.stop_now();
}

#[test]
fn a_row_outside_its_bounds_keeps_a_table_from_becoming_a_partition() {
    let scene = Scene::new();
    let mut watcher = scene.direct();
    watcher.ok(LOOSE);
    watcher.ok("INSERT INTO p VALUES (650, 1)");
    let before = watcher.value(INDEXES);
    for (bounds, message) in [
        ("FROM (500) TO (520)", "partition constraint of relation \"loose\" is violated by some row"),
        (
            "FROM (500) TO (700)",
            "updated partition constraint for default partition \"p_rest\" would be violated by some row",
        ),
        ("FROM (20) TO (600)", "partition \"loose\" would overlap partition \"p1\""),
    ] {
        let outcome = scene.through().query(&format!("ALTER TABLE p ATTACH PARTITION loose FOR VALUES {bounds}"));
        assert_eq!(outcome.message.as_deref(), Some(message), "{bounds}");
        assert_eq!(
            (watcher.value(ATTACHED), watcher.value(INDEXES)),
            ("0 false".to_owned(), before.clone()),
            "{bounds}"
        );
    }
    scene.running.stop_now();
}

/// What a proxy that died left of itself is made anew, and goes.
#[test]
fn a_check_of_an_attach_that_died_is_made_anew() {
    let scene = Scene::new();
    let mut watcher = scene.direct();
    watcher.ok(LOOSE);
    watcher.ok("ALTER TABLE loose ADD CONSTRAINT pgsluice_within_bounds CHECK (id > 0)");
    watcher.ok("ALTER TABLE p_rest ADD CONSTRAINT pgsluice_outside_bounds CHECK (id > 0) NOT VALID");
    scene.through().ok("ALTER TABLE p ATTACH PARTITION loose FOR VALUES FROM (500) TO (600)");
    assert_eq!(watcher.value(ATTACHED), "0 true");
    scene.running.stop_now();
}

/// A moment's lock of somebody else's does not make it run as it is.
#[test]
fn who_changes_the_table_just_now_is_waited_for() {
    let scene = Scene::new();
    let (mut holder, mut client, mut watcher) = (scene.direct(), scene.through(), scene.direct());
    holder.ok("BEGIN; LOCK TABLE p IN ACCESS EXCLUSIVE MODE");
    client.send_query("CREATE INDEX ON p (i)");
    let naps = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: waiting to look%'",
        client.pid
    );
    wait_until("it waits", || watcher.value(&naps) == "1");
    holder.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!((outcome.error, outcome.notices), (None, Vec::new()));
    assert_eq!(watcher.value(INDEXES), "p1_i_idx t p_i_idx, p2_i_idx t p_i_idx, p_i_idx t ");
    // And a cancel ends the wait.
    holder.ok("BEGIN; LOCK TABLE p IN ACCESS EXCLUSIVE MODE");
    client.send_query("CREATE INDEX ON p (id)");
    wait_until("it waits", || watcher.value(&naps) == "1");
    client.cancel(port(&scene.running));
    assert_eq!(client.outcome().error.as_deref(), Some("57014"));
    holder.ok("COMMIT");
    assert_eq!(client.value("SHOW lock_timeout"), "0");
    scene.running.stop_now();
}

/// What is wanted of the table alone is not in the way of who reads a partition.
#[test]
fn who_reads_another_partition_is_not_waited_for() {
    let scene = Scene::new();
    let (mut holder, mut reader, mut client) = (scene.direct(), scene.direct(), scene.through());
    reader.ok("BEGIN; SELECT FROM p2");
    holder.ok("BEGIN; LOCK TABLE ONLY p IN ACCESS SHARE MODE");
    client.send_query("CREATE TABLE p3 PARTITION OF p (i DEFAULT 1) FOR VALUES FROM (500) TO (600)");
    let naps = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: waiting for ACCESS EXCLUSIVE on public.p,%'",
        client.pid
    );
    let mut watcher = scene.direct();
    wait_until("it waits", || watcher.value(&naps) == "1");
    holder.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["CREATE TABLE"]);
    reader.ok("COMMIT");
    scene.running.stop_now();
}

#[test]
fn a_new_partition_waits_for_nobody_who_uses_its_table() {
    let scene = Scene::new();
    let (mut writer, mut client) = (scene.direct(), scene.through());
    writer.ok("BEGIN; INSERT INTO p VALUES (7, 7); SELECT FROM p");
    client.ok("SET lock_timeout = '5s'");
    client.ok("CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (500) TO (600)");
    client.ok("BEGIN; CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (600) TO (700); COMMIT");
    assert_eq!(writer.value("INSERT INTO p VALUES (555, 1), (655, 1) RETURNING tableoid::regclass"), "p3");
    writer.ok("COMMIT");
    scene.running.stop_now();
}

/// It waits for who changes the table, and a cancel leaves nothing.
#[test]
fn a_new_partition_can_be_given_up() {
    let scene = Scene::new();
    let (mut holder, mut client, mut watcher) = (scene.direct(), scene.through(), scene.direct());
    holder.ok("BEGIN; LOCK TABLE ONLY p IN SHARE UPDATE EXCLUSIVE MODE");
    client.send_query("CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (500) TO (600)");
    let naps = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: waiting for SHARE UPDATE EXCLUSIVE on public.p,%'",
        client.pid
    );
    wait_until("it waits", || watcher.value(&naps) == "1");
    client.cancel(port(&scene.running));
    assert_eq!(client.outcome().error.as_deref(), Some("57014"));
    assert_eq!(watcher.value("SELECT count(*) FROM pg_class WHERE relname = 'p3'"), "0");
    holder.ok("COMMIT");
    scene.running.stop_now();
}

const REFERENCED: &str = "CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o SELECT generate_series(0, 1000)";

/// Each foreign key with whether it is valid, and part of the table's.
const KEYS: &str =
    "SELECT string_agg(format('%s %s %s %s', conrelid::regclass, conname, convalidated, conparentid <> 0), ', '
                                      ORDER BY conrelid::regclass::text)
                      FROM pg_constraint WHERE contype = 'f'";

#[test]
fn a_foreign_key_of_a_partitioned_table_blocks_no_writer() {
    let scene = Scene::new();
    let (mut vacuum, mut client, mut application) = (scene.direct(), scene.through(), scene.direct());
    application.ok(REFERENCED);
    // As a vacuum does: the key of p2 waits for it, and no writer for that.
    vacuum.ok("BEGIN; LOCK TABLE p2 IN SHARE UPDATE EXCLUSIVE MODE");
    client.send_query("ALTER TABLE p ADD FOREIGN KEY (i) REFERENCES o");
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: waiting for SHARE ROW EXCLUSIVE%p2%'",
        client.pid
    );
    wait_until("it waits", || application.value(&waits) == "1");
    application.ok("SET lock_timeout = '2s'");
    application.ok("INSERT INTO p VALUES (7, 7), (70, 70); UPDATE p SET i = i + 1; DELETE FROM o WHERE id = 900");
    vacuum.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    assert_eq!(application.value(KEYS), "p p_i_fkey t f, p1 p_i_fkey t t, p2 p_i_fkey t t");
    scene.running.stop_now();
}

#[test]
fn a_row_without_its_other_end_keeps_a_foreign_key_from_all_partitions() {
    let scene = Scene::new();
    let mut watcher = scene.direct();
    watcher.ok(REFERENCED);
    watcher.ok("INSERT INTO p VALUES (60, 5000)");
    let outcome = scene.through().query("ALTER TABLE p ADD FOREIGN KEY (i) REFERENCES o");
    assert_eq!(outcome.error.as_deref(), Some("23503"), "{outcome:?}");
    assert_eq!(
        outcome.message.as_deref(),
        Some("insert or update on table \"p2\" violates foreign key constraint \"p_i_fkey\"")
    );
    assert_eq!(watcher.value(KEYS), "");
    scene.running.stop_now();
}
