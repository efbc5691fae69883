//! How a block may end other than by COMMIT and ROLLBACK: errors of the statement itself, conflicts, cancels, clients that leave, lost backends.

use crate::common::{port, wait_until};
use crate::stage::{SERVER, SHOP, Stage, assert_no_locks};

const INDEX: &str = "CREATE INDEX a ON orders (note)";

/// The statement's own error fails the block, as it does directly.
#[test]
fn the_statement_fails() {
    for statement in [
        "CREATE UNIQUE INDEX a ON lines ((order_id % 10))",
        "ALTER TABLE orders ADD CONSTRAINT small CHECK (total < 10)",
        "ALTER TABLE lines ADD FOREIGN KEY (order_id) REFERENCES shops",
        "ALTER TABLE nulls ALTER a SET NOT NULL",
    ] {
        for end in ["COMMIT", "ROLLBACK"] {
            let stage = Stage::new(
                "own_error",
                &format!("{SHOP}; CREATE TABLE nulls (a int); INSERT INTO nulls VALUES (NULL)"),
            );
            let told = stage.same(
                &[
                    "BEGIN",
                    "INSERT INTO schema_migrations VALUES ('2')",
                    "ALTER TABLE shops ADD COLUMN b int",
                    statement,
                    "SELECT 1",
                    end,
                ],
                false,
            );
            assert_eq!(told[3].status, 'E', "{statement}");
            stage.end();
        }
    }
}

/// Another session takes the version while the statement is done ahead.
#[test]
fn a_conflict_of_the_transaction_is_40001() {
    let stage = Stage::new("conflict", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("UPDATE schema_migrations SET version = '2' WHERE version = '1'");
    // A build waits for this snapshot.
    let mut old = stage.beside();
    old.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM shops");
    client.send_query(INDEX);
    let mut beside = stage.beside();
    wait_until("the build waits", || {
        beside.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%CONCURRENTLY%' AND state = 'active' AND pid <> pg_backend_pid()") != "0"
    });
    beside.ok("UPDATE schema_migrations SET version = '3' WHERE version = '1'");
    old.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("40001"), 'E'), "{outcome:?}");
    assert_eq!(client.ok("COMMIT").tags, ["ROLLBACK"]);
    assert_eq!(beside.value("SELECT version FROM schema_migrations"), "3");
    assert_eq!(beside.value("SELECT count(*) FROM pg_class WHERE relname = 'a'"), "0");
    assert_no_locks(&mut beside);
    drop((client, old, beside));
    stage.end();
}

#[test]
fn a_cancel_fails_the_block_and_leaves_nothing() {
    let stage = Stage::new("cancel", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("ALTER TABLE orders ADD COLUMN extra int");
    client.ok("INSERT INTO schema_migrations VALUES ('2')");
    let mut old = stage.beside();
    old.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM shops");
    client.send_query("CREATE INDEX a ON orders (extra)");
    let mut beside = stage.beside();
    wait_until("the build waits", || {
        beside.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%CONCURRENTLY%' AND state = 'active' AND pid <> pg_backend_pid()") != "0"
    });
    client.cancel(port(&stage.running));
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'E'), "{outcome:?}");
    old.ok("COMMIT");
    assert_eq!(client.ok("ROLLBACK").tags, ["ROLLBACK"]);
    drop((client, old, beside));
    stage.same_state("a cancel");
    stage.end();
}

/// A client that leaves inside its block, politely or not.
#[test]
fn a_client_that_leaves_leaves_nothing() {
    for polite in [true, false] {
        let stage = Stage::new("leaving", SHOP);
        let mut client = stage.client();
        client.ok("BEGIN");
        client.ok("ALTER TABLE orders ADD COLUMN extra int");
        client.ok("CREATE INDEX a ON orders (extra)");
        client.ok("INSERT INTO schema_migrations VALUES ('2')");
        assert_eq!(stage.ahead(), 1);
        if polite {
            client.goodbye();
        } else {
            client.reset();
        }
        let mut beside = stage.beside();
        wait_until("the column is gone", || {
            beside.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'extra'")
                == "0"
        });
        drop(beside);
        stage.same_state("a client that leaves");
        stage.end();
    }
}

/// A ROLLBACK TO a savepoint that is older than a statement which was done ahead undoes that statement too.
#[test]
fn a_savepoint_takes_back_what_was_done_ahead() {
    for end in ["COMMIT", "ROLLBACK"] {
        let stage = Stage::new("savepoint", SHOP);
        stage.same(
            &[
                "BEGIN",
                "INSERT INTO schema_migrations VALUES ('2')",
                "CREATE INDEX a ON orders (note)",
                "SAVEPOINT s",
                "INSERT INTO schema_migrations VALUES ('3')",
                "CREATE INDEX b ON orders (total)",
                "ROLLBACK TO SAVEPOINT s",
                "SELECT count(*) FROM pg_class WHERE relname = 'b'",
                "INSERT INTO schema_migrations VALUES ('4')",
                "CREATE INDEX c ON orders (total)",
                "SELECT count(*) FROM schema_migrations",
                end,
            ],
            false,
        );
        assert_eq!(stage.ahead(), 3);
        stage.end();
    }
}

