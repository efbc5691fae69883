//! The same kinds of situation on other versions: each server answers each question of the proxy's, and no question is
//! skipped because of an error.

use super::common::raw::{bind, execute, parse, sync};
use super::common::versions::server;
use super::common::{Client, new_database, port, proxy, wait_until};
use pgsluice::dev::Postgres;

fn works_on(version: u32) {
    let server = server(version);
    let running = proxy(&server, |config| config.ddl.small_table = 1);
    let database = new_database(&server, "versions");
    let mut admin = Client::connect(server.port, &server.user, &database);
    admin.ok("CREATE TABLE t (id int, a int); INSERT INTO t SELECT g, g FROM generate_series(1, 20000) g; \
              CREATE ROLE plain LOGIN; GRANT CREATE ON SCHEMA public TO plain");
    let through = |role: &str| Client::connect(port(&running), role, &database);
    advisory(&mut admin, &server, || through(&server.user));
    // Behind another session's snapshot.
    let mut pinned = through(&server.user);
    pinned.ok("BEGIN");
    let portal =
        [parse("", "SELECT g FROM generate_series(1, 10) g"), bind("", "", &[]), execute("", 1), sync()].concat();
    pinned.send(&portal);
    pinned.outcome();
    let outcome = through(&server.user).ok("CREATE INDEX ib ON t (id)");
    assert!(outcome.notices.iter().any(|notice| notice.contains("is built at once")), "{outcome:?}");
    pinned.ok("COMMIT");
    // Nobody is told that he may not ask what he may.
    let mut plain = through("plain");
    let outcome = plain.ok("CREATE TABLE own AS SELECT 1 AS id; CREATE INDEX ON own (id)");
    assert!(!outcome.notices.iter().any(|notice| notice.contains("run as written")), "{outcome:?}");
    admin.ok("REVOKE ALL ON pg_catalog.pg_locks FROM PUBLIC");
    let outcome = through("plain").ok("ALTER TABLE own ADD CHECK (id > 0)");
    assert!(outcome.notices.iter().any(|notice| notice.contains("run as written")), "{outcome:?}");
    running.stop_now();
}

/// A wait that is polled for naps on the server, so its look around was answered; and a deadlock is found.
fn advisory(admin: &mut Client, server: &Postgres, through: impl Fn() -> Client) {
    let mut holder = through();
    holder.ok("SELECT pg_advisory_lock(1)");
    let mut waiter = through();
    waiter.send_query("SELECT pg_advisory_lock(1)");
    let naps = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '/* pgsluice: waiting for an advisory lock */%pg_sleep%'",
        waiter.pid
    );
    wait_until("it naps", || admin.value(&naps) == "1");
    holder.ok("CREATE INDEX ia ON t (a)");
    holder.ok("SELECT pg_advisory_unlock(1)");
    assert_eq!(waiter.outcome().error, None, "on PostgreSQL {}", server.version);
    // It holds 1; the other waits for it, and is waited for.
    holder.ok("SELECT pg_advisory_lock(2)");
    holder.send_query("SELECT pg_advisory_lock(1)");
    waiter.send_query("SELECT pg_advisory_lock(2)");
    // Whoever is told gives up, and the other goes on.
    let (told, other) = std::thread::scope(|scope| {
        let wait = |mut client: Client, held: u32| {
            let outcome = client.outcome();
            if outcome.error.is_some() {
                client.ok(&format!("SELECT pg_advisory_unlock({held})"));
            }
            outcome.error
        };
        let first = scope.spawn(move || wait(holder, 2));
        (wait(waiter, 1), first.join().expect("a session"))
    });
    let errors: Vec<String> = told.into_iter().chain(other).collect();
    assert_eq!(errors, ["40P01"], "on PostgreSQL {}", server.version);
}

#[test]
fn postgresql_10() {
    works_on(10);
}

#[test]
fn postgresql_12() {
    works_on(12);
}

#[test]
fn postgresql_18() {
    works_on(18);
}
