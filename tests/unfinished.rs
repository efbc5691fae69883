//! A statement with a backfill whose proxy or session died: the same statement, through any proxy, goes on where that was.

mod common;

use common::stop::{self, STATE, STOPS, stopped};
use common::{Client, Outcome, new_database, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::time::Duration;

const TABLES: &str = "
    CREATE TABLE o (id int PRIMARY KEY);
    INSERT INTO o SELECT generate_series(1, 100);
    CREATE TABLE t (id int, v text, j int);
    INSERT INTO t SELECT g, repeat('x', 100), g FROM generate_series(1, 20000) g;
    CREATE TABLE p (id int, v text) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
    CREATE TABLE p2 PARTITION OF p DEFAULT;
    INSERT INTO p SELECT g, 'x' FROM generate_series(1, 2000) g";

const DROPS: &str = "DROP TABLE t, o, p";

/// Kills its own session at the 5000th value, once.
const DEADLY: &str = "
    CREATE SEQUENCE calls;
    CREATE FUNCTION deadly() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
    DECLARE n bigint := nextval('calls');
    BEGIN
      IF n = 5000 THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10); END IF;
      RETURN n;
    END $$";

/// Comments on types, none of which is anybody's but ours; locks and invalid indexes.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_description WHERE classoid = 'pg_type'::regclass AND description LIKE 'pgsluice%')
      || ' ' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
      || ' ' || (SELECT count(*) FROM pg_index WHERE NOT indisvalid)";

struct Stage {
    postgres: Postgres,
    database: String,
    running: Running,
    watcher: Client,
}

fn running(postgres: &Postgres) -> Running {
    proxy(postgres, |config| {
        config.ddl.small_table = 0;
        config.backfill.pause_ratio = 0.0;
        config.backfill.batch_time = Duration::from_millis(2);
        config.ddl.record_interval = Duration::from_millis(1);
        config.locks.deadline = Duration::from_secs(20);
    })
}

impl Stage {
    fn new() -> Self {
        let postgres = postgres();
        let running = running(&postgres);
        let database = new_database(&postgres, "unfinished");
        let mut watcher = Client::connect(postgres.port, &postgres.user, &database);
        watcher.ok(DEADLY);
        watcher.ok(TABLES);
        Self { postgres, database, running, watcher }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, &self.database)
    }

    fn direct(&self) -> Client {
        Client::connect(self.postgres.port, &self.postgres.user, &self.database)
    }

    /// What one proxy remembers another does not know.
    fn another_proxy(&mut self) {
        let another = running(&self.postgres);
        std::mem::replace(&mut self.running, another).stop_now();
    }

    fn until_gone(&mut self, pid: i32) {
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("its backend is gone", || self.watcher.value(&gone) == "0");
    }

    /// The statement's session is terminated at a step.
    fn lose(&mut self, sql: &str, pattern: &str) {
        let mut holder = self.direct();
        holder.ok("SELECT pg_advisory_lock(42)");
        self.watcher.ok(&format!("INSERT INTO stop_at VALUES ('{pattern}')"));
        let mut client = self.client();
        client.send_query(sql);
        let pid = client.pid;
        let stopped = stopped(pid, pattern);
        wait_until(&format!("{sql} at {pattern}"), || self.watcher.value(&stopped) == "1");
        self.watcher.ok("DELETE FROM stop_at");
        self.watcher.ok(&format!("SELECT pg_terminate_backend({pid})"));
        self.until_gone(pid);
        holder.goodbye();
    }

    /// A statement whose default is `deadly()` dies half-way.
    fn die(&mut self, sql: &str) {
        let mut client = self.client();
        client.send_query(sql);
        let pid = client.pid;
        client.last_words();
        self.until_gone(pid);
    }

    fn record(&mut self, table: &str) -> String {
        let text = format!(
            "SELECT coalesce(obj_description(reltype, 'pg_type'), '') FROM pg_class WHERE oid = '{table}'::regclass"
        );
        self.watcher.value(&text)
    }

    fn counts(&mut self, table: &str) -> Vec<String> {
        let rows = self.watcher.ok(&format!("SELECT count(*), count(r), count(DISTINCT r) FROM {table}")).rows;
        rows.into_iter().flatten().flatten().collect()
    }
}

