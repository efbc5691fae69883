//! Input of any kind: it ends at most the session that has sent it.

use crate::Proxy;
use crate::common::raw::{bind, describe, execute, frame, frame_of_length, messages, parse, q, startup, sync};
use crate::common::{Message, Outcome, PATIENCE};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// A session of an admin over the proxy's Unix socket, byte by byte.
pub(crate) struct Socket {
    stream: UnixStream,
}

impl Socket {
    pub(crate) fn of(proxy: &Proxy) -> Self {
        Self::after(proxy, &startup("root of all", "pgsluice")).0
    }

    /// A session that begins with this startup packet, and the messages of its login.
    pub(crate) fn after(proxy: &Proxy, packet: &[u8]) -> (Self, Vec<Message>) {
        let stream = UnixStream::connect(proxy.folder.join(".s.PGSQL.6432")).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        let mut socket = Self { stream };
        socket.send(packet);
        let login = socket.read_to_ready();
        assert_eq!(login[0].body, [0, 0, 0, 0], "{login:?}");
        (socket, login)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// The next message, or `None` if the session has ended.
    fn read(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).ok()?;
        let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
        self.stream.read_exact(&mut body).ok()?;
        Some(Message { tag: header[0], body })
    }

    /// All messages up to ReadyForQuery.
    pub(crate) fn read_to_ready(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            all.push(self.read().unwrap_or_else(|| panic!("the session has ended behind {all:?}")));
            if all.last().is_some_and(|message| message.tag == b'Z') {
                return all;
            }
        }
    }

    pub(crate) fn query(&mut self, sql: &str) -> Outcome {
        self.send(&q(sql));
        let mut outcome = Outcome::default();
        for message in self.read_to_ready() {
            match message.tag {
                b'C' => outcome.tags.push(message.text()),
                b'E' => outcome.error = message.field(b'C'),
                b'Z' => outcome.status = char::from(message.body[0]),
                _ => {}
            }
        }
        outcome
    }

    /// All that comes up to the end of the session.
    fn read_to_end(mut self) -> Vec<Message> {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        messages(&bytes)
    }
}