/// A statement that fails in a savepoint does not keep the transaction from going on, as asyncpg and Django use it.
#[test]
fn an_error_in_a_savepoint_is_taken_back() {
    let before = ["BEGIN", "INSERT INTO schema_migrations VALUES ('2')", "SELECT pg_advisory_xact_lock(42)"];
    let index = "CREATE INDEX a ON orders (note)";
    let locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND pid = pg_backend_pid()";
    for end in ["COMMIT", "ROLLBACK"] {
        for behind in [
            // The savepoint is younger than what is ahead.
            &[index, "SAVEPOINT s", "SELECT 1 / 0", "ROLLBACK TO SAVEPOINT s"][..],
            // It is older, and the statement ahead is taken back with it.
            &["SAVEPOINT s", index, "SELECT 1 / 0", "ROLLBACK TO SAVEPOINT s"],
            // A younger one has the same name.
            &["SAVEPOINT s", index, "SAVEPOINT s", "SELECT 1 / 0", "ROLLBACK TO s", "RELEASE s", "ROLLBACK TO s"],
            // One that is released is none.
            &["SAVEPOINT s", index, "RELEASE s", "SAVEPOINT t", "ROLLBACK TO s", "ROLLBACK TO t"],
        ] {
            for extended in [false, true] {
                let stage = Stage::new("savepoint_error", SHOP);
                let last = [locked, "SELECT count(*) FROM pg_class WHERE relname = 'a'", end];
                let queries: Vec<&str> = before.iter().chain(behind).chain(&last).copied().collect();
                stage.same(&queries, extended);
                assert_eq!(stage.ahead(), 1);
                stage.end();
            }
        }
    }
}

/// The backend is lost after the statement was done ahead: the next schema change of the role undoes it.
#[test]
fn a_lost_backend_leaves_it_to_the_next_statement() {
    let stage = Stage::new("lost", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("ALTER TABLE orders ADD COLUMN extra int");
    client.ok("CREATE INDEX a ON orders (extra)");
    let mut beside = stage.beside();
    let pid = client.pid;
    beside.ok(&format!("SELECT pg_terminate_backend({pid})"));
    assert!(client.last_words().iter().any(|message| message.tag == b'E'));
    wait_until("the backend is gone", || {
        beside.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0"
    });
    let mut next = stage.client();
    next.ok("ALTER TABLE shops ADD COLUMN b int");
    stage.directly().ok("ALTER TABLE shops ADD COLUMN b int");
    drop((next, beside));
    stage.same_state("a lost backend");
    stage.end();
}

/// COMMIT may fail, because of a constraint that is checked then.
#[test]
fn a_commit_that_fails_leaves_nothing() {
    let setup = format!("{SHOP}; ALTER TABLE lines ALTER CONSTRAINT lines_order_id_fkey DEFERRABLE INITIALLY DEFERRED");
    for queries in [
        &["BEGIN", "INSERT INTO lines VALUES (1000, 9999)", "CREATE INDEX a ON shops (name)", "COMMIT", "SELECT 1"][..],
        &["INSERT INTO lines VALUES (1000, 9999); CREATE INDEX a ON shops (name)", "SELECT 1"][..],
    ] {
        let stage = Stage::new("commit", &setup);
        let told = stage.same(queries, false);
        assert!(told.iter().any(|told| told.error.as_deref() == Some("23503")), "{told:?}");
        assert_eq!(stage.ahead(), 1);
        stage.end();
    }
}

/// AND CHAIN begins another transaction.
#[test]
fn a_chain_goes_on() {
    for end in ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        let stage = Stage::new("chain", SHOP);
        let mut queries = vec!["BEGIN", INDEX, end, "INSERT INTO schema_migrations VALUES ('5')", "COMMIT"];
        if end.starts_with("ROLLBACK") {
            // What was left to the next statement is undone by it.
            queries.push("ALTER TABLE shops ADD COLUMN b int");
        }
        stage.same(&queries, false);
        stage.end();
    }
}

#[test]
fn the_proxy_stops_amid_a_block() {
    let stage = Stage::new("drain", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("ALTER TABLE orders ADD COLUMN extra int");
    client.ok("CREATE INDEX a ON orders (extra)");
    stage.running.stop_now();
    let mut beside = crate::common::Client::connect(SERVER.port, &SERVER.user, &stage.proxied);
    wait_until("the column is gone", || {
        beside.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'extra'")
            == "0"
    });
    assert_eq!(beside.value("SELECT count(*) FROM pg_description WHERE description LIKE 'pgsluice%'"), "0");
}

/// A prepared transaction outlives its session, so its statements are run in their places after all.
#[test]
fn a_prepared_transaction_keeps_all_in_place() {
    let ends = ["COMMIT PREPARED 'ahead'", "ROLLBACK PREPARED 'ahead'"];
    for (end, extended) in ends.into_iter().flat_map(|end| [(end, false), (end, true)]) {
        let stage = Stage::new("prepared", SHOP);
        let script = [
            "BEGIN",
            "SET LOCAL search_path = public",
            "INSERT INTO schema_migrations VALUES ('2')",
            "ALTER TABLE orders ADD CHECK (total >= 0)",
            "CREATE INDEX by_note ON orders (note)",
            "PREPARE TRANSACTION 'ahead'",
            end,
        ];
        stage.same(&script, extended);
        assert_eq!(stage.ahead(), 2, "both were ahead");
        stage.end();
    }
    let stage = Stage::new("prepared_once", SHOP);
    let mut client = stage.client();
    for sql in
        ["BEGIN", "CREATE INDEX by_note ON orders (note)", "INSERT INTO shops SELECT 99 RETURNING name, random()"]
    {
        client.ok(sql);
    }
    let outcome = client.query("PREPARE TRANSACTION 'ahead'");
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("0A000"), 'I'), "{outcome:?}");
    drop(client);
    stage.same_state("nothing is left");
    stage.end();
}
