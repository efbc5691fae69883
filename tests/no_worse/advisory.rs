//! The advisory lock of migration tools: several tools that migrate at once wait for it while one of them builds an index.

use super::common::raw::{bind, close, describe, execute, flush, frame, parse, q, run, show, sync};
use super::common::{Client, Outcome, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Config, LockWaits, Mode};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const TABLE: &str = "CREATE TABLE t (id bigint, a int, b text); \
     INSERT INTO t SELECT g, g, 'x' FROM generate_series(1, 60000) g";

struct Stage {
    database: String,
    running: Running,
    watcher: Client,
}

impl Stage {
    fn new(tweak: impl FnOnce(&mut Config)) -> Self {
        let database = new_database(&SERVER, "advisory");
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            tweak(config);
        });
        let watcher = Client::connect(SERVER.port, &SERVER.user, &database);
        Self { database, running, watcher }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.running), &SERVER.user, &self.database)
    }

    fn direct(&self) -> Client {
        Client::connect(SERVER.port, &SERVER.user, &self.database)
    }

    fn locks(&mut self) -> String {
        self.watcher.value(
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database() \
             WHERE locktype = 'advisory'",
        )
    }

    /// A session waits for an advisory lock, in the server or by polling.
    fn until_one_waits(&mut self, pid: i32) {
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} \
             AND (wait_event = 'advisory' OR query LIKE '%pgsluice: waiting for an advisory lock%')"
        );
        wait_until("a session waits for the lock", || self.watcher.value(&waits) == "1");
    }

    /// … and has done so for longer than it stands in the server's queue.
    fn until_one_polls(&mut self, pid: i32) {
        let polls = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%pgsluice: waiting for an advisory lock%'"
        );
        wait_until("a session polls for the lock", || self.watcher.value(&polls) == "1");
    }
}

/// A way to send one statement.
type Send = fn(&mut Client, &str) -> Outcome;

/// Prepared under a name, then executed in a pipeline of its own.
fn prepared(client: &mut Client, sql: &str) -> Outcome {
    client.send(&[parse("named", sql), describe(b'S', "named"), sync()].concat());
    let parsed = client.outcome();
    assert_eq!(parsed.error, None, "{sql}");
    client.send(&[bind("", "named", &[]), execute("", 0), sync()].concat());
    let outcome = client.outcome();
    client.send(&[close(b'S', "named"), sync()].concat());
    client.outcome();
    outcome
}

const WAYS: [(&str, Send); 3] = [
    ("simple", |client, sql| client.query(sql)),
    ("extended", |client, sql| client.execute(sql)),
    ("prepared", prepared),
];

/// What three that start at once send, each: all of it must succeed.
fn at_once(stage: &Stage, way: Send, migration: &[String]) -> Vec<Outcome> {
    let barrier = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        let one = || {
            let mut client = stage.client();
            barrier.wait();
            migration.iter().map(|sql| way(&mut client, sql)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a session")).collect()
    })
}

#[test]
fn three_that_build_under_one_lock_all_succeed() {
    let mut stage = Stage::new(|_| ());
    let builds = ["CREATE INDEX IF NOT EXISTS ia ON t (a)", "CREATE UNIQUE INDEX IF NOT EXISTS ib ON t (id)"];
    for (name, way) in WAYS {
        for function in ["pg_advisory_lock(4711)", "pg_catalog.pg_advisory_lock(hashtext('migrations'), 2)"] {
            stage.watcher.ok(TABLE);
            let unlock = function.replace("advisory_lock", "advisory_unlock");
            let mut migration = vec![format!("SELECT {function}")];
            migration.extend(builds.map(str::to_owned));
            migration.push(format!("SELECT {unlock}"));
            for outcome in at_once(&stage, way, &migration) {
                assert_eq!((outcome.error.clone(), outcome.status), (None, 'I'), "{name}: {outcome:?}");
            }
            let built = "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid";
            assert_eq!(stage.watcher.value(built), "2", "{name}");
            assert_eq!(stage.locks(), "0", "{name}");
            stage.watcher.ok("DROP TABLE t");
        }
    }
}

