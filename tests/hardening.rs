//! Tests against hostile and broken peers, as a DBA would try them: peers that do not read, that connect by the thousand,
//! that are cut off anywhere, and that send cancels in a storm. The proxy keeps its memory, its descriptors and every other
//! session's work. `tests/secrets.rs` has the tests of secrets.

#[path = "hardening/cancels.rs"]
mod cancels;
mod common;

use common::program::Program;
use common::raw::{
    bind, close, copy_data, copy_done, execute, frame, parse, q, read_to_close, reset, run, socket, startup, sync,
};
use common::twins::wait_until_alone;
use common::{Client, Message, new_database, port, postgres, proxy, signal, wait_until};
use pgsluice::dev::{Options, Postgres};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// One server for most; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// What the memory may grow by, in kB: buffers of both directions and the allocator's slack; far below what passes.
const GROWTH: u64 = 8 << 10;

#[track_caller]
fn assert_small(program: &Program, before: u64, what: &str) {
    let now = program.memory();
    assert!(now < before + GROWTH, "{what}: {before} kB became {now} kB");
}

#[test]
fn who_does_not_read_makes_the_server_wait() {
    const READERS: usize = 8;
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "lazy");
    drop(program.client(&SERVER.user, &database));
    let before = program.memory();
    let mut clients: Vec<Client> = (0..READERS).map(|_| program.client(&SERVER.user, &database)).collect();
    for client in &mut clients {
        client.send_query("SELECT repeat('x', 100000) FROM generate_series(1, 500)");
    }
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let stuck =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'ClientWrite'");
    wait_until("the servers wait", || watcher.value(&stuck) == READERS.to_string());
    assert_small(&program, before, "nobody reads");
    // One of them has not lost a byte; the others leave in the middle.
    let read: usize =
        clients.pop().unwrap().read_up_to(b"Z").iter().filter(|m| m.tag == b'D').map(|m| m.body.len()).sum();
    assert_eq!(read, 500 * 100_006);
    drop(clients);
    wait_until_alone(&SERVER, &database);
    assert_small(&program, before, "all have left");
}

/// Writes the same again until the other side has taken nothing for a while, or `most` bytes; gives how many it took.
fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8], most: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < most {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(n) => sent += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

#[test]
fn a_server_that_does_not_read_makes_the_client_wait() {
    const MOST: usize = 256 << 20;
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "slow");
    let mut client = program.client(&SERVER.user, &database);
    client.ok("CREATE TABLE t (v text)");
    let before = program.memory();
    client.send_query("COPY t FROM STDIN");
    client.read_up_to(b"G");
    let backend = u32::try_from(client.pid).unwrap();
    signal(backend, "STOP");
    let row = copy_data(&("y".repeat(99_994) + "\n"));
    assert_eq!(row.len(), 100_000);
    let sent = write_until_stuck(&mut client.stream, &row, MOST);
    let grown = program.memory();
    signal(backend, "CONT");
    assert!(sent < MOST, "all was taken, and by nobody");
    assert!(grown < before + GROWTH, "{before} kB became {grown} kB, for {sent} bytes");
    // It goes on where it was.
    client.stream.set_write_timeout(Some(common::PATIENCE)).unwrap();
    let rest = sent % row.len();
    if rest > 0 {
        client.send(&row[rest..]);
    }
    client.send(&copy_done());
    assert_eq!(client.outcome().tags, [format!("COPY {}", sent.div_ceil(row.len()))]);
    assert_small(&program, before, "all is there");
}

/// Before the login nothing is kept for anybody but the bytes of one read.
#[test]
fn without_a_login_nothing_is_collected() {
    const CLIENTS: usize = 25;
    let server = strict();
    let program = Program::start(&server);
    let before = program.memory();
    let almost = {
        let mut query = q(&"x".repeat(4_000_000));
        query.truncate(3_900_000);
        query
    };
    let open: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = socket(program.port);
            stream.write_all(&startup("by_scram", "postgres")).expect("send");
            // The server refuses it as soon as it sees what it is.
            let _ = stream.write_all(&almost);
            stream
        })
        .collect();
    for mut stream in open {
        assert_small(&program, before, "not logged in");
        drop(stream.write_all(b"x"));
        read_to_close(&mut stream);
    }
    assert_small(&program, before, "all were refused");
}

