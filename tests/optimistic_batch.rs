//! Tests of the statements of a string that are tried together. The client gets what it gets directly, even if something
//! blocks one of the statements.

mod common;

use common::raw::{q, terminate};
use common::twins::Twins;
use common::{Client, new_database, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use std::sync::LazyLock;
use std::time::Duration;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, x int); CREATE TABLE b (id int PRIMARY KEY, x int);
    CREATE TABLE c (id int, x int) PARTITION BY LIST (id); CREATE TABLE c_1 PARTITION OF c FOR VALUES IN (1);
    INSERT INTO a SELECT g, g FROM generate_series(1, 10) g; CREATE VIEW v AS SELECT x FROM b;
    CREATE FUNCTION tells() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'told of %', tg_tag; END$$;
    CREATE EVENT TRIGGER tells ON ddl_command_end EXECUTE FUNCTION tells()";

/// Strings, how many of their statements are done at the first try, and what they leave.
const STRINGS: [(&str, u64); 10] = [
    // Notices stand where they belong.
    (
        "ALTER TABLE a ADD COLUMN y int; CREATE TABLE IF NOT EXISTS b (id int); CREATE INDEX IF NOT EXISTS a_x ON a (x);
         DROP TABLE IF EXISTS nothing; ALTER TABLE b ADD CHECK (x > 0); COMMENT ON TABLE a IS 'x'",
        // The index is not tried apart: its table is locked by then, but not known to be small.
        5,
    ),
    // The names of later statements are made by earlier ones, or change their meaning there.
    ("ALTER TABLE a RENAME TO was_a; ALTER TABLE was_a ADD COLUMN z int; CREATE INDEX ON was_a (x); SELECT 1", 3),
    (
        "CREATE TABLE IF NOT EXISTS n (id int); CREATE INDEX ON n (id); DROP TABLE n; CREATE TABLE n (other int);
         CREATE INDEX ON n (other); SELECT count(*) FROM n",
        2,
    ),
    // An error amid them: its position, and nothing is done.
    ("ALTER TABLE a ADD COLUMN y int; ALTER TABLE b DROP COLUMN nothing; ALTER TABLE a ADD COLUMN z int; SELECT 1", 1),
    ("ALTER TABLE a ADD COLUMN y int; ALTER TABLE b ADD COLUMN z nosuchtype; SELECT 1", 1),
    ("CREATE INDEX ON a (x); CREATE TABLE b (id int); ALTER TABLE a ADD COLUMN z int; SELECT 1", 1),
    // One of them needs facts.
    ("ALTER TABLE a ADD COLUMN y int; ALTER TABLE c_1 ALTER x SET DEFAULT 7; ALTER TABLE b ADD COLUMN y int; SELECT 1", 2),
    ("ALTER TABLE a ADD COLUMN y int; ALTER TABLE c ADD COLUMN y int; ALTER TABLE b ADD COLUMN y int; SELECT 1", 3),
    // What fails at COMMIT.
    (
        "ALTER TABLE a ADD COLUMN p int; ALTER TABLE a ADD FOREIGN KEY (p) REFERENCES b DEFERRABLE INITIALLY DEFERRED;
         UPDATE a SET p = 7; ALTER TABLE b ADD COLUMN y int",
        3,
    ),
    ("BEGIN; ALTER TABLE a ADD COLUMN y int; ALTER TABLE b ADD COLUMN y int; SAVEPOINT s; COMMIT", 2),
];

#[test]
fn strings_give_what_they_give_directly() {
    for (at, (sql, firsts)) in STRINGS.iter().enumerate() {
        let twins = Twins::new(&SERVER, &format!("string{at}"), TABLES);
        let done = || twins.running.shared().metrics.first_tries_done.value();
        twins.same(sql, &[q(sql), q("SELECT 2"), terminate()].concat());
        assert_eq!(done(), *firsts, "{sql}");
        twins.same_talk(sql, |mut client, _| {
            client.value(
                "SELECT string_agg(a.attrelid::regclass || '.' || attname, ' ' ORDER BY 1) FROM pg_attribute a
                 JOIN pg_class c ON c.oid = a.attrelid WHERE attnum > 0 AND relnamespace = 'public'::regnamespace",
            )
        });
        twins.running.stop_now();
    }
}

