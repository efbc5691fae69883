//! Tests that the notices of a statement reach its client while the statement runs, once each, and take no memory meanwhile.

use crate::common::program::Program;
use crate::common::{self, Client, new_database, port, proxy, wait_until};
use pgsluice::dev::Postgres;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static SERVER: LazyLock<Postgres> = LazyLock::new(common::postgres);

/// Until the advisory lock 1 can be had.
const WAITS: &str = "DO $$ BEGIN RAISE NOTICE 'begun'; PERFORM pg_advisory_lock(1); CREATE TABLE made (id int); \
     RAISE NOTICE 'over'; END $$";

#[test]
fn a_notice_comes_while_its_statement_runs() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "notices");
    let mut holder = Client::connect(SERVER.port, &SERVER.user, &database);
    for block in [false, true] {
        let mut client = Client::connect(port(&running), &SERVER.user, &database);
        holder.ok("SELECT pg_advisory_lock(1)");
        if block {
            client.ok("BEGIN; SET LOCAL lock_timeout = 0");
        }
        client.send_query(&WAITS.replace("PERFORM", "SET LOCAL lock_timeout = 0; PERFORM"));
        let notice = client.read();
        assert_eq!((notice.tag, notice.field(b'M').as_deref()), (b'N', Some("begun")), "in a block: {block}");
        let free = "SELECT pg_advisory_unlock(1)";
        assert_eq!(holder.value(free), "t");
        let outcome = client.outcome();
        assert_eq!((outcome.tags, outcome.notices), (vec!["DO".to_owned()], vec!["NOTICE 00000 over".to_owned()]));
        client.query("ROLLBACK");
        holder.ok("DROP TABLE IF EXISTS made");
    }
}

/// Its first tries say it, and are taken back, as the table is locked.
#[test]
fn a_notice_of_a_try_that_is_repeated_comes_once() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "notices");
    let mut holder = Client::connect(SERVER.port, &SERVER.user, &database);
    holder.ok("CREATE TABLE t (id int)");
    for pause in [0.0, 0.4] {
        holder.ok("BEGIN; LOCK TABLE t");
        let mut client = Client::connect(port(&running), &SERVER.user, &database);
        client.send_query(&format!(
            "DO $$ BEGIN RAISE NOTICE 'one'; PERFORM pg_sleep({pause}); RAISE NOTICE 'two'; ALTER TABLE t ADD c int; \
             ALTER TABLE t DROP c; RAISE NOTICE 'three'; END $$"
        ));
        let tries = &running.shared().metrics.lock_attempts_failed;
        let before = tries.value();
        wait_until("it was tried more than once", || tries.value() >= before + 2);
        holder.ok("COMMIT");
        let said = client.outcome();
        let said: Vec<_> = said.notices.iter().filter(|notice| !notice.contains("waiting")).collect();
        assert_eq!(said, ["NOTICE 00000 one", "NOTICE 00000 two", "NOTICE 00000 three"], "{pause} s between them");
    }
}

/// What is tried together with others is answered at their end.
#[test]
fn all_that_a_string_says_is_heard() {
    let running = proxy(&SERVER, |config| config.locks.hold_budget = Duration::from_secs(60));
    let database = new_database(&SERVER, "notices");
    for port in [SERVER.port, port(&running)] {
        let mut client = Client::connect(port, &SERVER.user, &database);
        client.ok("DROP TABLE IF EXISTS t; DROP FUNCTION IF EXISTS loud; CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 30)");
        client.ok("CREATE FUNCTION loud(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE '%', repeat('x', 100000); RETURN n; END $$");
        let said = client.ok(
            "ALTER TABLE t ADD CHECK (loud(id) > 0); ALTER TABLE t ADD a int; ALTER TABLE t ADD CHECK (loud(id) < 99); SELECT 1",
        );
        assert_eq!((said.tags.len(), said.notices.len()), (4, 60), "{:?}", said.tags);
    }
}

#[test]
fn notices_are_not_kept_for_a_client_that_does_not_read() {
    const MOST: u64 = 64 << 10;
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "notices");
    let mut client = program.client(&SERVER.user, &database);
    client.ok("SELECT 1");
    let before = program.peak();
    // 400 MB.
    let many = 4000;
    client.send_query(&format!(
        "DO $$ BEGIN FOR i IN 1..{many} LOOP RAISE NOTICE '%', repeat('x', 100000); END LOOP; CREATE TABLE made (id int); END $$"
    ));
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
    let waits = format!("SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = {}", client.pid);
    wait_until("the server waits for the client", || watcher.value(&waits) == "t");
    let begun = Instant::now();
    let outcome = client.outcome();
    assert_eq!((outcome.tags, outcome.notices.len()), (vec!["DO".to_owned()], many));
    assert!(begun.elapsed() < Duration::from_secs(60));
    let took = program.peak() - before;
    assert!(took < MOST, "{took} kB more than before");
}
