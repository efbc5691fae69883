//! Tests of backfills by the range of pages that the version can read: no batch reads the whole table, none takes longer
//! than it may, and every row gets its value.

use crate::common::{Client, new_database, port, proxy, wait_until};
use pgsluice::dev::Postgres;
use std::time::Duration;

pub(crate) fn check(server: &Postgres) {
    let running = proxy(server, |config| {
        config.ddl.small_table = 0;
        config.locks.stall_budget = Duration::from_millis(60);
        config.backfill.batch_time = Duration::from_millis(20);
        config.backfill.pause_ratio = 0.0;
        config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
    });
    let database = new_database(server, "fills");
    let direct = || Client::connect(server.port, &server.user, &database);
    let (mut maker, mut watcher) = (direct(), direct());
    maker.ok("CREATE TABLE switch (go bool); INSERT INTO switch VALUES (false)");
    maker.ok(
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, 20000) g",
    );
    maker.ok("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$");
    maker.ok("CREATE FUNCTION slow() RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN random(); END $$");
    maker.ok("CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE PROCEDURE refuse()");
    let mut client = Client::connect(port(&running), &server.user, &database);
    client.send_query("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()");
    let paused = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%paused: the condition%'",
        client.pid
    );
    wait_until("it pauses", || watcher.value(&paused) == "1");
    maker.ok("SET session_replication_role = replica");
    maker.ok("UPDATE t SET v = repeat('y', 500) WHERE id % 1000 = 7");
    let mut mover = direct();
    mover.ok("SET session_replication_role = replica; BEGIN; UPDATE t SET v = 'moved' WHERE id = 15000");
    maker.ok("UPDATE switch SET go = true");
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%waiting for rows that others have locked%'",
        client.pid
    );
    wait_until("all others are done", || watcher.value(&waits) == "1");
    mover.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    // Each its own; before 12 random() has but 2^31 values, so two may meet.
    assert_eq!(watcher.value("SELECT count(r) = 20000 AND count(DISTINCT r) > 19900 FROM t"), "t");
    // The looks for what was moved read all of it, and so do the readers above; the batches (hundreds) do not.
    let scans = "SELECT seq_scan <= 12 AND n_tup_upd >= 20000 FROM pg_stat_user_tables WHERE relname = 't'";
    wait_until("the batches are counted", || {
        watcher.value("SELECT pg_stat_clear_snapshot()").is_empty() && watcher.value(scans) == "t"
    });
    assert_eq!(client.value("SHOW session_replication_role"), "origin");
    maker.ok("CREATE TABLE u AS SELECT id FROM t LIMIT 300");
    client.ok("ALTER TABLE u ADD COLUMN r float8 DEFAULT slow()");
    let most = watcher.value("SELECT max(rows) FROM (SELECT count(*) AS rows FROM u GROUP BY xmin::text) b");
    assert!(most.parse::<u32>().unwrap() <= 30, "a batch of {most} rows took 2 ms for each");
    filled_and_not_null(server.version, &mut client);
    running.stop_now();
}

/// Before 12 no proof spares the scan for NOT NULL: a CHECK does in its place, for good, and a WARNING says so.
fn filled_and_not_null(version: u32, client: &mut Client) {
    let outcome =
        client.ok("ALTER TABLE u ADD COLUMN s serial, ADD COLUMN \"N n\" int NOT NULL DEFAULT (random() * 0)::int + 1");
    let warned = outcome.notices.iter().filter(|notice| notice.contains("gets a CHECK instead of NOT NULL")).count();
    let columns = "SELECT string_agg(attname || ' ' || attnotnull, ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'u'::regclass AND attname IN ('s', 'N n')";
    let checks =
        "SELECT string_agg(concat_ws(' ', conname, convalidated, pg_get_constraintdef(oid)), ', ' ORDER BY conname)
        FROM pg_constraint WHERE conrelid = 'u'::regclass AND contype = 'c'";
    let state = (warned, client.value(columns), client.value(checks));
    let expected = match version {
        0..12 => (
            2,
            "s false, N n false",
            r#"u_N n_not_null t CHECK (("N n" IS NOT NULL)), u_s_not_null t CHECK ((s IS NOT NULL))"#,
        ),
        _ => (0, "s true, N n true", ""),
    };
    assert_eq!((state.0, state.1.as_str(), state.2.as_str()), expected);
    assert_eq!(client.value("SELECT count(DISTINCT s) = 300 AND sum(\"N n\") = 300 FROM u"), "t");
    let refused = client.query("UPDATE u SET s = NULL");
    assert_eq!(refused.error.as_deref(), Some(if version < 12 { "23514" } else { "23502" }));
    let twice = client.ok("ALTER TABLE u ALTER COLUMN s SET NOT NULL");
    assert_eq!(twice.notices.len(), usize::from(version < 12), "{twice:?}");
}
