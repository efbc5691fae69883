//! A long write behind a change of its table: the change goes ahead of the transaction, so that the table is free while the write runs.

use crate::common::{Client, port, wait_until};
use crate::stage::{SHOP, Stage};
use std::time::{Duration, Instant};

const ADD: &str = "ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops";
const FILL: &str = "UPDATE orders SET shop_id = 1 + id % 20";

fn freed(stage: &Stage) -> (u64, u64) {
    let metrics = &stage.running.shared().metrics;
    (metrics.blocks_freed.value(), metrics.blocks_not_freed.value())
}

/// Others read and write the table, although the transaction has altered it.
fn others_go_on(stage: &Stage) {
    let mut other = stage.beside();
    let begun = Instant::now();
    other.ok("SET statement_timeout = '10s'; SELECT count(*) FROM orders; INSERT INTO orders (id) VALUES (9999); DELETE FROM orders WHERE id = 9999");
    assert!(begun.elapsed() < Duration::from_secs(2), "waited {:?}", begun.elapsed());
}

#[test]
fn the_table_is_free_while_it_is_filled() {
    for (end, extended) in [("COMMIT", false), ("COMMIT", true), ("ROLLBACK", false), ("ROLLBACK", true)] {
        let stage = Stage::new("freed", SHOP);
        let queries =
            ["BEGIN", ADD, "INSERT INTO schema_migrations VALUES ('2')", FILL, "SELECT sum(shop_id) FROM orders"];
        let mut client = stage.client();
        let mut direct = stage.directly();
        for sql in queries {
            let [one, other] =
                [&mut client, &mut direct].map(|client| if extended { client.execute(sql) } else { client.query(sql) });
            assert_eq!(
                (one.error, one.tags, one.rows, one.status),
                (other.error, other.tags, other.rows, other.status),
                "{sql}"
            );
        }
        others_go_on(&stage);
        for client in [&mut client, &mut direct] {
            client.ok(end);
        }
        assert_eq!(freed(&stage), (1, 0));
        drop((client, direct));
        stage.same_state(&format!("{end}, extended: {extended}"));
        stage.end();
    }
}

/// Strings, savepoints, parameters, several changes before one write, and writes that fail.
#[test]
fn what_goes_ahead_leaves_what_it_leaves_directly() {
    let index = "CREATE INDEX orders_shop ON orders (shop_id)";
    let bad = "UPDATE orders SET shop_id = 99";
    let scripts: [(&[&str], u64); 9] = [
        (
            &[
                "BEGIN; ALTER TABLE orders ADD COLUMN shop_id bigint; UPDATE orders SET shop_id = 3; INSERT INTO schema_migrations VALUES ('2'); COMMIT",
            ],
            1,
        ),
        (
            &[
                "ALTER TABLE orders ADD COLUMN shop_id bigint; UPDATE orders SET shop_id = 3; INSERT INTO schema_migrations VALUES ('2')",
            ],
            1,
        ),
        (&["BEGIN", ADD, bad, "ROLLBACK"], 1),
        (&["BEGIN", ADD, bad, "COMMIT"], 1),
        (&["BEGIN", ADD, "SAVEPOINT a", FILL, "ROLLBACK TO a", "UPDATE orders SET shop_id = 5", "COMMIT"], 1),
        (
            &[
                "BEGIN",
                "SAVEPOINT a",
                ADD,
                FILL,
                "ROLLBACK TO a",
                "INSERT INTO schema_migrations VALUES ('2')",
                "COMMIT",
            ],
            1,
        ),
        (&["BEGIN", ADD, FILL, "ALTER TABLE orders ALTER shop_id SET NOT NULL", index, "COMMIT"], 1),
        (&["BEGIN", ADD, FILL, "ALTER TABLE orders ADD COLUMN extra int", "UPDATE orders SET extra = 1", "COMMIT"], 1),
        (
            &[
                "BEGIN",
                "SET LOCAL search_path = public",
                ADD,
                "ALTER TABLE lines ADD COLUMN extra int",
                "WITH filled AS (UPDATE orders SET shop_id = 2 RETURNING id) INSERT INTO lines (id, order_id) SELECT id + 1000, id FROM filled",
                "COMMIT",
            ],
            1,
        ),
    ];
    for ((script, times), extended) in scripts.into_iter().flat_map(|script| [(script, false), (script, true)]) {
        if extended && script.len() == 1 {
            continue;
        }
        let stage = Stage::new("freed_as_directly", SHOP);
        stage.same(script, extended);
        assert_eq!(freed(&stage).0, times, "{script:?}");
        stage.end();
    }
}