/// Each adds the key if it is not there, as tools do that keep a table of versions.
#[test]
fn keys_are_added_under_one_lock() {
    for key in ["UNIQUE (a)", "PRIMARY KEY (id)"] {
        let mut stage = Stage::new(|_| ());
        stage.watcher.ok(TABLE);
        stage.watcher.ok("CREATE TABLE versions (v int)");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut client = stage.client();
                scope.spawn(move || {
                    client.ok("SELECT pg_advisory_lock(72707369)");
                    if client.value("SELECT count(*) FROM versions") == "0" {
                        client.ok(&format!("ALTER TABLE t ADD {key}"));
                        client.ok("INSERT INTO versions VALUES (1)");
                    }
                    client.ok("SELECT pg_advisory_unlock(72707369)");
                });
            }
        });
        assert_eq!(stage.watcher.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass"), "1");
        assert_eq!(stage.locks(), "0");
    }
}

/// A waiter in a block holds no snapshot that the builder would wait for until the end of the block.
#[test]
fn a_wait_in_a_block_is_in_nobodys_way() {
    let mut stage = Stage::new(|_| ());
    stage.watcher.ok(TABLE);
    let mut builder = stage.client();
    builder.ok("SELECT pg_advisory_lock(1)");
    for wait in ["SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_lock_shared(1)"] {
        let mut waiter = stage.client();
        waiter.ok("BEGIN");
        waiter.send_query(wait);
        stage.until_one_polls(waiter.pid);
        builder.ok("CREATE INDEX i ON t (a)");
        builder.ok("SELECT pg_advisory_unlock(1)");
        let outcome = waiter.outcome();
        assert_eq!((outcome.error, outcome.tags, outcome.status), (None, vec!["SELECT 1".to_owned()], 'T'), "{wait}");
        waiter.ok("COMMIT");
        drop(waiter);
        builder.ok("SELECT pg_advisory_lock(1)");
        builder.ok("DROP INDEX i");
    }
    assert_eq!(stage.locks(), "1");
}

/// What is sent until something is answered by ReadyForQuery, and whether it waits for the lock.
type Part = (Vec<u8>, bool);

/// Parse with the types of the parameters: int8 of one key, int4 of two.
fn typed(asked: &str, keys: usize) -> Vec<u8> {
    let types: &[u8] = if keys == 1 { &[0, 1, 0, 0, 0, 20] } else { &[0, 2, 0, 0, 0, 23, 0, 0, 0, 23] };
    frame(b'P', &[b"b\0", asked.as_bytes(), b"\0", types].concat())
}

/// Bind of that.
fn binary(keys: &[&str]) -> Vec<u8> {
    let keys: Vec<i64> = keys.iter().map(|key| key.parse().expect("a number")).collect();
    let mut body = b"\0b\0\0\x01\0\x01".to_vec();
    body.extend(u16::try_from(keys.len()).expect("few").to_be_bytes());
    for key in &keys {
        let value = key.to_be_bytes();
        let value = if keys.len() == 1 { &value[..] } else { &value[4..] };
        body.extend(u32::try_from(value.len()).expect("few").to_be_bytes());
        body.extend(value);
    }
    body.extend(b"\0\x01\0\x01");
    frame(b'B', &body)
}

/// Ways to send one form, with parameters where there can be any.
fn conversations(form: &str, keys: &[&str]) -> Vec<Vec<Part>> {
    let statement = format!("SELECT {form} AS locked");
    let asked = match keys.len() {
        1 => form.replace('7', "$1"),
        _ => form.replace("7, 8", "$1, $2"),
    };
    let asked = format!("SELECT {asked}");
    let unnamed = [parse("", &asked), bind("", "", keys), describe(b'P', ""), execute("", 0), sync()].concat();
    let amid = [run("SELECT 3"), run(&statement), run("SELECT 4"), sync()].concat();
    vec![
        vec![(q(&statement), true)],
        vec![(q("BEGIN"), false), (q(&statement), true), (q("COMMIT"), false)],
        vec![(q(&format!("SELECT 1; {statement}; SELECT 2")), true)],
        vec![(unnamed, true)],
        vec![
            ([parse("s", &asked), describe(b'S', "s"), sync()].concat(), false),
            ([bind("p", "s", keys), execute("p", 0), flush(), sync()].concat(), true),
            ([bind("", "s", keys), execute("", 1), sync()].concat(), false),
        ],
        vec![(amid, true)],
        // As lib/pq: parsed, and executed in another pipeline, without a name.
        vec![
            ([parse("", &asked), describe(b'S', ""), sync()].concat(), false),
            ([bind("", "", keys), execute("", 0), sync()].concat(), true),
        ],
        // As sqlx: with a name, types, and both the parameters and the result in binary.
        vec![
            ([typed(&asked, keys.len()), describe(b'S', "b"), sync()].concat(), false),
            ([binary(keys), execute("", 0), close(b'P', ""), sync()].concat(), true),
        ],
        // The server's error, at its place.
        vec![(q(&format!("SELECT 1; SELECT {}", form.replace('7', "'seven'"))), false)],
        vec![([parse("", &asked), bind("", "", &vec!["seven"; keys.len()]), execute("", 0), sync()].concat(), false)],
    ]
}

