//! A transaction that no longer holds a table, since what it did to the table was done ahead, and that needs the table once more while writers
//! wait for its rows. Directly there would be no deadlock, and through the proxy there is none either.

use crate::common::{Client, port, wait_until};
use crate::stage::{SHOP, Stage, assert_no_locks};
use std::time::{Duration, Instant};

/// Every UPDATE takes a while, in which its rows are locked.
const SLOW: &str =
    "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
    CREATE TRIGGER linger AFTER UPDATE OF note ON orders FOR EACH STATEMENT EXECUTE FUNCTION linger()";

const BEFORE: [&str; 4] = [
    "BEGIN",
    "INSERT INTO schema_migrations VALUES ('2')",
    "CREATE INDEX orders_total ON orders (total)",
    "UPDATE orders SET note = note || '!'",
];
const NEEDS_THE_TABLE: &str = "ALTER TABLE orders ALTER note SET NOT NULL";
const WRITE: &str = "UPDATE orders SET total = total + 1 WHERE id = 7";

/// A writer that waits for a row of the client's transaction.
fn waiting_writer(stage: &Stage) -> Client {
    let mut writer = stage.beside();
    writer.send_query(WRITE);
    waits(stage, writer.pid);
    writer
}

/// Waits until the session waits for a lock in the server.
fn waits(stage: &Stage, pid: i32) {
    let mut watcher = stage.beside();
    let sql = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    wait_until("it waits for the row", || watcher.value(&sql) == "1");
}

fn begun(stage: &Stage) -> Client {
    let mut client = stage.client();
    for sql in BEFORE {
        client.ok(sql);
    }
    assert_eq!(stage.ahead(), 1, "the index is ahead");
    client
}

fn locked_first(stage: &Stage) -> u64 {
    stage.running.shared().metrics.blocks_locked_first.value()
}

#[test]
fn the_transaction_takes_the_lock_first_and_is_run_again() {
    let statements =
        [NEEDS_THE_TABLE, "ALTER TABLE orders ADD COLUMN extra int", "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"];
    for (statement, end) in
        statements.into_iter().flat_map(|statement| [(statement, "COMMIT"), (statement, "ROLLBACK")])
    {
        let stage = Stage::new("deadlock", SHOP);
        let mut client = begun(&stage);
        let mut writer = waiting_writer(&stage);
        let outcome = if end == "COMMIT" { client.query(statement) } else { client.execute(statement) };
        assert_eq!((outcome.error, outcome.status, outcome.tags.len()), (None, 'T', 1), "{statement}");
        assert!(locked_first(&stage) > 0, "{statement}");
        assert_eq!(writer.outcome().tags, ["UPDATE 1"]);
        client.ok(end);
        let mut direct = stage.directly();
        for sql in BEFORE.into_iter().chain([statement, end, WRITE]) {
            direct.ok(sql);
        }
        drop((client, writer, direct));
        stage.same_state(&format!("{statement}; {end}"));
        stage.end();
    }
}

/// A statement that keeps its place meets the writers when the transaction is run again for another one.
#[test]
fn a_second_run_takes_the_lock_first_too() {
    let stage = Stage::new("deadlock_again", &format!("{SHOP}; {SLOW}"));
    let mut client = begun(&stage);
    client.ok(NEEDS_THE_TABLE);
    assert_eq!(locked_first(&stage), 0);
    let mut writer = stage.beside();
    client.send_query("CREATE INDEX lines_order ON lines (order_id)");
    // The transaction is suspended, and its UPDATE then takes the rows and lingers.
    writer.ok(WRITE);
    let mut watcher = stage.beside();
    let lingers =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'UPDATE orders SET note%'";
    wait_until("the UPDATE is run again", || watcher.value(lingers) == "1");
    writer.send_query(WRITE);
    let outcome = client.outcome();
    assert_eq!((outcome.error, outcome.status), (None, 'T'), "{:?}", outcome.message);
    assert!(locked_first(&stage) > 0);
    client.ok("COMMIT");
    assert_eq!(writer.outcome().tags, ["UPDATE 1"]);
    let mut direct = stage.directly();
    let after = [NEEDS_THE_TABLE, "CREATE INDEX lines_order ON lines (order_id)", "COMMIT", WRITE, WRITE];
    for sql in BEFORE.into_iter().chain(after) {
        direct.ok(sql);
    }
    drop((client, writer, direct, watcher));
    stage.same_state("a second run");
    stage.end();
}