/// What cannot go ahead stays as it is written, and a WARNING says why. What is small, or nobody waits for, is left alone.
#[test]
fn what_keeps_its_place_is_told() {
    let kept: [(&[&str], &str); 3] = [
        (&["BEGIN", "ALTER TABLE orders DROP COLUMN total"], "DROP COLUMN"),
        (
            &["BEGIN", "UPDATE orders SET note = 'b'", "ALTER TABLE orders ADD CHECK (note <> '') NOT VALID"],
            "UPDATE of orders stands before it",
        ),
        (&["BEGIN", "LOCK TABLE orders", "ALTER TABLE orders ADD COLUMN extra int"], "LOCK of orders"),
    ];
    for (before, why) in kept {
        let stage = Stage::new("not_freed", SHOP);
        let mut client = stage.client();
        before.iter().for_each(|sql| drop(client.ok(sql)));
        let outcome = client.ok("UPDATE orders SET note = 'c'");
        assert!(outcome.notices.iter().any(|notice| notice.contains("keeps the tables")), "{before:?}: {outcome:?}");
        let _ = why;
        assert_eq!(freed(&stage), (0, 1), "{before:?}");
        // It is said once.
        assert!(client.ok("UPDATE orders SET note = 'd'").notices.is_empty());
        client.ok("COMMIT");
        stage.end();
    }
    let quiet: [&[&str]; 3] = [
        &["BEGIN", "CREATE TABLE fresh (id int)", "INSERT INTO fresh SELECT generate_series(1, 1000)", "COMMIT"],
        &["BEGIN", "COMMENT ON TABLE orders IS 'busy'", FILL_NOTE, "COMMIT"],
        &["BEGIN", ADD, "INSERT INTO schema_migrations VALUES ('2')", "COMMIT"],
    ];
    for script in quiet {
        let stage = Stage::with("nothing_to_free", SHOP, |config| config.ddl.small_table = 8192);
        stage.same(script, false);
        assert_eq!(freed(&stage), (0, 0), "{script:?}");
        stage.end();
    }
}

const FILL_NOTE: &str = "UPDATE orders SET note = 'x'";

/// While the change waits for its lock ahead of the transaction, a cancel ends the write.
#[test]
fn a_cancel_ends_the_write() {
    for extended in [false, true] {
        let stage = Stage::new("freed_cancelled", SHOP);
        let mut client = stage.client();
        client.ok("BEGIN");
        client.ok("INSERT INTO schema_migrations VALUES ('2')");
        client.ok(ADD);
        // It waits for the table, and is the next to have it.
        let mut holder = stage.beside();
        holder.send_query("BEGIN; SELECT count(*) FROM orders");
        let mut watcher = stage.beside();
        let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {} AND NOT granted", holder.pid);
        wait_until("it waits for the table", || watcher.value(&waits) == "1");
        let play = |client: &mut Client| if extended { client.execute(FILL) } else { client.query(FILL) };
        let outcome = std::thread::scope(|threads| {
            let played = threads.spawn(|| {
                let outcome = play(&mut client);
                (client, outcome)
            });
            assert_eq!(holder.outcome().error, None);
            let pid = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/* pgsluice: waiting%'";
            wait_until("it waits ahead of the transaction", || watcher.value(pid) == "1");
            watcher.ok("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/* pgsluice: waiting%'");
            played.join().unwrap()
        });
        let (mut client, outcome) = outcome;
        assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'E'), "{outcome:?}");
        client.ok("ROLLBACK");
        holder.ok("COMMIT");
        let _ = port(&stage.running);
        drop((client, holder, watcher));
        stage.same_state("cancelled");
        stage.end();
    }
}

/// A client that is idle behind its schema change keeps nobody from the table for long, and nothing happens while nobody waits.
#[test]
fn an_idle_transaction_lets_others_through() {
    for end in ["COMMIT", "ROLLBACK"] {
        let stage = Stage::with("freed_idle", SHOP, |config| config.locks.hold_budget = Duration::from_millis(300));
        let mut client = stage.client();
        client.ok("BEGIN");
        client.ok("INSERT INTO schema_migrations VALUES ('2')");
        client.ok(ADD);
        let mut watcher = stage.beside();
        let state = format!("SELECT state_change FROM pg_stat_activity WHERE pid = {}", client.pid);
        let idle_since = watcher.value(&state);
        wait_until("it has looked", || watcher.value(&state) != idle_since);
        assert_eq!(freed(&stage), (0, 0), "nobody waits");
        let mut reader = stage.beside();
        assert_eq!(reader.ok("SET statement_timeout = '30s'; SELECT count(*) FROM orders").tags.len(), 2);
        wait_until("the transaction has been run again", || freed(&stage) == (1, 0));
        others_go_on(&stage);
        client.ok(FILL);
        client.ok(end);
        let mut direct = stage.directly();
        for sql in ["BEGIN", "INSERT INTO schema_migrations VALUES ('2')", ADD, FILL, end] {
            direct.ok(sql);
        }
        drop((client, reader, watcher, direct));
        stage.same_state(end);
        stage.end();
    }
}