/// A server whose role `by_scram` needs a password.
fn strict() -> Postgres {
    let server = Postgres::start(Options::default()).expect("a throw-away server");
    let mut admin = Client::connect(server.port, &server.user, "postgres");
    admin.ok("CREATE ROLE by_scram LOGIN PASSWORD 'x'");
    let path = server.data_dir.join("pg_hba.conf");
    let old = std::fs::read_to_string(&path).expect("pg_hba.conf");
    std::fs::write(&path, format!("host all by_scram all scram-sha-256\n{old}")).expect("pg_hba.conf");
    admin.ok("SELECT pg_reload_conf()");
    server
}

/// A session that waits for `t`, which `reader` holds, to add a column to it.
fn waiting(program: &Program, database: &str) -> (Client, Client) {
    let mut reader = Client::connect(SERVER.port, &SERVER.user, database);
    reader.ok("CREATE TABLE t (id int)");
    reader.ok("BEGIN; SELECT * FROM t");
    let mut client = program.client(&SERVER.user, database);
    client.ok("LISTEN here");
    client.send_query("ALTER TABLE t ADD COLUMN a int");
    client.read_up_to(b"N");
    (client, reader)
}

const NOTIFIED: &str = "SELECT pg_notify('here', i || ' ' || repeat('x', 7900)) FROM generate_series(1, 8000) AS i";

fn number(notification: &Message) -> usize {
    let payload = notification.body.rsplit(|b| *b == 0).nth(1).expect("a payload");
    String::from_utf8_lossy(payload).split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn notifications_during_a_wait_have_a_limit() {
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "notified");
    let (mut client, mut reader) = waiting(&program, &database);
    let before = program.memory();
    let mut other = Client::connect(SERVER.port, &SERVER.user, &database);
    other.ok(NOTIFIED);
    // The client does not read: then the server waits, as for any client.
    let stuck =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'ClientWrite'", client.pid);
    wait_until("the server waits", || other.value(&stuck) == "1");
    // All but the last megabyte comes while the change still waits; nothing is lost, nothing overtakes.
    let mut came = 0;
    while came < 7800 {
        let message = client.read();
        if message.tag == b'A' {
            came += 1;
            assert_eq!(number(&message), came);
        }
    }
    let peak = program.peak();
    assert!(peak < before + GROWTH, "{before} kB became {peak} kB");
    reader.ok("COMMIT");
    let rest = client.read_up_to(b"Z");
    let notified = rest.iter().filter(|message| message.tag == b'A').map(number);
    assert!(notified.eq(came + 1..=8000), "the rest");
    let tags: Vec<String> = rest.iter().filter(|m| m.tag == b'C').map(Message::text).collect();
    assert_eq!(tags, ["ALTER TABLE"]);
}

#[test]
fn who_leaves_while_notifications_wait_leaves_nothing() {
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "left");
    let (client, mut reader) = waiting(&program, &database);
    let mut other = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let pid = client.pid;
    Client::connect(SERVER.port, &SERVER.user, &database).ok(NOTIFIED);
    let stuck = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'ClientWrite'");
    wait_until("the server waits", || other.value(&stuck) == "1");
    client.reset();
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("its backend is gone", || other.value(&there) == "0");
    reader.ok("COMMIT");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'";
    assert_eq!(reader.value(columns), "0", "nobody wants it any more");
}

