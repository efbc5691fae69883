//! Statements that are cancelled, lose their client, or are terminated, at every stage. The client receives what PostgreSQL
//! would say. Nothing is left behind: no invalid index, no backend, no lock, no lane.

mod common;

use common::end::{ENDS, End, assert_fatal};
use common::raw::{copy_data, execute as execute_portal, q, run, sync};
use common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::{Address, OnDisconnect};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// A database with a table that is worth building on, and a proxy in front.
struct Stage {
    running: Running,
    database: String,
    watcher: Client,
}

impl Stage {
    fn new(prefix: &str) -> Self {
        let running = proxy(&SERVER, |config| {
            // Every table counts as large, so that builds are concurrent.
            config.ddl.small_table = 0;
            config.ddl.on_disconnect = OnDisconnect::Undo;
        });
        let database = new_database(&SERVER, prefix);
        let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
        watcher
            .ok("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int); CREATE INDEX old ON t (v)");
        watcher.ok("INSERT INTO t SELECT g, g FROM generate_series(1, 2000) g");
        Self { running, database, watcher }
    }

    fn client(&self) -> Client {
        Client::connect(port(&self.running), &SERVER.user, &self.database)
    }

    fn direct(&self) -> Client {
        Client::connect(SERVER.port, &SERVER.user, &self.database)
    }

    /// Waits until the backend of `client` waits, naps or sleeps, as `sql` about its `pg_stat_activity` row says.
    fn wait_for(&mut self, client: &Client, sql: &str) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND {sql}", client.pid);
        wait_until(&sql, || self.watcher.value(&sql) == "1");
    }

    /// Waits until the build of the backend is over, and its undo, if any, has begun.
    fn wait_for_undo(&mut self, pid: i32) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'
             AND query NOT LIKE 'DROP INDEX CONCURRENTLY IF EXISTS%'"
        );
        wait_until("the build is over", || self.watcher.value(&sql) == "0");
    }

    /// The end comes to a client; what is left of it.
    fn end(&mut self, end: End, client: Client) -> Option<Client> {
        end.come(client, &mut self.watcher, port(&self.running))
    }

    /// Nothing is left of anybody but the watcher and those in `but`.
    fn assert_clean(&mut self, what: &str, but: &[&Client]) {
        let pids: Vec<String> = but.iter().map(|client| client.pid.to_string()).collect();
        let others = format!("pid <> pg_backend_pid() AND pid <> ALL ('{{{}}}'::int[])", pids.join(","));
        let backends = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {others}");
        wait_until(&format!("{what}: no backend is left"), || self.watcher.value(&backends) == "0");
        let advisory = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        assert_eq!(self.watcher.value(advisory), "0", "{what}: a lane is left");
        let locks = format!(
            "SELECT string_agg(format('%s %s %s', pid, relation::regclass, mode), ', ') FROM pg_locks
             WHERE locktype = 'relation' AND {others}
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        assert_eq!(self.watcher.value(&locks), "", "{what}: a lock is left");
        let invalid = "SELECT string_agg(indexrelid::regclass::text, ', ') FROM pg_index WHERE NOT indisvalid";
        assert_eq!(self.watcher.value(invalid), "", "{what}: an invalid index is left");
    }
}

const WAITS: &str = "query LIKE '/* pgsluice: waiting for %blocked by pid%'";
/// A concurrent build or drop waits for transactions that hold the table, or for old snapshots.
const BUILD_WAITS: &str = "wait_event_type = 'Lock' AND wait_event = 'virtualxid'";

/// One way to have the DDL under way.
struct Scene {
    name: &'static str,
    /// What stands in its way meanwhile.
    blocker: &'static str,
    bytes: Vec<u8>,
    under_way: &'static str,
    /// ReadyForQuery's status after a cancel.
    status: char,
}

