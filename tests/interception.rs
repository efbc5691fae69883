//! Tests of what a client sees of interception: replies, transactions, pipelines, errors, notices.

mod common;

use common::raw::{bind, close, describe, execute, flush, parse, q, run, sync, terminate};
use common::twins::Twins;
use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::dev::{Options, Postgres};
use std::sync::LazyLock;

#[test]
fn what_the_client_sees() {
    let postgres = postgres();
    let running = proxy(&postgres, |_| {});
    let database = new_database(&postgres, "seen");
    let mut client = Client::connect(port(&running), &postgres.user, &database);
    client.ok("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g");

    // The simple protocol.
    let outcome = client.ok("ALTER TABLE t ADD COLUMN a int");
    assert_eq!((outcome.tags, outcome.status), (vec!["ALTER TABLE".to_owned()], 'I'));
    // A string of several is one transaction.
    let outcome = client.query("ALTER TABLE t ADD COLUMN b int; INSERT INTO t VALUES (0, 'x'); SELECT 1/0; SELECT 2");
    assert_eq!(outcome.tags, ["ALTER TABLE", "INSERT 0 1"]);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("22012"), 'I'));
    assert_eq!(client.value("SELECT count(*) FROM t"), "1000");
    assert_eq!(client.query("SELECT b FROM t").error.as_deref(), Some("42703"));
    // With its own BEGIN and COMMIT.
    let outcome = client.ok("BEGIN; ALTER TABLE t ADD COLUMN b int; COMMIT; ALTER TABLE t ADD COLUMN c int");
    assert_eq!(outcome.tags, ["BEGIN", "ALTER TABLE", "COMMIT", "ALTER TABLE"]);

    // The extended protocol: alone, and several under one Sync.
    let outcome = client.execute("ALTER TABLE t ADD COLUMN d int");
    assert_eq!((outcome.tags, outcome.error, outcome.status), (vec!["ALTER TABLE".to_owned()], None, 'I'));
    let outcome = client.pipeline(&["INSERT INTO t (id) VALUES (-1)", "ALTER TABLE t ADD COLUMN e int", "SELECT 1/0"]);
    assert_eq!(outcome.tags, ["INSERT 0 1", "ALTER TABLE"]);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("22012"), 'I'));
    assert_eq!(client.value("SELECT count(*) FROM t"), "1000");
    let outcome = client.pipeline(&["INSERT INTO t (id) VALUES (-1)", "ALTER TABLE t ADD COLUMN e int", "SELECT 1"]);
    assert_eq!((outcome.tags.len(), outcome.error, outcome.status), (3, None, 'I'));
    let outcome = client.pipeline(&["BEGIN", "ALTER TABLE t ADD COLUMN f int"]);
    assert_eq!((outcome.tags.len(), outcome.error, outcome.status), (2, None, 'T'));
    assert_eq!(client.ok("ROLLBACK").status, 'I');
    let outcome = client.pipeline(&["ALTER TABLE t ADD COLUMN e int", "SELECT 1"]);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("42701"), 'I'));
    assert_eq!(client.value("SELECT count(*) FROM t"), "1001");

    // EXPLAIN of DDL, both ways.
    assert!(client.ok("EXPLAIN ALTER TABLE t ADD COLUMN z int").rows.len() > 1);
    assert!(client.execute("EXPLAIN ALTER TABLE t ADD COLUMN z int").rows.len() > 1);
    running.stop_now();
}