/// All that comes for it, and what the session holds then.
fn told(client: &mut Client, conversation: &[Part], mut waits: impl FnMut(&Client)) -> Vec<String> {
    let mut all = Vec::new();
    for (bytes, waiting) in conversation {
        client.send(bytes);
        if *waiting {
            waits(client);
        }
        all.extend(client.read_up_to(b"Z").iter().map(show));
    }
    all.push(client.value(
        "SELECT string_agg(concat_ws(' ', classid, objid, objsubid, mode, granted), ',') FROM pg_locks \
         WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ));
    all
}

/// Every form, alone, in a block and amid a pipeline: the bytes are the server's own, whether it had to be waited for or not.
#[test]
fn the_answer_is_the_servers_own() {
    let mut stage = Stage::new(|_| ());
    for function in
        ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared"]
    {
        for keys in [&["7"][..], &["7", "8"]] {
            let key = keys.join(", ");
            for (nth, conversation) in conversations(&format!("{function}({key})"), keys).iter().enumerate() {
                let what = format!("{function}({key}), conversation {nth}");
                let direct = told(&mut stage.direct(), conversation, |_| ());
                let mut client = stage.client();
                assert_eq!(told(&mut client, conversation, |_| ()), direct, "{what}, at once");
                drop(client);
                let mut holder = stage.direct();
                wait_until("the lock is free", || holder.value(&format!("SELECT pg_try_advisory_lock({key})")) == "t");
                if !conversation.iter().any(|(_, waits)| *waits) {
                    continue;
                }
                let mut client = stage.client();
                let through = told(&mut client, conversation, |client| {
                    stage.until_one_polls(client.pid);
                    holder.ok(&format!("SELECT pg_advisory_unlock({key})"));
                });
                assert_eq!(through, direct, "{what}, after a wait");
                // As often as it was asked for.
                let unlock = format!("SELECT {}({key})", function.replace("advisory_lock", "advisory_unlock"));
                let asked_for = if nth == 4 { ["t", "t", "f"] } else { ["t", "f", "f"] };
                let given =
                    asked_for.map(|_| if function.contains("xact") { "-".to_owned() } else { client.value(&unlock) });
                assert!(function.contains("xact") || given == asked_for, "{what}: {given:?}");
            }
        }
    }
    wait_until("all locks are given back", || stage.locks() == "0");
}

#[test]
fn timeouts_and_cancels_end_the_wait_as_directly() {
    let mut stage = Stage::new(|_| ());
    let mut holder = stage.direct();
    holder.ok("SELECT pg_advisory_lock(1)");
    let settings = [
        "SET lock_timeout = '100ms'",
        "SET lock_timeout = '900ms'",
        "SET statement_timeout = '100ms'",
        "SET statement_timeout = '900ms'",
    ];
    for setting in settings {
        for block in [false, true] {
            let outcomes = [stage.direct(), stage.client()].map(|mut client| {
                client.ok(setting);
                if block {
                    client.ok("BEGIN");
                }
                let begun = Instant::now();
                let outcome = client.query("SELECT pg_advisory_lock(1)");
                let least = Duration::from_millis(if setting.contains("900") { 900 } else { 100 });
                assert!(begun.elapsed() >= least, "{setting}");
                let seen = (outcome.error, outcome.message, outcome.status);
                // The settings are the client's own again.
                let failed = client.query("ROLLBACK");
                (seen, failed.tags, client.value("SHOW lock_timeout"), client.value("SHOW statement_timeout"))
            });
            let [direct, through] = outcomes;
            assert_eq!(through, direct, "{setting}, in a block: {block}");
        }
    }
    for block in [false, true] {
        // In a block the backend is idle between two tries.
        for by_server in if block { vec![false] } else { vec![false, true] } {
            let mut client = stage.client();
            if block {
                client.ok("BEGIN");
            }
            client.send_query("SELECT pg_advisory_lock(1)");
            stage.until_one_polls(client.pid);
            if by_server {
                // Between two of its statements a backend ignores it.
                let cancel = format!("SELECT pg_cancel_backend({})", client.pid);
                let over = format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%pgsluice%' AND state = 'active'",
                    client.pid
                );
                wait_until("it naps", || stage.watcher.value(&over) == "1");
                stage.watcher.ok(&cancel);
            } else {
                client.cancel(port(&stage.running));
            }
            let outcome = client.outcome();
            assert_eq!(outcome.error.as_deref(), Some("57014"), "{outcome:?}");
            assert_eq!(outcome.message.as_deref(), Some("canceling statement due to user request"));
            assert_eq!(outcome.status, if block { 'E' } else { 'I' });
        }
    }
    // Who leaves waits no more.
    let mut client = stage.client();
    client.send_query("SELECT pg_advisory_lock(1)");
    stage.until_one_polls(client.pid);
    let pid = client.pid;
    client.reset();
    wait_until("its session has ended", || {
        stage.watcher.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) == "0"
    });
    holder.ok("SELECT pg_advisory_unlock(1)");
    assert_eq!(stage.locks(), "0");
}

