//! The tools of every test against a real server: a server, a proxy in front of it, and a client that sees every byte.
//!
//! The client speaks the protocol with plain blocking sockets. A test can therefore send what no driver would, and see tags,
//! SQLSTATEs and notices as they came.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of this"
)]

pub mod end;
pub mod program;
pub mod raw;
pub mod stop;
pub mod tls;
pub mod twins;
pub mod versions;

use bytes::BytesMut;
use pgsluice::config::{Address, Config, Io};
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::{self, Running};
use pgsluice::wire::message::{put_frame, put_query};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// No answer takes this long, unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn postgres() -> Postgres {
    Postgres::start(Options::default().setting("max_prepared_transactions", "10")).expect("a throw-away server")
}

/// A proxy in front of `postgres`, on a free port, with the settings that `tweak` makes.
pub fn proxy(postgres: &Postgres, tweak: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config::default();
    config.proxy.listen = vec![Address::tcp("127.0.0.1", 0)];
    config.proxy.backend = Address::tcp("127.0.0.1", postgres.port);
    config.proxy.workers = 2;
    config.proxy.io = io();
    tweak(&mut config);
    server::spawn(config).expect("a proxy")
}

/// For [`proxy`]: every table is treated as a large one, and EXCLUDE runs with a WARNING.
pub fn no_table_is_small(config: &mut Config) {
    config.ddl.small_table = 0;
    config.ddl.exclude = pgsluice::config::Unsafe::Warn;
}

/// How the proxies of this run read and write: `PGSLUICE_TEST_IO`, as `io` in `[proxy]`; without it by io_uring from the
/// first session on, if the system allows it.
pub fn io() -> Io {
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        let mut config = Config::default();
        config.proxy.listen = vec![Address::tcp("127.0.0.1", 0)];
        config.proxy.io = Io::IoUring;
        server::spawn(config).map(Running::stop_now).is_ok()
    });
    match std::env::var("PGSLUICE_TEST_IO") {
        Ok(word) => Io::from_word(&word).expect("PGSLUICE_TEST_IO is auto, epoll or io_uring"),
        Err(_) if *ALLOWED => Io::IoUring,
        Err(_) => Io::Auto,
    }
}

pub fn port(running: &Running) -> u16 {
    running.address().port()
}

/// Makes a new empty database, and gives its name.
pub fn new_database(postgres: &Postgres, prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    admin.ok(&format!("CREATE DATABASE {name} TEMPLATE template0"));
    name
}

/// Drops what [`new_database`] made, whoever is still connected.
pub fn drop_database(postgres: &Postgres, name: &str) {
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    // Sessions of a proxy may take a moment to end.
    wait_until("nobody uses the database", || admin.query(&format!("DROP DATABASE {name}")).error.is_none());
}

/// One message of the backend's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|b| *b == 0)
            .find(|f| f.first() == Some(&code))
            .map(|f| String::from_utf8_lossy(&f[1..]).into_owned())
    }

    /// CommandComplete's tag.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
    }

    /// DataRow's values as text.
    pub fn values(&self) -> Vec<Option<String>> {
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(n) => {
                    values.push(Some(String::from_utf8_lossy(&tail[..n]).into_owned()));
                    rest = &tail[n..];
                }
                Err(_) => {
                    values.push(None);
                    rest = tail;
                }
            }
        }
        values
    }
}

/// What one string of SQL brought, up to ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    pub tags: Vec<String>,
    /// SQLSTATE of the error, if any.
    pub error: Option<String>,
    pub message: Option<String>,
    /// `SEVERITY SQLSTATE message`
    pub notices: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
    /// I, T or E
    pub status: char,
}

/// A session over plain TCP.
pub struct Client {
    pub stream: TcpStream,
    pub pid: i32,
    pub key: Vec<u8>,
}

pub fn startup_packet(user: &str, database: &str) -> Vec<u8> {
    let body = format!("user\0{user}\0database\0{database}\0application_name\0pgsluice test\0\0");
    let mut packet = (8 + body.len() as u32).to_be_bytes().to_vec();
    packet.extend(196_608_u32.to_be_bytes());
    packet.extend(body.as_bytes());
    packet
}

impl Client {
    pub fn connect(port: u16, user: &str, database: &str) -> Self {
        Self::login(port, &startup_packet(user, database)).0
    }

