//! Tests of backfills: every old row gets its value, whatever the application does meanwhile. If a backfill is ended early,
//! nothing of it is left.
//!
//! A test stops a backfill at a chosen moment by the throttle's condition (a flag in a table) or by a locked row.

mod common;
#[path = "backfill/ends.rs"]
mod ends;
#[path = "backfill/stage.rs"]
mod stage;

use common::{Client, port, wait_until};
use pgsluice::config::Backfill;
use pgsluice::dev::{Options, Postgres};
use stage::{ADD, Stage, all};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn no_batch_reads_the_whole_table() {
    let mut stage = Stage::new(|config| config.backfill.batch_time = Duration::from_millis(5));
    let mut maker = stage.direct();
    std::mem::swap(&mut maker, &mut stage.watcher);
    stage.table(20_000);
    std::mem::swap(&mut maker, &mut stage.watcher);
    // At its end it has told all it did.
    let (pid, _) = (maker.pid, maker.goodbye());
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("the maker is gone", || stage.watcher.value(&gone) == "0");
    let scans = "SELECT seq_scan || ' ' || idx_scan FROM pg_stat_user_tables WHERE relname = 't'";
    let written = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 't'";
    let before = stage.watcher.value(scans);
    let mut client = stage.client();
    client.ok(ADD);
    wait_until("the batches are counted", || stage.watcher.value(written) == "20000");
    // The one that is over is the sweep's look.
    let scan = |value: &str| value.split_once(' ').map(|(seq, _)| seq.parse::<u32>().unwrap()).unwrap();
    assert_eq!(scan(&stage.watcher.value(scans)), scan(&before) + 1);
    assert_eq!(stage.counts("t"), all(20_000));
    // The client's session is as it was.
    for (setting, value) in [("lock_timeout", "0"), ("statement_timeout", "0"), ("session_replication_role", "origin")]
    {
        assert_eq!(client.value(&format!("SHOW {setting}")), value);
    }
    stage.running.stop_now();
}

/// Rows of each batch, in physical order: a batch is a transaction.
fn batches(stage: &mut Stage) -> Vec<u32> {
    let rows = stage.watcher.ok("SELECT count(*) FROM t GROUP BY xmin::text ORDER BY min(id)").rows;
    rows.into_iter().flatten().flatten().map(|count| count.parse().unwrap()).collect()
}

#[test]
fn batches_grow_by_a_fifth_at_most() {
    let mut stage = Stage::new(|config| config.backfill.batch_time = Duration::from_millis(40));
    stage.table(100_000);
    stage.client().ok(ADD);
    let batches = batches(&mut stage);
    let first = batches[0];
    assert!(batches.len() > 10 && first < 1_500, "{batches:?}");
    // But for what a part of a page makes: of its 291 places fewer than 100 are taken.
    assert!(batches.windows(2).all(|pair| f64::from(pair[1]) <= f64::from(pair[0] + 100) * 1.2 + 100.0), "{batches:?}");
    assert!(batches.iter().any(|rows| *rows > first), "{batches:?}");
    assert_eq!(stage.counts("t"), all(100_000));
    stage.running.stop_now();
}

/// A row takes 2 ms, a page 200 ms and more: then batches are parts of pages.
#[test]
fn no_batch_takes_longer_than_the_stall_budget() {
    let mut stage = Stage::new(|config| {
        config.backfill.batch_time = Duration::from_millis(20);
        config.locks.stall_budget = Duration::from_millis(60);
    });
    stage.table(600);
    stage.watcher.ok(
        "CREATE FUNCTION slow() RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN random(); END $$",
    );
    stage.client().ok("ALTER TABLE t ADD COLUMN r float8 DEFAULT slow()");
    assert_eq!(stage.counts("t"), all(600));
    let batches = batches(&mut stage);
    assert!(batches.iter().all(|rows| *rows <= 30), "{batches:?}");
    stage.running.stop_now();
}

