//! Tests of plans of several phases. They are stopped at each of their steps by each kind of end, and the table is as it was
//! before.
//!
//! An event trigger stops a chosen step until the test releases it, or makes the step fail, so that no moment is left to
//! chance.

mod common;

use common::end::{ENDS, End};
use common::stop::{DROPS, STATE, STATEMENTS, STOPS, TABLES, send_and_stop};
use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::{Address, OnDisconnect};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn an_end_at_any_step_leaves_nothing() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| {
        config.ddl.small_table = 0;
        config.ddl.on_disconnect = OnDisconnect::Undo;
    });
    let database = new_database(&postgres, "phases");
    let connect = |port| Client::connect(port, &postgres.user, &database);
    let mut watcher = connect(postgres.port);
    watcher.ok(STOPS);
    watcher.ok(TABLES);
    let before = watcher.value(STATE);
    for (sql, patterns) in STATEMENTS {
        for pattern in patterns {
            fail(&mut watcher, &mut connect(port(&running)), sql, pattern, &before);
            for end in ENDS {
                let what = format!("{sql}, stopped at {pattern} by {end:?}");
                let (mut holder, mut client) = (connect(postgres.port), connect(port(&running)));
                // What undoes it is not stopped either.
                send_and_stop(&mut client, sql, pattern, &mut watcher, &mut holder);
                let pid = client.pid;
                let left = end.come(client, &mut watcher, port(&running));
                if let Some((mut client, outcome)) = left.and_then(|client| end.heard(client)) {
                    assert_eq!(outcome.status, 'I', "{what}");
                    assert_eq!(watcher.value(STATE), before, "{what}");
                    // The session goes on as if nothing had been.
                    assert_eq!(client.value("SHOW lock_timeout"), "0", "{what}");
                    client.goodbye();
                }
                let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
                wait_until(&what, || watcher.value(&gone) == "0");
                holder.goodbye();
                if end == End::Terminate && pattern.contains("DETACH PARTITION") {
                    // What is half detached is not finished for another session: the same statement brings it to its end.
                    connect(port(&running)).ok(sql);
                    watcher.ok(DROPS);
                    watcher.ok(TABLES);
                } else if end == End::Terminate {
                    // Nobody was left to undo it: the next one of the same role does.
                    connect(port(&running)).ok("COMMENT ON TABLE o IS NULL");
                }
                assert_eq!(watcher.value(STATE), before, "{what}");
            }
        }
        // And with nobody in the way it comes to its end.
        let mut client = connect(port(&running));
        client.ok(sql);
        assert_ne!(watcher.value(STATE), before, "{sql}");
        watcher.ok(DROPS);
        watcher.ok(TABLES);
        assert_eq!(watcher.value(STATE), before, "{sql}");
        client.goodbye();
    }
    running.stop_now();
}

/// A step fails as it would if the disk were full.
fn fail(watcher: &mut Client, client: &mut Client, sql: &str, pattern: &str, before: &str) {
    watcher.ok(&format!("INSERT INTO fail_at VALUES ('{pattern}')"));
    let outcome = client.query(sql);
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("53100"), 'I'), "{sql}, failed at {pattern}");
    watcher.ok("DELETE FROM fail_at; ALTER SEQUENCE failures RESTART");
    assert_eq!(watcher.value(STATE), before, "{sql}, failed at {pattern}");
}

/// A backend that is terminated after `stop`, and what is done before the next statement of the same role.
struct Lost {
    postgres: Postgres,
    running: Running,
    watcher: Client,
}

impl Lost {
    fn new() -> Self {
        let postgres = postgres();
        let running = proxy(&postgres, |config| config.ddl.small_table = 0);
        let mut watcher = Client::connect(postgres.port, &postgres.user, "postgres");
        watcher.ok(STOPS);
        watcher.ok(TABLES);
        Self { postgres, running, watcher }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, "postgres")
    }

    fn lose(&mut self, sql: &str, pattern: &str) {
        let mut holder = Client::connect(self.postgres.port, &self.postgres.user, "postgres");
        let mut client = self.client();
        send_and_stop(&mut client, sql, pattern, &mut self.watcher, &mut holder);
        let pid = client.pid;
        let left = End::Terminate.come(client, &mut self.watcher, port(&self.running));
        assert!(left.and_then(|client| End::Terminate.heard(client)).is_none());
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until(sql, || self.watcher.value(&gone) == "0");
        holder.goodbye();
    }
}

