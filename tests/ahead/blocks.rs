//! The blocks of migration tools, with COMMIT and with ROLLBACK.

use crate::common::raw::{execute, frame, sync};
use crate::stage::{SHOP, Stage};

/// Blocks in which a statement is done ahead: what stands between BEGIN and the end.
pub(crate) const BLOCKS: [&[&str]; 12] = [
    // The example of the README.
    &[
        "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops",
        "CREATE INDEX ON orders (shop_id)",
        "INSERT INTO schema_migrations VALUES ('2')",
    ],
    // Rails.
    &[
        "CREATE INDEX index_orders_on_note ON orders (note)",
        "INSERT INTO schema_migrations (version) VALUES ('20240101') RETURNING version",
    ],
    // Django, Alembic.
    &[
        "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL",
        "CREATE UNIQUE INDEX orders_token ON orders (token)",
        "UPDATE schema_migrations SET version = '2' WHERE version = '1'",
        "ALTER TABLE orders ALTER token DROP DEFAULT, DROP COLUMN token",
    ],
    &[
        "SELECT 1 FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'shop_id'",
        "ALTER TABLE orders ADD COLUMN shop_id bigint",
        "ALTER TABLE orders ADD CONSTRAINT orders_shop FOREIGN KEY (shop_id) REFERENCES shops DEFERRABLE INITIALLY DEFERRED",
        "CREATE INDEX orders_shop_id ON orders (shop_id)",
        "INSERT INTO schema_migrations VALUES ('2')",
    ],
    &["ALTER TABLE orders ADD UNIQUE (note)", "INSERT INTO schema_migrations VALUES ('2')"],
    &["ALTER TABLE orders ADD CONSTRAINT positive CHECK (total >= 0)", "INSERT INTO schema_migrations VALUES ('2')"],
    &["ALTER TABLE orders ALTER note SET NOT NULL", "INSERT INTO schema_migrations VALUES ('2')"],
    // A new table beside the large one.
    &[
        "CREATE TABLE refunds (id bigint PRIMARY KEY, order_id bigint REFERENCES orders)",
        "CREATE INDEX ON refunds (order_id)",
        "ALTER TABLE orders ADD COLUMN refunded boolean",
        "ALTER TABLE orders ADD CONSTRAINT known CHECK (total < 100000)",
        "CREATE INDEX ON orders (total)",
        "INSERT INTO refunds VALUES (1, 1)",
        "INSERT INTO schema_migrations VALUES ('2')",
    ],
    // One transaction for several migrations.
    &[
        "INSERT INTO schema_migrations VALUES ('2')",
        "CREATE INDEX a ON orders (note)",
        "INSERT INTO schema_migrations VALUES ('3')",
        "CREATE INDEX b ON orders (total)",
        "INSERT INTO schema_migrations VALUES ('4')",
        "ALTER TABLE lines ADD CONSTRAINT known_order CHECK (order_id > 0)",
    ],
    // Savepoints.
    &[
        "SAVEPOINT one",
        "INSERT INTO schema_migrations VALUES ('2')",
        "CREATE INDEX a ON orders (note)",
        "RELEASE SAVEPOINT one",
        "SAVEPOINT two",
        "INSERT INTO schema_migrations VALUES ('3')",
        "ROLLBACK TO SAVEPOINT two",
    ],
    // Settings and locks of the transaction.
    &[
        "SET LOCAL search_path = public, pg_catalog",
        "SET LOCAL lock_timeout = '7s'",
        "SELECT pg_try_advisory_xact_lock(42)",
        "CREATE INDEX a ON orders (note)",
        "SELECT current_setting('lock_timeout')",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND pid = pg_backend_pid()",
    ],
    // What keeps its place is run again.
    &[
        "CREATE TABLE fresh (id bigint)",
        "INSERT INTO fresh SELECT generate_series(1, 3)",
        "UPDATE shops SET name = 'renamed' WHERE id < 4",
        "DELETE FROM shops WHERE id = 20",
        "CREATE INDEX a ON orders (note)",
        "SELECT count(*) FROM fresh",
        "SELECT name FROM shops WHERE id = 1",
    ],
];

