//! Conversations that no driver would have: all kinds of messages, split anywhere, in any order.
//!
//! One oracle judges all of them: the same bytes, sent to the server directly, must bring the same answer.

mod common;

use common::raw::{
    bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, frame, parse, q, run, sync, terminate,
    transcript,
};
use common::twins::Twins;
use common::{Client, postgres};
use pgsluice::dev::Postgres;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use std::sync::LazyLock;
use std::time::Duration;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

#[test]
fn the_same_bytes_bring_the_same_answer() {
    let twins =
        Twins::new(&SERVER, "same", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')");
    for (name, mut bytes) in scripts() {
        bytes.extend(terminate());
        twins.same(name, &bytes);
    }
    twins.running.stop_now();
}

/// Conversations, each up to its goodbye.
fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    let mut scripts = simple_scripts();
    scripts.extend(extended_scripts());
    scripts.extend(copy_scripts());
    scripts.extend(odd_scripts());
    assert!(scripts.len() >= 25);
    scripts
}

fn simple_scripts() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", q("")),
        ("only semicolons", q(";;")),
        ("two rows", q("SELECT * FROM t; SELECT 2")),
        ("an error amid a string", q("SELECT 1; SELECT nonsense; SELECT 3")),
        ("DDL alone", q("ALTER TABLE t ADD COLUMN s1 int")),
        ("DDL in a string", q("SELECT 1; ALTER TABLE t ADD COLUMN s2 int; SELECT s2 FROM t")),
        ("an error after DDL", q("ALTER TABLE t ADD COLUMN s3 int; SELECT 1/0; SELECT 3")),
        ("an error of DDL", q("SELECT 'é'; ALTER TABLE t ADD COLUMN s2 int; SELECT 3")),
        ("a syntax error", q("ALTER TABLE t ADD COLUM s4 int;;")),
        ("a position behind wide letters", q("SELECT 'ééé'; SELECT nonsense; ALTER TABLE t ADD COLUMN s4 int")),
        ("a position behind DDL", q("ALTER TABLE t ADD COLUMN s4 int; SELECT 'é', nonsense")),
        ("a position in DDL", q("SELECT 'é'; ALTER TABLE t ADD COLUMN s5 int DEFAULT nonsense")),
        ("DDL in a block", [q("BEGIN"), q("ALTER TABLE t ADD COLUMN s6 int"), q("COMMIT")].concat()),
        (
            "DDL in a failed block",
            [q("BEGIN"), q("SELECT 1/0"), q("ALTER TABLE t ADD COLUMN s7 int"), q("COMMIT")].concat(),
        ),
        ("a block in a string", q("BEGIN; ALTER TABLE t ADD COLUMN s8 int; ROLLBACK; ALTER TABLE t ADD COLUMN s8 int")),
        ("many queries at once", (0..50).flat_map(|n| q(&format!("SELECT {n}"))).collect()),
        (
            "many DDL statements at once",
            (0..5).flat_map(|n| q(&format!("ALTER TABLE t ADD COLUMN m{n} int"))).collect(),
        ),
        ("notices", q("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")),
        ("settings", q("SET application_name = 'other'; SHOW application_name")),
        ("notifications", q("LISTEN here; NOTIFY here, 'a'; SELECT 1")),
        ("DDL and a notification", [q("LISTEN here"), q("NOTIFY here; ALTER TABLE t ADD COLUMN s9 int")].concat()),
    ]
}

