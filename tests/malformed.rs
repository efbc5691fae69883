//! Bytes that are not a conversation: lengths that lie, first packets of all kinds, half-open sockets, floods, texts of
//! bottomless nesting. The server's own answer to the same bytes says what is right.

mod common;

use common::program::Program;
use common::raw::{
    bind, copy_data, copy_done, execute, frame_of_length, messages, parse, q, read_to_close, run, socket, startup,
    sync, terminate,
};
use common::twins::wait_until_alone;
use common::{Client, PATIENCE, new_database, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use std::io::{Read, Write};
use std::sync::LazyLock;
use std::time::Instant;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

#[test]
fn lengths_that_lie() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "lengths");
    let mut bystander = Client::connect(port(&running), &SERVER.user, &database);
    for tag in *b"QPBEDCSHXFdcfp?\0\xff" {
        for length in [0, 3, -1, i32::MIN, i32::MAX, 0x3fff_ffff] {
            let mut client = Client::connect(port(&running), &SERVER.user, &database);
            client.send(&[q("SELECT 1"), frame_of_length(tag, length, b"x\0")].concat());
            let words = client.last_words();
            let last = words.last().unwrap();
            let told = [b'V', b'C'].map(|code| last.field(code).unwrap_or_default());
            assert_eq!(told, ["FATAL", "08P01"], "{:?} {length}: {words:?}", char::from(tag));
        }
    }
    // Amid a copy, and amid a statement that waits.
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    client.send_query("COPY t FROM STDIN");
    client.read_up_to(b"G");
    client.send(&[copy_data("1\n"), frame_of_length(b'd', 3, b"")].concat());
    assert_eq!(client.last_words().last().unwrap().field(b'C').as_deref(), Some("08P01"));
    assert_eq!(bystander.value("SELECT 1"), "1");
    bystander.goodbye();
    wait_until_alone(&SERVER, &database);
    running.stop_now();
}

#[test]
fn first_packets_of_all_kinds() {
    let running = proxy(&SERVER, |_| {});
    let at = port(&running);
    let database = new_database(&SERVER, "hello");
    let login = startup(&SERVER.user, &database);
    let ask = |bytes: &[u8]| {
        let mut stream = socket(at);
        stream.write_all(bytes).expect("send");
        read_to_close(&mut stream)
    };
    let packet = |length: i32, code: u32, rest: &[u8]| [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat();
    let (cancel, ssl, gssenc) = (80_877_102, 80_877_103, 80_877_104);

    let mut refused: Vec<(String, Vec<u8>)> = vec![
        ("HTTP".into(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS ClientHello".into(), [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 512]].concat()),
        ("oversize".into(), packet(10_005, 196_608, &[0; 100])),
        ("huge".into(), packet(i32::MAX, 196_608, b"")),
        ("no terminator".into(), packet(13, 196_608, b"user\0")[..12].to_vec()),
        ("a cancel without a key".into(), packet(8, cancel, b"")),
        ("a cancel with half a pid".into(), packet(10, cancel, b"xx")),
    ];
    refused.extend((-2..8).map(|length| (format!("length {length}"), packet(length, 196_608, &[0; 20]))));
    refused[4].1[..4].copy_from_slice(&12_i32.to_be_bytes());
    for (name, bytes) in refused {
        let words = messages(&ask(&bytes));
        assert_eq!(words.last().and_then(|m| m.field(b'C')).as_deref(), Some("08P01"), "{name}: {words:?}");
    }
    // The server's own word on what it does not know.
    let words = messages(&ask(&packet(9, 4 << 16, b"\0")));
    assert_eq!(words[0].field(b'C').as_deref(), Some("0A000"), "{words:?}");

    // Requests for encryption, in any order; then, piece by piece, the login.
    for requests in [vec![], vec![ssl], vec![gssenc], vec![gssenc, ssl], vec![ssl, gssenc]] {
        let mut stream = socket(at);
        for code in requests {
            stream.write_all(&packet(8, code, b"")).expect("send");
            let mut answer = [0];
            stream.read_exact(&mut answer).expect("an answer");
            assert_eq!(answer, *b"N");
        }
        for byte in &login {
            stream.write_all(&[*byte]).expect("send");
        }
        stream.write_all(&[q("SELECT 1"), terminate()].concat()).expect("send");
        assert!(messages(&read_to_close(&mut stream)).iter().any(|m| m.tag == b'D'));
    }
    let flood: Vec<u8> = (0..100).flat_map(|_| packet(8, ssl, b"")).collect();
    let answer = ask(&flood);
    assert!(answer.iter().take_while(|byte| **byte == b'N').count() < 10, "{answer:?}");

    // Cancels that mean nobody: answered by nothing but the end.
    for body in [&[0, 0, 0, 1, 0, 0, 0, 0][..], &[0, 0, 0, 1], &[9; 300]] {
        let length = i32::try_from(8 + body.len()).unwrap();
        assert_eq!(ask(&packet(length, cancel, body)), b"");
    }
    // Who says nothing, or not enough.
    for n in [0, 1, 4, 7, 8, 9, login.len() - 1] {
        let mut stream = socket(at);
        stream.write_all(&login[..n]).expect("send");
    }
    // Who leaves at once after a whole login.
    for _ in 0..10 {
        let mut stream = socket(at);
        stream.write_all(&login).expect("send");
    }
    wait_until_alone(&SERVER, &database);
    assert_eq!(Client::connect(at, &SERVER.user, &database).value("SELECT 1"), "1");
    running.stop_now();
}

#[test]
fn who_sends_no_more_still_gets_an_answer() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "half");
    for bytes in [q("SELECT 1, pg_sleep(0.2)"), [run("SELECT 1, pg_sleep(0.2)"), sync()].concat()] {
        let mut client = Client::connect(port(&running), &SERVER.user, &database);
        client.send(&bytes);
        client.shut_write();
        let tags: Vec<u8> = client.last_words().iter().map(|m| m.tag).collect();
        assert!(tags.contains(&b'D') && tags.ends_with(b"CZ"), "{}", tags.escape_ascii());
    }
    // A goodbye behind DDL does not take the DDL back.
    let client = Client::connect(port(&running), &SERVER.user, &database);
    let words = messages(
        &client.play(&[&[q("CREATE TABLE t (id int)"), q("ALTER TABLE t ADD c int"), terminate()].concat()], None),
    );
    assert_eq!(words.iter().filter(|m| m.tag == b'Z').count(), 2, "{words:?}");
    wait_until_alone(&SERVER, &database);
    running.stop_now();
}

/// What the memory may grow by: buffers of both directions and the allocator's slack, in kB; far below what passes.
const GROWTH: u64 = 8 << 10;

#[test]
fn floods_do_not_fill_the_memory() {
    const MANY: usize = 64 << 20;
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "flood");
    program.client(&SERVER.user, &database).ok("CREATE TABLE t (v text)");
    let before = program.memory();

    // A result that nobody reads: the server has to wait.
    let mut client = program.client(&SERVER.user, &database);
    client.send_query("SELECT repeat('x', 1000000) FROM generate_series(1, 50)");
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let stuck =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'ClientWrite'", client.pid);
    wait_until("the server waits for the client", || watcher.value(&stuck) == "1");
    assert!(program.memory() < before + GROWTH, "{} kB became {} kB", before, program.memory());
    let read: usize = client.read_up_to(b"Z").iter().filter(|m| m.tag == b'D').map(|m| m.body.len()).sum();
    assert!(read > 50_000_000);

    // Texts and values larger than what is inspected.
    let text = "y".repeat(MANY);
    for bytes in [
        q(&format!("SELECT length('{text}') /* alter */")),
        [parse("", "SELECT length($1)"), bind("", "", &[&text]), execute("", 0), sync()].concat(),
        [parse("", &format!("SELECT length('{text}') /* alter */")), bind("", "", &[]), execute("", 0), sync()]
            .concat(),
    ] {
        client.send(&bytes);
        let outcome = client.outcome();
        assert_eq!(outcome.rows, [[Some(MANY.to_string())]], "{:?}", outcome.message);
        assert!(program.memory() < before + GROWTH, "{} kB became {} kB", before, program.memory());
    }
    client.send_query("COPY t FROM STDIN");
    client.read_up_to(b"G");
    client.send(&[copy_data(&(text + "\n")), copy_done()].concat());
    assert_eq!(client.outcome().tags, ["COPY 1"]);
    assert!(program.memory() < before + GROWTH, "{} kB became {} kB", before, program.memory());
}