/// Each holds what the other waits for: one of them hears so, and the other goes on.
#[test]
fn a_deadlock_is_found() {
    for block in [false, true] {
        let stage = Stage::new(|_| ());
        let mut clients = [stage.client(), stage.client()];
        for (nth, client) in clients.iter_mut().enumerate() {
            if block {
                client.ok("BEGIN");
            }
            client.ok(&format!("SELECT pg_advisory_lock({nth})"));
        }
        let errors: Vec<Option<String>> = std::thread::scope(|scope| {
            let threads = clients.iter_mut().enumerate().map(|(nth, client)| {
                scope.spawn(move || {
                    let outcome = client.query(&format!("SELECT pg_advisory_lock({})", 1 - nth));
                    // As a tool whose statement has failed: it gives up, and its locks.
                    if outcome.error.is_some() {
                        client.query("ROLLBACK");
                        client.ok(&format!("SELECT pg_advisory_unlock({nth})"));
                    }
                    outcome.error
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("a session")).collect()
        });
        let failed: Vec<&str> = errors.iter().flatten().map(String::as_str).collect();
        assert_eq!(failed, ["40P01"], "in a block: {block}");
    }
}

/// A role that may not even try is served as directly.
#[test]
fn without_the_privilege_it_waits_in_the_server() {
    let mut stage = Stage::new(|_| ());
    stage.watcher.ok("CREATE ROLE plain LOGIN");
    stage.watcher.ok("REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC");
    for block in [false, true] {
        let mut holder = stage.direct();
        holder.ok("SELECT pg_advisory_lock(1)");
        let mut client = Client::connect(port(&stage.running), "plain", &stage.database);
        if block {
            client.ok("BEGIN");
        }
        client.send_query("SELECT pg_advisory_xact_lock(1)");
        stage.until_one_waits(client.pid);
        holder.ok("SELECT pg_advisory_unlock(1)");
        let outcome = client.outcome();
        assert_eq!((outcome.error, outcome.status), (None, if block { 'T' } else { 'I' }));
    }
}

/// Only where schema changes are run in phases is there anything to wait for; nor is it where the operator says so.
#[test]
fn the_other_modes_only_relay() {
    for mode in [Mode::Relay, Mode::Observe, Mode::Plan] {
        let mut stage = Stage::new(|config| {
            config.proxy.mode = mode;
            if mode == Mode::Plan {
                config.locks.advisory_locks = LockWaits::Relay;
            }
        });
        let mut holder = stage.direct();
        holder.ok("SELECT pg_advisory_lock(1)");
        let mut client = stage.client();
        client.send_query("SELECT pg_advisory_lock(1)");
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'advisory' AND now() - query_start > '1s'",
            client.pid
        );
        wait_until("it has waited in the server for long", || stage.watcher.value(&waits) == "1");
        holder.ok("SELECT pg_advisory_unlock(1)");
        assert_eq!(client.outcome().error, None);
    }
}