fn scenes() -> Vec<Scene> {
    let scene = |name, blocker, bytes, under_way, status| Scene { name, blocker, bytes, under_way, status };
    let reads = "BEGIN; SELECT * FROM t LIMIT 1";
    let writes = "BEGIN; UPDATE t SET v = 'x' WHERE id = 1";
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM other";
    let alter = "ALTER TABLE t ADD COLUMN a int";
    vec![
        scene("a wait", reads, q(alter), WAITS, 'I'),
        scene("a wait, extended", reads, [run(alter), sync()].concat(), WAITS, 'I'),
        scene(
            "a wait in a pipeline",
            reads,
            [run("SELECT 1"), run(alter), run("SELECT 2"), sync()].concat(),
            WAITS,
            'I',
        ),
        scene(
            "a wait in a string",
            reads,
            q("INSERT INTO other VALUES (1); ALTER TABLE t ADD a int; SELECT 1"),
            WAITS,
            'I',
        ),
        scene("a wait in a block of a string", reads, q("BEGIN; ALTER TABLE t ADD a int; COMMIT"), WAITS, 'E'),
        scene("a build behind a writer", writes, q("CREATE INDEX new ON t (v)"), BUILD_WAITS, 'I'),
        scene("a build behind a snapshot", snapshot, q("CREATE INDEX CONCURRENTLY new ON t (v)"), BUILD_WAITS, 'I'),
        scene(
            "a unique build, extended",
            writes,
            [run("CREATE UNIQUE INDEX new ON t (v)"), sync()].concat(),
            BUILD_WAITS,
            'I',
        ),
        scene("a rebuild", writes, q("REINDEX TABLE t"), BUILD_WAITS, 'I'),
        scene("a rebuild of an index", writes, q("REINDEX INDEX CONCURRENTLY old"), BUILD_WAITS, 'I'),
    ]
}

#[test]
fn an_end_at_any_stage_leaves_nothing() {
    let scenes = scenes();
    let half = scenes.len() / 2;
    let (first, second) = scenes.split_at(half);
    std::thread::scope(|scope| {
        for (name, scenes) in [("end_a", first), ("end_b", second)] {
            scope.spawn(move || play(name, scenes));
        }
    });
}

fn play(name: &str, scenes: &[Scene]) {
    let mut stage = Stage::new(name);
    for scene in scenes {
        for end in ENDS {
            let what = format!("{}, {end:?}", scene.name);
            let mut blocker = stage.direct();
            blocker.ok(scene.blocker);
            let mut client = stage.client();
            client.send(&scene.bytes);
            stage.wait_for(&client, scene.under_way);
            let builds = scene.under_way != WAITS;
            let pid = client.pid;
            let client = stage.end(end, client);
            if builds {
                // What a build leaves is dropped once those who use the table let go.
                stage.wait_for_undo(pid);
                blocker.ok("ROLLBACK");
            }
            let Some((mut client, outcome)) = client.and_then(|client| end.heard(client)) else {
                if builds && end == End::Terminate {
                    // Nobody was left to clean up: the next one through the proxy does.
                    let mut next = stage.client();
                    next.send(&scene.bytes);
                    assert_eq!(next.outcome().error, None, "{what}");
                    stage.watcher.ok("DROP INDEX IF EXISTS new");
                    // Of a TOAST table's indexes the planner knows nothing.
                    stage.watcher.ok(
                        "DO $$ DECLARE i regclass; BEGIN FOR i IN SELECT indexrelid FROM pg_index WHERE NOT indisvalid
                         AND indrelid = (SELECT reltoastrelid FROM pg_class WHERE oid = 't'::regclass)
                         LOOP EXECUTE 'DROP INDEX ' || i; END LOOP; END $$",
                    );
                    next.goodbye();
                }
                stage.assert_clean(&what, &[&blocker]);
                blocker.goodbye();
                continue;
            };
            assert_eq!(outcome.status, scene.status, "{what}");
            // The session goes on as if nothing had been.
            if outcome.status == 'E' {
                client.ok("ROLLBACK");
            }
            assert_eq!(client.value("SELECT count(*) FROM other"), "0", "{what}");
            assert_eq!(client.value("SHOW lock_timeout"), "0", "{what}");
            stage.assert_clean(&what, &[&blocker, &client]);
            client.goodbye();
            blocker.goodbye();
        }
    }
    stage.running.stop_now();
}