fn continued(outcome: &Outcome) -> bool {
    outcome.notices.iter().any(|notice| notice.contains("continuing what this ALTER TABLE had begun at"))
}

const ADD: &str = "ALTER TABLE t ADD COLUMN r bigint NOT NULL DEFAULT deadly()";

/// At whatever step of whatever phase it died: the table becomes what it would have become.
#[test]
fn the_same_statement_continues_after_a_death_at_any_step() {
    let mut stage = Stage::new();
    stage.watcher.ok(STOPS);
    let before = stage.watcher.value(STATE);
    let statements: [(&str, &[&str]); 4] = [
        (
            "ALTER TABLE t ADD COLUMN c bigint NOT NULL DEFAULT 1 + random() * 1e17 CHECK (c > 0) UNIQUE, ALTER v SET NOT NULL",
            &[
                "%ADD COLUMN \"c\"%",
                "%IS NOT NULL) NOT VALID",
                "%VALIDATE CONSTRAINT%",
                "CREATE UNIQUE INDEX%",
                "%SET NOT NULL",
                "%USING INDEX%",
                "%DROP CONSTRAINT%",
            ],
        ),
        (
            "ALTER TABLE t ADD COLUMN c bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
            &["%OWNED BY %.%", "CREATE UNIQUE INDEX%", "%AS IDENTITY%", "DROP SEQUENCE%", "%USING INDEX%"],
        ),
        (
            "ALTER TABLE t ADD COLUMN \"Ünï c\" float8 NOT NULL DEFAULT random(), ADD FOREIGN KEY (j) REFERENCES o NOT VALID, DROP COLUMN v",
            &["%ADD COLUMN%", "%IS NOT NULL) NOT VALID", "%VALIDATE%", "%DROP COLUMN v", "%DROP CONSTRAINT%"],
        ),
        (
            "ALTER TABLE p ADD COLUMN c uuid DEFAULT gen_random_uuid() CHECK (c IS NOT NULL)",
            &["%ADD COLUMN%", "%VALIDATE%"],
        ),
    ];
    for (sql, patterns) in statements {
        stage.client().ok(sql);
        let after = stage.watcher.value(STATE);
        stage.watcher.ok(DROPS);
        stage.watcher.ok(TABLES);
        assert_eq!(stage.watcher.value(STATE), before, "{sql}");
        let mut went_on = 0;
        for pattern in patterns {
            let what = format!("{sql}, killed at {pattern}");
            stage.lose(sql, pattern);
            stage.another_proxy();
            let outcome = stage.client().ok(sql);
            went_on += u32::from(continued(&outcome));
            assert_eq!(outcome.tags, ["ALTER TABLE"], "{what}");
            assert_eq!(stage.watcher.value(STATE), after, "{what}");
            assert_eq!(stage.watcher.value(LEFT), "0 0 0", "{what}");
            stage.watcher.ok(DROPS);
            stage.watcher.ok(TABLES);
        }
        // What died in its first transaction has begun nothing.
        assert!(went_on as usize >= patterns.len() - 1, "{sql}: {went_on}");
    }
    stage.running.stop_now();
}

