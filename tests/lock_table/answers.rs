//! The answers of LOCK TABLE, byte for byte, in every way of sending.

use super::common::Client;
use super::common::raw::{bind, close, describe, execute, parse, q, run, show, sync};
use super::{Stage, WAYS, holder};

/// What is sent until something is answered by ReadyForQuery, and whether it waits for the lock.
type Part = (Vec<u8>, bool);

/// Ways to send LOCK TABLE in a block, or where there is none.
fn conversations(lock: &str) -> Vec<Vec<Part>> {
    let (begin, commit) = ((q("BEGIN"), false), (q("COMMIT"), false));
    let named = [parse("s", lock), describe(b'S', "s"), sync()].concat();
    let held = (q("SELECT string_agg(concat_ws(' ', relation::regclass, mode), ',' ORDER BY relation::regclass::text) FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation::regclass::text NOT LIKE 'pg%'"), false);
    vec![
        vec![begin.clone(), (q(lock), true), held.clone(), commit.clone()],
        vec![begin.clone(), (q(&format!("{lock} -- at the end")), true), commit.clone()],
        vec![begin.clone(), (q(&format!("SELECT 1; {lock}; SELECT 2")), true), held.clone(), commit.clone()],
        // One transaction, though no BEGIN was sent; and one that begins in the string.
        vec![(q(&format!("{lock}; SELECT 1")), true)],
        vec![(q(&format!("SELECT 1; {lock}")), true)],
        vec![(q(&format!("BEGIN; {lock}; COMMIT")), true)],
        vec![begin.clone(), ([run(lock), sync()].concat(), true), held.clone(), commit.clone()],
        vec![
            begin.clone(),
            ([parse("", lock), bind("p", "", &[]), describe(b'P', "p"), execute("p", 0), sync()].concat(), true),
            commit.clone(),
        ],
        vec![
            begin.clone(),
            (named.clone(), false),
            ([bind("", "s", &[]), execute("", 0), sync()].concat(), true),
            held.clone(),
            commit.clone(),
        ],
        vec![
            (named, false),
            begin.clone(),
            ([bind("p", "s", &[]), execute("p", 0), close(b'P', "p"), sync()].concat(), true),
            commit.clone(),
        ],
        // Pipelines.
        vec![([run("BEGIN"), run(lock), run("SELECT 1"), run("COMMIT"), sync()].concat(), true)],
        vec![
            begin.clone(),
            ([run("SELECT 1"), run(lock), run("SELECT 2"), sync()].concat(), true),
            held.clone(),
            commit.clone(),
        ],
        // A part of the block.
        vec![
            begin.clone(),
            (q("SAVEPOINT a"), false),
            (q(lock), true),
            (q("ROLLBACK TO a"), false),
            held.clone(),
            (q("RELEASE a"), false),
            commit.clone(),
        ],
        vec![
            begin.clone(),
            (q("SAVEPOINT pgsluice"), false),
            (q(lock), true),
            (q("RELEASE pgsluice"), false),
            held,
            commit.clone(),
        ],
        // The block has changed nothing else: the isolation can still be set.
        vec![begin, (q("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), false), (q(lock), true), commit.clone()],
        vec![
            (q("BEGIN ISOLATION LEVEL REPEATABLE READ"), false),
            (q(lock), true),
            (q("SET TRANSACTION READ ONLY"), false),
            commit,
        ],
    ]
}

/// LOCK TABLE statements that wait for nobody, or fail.
const AT_ONCE: &[&[&str]] = &[
    &["LOCK TABLE t"],
    &["LOCK t IN SHARE MODE"],
    &["BEGIN", "LOCK TABLE missing", "LOCK TABLE t", "ROLLBACK TO a", "COMMIT"],
    &["BEGIN", "SAVEPOINT a", "LOCK TABLE missing", "ROLLBACK TO a", "LOCK TABLE t", "COMMIT"],
    &["BEGIN", "LOCK TABLE t, missing", "ROLLBACK"],
    &["BEGIN", "LOCK TABLE t_pkey", "ROLLBACK"],
    &["BEGIN", "LOCK TABLE t, u IN SHARE ROW EXCLUSIVE MODE;", "COMMIT"],
    &["BEGIN", "LOCK TABLE t IN NO MODE", "COMMIT"],
    &["BEGIN", "LOCK ONLY (t)", "COMMIT"],
    &["BEGIN READ ONLY", "LOCK TABLE t IN SHARE MODE", "COMMIT"],
    &["SET ROLE nobody", "BEGIN", "LOCK TABLE t IN SHARE MODE", "ROLLBACK", "RESET ROLE"],
    &[
        "BEGIN",
        "LOCK TABLE t",
        "LOCK TABLE t",
        "LOCK TABLE ONLY t IN SHARE MODE",
        "DROP TABLE t",
        "LOCK TABLE t",
        "ROLLBACK",
    ],
    &["BEGIN", "CREATE TABLE made ()", "LOCK TABLE made", "ROLLBACK", "BEGIN", "LOCK TABLE made", "ROLLBACK"],
    &[
        "BEGIN",
        "CREATE DOMAIN d AS int CONSTRAINT c CHECK (VALUE > 0)",
        "ALTER DOMAIN d DROP CONSTRAINT c",
        "LOCK TABLE t",
        "ROLLBACK",
    ],
    &["SELECT 1; LOCK TABLE missing; SELECT 2", "LOCK TABLE t; SELECT 2"],
];

fn told(client: &mut Client, conversation: &[Part], mut waits: impl FnMut(&Client)) -> Vec<String> {
    let mut all = Vec::new();
    for (bytes, waiting) in conversation {
        client.send(bytes);
        if *waiting {
            waits(client);
        }
        all.extend(client.read_up_to(b"Z").iter().map(show));
    }
    all.push(client.value("SHOW lock_timeout") + &client.value("SHOW statement_timeout"));
    all
}

/// The bytes are the server's own, whether there was a wait or not.
#[test]
fn the_answer_is_the_servers_own() {
    let mut stage = Stage::new(|_| ());
    for (lock, holds) in [
        ("LOCK TABLE t", "SELECT FROM t"),
        ("LOCK TABLE t, u IN EXCLUSIVE MODE", "LOCK TABLE u IN ROW SHARE MODE"),
        ("LOCK TABLE parent IN SHARE MODE", "LOCK TABLE child IN ROW EXCLUSIVE MODE"),
    ] {
        for (nth, conversation) in conversations(lock).iter().enumerate() {
            let what = format!("{lock}, conversation {nth}");
            let direct = told(&mut stage.direct(), conversation, |_| ());
            assert_eq!(told(&mut stage.client(), conversation, |_| ()), direct, "{what}, at once");
            let mut holder = holder(&stage, holds);
            let mut client = stage.client();
            let through = told(&mut client, conversation, |client| {
                stage.until_it_polls(client.pid);
                holder.ok("COMMIT");
            });
            assert_eq!(through, direct, "{what}, after a wait");
        }
    }
}

#[test]
fn what_waits_for_nobody_is_as_directly() {
    let mut stage = Stage::new(|_| ());
    stage.watcher.ok("DO $$BEGIN CREATE ROLE nobody; EXCEPTION WHEN duplicate_object THEN NULL; END$$");
    for statements in AT_ONCE {
        let simple: Vec<Part> = statements.iter().map(|sql| (q(sql), false)).collect();
        let one_by_one = statements.iter().filter(|sql| !sql.contains("; "));
        let extended: Vec<Part> = one_by_one.map(|sql| ([run(sql), sync()].concat(), false)).collect();
        for conversation in [simple, extended] {
            let direct = told(&mut stage.direct(), &conversation, |_| ());
            assert_eq!(told(&mut stage.client(), &conversation, |_| ()), direct, "{statements:?}");
        }
    }
    // Without a BEGIN, the pipeline's own transaction has the lock or not, as the server's version has it.
    for pipeline in [[run("LOCK TABLE t"), run("SELECT 1")], [run("SELECT 1"), run("LOCK TABLE t")]] {
        let conversation = vec![([pipeline.concat(), sync()].concat(), false)];
        let direct = told(&mut stage.direct(), &conversation, |_| ());
        assert_eq!(told(&mut stage.client(), &conversation, |_| ()), direct);
    }
    assert_eq!(stage.metrics().lock_table_waits.value(), 0);
}

/// A LOCK TABLE that makes nobody wait, or does not wait, is not the proxy's.
#[test]
fn weak_modes_and_nowait_are_relayed() {
    let stage = Stage::new(|_| ());
    let _holder = holder(&stage, "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE");
    for (lock, error) in [
        ("LOCK TABLE t IN ACCESS SHARE MODE", None),
        ("LOCK TABLE t IN ROW SHARE MODE", None),
        ("LOCK TABLE t IN ROW EXCLUSIVE MODE NOWAIT", Some("55P03")),
        ("LOCK TABLE t NOWAIT", Some("55P03")),
    ] {
        for (name, way) in WAYS {
            let mut client = stage.client();
            client.ok("BEGIN");
            way(&mut client, lock);
            assert_eq!(client.outcome().error.as_deref(), error, "{lock}, {name}");
        }
    }
    assert_eq!(stage.metrics().lock_attempts.value(), 0);
}