/// Only what still is what the plan made is undone, and who undoes it says so.
#[test]
fn what_somebody_else_has_made_meanwhile_is_left_alone() {
    let mut lost = Lost::new();
    lost.lose("ALTER TABLE t ADD CONSTRAINT named CHECK (i > 0)", "%VALIDATE CONSTRAINT%");
    lost.watcher.ok("ALTER TABLE t DROP CONSTRAINT named; ALTER TABLE t ADD CONSTRAINT named CHECK (i > -1) NOT VALID");
    let named = "SELECT count(*) FROM pg_constraint WHERE conname = 'named'";
    assert_eq!(lost.client().ok("COMMENT ON TABLE o IS NULL").notices, Vec::<String>::new());
    assert_eq!(lost.watcher.value(named), "1");
    lost.watcher.ok("ALTER TABLE t DROP CONSTRAINT named");
    lost.lose("ALTER TABLE t ADD CONSTRAINT named CHECK (i > 0)", "%VALIDATE CONSTRAINT%");
    // A table of the same name is another table.
    lost.watcher.ok("ALTER TABLE t RENAME TO was_t; CREATE TABLE t (i int CONSTRAINT named CHECK (i > 0))");
    lost.client().ok("COMMENT ON TABLE o IS NULL");
    assert_eq!(lost.watcher.value(named), "2");
    lost.watcher.ok("DROP TABLE t; ALTER TABLE was_t RENAME TO t");
    let notices = lost.client().ok("COMMENT ON TABLE o IS NULL").notices;
    assert!(notices.iter().any(|notice| notice.contains("undid the unfinished ALTER TABLE")), "{notices:?}");
    assert_eq!(lost.watcher.value(named), "0");
    assert_eq!(lost.client().ok("COMMENT ON TABLE o IS NULL").notices, Vec::<String>::new());
    lost.running.stop_now();
}

/// What DROP TABLE had detached is attached again, unless it has been used otherwise meanwhile.
#[test]
fn a_partition_that_was_to_be_dropped_is_attached_again() {
    let mut lost = Lost::new();
    let is_partition =
        "SELECT relispartition, (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c')
        FROM pg_class c WHERE relname = 'q2'";
    let state = |lost: &mut Lost| lost.watcher.ok(is_partition).rows[0].iter().flatten().cloned().collect::<String>();
    let before = state(&mut lost);
    lost.lose("DROP TABLE q2", "DROP TABLE%");
    assert_eq!(state(&mut lost), "f2");
    lost.watcher.ok("INSERT INTO q2 VALUES (177, 7)");
    assert!(lost.client().ok("COMMENT ON TABLE o IS NULL").notices[0].contains("undid the unfinished DROP TABLE"));
    assert_eq!((state(&mut lost), lost.watcher.value("SELECT count(*) FROM q")), (before.clone(), "101".to_owned()));

    // Another has taken its place: it is told once how it is left.
    lost.lose("DROP TABLE q2", "DROP TABLE%");
    lost.watcher.ok("CREATE TABLE q3 PARTITION OF q FOR VALUES FROM (60) TO (70)");
    let notices = lost.client().ok("COMMENT ON TABLE o IS NULL").notices;
    assert!(
        notices.iter().any(|notice| notice.contains("could not finish or undo a phase of this statement: 42P17")),
        "{notices:?}"
    );
    assert_eq!(lost.client().ok("COMMENT ON TABLE o IS NULL").notices, Vec::<String>::new());
    lost.watcher.ok("DROP TABLE q3; ALTER TABLE q ATTACH PARTITION q2 FOR VALUES FROM (50) TO (500)");
    lost.watcher.ok("ALTER TABLE q2 DROP CONSTRAINT q2_id_check");
    assert_eq!(state(&mut lost), before);

    // Without the CHECK that proves its bounds every row of it would be read.
    lost.lose("DROP TABLE q2", "DROP TABLE%");
    lost.watcher.ok("ALTER TABLE q2 DROP CONSTRAINT q2_id_check");
    assert_eq!(lost.client().ok("COMMENT ON TABLE o IS NULL").notices, Vec::<String>::new());
    assert_eq!(state(&mut lost), "f1");
    // And the same statement is what it would be anyway.
    lost.client().ok("DROP TABLE q2");
    lost.running.stop_now();
}

/// In a transaction nothing is undone, by another role neither.
#[test]
fn what_was_left_waits_for_a_statement_of_the_same_role() {
    let mut lost = Lost::new();
    lost.lose("ALTER TABLE t ADD UNIQUE (i)", "CREATE UNIQUE INDEX%");
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(lost.watcher.value(invalid), "1");
    lost.watcher.ok("CREATE ROLE other LOGIN SUPERUSER");
    Client::connect(port(&lost.running), "other", "postgres").ok("COMMENT ON TABLE o IS NULL");
    let mut client = lost.client();
    client.ok("BEGIN");
    client.ok("COMMENT ON TABLE o IS NULL");
    assert_eq!(lost.watcher.value(invalid), "1");
    client.ok("COMMIT");
    client.ok("COMMENT ON TABLE o IS NULL");
    assert_eq!(lost.watcher.value(invalid), "0");
    lost.running.stop_now();
}