/// Of any plan that has several phases.
#[test]
fn every_plan_continues_after_a_death_at_any_step() {
    let mut stage = Stage::new();
    stage.watcher.ok(DROPS);
    stage.watcher.ok(STOPS);
    stage.watcher.ok(stop::TABLES);
    let before = stage.watcher.value(STATE);
    for (sql, patterns) in stop::STATEMENTS {
        // What detaches a partition the server finishes itself.
        if sql.starts_with("DROP TABLE") {
            continue;
        }
        stage.client().ok(sql);
        let after = stage.watcher.value(STATE);
        stage.watcher.ok(stop::DROPS);
        stage.watcher.ok(stop::TABLES);
        for pattern in patterns {
            let what = format!("{sql}, killed at {pattern}");
            stage.lose(sql, pattern);
            stage.another_proxy();
            let outcome = stage.client().query(sql);
            assert_eq!(outcome.error, None, "{what}: {outcome:?}");
            assert_eq!(stage.watcher.value(STATE), after, "{what}");
            assert_eq!(stage.watcher.value(LEFT), "0 0 0", "{what}");
            stage.watcher.ok(stop::DROPS);
            stage.watcher.ok(stop::TABLES);
            assert_eq!(stage.watcher.value(STATE), before, "{what}");
        }
    }
    stage.running.stop_now();
}

