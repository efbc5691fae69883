//! Waits of LOCK TABLE: who waits meanwhile, and what ends them.

use super::common::{Client, Outcome, port};
use super::{Stage, WAYS, holder};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The stall budget, and what two cores that a whole test suite shares may add to it.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// The longest that one SELECT took while `meanwhile` went on.
fn longest_read(mut reader: Client, meanwhile: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                reader.ok("SELECT a FROM t WHERE id = 7");
                longest = longest.max(begun.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        reads.join().expect("the reader")
    })
}

/// A transaction has read the table, and goes on for two seconds. Directly, every reader waits behind the LOCK TABLE.
#[test]
fn readers_do_not_queue_behind_it() {
    const LONG: Duration = Duration::from_secs(2);
    let stage = Stage::new(|_| ());
    let longest = [stage.direct(), stage.client()].map(|mut client| {
        let mut holder = holder(&stage, "SELECT FROM t");
        client.ok("BEGIN");
        let longest = longest_read(stage.direct(), || {
            let begun = Instant::now();
            client.send_query("LOCK TABLE t");
            holder.ok(&format!("SELECT pg_sleep({})", LONG.as_secs()));
            holder.ok("COMMIT");
            let outcome = client.outcome();
            assert_eq!((outcome.error, outcome.tags), (None, vec!["LOCK TABLE".to_owned()]));
            assert!(begun.elapsed() < LONG + Duration::from_secs(1), "it has the lock soon: {:?}", begun.elapsed());
            client.ok("COMMIT");
        });
        drop(client);
        longest
    });
    assert!(longest[0] > LONG - Duration::from_millis(500), "directly: {longest:?}");
    assert!(longest[1] < LONGEST_WAIT, "through the proxy: {longest:?}");
    assert_eq!(stage.metrics().lock_table_waits.value(), 1);
}

/// Attempts that fail leave an ERROR in the server's log, so few are made.
#[test]
fn a_long_wait_does_not_fill_the_servers_log() {
    let stage = Stage::new(|_| ());
    let mut holder = holder(&stage, "SELECT FROM u");
    let failed = ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"].map(|begin| {
        let mut client = stage.client();
        let before = stage.metrics().lock_attempts_failed.value();
        client.ok(begin);
        client.ok("SET LOCAL lock_timeout = '4s'");
        assert_eq!(client.query("LOCK TABLE u").error.as_deref(), Some("55P03"), "{begin}");
        stage.metrics().lock_attempts_failed.value() - before
    });
    assert!(failed[0] <= 8, "{failed:?}: those before the first look");
    assert!(failed[1] <= 80, "{failed:?}: one in 50 ms, and later fewer");
    holder.ok("COMMIT");
}

/// Short transactions follow each other without a gap, so that NOWAIT alone would never find the table free.
#[test]
fn short_transactions_do_not_keep_it_away() {
    let stage = Stage::new(|_| ());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (mut writer, stop) = (stage.direct(), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    writer.ok("BEGIN; UPDATE u SET id = id; SELECT pg_sleep(0.03); COMMIT");
                }
            });
        }
        for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
            let mut client = stage.client();
            client.ok(begin);
            client.ok("LOCK TABLE u IN EXCLUSIVE MODE");
            client.ok("COMMIT");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Under REPEATABLE READ, the transaction sees what the session before it in the lock has committed: nothing of the proxy's has
/// taken the snapshot before.
#[test]
fn the_lock_comes_before_the_snapshot() {
    let mut stage = Stage::new(|_| ());
    for begin in ["BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN"] {
        for (name, way) in WAYS {
            let mut holder = holder(&stage, "LOCK TABLE versions; TRUNCATE versions; INSERT INTO versions VALUES (1)");
            let mut client = stage.client();
            client.ok(begin);
            way(&mut client, "LOCK TABLE versions IN EXCLUSIVE MODE");
            stage.until_it_polls(client.pid);
            // The proxy looks at the blockers, if it does, after a quarter of a second.
            holder.ok("SELECT pg_sleep(0.4)");
            holder.ok("INSERT INTO versions VALUES (2)");
            holder.ok("COMMIT");
            assert_eq!(client.outcome().error, None, "{begin}, {name}");
            assert_eq!(client.value("SELECT count(*) FROM versions"), "2", "{begin}, {name}");
            client.ok("COMMIT");
        }
    }
}