#[test]
fn input_of_any_kind_ends_at_most_its_own_session() {
    let proxy = Proxy::alone();
    let mut bystander = Socket::of(&proxy);
    let deep = format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000));
    let wide = format!("SELECT {}1", "1,".repeat(100_000));
    let long = format!("SELECT '{}'", "x".repeat(10 << 20));
    let parts = |parts: &[Vec<u8>]| parts.concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a query of 10 MB", q(&long)),
        ("a query of 10 MB without an end", q(&long[..long.len() - 1])),
        ("deep nesting", q(&deep)),
        ("a wide target list", q(&wide)),
        ("many statements", q(&"SELECT 1;".repeat(20_000))),
        ("a NUL in the text", frame(b'Q', b"SELECT 1\0SELECT 2\0")),
        ("a text without an end", frame(b'Q', b"SELECT 1")),
        ("no UTF-8", frame(b'Q', b"SELECT '\xff\xfe\xc3'\0")),
        ("an open string", q("SELECT 'x")),
        ("an open comment", q("/* x")),
        ("only comments", q("-- x")),
        ("an unknown message", frame(b'y', b"whatever")),
        ("a message of the backend's", frame(b'Z', b"I")),
        ("CopyData out of place", parts(&[frame(b'd', b"x"), frame(b'c', b""), frame(b'f', b"x\0")])),
        ("a function call", frame(b'F', &[0; 14])),
        ("a password", frame(b'p', b"hunter2\0")),
        ("a short Bind", parts(&[parse("", "SELECT $1::text"), frame(b'B', b"\0\0\0\x01\0\x01\0\x01\0\0"), sync()])),
        ("an empty Bind", parts(&[frame(b'B', b""), sync()])),
        ("an empty Parse", parts(&[frame(b'P', b""), sync()])),
        ("an empty Describe", parts(&[frame(b'D', b""), sync()])),
        ("an empty Execute", parts(&[frame(b'E', b""), sync()])),
        ("an empty Close", parts(&[frame(b'C', b""), sync()])),
        ("an unknown kind of Describe", parts(&[describe(b'?', "x"), sync()])),
        (
            "too many formats",
            parts(&[
                parse("", "SHOW STATE"),
                frame(b'B', b"\0\0\0\0\0\0\0\x03\0\x01\0\x01\0\x01"),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ]),
        ),
        (
            "too few formats",
            parts(&[
                parse("", "SHOW CONFIG"),
                frame(b'B', b"\0\0\0\0\0\0\0\x02\0\x01\0\x01"),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ]),
        ),
        (
            "a format that is none",
            parts(&[parse("", "SHOW STATE"), frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x09"), execute("", 0), sync()]),
        ),
        (
            "all the rows in the world",
            parts(&[
                parse("", "SHOW CONFIG"),
                bind("", "", &[]),
                execute("", i32::MAX as u32),
                execute("", u32::MAX),
                sync(),
            ]),
        ),
        (
            "binary parameters",
            parts(&[
                parse("", "SELECT $1::int8, $2"),
                frame(b'B', b"\0\0\0\x01\0\x01\0\x02\0\0\0\x03\xff\xff\xff\0\0\0\x01\x80\0\x01\0\x01"),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ]),
        ),
        ("a parameter of a number that is none", parts(&[parse("", "SELECT $0, $99999"), sync()])),
        ("missing parameters", parts(&[parse("", "SELECT $2::text"), bind("", "", &["x"]), sync()])),
        ("another startup packet", startup("x", "pgsluice")),
        ("a length that lies", frame_of_length(b'Q', i32::MAX, b"SELECT 1\0")),
        ("a length below its own", frame_of_length(b'Q', 3, b"SELECT 1\0")),
        ("a negative length", frame_of_length(b'Q', -1, b"SELECT 1\0")),
        ("a pipeline of many", [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0)].concat().repeat(20_000)),
        ("many statements that are kept", (0..5_000).flat_map(|n| parse(&format!("s{n}"), "SELECT 1")).collect()),
    ];
    for (name, bytes) in cases {
        let socket = Socket::of(&proxy);
        let mut writer = socket.stream.try_clone().expect("a clone");
        // The answers of a pipeline fill the socket before all of it is sent.
        let sending = std::thread::spawn(move || {
            let _ = writer.write_all(&bytes);
            let _ = writer.shutdown(std::net::Shutdown::Write);
        });
        let all = socket.read_to_end_of_session();
        sending.join().expect("a thread");
        assert!(all.iter().all(|message| message.tag != 0), "{name}: an answer was cut");
        assert_eq!(bystander.query("SELECT 1").tags, ["SELECT 1"], "behind {name}");
    }
    assert_eq!(Socket::of(&proxy).query("SHOW VERSION").error, None);
}

impl Socket {
    /// All that comes up to the end of the session, which another handle of the socket asks for.
    fn read_to_end_of_session(mut self) -> Vec<Message> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        messages(&bytes)
    }
}

#[test]
fn what_is_prepared_is_bounded() {
    let proxy = Proxy::alone();
    let mut socket = Socket::of(&proxy);
    let text = format!("SELECT '{}'", "x".repeat(200_000));
    let mut bytes: Vec<u8> = (0..50).flat_map(|n| parse(&format!("s{n}"), &text)).collect();
    bytes.extend(sync());
    socket.send(&bytes);
    let all = socket.read_to_ready();
    assert!(all.iter().filter(|message| message.tag == b'1').count() < 25);
    let error = all.iter().find(|message| message.tag == b'E').expect("an error");
    assert_eq!(error.field(b'C').as_deref(), Some("53400"));
    // The unnamed statement is replaced each time.
    let bytes: Vec<u8> = (0..2_000).flat_map(|_| parse("", "SELECT 1")).chain(sync()).collect();
    let mut socket = Socket::of(&proxy);
    socket.send(&bytes);
    assert!(socket.read_to_ready().iter().all(|message| message.tag != b'E'));
}

#[test]
fn a_query_of_10_mb_has_an_answer() {
    let proxy = Proxy::alone();
    let mut socket = Socket::of(&proxy);
    assert_eq!(socket.query(&format!("SELECT '{}'", "x".repeat(10 << 20))).error.as_deref(), Some("54000"));
    assert_eq!(socket.query("SELECT 1").error, None);
    drop(socket.read_to_end());
}