/// Beside sessions that insert, update and delete: none fails, and none waits for a lock longer than the stall budget (the
/// server itself would log it), and every row has its value. A batch that has used up the budget ends when the server gets a
/// core: hence half as much again.
#[test]
fn the_application_goes_on() {
    let settings = Options::default().setting("deadlock_timeout", "300ms").setting("log_lock_waits", "on");
    let mut stage = Stage::on(Postgres::start(settings).unwrap(), |config| config.backfill.pause_ratio = 1.0);
    stage.table(200_000);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4_u32)
        .map(|worker| {
            let (mut client, stop) = (stage.client(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut done = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    // All over the table, with a step that meets every row in the end.
                    let id = (done.wrapping_mul(48_271) + worker * 50_000) % 200_000 + 1;
                    match done % 4 {
                        0 => client.ok(&format!("INSERT INTO t VALUES ({}, 'new')", 1_000_000 * (worker + 1) + done)),
                        1 => client.ok(&format!("DELETE FROM t WHERE id = {id}")),
                        // Longer than before: the row moves to another page.
                        2 => client.ok(&format!("UPDATE t SET v = v || repeat('y', 200) WHERE id = {id}")),
                        _ => client.ok(&format!("BEGIN; UPDATE t SET v = v || 'z' WHERE id = {id}; COMMIT")),
                    };
                    done += 1;
                }
                done
            })
        })
        .collect();
    stage.client().ok(ADD);
    stop.store(true, Ordering::Relaxed);
    let done: u32 = workers.into_iter().map(|worker| worker.join().expect("no statement failed")).sum();
    assert!(done > 100, "{done}");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM t WHERE r IS NULL"), "0");
    let log = stage.postgres.log();
    assert!(!log.contains("still waiting for") && !log.contains("deadlock detected"), "{log}");
    stage.running.stop_now();
}

/// Before its batch comes a row is moved behind the last page, and another one, whose mover takes its time, to the first.
#[test]
fn rows_that_move_are_found() {
    let mut stage = Stage::switched(|_| {});
    stage.table(20_000);
    stage.watcher.ok("DELETE FROM t WHERE id <= 100");
    stage.watcher.ok("VACUUM t");
    let mut client = stage.client();
    client.send_query(ADD);
    stage.until_paused(&client);
    stage.watcher.ok("UPDATE t SET v = repeat('y', 900) WHERE id BETWEEN 9000 AND 9500");
    let mut mover = stage.direct();
    mover.ok("BEGIN; UPDATE t SET v = 'moved' WHERE id = 15000");
    stage.go();
    // All others are done; this one is waited for, without a lock on anything else.
    stage.until_runs(&client, "/* pgsluice: backfill of public.t, waiting for rows that others have locked%");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM t WHERE r IS NULL"), "1");
    mover.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert_eq!(stage.counts("t"), all(19_900));
    stage.running.stop_now();
}

/// Of two columns a row may want one: what the application wrote into the other stays.
#[test]
fn a_value_that_is_there_stays() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    let mut client = stage.client();
    client.send_query("ALTER TABLE t ADD COLUMN r float8 DEFAULT random(), ADD COLUMN s float8 DEFAULT random()");
    stage.until_paused(&client);
    stage.watcher.ok("INSERT INTO t VALUES (2001, 'new', 7, NULL), (2002, 'new', NULL, 8)");
    stage.watcher.ok("UPDATE t SET r = 9 WHERE id = 1");
    stage.go();
    assert_eq!(client.outcome().error, None);
    assert_eq!(stage.watcher.value("SELECT count(*) FROM t WHERE r IS NULL OR s IS NULL"), "0");
    let kept = "SELECT count(*) FROM t WHERE (id, r) IN ((2001, 7), (1, 9)) OR (id, s) = (2002, 8)";
    assert_eq!(stage.watcher.value(kept), "3");
    stage.running.stop_now();
}

/// Who may insert a row may do so while an identity is on its way; another table meanwhile gets a column of the same name.
#[test]
fn an_identity_asks_for_no_privilege() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    stage
        .watcher
        .ok("CREATE ROLE backfill_writer; GRANT INSERT ON t TO backfill_writer; GRANT SELECT ON switch TO PUBLIC");
    stage.watcher.ok("CREATE TABLE other AS SELECT g AS id FROM generate_series(1, 20) g");
    let add = |table: &str| format!("ALTER TABLE {table} ADD COLUMN r bigint GENERATED ALWAYS AS IDENTITY");
    let (mut client, mut another) = (stage.client(), stage.client());
    client.send_query(&add("t"));
    stage.until_paused(&client);
    another.send_query(&add("other"));
    stage.until_paused(&another);
    let mut writer = stage.direct();
    writer.ok("SET ROLE backfill_writer");
    writer.ok("INSERT INTO t VALUES (2001, 'new')");
    stage.go();
    assert_eq!(client.outcome().error, None);
    assert_eq!(another.outcome().error, None);
    writer.ok("INSERT INTO t VALUES (2002, 'new')");
    assert_eq!(stage.counts("t"), all(2_002));
    assert_eq!(stage.counts("other"), all(20));
    stage.watcher.ok("REVOKE ALL ON t FROM backfill_writer; DROP ROLE backfill_writer");
    stage.running.stop_now();
}

