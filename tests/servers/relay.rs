//! Tests of the relay on every version, without DDL: login, queries, COPY, cancel, notifications.

use crate::common::raw::{self, q, run, sync};
use crate::common::{Client, Message, port, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;

/// Protocol versions: major in the high half, minor in the low.
const V3_0: u32 = 3 << 16;
const V3_2: u32 = V3_0 + 2;

pub(crate) fn check(server: &Postgres) {
    let running = proxy(server, |_| {});
    for protocol in [V3_0, V3_2] {
        logins(server, &running, protocol);
    }
    let mut client = Client::connect(port(&running), &server.user, "postgres");
    assert_eq!(client.value("SHOW server_version_num")[..2], server.version.to_string());
    queries(&mut client);
    copies(&mut client);
    cancels(server, &running);
    notifies(server, &running);
    running.stop_now();
}

/// What the server says until it is ready, but for the pid and the key of each session.
fn logins(server: &Postgres, running: &Running, protocol: u32) {
    let [direct, proxied] = [server.port, port(running)].map(|port| login(server, port, protocol).1);
    assert_eq!(direct, proxied, "login with protocol {protocol:#x}");
    // An old server says that it speaks 3.0 only; a newer one gives longer keys.
    let (client, _) = login(server, port(running), protocol);
    let long = protocol == V3_2 && server.version >= 18;
    assert_eq!(client.key.len(), if long { 4 + 32 } else { 4 + 4 });
}

fn login(server: &Postgres, port: u16, protocol: u32) -> (Client, Vec<String>) {
    let mut packet = raw::startup(&server.user, "postgres");
    packet[4..8].copy_from_slice(&protocol.to_be_bytes());
    let (client, messages) = Client::login(port, &packet);
    let shown = |message: &Message| match message.tag {
        b'K' => format!("K {}", message.body.len()),
        _ => raw::show(message),
    };
    (client, messages.iter().map(shown).collect())
}

fn queries(client: &mut Client) {
    assert_eq!(client.ok("SELECT 1; SELECT 'zwei'").tags, ["SELECT 1", "SELECT 1"]);
    assert_eq!(client.execute("SELECT generate_series(1, 3)").tags, ["SELECT 3"]);
    let bound = [raw::parse("s", "SELECT $1::int + 1"), raw::bind("", "s", &["41"]), raw::execute("", 0), sync()];
    client.send(&bound.concat());
    assert_eq!(client.outcome().rows, [[Some("42".to_owned())]]);
    client.send(&[run("SELECT 1"), run("SELECT 1 / 0"), run("SELECT 2"), sync()].concat());
    let outcome = client.outcome();
    assert_eq!((outcome.tags.len(), outcome.error.as_deref(), outcome.status), (1, Some("22012"), 'I'));
}

fn copies(client: &mut Client) {
    client.ok("CREATE TEMP TABLE copied (id int, v text)");
    client.send(&q("COPY copied FROM STDIN"));
    assert_eq!(client.read().tag, b'G');
    let rows: String = (0..5_000).map(|n| format!("{n}\trow {n}\n")).collect();
    client.send(&[raw::copy_data(&rows), raw::copy_done()].concat());
    assert_eq!(client.outcome().tags, ["COPY 5000"]);
    client.send(&q("COPY copied FROM STDIN"));
    client.send(&raw::copy_fail("enough"));
    assert_eq!(client.outcome().error.as_deref(), Some("57014"));
    client.send(&q("COPY copied TO STDOUT"));
    let messages = client.read_up_to(b"Z");
    let data: Vec<u8> = messages.iter().filter(|m| m.tag == b'd').flat_map(|m| m.body.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&data), rows);
}

/// With keys of both lengths.
fn cancels(server: &Postgres, running: &Running) {
    let mut watcher = Client::connect(server.port, &server.user, "postgres");
    for protocol in [V3_0, V3_2] {
        let (mut client, _) = login(server, port(running), protocol);
        client.send_query("SELECT pg_sleep(60)");
        let sleeps =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'", client.pid);
        wait_until("it sleeps", || watcher.value(&sleeps) == "1");
        client.cancel(port(running));
        assert_eq!(client.outcome().error.as_deref(), Some("57014"));
        assert_eq!(client.value("SELECT 1"), "1");
    }
}

fn notifies(server: &Postgres, running: &Running) {
    let [mut listener, mut notifier] = [(); 2].map(|()| Client::connect(port(running), &server.user, "postgres"));
    listener.ok("LISTEN news");
    notifier.ok("NOTIFY news, 'hello'");
    let message = listener.read();
    assert_eq!((message.tag, &message.body[4..]), (b'A', &b"news\0hello\0"[..]));
    let pid = i32::from_be_bytes(message.body[..4].try_into().unwrap());
    assert_eq!(pid, notifier.pid);
}
