//! Tests of the webhook with a small receiver: what is told, that it is signed, tried again, and bounded, and what is never told.

mod common;

use common::tls::FILES;
use common::{Client, PATIENCE, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::{Address, Config, Overrides, Secret, WebUrl, WebhookEvent, WebhookSettings};
use pgsluice::dev::Postgres;
use pgsluice::metrics::Metrics;
use pgsluice::server::Running;
use pgsluice::webhook::{Event, EventChange, Webhook};
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const SECRET: &str = "hunter2_key";

/// One request: its head and its body.
struct Told {
    head: String,
    body: Vec<u8>,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The value of a header.
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Answers with these statuses, one after the other, and then with 200.
struct Receiver {
    port: u16,
    told: mpsc::Receiver<Told>,
}

fn serve(stream: &mut (impl Read + Write), status: u16, told: &mpsc::Sender<Told>) -> std::io::Result<()> {
    let mut read = Vec::new();
    let (head, length) = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        read.push(byte[0]);
        if read.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read).into_owned();
            let length =
                Told { head: head.clone(), body: Vec::new() }.header("content-length").unwrap().parse().unwrap();
            break (head, length);
        }
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    stream.write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())?;
    stream.flush()?;
    let _ = told.send(Told { head, body });
    Ok(())
}

impl Receiver {
    fn start(statuses: &'static [u16], tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, told) = mpsc::channel();
        let mut statuses = statuses.iter().copied();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let status = statuses.next().unwrap_or(200);
                let _ = match &tls {
                    None => serve(&mut stream, status, &tell),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
                        serve(&mut rustls::StreamOwned::new(session, stream), status, &tell)
                    }
                };
            }
        });
        Self { port, told }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("an event")
    }

    /// A proxy that tells this receiver.
    fn proxy(&self, tweak: impl FnOnce(&mut WebhookSettings)) -> Running {
        proxy(&SERVER, |config| {
            config.webhook.url = WebUrl::new(&format!("http://127.0.0.1:{}/hooks/hunter2_path", self.port));
            config.webhook.secret = Some(Secret::new(SECRET));
            tweak(&mut config.webhook);
        })
    }
}