fn extended_scripts() -> Vec<(&'static str, Vec<u8>)> {
    let ddl = |column: &str| run(&format!("ALTER TABLE t ADD COLUMN {column} int"));
    vec![
        ("a parameter", [parse("", "SELECT $1::int"), bind("", "", &["7"]), execute("", 0), sync()].concat()),
        ("DDL", [ddl("e1"), sync()].concat()),
        ("DDL amid a pipeline", [run("SELECT 1"), ddl("e2"), run("SELECT e2 FROM t"), sync()].concat()),
        ("DDL, then an error", [ddl("e3"), run("SELECT 1/0"), ddl("e4"), sync(), run("SELECT 2"), sync()].concat()),
        ("an error, then DDL", [run("SELECT 1/0"), ddl("e3"), sync(), ddl("e3"), sync()].concat()),
        ("an error of DDL", [run("SELECT 1"), ddl("e2"), run("SELECT 2"), sync(), q("SELECT 3")].concat()),
        ("DDL after a failed parse", [parse("", "SELEC"), ddl("e4"), sync()].concat()),
        (
            "a named statement, twice",
            [
                parse("d", "ALTER TABLE t ADD COLUMN IF NOT EXISTS e5 int"),
                bind("p", "d", &[]),
                execute("p", 0),
                sync(),
                describe(b'S', "d"),
                close(b'S', "d"),
                sync(),
            ]
            .concat(),
        ),
        ("a closed statement", [parse("d", "DROP TABLE t"), close(b'S', "d"), bind("", "d", &[]), sync()].concat()),
        ("a portal that is not there", [execute("nowhere", 0), sync()].concat()),
        ("a statement parsed twice", [parse("d", "SELECT 1"), parse("d", "DROP TABLE t"), sync()].concat()),
        (
            "a suspended portal",
            [
                parse("", "SELECT generate_series(1, 5)"),
                bind("p", "", &[]),
                execute("p", 2),
                flush(),
                execute("p", 2),
                execute("p", 2),
                execute("p", 2),
                sync(),
            ]
            .concat(),
        ),
        ("Flush only, then Sync", [parse("f", "SELECT 1"), flush(), describe(b'S', "f"), flush(), sync()].concat()),
        ("many Syncs", [sync(), sync(), run("SELECT 1"), sync(), sync(), ddl("e7"), sync(), sync()].concat()),
        ("a Query amid unsynced messages", [run("SELECT 1"), q("SELECT 2"), run("SELECT 3"), sync()].concat()),
        ("DDL as a Query amid unsynced messages", [run("SELECT 1"), q("ALTER TABLE t ADD COLUMN e8 int")].concat()),
        ("a Query to be skipped", [run("SELECT 1/0"), q("ALTER TABLE t ADD COLUMN e9 int"), sync()].concat()),
        ("a block in a pipeline", [run("BEGIN"), ddl("e9"), run("COMMIT"), sync()].concat()),
        ("a block over pipelines", [run("BEGIN"), sync(), ddl("e10"), sync(), run("COMMIT"), sync()].concat()),
        ("DDL with a failing constraint at the end", [ddl("e11"), run("INSERT INTO t VALUES (1)"), sync()].concat()),
        ("two statements in one Parse", [run("SELECT 1; DROP TABLE t"), sync()].concat()),
        ("an empty statement", [run(""), ddl("e12"), run(""), sync()].concat()),
    ]
}

fn copy_scripts() -> Vec<(&'static str, Vec<u8>)> {
    let data = || [copy_data("100\ta\n101\tb\n"), copy_data("102\tc\n")].concat();
    let copy = "COPY t (id, v) FROM STDIN";
    vec![
        ("copy in", [q(copy), data(), copy_done()].concat()),
        ("copy in that the client fails", [q(copy), data(), copy_fail("enough"), q("SELECT 1")].concat()),
        (
            "copy in of bad data",
            [q(copy), copy_data("x\ty\n"), copy_data("1\t2\n"), copy_done(), q("SELECT 1")].concat(),
        ),
        ("copy out", q("COPY (SELECT id FROM t ORDER BY id) TO STDOUT")),
        ("copy in, extended", [run(copy), copy_data("110\ta\n"), copy_done(), sync()].concat()),
        ("copy in with the Sync too early", [run(copy), sync(), copy_data("111\ta\n"), copy_done(), sync()].concat()),
        (
            "copy in that fails, extended",
            [run(copy), sync(), copy_data("x\n"), copy_done(), sync(), q("SELECT 1")].concat(),
        ),
        ("DDL, copy in, DDL", {
            let string = "ALTER TABLE t ADD COLUMN c1 int; COPY t (id) FROM STDIN; ALTER TABLE t ADD COLUMN c2 int";
            [q(string), copy_data("120\n"), copy_done(), q("SELECT c2 FROM t WHERE id = 120")].concat()
        }),
        (
            "copy in, then DDL",
            [q(copy), copy_data("121\ta\n"), copy_done(), q("ALTER TABLE t ADD COLUMN c3 int")].concat(),
        ),
        ("a Query amid copy in", [q(copy), copy_data("122\ta\n"), q("SELECT 1"), q("SELECT 2")].concat()),
        ("copy data outside a copy", [copy_data("x"), copy_done(), copy_fail("y"), q("SELECT 1")].concat()),
    ]
}

