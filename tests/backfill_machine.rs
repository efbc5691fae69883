//! Tests of backfills that the machine delays or ends: a replica falls behind, the disk is full, or other sessions are at
//! work.

mod common;

use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::Config;
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::Running;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const ROWS: u32 = 20_000;

struct Stage {
    postgres: Postgres,
    running: Running,
    database: String,
    watcher: Client,
}

impl Stage {
    /// With a table `t` of so many rows.
    fn new(tweak: impl FnOnce(&mut Config)) -> Self {
        let postgres = postgres();
        let running = proxy(&postgres, |config| {
            config.ddl.small_table = 0;
            config.backfill.pause_ratio = 0.0;
            tweak(config);
        });
        let database = new_database(&postgres, "machine");
        let mut watcher = Client::connect(postgres.port, &postgres.user, &database);
        watcher.ok("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL)");
        watcher.ok(&format!("INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, {ROWS}) g"));
        Self { postgres, running, database, watcher }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, &self.database)
    }
}

/// Columns, constraints, indexes, sequences, and locks that are held by nobody's transaction.
const STATE: &str = "
    SELECT string_agg(line, ', ' ORDER BY line) FROM (
      SELECT attname::text AS line FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped
      UNION ALL SELECT conname::text FROM pg_constraint WHERE connamespace = 'public'::regnamespace
      UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
      UNION ALL SELECT locktype FROM pg_locks WHERE locktype = 'advisory' OR relation = 't'::regclass) s";

/// Gives a value for each row but the `nth` and those behind it: what a file gives that cannot grow any more.
const FILLS_UP: &str = "
    CREATE SEQUENCE written;
    CREATE TABLE space (rows bigint); INSERT INTO space VALUES (0);
    CREATE FUNCTION write() RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
      IF nextval('public.written') > (SELECT rows FROM public.space) THEN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
      END IF;
      RETURN 1;
    END $$";

/// In the first batch, in one amid all others, and in the last.
#[test]
fn a_full_disk_ends_it_with_nothing_left() {
    let mut stage = Stage::new(|config| config.backfill.batch_time = Duration::from_millis(10));
    stage.watcher.ok(FILLS_UP);
    let before = stage.watcher.value(STATE);
    for statement in [
        "ALTER TABLE t ADD COLUMN c int DEFAULT write()",
        "ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT write() CHECK (c > 0) UNIQUE, ADD COLUMN s serial, ALTER v DROP NOT NULL",
    ] {
        for rows in [0, ROWS / 2, ROWS - 1] {
            stage.watcher.ok(&format!("UPDATE space SET rows = {rows}; ALTER SEQUENCE written RESTART"));
            let mut client = stage.client();
            let outcome = client.query(statement);
            let what = format!("{statement}, full after {rows} rows: {outcome:?}");
            assert_eq!((outcome.error.as_deref(), outcome.status), (Some("53100"), 'I'), "{what}");
            assert_eq!(outcome.message.as_deref(), Some("could not extend file: No space left on device"), "{what}");
            // Nobody tries again what has failed: it is written no more than once. One in a batch that was given up counts.
            let tried: u32 = stage.watcher.value("SELECT last_value FROM written").parse().unwrap();
            assert!((rows + 1..rows + 2 + ROWS / 10).contains(&tried), "{tried} rows tried, {what}");
            assert_eq!(stage.watcher.value(STATE), before, "{what}");
            // The session goes on as if nothing had been.
            assert_eq!(client.value("SHOW lock_timeout"), "0");
            client.goodbye();
        }
    }
    stage.watcher.ok(&format!("UPDATE space SET rows = {}", u32::MAX));
    stage.client().ok("ALTER TABLE t ADD COLUMN c int NOT NULL DEFAULT write()");
    assert_eq!(stage.watcher.value("SELECT sum(c) FROM t"), ROWS.to_string());
    stage.running.stop_now();
}

/// While a replica is behind by more than `max_lag`, nothing is written; who waits is told how far it is behind. When it
/// has caught up, the backfill goes on.
#[test]
fn a_replica_that_falls_behind_is_waited_for() {
    let mut stage = Stage::new(|config| {
        config.backfill.max_lag = Duration::from_secs(1);
        config.ddl.progress_interval = Duration::from_millis(50);
    });
    // It says how far it is so often, however little comes.
    let options = Options::default().setting("hot_standby", "on").setting("wal_receiver_status_interval", "1s");
    let replica = stage.postgres.standby(&options).expect("a replica");
    let mut on_replica = Client::connect(replica.port, &replica.user, &stage.database);
    assert_eq!(on_replica.value("SELECT count(*) FROM t"), ROWS.to_string());
    on_replica.ok("SELECT pg_wal_replay_pause()");
    stage.watcher.ok("INSERT INTO t VALUES (0, 'behind')");
    let lag = "SELECT COALESCE(max(replay_lag) > '1 s', false) FROM pg_stat_replication";
    wait_until("the replica is behind", || stage.watcher.value(lag) == "t");

    let mut client = stage.client();
    client.send_query("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()");
    let paused = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: backfill of public.t, \
         paused: a replica lags by % s of at most 1 s%'",
        client.pid
    );
    wait_until("it pauses", || stage.watcher.value(&paused) == "1");
    let told = loop {
        let notice = client.read();
        assert_eq!(notice.tag, b'N', "{notice:?}");
        let words = notice.field(b'M').unwrap_or_default();
        if words.contains("paused") {
            break words;
        }
    };
    assert!(told.starts_with("backfilling public.t: 0 %, 0 rows,"), "{told}");
    assert!(told.contains(" s of 1 s, paused: a replica lags by ") && told.ends_with(" s of at most 1 s"), "{told}");
    assert_eq!(stage.watcher.value("SELECT count(r) FROM t"), "0");
    on_replica.ok("SELECT pg_wal_replay_resume()");
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.tags.len()), (None, 1), "{outcome:?}");
    assert_eq!(stage.watcher.value("SELECT count(r) FROM t"), (ROWS + 1).to_string());
    let replayed = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'r'";
    wait_until("the replica has it too", || on_replica.value(replayed) == "1");
    stage.running.stop_now();
}

/// Alone it pauses for less than beside others, and says so.
#[test]
fn beside_others_it_pauses_for_longer() {
    let mut stage = Stage::new(|config| {
        config.backfill.pause_ratio = 9.0;
        // It looks at the server also while it is held up.
        config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
        config.ddl.progress_interval = Duration::from_millis(100);
    });
    stage.watcher.ok("CREATE TABLE switch (go bool NOT NULL); INSERT INTO switch VALUES (false)");
    let mut client = stage.client();
    client.send_query("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()");
    // Nobody may ask the server anything meanwhile.
    let until_told = |client: &mut Client, words: &str| {
        while !client.read().field(b'M').is_some_and(|told| told.contains(words)) {}
    };
    until_told(&mut client, "pause 1 x a batch (9 beside others)");
    let stop = Arc::new(AtomicBool::new(false));
    let mut other = Client::connect(stage.postgres.port, &stage.postgres.user, "postgres");
    let at_work = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                other.ok("SELECT 1");
            }
        }
    });
    until_told(&mut client, "pause 9 x a batch, ");
    stop.store(true, Ordering::Relaxed);
    at_work.join().unwrap();
    stage.watcher.ok("UPDATE switch SET go = true");
    assert_eq!(client.outcome().error, None);
    assert_eq!(stage.watcher.value("SELECT count(r) FROM t"), ROWS.to_string());
    stage.running.stop_now();
}
