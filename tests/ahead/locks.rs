//! Locks that are not to be had while the transaction holds others: the transaction is suspended, waits without locks, and is run again.

use crate::common::{Client, port, wait_until};
use crate::stage::{SHOP, Stage, assert_no_locks};
use std::time::{Duration, Instant};

const BEFORE: [&str; 3] =
    ["BEGIN", "INSERT INTO schema_migrations VALUES ('2')", "ALTER TABLE orders ADD COLUMN extra int"];
const LOCKED: &str = "ALTER TABLE lines DROP COLUMN order_id";

/// A client whose transaction has the table `orders`, and a session that keeps it from `lines`.
fn locked_out(stage: &Stage) -> (Client, Client) {
    let mut holder = stage.beside();
    holder.ok("BEGIN; SELECT 1 FROM lines");
    let mut client = stage.client();
    for sql in BEFORE {
        client.ok(sql);
    }
    (client, holder)
}

/// Others can read `orders`, although the transaction has changed it and its client waits for another lock.
fn others_go_on(stage: &Stage) {
    let mut reader = stage.beside();
    let begun = Instant::now();
    reader.ok("SELECT count(*) FROM orders");
    assert!(begun.elapsed() < Duration::from_secs(2), "waited {:?}", begun.elapsed());
}

#[test]
fn the_wait_goes_on_without_locks() {
    for (statement, end) in
        [(LOCKED, "COMMIT"), (LOCKED, "ROLLBACK"), ("ALTER TABLE lines ADD CHECK (id > 0) NOT VALID", "COMMIT")]
    {
        let stage = Stage::new("locked_out", SHOP);
        let (mut client, mut holder) = locked_out(&stage);
        client.send_query(statement);
        others_go_on(&stage);
        holder.ok("COMMIT");
        let outcome = client.outcome();
        assert_eq!((outcome.tags, outcome.status), (vec!["ALTER TABLE".to_owned()], 'T'), "{:?}", outcome.message);
        client.ok(end);
        assert!(stage.running.shared().metrics.blocks_locked_out.value() > 0);
        let mut direct = stage.directly();
        for sql in BEFORE.iter().copied().chain([statement, end]) {
            direct.ok(sql);
        }
        drop((client, holder, direct));
        stage.same_state(statement);
        stage.end();
    }
}

/// What the client sends meanwhile, and what it gets.
#[test]
fn the_wait_ends_as_a_wait_of_the_server_does() {
    let stage = Stage::new("locked_out_ends", SHOP);
    let (mut client, mut holder) = locked_out(&stage);
    client.send_query(LOCKED);
    others_go_on(&stage);
    client.cancel(port(&stage.running));
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'E'), "{outcome:?}");
    client.ok("ROLLBACK");
    drop(client);

    let (mut client, mut other) = locked_out(&stage);
    client.ok("SET LOCAL lock_timeout = '1s'");
    let outcome = client.query(LOCKED);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("55P03"), 'E'), "{outcome:?}");
    client.ok("ROLLBACK");
    drop(client);

    let (mut client, mut third) = locked_out(&stage);
    client.send_query(LOCKED);
    others_go_on(&stage);
    client.reset();
    let mut beside = stage.beside();
    wait_until("the transaction is gone", || {
        beside.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = '' \
             AND query LIKE '%waiting for%' AND pid <> pg_backend_pid()",
        ) == "0"
    });
    for holder in [&mut holder, &mut other, &mut third] {
        holder.ok("COMMIT");
    }
    assert_no_locks(&mut beside);
    drop((holder, other, third, beside));
    stage.same_state("waits that end");
    stage.end();
}

/// A transaction that cannot be run again waits with its locks, for `in_transaction_wait`.
#[test]
fn a_transaction_that_cannot_be_run_again_keeps_its_locks() {
    let stage = Stage::with("locked_out_once", SHOP, |config| {
        config.locks.in_transaction_wait = Duration::from_secs(1);
    });
    let mut holder = stage.beside();
    holder.ok("BEGIN; SELECT 1 FROM lines");
    let mut client = stage.client();
    for sql in ["BEGIN", "INSERT INTO schema_migrations VALUES ('2') RETURNING ctid", BEFORE[2]] {
        client.ok(sql);
    }
    let outcome = client.query(LOCKED);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("55P03"), 'E'), "{outcome:?}");
    drop((client, holder));
    stage.same_state("nothing is left");
    stage.end();
}