fn odd_scripts() -> Vec<(&'static str, Vec<u8>)> {
    // int4pl(40, 2), in binary.
    let call = [&177_u32.to_be_bytes()[..], &[0, 1, 0, 1, 0, 2, 0, 0, 0, 4, 0, 0, 0, 40, 0, 0, 0, 4, 0, 0, 0, 2, 0, 1]];
    let call = frame(b'F', &call.concat());
    let text = |bytes: &[u8]| [b"ALTER TABLE t ADD COLUMN ", bytes].concat();
    vec![
        ("a function call", [call.clone(), q("SELECT 1")].concat()),
        ("a function call that fails", [frame(b'F', &[0; 10]), call].concat()),
        ("an unknown message", [q("SELECT 1"), frame(b'?', b"what"), q("SELECT 2")].concat()),
        ("a password too late", [frame(b'p', b"secret\0"), q("SELECT 1")].concat()),
        ("a query without its end", [frame(b'Q', b"ALTER TABLE t ADD COLUMN o1 int"), q("SELECT 1")].concat()),
        ("text behind the end", [frame(b'Q', &text(b"o1 int\0; DROP TABLE t\0")), q("SELECT o1 FROM t")].concat()),
        ("bytes that are no UTF-8", [frame(b'Q', &text(b"\"\xff\" int\0")), q("SELECT 1")].concat()),
        ("an empty Query body", [frame(b'Q', b""), q("SELECT 1")].concat()),
        ("a short Parse", [frame(b'P', b"\0ALTER TABLE t ADD o2 int\0"), sync(), q("SELECT 1")].concat()),
        ("a short Execute", {
            let ddl = [parse("", "ALTER TABLE t ADD COLUMN o3 int"), bind("", "", &[]), frame(b'E', b"\0")].concat();
            [ddl, sync(), q("SELECT o3 FROM t")].concat()
        }),
        ("a long Execute", {
            let ddl = [parse("", "ALTER TABLE t ADD COLUMN o4 int"), bind("", "", &[]), frame(b'E', b"\0\0\0\0\0x")];
            [ddl.concat(), sync(), q("SELECT o4 FROM t")].concat()
        }),
        ("a Bind with too few parameters", {
            [parse("", "SELECT $1::int"), bind("", "", &[]), execute("", 0), sync(), q("SELECT 1")].concat()
        }),
        ("a Sync with a body", [frame(b'S', b"x"), q("SELECT 1")].concat()),
        ("Close of what is not there", [close(b'S', "no"), close(b'P', "no"), close(b'?', "no"), sync()].concat()),
        ("a Terminate in between", [q("SELECT 1"), terminate(), q("ALTER TABLE t ADD COLUMN o5 int")].concat()),
    ]
}

#[test]
fn every_split_of_every_frame() {
    const LANES: usize = 4;
    let script = mixed_script();
    let twins: Vec<Twins> = (0..LANES).map(|_| Twins::new(&SERVER, "split", "SELECT 1")).collect();
    let expected = exchange(&mut twins[0].direct(), &[&script], None);
    let answers = expected.lines().filter(|line| line.starts_with("Z ")).count();
    assert_eq!(answers, 12, "{expected}");
    let (twins, script, expected) = (&twins, &script, &expected);
    std::thread::scope(|scope| {
        for (lane, twins) in twins.iter().enumerate() {
            scope.spawn(move || {
                let mut client = twins.proxied();
                assert_eq!(&exchange(&mut client, &[script], None), expected, "not split at all");
                for at in (1..script.len()).skip(lane).step_by(LANES) {
                    let (head, tail) = script.split_at(at);
                    let pause = Some(Duration::from_millis(1));
                    assert_eq!(&exchange(&mut client, &[head, tail], pause), expected, "split at {at}");
                }
                let bytes: Vec<&[u8]> = script.chunks(1).collect();
                assert_eq!(&exchange(&mut client, &bytes, Some(Duration::from_micros(50))), expected, "byte by byte");
            });
        }
    });
}

/// All kinds of messages, and nothing left behind.
fn mixed_script() -> Vec<u8> {
    [
        q("CREATE TABLE s (id int PRIMARY KEY, v text)"),
        q("ALTER TABLE s ADD a int; INSERT INTO s VALUES (1); SELECT * FROM s; ALTER TABLE s DROP a"),
        [parse("p", "SELECT $1::int + 1"), bind("", "p", &["41"]), describe(b'P', ""), execute("", 0), sync()].concat(),
        [run("ALTER TABLE s ADD b int"), sync()].concat(),
        [parse("d", "ALTER TABLE s ADD c int"), flush(), bind("e", "d", &[]), execute("e", 0), sync()].concat(),
        [close(b'S', "d"), close(b'S', "p"), sync()].concat(),
        [q("COPY s (id, v) FROM STDIN"), copy_data("2\ty\n"), copy_data("3\tz\n"), copy_done()].concat(),
        q("COPY s TO STDOUT"),
        [run("SELECT 1/0"), run("ALTER TABLE s ADD f int"), sync()].concat(),
        q("SELECT nonsense"),
        [run("INSERT INTO s VALUES (9)"), run("ALTER TABLE s ADD g int"), run("SELECT g FROM s"), sync()].concat(),
        q("DROP TABLE s"),
    ]
    .concat()
}

