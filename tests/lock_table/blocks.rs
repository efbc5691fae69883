//! LOCK TABLE and the rest of its transaction block: what the block knows of its locks, and a block that is run again.

use super::{Stage, WAYS};

/// What the block has locked is not asked for again, until something that is not understood may have changed the names.
#[test]
fn the_block_knows_what_it_has_locked() {
    let stage = Stage::new(|_| ());
    let mut client = stage.client();
    client.ok("BEGIN");
    for (sql, attempts) in [
        ("LOCK TABLE t IN EXCLUSIVE MODE", 1),
        ("LOCK TABLE t IN EXCLUSIVE MODE", 1),
        ("LOCK TABLE ONLY t IN SHARE MODE", 1),
        ("LOCK TABLE ONLY u", 2),
        ("LOCK TABLE ONLY u", 2),
        ("LOCK TABLE u", 3),
        ("INSERT INTO u VALUES (1)", 3),
        ("LOCK TABLE t, u IN SHARE MODE", 3),
        ("LOCK TABLE t", 4),
        ("SELECT 1", 4),
        ("LOCK TABLE t", 5),
        ("CREATE TABLE made ()", 5),
        ("LOCK TABLE made, t", 5),
    ] {
        client.ok(sql);
        assert_eq!(stage.metrics().lock_attempts.value(), attempts, "{sql}");
    }
    // Only a first try knows that the table is ordinary, and that no unfinished plan is on record.
    client.ok("ALTER TABLE t ADD COLUMN c int");
    client.ok("COMMIT");
    assert_eq!(stage.metrics().ddl_relayed.value(), 0);
}

/// A block that has locked its table of versions is run again behind an index that goes ahead of it.
#[test]
fn the_lock_is_held_when_the_block_is_run_again() {
    let mut stage = Stage::new(|_| ());
    for (nth, (name, way)) in WAYS.iter().enumerate() {
        let mut client = stage.client();
        client.ok("BEGIN");
        way(&mut client, "LOCK TABLE versions IN EXCLUSIVE MODE");
        assert_eq!(client.outcome().error, None, "{name}");
        client.ok(&format!("CREATE INDEX i{nth} ON t (a)"));
        assert_eq!(stage.metrics().ddl_ahead.value(), nth as u64 + 1, "{name}");
        let held = format!(
            "SELECT count(*) FROM pg_locks WHERE pid = {} AND relation = 'versions'::regclass AND mode = 'ExclusiveLock' AND granted",
            client.pid
        );
        assert_eq!(stage.watcher.value(&held), "1", "{name}");
        client.ok(&format!("INSERT INTO versions VALUES ({nth})"));
        client.ok("COMMIT");
    }
    assert_eq!(stage.watcher.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid"), "4");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM versions"), "3");
}

/// While the block is run again, another session has the lock. The block waits for it in the proxy.
#[test]
fn a_replay_waits_for_the_lock_in_the_proxy() {
    let mut stage = Stage::new(|_| ());
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("LOCK TABLE versions IN EXCLUSIVE MODE");
    let mut other = stage.direct();
    other.ok("BEGIN");
    other.send_query("LOCK TABLE versions IN EXCLUSIVE MODE");
    stage.until_it_queues(other.pid);
    client.send_query("CREATE INDEX i ON t (a)");
    // The client's block is suspended.
    assert_eq!(other.outcome().error, None);
    stage.until_it_polls(client.pid);
    other.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    client.ok("COMMIT");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM pg_class WHERE relname = 'i'"), "1");
}