/// Several instances lock the same table: each gets its turn.
#[test]
fn all_who_lock_get_on() {
    const EACH: usize = 5;
    let mut stage = Stage::new(|_| ());
    thread::scope(|scope| {
        for (_, way) in WAYS.iter().chain(&WAYS[..1]) {
            let mut client = stage.client();
            scope.spawn(move || {
                for _ in 0..EACH {
                    client.ok("BEGIN");
                    way(&mut client, "LOCK TABLE versions IN SHARE ROW EXCLUSIVE MODE");
                    assert_eq!(client.outcome().error, None);
                    // Without the lock, two would count the same.
                    client.ok("INSERT INTO versions SELECT count(*) FROM versions");
                    client.ok("SELECT pg_sleep(0.02)");
                    client.ok("COMMIT");
                }
            });
        }
    });
    let counted = stage.watcher.value("SELECT count(DISTINCT v) || ' of ' || count(*) FROM versions");
    assert_eq!(counted, format!("{0} of {0}", EACH * 4));
}

#[test]
fn timeouts_end_the_wait_as_directly() {
    let stage = Stage::new(|_| ());
    let _holder = holder(&stage, "SELECT FROM t");
    let settings = [
        "lock_timeout = '100ms'",
        "lock_timeout = '1900ms'",
        "statement_timeout = '100ms'",
        "statement_timeout = '1900ms'",
    ];
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for setting in settings {
            let outcomes = [stage.direct(), stage.client()].map(|mut client| {
                client.ok(&format!("SET {setting}"));
                client.ok(begin);
                let began = Instant::now();
                let outcome = client.query("LOCK TABLE t");
                let least = Duration::from_millis(if setting.contains("1900") { 1900 } else { 100 });
                let took = began.elapsed();
                assert!(took >= least && took < least + Duration::from_secs(2), "{begin}, {setting}: {took:?}");
                let failed = client.query("SELECT 1").error;
                let ended = client.query("ROLLBACK").tags;
                let settings = [client.value("SHOW lock_timeout"), client.value("SHOW statement_timeout")];
                (outcome.error, outcome.message, outcome.status, failed, ended, settings)
            });
            assert_eq!(outcomes[1], outcomes[0], "{begin}, {setting}");
        }
    }
}

#[test]
fn the_deadline_ends_the_wait() {
    let mut stage = Stage::new(|config| config.locks.deadline = Duration::from_millis(600));
    let holder = holder(&stage, "SELECT FROM t");
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        let mut client = stage.client();
        client.ok(begin);
        let outcome = client.query("LOCK TABLE t");
        assert_eq!((outcome.error.as_deref(), outcome.status), (Some("55P03"), 'E'), "{begin}");
    }
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database() WHERE NOT granted";
    assert_eq!(stage.watcher.value(waiting), "0");
    drop(holder);
}

#[test]
fn a_cancel_ends_the_wait() {
    let mut stage = Stage::new(|_| ());
    let _holder = holder(&stage, "SELECT FROM t");
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for (name, way) in WAYS {
            let mut client = stage.client();
            client.ok(begin);
            client.ok("SAVEPOINT a");
            way(&mut client, "LOCK TABLE t");
            stage.until_it_polls(client.pid);
            client.cancel(port(&stage.running));
            let outcome = client.outcome();
            let seen = (outcome.error.as_deref(), outcome.message.as_deref(), outcome.status);
            assert_eq!(seen, (Some("57014"), Some("canceling statement due to user request"), 'E'), "{begin}, {name}");
            client.ok("ROLLBACK TO a");
            client.ok("LOCK TABLE t IN SHARE MODE");
            client.ok("ROLLBACK");
        }
    }
}

