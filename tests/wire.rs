//! The corner cases of the protocol, each played directly and through the proxy. The server's bytes must be the same, except
//! for pids, keys and times. `tests/bytes.rs` and `tests/malformed.rs` have the bytes that no driver would send.

mod common;

use common::raw::{
    bind, close, copy_data, copy_done, describe, execute, flush, frame, messages, parse, q, read_to_close, run, show,
    socket, sync, terminate, transcript,
};
use common::twins::{Twins, wait_until_alone};
use common::{Client, Message, new_database, port, postgres, proxy, signal, wait_until};
use pgsluice::dev::{Options, Postgres};
use std::io::Write;
use std::sync::LazyLock;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// What it is, and the bytes up to its goodbye.
type Conversation = (&'static str, Vec<u8>);

#[test]
fn pipelines_and_their_errors() {
    let twins = Twins::new(&SERVER, "pipes", "CREATE TABLE t (id int PRIMARY KEY, v text)");
    let conversations = [pipelines(), copies(), portals_and_calls()].concat();
    for (name, mut bytes) in conversations {
        bytes.extend(terminate());
        twins.same(name, &bytes);
    }
    twins.running.stop_now();
}

fn alter(column: &str) -> Vec<u8> {
    run(&format!("ALTER TABLE t ADD COLUMN {column} int"))
}

/// int4pl(40, 2), in binary.
fn call() -> Vec<u8> {
    let call = [&177_u32.to_be_bytes()[..], &[0, 1, 0, 1, 0, 2, 0, 0, 0, 4, 0, 0, 0, 40, 0, 0, 0, 4, 0, 0, 0, 2, 0, 1]];
    frame(b'F', &call.concat())
}

fn pipelines() -> Vec<Conversation> {
    vec![
        (
            "Bind before Parse",
            [bind("", "s", &[]), parse("s", "SELECT 1"), execute("", 0), sync(), q("SELECT 2")].concat(),
        ),
        ("Execute before Bind", [parse("", "SELECT 1"), execute("", 0), bind("", "", &[]), sync()].concat()),
        (
            "Bind of a failed Parse of DDL",
            [parse("d", "ALTER TABLE"), bind("", "d", &[]), execute("", 0), sync()].concat(),
        ),
        (
            "an error, and all kinds to be skipped",
            [
                run("SELECT 1/0"),
                run("SELECT 1"),
                alter("skipped"),
                flush(),
                q("SELECT 2"),
                call(),
                copy_data("x"),
                copy_done(),
                describe(b'S', ""),
                close(b'S', ""),
                sync(),
                run("SELECT 3"),
                sync(),
            ]
            .concat(),
        ),
        ("two hundred Syncs", (0..200).flat_map(|_| sync()).collect()),
        ("a hundred pipelines", (0..100).flat_map(|n| [run(&format!("SELECT {n}")), sync()].concat()).collect()),
        (
            "DDL among pipelines",
            (0..9).flat_map(|n| [run("SELECT 1"), sync(), alter(&format!("p{n}")), sync()].concat()).collect(),
        ),
        (
            "Syncs and errors",
            (0..20).flat_map(|n| [run(&format!("SELECT 1/{}", n % 3)), run("SELECT 2"), sync()].concat()).collect(),
        ),
    ]
}

fn copies() -> Vec<Conversation> {
    vec![
        (
            "Syncs and Flushes within a copy",
            [
                run("COPY t FROM STDIN"),
                sync(),
                copy_data("1\ta\n"),
                flush(),
                copy_data("2\tb\n"),
                copy_done(),
                sync(),
                q("SELECT * FROM t ORDER BY id"),
            ]
            .concat(),
        ),
        ("a copy in the simple protocol with a Sync within", {
            [
                q("COPY t FROM STDIN"),
                copy_data("3\ta\n"),
                sync(),
                flush(),
                copy_data("4\tb\n"),
                copy_done(),
                q("TABLE t"),
            ]
            .concat()
        }),
        ("bad data, then a Sync, in the simple protocol, then DDL", {
            [q("COPY t FROM STDIN"), copy_data("bad\n"), sync(), q("ALTER TABLE t ADD COLUMN c1 int"), q("SELECT 1")]
                .concat()
        }),
        (
            "a CopyFail before its copy",
            [parse("", "SELECT 1"), frame(b'f', b"no\0"), run("SELECT 2"), sync(), alter("c2"), sync()].concat(),
        ),
        ("two copies, one Sync", {
            let copy =
                |id: u8| [run("COPY t (id) FROM STDIN"), sync(), copy_data(&format!("{id}\n")), copy_done()].concat();
            [copy(10), copy(11), sync(), q("ALTER TABLE t ADD COLUMN c3 int"), q("SELECT 1")].concat()
        }),
    ]
}

fn portals_and_calls() -> Vec<Conversation> {
    vec![
        (
            "a portal, suspended, in a block, over Syncs",
            [
                run("BEGIN"),
                parse("", "SELECT generate_series(1, 7)"),
                bind("p", "", &[]),
                execute("p", 3),
                sync(),
                execute("p", 3),
                sync(),
                alter("c4"),
                execute("p", 3),
                execute("p", 3),
                close(b'P', "p"),
                execute("p", 1),
                sync(),
                run("COMMIT"),
                sync(),
            ]
            .concat(),
        ),
        (
            "a portal that is gone at Sync",
            [parse("", "SELECT 1"), bind("p", "", &[]), sync(), execute("p", 0), sync()].concat(),
        ),
        ("calls within a pipeline", [run("SELECT 1"), call(), run("SELECT 2"), sync()].concat()),
        ("a call in a failed block", [q("BEGIN"), q("SELECT 1/0"), call(), q("ROLLBACK"), call()].concat()),
        ("calls and DDL", [call(), q("ALTER TABLE t ADD COLUMN c5 int"), call(), call()].concat()),
        ("an unknown message amid a pipeline", [run("SELECT 1"), frame(b'!', b""), sync()].concat()),
        (
            "an unknown message behind DDL",
            [q("ALTER TABLE t ADD COLUMN c6 int"), frame(b'v', b"x"), q("SELECT 1")].concat(),
        ),
    ]
}

#[test]
fn flush_without_sync_is_answered() {
    let twins = Twins::new(&SERVER, "flush", "CREATE TABLE t (id int)");
    twins.same_talk("Flush", |mut client, _| {
        let mut seen = Vec::new();
        for (bytes, last) in [
            ([parse("s", "SELECT 1"), describe(b'S', "s"), flush()].concat(), b"T"),
            ([bind("", "s", &[]), execute("", 0), flush()].concat(), b"C"),
            ([parse("", "INSERT INTO t VALUES ($1)"), describe(b'S', ""), flush()].concat(), b"n"),
            ([bind("", "", &["1"]), execute("", 0), flush()].concat(), b"C"),
            (sync(), b"Z"),
            // An error needs no Flush.
            (run("SELECT 1/0"), b"E"),
            (sync(), b"Z"),
        ] {
            client.send(&bytes);
            seen.extend(client.read_up_to(last));
        }
        lines(&seen)
    });
    twins.running.stop_now();
}

fn lines(messages: &[Message]) -> String {
    messages.iter().map(|message| show(message) + "\n").collect()
}

/// A startup packet with any protocol and any parameters.
fn startup(protocol: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = protocol.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

/// What a whole connection brings: pid and key by their length alone.
fn connection(port: u16, bytes: &[u8]) -> String {
    let mut stream = socket(port);
    // Whoever is refused may be cut off before all of it is sent.
    let _ = stream.write_all(bytes);
    let shown = |message: &Message| match message.tag {
        b'K' => format!("K of {} bytes\n", message.body.len()),
        _ => show(message) + "\n",
    };
    messages(&read_to_close(&mut stream)).iter().map(shown).collect()
}

#[test]
fn startup_packets_of_every_protocol() {
    let twins = Twins::new(&SERVER, "start", "SELECT 1");
    let user = SERVER.user.as_str();
    let minor = |n: u32| 196_608 + n;
    let replication = |value: &'static str| vec![("replication", value)];
    let cases = [
        ("3.0", minor(0), vec![]),
        ("3.0 with an option of the protocol", minor(0), vec![("_pq_.what", "1")]),
        ("3.1", minor(1), vec![]),
        ("3.2", minor(2), vec![]),
        ("3.2 with options of the protocol", minor(2), vec![("_pq_.a", "x"), ("_pq_.b", "")]),
        ("3.9999, as libpq greases", minor(9999), vec![("_pq_.test_protocol_negotiation", "")]),
        ("2.0", 2 << 16, vec![]),
        ("4.0", 4 << 16, vec![]),
        (
            "settings",
            minor(0),
            vec![("search_path", "a, b"), ("extra_float_digits", "2"), ("client_encoding", "LATIN1")],
        ),
        ("options", minor(0), vec![("options", "-c search_path=a\\ b -c statement_timeout=5s")]),
        ("a setting that is none", minor(0), vec![("no_such_thing", "1")]),
        ("options that are none", minor(0), vec![("options", "-Q")]),
        ("replication, physical", minor(0), replication("true")),
        ("replication, logical", minor(0), replication("database")),
        ("replication, odd", minor(0), replication("maybe")),
    ];
    for (name, protocol, more) in cases {
        let [direct, proxied] = twins.ways().map(|(port, database)| {
            // The same name for both, where the server says it.
            let parameters = [vec![("user", user), ("database", database)], more.clone()].concat();
            let bytes =
                [startup(protocol, &parameters), q("SHOW search_path"), q("IDENTIFY_SYSTEM"), terminate()].concat();
            connection(port, &bytes).replace(database, "database")
        });
        // Where the write-ahead log stands is a time.
        let timeless = |text: &str| {
            text.lines().filter(|line| !line.contains("systemid") && !line.contains('/')).collect::<Vec<_>>().join("\n")
        };
        assert!(!direct.is_empty());
        assert_eq!(timeless(&direct), timeless(&proxied), "{name}");
    }
    for (name, parameters) in [
        ("no user", vec![("database", "postgres")]),
        ("nobody", vec![("user", "nobody")]),
        ("nowhere", vec![("user", user), ("database", "nowhere")]),
        ("nothing", vec![]),
        ("the last user counts", vec![("user", "nobody"), ("user", user), ("database", "postgres")]),
    ] {
        let bytes = [startup(minor(0), &parameters), q("SELECT current_user"), terminate()].concat();
        let [direct, proxied] = twins.ways().map(|(port, _)| connection(port, &bytes));
        assert!(!direct.is_empty());
        assert_eq!(direct, proxied, "{name}");
    }
    twins.running.stop_now();
}

/// What a client sends ahead of its session is done, in its order, and looked at like anything later.
#[test]
fn what_is_sent_ahead_of_the_login() {
    let twins = Twins::new(&SERVER, "ahead", "CREATE TABLE t (id int)");
    for (name, ahead) in [
        ("a Query", q("ALTER TABLE t ADD COLUMN a int")),
        ("a pipeline", [run("ALTER TABLE t ADD COLUMN b int"), sync()].concat()),
        ("much", (0..2000).flat_map(|n| q(&format!("SELECT {n}"))).collect()),
        ("a goodbye", vec![]),
        ("a password too many", [frame(b'p', b"x\0"), q("SELECT 1")].concat()),
    ] {
        let [direct, proxied] = twins.ways().map(|(port, database)| {
            let login = startup(196_608, &[("user", SERVER.user.as_str()), ("database", database)]);
            connection(port, &[login, ahead.clone(), terminate()].concat())
        });
        assert_eq!(direct, proxied, "{name}");
    }
    assert_eq!(twins.running.shared().metrics.ddl_seen.value(), 2);
    twins.running.stop_now();
}

#[test]
fn cancels_of_any_length() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "cancels");
    for at in [SERVER.port, port(&running)] {
        let mut client = Client::connect(at, &SERVER.user, &database);
        client.send_query("SELECT pg_sleep(600)");
        let key = client.key.clone();
        let wrong = [&key[..4], &[key[4] ^ 1], &key[5..]].concat();
        let long = [&key[..], &[0; 248]].concat();
        for request in [&key[..4], &key[..7], &wrong, &long] {
            let mut packet = u32::try_from(8 + request.len()).unwrap().to_be_bytes().to_vec();
            packet.extend([&80_877_102_u32.to_be_bytes()[..], request].concat());
            let mut stream = socket(at);
            stream.write_all(&packet).expect("send");
            assert_eq!(read_to_close(&mut stream), b"", "{} bytes", request.len());
        }
        wait_until_asleep(&SERVER, &client);
        client.cancel(at);
        assert_eq!(client.outcome().error.as_deref(), Some("57014"));
        assert_eq!(client.value("SELECT 1"), "1");
    }
    wait_until_alone(&SERVER, &database);
    running.stop_now();
}