#[test]
fn an_interrupted_drop_is_finished() {
    let mut stage = Stage::new("drop");
    for end in ENDS {
        stage.watcher.ok("DROP INDEX IF EXISTS old; CREATE INDEX old ON t (v)");
        let mut blocker = stage.direct();
        blocker.ok("BEGIN; UPDATE t SET v = 'x' WHERE id = 1");
        let mut client = stage.client();
        client.send_query("DROP INDEX old");
        stage.wait_for(&client, BUILD_WAITS);
        let pid = client.pid;
        let client = stage.end(end, client);
        stage.wait_for_undo(pid);
        blocker.ok("ROLLBACK");
        blocker.goodbye();
        drop(client.and_then(|client| end.heard(client)));
        if end == End::Terminate {
            // Its backend was gone at once, and nobody left to finish. The next DROP INDEX does.
            stage.client().ok("DROP INDEX IF EXISTS old");
        }
        stage.assert_clean(&format!("{end:?}"), &[]);
    }
    stage.running.stop_now();
}

#[test]
fn a_polite_goodbye_takes_nothing_back() {
    let mut stage = Stage::new("polite");
    let mut blocker = stage.direct();
    blocker.ok("BEGIN; SELECT * FROM t LIMIT 1");
    let mut client = stage.client();
    client.send_query("ALTER TABLE t ADD COLUMN a int");
    stage.wait_for(&client, WAITS);
    client.goodbye();
    blocker.ok("COMMIT");
    let added = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'";
    wait_until("the column is there", || stage.watcher.value(added) == "1");
    stage.assert_clean("goodbye", &[&blocker]);
    stage.running.stop_now();
}

#[test]
fn a_copy_that_ends_early() {
    let mut stage = Stage::new("copy");
    for end in ENDS {
        for ddl in [false, true] {
            let mut client = stage.client();
            let string =
                if ddl { "ALTER TABLE t ADD c int; COPY other FROM STDIN; SELECT 1" } else { "COPY other FROM STDIN" };
            client.send_query(string);
            client.read_up_to(b"G");
            client.send(&copy_data("1\n2\n"));
            if let Some(mut client) = stage.end(end, client) {
                if end != End::Terminate {
                    // A server that waits for data heeds a cancel when the next of them come.
                    client.send(&copy_data("3\n"));
                }
                if let Some((client, outcome)) = end.heard(client) {
                    assert_eq!(outcome.status, 'I');
                    client.goodbye();
                }
            }
            stage.assert_clean(&format!("copy, {end:?}"), &[]);
            assert_eq!(stage.watcher.value("SELECT count(*) FROM other"), "0");
        }
    }
    stage.running.stop_now();
}

#[test]
fn a_transaction_block_ends_as_it_would_directly() {
    let mut stage = Stage::new("block");
    for end in ENDS {
        let mut blocker = stage.direct();
        blocker.ok("BEGIN; SELECT * FROM t LIMIT 1");
        let mut client = stage.client();
        client.ok("BEGIN");
        client.ok("INSERT INTO other VALUES (1)");
        client.send_query("ALTER TABLE t ADD COLUMN a int");
        stage.wait_for(&client, WAITS);
        if let Some((mut client, outcome)) = stage.end(end, client).and_then(|client| end.heard(client)) {
            assert_eq!(outcome.status, 'E', "{outcome:?}");
            assert_eq!(client.query("SELECT 1").error.as_deref(), Some("25P02"));
            assert_eq!(client.query("ALTER TABLE t ADD COLUMN a int").error.as_deref(), Some("25P02"));
            assert_eq!(client.ok("COMMIT").tags, ["ROLLBACK"]);
            client.goodbye();
        }
        stage.assert_clean(&format!("block, {end:?}"), &[&blocker]);
        assert_eq!(stage.watcher.value("SELECT count(*) FROM other"), "0");
        blocker.goodbye();
    }
    stage.running.stop_now();
}