/// A server keeps 63 bytes of a name: what is bound under a longer one is the same there, and so it is here.
#[test]
fn ddl_under_long_names() {
    let postgres = postgres();
    let running = proxy(&postgres, |_| {});
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    let seen = || running.shared().metrics.ddl_seen.value();
    client.ok("CREATE TABLE t (id int)");
    let [long, longer] = [70, 80].map(|length| "n".repeat(length));
    for (round, (portal, executed)) in
        [("", ""), (&long, &long), (&long, &longer), (&long[..63], &long)].into_iter().enumerate()
    {
        let sql = format!("ALTER TABLE t ADD COLUMN c{round} int");
        client.send(
            &[parse(&long, &sql), bind(portal, &longer, &[]), execute(executed, 0), close(b'S', &long), sync()]
                .concat(),
        );
        assert_eq!(client.outcome().tags, ["ALTER TABLE"], "{portal} {executed}");
        assert_eq!(seen(), round as u64 + 1, "{portal} {executed}");
    }
    running.stop_now();
}

/// A planner setting that makes everything look costly had the proxy's own questions compiled, for seconds.
#[test]
fn questions_are_not_compiled_just_in_time() {
    let options = Options::default().setting("max_prepared_transactions", "10").setting("log_min_messages", "debug1");
    let postgres = Postgres::start(options).expect("a throw-away server");
    // The server says so at debug1, if it has the means to compile at all.
    let compiled = || postgres.log().matches("time to inline").count();
    let running = proxy(&postgres, |_| {});
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    client.ok("CREATE TABLE t (id int); SET jit = on; SET enable_seqscan = off");
    let before = compiled();
    client.ok("ALTER TABLE t ADD COLUMN a int");
    client.ok("BEGIN; ALTER TABLE t ADD COLUMN b int");
    assert_eq!(compiled(), before);
    // The client's setting is what it was, in its transaction too, and so are its savepoints.
    assert_eq!(client.value("SHOW jit"), "on");
    client.ok("SET LOCAL jit = off; ALTER TABLE t ADD COLUMN c int");
    assert_eq!(client.value("SHOW jit"), "off");
    assert_eq!(client.query("RELEASE SAVEPOINT pgsluice").error.as_deref(), Some("3B001"));
    client.ok("ROLLBACK");
    assert_eq!(client.value("SHOW jit"), "on");
    // It also holds while a lock is waited for.
    let mut reader = Client::connect(postgres.port, &postgres.user, "postgres");
    let mut watcher = Client::connect(postgres.port, &postgres.user, "postgres");
    reader.ok("BEGIN; SELECT FROM t");
    client.send_query("ALTER TABLE t ADD COLUMN b int");
    let before = compiled();
    wait_until("the wait shows", || {
        watcher.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* pgsluice: waiting % blocked by%'")
            == "1"
    });
    reader.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    assert_eq!(compiled(), before);
    running.stop_now();
}

/// What the transaction itself stands in the way of, it cannot wait for: the server's deadlock is the client's.
#[test]
fn a_deadlock_that_the_server_finds_in_a_block_ends_the_statement() {
    let postgres = postgres();
    let running = proxy(&postgres, |_| {});
    let database = new_database(&postgres, "deadlock");
    let mut other = Client::connect(postgres.port, &postgres.user, &database);
    let mut ddl = Client::connect(port(&running), &postgres.user, &database);
    let mut watcher = Client::connect(postgres.port, &postgres.user, &database);
    other.ok("CREATE TABLE t (id int)");
    other.ok("SET deadlock_timeout = '100s'; BEGIN");
    ddl.ok("SET deadlock_timeout = '10ms'; BEGIN");
    ddl.ok("SELECT FROM pg_class WHERE oid = 't'::regclass FOR NO KEY UPDATE");
    // It waits for the row of pg_class, first in line.
    other.send_query("GRANT SELECT ON t TO PUBLIC");
    wait_until("the other waits", || watcher.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1");
    let outcome = ddl.query("ALTER TABLE t ADD PRIMARY KEY (id)");
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("40P01"), 'E'));
    // The block has failed as a whole: what it held is free before its client says ROLLBACK.
    assert_eq!(other.outcome().error, None);
    ddl.ok("ROLLBACK");
    running.stop_now();
}