/// Portals that are bound and never executed: the server forgets them with their transaction, the proxy is not told.
#[test]
fn what_is_prepared_has_a_limit() {
    const PORTALS: usize = 20_000;
    let program = Program::with(&SERVER, "[ddl]\nprepared_limit = \"1MB\"\n");
    let database = new_database(&SERVER, "prepared");
    let mut client = program.client(&SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    let before = program.memory();
    // Prepared last, and still followed: it is answered at once, where a relayed one would wait for the reader.
    // The server tells names apart by their first 63 bytes.
    let name = |number: usize| format!("{number:060}{}", "x".repeat(940));
    let statement = "ALTER TABLE t ADD COLUMN IF NOT EXISTS id int";
    for at in 0..PORTALS {
        if at % 100 == 0 {
            client.send(&[close(b'S', "s"), parse("s", statement)].concat());
        }
        client.send(&[bind(&name(at), "s", &[]), sync()].concat());
        client.read_up_to(b"Z");
    }
    assert_small(&program, before, "many portals");
    let mut reader = Client::connect(SERVER.port, &SERVER.user, &database);
    reader.ok("BEGIN; SELECT * FROM t");
    client.send(&[bind("last", "s", &[]), execute("last", 0), sync()].concat());
    assert_eq!(client.outcome().tags, ["ALTER TABLE"]);
    // So with statements, which the server keeps.
    let before = program.memory();
    for at in 0..PORTALS / 20 {
        let text = format!("ALTER TABLE t ADD COLUMN IF NOT EXISTS id int DEFAULT length('{}')", "x".repeat(20_000));
        client.send(&[parse(&name(at), &text), sync()].concat());
        client.read_up_to(b"Z");
    }
    assert_small(&program, before, "many statements");
    let mut strict = Program::with(&SERVER, "[ddl]\nprepared_limit = \"64kB\"\noversize = \"refuse\"\n");
    for bound in [false, true] {
        let mut client = strict.client(&SERVER.user, &database);
        client.send(&parse("s", statement));
        for at in 0..100 {
            let next = if bound { bind(&name(at), "s", &[]) } else { parse(&name(at), statement) };
            // It may be cut off before all of it is sent.
            drop(client.stream.write_all(&next));
        }
        let words = client.last_words();
        assert_eq!(words.last().and_then(|word| word.field(b'C')).as_deref(), Some("53400"), "{words:?}");
    }
    strict.signal("TERM");
    assert!(strict.wait().success());
    assert!(strict.log().contains("ddl_refused=2"), "{}", strict.log());
}

#[test]
fn comings_and_goings_leave_nothing() {
    const BARE: usize = 3000;
    const LOGINS: usize = 300;
    /// Kilobytes: less than 350 bytes of each connection.
    const LEAK: u64 = 1 << 10;
    let program = Program::start(&SERVER);
    let database = new_database(&SERVER, "goings");
    let hello = startup(&SERVER.user, &database);
    let bare = |n: usize| {
        let mut stream = socket(program.port);
        // Nothing, a part, a request for encryption, garbage.
        let parts: [&[u8]; 5] = [b"", &hello[..3], &hello[..20], &[0, 0, 0, 8, 4, 210, 22, 47], b"GET / HTTP/1.1\r\n"];
        drop(stream.write_all(parts[n % parts.len()]));
        if n.is_multiple_of(3) {
            reset(stream);
        }
    };
    let login = |n: usize| {
        let mut client = program.client(&SERVER.user, &database);
        match n % 4 {
            0 => client.goodbye(),
            1 => client.reset(),
            2 => client.send_query("SELECT 1"),
            _ => drop(client.query("CREATE TEMP TABLE t (id int)")),
        }
    };
    // What is needed once is there: runtimes, buffers, the parser.
    (0..100).for_each(&bare);
    (0..20).for_each(&login);
    wait_until_alone(&SERVER, &database);
    let descriptors = settled_descriptors(&program, None);
    let mut grown = Vec::new();
    // A leak is there in every round; what the allocator keeps of a crowd, in one.
    while grown.iter().all(|grown| *grown >= LEAK) && grown.len() < 4 {
        let memory = program.memory();
        (0..BARE).for_each(bare);
        (0..LOGINS).for_each(login);
        wait_until_alone(&SERVER, &database);
        settled_descriptors(&program, Some(descriptors));
        grown.push(program.memory().saturating_sub(memory));
    }
    assert!(
        grown.iter().any(|grown| *grown < LEAK),
        "{grown:?} kB more in each round of {BARE} connections and {LOGINS} logins"
    );
    assert_eq!(program.client(&SERVER.user, &database).value("SELECT 1"), "1");
}

/// The number of open descriptors, once it is what it was, or does not change any more.
fn settled_descriptors(program: &Program, wanted: Option<usize>) -> usize {
    let mut last = program.descriptors();
    wait_until("the descriptors are closed", || {
        let before = std::mem::replace(&mut last, program.descriptors());
        wanted.map_or(before == last, |wanted| last <= wanted)
    });
    last
}

#[test]
fn a_peer_that_stops_reading_during_a_drain_is_cut_off() {
    let mut program = Program::with_proxy(&SERVER, "drain_grace = \"1s\"", "");
    let database = new_database(&SERVER, "drain");
    let mut deaf = program.client(&SERVER.user, &database);
    deaf.send_query("SELECT repeat('x', 100000) FROM generate_series(1, 500)");
    let idle = program.client(&SERVER.user, &database);
    // Whoever has said nothing yet has no session to end.
    let mut silent = socket(program.port);
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let stuck =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'ClientWrite'", deaf.pid);
    wait_until("the server waits", || watcher.value(&stuck) == "1");
    let begun = Instant::now();
    program.signal("TERM");
    let words = idle.last_words();
    assert_eq!(words.last().and_then(|word| word.field(b'C')).as_deref(), Some("57P01"));
    assert!(program.wait().success());
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(12)).contains(&took), "{took:?}");
    wait_until_alone(&SERVER, &database);
    assert!(program.log().contains("the grace time is over"), "{}", program.log());
    assert_eq!(read_to_close(&mut silent), b"");
}