#[test]
fn a_cancel_strikes_only_whom_it_means() {
    let mut stage = Stage::new("cancel");
    let mut blocker = stage.direct();
    blocker.ok("BEGIN; SELECT * FROM t LIMIT 1");
    let mut client = stage.client();
    client.send_query("ALTER TABLE t ADD COLUMN a int");
    stage.wait_for(&client, WAITS);
    // A wrong key, and one that is too short or too long.
    let right = client.key.clone();
    let mut wrong = right.clone();
    wrong[7] ^= 1;
    for key in [wrong, right[..6].to_vec(), [&right[..], &[0]].concat()] {
        client.key = key;
        client.cancel(port(&stage.running));
    }
    client.key = right;
    let naps = format!("SELECT query_start FROM pg_stat_activity WHERE pid = {}", client.pid);
    let before = stage.watcher.value(&naps);
    wait_until("it naps on", || stage.watcher.value(&naps) != before);
    blocker.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    // A cancel of nothing is forgotten, by whichever way the next statement goes.
    for sql in [
        "SELECT 1",
        "ALTER TABLE t ADD COLUMN b int",
        "CREATE INDEX ON t (b)",
        "BEGIN; ALTER TABLE t ADD c int; COMMIT",
    ] {
        client.cancel(port(&stage.running));
        let outcome = client.query(sql);
        assert_eq!(outcome.error, None, "{sql}: {outcome:?}");
    }
    stage.assert_clean("cancels", &[&blocker, &client]);
    stage.running.stop_now();
}

/// A server signals twice for one CancelRequest, and the second may come behind the answer to the first.
#[test]
fn the_second_signal_of_a_cancel() {
    let mut stage = Stage::new("second");
    let held = HeldCancels::new();
    let running = proxy(&SERVER, |config| {
        config.ddl.small_table = 0;
        config.proxy.backend = Address::tcp("127.0.0.1", held.port);
    });
    let mut blocker = stage.direct();
    blocker.ok("BEGIN; UPDATE t SET v = 'x' WHERE id = 1");
    let mut client = Client::connect(port(&running), &SERVER.user, &stage.database);
    client.send_query("CREATE INDEX new ON t (v)");
    stage.wait_for(&client, BUILD_WAITS);
    std::thread::scope(|scope| {
        scope.spawn(|| client.cancel(port(&running)));
        stage.wait_for_undo(client.pid);
        // Whenever it comes.
        (0..100).for_each(|_| client.cancel(SERVER.port));
        held.release.send(()).unwrap();
    });
    blocker.ok("ROLLBACK");
    assert_eq!(client.outcome().error.as_deref(), Some("57014"));
    stage.assert_clean("twice", &[&blocker, &client]);
    running.stop_now();
    stage.running.stop_now();
}

/// A wire to the server on which a CancelRequest ends only when it is released.
struct HeldCancels {
    port: u16,
    release: mpsc::Sender<()>,
}

impl HeldCancels {
    fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (release, released) = mpsc::channel();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut far = TcpStream::connect(("127.0.0.1", SERVER.port)).unwrap();
                let mut head = [0; 8];
                (&near).read_exact(&mut head).unwrap();
                far.write_all(&head).unwrap();
                let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                if head[4..] == 80_877_102_u32.to_be_bytes() {
                    let _ = far.read(&mut [0]);
                    let _ = released.recv();
                    let _ = near.shutdown(Shutdown::Both);
                } else {
                    let mut near = near;
                    std::thread::spawn(move || std::io::copy(&mut far, &mut near));
                }
            }
        });
        Self { port, release }
    }
}