#[test]
fn a_wait_is_visible_and_cancellable() {
    let postgres = postgres();
    let running = proxy(&postgres, |_| {});
    let database = new_database(&postgres, "wait");
    let mut reader = Client::connect(postgres.port, &postgres.user, &database);
    let mut ddl = Client::connect(port(&running), &postgres.user, &database);
    let mut watcher = Client::connect(postgres.port, &postgres.user, &database);
    reader.ok("CREATE TABLE t (id int)");
    for how in ["cancel", "pg_cancel_backend", "commit"] {
        reader.ok("BEGIN; SELECT * FROM t");
        ddl.send_query("ALTER TABLE t ADD COLUMN a int");
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* pgsluice: waiting for ACCESS EXCLUSIVE on public.t, blocked by pid%'";
        wait_until("the wait shows", || watcher.value(waits) == "1");
        assert_eq!(watcher.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), "0");
        match how {
            "cancel" => ddl.cancel(port(&running)),
            // A signal that meets the backend between two naps is lost: whoever sends it looks again.
            "pg_cancel_backend" => wait_until("the wait ends", || {
                watcher.ok(&format!("SELECT pg_cancel_backend({}), pg_sleep(0.2)", ddl.pid));
                watcher.value(waits) == "0"
            }),
            _ => drop(reader.ok("COMMIT")),
        }
        let outcome = ddl.outcome();
        if how == "commit" {
            assert_eq!(outcome.error, None);
        } else {
            assert_eq!(outcome.error.as_deref(), Some("57014"));
            reader.ok("COMMIT");
        }
        assert_eq!(outcome.status, 'I');
    }
    running.stop_now();
}

/// What has no safe way is refused where policy says so, and the session is as after any error of the server's.
#[test]
fn policy_refuses_what_is_unsafe() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| {
        config.ddl.small_table = 0;
        config.ddl.unsafe_ddl = pgsluice::config::Unsafe::Refuse;
    });
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    client.ok("CREATE TABLE t (i int); INSERT INTO t VALUES (1); CREATE INDEX t_i ON t (i)");
    let refused = |outcome: common::Outcome| (outcome.error.unwrap_or_default(), outcome.status);
    let unsafe_ones = [
        "ALTER TABLE t ADD EXCLUDE USING btree (i WITH =)",
        "CLUSTER t USING t_i",
        "VACUUM FULL t",
        "ALTER TABLE t SET UNLOGGED",
        "ALTER TABLE t ALTER i TYPE text",
    ];
    for sql in unsafe_ones {
        assert_eq!(refused(client.query(sql)), ("55000".to_owned(), 'I'), "{sql}");
        assert_eq!(refused(client.execute(sql)), ("55000".to_owned(), 'I'), "{sql}");
    }
    // In a block the block fails; the implicit one of a string is rolled back.
    client.ok("BEGIN; INSERT INTO t VALUES (2)");
    assert_eq!(refused(client.query("ALTER TABLE t ALTER i SET NOT NULL")), ("55000".to_owned(), 'E'));
    assert_eq!(refused(client.query("SELECT 1")), ("25P02".to_owned(), 'E'));
    client.ok("ROLLBACK");
    let string = "INSERT INTO t VALUES (3); ALTER TABLE t SET UNLOGGED; INSERT INTO t VALUES (4)";
    assert_eq!(refused(client.query(string)), ("55000".to_owned(), 'I'));
    assert_eq!(client.value("SELECT count(*) FROM t"), "1");
    // What is safe runs.
    client.ok("ALTER TABLE t ADD COLUMN j int DEFAULT random()");
    client.ok("ALTER TABLE t ALTER i SET NOT NULL");
    running.stop_now();
}