/// Sends the parts, and reads as many ReadyForQuery as the mixed script has.
fn exchange(client: &mut Client, parts: &[&[u8]], pause: Option<Duration>) -> String {
    for part in parts {
        client.send(part);
        if let Some(pause) = pause {
            // For the proxy to read what came so far: should it be late, the parts meet, and nothing is lost.
            std::thread::sleep(pause);
        }
    }
    (0..12).flat_map(|_| client.read_up_to(b"Z")).map(|message| common::raw::show(&message) + "\n").collect()
}

#[test]
fn random_conversations_are_the_same() {
    let twins = Twins::new(&SERVER, "random", "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'one')");
    let part = prop_oneof![
        3 => prop::sample::select(alphabet()),
        1 => prop::sample::select(simple_scripts()).prop_map(|(_, bytes)| Letter(bytes)),
    ];
    let mut runner = TestRunner::new_with_rng(
        Cases { cases: 300, failure_persistence: None, max_shrink_iters: 20, ..Cases::default() },
        // The same conversations each time.
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let reset = "DROP TABLE IF EXISTS t; CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'one')";
    let result = runner.run(&prop::collection::vec(part, 1..14), |parts| {
        twins.direct().ok(reset);
        Client::connect(SERVER.port, &SERVER.user, &twins.proxied).ok(reset);
        let mut bytes: Vec<u8> = parts.iter().flat_map(|letter| letter.0.clone()).collect();
        // Out of any copy, and out of any error.
        bytes.extend([copy_fail("end"), sync(), q("SELECT * FROM t"), terminate()].concat());
        let (direct, proxied) = twins.both(&[&bytes], None);
        prop_assert_eq!(without_place(&direct), without_place(&proxied));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    twins.running.stop_now();
}

/// An error and the server's last words behind it, which may come at once, as an answer to a question of the proxy's.
#[test]
fn last_words_behind_an_error_are_passed_on() {
    let twins = Twins::new(&SERVER, "words", "CREATE TABLE t (id int)");
    let bytes = [run("COPY t (id) FROM STDIN"), run("ALTER TABLE t DROP COLUMN x"), run("SELECT 1"), sync()].concat();
    for _ in 0..20 {
        let words = transcript(&twins.proxied().play(&[&bytes], None));
        assert!(words.contains("unexpected message type") && words.contains("synchronization was lost"), "{words}");
    }
    twins.running.stop_now();
}

/// Without the places in the server's source, where the same error is found by another way.
fn without_place(transcript: &str) -> String {
    let kept = |line: &str| -> String {
        let fields = line.split(" | ").filter(|field| !field.starts_with(['F', 'L', 'R']));
        // A portal that has had its run is closed by the proxy, and kept useless by the server.
        let line = fields.collect::<Vec<_>>().join(" | ") + "\n";
        line.replace("C55000", "C34000").replace("cannot be run", "does not exist")
    };
    transcript.lines().map(kept).collect()
}

/// A few messages, shown as text when a conversation fails.
#[derive(Clone)]
struct Letter(Vec<u8>);

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

fn alphabet() -> Vec<Letter> {
    let letters = vec![
        sync(),
        sync(),
        flush(),
        run("SELECT 1"),
        run("SELECT 1/0"),
        run("INSERT INTO t VALUES (2)"),
        run("ALTER TABLE t ADD COLUMN x1 int"),
        run("ALTER TABLE t DROP COLUMN x1"),
        run("BEGIN"),
        run("COMMIT"),
        run("ROLLBACK"),
        run("SAVEPOINT a"),
        run("ROLLBACK TO a"),
        parse("n", "ALTER TABLE t ADD COLUMN x2 int"),
        bind("", "n", &[]),
        bind("m", "n", &[]),
        execute("", 0),
        execute("m", 0),
        close(b'S', "n"),
        close(b'P', "m"),
        q("ALTER TABLE t DROP COLUMN x2"),
        q("BEGIN"),
        q("COMMIT"),
        q("SAVEPOINT b; ALTER TABLE t ADD COLUMN x3 int; RELEASE b"),
        q("SELECT 'é'; ALTER TABLE t ADD COLUMN x4 int; SELECT nonsense"),
        q("COPY t (id) FROM STDIN"),
        run("COPY t (id) FROM STDIN"),
        copy_data("5\n"),
        copy_data("bad\n"),
        copy_done(),
        copy_fail("no"),
    ];
    letters.into_iter().map(Letter).collect()
}