/// Somebody uses one of the tables: the others are not locked until he is gone, and then all is done.
#[test]
fn who_is_in_the_way_of_one_is_waited_for() {
    let twins = Twins::new(&SERVER, "way", TABLES);
    let (mut client, mut user, mut other) = (twins.proxied(), direct(&twins), direct(&twins));
    user.ok("BEGIN; SELECT * FROM b");
    client.send_query(
        "ALTER TABLE a ADD COLUMN y int; ALTER TABLE b ADD COLUMN y int; ALTER TABLE a ADD COLUMN z int; SELECT 1",
    );
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: waiting%'",
        client.pid
    );
    wait_until("it waits", || watcher.value(&waits) == "1");
    other.ok("SELECT * FROM b");
    user.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!((outcome.error, outcome.tags.len()), (None, 4));
    // A cancel while it waits leaves nothing.
    user.ok("BEGIN; SELECT * FROM b");
    client.send_query("ALTER TABLE a ADD COLUMN w int; ALTER TABLE b ADD COLUMN w int; SELECT 1");
    wait_until("it waits", || watcher.value(&waits) == "1");
    client.cancel(common::port(&twins.running));
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'I'));
    user.ok("COMMIT");
    assert_eq!(user.query("SELECT w FROM a").error.as_deref(), Some("42703"));
    // The tests beside this one have databases of their own, and lanes in them.
    let lanes = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
                 WHERE locktype = 'advisory' AND datname = current_database()";
    assert_eq!(other.value(lanes), "0");
    twins.running.stop_now();
}

/// What the string has filled itself may take as long as it takes: nobody else waits for it.
#[test]
fn what_is_long_goes_without_a_budget() {
    let running = proxy(&SERVER, |config| config.locks.hold_budget = Duration::from_secs(1));
    let database = new_database(&SERVER, "long");
    let mut client = Client::connect(common::port(&running), &SERVER.user, &database);
    client.ok(TABLES);
    client.ok("CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
               AS 'BEGIN PERFORM pg_sleep(0.15); RETURN $1; END'");
    let outcome = client.ok("CREATE TABLE n (id int); INSERT INTO n SELECT generate_series(1, 10);
         ALTER TABLE b ADD COLUMN y int; CREATE INDEX ON n (slow(id)); SELECT 1");
    assert_eq!(outcome.tags.len(), 5);
    assert_eq!(client.value("SELECT indisvalid FROM pg_index WHERE indrelid = 'n'::regclass"), "t");
    // One that is not is taken back in the string's transaction, and then goes ahead of it in phases.
    let metrics = &running.shared().metrics;
    let counted = || (metrics.hold_budget_outlived.value(), metrics.ddl_ahead.value());
    let before = counted();
    let string = "ALTER TABLE b ADD COLUMN z int; CREATE INDEX ON a (slow(id)); SELECT 1";
    let outcome = client.ok(string);
    assert!(!outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{outcome:?}");
    assert_eq!(counted(), (before.0 + 1, before.1 + 1));
    // Where that is not possible, it takes as long as it takes, with a WARNING.
    let outcome =
        client.ok("UPDATE a SET id = id; ALTER TABLE b ADD COLUMN w int; CREATE INDEX ON a (slow(id)); SELECT 1");
    assert!(outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{outcome:?}");
    assert_eq!(counted(), (before.0 + 2, before.1 + 1));
    client.ok("SELECT z FROM b");
    running.stop_now();
}

fn direct(twins: &Twins) -> Client {
    Client::connect(SERVER.port, &SERVER.user, &twins.proxied)
}