fn wait_until_asleep(server: &Postgres, client: &Client) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'", client.pid);
    let mut watcher = Client::connect(server.port, &server.user, "postgres");
    wait_until("it sleeps", || watcher.value(&sql) == "1");
}

#[test]
fn what_comes_unasked() {
    let twins = Twins::new(&SERVER, "unasked", "SELECT 1");
    twins.same_talk("a notification to who is idle", |mut client, database| {
        client.ok("LISTEN here");
        Client::connect(SERVER.port, &SERVER.user, database).ok("NOTIFY here, 'word'");
        show(&client.read())
    });
    twins.same_talk("a notification amid a block comes at its end", |mut client, database| {
        client.ok("LISTEN here; LISTEN there");
        client.ok("BEGIN");
        Client::connect(SERVER.port, &SERVER.user, database).ok("NOTIFY here, 'word'; NOTIFY there");
        client.send_query("COMMIT");
        client.send_query("SELECT 1");
        let seen = [client.read_up_to(b"Z"), client.read_up_to(b"D")].concat();
        // Before or behind ReadyForQuery: as the signal met the server.
        let mut seen: Vec<String> = seen.iter().map(show).collect();
        seen.sort();
        seen.join("\n")
    });
    twins.same_talk("a setting that the server reloads", |mut client, database| {
        let mut admin = Client::connect(SERVER.port, &SERVER.user, database);
        admin.ok(&format!("ALTER ROLE {} IN DATABASE {database} SET search_path = x", SERVER.user));
        client.ok("SET DateStyle = 'German'");
        client.send_query("RESET DateStyle");
        lines(&client.read_up_to(b"Z"))
    });
    for (name, sql) in [
        ("idle too long", "SET idle_session_timeout = 50"),
        ("idle in a transaction too long", "SET idle_in_transaction_session_timeout = 50; BEGIN"),
    ] {
        twins.same_talk(name, |mut client, _| {
            client.ok(sql);
            let words = lines(&client.last_words());
            assert!(words.contains("VFATAL"), "{words}");
            words
        });
    }
    for (name, setup) in [("terminated", "SELECT 1"), ("terminated in a block", "BEGIN"), ("while it sleeps", "")] {
        twins.same_talk(name, |mut client, _| {
            match setup {
                "" => {
                    client.send_query("SELECT pg_sleep(600)");
                    wait_until_asleep(&SERVER, &client);
                }
                _ => drop(client.ok(setup)),
            }
            Client::connect(SERVER.port, &SERVER.user, "postgres")
                .ok(&format!("SELECT pg_terminate_backend({})", client.pid));
            let words = lines(&client.last_words());
            assert!(words.contains("C57P01"), "{words}");
            words
        });
    }
    twins.running.stop_now();
}