/// A backfill goes on at its page: what had its value keeps it, and is not read again but by the last look.
#[test]
fn a_backfill_goes_on_where_it_was() {
    let mut stage = Stage::new();
    let read = |stage: &mut Stage| -> u64 {
        stage.watcher.value("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 't'").parse().unwrap()
    };
    stage.watcher.ok("VACUUM ANALYZE t");
    stage.die(ADD);
    assert!(stage.record("t").contains(r#""page":"#), "{}", stage.record("t"));
    let mut application = stage.direct();
    let filled: u64 = application.value("SELECT count(r) FROM t").parse().unwrap();
    assert!((1_000..5_000).contains(&filled), "{filled}");
    application.ok("CREATE TABLE had AS SELECT id, r FROM t WHERE r IS NOT NULL");
    application.ok("INSERT INTO t VALUES (20001, 'new', 1)");
    // At its end it has told what it has read.
    let (pid, _) = (application.pid, application.goodbye());
    stage.until_gone(pid);
    stage.another_proxy();
    let before = read(&mut stage);
    let mut client = stage.client();
    let outcome = client.ok(ADD);
    let (pid, _) = (client.pid, client.goodbye());
    stage.until_gone(pid);
    let read = read(&mut stage) - before;
    assert!(continued(&outcome), "{outcome:?}");
    assert_eq!(stage.counts("t"), ["20001", "20001", "20001"]);
    assert_eq!(stage.watcher.value("SELECT count(*) FROM had JOIN t USING (id, r)"), filled.to_string());
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    if stage.postgres.version >= 14 {
        // The sweep's look, and the validation; and what was left, from the place that was last recorded.
        let by_batches = read - 2 * 20_001;
        assert!((20_001 - filled..20_001 - filled + 1_500).contains(&by_batches), "{by_batches} of {filled}");
    }
    stage.running.stop_now();
}

/// The proxy that has lost the session remembers what to undo: not where the statement itself comes again.
#[test]
fn another_statement_undoes_and_the_same_one_continues() {
    let mut stage = Stage::new();
    let columns =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
    stage.die(ADD);
    let outcome = stage.client().ok("COMMENT ON TABLE o IS NULL");
    assert!(outcome.notices.iter().any(|notice| notice.contains("undid what ALTER TABLE had begun")), "{outcome:?}");
    assert_eq!((stage.watcher.value(columns), stage.watcher.value(LEFT)), ("3".to_owned(), "0 0 0".to_owned()));

    // With IF NOT EXISTS it would be skipped, half filled, if nobody knew.
    let add = "ALTER TABLE t ADD COLUMN IF NOT EXISTS r bigint NOT NULL DEFAULT deadly()";
    stage.watcher.ok("ALTER SEQUENCE calls RESTART");
    stage.die(add);
    // Of another table, by the same text.
    stage.watcher.ok("CREATE SCHEMA tenant; CREATE TABLE tenant.t (LIKE t); INSERT INTO tenant.t SELECT 7, 'x', 7");
    let mut tenant = stage.client();
    tenant.ok("SET search_path = tenant, public; ALTER TABLE tenant.t DROP COLUMN r");
    let outcome = tenant.ok(add);
    assert!(!continued(&outcome), "{outcome:?}");
    assert_eq!(stage.counts("tenant.t"), ["1", "1", "1"]);
    let outcome = stage.client().ok(add);
    assert!(continued(&outcome), "{outcome:?}");
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);
    // It is over, and nobody undoes it any more.
    assert_eq!(stage.client().ok("COMMENT ON TABLE o IS NULL").notices, Vec::<String>::new());
    assert_eq!((stage.watcher.value(columns), stage.watcher.value(LEFT)), ("4".to_owned(), "0 0 0".to_owned()));
    assert_eq!(stage.client().query(ADD).error.as_deref(), Some("42701"));
    stage.running.stop_now();
}

/// Only what still is what was begun is continued; else a WARNING tells, and the server refuses as it would directly.
#[test]
fn what_has_changed_meanwhile_is_not_continued() {
    let mut stage = Stage::new();
    let warned = |outcome: &Outcome, why: &str| {
        assert!(outcome.notices.iter().any(|notice| notice.contains("WARNING") && notice.contains(why)), "{outcome:?}");
        assert_eq!(outcome.error.as_deref(), Some("42701"), "{outcome:?}");
    };
    // Somebody's own column has taken the name.
    stage.die(ADD);
    stage.another_proxy();
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r; ALTER TABLE t ADD COLUMN r bigint");
    warned(&stage.client().query(ADD), "its columns have been dropped or renamed");
    assert_eq!(stage.counts("t"), ["20000", "0", "0"]);
    // Its record is in nobody's way.
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r; ALTER SEQUENCE calls RESTART");
    stage.die(ADD);
    assert!(!stage.record("t").is_empty());
    stage.another_proxy();
    // Other settings, another plan.
    let other = proxy(&stage.postgres, |config| config.ddl.small_table = 1 << 40);
    std::mem::replace(&mut stage.running, other).stop_now();
    warned(&stage.client().query(ADD), "would do it otherwise");
    stage.another_proxy();
    // A table that is none of it has taken the name; and by its new name it is not what the statement names.
    stage.watcher.ok("ALTER TABLE t RENAME TO was_t; CREATE TABLE t (id int, r bigint)");
    let outcome = stage.client().query(ADD);
    assert_eq!((outcome.error.as_deref(), continued(&outcome)), (Some("42701"), false));
    assert!(!outcome.notices.iter().any(|notice| notice.contains("cannot be continued")), "{outcome:?}");
    stage.watcher.ok("DROP TABLE t; ALTER TABLE was_t RENAME TO t");
    // Another statement does not care, nor does the same one in a block.
    stage.client().ok("ALTER TABLE t ADD COLUMN more float8 DEFAULT random()");
    let mut client = stage.client();
    client.ok("BEGIN");
    assert_eq!(client.query(ADD).error.as_deref(), Some("42701"));
    client.ok("ROLLBACK");
    assert!(continued(&client.ok(ADD)));
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// Who may write the record of a table may not have a superuser follow it.
#[test]
fn a_superuser_does_not_follow_what_others_have_recorded() {
    let mut stage = Stage::new();
    stage.watcher.ok("CREATE ROLE owner LOGIN; ALTER TABLE t OWNER TO owner; GRANT USAGE ON SEQUENCE calls TO owner");
    let owner = |stage: &Stage| Client::connect(port(&stage.running), "owner", &stage.database);
    let mut client = owner(&stage);
    client.send_query(ADD);
    let (pid, _) = (client.pid, client.last_words());
    stage.until_gone(pid);
    assert!(stage.record("t").contains(r#""page":"#));
    stage.another_proxy();
    let outcome = stage.client().query(ADD);
    assert_eq!((outcome.error.as_deref(), outcome.notices), (Some("42701"), Vec::new()));
    assert!(continued(&owner(&stage).ok(ADD)));
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);
    stage.running.stop_now();
}

/// Two sessions of one statement: the second waits for the first, and hears what it would have heard directly.
#[test]
fn who_is_at_work_is_waited_for() {
    let mut stage = Stage::new();
    stage.watcher.ok("CREATE TABLE switch AS SELECT false AS go");
    let switched = proxy(&stage.postgres, |config| {
        config.ddl.small_table = 0;
        config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
    });
    std::mem::replace(&mut stage.running, switched).stop_now();
    let (mut first, mut second) = (stage.client(), stage.client());
    let add = "ALTER TABLE t ADD COLUMN IF NOT EXISTS r float8 NOT NULL DEFAULT random()";
    first.send_query(add);
    wait_until("it is recorded", || !stage.record("t").is_empty());
    second.send_query(add);
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%waiting to continue a schema change%'",
        second.pid
    );
    wait_until("the second waits", || stage.watcher.value(&waits) == "1");
    // Without the lock of the first it would go on with what is not dead.
    stage.watcher.ok("UPDATE switch SET go = true");
    assert_eq!(first.outcome().error, None);
    let outcome = second.outcome();
    let said = |words: &str| outcome.notices.iter().any(|notice| notice.contains(words));
    assert!(said("waiting to continue") && said("already exists, skipping") && !continued(&outcome), "{outcome:?}");
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);

    // Not for ever.
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r; UPDATE switch SET go = false");
    let mut first = stage.client();
    first.send_query(add);
    wait_until("it is recorded", || !stage.record("t").is_empty());
    second.ok("SET lock_timeout = '400ms'");
    let outcome = second.query(add);
    assert_eq!(outcome.error.as_deref(), Some("55P03"), "{outcome:?}");
    stage.watcher.ok("UPDATE switch SET go = true");
    assert_eq!(first.outcome().error, None);
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// Where a record would be seen or would overwrite something, there is none, and all else is as ever.
#[test]
fn nobody_is_bothered_by_a_record() {
    let mut stage = Stage::new();
    let add = "ALTER TABLE t ADD COLUMN r float8 NOT NULL DEFAULT random()";
    stage.watcher.ok("COMMENT ON TYPE t IS 'mine'");
    stage.die(ADD);
    assert_eq!(stage.record("t"), "mine");
    stage.client().ok("COMMENT ON TABLE o IS NULL");
    stage.client().ok(add);
    assert_eq!(stage.record("t"), "mine");
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r; COMMENT ON TYPE t IS NULL");

    // An event trigger hears of no COMMENT, whether it can be kept from that or not.
    stage.watcher.ok(
        "CREATE TABLE heard (tag text);
         CREATE FUNCTION hear() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO heard VALUES (tg_tag); END';
         CREATE EVENT TRIGGER hear ON ddl_command_end EXECUTE FUNCTION hear()",
    );
    for enable in ["ENABLE", "ENABLE ALWAYS"] {
        stage.watcher.ok(&format!("ALTER EVENT TRIGGER hear {enable}"));
        stage.client().ok(add);
        stage.client().ok("ALTER TABLE t DROP COLUMN r");
        assert_eq!(stage.watcher.value("SELECT string_agg(DISTINCT tag, ' ') FROM heard"), "ALTER TABLE", "{enable}");
    }
    // Whoever wants none has none.
    stage.watcher.ok("DROP EVENT TRIGGER hear; ALTER SEQUENCE calls RESTART");
    let none = proxy(&stage.postgres, |config| {
        config.ddl.small_table = 0;
        config.ddl.record_interval = Duration::ZERO;
    });
    std::mem::replace(&mut stage.running, none).stop_now();
    stage.die(ADD);
    assert_eq!(stage.record("t"), "");
    stage.running.stop_now();
}
