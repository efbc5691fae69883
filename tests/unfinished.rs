//! A statement in several phases whose proxy or session died: the same statement, through any proxy, goes on where that was.

mod common;

use common::program::Program;
use common::stop::{self, STATE, STOPS, send_and_stop};
use common::versions::server;
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
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (10000);
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

struct Stage<'a> {
    postgres: &'a Postgres,
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

impl<'a> Stage<'a> {
    fn new(postgres: &'a Postgres) -> Self {
        let running = running(postgres);
        let database = new_database(postgres, "unfinished");
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
        let another = running(self.postgres);
        std::mem::replace(&mut self.running, another).stop_now();
    }

    fn until_gone(&mut self, pid: i32) {
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("its backend is gone", || self.watcher.value(&gone) == "0");
    }

    /// The statement's session is terminated at a step.
    fn lose(&mut self, sql: &str, pattern: &str) {
        let mut holder = self.direct();
        let mut client = self.client();
        send_and_stop(&mut client, sql, pattern, &mut self.watcher, &mut holder);
        let pid = client.pid;
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
    outcome.notices.iter().any(|notice| notice.contains("continuing this ALTER TABLE, begun at"))
}

/// Not continued: a WARNING says why, and the server's error is what it would be directly.
#[track_caller]
fn warned(outcome: &Outcome, why: &str) {
    assert!(outcome.notices.iter().any(|notice| notice.contains("WARNING") && notice.contains(why)), "{outcome:?}");
    assert_eq!(outcome.error.as_deref(), Some("42701"), "{outcome:?}");
}

/// Its first step is the client's.
const NULLABLE: &str = "ALTER TABLE t ADD COLUMN r bigint DEFAULT deadly()";

const ADD: &str = "ALTER TABLE t ADD COLUMN r bigint NOT NULL DEFAULT deadly()";

/// Steps that make a column NOT NULL by the proof of a CHECK: before 12 there is no such thing, from 18 on the constraint itself
/// may be NOT VALID.
const FROM_12_TO_17: [&str; 2] = ["%SET NOT NULL", "%DROP CONSTRAINT%"];

/// At whatever step of whatever phase it died: the table becomes what it would have become.
fn the_same_statement_continues_after_a_death_at_any_step(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok(STOPS);
    let before = stage.watcher.value(STATE);
    let statements: [(&str, &[&str]); 4] = [
        (
            "ALTER TABLE t ADD COLUMN c bigint NOT NULL DEFAULT nextval('calls') CHECK (c > 0) UNIQUE, ALTER v SET NOT NULL",
            &[
                "%ADD COLUMN \"c\"%",
                "%NOT NULL%NOT VALID",
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
            &["%ADD COLUMN%", "%NOT NULL%NOT VALID", "%VALIDATE%", "%DROP COLUMN v", "%DROP CONSTRAINT%"],
        ),
        (
            "ALTER TABLE p ADD COLUMN c uuid DEFAULT md5(random()::text)::uuid CHECK (c IS NOT NULL)",
            &["%ADD COLUMN%", "%VALIDATE%"],
        ),
    ];
    for (sql, patterns) in statements {
        // Before 12 no proof makes a column NOT NULL, and what has to be is not taken apart.
        if postgres.version < 12 && sql.contains("IDENTITY") {
            continue;
        }
        let by_check = (12..18).contains(&postgres.version);
        let patterns: Vec<_> = patterns.iter().filter(|pattern| by_check || !FROM_12_TO_17.contains(pattern)).collect();
        stage.client().ok(sql);
        let after = stage.watcher.value(STATE);
        stage.watcher.ok(DROPS);
        stage.watcher.ok(TABLES);
        assert_eq!(stage.watcher.value(STATE), before, "{sql}");
        let mut went_on = 0;
        for pattern in &patterns {
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
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    stage.watcher.ok(DROPS);
    stage.watcher.ok(STOPS);
    stage.watcher.ok(stop::TABLES);
    let before = stage.watcher.value(STATE);
    for (sql, patterns) in stop::STATEMENTS {
        // What detaches a partition the server finishes itself.
        if sql.starts_with("DROP TABLE") {
            continue;
        }
        let directly = stage.direct().ok(sql).tags;
        let after = stage.watcher.value(STATE);
        stage.watcher.ok(stop::DROPS);
        stage.watcher.ok(stop::TABLES);
        for pattern in patterns {
            let what = format!("{sql}, killed at {pattern}");
            stage.lose(sql, pattern);
            stage.another_proxy();
            let outcome = stage.client().query(sql);
            assert_eq!((&outcome.error, &outcome.tags), (&None, &directly), "{what}: {outcome:?}");
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
fn a_backfill_goes_on_where_it_was(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    let read = |stage: &mut Stage<'_>| -> u64 {
        stage.watcher.value("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 't'").parse().unwrap()
    };
    stage.watcher.ok("VACUUM ANALYZE t");
    stage.die(ADD);
    assert!(stage.record("t").contains(r#""page":"#), "{}", stage.record("t"));
    // What a session has read is counted for certain when it has ended.
    let mut reader = stage.direct();
    let filled: u64 = reader.value("SELECT count(r) FROM t").parse().unwrap();
    assert!((1_000..5_000).contains(&filled), "{filled}");
    reader.ok("CREATE TABLE had AS SELECT id, r FROM t WHERE r IS NOT NULL");
    let (pid, _) = (reader.pid, reader.goodbye());
    stage.until_gone(pid);
    // The application goes on meanwhile.
    stage.watcher.ok("INSERT INTO t VALUES (20001, 'new', 1)");
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
fn another_statement_undoes_and_the_same_one_continues(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    let columns =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
    stage.die(ADD);
    let outcome = stage.client().ok("COMMENT ON TABLE o IS NULL");
    assert!(outcome.notices.iter().any(|notice| notice.contains("undid the unfinished ALTER TABLE")), "{outcome:?}");
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
fn what_has_changed_meanwhile_is_not_continued(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
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
    let other = proxy(stage.postgres, |config| config.ddl.small_table = 1 << 40);
    std::mem::replace(&mut stage.running, other).stop_now();
    warned(&stage.client().query(ADD), "would make another plan");
    stage.another_proxy();
    // A table that is none of it has taken the name; and by its new name it is not what the statement names.
    stage.watcher.ok("ALTER TABLE t RENAME TO was_t; CREATE TABLE t (id int, r bigint)");
    let outcome = stage.client().query(ADD);
    assert_eq!((outcome.error.as_deref(), continued(&outcome)), (Some("42701"), false));
    assert!(!outcome.notices.iter().any(|notice| notice.contains("cannot continue this statement")), "{outcome:?}");
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

/// Who may write the record of a table may not have others follow it, whatever role they have taken.
fn nobody_follows_what_others_may_have_recorded(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok("CREATE ROLE owner LOGIN; ALTER TABLE t OWNER TO owner; GRANT USAGE ON SEQUENCE calls TO owner");
    let owner = |stage: &Stage<'_>| Client::connect(port(&stage.running), "owner", &stage.database);
    let mut client = owner(&stage);
    client.send_query(ADD);
    let (pid, _) = (client.pid, client.last_words());
    stage.until_gone(pid);
    assert!(stage.record("t").contains(r#""page":"#));
    stage.another_proxy();
    let outcome = stage.client().query(ADD);
    let warned = "WARNING 01000 not continuing this statement as begun at ";
    let why = ": a role other than the one that has logged in may have written its record";
    assert!(outcome.notices[0].starts_with(warned) && outcome.notices[0].ends_with(why), "{outcome:?}");
    assert_eq!((outcome.error.as_deref(), outcome.notices.len()), (Some("42701"), 1));
    for becomes in ["SET ROLE owner", "SET SESSION AUTHORIZATION owner"] {
        let mut client = stage.client();
        client.ok(becomes);
        let outcome = client.query(ADD);
        assert_eq!((outcome.error.as_deref(), continued(&outcome)), (Some("42701"), false), "{becomes}");
    }
    // The owner does.
    let mut client = owner(&stage);
    assert!(continued(&client.ok(ADD)));
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    drop(client);
    stage.watcher.ok("DROP TABLE t; REVOKE ALL ON SEQUENCE calls FROM owner; DROP ROLE owner");
    stage.running.stop_now();
}

/// Two sessions of one statement: the second waits for the first, and hears what it would have heard directly.
fn who_is_at_work_is_waited_for(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok("CREATE TABLE switch AS SELECT false AS go");
    let switched = proxy(stage.postgres, |config| {
        config.ddl.small_table = 0;
        config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
    });
    std::mem::replace(&mut stage.running, switched).stop_now();
    let (mut first, mut second) = (stage.client(), stage.client());
    let add = "ALTER TABLE t ADD COLUMN IF NOT EXISTS r bigint NOT NULL DEFAULT nextval('calls')";
    first.send_query(add);
    wait_until("it is recorded", || !stage.record("t").is_empty());
    second.send_query(add);
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%waiting for another schema change of t, behind the DDL of%'",
        second.pid
    );
    wait_until("the second waits", || stage.watcher.value(&waits) == "1");
    // Without the lock of the first it would go on with what is not dead.
    stage.watcher.ok("UPDATE switch SET go = true");
    assert_eq!(first.outcome().error, None);
    let outcome = second.outcome();
    let said = |words: &str| outcome.notices.iter().any(|notice| notice.contains(words));
    assert!(
        said("waiting for the schema change of t by pid") && said("already exists, skipping") && !continued(&outcome),
        "{outcome:?}"
    );
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
fn nobody_is_bothered_by_a_record(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
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
         CREATE EVENT TRIGGER hear ON ddl_command_end EXECUTE PROCEDURE hear()",
    );
    for enable in ["ENABLE", "ENABLE ALWAYS"] {
        stage.watcher.ok(&format!("ALTER EVENT TRIGGER hear {enable}"));
        stage.client().ok(add);
        stage.client().ok("ALTER TABLE t DROP COLUMN r");
        assert_eq!(stage.watcher.value("SELECT string_agg(DISTINCT tag, ' ') FROM heard"), "ALTER TABLE", "{enable}");
    }
    // Whoever wants none has none.
    stage.watcher.ok("DROP EVENT TRIGGER hear; ALTER SEQUENCE calls RESTART");
    let none = proxy(stage.postgres, |config| {
        config.ddl.small_table = 0;
        config.ddl.record_interval = Duration::ZERO;
    });
    std::mem::replace(&mut stage.running, none).stop_now();
    stage.die(ADD);
    assert_eq!(stage.record("t"), "");
    stage.running.stop_now();
}

/// The step whose reply the client is to have may be done: it has one all the same.
fn the_client_has_its_reply(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.die(NULLABLE);
    stage.another_proxy();
    // EXPLAIN says so before.
    let lines: Vec<_> =
        stage.client().ok(&format!("EXPLAIN {NULLABLE}")).rows.into_iter().flatten().flatten().collect();
    assert!(lines[0].starts_with("continuing this ALTER TABLE, begun at "), "{lines:?}");
    assert!(lines[1].starts_with("  Phase 2 of 2: old rows get their values, a few at a time."), "{lines:?}");
    let outcome = stage.client().ok(NULLABLE);
    assert!(continued(&outcome), "{outcome:?}");
    assert_eq!(outcome.tags, ["ALTER TABLE"]);
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);
    stage.running.stop_now();
}

/// Between a death and its continuation anything may have come to the table.
fn what_has_come_meanwhile_is_heeded(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok(
        "CREATE TABLE fired (n int);
         CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO fired VALUES (1); RETURN new; END'",
    );
    // A trigger does not fire for rows that a rewrite would have filled.
    stage.die(NULLABLE);
    stage.another_proxy();
    stage.watcher.ok("CREATE TRIGGER fire BEFORE UPDATE ON t FOR EACH ROW EXECUTE PROCEDURE fire()");
    assert!(continued(&stage.client().ok(NULLABLE)));
    assert_eq!(
        (stage.counts("t")[1].as_str(), stage.watcher.value("SELECT count(*) FROM fired").as_str()),
        ("20000", "0")
    );
    stage.watcher.ok("DROP TRIGGER fire ON t; ALTER TABLE t DROP COLUMN r");

    // Old rows would get a value that the statement does not name.
    stage.watcher.ok("ALTER SEQUENCE calls RESTART");
    stage.die(NULLABLE);
    stage.another_proxy();
    stage.watcher.ok("ALTER TABLE t ALTER COLUMN r SET DEFAULT -5");
    warned(&stage.client().query(NULLABLE), "the default of its columns has been changed");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM t WHERE r = -5"), "0");
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r; ALTER SEQUENCE calls RESTART");

    // Rows that are hidden would be left without a value.
    stage
        .watcher
        .ok("CREATE ROLE tenant LOGIN; ALTER TABLE t OWNER TO tenant; GRANT USAGE ON SEQUENCE calls TO tenant");
    let tenant = |stage: &Stage<'_>| Client::connect(port(&stage.running), "tenant", &stage.database);
    let mut client = tenant(&stage);
    client.send_query(NULLABLE);
    let (pid, _) = (client.pid, client.last_words());
    stage.until_gone(pid);
    stage.another_proxy();
    stage.watcher.ok(
        "CREATE POLICY visible ON t USING (id < 10); ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    );
    warned(&tenant(&stage).query(NULLABLE), "row security hides rows from this role");
    stage.watcher.ok("ALTER TABLE t DISABLE ROW LEVEL SECURITY");
    assert!(continued(&tenant(&stage).ok(NULLABLE)));
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.watcher.ok("DROP TABLE t; REVOKE ALL ON SEQUENCE calls FROM tenant; DROP ROLE tenant");
    stage.running.stop_now();
}

/// Of the invalid indexes of a table only its own is what a dead build has left.
fn an_index_of_somebody_else_is_not_dropped(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok(STOPS);
    let add = "ALTER TABLE t ADD COLUMN r bigint DEFAULT nextval('calls') + 10000 UNIQUE";
    stage.lose(add, "CREATE UNIQUE INDEX%");
    stage.another_proxy();
    // It fails, and stays.
    let fails = "CREATE UNIQUE INDEX CONCURRENTLY another ON t ((1))";
    assert_eq!(stage.watcher.query(fails).error.as_deref(), Some("23505"));
    assert!(continued(&stage.client().ok(add)));
    let indexes = "SELECT string_agg(indexrelid::regclass || ' ' || indisvalid, ', ' ORDER BY indexrelid::regclass::text) FROM pg_index \
        WHERE indrelid = 't'::regclass";
    assert_eq!(stage.watcher.value(indexes), "another false, t_r_key true");

    // Nor taken for it because of its name.
    stage.watcher.ok("DROP INDEX another; ALTER TABLE t DROP COLUMN r");
    stage.lose(add, "CREATE UNIQUE INDEX%");
    stage.another_proxy();
    stage.watcher.ok("DROP INDEX IF EXISTS t_r_key; CREATE INDEX t_r_key ON t (id)");
    assert_eq!(stage.client().query(add).error.as_deref(), Some("42P07"));
    assert_eq!(stage.watcher.value(indexes), "t_r_key true");
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// A record that is there is never behind what has been committed: whoever holds it up is waited for.
fn a_record_is_not_left_behind(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok(STOPS);
    let add = "ALTER TABLE t ADD COLUMN r float8 NOT NULL DEFAULT random()";
    let pattern = "%NOT NULL%NOT VALID";
    let (mut holder, mut hinders) = (stage.direct(), stage.direct());
    let mut client = stage.client();
    send_and_stop(&mut client, add, pattern, &mut stage.watcher, &mut holder);
    let pid = client.pid;
    hinders.ok("BEGIN; COMMENT ON TYPE t IS 'another'");
    holder.goodbye();
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pgsluice: waiting%'");
    wait_until("it waits", || stage.watcher.value(&waits) == "1");
    hinders.ok("ROLLBACK");
    assert_eq!(client.outcome().error, None);
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// Between a step and its COMMIT, which the record is sent with, nobody else can end the transaction.
fn a_proxy_that_is_frozen_gives_up_its_locks(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.watcher.ok(STOPS);
    let program = Program::with(postgres, "[ddl]\nsmall_table = \"0\"\n[locks]\nhold_budget = \"1s\"\n");
    let pattern = "%ADD COLUMN \"r\"%";
    let mut holder = stage.direct();
    let mut client = program.client(&postgres.user, &stage.database);
    let add = "ALTER TABLE t ADD COLUMN r float8 NOT NULL DEFAULT random()";
    send_and_stop(&mut client, add, pattern, &mut stage.watcher, &mut holder);
    let pid = client.pid;
    program.signal("STOP");
    holder.goodbye();
    stage.until_gone(pid);
    stage.watcher.ok("SELECT 1 FROM t LIMIT 1");
    program.signal("CONT");
    assert!(!client.last_words().is_empty());
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// What somebody has written into a record by hand may be refused, but is answered.
fn a_damaged_record_is_refused(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    stage.die(NULLABLE);
    stage.another_proxy();
    let record = stage.record("t");
    for (from, to) in [
        ("\"next\":1", "\"next\":2"),
        ("\"next\":1", "\"next\":18446744073709551615"),
        ("\"job\":", "[[[["),
        ("pgsluice 1:", "pgsluice 2:"),
        ("\"kind\":\"column\"", "\"kind\":\"constraint\""),
    ] {
        let damaged = record.replace(from, to);
        assert_ne!(damaged, record, "{from}");
        stage.watcher.ok(&format!("COMMENT ON TYPE t IS $pgsluice${damaged}$pgsluice$"));
        assert_eq!(stage.client().query(NULLABLE).error.as_deref(), Some("42701"), "{to}");
        assert_eq!(stage.record("t"), damaged, "{to}");
    }
    // Numbers that cannot be do no harm.
    let rows = record.split("\"rows\":").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
    let damaged = record.replace(&format!("\"rows\":{rows}}}"), "\"rows\":18446744073709551615}");
    assert_ne!(damaged, record);
    stage.watcher.ok(&format!("COMMENT ON TYPE t IS $pgsluice${damaged}$pgsluice$"));
    assert!(continued(&stage.client().ok(NULLABLE)));
    assert_eq!(stage.counts("t"), ["20000", "20000", "20000"]);
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// A test per check on the server that is installed, and per version one of all of them.
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        const CHECKS: &[fn(&Postgres)] = &[$($name),*];
        mod here {
            $(#[test] fn $name() { super::$name(&super::postgres()); })*
        }
    };
}

checks! {
    the_same_statement_continues_after_a_death_at_any_step,
    a_backfill_goes_on_where_it_was,
    another_statement_undoes_and_the_same_one_continues,
    what_has_changed_meanwhile_is_not_continued,
    nobody_follows_what_others_may_have_recorded,
    who_is_at_work_is_waited_for,
    nobody_is_bothered_by_a_record,
    the_client_has_its_reply,
    what_has_come_meanwhile_is_heeded,
    an_index_of_somebody_else_is_not_dropped,
    a_record_is_not_left_behind,
    a_proxy_that_is_frozen_gives_up_its_locks,
    a_damaged_record_is_refused,
}

fn all_on(version: u32) {
    let server = server(version);
    CHECKS.iter().for_each(|check| check(&server));
}

#[test]
fn postgresql_10() {
    all_on(10);
}

#[test]
#[ignore = "make test-servers"]
fn postgresql_12() {
    all_on(12);
}

#[test]
fn postgresql_18() {
    all_on(18);
}