#[test]
fn deep_texts_do_not_break_the_parser() {
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "deep");
    let mut client = program.client(&SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    for n in [500, 300_000] {
        for (name, text) in deep_texts(n) {
            println!("{name}, {n} deep");
            let begun = Instant::now();
            let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
            let expected = direct.query(&format!("BEGIN; {text}")).error;
            for extended in [false, true] {
                let outcome = if extended { client.execute(&text) } else { client.query(&text) };
                // What the server needs long for, the hold budget ends.
                let error = outcome.error.filter(|error| error != "57014");
                assert!(error.is_none() || error == expected, "{name} {n}: {error:?} {:?}", outcome.message);
            }
            assert!(begun.elapsed() < PATIENCE, "{name} {n}: {:?}", begun.elapsed());
        }
    }
    assert_eq!(client.value("SELECT 1"), "1");
}

/// DDL with an expression that is `n` deep, in every way the grammar offers. None of it comes to pass.
fn deep_texts(n: usize) -> Vec<(&'static str, String)> {
    let check = |expression: String| format!("ALTER TABLE t ADD CHECK ({expression}), ADD CHECK (nowhere)");
    let around = |open: &str, core: &str, close: &str| check(format!("{}{core}{}", open.repeat(n), close.repeat(n)));
    vec![
        ("parentheses", around("(", "true", ")")),
        ("open parentheses", format!("ALTER TABLE t ADD CHECK {}", "(".repeat(n))),
        ("sums", check(format!("1{} > 0", " + 1".repeat(n)))),
        ("ands", check(format!("true{}", " AND true".repeat(n)))),
        ("nots", around("NOT ", "true", "")),
        ("signs", around("- ", "1", "")),
        ("arrays", around("ARRAY[", "1", "]")),
        ("calls", around("f(", "1", ")")),
        ("cases", around("CASE WHEN true THEN ", "1", " END")),
        // Deeper casts end the server itself.
        ("casts", check(format!("1{}", "::int".repeat(n.min(5_000))))),
        ("subqueries", around("(SELECT ", "1", ")")),
        ("unions", format!("CREATE VIEW v AS SELECT nowhere{}", " UNION SELECT 1".repeat(n))),
        ("joins", format!("CREATE VIEW v AS SELECT nowhere FROM t{}", " CROSS JOIN t".repeat(n))),
        ("explains", format!("{}ALTER TABLE t ADD nowhere nowhere", "EXPLAIN ".repeat(n))),
        // PostgreSQL's lexer takes quadratic time for these.
        (
            "comments",
            format!("{0}{1}ALTER TABLE nowhere ADD c int", "/*".repeat(n.min(9_000)), "*/".repeat(n.min(9_000))),
        ),
        ("statements", format!("{}ALTER TABLE nowhere ADD c int", ";".repeat(n))),
        ("blocks", format!("DO $x${}create{}$x$", "BEGIN ".repeat(n), "END; ".repeat(n))),
    ]
}