fn play(end: &str, extended: bool) {
    for block in BLOCKS {
        let stage = Stage::new("block", SHOP);
        let queries: Vec<&str> = ["BEGIN"].into_iter().chain(block.iter().copied()).chain([end]).collect();
        stage.same(&queries, extended);
        assert!(stage.ahead() > 0, "nothing was done ahead: {queries:?}");
        stage.end();
    }
}

#[test]
fn a_block_commits_with_what_was_done_ahead() {
    play("COMMIT", false);
}

#[test]
fn a_block_that_is_rolled_back_leaves_nothing() {
    play("ROLLBACK", false);
}

#[test]
fn a_block_of_the_extended_protocol_commits() {
    play("COMMIT", true);
}

/// The table seems small at first, so the statement is tried at once, in one pipeline with its Parse and Bind.
#[test]
fn a_block_of_the_extended_protocol_whose_first_try_fails_commits() {
    for block in BLOCKS {
        let stage = Stage::with("tried", SHOP, |config| config.ddl.small_table = 1);
        let queries: Vec<&str> = ["BEGIN"].into_iter().chain(block.iter().copied()).chain(["COMMIT"]).collect();
        stage.same(&queries, true);
        assert!(stage.ahead() > 0, "nothing was done ahead: {queries:?}");
        stage.end();
    }
}

#[test]
fn a_block_of_the_extended_protocol_is_rolled_back() {
    play("ROLLBACK", true);
}

#[test]
fn a_block_that_fails_leaves_nothing() {
    for block in BLOCKS {
        let stage = Stage::new("failing", SHOP);
        let queries: Vec<&str> =
            ["BEGIN"].into_iter().chain(block.iter().copied()).chain(["SELECT 1 / 0", "SELECT 1", "COMMIT"]).collect();
        stage.same(&queries, false);
        assert!(stage.ahead() > 0, "nothing was done ahead: {queries:?}");
        stage.end();
    }
}

/// A file as one string, as golang-migrate and sqlx send it.
#[test]
fn a_string_is_a_block() {
    for block in BLOCKS {
        if block.iter().any(|sql| sql.contains("SAVEPOINT")) {
            continue;
        }
        for end in ["", "; SELECT 1 / 0"] {
            let stage = Stage::new("string", SHOP);
            stage.same(&[&(block.join(";\n") + end)], false);
            assert!(stage.ahead() > 0, "nothing was done ahead: {block:?}");
            stage.end();
        }
    }
}

/// A file with its own BEGIN and COMMIT as one string.
#[test]
fn a_string_may_have_its_own_block() {
    for block in BLOCKS {
        for end in ["COMMIT", "ROLLBACK"] {
            let stage = Stage::new("script", SHOP);
            stage.same(&[&format!("BEGIN;\n{};\n{end}", block.join(";\n"))], false);
            assert!(stage.ahead() > 0, "nothing was done ahead: {block:?}");
            stage.end();
        }
    }
}

/// A text that is not ASCII and parameters in binary form are run again together, each as it came.
#[test]
fn texts_and_parameters_of_all_kinds_are_run_again() {
    let stage = Stage::new("mixed", SHOP);
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("INSERT INTO shops VALUES (31, 'é')");
    // An int4 in binary form and a text, both of declared types.
    let types = [&[0, 2][..], &23_u32.to_be_bytes(), &25_u32.to_be_bytes()].concat();
    let parse = frame(b'P', &[&b"\0INSERT INTO shops VALUES ($1, $2)\0"[..], &types].concat());
    let values = [&[0, 0, 0, 4][..], &32_i32.to_be_bytes(), &[0, 0, 0, 2], "ü".as_bytes()].concat();
    let bind = frame(b'B', &[&[0, 0, 0, 2, 0, 1, 0, 0, 0, 2][..], &values, &[0, 0]].concat());
    client.send(&[parse, bind, execute("", 0), sync()].concat());
    assert_eq!(client.outcome().error, None);
    client.ok("CREATE INDEX a ON orders (note)");
    assert_eq!(stage.ahead(), 1);
    client.ok("COMMIT");
    assert_eq!(
        client.ok("SELECT id, name FROM shops WHERE id > 30 ORDER BY id").rows,
        [["31", "é"], ["32", "ü"]].map(|row| row.map(|value| Some(value.to_owned())))
    );
    drop(client);
    stage.end();
}