/// The connection breaks when the last phase has committed, and the proxy has not heard that: the statement has been done,
/// and stays so.
#[test]
fn what_has_committed_at_the_very_end_stays() {
    let postgres = postgres();
    let mut watcher = Client::connect(postgres.port, &postgres.user, "postgres");
    watcher.ok(TABLES);
    for (sql, last) in [
        ("ALTER TABLE t ADD COLUMN c float8 NOT NULL DEFAULT random()", "SET NOT NULL"),
        ("ALTER TABLE t ADD UNIQUE (i)", "USING INDEX"),
        ("ALTER TABLE t ADD CHECK (i > 0)", "VALIDATE CONSTRAINT"),
    ] {
        let wire = BrokenWire::new(postgres.port, last);
        let running = proxy(&postgres, |config| {
            config.ddl.small_table = 0;
            config.proxy.backend = Address::tcp("127.0.0.1", wire);
        });
        let before = watcher.value(STATE);
        let mut client = Client::connect(port(&running), &postgres.user, "postgres");
        client.send_query(sql);
        client.last_words();
        let others =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        wait_until(sql, || watcher.value(others) == "0");
        let after = watcher.value(STATE);
        assert_ne!(before, after, "{sql}");
        let notices =
            Client::connect(port(&running), &postgres.user, "postgres").ok("COMMENT ON TABLE o IS NULL").notices;
        assert_eq!((watcher.value(STATE), notices), (after, Vec::new()), "{sql}");
        running.stop_now();
    }
}

/// A wire to the server that breaks once: when the server has answered the first COMMIT or ALTER TABLE behind a text with
/// `last` in it, and before that answer arrives.
struct BrokenWire;

impl BrokenWire {
    /// Its port.
    #[allow(clippy::new_ret_no_self)] // it ends with the test
    fn new(server: u16, last: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = listener.local_addr().unwrap().port();
        let breaks = Arc::new(AtomicBool::new(true));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let seen = Arc::new(AtomicBool::new(false));
                let (mut there, mut back) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
                let noted = Arc::clone(&seen);
                std::thread::spawn(move || {
                    carry(&mut there, |bytes| {
                        noted.fetch_or(find(bytes, last.as_bytes()).is_some(), Ordering::SeqCst);
                        bytes.len()
                    });
                });
                let breaks = Arc::clone(&breaks);
                std::thread::spawn(move || {
                    carry(&mut back, |bytes| {
                        let answer = find(bytes, b"COMMIT\0")
                            .or_else(|| find(bytes, b"ALTER TABLE\0").filter(|_| last.starts_with("VALIDATE")));
                        match answer.filter(|_| seen.load(Ordering::SeqCst)) {
                            // The header before the words stays away too.
                            Some(at) if breaks.swap(false, Ordering::SeqCst) => at.saturating_sub(5),
                            _ => bytes.len(),
                        }
                    });
                });
            }
        });
        at
    }
}

/// Carries bytes as far as `pass` says, and breaks the wire where that is not to their end.
fn carry((from, to): &mut (TcpStream, TcpStream), mut pass: impl FnMut(&[u8]) -> usize) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = from.read(&mut buffer).map(|n| n.min(1 << 16))
        && n > 0
    {
        let passed = pass(&buffer[..n]);
        if to.write_all(&buffer[..passed]).is_err() || passed < n {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn find(bytes: &[u8], words: &[u8]) -> Option<usize> {
    bytes.windows(words.len()).position(|window| window == words)
}

/// PostgreSQL's own error; the column is gone again, but for its number, which is not given twice.
#[test]
fn a_column_whose_check_fails_is_taken_back() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    client.ok("CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let outcome = client.query("ALTER TABLE t ADD COLUMN c int DEFAULT 1 CHECK (c > 1)");
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("23514"), 'I'));
    assert_eq!(client.value("SELECT * FROM t"), "1");
    assert_eq!(client.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass"), "0");
    running.stop_now();
}

/// What a proxy that died has left under its own name is made anew, and goes.
#[test]
fn a_check_that_was_left_is_made_anew() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let mut client = Client::connect(port(&running), &postgres.user, "postgres");
    client
        .ok("CREATE TABLE died (a int CONSTRAINT pgsluice1_a_is_not_null CHECK (a > 5)); INSERT INTO died VALUES (9)");
    client.ok("ALTER TABLE died ALTER a SET NOT NULL");
    let left = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'died'::regclass AND contype = 'c'";
    assert_eq!(client.value(left), "0");
    running.stop_now();
}