#[test]
fn the_server_stops() {
    // A server of its own, as it does not come back.
    let postgres = postgres();
    let running = proxy(&postgres, |_| {});
    let mut blocker = Client::connect(postgres.port, &postgres.user, "postgres");
    let client = || Client::connect(port(&running), &postgres.user, "postgres");
    let (idle, mut busy, mut waiting) = (client(), client(), client());
    blocker.ok("CREATE TABLE t (id int)");
    blocker.ok("BEGIN; SELECT * FROM t");
    busy.ok("BEGIN");
    busy.send_query("SELECT pg_sleep(60)");
    waiting.send_query("ALTER TABLE t ADD COLUMN a int");
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND {WAITS}", waiting.pid);
    let mut watcher = Client::connect(postgres.port, &postgres.user, "postgres");
    wait_until("it waits", || watcher.value(&waits) == "1");
    let stop = std::process::Command::new("kill").args(["-INT", &postgres.pid.to_string()]).status();
    assert!(stop.expect("kill").success());
    for client in [idle, busy, waiting] {
        assert_fatal(&client.last_words(), "57P01");
    }
    // Nobody is there any more: said so, at once.
    wait_until("the server is down", || TcpStream::connect(("127.0.0.1", postgres.port)).is_err());
    let mut late = common::raw::socket(port(&running));
    late.write_all(&common::startup_packet(&postgres.user, "postgres")).unwrap();
    assert_fatal(&common::raw::messages(&common::raw::read_to_close(&mut late)), "08006");
    running.stop_now();
}

#[test]
fn a_drain_lets_transactions_finish() {
    let mut stage = Stage::new("drain");
    let mut blocker = stage.direct();
    blocker.ok("BEGIN; SELECT * FROM t LIMIT 1");
    let (idle, mut unsynced, mut block, mut waiting) = (stage.client(), stage.client(), stage.client(), stage.client());
    block.ok("BEGIN; INSERT INTO other VALUES (1)");
    unsynced.send(&[run("SELECT 1"), common::raw::flush()].concat());
    unsynced.read_up_to(b"C");
    waiting.send_query("ALTER TABLE t ADD COLUMN a int");
    stage.wait_for(&waiting, WAITS);
    let at = port(&stage.running);
    let (database, mut watcher) = (stage.database.clone(), stage.watcher);
    let stopping = std::thread::spawn(move || stage.running.stop());
    assert_fatal(&idle.last_words(), "57P01");
    wait_until("no new clients are taken", || TcpStream::connect(("127.0.0.1", at)).is_err());
    // Who is in a transaction may go on.
    assert_eq!(block.value("SELECT 1"), "1");
    assert_eq!(block.ok("COMMIT").status, 'I');
    assert_fatal(&block.last_words(), "57P01");
    unsynced.send(&[execute_portal("", 0), sync()].concat());
    assert_fatal(&unsynced.last_words(), "57P01");
    blocker.ok("COMMIT");
    assert_eq!(waiting.outcome().error, None);
    assert_fatal(&waiting.last_words(), "57P01");
    stopping.join().unwrap();
    let left = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND pid NOT IN (pg_backend_pid(), {})",
        blocker.pid
    );
    wait_until("no backend is left", || watcher.value(&left) == "0");
    assert_eq!(watcher.value("SELECT count(*) FROM other"), "1");
}

#[test]
fn a_stop_now_waits_for_nobody() {
    let mut stage = Stage::new("stop");
    let mut blocker = stage.direct();
    blocker.ok("BEGIN; UPDATE t SET v = 'x' WHERE id = 1");
    let (mut block, mut waiting, mut building) = (stage.client(), stage.client(), stage.client());
    block.ok("BEGIN; INSERT INTO other VALUES (1)");
    waiting.send_query("ALTER TABLE other ADD COLUMN a int");
    stage.wait_for(&waiting, WAITS);
    building.send_query("CREATE INDEX new ON t (v)");
    stage.wait_for(&building, BUILD_WAITS);
    let begun = Instant::now();
    let (running, building_pid) = (stage.running, building.pid);
    let stopping = std::thread::spawn(move || running.stop_now());
    // The build is cancelled, and what it left is dropped once the writer lets go.
    stage.running = proxy(&SERVER, |_| {});
    stage.wait_for_undo(building_pid);
    blocker.goodbye();
    stopping.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    for client in [block, waiting] {
        let words = client.last_words();
        assert!(words.is_empty() || words.last().unwrap().field(b'C').as_deref() == Some("57P01"), "{words:?}");
    }
    drop(building);
    stage.assert_clean("stop now", &[]);
    assert_eq!(stage.watcher.value("SELECT count(*) FROM other"), "0");
    assert_eq!(stage.watcher.value("SELECT count(*) FROM pg_class WHERE relname = 'new'"), "0");
    stage.running.stop_now();
}
