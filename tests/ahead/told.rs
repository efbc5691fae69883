//! Rows that the client has locked and read, while its transaction is rolled back and run again.
//!
//! A build waits for a session of the test's (`old`), so the test changes the rows while the transaction holds no lock.

use crate::common::raw::{bind, execute, frame, parse, sync};
use crate::common::{Client, Outcome, wait_until};
use crate::stage::{SHOP, Stage, assert_no_locks};

const INDEX: &str = "CREATE INDEX a ON orders (note)";
const ACTIVE: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%CONCURRENTLY%' \
     AND state = 'active' AND pid <> pg_backend_pid()";

/// How the client reads its row.
#[derive(Debug, Clone, Copy)]
enum Way {
    Text,
    Bound,
    /// A statement that was prepared before the transaction. Its parameter has a type that the server would not infer, in binary form.
    Prepared,
}

const WAYS: [Way; 3] = [Way::Text, Way::Bound, Way::Prepared];
const BY_ID: &str = "SELECT name FROM shops WHERE id = $1 FOR UPDATE";
const INT4: u32 = 23;

impl Way {
    fn prepare(self, client: &mut Client) {
        if let Self::Prepared = self {
            let types = [&1_u16.to_be_bytes()[..], &INT4.to_be_bytes()].concat();
            client.send(&[frame(b'P', &[b"known\0", BY_ID.as_bytes(), b"\0", &types].concat()), sync()].concat());
            assert_eq!(client.outcome().error, None);
        }
    }

    /// Reads the first shop FOR UPDATE.
    fn read(self, client: &mut Client) -> Outcome {
        match self {
            Self::Text => return client.query(&BY_ID.replace("$1", "1")),
            Self::Bound => client.send(&[parse("", BY_ID), bind("", "", &["1"]), execute("", 0), sync()].concat()),
            Self::Prepared => {
                // The format of the parameter, the parameter, and the format of the results.
                let values = [&[0, 1, 0, 1, 0, 1, 0, 0, 0, 4][..], &1_i32.to_be_bytes(), &[0, 0]].concat();
                let bind = frame(b'B', &[b"\0known\0", &values[..]].concat());
                client.send(&[bind, execute("", 0), sync()].concat());
            }
        }
        client.outcome()
    }
}

/// A session for which the build waits. It does not use the tables of the tests.
fn old(stage: &Stage) -> Client {
    let mut old = stage.beside();
    old.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM schema_migrations");
    old
}

/// Sends the statement, and does something else while the transaction is suspended. Then lets the build go on.
fn meanwhile(client: &mut Client, mut old: Client, beside: &mut Client, statement: &str, other: &str) -> Outcome {
    client.send_query(statement);
    wait_until("the build waits", || beside.value(ACTIVE) != "0");
    beside.ok(other);
    old.ok("COMMIT");
    client.outcome()
}

#[track_caller]
fn overtaken(outcome: &Outcome) {
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("40001"), 'E'), "{outcome:?}");
}

/// The client would write a value that it has computed from the row, and the other session's update would be lost.
#[test]
fn no_update_is_lost() {
    for way in WAYS {
        let stage = Stage::new("lost_update", SHOP);
        let mut client = stage.client();
        way.prepare(&mut client);
        client.ok("BEGIN");
        assert_eq!(way.read(&mut client).rows, [[Some("shop 1".to_owned())]], "{way:?}");
        let mut beside = stage.beside();
        let outcome =
            meanwhile(&mut client, old(&stage), &mut beside, INDEX, "UPDATE shops SET name = 'theirs' WHERE id = 1");
        overtaken(&outcome);
        assert_eq!(client.ok("COMMIT").tags, ["ROLLBACK"]);
        assert_eq!(beside.value("SELECT name FROM shops WHERE id = 1"), "theirs");
        assert_eq!(beside.value("SELECT count(*) FROM pg_class WHERE relname = 'a'"), "0");
        assert_eq!(beside.value("SELECT count(*) FROM pg_description WHERE description LIKE 'pgsluice%'"), "0");
        assert_no_locks(&mut beside);
        drop((client, beside));
        stage.end();
    }
}

