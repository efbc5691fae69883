//! Messages byte by byte, and sessions that keep every byte that they received, for tests of conversations that no driver
//! would have.

use super::{Client, Message, PATIENCE, startup_packet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// One frame.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    frame_of_length(tag, 4 + i32::try_from(body.len()).unwrap(), body)
}

/// A frame whose length word says what it likes.
pub fn frame_of_length(tag: u8, length: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

pub fn q(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), &[0, 0, 0]].concat())
}

/// Text parameters, text results.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), &[0, 0, 0]].concat();
    body.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for value in parameters {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    frame(b'B', &body)
}

pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[&[kind], name.as_bytes(), b"\0"].concat())
}

/// `rows`: 0 for all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind], name.as_bytes(), b"\0"].concat())
}

pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

pub fn terminate() -> Vec<u8> {
    frame(b'X', b"")
}

/// Parse, Bind, Describe, Execute of one statement, unnamed, without Sync.
pub fn run(sql: &str) -> Vec<u8> {
    Client::extended(sql).to_vec()
}

pub fn copy_data(data: &str) -> Vec<u8> {
    frame(b'd', data.as_bytes())
}

pub fn copy_done() -> Vec<u8> {
    frame(b'c', b"")
}

pub fn copy_fail(reason: &str) -> Vec<u8> {
    frame(b'f', &[reason.as_bytes(), b"\0"].concat())
}

/// A socket to `port`, nothing said yet.
pub fn socket(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Closes at once, with a reset instead of a goodbye: the client's machine died.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(stream);
}

/// All that comes until the peer closes. A reset counts as a close.
pub fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 65536];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend(&part[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("no close came: {error}; got {:?}", messages(&bytes)),
        }
    }
}

/// The whole frames of `bytes`; what is left behind them is a message with the tag 0.
pub fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.get(1..5).map(|word| u32::from_be_bytes(word.try_into().unwrap()) as usize);
        let Some((length, body)) = length.and_then(|n| Some((n, bytes.get(5..n + 1)?))) else {
            found.push(Message { tag: 0, body: bytes.to_vec() });
            break;
        };
        found.push(Message { tag: bytes[0], body: body.to_vec() });
        bytes = &bytes[length + 1..];
    }
    found
}

/// A message in one line, for people and for comparison: tags, SQLSTATEs, values.
pub fn show(message: &Message) -> String {
    let body = &message.body;
    match message.tag {
        b'E' | b'N' => {
            let fields: Vec<String> =
                body.split(|b| *b == 0).filter(|f| !f.is_empty()).map(|f| f.escape_ascii().to_string()).collect();
            format!("{} {}", char::from(message.tag), fields.join(" | "))
        }
        // Notifications carry the pid of who sent them.
        b'A' => format!("A {}", body[4..].escape_ascii()),
        // The oid of a table made by the test differs from run to run; that of a catalogue does not.
        b'T' => format!("T {}", row_description(body)),
        tag => format!("{} {}", tag.escape_ascii(), body.escape_ascii()),
    }
}

fn row_description(body: &[u8]) -> String {
    let mut shown = String::new();
    let mut rest = &body[2..];
    while let Some(end) = rest.iter().position(|b| *b == 0) {
        let (name, tail) = (&rest[..end], &rest[end + 1..]);
        let table = u32::from_be_bytes(tail[..4].try_into().unwrap());
        let table = if table >= 16384 { "user".to_owned() } else { table.to_string() };
        shown.push_str(&format!("{} {table} {}; ", name.escape_ascii(), tail[4..18].escape_ascii()));
        rest = &tail[18..];
    }
    shown
}

/// What came, one message a line.
pub fn transcript(bytes: &[u8]) -> String {
    messages(bytes).iter().map(|message| show(message) + "\n").collect()
}

impl Client {
    /// Sends the rest of a conversation, which ends with Terminate or breaks, and gives all that came.
    pub fn play(mut self, parts: &[&[u8]], pause: Option<Duration>) -> Vec<u8> {
        for (at, part) in parts.iter().enumerate() {
            if at > 0
                && let Some(pause) = pause
            {
                // For the other side to read what came so far: should it be late, the parts meet, and nothing is lost.
                std::thread::sleep(pause);
            }
            // Whoever breaks the protocol may be cut off before all of it is sent.
            if self.stream.write_all(part).is_err() {
                break;
            }
        }
        read_to_close(&mut self.stream)
    }

    /// No more will be sent.
    pub fn shut_write(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Ends with a reset.
    pub fn reset(self) {
        reset(self.stream);
    }

    /// Ends as libpq does: Terminate, then close.
    pub fn goodbye(mut self) {
        self.send(&terminate());
    }

    /// Reads up to a message with one of `tags`, which is the last of those it gives.
    pub fn read_up_to(&mut self, tags: &[u8]) -> Vec<Message> {
        let mut read = Vec::new();
        loop {
            let message = self.read();
            let found = tags.contains(&message.tag);
            read.push(message);
            if found {
                return read;
            }
        }
    }

    /// All messages up to the close of the connection.
    pub fn last_words(mut self) -> Vec<Message> {
        messages(&read_to_close(&mut self.stream))
    }
}

/// What answers a startup packet with these extra bytes behind the ordinary one.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    startup_packet(user, database)
}