/// Of several levels; while it pauses one is dropped, one renamed, one added, and a row changes its partition.
#[test]
fn partitions() {
    let mut stage = Stage::switched(|_| {});
    stage.watcher.ok("CREATE TABLE t (id int NOT NULL, v text) PARTITION BY RANGE (id);
         CREATE TABLE \"t A\" PARTITION OF t FOR VALUES FROM (0) TO (1000);
         CREATE TABLE tb PARTITION OF t FOR VALUES FROM (1000) TO (2000) PARTITION BY RANGE (id);
         CREATE TABLE tb1 PARTITION OF tb FOR VALUES FROM (1000) TO (1500);
         CREATE TABLE tb2 PARTITION OF tb FOR VALUES FROM (1500) TO (2000);
         CREATE TABLE gone PARTITION OF t FOR VALUES FROM (2000) TO (3000);
         CREATE TABLE named PARTITION OF t FOR VALUES FROM (3000) TO (4000);
         INSERT INTO t SELECT g, 'x' FROM generate_series(0, 3999) g");
    let mut client = stage.client();
    client.send_query(ADD);
    stage.until_paused(&client);
    stage.watcher.ok("DROP TABLE gone");
    stage.watcher.ok("ALTER TABLE named RENAME TO renamed");
    stage.watcher.ok("CREATE TABLE later PARTITION OF t FOR VALUES FROM (4000) TO (5000)");
    stage.watcher.ok("INSERT INTO t VALUES (4000, 'new')");
    stage.watcher.ok("UPDATE t SET id = 1 WHERE id = 3999");
    stage.go();
    let outcome = client.outcome();
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert_eq!(stage.counts("t"), all(3001));
    stage.running.stop_now();
}

#[test]
fn inheritance() {
    let mut stage = Stage::new(|_| {});
    stage.watcher.ok(
        "CREATE TABLE t (id int); CREATE TABLE child (more text) INHERITS (t); CREATE TABLE grandchild () INHERITS (child);
         INSERT INTO t SELECT generate_series(1, 100); INSERT INTO child SELECT generate_series(1, 100);
         INSERT INTO grandchild SELECT generate_series(1, 100)",
    );
    stage.client().ok(ADD);
    assert_eq!(stage.counts("t"), all(300));
    stage.running.stop_now();
}

/// While it pauses another table takes the name, or another column that of the new one: they stay as they are, what the statement
/// had begun goes, whatever its table is called now, and the client may try again.
#[test]
fn what_takes_the_name_meanwhile_is_left_alone() {
    let add = "ALTER TABLE t ADD COLUMN r float8 NOT NULL DEFAULT random()";
    let others = [
        "ALTER TABLE t RENAME TO old; ALTER TABLE other RENAME TO t",
        "CREATE SCHEMA away; ALTER TABLE t SET SCHEMA away; ALTER TABLE other RENAME TO t",
        "ALTER TABLE t DROP COLUMN r; ALTER TABLE t ADD COLUMN r float8; UPDATE t SET r = 7",
    ];
    for sql in others {
        let mut stage = Stage::switched(|_| {});
        stage.table(2_000);
        stage.watcher.ok("CREATE TABLE other AS SELECT 1 AS id, 7::float8 AS r FROM generate_series(1, 2000)");
        let mut client = stage.client();
        client.send_query(add);
        stage.until_paused(&client);
        stage.watcher.ok(sql);
        stage.go();
        let outcome = client.outcome();
        assert_eq!(outcome.error.as_deref(), Some("40001"), "{sql}: {outcome:?}");
        assert_eq!(outcome.notices.iter().filter(|notice| notice.contains("by hand")).count(), 0, "{outcome:?}");
        assert_eq!(stage.watcher.value("SELECT count(*) FROM t WHERE r = 7"), "2000", "{sql}");
        let columns = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid AND c.relkind = 'r' \
                       AND c.relname IN ('t', 'old', 'other') WHERE attname = 'r' AND NOT attnotnull";
        let expected = if sql.contains("other") { "1" } else { "2" };
        assert_eq!(stage.watcher.value(columns), expected, "{sql}");
        stage.running.stop_now();
    }
}

/// The last phase is the author's own text, which says no schema: another table that it would mean by then is not touched.
#[test]
fn a_table_ahead_on_the_search_path_is_left_alone() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    stage.watcher.ok("CREATE SCHEMA ahead");
    let mut client = stage.client();
    client.ok("SET search_path = ahead, public");
    client.send_query("ALTER TABLE t ADD COLUMN r float8 DEFAULT random(), ALTER COLUMN v SET DEFAULT 'x'");
    stage.until_paused(&client);
    stage.watcher.ok("CREATE TABLE ahead.t (id int, v text, r float8)");
    stage.go();
    let outcome = client.outcome();
    assert_eq!(outcome.error.as_deref(), Some("40001"), "{outcome:?}");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM pg_attrdef WHERE adrelid = 'ahead.t'::regclass"), "0");
    stage.assert_undone("another table is meant");
    stage.running.stop_now();
}