/// Rows that the transaction has locked in another way, and read then.
#[test]
fn a_read_behind_a_write_is_compared() {
    for (block, other) in [
        (
            &["UPDATE shops SET name = name || '!' WHERE id = 1", "SELECT name FROM shops WHERE id = 1"][..],
            "UPDATE shops SET name = 'theirs' WHERE id = 1",
        ),
        (&["LOCK TABLE shops IN SHARE MODE", "SELECT count(*) FROM shops"], "INSERT INTO shops VALUES (21)"),
        (&["SELECT FROM shops FOR KEY SHARE", "SELECT * FROM shops"], "DELETE FROM shops WHERE id = 7"),
        (
            &["ALTER TABLE shops ALTER name SET STORAGE EXTERNAL, ADD b int", "VALUES ((SELECT sum(id) FROM shops))"],
            "DELETE FROM shops WHERE id = 7",
        ),
    ] {
        let stage = Stage::new("behind_write", SHOP);
        let mut client = stage.client();
        client.ok("BEGIN");
        block.iter().for_each(|sql| drop(client.ok(sql)));
        let mut beside = stage.beside();
        overtaken(&meanwhile(&mut client, old(&stage), &mut beside, INDEX, other));
        assert_eq!(client.ok("ROLLBACK").tags, ["ROLLBACK"]);
        assert_eq!(beside.value("SELECT count(*) FROM pg_class WHERE relname = 'a'"), "0", "{block:?}");
        drop((client, beside));
        stage.end();
    }
}

/// Other rows of the table may change, and what the client writes afterwards is written.
#[test]
fn rows_that_are_the_same_go_on() {
    for way in WAYS {
        let stage = Stage::new("same_rows", SHOP);
        let mut client = stage.client();
        way.prepare(&mut client);
        client.ok("BEGIN");
        way.read(&mut client);
        let mut beside = stage.beside();
        let outcome =
            meanwhile(&mut client, old(&stage), &mut beside, INDEX, "UPDATE shops SET name = 'theirs' WHERE id = 2");
        assert_eq!((outcome.error.as_deref(), outcome.status), (None, 'T'), "{way:?}: {outcome:?}");
        assert_eq!(stage.ahead(), 1, "{way:?}");
        client.ok("UPDATE shops SET name = 'mine' WHERE id = 1");
        client.ok("COMMIT");
        drop(client);
        assert_eq!(beside.value("SELECT name FROM shops WHERE id = 1"), "mine");
        let mut direct = stage.directly();
        for sql in
            ["UPDATE shops SET name = 'theirs' WHERE id = 2", INDEX, "UPDATE shops SET name = 'mine' WHERE id = 1"]
        {
            direct.ok(sql);
        }
        drop((direct, beside));
        stage.same_state("rows that are the same");
        stage.end();
    }
}

/// Blocks in which the client reads rows that it has locked.
const BLOCKS: [&[&str]; 4] = [
    &["SELECT * FROM shops ORDER BY id LIMIT 3 FOR UPDATE", INDEX, "UPDATE shops SET name = 'mine' WHERE id = 1"],
    // Columns of one name, a column with the name of the proxy's own alias, a row without columns, a comment at the end, no rows.
    &[
        "SELECT s.id, t.id, s.name AS r FROM shops s JOIN shops t ON t.id = s.id FOR UPDATE OF s",
        "SELECT FROM shops FOR SHARE",
        "SELECT name FROM shops WHERE name = 'nobody' FOR UPDATE -- none",
        "TABLE shops",
        "WITH x AS (SELECT 1.5::float8 AS y) SELECT x, s.* FROM shops s, x",
        INDEX,
    ],
    &["UPDATE shops SET name = 'b' WHERE id = 2", "SELECT name FROM shops", INDEX, "CREATE INDEX b ON orders (total)"],
    &[
        "LOCK TABLE shops",
        "SELECT count(*) FROM shops WHERE name > 'shop é'",
        INDEX,
        "INSERT INTO shops VALUES (30, 'é')",
    ],
];