    /// Logs in with any startup packet; all that came until the server was ready.
    pub fn login(port: u16, packet: &[u8]) -> (Self, Vec<Message>) {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut client = Self { stream, pid: 0, key: Vec::new() };
        client.send(packet);
        let mut messages = Vec::new();
        loop {
            let message = client.read();
            match message.tag {
                b'K' => {
                    client.pid = i32::from_be_bytes(message.body[..4].try_into().expect("pid"));
                    client.key.clone_from(&message.body);
                }
                b'E' => panic!("login failed: {:?}", message.field(b'M')),
                _ => {}
            }
            let ready = message.tag == b'Z';
            messages.push(message);
            if ready {
                return (client, messages);
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    pub fn read(&mut self) -> Message {
        self.try_read().expect("a message of the backend's")
    }

    /// `None`: the connection was closed.
    pub fn try_read(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes(header[1..].try_into().expect("length")) as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some(Message { tag: header[0], body })
    }

    /// Everything up to ReadyForQuery.
    pub fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let message = self.read();
            match message.tag {
                b'C' => outcome.tags.push(message.text()),
                b'I' => outcome.tags.push(String::new()),
                b'D' => outcome.rows.push(message.values()),
                b'N' => outcome.notices.push(format!(
                    "{} {} {}",
                    message.field(b'V').unwrap_or_default(),
                    message.field(b'C').unwrap_or_default(),
                    message.field(b'M').unwrap_or_default()
                )),
                b'E' => {
                    outcome.error = message.field(b'C');
                    outcome.message = message.field(b'M');
                }
                b'Z' => {
                    outcome.status = char::from(message.body[0]);
                    return outcome;
                }
                _ => {}
            }
        }
    }

    pub fn send_query(&mut self, sql: &str) {
        let mut out = BytesMut::new();
        put_query(&mut out, sql.as_bytes());
        self.send(&out);
    }

    /// One simple Query.
    pub fn query(&mut self, sql: &str) -> Outcome {
        self.send_query(sql);
        self.outcome()
    }

    /// A simple Query that must succeed.
    pub fn ok(&mut self, sql: &str) -> Outcome {
        let outcome = self.query(sql);
        assert_eq!(outcome.error, None, "{sql}: {outcome:?}");
        outcome
    }

    /// The first value of a query's first row.
    pub fn value(&mut self, sql: &str) -> String {
        self.ok(sql).rows.first().and_then(|row| row.first()?.clone()).unwrap_or_default()
    }

    /// Parse, Bind, Describe, Execute of one statement, unnamed, without Sync.
    pub fn extended(sql: &str) -> BytesMut {
        let mut out = BytesMut::new();
        put_frame(&mut out, b'P', |b| {
            b.extend_from_slice(b"\0");
            b.extend_from_slice(sql.as_bytes());
            b.extend_from_slice(&[0, 0, 0]);
        });
        put_frame(&mut out, b'B', |b| b.extend_from_slice(&[0; 8]));
        put_frame(&mut out, b'D', |b| b.extend_from_slice(b"P\0"));
        put_frame(&mut out, b'E', |b| b.extend_from_slice(&[0; 5]));
        out
    }

    /// One statement by the extended protocol, with its Sync.
    pub fn execute(&mut self, sql: &str) -> Outcome {
        self.pipeline(&[sql])
    }

    /// Several statements under one Sync.
    pub fn pipeline(&mut self, statements: &[&str]) -> Outcome {
        let mut out = BytesMut::new();
        for sql in statements {
            out.extend_from_slice(&Self::extended(sql));
        }
        out.extend_from_slice(&[b'S', 0, 0, 0, 4]);
        self.send(&out);
        self.outcome()
    }

    /// A CancelRequest for this session, sent to `port`; returns when the server has taken it.
    pub fn cancel(&self, port: u16) {
        let mut packet = (8 + self.key.len() as u32).to_be_bytes().to_vec();
        packet.extend(80_877_102_u32.to_be_bytes());
        packet.extend(&self.key);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.write_all(&packet).expect("send");
        let _ = stream.read(&mut [0]);
    }
}

/// Waits for a condition that another session brings about, polling the server.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal, such as "STOP", to a process of the test's own.
pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.expect("kill").success(), "kill -{name} {pid}");
}
