//! Tests of other sessions while a statement is unfinished: they change its table, record something, wait for it, or send it
//! too.

use crate::common::stop::STOPS;
use crate::common::{Client, port, proxy, wait_until};
use crate::stage::{ADD, LEFT, NULLABLE, Stage, continued, warned};
use pgsluice::config::InTransaction;
use pgsluice::dev::Postgres;
use std::time::Duration;

/// Only what still is what was begun is continued; else a WARNING tells, and the server refuses as it would directly.
pub(super) fn what_has_changed_meanwhile_is_not_continued(postgres: &Postgres) {
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
    // Another statement does not care, nor does the same one in a block, where blocks are only guarded.
    stage.client().ok("ALTER TABLE t ADD COLUMN more float8 DEFAULT random()");
    let guard = proxy(stage.postgres, |config| {
        config.ddl.small_table = 0;
        config.ddl.in_transaction = InTransaction::Guard;
    });
    let mut client = Client::connect(port(&guard), &stage.postgres.user, &stage.database);
    client.ok("BEGIN");
    assert_eq!(client.query(ADD).error.as_deref(), Some("42701"));
    client.ok("ROLLBACK");
    drop(client);
    guard.stop_now();
    assert!(continued(&stage.client().ok(ADD)));
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    // Ahead of a block, which may be rolled back, it begins anew: not all of what was begun outside has an undo.
    stage.watcher.ok("ALTER TABLE t DROP COLUMN r; ALTER SEQUENCE calls RESTART");
    stage.die(ADD);
    assert!(!stage.record("t").is_empty());
    stage.another_proxy();
    let mut client = stage.client();
    client.ok("BEGIN");
    assert!(!continued(&client.ok(ADD)));
    assert_eq!(client.value("SELECT count(r) FROM t"), "20000");
    client.ok("ROLLBACK");
    assert_eq!(
        stage.watcher.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'r'"),
        "0"
    );
    assert_eq!(stage.watcher.value(LEFT), "0 0 0");
    stage.running.stop_now();
}

/// Who may write the record of a table may not have others follow it, whatever role they have taken.
pub(super) fn nobody_follows_what_others_may_have_recorded(postgres: &Postgres) {
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
pub(super) fn who_is_at_work_is_waited_for(postgres: &Postgres) {
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
pub(super) fn nobody_is_bothered_by_a_record(postgres: &Postgres) {
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

/// Between a death and its continuation anything may have come to the table.
pub(super) fn what_has_come_meanwhile_is_heeded(postgres: &Postgres) {
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
pub(super) fn an_index_of_somebody_else_is_not_dropped(postgres: &Postgres) {
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
