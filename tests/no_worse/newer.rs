//! A server whose grammar is newer than the proxy's: a statement that the proxy cannot read does not stand in the lock
//! queue.

use crate::common::versions::server;
use crate::common::{Client, PATIENCE, port, proxy, wait_until};
use std::time::Instant;

/// REPACK (19) locks its table as CLUSTER does.
#[test]
fn repack_does_not_stand_in_the_lock_queue() {
    let postgres = server(19);
    let proxy = proxy(&postgres, |_| {});
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    admin.ok("CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g");
    let mut reader = Client::connect(postgres.port, &postgres.user, "postgres");
    reader.ok("BEGIN");
    reader.ok("SELECT FROM t LIMIT 1");
    let file = |admin: &mut Client| admin.value("SELECT pg_relation_filenode('t')");
    let before = file(&mut admin);
    let (to, user) = (port(&proxy), postgres.user.clone());
    let repack = std::thread::spawn(move || Client::connect(to, &user, "postgres").query("REPACK t"));
    wait_until("it waits in the proxy", || {
        admin.value(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pgsluice: waiting%' AND pid <> pg_backend_pid()",
        ) == "1"
    });
    // A later reader does not wait behind it for long, however long the first one reads.
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(admin.value("SELECT count(*) FROM t"), "1000");
    }
    assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
    reader.ok("COMMIT");
    let outcome = repack.join().expect("it answers");
    assert_eq!((outcome.error, outcome.tags), (None, vec!["REPACK".to_owned()]));
    assert!(
        outcome.notices.iter().any(|notice| notice.starts_with("WARNING 01000 this statement may make")),
        "{:?}",
        outcome.notices
    );
    assert_ne!(file(&mut admin), before);
    proxy.stop();
}

/// By each protocol, among other statements, and where it is wrong: as directly, but for a WARNING.
#[test]
fn newer_statements_bring_what_they_bring_directly() {
    let postgres = server(19);
    let proxy = proxy(&postgres, |_| {});
    let mut clients = [postgres.port, port(&proxy)].map(|port| Client::connect(port, &postgres.user, "postgres"));
    let scene = "DROP TABLE IF EXISTS t; CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)";
    for sql in [
        "REPACK t",
        "REPACK (VERBOSE off) t USING INDEX t_pkey",
        "REPACK t; SELECT 1",
        "ALTER TABLE t ADD b int; REPACK t",
        "BEGIN; REPACK t; COMMIT",
        "BEGIN; ALTER TABLE t ADD b int; COMMIT; REPACK t",
        "REPACK nothing",
        "REPACK t t t",
        "REPACK t (;",
        "ALTER TABLE t ADD COLUMN x int DEFAULT (;",
        "ALTER TABLE t ADD b int; REPACK t t t",
        "ALTER TABLE t ADD COLUM b int; SELECT 1",
        "ALTER TABLE t ADD b int; SELECT FROM FROM",
    ] {
        for extended in [false, true] {
            let told = clients.each_mut().map(|client| {
                client.ok(scene);
                let mut outcome = if extended { client.execute(sql) } else { client.query(sql) };
                outcome.notices.retain(|notice| !notice.contains("may make the application wait"));
                client.query("ROLLBACK");
                let columns =
                    client.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0");
                (outcome, columns)
            });
            assert_eq!(told[0], told[1], "{sql} (extended: {extended})");
        }
    }
    proxy.stop();
}