#[test]
fn a_reset_anywhere_leaves_nothing() {
    // So that the server looks after its client while it works.
    let server = Postgres::start(Options::default().setting("client_connection_check_interval", "100ms"))
        .expect("a throw-away server");
    let program = Program::start(&server);
    let database = new_database(&server, "resets");
    Client::connect(server.port, &server.user, &database).ok("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let hello = startup(&server.user, &database);
    let large = copy_data(&"1\n".repeat(50_000));
    drop(program.client(&server.user, &database));
    wait_until_alone(&server, &database);
    let descriptors = settled_descriptors(&program, None);
    let mut half_frame = frame(b'd', &[b'x'; 1000]);
    half_frame.truncate(500);
    let stages: Vec<(&str, Vec<u8>)> = vec![
        ("a query", q("SELECT pg_sleep(600)")),
        ("a pipeline", [run("SELECT 1"), run("SELECT pg_sleep(600)"), sync()].concat()),
        ("a block that holds a lock", [q("BEGIN; LOCK TABLE t"), q("SELECT pg_sleep(600)")].concat()),
        ("a result", q("SELECT repeat('x', 100000) FROM generate_series(1, 500)")),
        ("a copy in", [q("COPY t FROM STDIN"), large].concat()),
        ("a frame of a copy in", [q("COPY t FROM STDIN"), half_frame].concat()),
        ("a copy in by the extended protocol", [run("COPY t FROM STDIN"), sync(), copy_data("1\ta\n")].concat()),
        ("a copy out", q("COPY (SELECT repeat('x', 100000) FROM generate_series(1, 500)) TO STDOUT")),
        ("a header", q("SELECT 1")[..3].to_vec()),
        ("a Query of DDL", q("ALTER TABLE t ADD COLUMN a int")[..20].to_vec()),
        ("a schema change", q("ALTER TABLE t ADD COLUMN IF NOT EXISTS b int")),
    ];
    for (name, bytes) in stages {
        for _ in 0..3 {
            let mut client = program.client(&server.user, &database);
            client.send(&bytes);
            client.reset();
        }
        println!("{name}");
        wait_until_alone(&server, &database);
    }
    for at in [1, 4, 8, hello.len() - 1, hello.len()] {
        let mut stream = socket(program.port);
        stream.write_all(&hello[..at]).expect("send");
        reset(stream);
    }
    wait_until_alone(&server, &database);
    settled_descriptors(&program, Some(descriptors));
    let mut client = program.client(&server.user, &database);
    assert_eq!(client.value("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass"), "0");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
}

/// In Shift-JIS half a character can be a backslash: what looks like one string is a string and a statement.
#[test]
fn other_encodings_are_read_as_the_server_reads_them() {
    let text = b"SELECT E'\xc3\x83\\'; ALTER TABLE t ADD COLUMN a int; --'";
    assert_eq!(pgsluice::sql::parse(std::str::from_utf8(text).expect("UTF-8 too")).map(|all| all.len()), Ok(1));
    let running = proxy(&SERVER, |config| config.ddl.unparsable = pgsluice::config::Fallback::Refuse);
    let database = new_database(&SERVER, "sjis");
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int); SET client_encoding = SJIS");
    let metrics = &running.shared().metrics;
    let before = metrics.ddl_seen.value();
    client.send(&frame(b'Q', &[&text[..], b"\0"].concat()));
    assert_eq!(client.outcome().error, None);
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'";
    assert_eq!(client.value(columns), "1", "the server reads two statements");
    assert_eq!((metrics.texts_unparsable.value(), metrics.ddl_seen.value()), (0, before + 1));
    // What is ASCII alone is the same in all of them.
    client.ok("ALTER TABLE t ADD COLUMN b int");
    assert_eq!(metrics.ddl_seen.value(), before + 2);
}