/// While it waits for somebody else to leave the table, nobody waits for it; and it ends as any wait does.
#[test]
fn the_wait_for_the_lock_makes_nobody_wait() {
    let stage = Stage::new("deadlock_waits", SHOP);
    let mut holder = stage.beside();
    let begin = |holder: &mut Client| {
        holder.ok("BEGIN; SELECT 1 FROM orders");
        let client = begun_once_more(&stage);
        (client, waiting_writer(&stage))
    };
    let (mut client, mut writer) = begin(&mut holder);
    client.send_query(NEEDS_THE_TABLE);
    assert_eq!(writer.outcome().tags, ["UPDATE 1"]);
    let mut reader = stage.beside();
    let since = Instant::now();
    reader.ok("SELECT count(*) FROM orders");
    assert!(since.elapsed() < Duration::from_secs(2));
    client.cancel(port(&stage.running));
    let outcome = client.outcome();
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("57014"), 'E'), "{outcome:?}");
    rolled_back(client, &mut holder);
    drop(writer);

    let (mut client, mut writer) = begin(&mut holder);
    client.ok("SET lock_timeout = '1s'");
    let outcome = client.query(NEEDS_THE_TABLE);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("55P03"), 'E'), "{outcome:?}");
    rolled_back(client, &mut holder);
    assert_eq!(writer.outcome().tags, ["UPDATE 1"]);
    drop(writer);

    let (mut client, mut writer) = begin(&mut holder);
    client.send_query(NEEDS_THE_TABLE);
    assert_eq!(writer.outcome().tags, ["UPDATE 1"]);
    holder.ok("COMMIT");
    let outcome = client.outcome();
    assert_eq!((outcome.error, outcome.status), (None, 'T'), "{:?}", outcome.message);
    client.ok("ROLLBACK");
    drop((client, writer, holder, reader));
    let mut direct = stage.directly();
    (0..3).for_each(|_| drop(direct.ok(WRITE)));
    drop(direct);
    stage.same_state("waits");
    stage.end();
}

/// The index is dropped without a lock that others would wait for, so the ROLLBACK waits for the holder.
fn rolled_back(mut client: Client, holder: &mut Client) {
    client.send_query("ROLLBACK");
    holder.ok("COMMIT");
    assert_eq!(client.outcome().tags, ["ROLLBACK"]);
}

fn begun_once_more(stage: &Stage) -> Client {
    let mut client = stage.client();
    for sql in BEFORE {
        client.ok(sql);
    }
    client
}

/// What cannot be run again fails as a deadlock of the server does, and leaves nothing.
#[test]
fn what_cannot_be_run_again_is_a_deadlock() {
    let stage = Stage::new("deadlock_once", SHOP);
    let mut client = begun(&stage);
    client.ok("INSERT INTO schema_migrations VALUES (random()::text) RETURNING version");
    let mut writer = waiting_writer(&stage);
    let outcome = client.query(NEEDS_THE_TABLE);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("40P01"), 'E'), "{outcome:?}");
    assert_eq!(writer.outcome().tags, ["UPDATE 1"]);
    client.ok("ROLLBACK");
    let mut direct = stage.directly();
    direct.ok(WRITE);
    drop((client, writer, direct));
    assert_no_locks(&mut stage.beside());
    stage.same_state("what cannot be run again");
    stage.end();
}