/// Where the proxy puts its own messages in one pipeline with the client's: whatever of those fails, or is not what it seems, and
/// what the table is in the end.
#[test]
fn schema_changes_in_pipelines() {
    static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);
    let twins = Twins::new(&SERVER, "changes", "CREATE TABLE t (id int PRIMARY KEY, v text)");
    for (name, mut bytes) in [failing_pipelines(), renamed_statements(), changes()].concat() {
        bytes.extend(q(
            "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum",
        ));
        bytes.extend(q("SELECT name, statement FROM pg_prepared_statements ORDER BY name"));
        bytes.extend(terminate());
        twins.same(name, &bytes);
    }
    twins.running.stop_now();
}

/// A message before the Execute of a schema change fails: it is not done.
fn failing_pipelines() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "a Bind with a parameter too many",
            [parse("", &add("a")), bind("", "", &["1"]), execute("", 0), sync(), run("SELECT 1"), sync()].concat(),
        ),
        (
            "a Parse under a name that is taken",
            [
                parse("s", "SELECT 1"),
                sync(),
                parse("s", &add("b")),
                bind("", "s", &[]),
                execute("", 0),
                sync(),
                bind("", "s", &[]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        (
            "Closes before, and Describes that fail",
            [
                parse("s", "SELECT 1"),
                sync(),
                close(b'S', "s"),
                close(b'P', "p"),
                close(b'S', "nothing"),
                parse("s", &add("c")),
                describe(b'S', "s"),
                bind("p", "s", &[]),
                describe(b'P', "nothing"),
                execute("p", 0),
                sync(),
            ]
            .concat(),
        ),
        (
            "the same in a block",
            [
                q("BEGIN"),
                parse("", &add("d")),
                bind("", "", &["1"]),
                execute("", 0),
                sync(),
                alter("e"),
                sync(),
                q("COMMIT"),
            ]
            .concat(),
        ),
        ("a portal of another name", [parse("", &add("f")), bind("p", "", &[]), execute("q", 0), sync()].concat()),
        ("a change that fails", [alter("id"), sync(), alter("id"), flush(), alter("g"), sync()].concat()),
    ]
}

/// By SQL a statement's name may come to mean something else.
fn renamed_statements() -> Vec<(&'static str, Vec<u8>)> {
    let prepare = |column: &str| parse("d", &add(column));
    let through = || [bind("p", "d", &[]), execute("p", 0)].concat();
    vec![
        ("a statement that is gone", [prepare("h"), sync(), q("DISCARD ALL"), through(), sync()].concat()),
        (
            "a statement that is another's",
            [prepare("i"), sync(), q("DEALLOCATE d; PREPARE d AS SELECT 7"), through(), sync()].concat(),
        ),
        (
            "the same in one pipeline",
            [prepare("j"), run("DEALLOCATE d"), run("PREPARE d AS SELECT 8"), through(), sync()].concat(),
        ),
    ]
}

fn changes() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "prepared, described, and run twice",
            [
                close(b'S', "d"),
                close(b'P', "p"),
                parse("d", &add("IF NOT EXISTS k")),
                describe(b'S', "d"),
                bind("p", "d", &[]),
                describe(b'P', "p"),
                execute("p", 0),
                sync(),
                bind("p", "d", &[]),
                execute("p", 0),
                sync(),
                execute("p", 0),
                sync(),
            ]
            .concat(),
        ),
        ("twenty, sent ahead", (0..20).flat_map(|n| [alter(&format!("l{n}")), sync()].concat()).collect()),
        (
            "in a block, one of them twice",
            [q("BEGIN"), alter("m"), sync(), alter("n"), alter("o"), sync(), alter("m"), sync(), q("COMMIT")].concat(),
        ),
        ("a Flush before the Sync", [alter("r"), flush(), sync(), alter("s"), flush(), alter("u"), sync()].concat()),
        ("a goodbye in place of the Sync", [alter("w"), flush(), terminate()].concat()),
        ("what that has left", q("SELECT 1")),
    ]
}

fn add(column: &str) -> String {
    format!("ALTER TABLE t ADD COLUMN {column} int")
}

fn alter(column: &str) -> Vec<u8> {
    run(&add(column))
}