/// A session in a new database with a table. To make a table is nothing that others could wait for, so it is not told.
fn client(running: &Running) -> Client {
    let database = new_database(&SERVER, "told");
    let mut client = Client::connect(port(running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    client
}

#[test]
fn ends_are_told_and_signed() {
    let receiver = Receiver::start(&[], None);
    let running = receiver.proxy(|_| {});
    let mut client = client(&running);
    client.ok("ALTER TABLE t ADD COLUMN a text DEFAULT 'hunter2_default'");
    let told = receiver.next();
    assert!(told.head.starts_with("POST /hooks/hunter2_path HTTP/1.1\r\n"), "{}", told.head);
    assert_eq!(told.header("content-type"), Some("application/json"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let digits: String = hmac::sign(&key, &told.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told.header("x-pgsluice-signature"), Some(&*format!("sha256={digits}")));
    let event = told.json();
    assert_eq!((&event["event"], &event["tag"]), (&"completed".into(), &"ALTER TABLE".into()));
    assert_eq!((&event["user"], &event["application_name"]), (&SERVER.user.as_str().into(), &"pgsluice test".into()));
    assert!(event["statement"].as_str().unwrap().starts_with("ALTER TABLE t ADD COLUMN a"), "{event}");
    assert!(!String::from_utf8_lossy(&told.body).contains("hunter2"), "{event}");
    client.query("ALTER TABLE t ADD CONSTRAINT c CHECK (a <> 'hunter2_check' AND nothing > 1)");
    let event = receiver.next().json();
    assert_eq!((&event["event"], &event["in_transaction"]), (&"failed".into(), &false.into()));
    assert_eq!(event["reason"], "42703 from the server");
    assert!(!event.to_string().contains("hunter2"), "{event}");
    // What changes no schema is not told.
    client.ok("SELECT 1");
    client.ok("BEGIN; ALTER TABLE t ADD COLUMN b int; COMMIT");
    let event = receiver.next().json();
    assert_eq!((&event["event"], &event["in_transaction"]), (&"completed".into(), &true.into()));
    running.stop();
    assert!(receiver.told.try_recv().is_err(), "nothing else was told");
}

#[test]
fn an_event_is_tried_again_until_it_is_taken() {
    let receiver = Receiver::start(&[503, 429], None);
    let running = receiver.proxy(|_| {});
    client(&running).ok("ALTER TABLE t ADD COLUMN a int");
    let [first, second, third] = [receiver.next(), receiver.next(), receiver.next()];
    assert_eq!(first.body, second.body);
    assert_eq!(first.body, third.body);
    wait_until("the event is counted", || running.shared().metrics.webhook_delivered.value() == 1);
    running.stop();
    assert!(receiver.told.try_recv().is_err());
}

#[test]
fn a_refusal_is_final() {
    let receiver = Receiver::start(&[400, 302], None);
    let running = receiver.proxy(|_| {});
    let mut client = client(&running);
    let statements = ["ALTER TABLE t ADD COLUMN a int", "ALTER TABLE t DROP COLUMN a", "DROP TABLE t"];
    statements.iter().for_each(|sql| drop(client.ok(sql)));
    let told = [receiver.next(), receiver.next(), receiver.next()].map(|told| told.json()["statement"].clone());
    assert_eq!(told, statements);
    let metrics = Arc::clone(&running.shared().metrics);
    running.stop();
    assert_eq!((metrics.webhook_failed.value(), metrics.webhook_delivered.value()), (2, 1));
}

#[test]
fn a_long_wait_is_told_once() {
    let receiver = Receiver::start(&[], None);
    let running = receiver.proxy(|webhook| {
        webhook.blocked_after = Duration::from_millis(300);
        webhook.events = vec![WebhookEvent::Blocked];
    });
    let database = new_database(&SERVER, "blocked");
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    client.ok("CREATE TABLE t (id int)");
    let mut reader = Client::connect(SERVER.port, &SERVER.user, &database);
    reader.ok("BEGIN; SELECT FROM t");
    client.send_query("ALTER TABLE t ADD COLUMN a int");
    let event = receiver.next().json();
    assert_eq!((&event["event"], &event["tag"]), (&"blocked".into(), &"ALTER TABLE".into()));
    assert!(event["seconds"].as_f64().unwrap() >= 0.3, "{event}");
    assert!(event["blocked_by"].as_str().unwrap().contains(&reader.pid.to_string()), "{event}");
    // The second one waits for its turn behind the first.
    let mut second = Client::connect(port(&running), &SERVER.user, &database);
    second.send_query("ALTER TABLE t ADD COLUMN b int");
    let event = receiver.next().json();
    assert!(event["statement"].as_str().unwrap().ends_with("ADD COLUMN b int"), "{event}");
    reader.ok("COMMIT");
    assert_eq!(client.outcome().error, None);
    assert_eq!(second.outcome().error, None);
    running.stop();
    assert!(receiver.told.try_recv().is_err(), "each wait is told once, and ends are not wanted");
}

/// Rules for a proxy with a webhook, and the console over a Unix socket of this folder.
fn held_by(running: &Receiver, folder: &Path, rule: &str) -> Running {
    let text = format!(
        "[[rule]]\nname = \"two eyes\"\nmatch = {{ relation = \"t\", family = \"column\" }}\nverdict = \"hold\"\n{rule}"
    );
    let gate = Config::parse(&text, Overrides::default()).unwrap().gate;
    proxy(&SERVER, |config| {
        config.webhook.url = WebUrl::new(&format!("http://127.0.0.1:{}/", running.port));
        config.proxy.listen.push(Address::Unix { dir: folder.to_owned(), port: 6432 });
        config.gate = gate;
    })
}

/// Says a command on the console, as this user.
fn say(folder: &Path, user: &str, command: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host_path(folder).port(6432).user(user).dbname("pgsluice");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.simple_query(command).await.unwrap_or_else(|error| panic!("{command}: {error:?}"));
    });
}

#[test]
fn held_and_approved_are_told_once_each() {
    let receiver = Receiver::start(&[], None);
    let folder = std::env::temp_dir().join(format!("pgsluice-webhook-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let running = held_by(&receiver, &folder, "wait_for = \"0\"\napprovers = 2");
    let mut client = client(&running);
    client.send_query("ALTER TABLE t ADD COLUMN a text DEFAULT 'hunter2'");
    let held = receiver.next().json();
    assert_eq!(
        (&held["event"], &held["rule"], &held["tag"]),
        (&"held".into(), &"two eyes".into(), &"ALTER TABLE".into())
    );
    assert_eq!(held["reason"], "Rule \"two eyes\" matches: the family is column, it is about public.t.");
    assert!(!held.to_string().contains("hunter2"), "{held}");
    let number = held["change"].as_u64().unwrap();
    say(&folder, "ann", &format!("APPROVE {number}"));
    say(&folder, "ben", &format!("APPROVE {number} REASON 'looks fine'"));
    let approved = receiver.next().json();
    assert_eq!((&approved["event"], &approved["change"]), (&"approved".into(), &number.into()));
    assert_eq!(approved["rule"], "two eyes");
    assert_eq!(approved["reason"], "2 of 2: ann, ben; APPROVE by ben from a Unix socket: looks fine");
    assert!(approved["seconds"].as_f64().unwrap() > 0.0, "{approved}");
    assert_eq!(client.outcome().error, None);
    assert_eq!(receiver.next().json()["event"], "completed");
    running.stop();
    assert!(receiver.told.try_recv().is_err(), "nothing else was told");
    let _ = std::fs::remove_dir_all(&folder);
}

/// A tool that tries again and again tells nobody anew, until the change was decided or is over.
#[test]
fn a_ticket_is_told_as_held_once() {
    let receiver = Receiver::start(&[], None);
    let folder = std::env::temp_dir().join(format!("pgsluice-webhook-ticket-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let running = held_by(&receiver, &folder, "wait_for = \"1ms\"");
    let mut client = client(&running);
    let sql = "ALTER TABLE t ADD COLUMN a int";
    let mut events = Vec::new();
    for _ in 0..2 {
        assert_eq!(client.query(sql).error.as_deref(), Some("55000"));
    }
    events.extend([receiver.next(), receiver.next(), receiver.next()].map(|told| told.json()));
    let number = events[0]["change"].as_u64().unwrap();
    say(&folder, "ann", &format!("FORCE {number} REASON 'night'"));
    client.ok(sql);
    events.extend([receiver.next(), receiver.next()].map(|told| told.json()));
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["held", "failed", "failed", "approved", "completed"]);
    assert_eq!(events[3]["reason"], "0 of 1; FORCE by ann from a Unix socket: night");
    running.stop();
    assert!(receiver.told.try_recv().is_err(), "nothing else was told");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn the_queue_is_bounded_and_nobody_waits() {
    let metrics = Arc::<Metrics>::default();
    let url = WebUrl::new("http://127.0.0.1:1/");
    let webhook = Webhook::new(&WebhookSettings { url, ..WebhookSettings::default() }, &metrics).unwrap();
    let change = EventChange::default();
    for _ in 0..1_000 {
        webhook.notify(&Event::new(WebhookEvent::Held, &change, Duration::ZERO));
    }
    assert_eq!(metrics.webhook_dropped.value(), 1_000 - 256);
    let off = Webhook::new(&WebhookSettings::default(), &metrics).unwrap();
    assert!(!off.wants(WebhookEvent::Held) && off.take_deliveries().is_none());
}

#[test]
fn a_receiver_that_is_silent_delays_nobody() {
    // It accepts by the system's queue and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = proxy(&SERVER, |config| {
        config.webhook.url = WebUrl::new(&format!("http://127.0.0.1:{}/", silent.local_addr().unwrap().port()));
    });
    let mut client = client(&running);
    let begun = std::time::Instant::now();
    for n in 0..20 {
        client.ok(&format!("ALTER TABLE t ADD COLUMN c{n} int"));
    }
    drop(client);
    running.stop();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

fn tls(name: &str) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_file(FILES.crt(name)).unwrap()];
    let key = PrivateKeyDer::from_pem_file(FILES.key(name)).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

#[test]
fn https_is_checked() {
    let receiver = Receiver::start(&[], Some(tls("server")));
    let to = |name: &str, ca: &str| {
        proxy(&SERVER, |config: &mut Config| {
            config.webhook.url = WebUrl::new(&format!("https://{name}:{}/x", receiver.port));
            config.webhook.ca = Some(FILES.crt(ca));
        })
    };
    let running = to("localhost", "ca");
    client(&running).ok("ALTER TABLE t ADD COLUMN a int");
    assert_eq!(receiver.next().json()["event"], "completed");
    running.stop();
    let running = to("localhost", "stranger");
    client(&running).ok("ALTER TABLE t ADD COLUMN a int");
    let metrics = Arc::clone(&running.shared().metrics);
    running.stop();
    assert_eq!(metrics.webhook_delivered.value(), 0);
    assert!(receiver.told.try_recv().is_err(), "nothing is told to whom the authority does not vouch for");
}