/// A server that stops, or crashes, says so to everybody.
#[test]
fn the_servers_last_words() {
    for (how, code) in [("a fast stop", "57P01"), ("an immediate stop", "57P01"), ("a crash", "57P02")] {
        // A backend's word on a crash comes from a signal handler: it is tried, not promised.
        let tries = if how == "a crash" { 3 } else { 1 };
        let mut seen = (0..tries).map(|_| last_words_of_a_server(how));
        let (direct, proxied) =
            seen.find(|(direct, proxied)| direct == proxied).unwrap_or_else(|| last_words_of_a_server(how));
        assert!(direct.iter().all(|words| words.contains(&format!("C{code}"))), "{direct:?}");
        assert_eq!(direct, proxied, "{how}");
    }
}

/// What three sessions hear directly, and three through the proxy.
fn last_words_of_a_server(how: &str) -> ([String; 3], [String; 3]) {
    let server = Postgres::start(Options::default()).expect("a throw-away server");
    let running = proxy(&server, |_| {});
    let connect = |at: u16| {
        let idle = Client::connect(at, &server.user, "postgres");
        let mut busy = Client::connect(at, &server.user, "postgres");
        busy.send_query("SELECT 1; SELECT pg_sleep(600)");
        wait_until_asleep(&server, &busy);
        let mut amid = Client::connect(at, &server.user, "postgres");
        amid.ok("BEGIN");
        [idle, busy, amid]
    };
    let [direct, proxied] = [server.port, port(&running)].map(connect);
    let [fast, immediate] = [how == "a fast stop", how == "an immediate stop"];
    match Client::connect(server.port, &server.user, "postgres").pid {
        _ if fast => signal(server.pid, "INT"),
        _ if immediate => signal(server.pid, "QUIT"),
        pid => signal(u32::try_from(pid).unwrap(), "KILL"),
    }
    let words = |clients: [Client; 3]| clients.map(|mut client| transcript(&read_to_close(&mut client.stream)));
    let heard = (words(direct), words(proxied));
    running.stop_now();
    heard
}
