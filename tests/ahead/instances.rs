//! Two instances of a migration tool that has no lock of its own. The second waits until the first's transaction is over, as directly.

use crate::common::{Client, Outcome, wait_until};
use crate::stage::{SHOP, Stage, assert_no_locks};

const COLUMN: &str = "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL";

/// Waits until the client's statement waits for the block of another session.
fn wait_for_its_nap(stage: &Stage) {
    let mut beside = stage.beside();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%waiting to continue a schema change%' AND pid <> pg_backend_pid()";
    wait_until("the second instance waits", || beside.value(sql) == "1");
}

/// The first instance runs its statements while the second, which has sent `second`, waits; returns the second's outcome.
fn play(stage: &Stage, first: &[&str], second: &str, end: &str) -> (Outcome, Client) {
    let (mut one, mut other) = (stage.client(), stage.client());
    one.ok("BEGIN");
    one.ok(COLUMN);
    other.ok("BEGIN");
    other.send_query(second);
    wait_for_its_nap(stage);
    for sql in first {
        one.ok(sql);
    }
    one.ok(end);
    (other.outcome(), other)
}

#[test]
fn the_second_instance_does_not_hold_up_the_first() {
    let index = "CREATE INDEX orders_token ON orders (token)";
    let check = "ALTER TABLE orders ADD CONSTRAINT positive CHECK (total >= 0)";
    let on_it = "CREATE INDEX by_token ON orders (token)";
    // What directly stays of both, in the order of their names.
    for (second, end, error, left) in [
        (COLUMN, "COMMIT", Some("42701"), "orders_token token"),
        (COLUMN, "ROLLBACK", None, "token"),
        (check, "COMMIT", None, "orders_token positive token"),
        (check, "ROLLBACK", None, "positive"),
        (on_it, "COMMIT", None, "by_token orders_token token"),
        (on_it, "ROLLBACK", Some("42703"), ""),
        // In the block itself.
        ("ALTER TABLE orders ADD COLUMN IF NOT EXISTS token text", "COMMIT", None, "orders_token token"),
        ("ALTER TABLE orders ADD COLUMN IF NOT EXISTS token text", "ROLLBACK", None, "token"),
    ] {
        let stage = Stage::new("instances", SHOP);
        let (outcome, mut other) = play(&stage, &[index, "INSERT INTO schema_migrations VALUES ('2')"], second, end);
        assert_eq!(outcome.error.as_deref(), error, "{second} behind {end}: {outcome:?}");
        other.ok("COMMIT");
        let mut beside = stage.beside();
        let sql = "SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM (
            SELECT attname::text FROM pg_attribute WHERE attrelid = 'orders'::regclass AND NOT attisdropped AND attname ~ 'token|pgsluice'
            UNION SELECT conname FROM pg_constraint WHERE conrelid = 'orders'::regclass AND conname ~ 'positive|pgsluice'
            UNION SELECT relname FROM pg_class WHERE relname ~ 'token|pgsluice'
            UNION SELECT description FROM pg_description WHERE description ~ 'pgsluice') AS n (name)";
        assert_eq!(beside.value(sql), left, "{second} behind {end}");
        assert_no_locks(&mut beside);
        drop((beside, other));
        stage.end();
    }
}

/// Two blocks that have something ahead on one table each, and want the other table.
#[test]
fn blocks_that_wait_for_each_other_are_a_deadlock() {
    let stage = Stage::new("deadlock", SHOP);
    let mut clients = [stage.client(), stage.client()];
    let mut pids = [0, 0];
    for (at, sql) in ["CREATE INDEX one ON orders (note)", "CREATE INDEX other ON lines (order_id)"].iter().enumerate()
    {
        pids[at] = clients[at].value("SELECT pg_backend_pid()").parse::<i32>().unwrap();
        clients[at].ok("BEGIN");
        clients[at].ok(sql);
    }
    clients[0].send_query("CREATE INDEX three ON lines (id, order_id)");
    clients[1].send_query("CREATE INDEX four ON orders (total)");
    let loser = usize::from(pids[1] > pids[0]);
    let outcome = clients[loser].outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("40P01"), 'E'), "{outcome:?}");
    clients[loser].ok("ROLLBACK");
    let winner = 1 - loser;
    assert_eq!(clients[winner].outcome().error, None);
    clients[winner].ok("COMMIT");
    drop(clients);
    let mut beside = stage.beside();
    let made = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname IN ('one', 'other', 'three', 'four')";
    assert_eq!(beside.value(made), if winner == 0 { "one three" } else { "four other" });
    assert_no_locks(&mut beside);
    drop(beside);
    stage.end();
}

/// The first block waits for a row of the second. The second is rolled back to wait outside, or, where it cannot be run again, gives up.
#[test]
fn a_block_that_waits_for_rows_gets_them() {
    for (second, error) in [
        ("ALTER TABLE orders ADD COLUMN IF NOT EXISTS token text", None),
        ("ALTER TABLE orders DROP COLUMN IF EXISTS token", Some("40P01")),
    ] {
        let stage = Stage::new("rows", SHOP);
        let (mut one, mut other) = (stage.client(), stage.client());
        one.ok("BEGIN");
        one.ok(COLUMN);
        other.ok("BEGIN");
        other.ok("UPDATE schema_migrations SET version = '2'");
        one.send_query("UPDATE schema_migrations SET version = '3'");
        other.send_query(second);
        if error.is_some() {
            assert_eq!(other.outcome().error.as_deref(), error, "{second}");
            other.ok("ROLLBACK");
        }
        assert_eq!(one.outcome().error, None, "{second}");
        one.ok("COMMIT");
        if error.is_none() {
            assert_eq!(other.outcome().error, None, "{second}");
            other.ok("COMMIT");
        }
        drop((one, other));
        assert_no_locks(&mut stage.beside());
        stage.end();
    }
}