#[test]
fn a_client_that_leaves_leaves_nothing() {
    let mut stage = Stage::new(|_| ());
    let mut holder = holder(&stage, "SELECT FROM t");
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        let mut client = stage.client();
        client.ok(begin);
        client.ok("LOCK TABLE u");
        client.send_query("LOCK TABLE t");
        stage.until_it_polls(client.pid);
        let pid = client.pid;
        drop(client);
        stage.until_it_ends(pid);
    }
    holder.ok("COMMIT");
}

/// How two sessions end that both wait at the same time: the statements of the one, then of the other, the last of which wait.
fn both_wait(mut one: Client, mut other: Client, [first, second]: [&[&str]; 2]) -> [Outcome; 2] {
    for (client, statements) in [(&mut one, first), (&mut other, second)] {
        client.ok("BEGIN");
        statements[..statements.len() - 1].iter().for_each(|sql| drop(client.ok(sql)));
    }
    thread::scope(|scope| {
        let ends = [(one, first), (other, second)].map(|(mut client, statements)| {
            scope.spawn(move || {
                let outcome = client.query(statements[statements.len() - 1]);
                // What it holds is free for the other.
                client.query("ROLLBACK");
                outcome
            })
        });
        ends.map(|end| end.join().expect("a session"))
    })
}

/// Of two sessions that wait for each other, one gets 40P01, unless its transaction can be run again behind the other one. The other one goes on.
#[test]
fn a_deadlock_ends() {
    let stage = Stage::new(|_| ());
    let cases: [[&[&str]; 2]; 3] = [
        [&["LOCK TABLE t", "LOCK TABLE u"], &["LOCK TABLE u", "LOCK TABLE t"]],
        // Both have read the table, and both want it alone.
        [&["SELECT FROM t", "LOCK TABLE t"], &["SELECT FROM t", "LOCK TABLE t"]],
        [&["LOCK TABLE t IN SHARE MODE", "LOCK TABLE u"], &["INSERT INTO u VALUES (1)", "INSERT INTO t VALUES (0)"]],
    ];
    for case in cases {
        let begun = Instant::now();
        let [one, other] = both_wait(stage.client(), stage.client(), case);
        let errors = [one.error.as_deref(), other.error.as_deref()];
        let one_at_most = matches!(errors, [Some("40P01") | None, None] | [None, Some("40P01")]);
        assert!(one_at_most, "{case:?}: {errors:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{case:?}: before in_transaction_wait is over");
    }
}

/// A session that has read the table goes ahead of the one that waits in the server for its end.
#[test]
fn a_holder_goes_ahead_of_the_queue() {
    let mut stage = Stage::new(|_| ());
    let mut client = stage.client();
    client.ok("BEGIN");
    client.ok("SELECT FROM t");
    let mut behind = stage.direct();
    behind.ok("BEGIN");
    behind.send_query("LOCK TABLE t");
    stage.until_it_queues(behind.pid);
    client.ok("LOCK TABLE t");
    client.ok("COMMIT");
    assert_eq!(behind.outcome().error, None);
}

/// The one who waits holds no snapshot that the builder would wait for until the end of the block.
#[test]
fn a_wait_is_in_no_builds_way() {
    let mut stage = Stage::new(|_| ());
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        let mut holder = holder(&stage, "LOCK TABLE versions IN EXCLUSIVE MODE");
        let mut client = stage.client();
        client.ok(begin);
        client.send_query("LOCK TABLE versions IN EXCLUSIVE MODE");
        stage.until_it_polls(client.pid);
        let mut builder = stage.client();
        builder.ok("CREATE INDEX built ON t (a)");
        builder.ok("DROP INDEX built");
        holder.ok("COMMIT");
        assert_eq!(client.outcome().error, None, "{begin}");
    }
}