#[test]
fn blocks_that_read_what_they_have_locked() {
    for block in BLOCKS {
        for end in ["COMMIT", "ROLLBACK"] {
            for extended in [false, true] {
                let stage = Stage::new("told", SHOP);
                let queries: Vec<&str> = ["BEGIN"].into_iter().chain(block.iter().copied()).chain([end]).collect();
                stage.same(&queries, extended);
                assert!(stage.ahead() > 0, "nothing was done ahead: {queries:?}");
                assert_eq!(stage.running.shared().metrics.ddl_not_ahead.value(), 0, "{queries:?}");
                stage.end();
            }
        }
    }
}

/// What is done ahead may be taken back, and then the transaction is run again, too. What it has written since is taken back with it.
#[test]
fn a_rollback_to_a_savepoint_compares_the_rows() {
    let stage = Stage::new("savepoint", SHOP);
    stage.same(
        &[
            "BEGIN",
            "SELECT name FROM shops FOR UPDATE",
            "SAVEPOINT s",
            INDEX,
            "UPDATE shops SET name = 'taken back'",
            "ROLLBACK TO SAVEPOINT s",
            "SELECT count(*) FROM pg_class WHERE relname = 'a'",
            "CREATE INDEX b ON orders (total)",
            "COMMIT",
        ],
        false,
    );
    assert_eq!(stage.ahead(), 2);
    stage.end();
}

/// A ROLLBACK TO undoes what is ahead, and meanwhile the rows are free once more.
#[test]
fn a_rollback_to_a_savepoint_loses_no_update() {
    let stage = Stage::new("savepoint_gap", SHOP);
    let mut client = stage.client();
    for sql in ["BEGIN", "SELECT name FROM shops WHERE id = 1 FOR UPDATE", "SAVEPOINT s", INDEX] {
        client.ok(sql);
    }
    assert_eq!(stage.ahead(), 1);
    // The undo waits for this session.
    let mut old = stage.beside();
    old.ok("BEGIN; SELECT 1 FROM orders");
    let mut beside = stage.beside();
    let other = "UPDATE shops SET name = 'theirs' WHERE id = 1";
    overtaken(&meanwhile(&mut client, old, &mut beside, "ROLLBACK TO SAVEPOINT s", other));
    assert_eq!(client.ok("COMMIT").tags, ["ROLLBACK"]);
    assert_eq!(beside.value("SELECT name FROM shops WHERE id = 1"), "theirs");
    assert_eq!(beside.value("SELECT count(*) FROM pg_class WHERE relname = 'a'"), "0");
    assert_no_locks(&mut beside);
    drop((client, beside));
    stage.end();
}

/// A row that has come since is locked by somebody else, so that the rows cannot be read again. The statement runs in the transaction.
#[test]
fn what_cannot_be_read_again_is_not_done_ahead() {
    let stage = Stage::new("unreadable", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("SELECT name FROM shops WHERE id > 0 FOR UPDATE");
    let mut beside = stage.beside();
    beside.ok("INSERT INTO shops VALUES (21, 'new')");
    beside.ok("BEGIN");
    beside.ok("SELECT FROM shops WHERE id = 21 FOR UPDATE");
    let outcome = client.ok(INDEX);
    assert!(outcome.notices.iter().any(|notice| notice.starts_with("WARNING")), "{outcome:?}");
    assert_eq!((outcome.tags, outcome.status), (vec!["CREATE INDEX".to_owned()], 'T'));
    assert_eq!((stage.ahead(), stage.running.shared().metrics.ddl_not_ahead.value()), (0, 1));
    beside.ok("COMMIT");
    // The savepoint of the question is gone, and its settings are.
    assert_eq!(client.value("SHOW lock_timeout"), "0");
    assert_eq!(client.value("SELECT name FROM shops WHERE id = 21 FOR UPDATE"), "new");
    client.ok("COMMIT");
    drop((client, beside));
    let mut direct = stage.directly();
    direct.ok("INSERT INTO shops VALUES (21, 'new')");
    direct.ok(INDEX);
    drop(direct);
    stage.same_state("what cannot be read again");
    stage.end();
}