/// Not where it can be kept from it; else the statement is guarded, as there is no other way.
#[test]
fn triggers_do_not_fire() {
    let mut stage = Stage::new(|_| {});
    stage.table(1_000);
    stage.watcher.ok("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse();
         CREATE ROLE owner LOGIN; GRANT ALL ON SCHEMA public TO owner; ALTER TABLE t OWNER TO owner");
    let mut client = stage.client();
    let outcome = client.ok(ADD);
    assert_eq!(outcome.notices, [""; 0], "{outcome:?}");
    assert_eq!(stage.counts("t"), all(1_000));
    // It fires for others as before, and it did while this ran.
    assert_eq!(client.query("UPDATE t SET v = 'x' WHERE id = 1").error.as_deref(), Some("P0001"));
    let mut owner = Client::connect(port(&stage.running), "owner", &stage.database);
    let outcome = owner.ok("ALTER TABLE t ADD COLUMN s float8 DEFAULT random()");
    assert!(outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{outcome:?}");
    stage.watcher.ok("ALTER TABLE t ENABLE ALWAYS TRIGGER refuse");
    let outcome = client.ok("ALTER TABLE t ADD COLUMN u float8 DEFAULT random()");
    assert!(outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{outcome:?}");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM t WHERE s IS NULL OR u IS NULL"), "0");
    stage.running.stop_now();
}

/// The switch is seen, and told of; nothing is done meanwhile.
/// Nobody needs a privilege on an identity's sequence, nor on what stands for it meanwhile; and other tables may get one too.
#[test]
fn who_may_insert_goes_on_while_an_identity_is_filled() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    stage.watcher.ok("CREATE TABLE other (id int); INSERT INTO other SELECT generate_series(1, 500);
         CREATE ROLE app LOGIN; GRANT INSERT ON t, other TO app");
    let mut app = Client::connect(stage.postgres.port, "app", &stage.database);
    let mut clients = [stage.client(), stage.client()];
    for (client, table) in clients.iter_mut().zip(["t", "other"]) {
        client.send_query(&format!("ALTER TABLE {table} ADD COLUMN r bigint GENERATED ALWAYS AS IDENTITY"));
    }
    for client in &clients {
        stage.until_paused(client);
    }
    app.ok("INSERT INTO t VALUES (0, 'new')");
    app.ok("INSERT INTO other VALUES (0)");
    stage.go();
    for client in &mut clients {
        assert_eq!(client.outcome().tags, ["ALTER TABLE"]);
    }
    app.ok("INSERT INTO t VALUES (-1, 'newer')");
    assert_eq!(stage.counts("t"), all(2_002));
    assert_eq!(stage.counts("other"), all(501));
    let sequences = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'S'";
    assert_eq!(stage.watcher.value(sequences), "other_r_seq t_r_seq");
}

#[test]
fn a_condition_holds_it_up() {
    let mut stage = Stage::switched(|config| {
        config.ddl.progress_interval = Duration::from_millis(100);
        config.backfill.max_active = 1000;
    });
    stage.table(5_000);
    let mut client = stage.client();
    client.send_query(ADD);
    stage.until_paused(&client);
    let notice = client.read().field(b'M').unwrap_or_default();
    for part in ["backfilling public.t: 0 %, 0 of about 5000 rows", "of 10 s", " of 1000", "paused: the condition"] {
        assert!(notice.contains(part), "{part}: {notice}");
    }
    assert_eq!(stage.watcher.value("SELECT count(r) FROM t"), "0");
    stage.go();
    assert_eq!(client.outcome().error, None);
    assert_eq!(stage.counts("t"), all(5_000));
    stage.running.stop_now();
}

/// The condition fails: it pauses as well, says why, and no longer than the limit.
#[test]
fn a_pause_has_a_limit() {
    let mut stage = Stage::new(|config| {
        config.backfill = Backfill {
            condition: Some("(SELECT go FROM no_such_table)".to_owned()),
            pause_limit: Duration::from_millis(400),
            ..Backfill::default()
        };
    });
    stage.table(1_000);
    let mut client = stage.client();
    let outcome = client.query(ADD);
    assert_eq!(outcome.error.as_deref(), Some("57014"), "{outcome:?}");
    assert!(outcome.message.unwrap_or_default().contains("has paused for 400 ms"));
    stage.assert_undone("paused too long");
    stage.running.stop_now();
}

/// A check that old rows may break is not valid, and one of them does: it is named, by place and key.
#[test]
fn a_row_that_cannot_be_filled_is_named() {
    let mut stage = Stage::new(|_| {});
    stage.table(20_000);
    stage.watcher.ok("UPDATE t SET v = 'bad' WHERE id = 12345");
    // The constraint is valid, and what it asks is not what it asked once.
    stage.watcher.ok("CREATE FUNCTION good(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'");
    stage.watcher.ok("ALTER TABLE t ADD CONSTRAINT good CHECK (good(v))");
    stage.watcher.ok(
        "CREATE OR REPLACE FUNCTION good(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 <> ''bad''; END'",
    );
    let tid = stage.watcher.value("SELECT ctid FROM t WHERE id = 12345");
    let mut client = stage.client();
    client.send_query(ADD);
    let error = loop {
        let message = client.read();
        if message.tag == b'E' {
            break message;
        }
    };
    assert_eq!(error.field(b'C').as_deref(), Some("23514"));
    assert!(error.field(b'M').unwrap().contains("violates check constraint \"good\""));
    let detail = error.field(b'D').unwrap();
    assert!(detail.starts_with("Failing row contains (12345,"), "{detail}");
    assert!(
        detail.ends_with(&format!("\nThe failing row is at ctid {tid} of public.t, key (id)=(12345).")),
        "{detail}"
    );
    assert_eq!(client.read().tag, b'Z');
    stage.assert_undone("a row at fault");
    stage.running.stop_now();
}

/// The sequence that errors name is the one that the identity would have had.
#[test]
fn an_identity_that_ends_names_its_own_sequence() {
    let mut stage = Stage::new(|_| {});
    stage.table(200);
    let outcome = stage.client().query("ALTER TABLE t ADD COLUMN r int GENERATED ALWAYS AS IDENTITY (MAXVALUE 100)");
    assert_eq!(outcome.error.as_deref(), Some("2200H"), "{outcome:?}");
    let message = outcome.message.unwrap_or_default();
    assert_eq!(message, "nextval: reached maximum value of sequence \"t_r_seq\" (100)");
    stage.assert_undone("no more numbers");
    stage.running.stop_now();
}

/// What the default gives may be NULL: every row gets its chance, and that is all.
#[test]
fn a_default_may_give_null() {
    let mut stage = Stage::new(|_| {});
    stage.table(5_000);
    stage.client().ok("ALTER TABLE t ADD COLUMN r float8 DEFAULT CASE WHEN random() < 0.9 THEN random() END");
    let filled: u32 = stage.watcher.value("SELECT count(r) FROM t").parse().unwrap();
    assert!((4_000..5_000).contains(&filled), "{filled}");
    stage.running.stop_now();
}

/// The planner knows the new values; who is at the statistics already is not waited for.
#[test]
fn the_filled_column_is_analysed() {
    let mut stage = Stage::switched(|_| {});
    stage.table(2_000);
    let known = "SELECT count(*) FROM pg_stats WHERE tablename = 't' AND attname = 'r'";
    for busy in [true, false] {
        let (mut client, mut other) = (stage.client(), stage.direct());
        stage.watcher.ok("UPDATE switch SET go = false");
        client.send_query(ADD);
        stage.until_paused(&client);
        if busy {
            other.ok("BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE");
        }
        stage.go();
        assert_eq!(client.outcome().error, None);
        assert_eq!(stage.watcher.value(known), if busy { "0" } else { "1" });
        assert_eq!(client.value("SHOW lock_timeout"), "0");
        other.query("COMMIT");
        stage.watcher.ok("ALTER TABLE t DROP COLUMN r");
    }
    stage.running.stop_now();
}
