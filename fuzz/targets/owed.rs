//! Fuzzes the count of owed answers against a model of a server that really answers.
//!
//! The model reads the messages in their order and answers as `PostgresMain` does. The bytes choose which side moves next,
//! and whether a message fails or begins a copy. So replies are read late, and messages are sent early, in every order.

use pgsluice::wire::owed::Owed;
use std::collections::VecDeque;

/// What a message comes to.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Done,
    Fails,
    Copies,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    /// Everything up to Sync is skipped.
    Skipping,
    /// Taking data, in the simple protocol or the extended.
    CopyIn {
        extended: bool,
    },
    /// It has ended the connection.
    Gone,
}

struct Server {
    state: State,
    /// Sent to it, not yet read.
    asked: VecDeque<u8>,
    /// Tags that the proxy has not read yet.
    answers: VecDeque<u8>,
}

impl Server {
    fn say(&mut self, tags: &[u8]) {
        self.answers.extend(tags);
    }

    /// It reads one message.
    fn step(&mut self, fate: Fate) {
        let Some(tag) = self.asked.pop_front() else { return };
        match self.state {
            State::Gone => {}
            State::Skipping if tag == b'S' => {
                self.say(b"Z");
                self.state = State::Ready;
            }
            State::Skipping => {}
            State::CopyIn { extended } => self.copy(tag, fate, extended),
            State::Ready => self.ready(tag, fate),
        }
    }

    fn copy(&mut self, tag: u8, fate: Fate, extended: bool) {
        let fails = match tag {
            b'd' => fate == Fate::Fails,
            b'f' => true,
            b'c' => {
                let failed = fate == Fate::Fails;
                if !failed {
                    self.say(if extended { b"C" } else { b"CZ" });
                    self.state = State::Ready;
                }
                failed
            }
            b'H' | b'S' => false,
            _ => {
                self.say(b"E");
                self.state = State::Gone;
                return;
            }
        };
        if fails {
            self.say(if extended { b"E" } else { b"EZ" });
            self.state = if extended { State::Skipping } else { State::Ready };
        }
    }

    fn ready(&mut self, tag: u8, fate: Fate) {
        match (tag, fate) {
            (b'Q', Fate::Copies) => {
                self.say(b"G");
                self.state = State::CopyIn { extended: false };
            }
            (b'Q' | b'F', Fate::Fails) => self.say(b"EZ"),
            (b'Q', _) => self.say(b"TDCZ"),
            (b'F', _) => self.say(b"VZ"),
            (b'S', _) => self.say(b"Z"),
            (b'P' | b'B' | b'D' | b'E' | b'C', Fate::Fails) => {
                self.say(b"E");
                self.state = State::Skipping;
            }
            (b'E', Fate::Copies) => {
                self.say(b"G");
                self.state = State::CopyIn { extended: true };
            }
            (b'E', _) => self.say(b"DC"),
            (b'P', _) => self.say(b"1"),
            _ => {}
        }
    }
}

const SENT: [u8; 16] = *b"QQSSPPBEEDCHdcfF";

pub fn owed(data: &[u8]) {
    let mut owed = Owed::default();
    let mut server = Server { state: State::Ready, asked: VecDeque::new(), answers: VecDeque::new() };
    let mut certain = true;
    let mut sent = 0;
    for &byte in data.iter().take(200) {
        let fate = match byte >> 6 {
            0 | 1 => Fate::Done,
            2 => Fate::Fails,
            _ => Fate::Copies,
        };
        match byte & 0x30 {
            0x00 => {
                let tag = SENT[usize::from(byte & 0x0f)];
                owed.sent(tag);
                server.asked.push_back(tag);
                sent += 1;
            }
            0x10 | 0x20 => server.step(fate),
            _ => receive(&mut owed, &mut server),
        }
        assert!(certain || !owed.certain(), "uncertain for good");
        certain = owed.certain();
        assert!(owed.owed() <= sent, "no more than was asked");
        if certain && owed.owed() == 0 && !owed.unsynced() && server.state != State::Gone {
            assert!(!would_answer(&server), "something is owed after all");
        }
    }
    while !server.asked.is_empty() {
        server.step(Fate::Done);
    }
    while !server.answers.is_empty() {
        receive(&mut owed, &mut server);
    }
    if owed.certain() && server.state == State::Ready {
        assert_eq!(owed.owed(), 0, "nothing more will come");
    }
}

fn receive(owed: &mut Owed, server: &mut Server) {
    if let Some(tag) = server.answers.pop_front() {
        owed.received(tag);
    }
}

/// Whether a ReadyForQuery is on its way, or will be, though nothing more is sent.
fn would_answer(server: &Server) -> bool {
    let mut server = Server { state: server.state, asked: server.asked.clone(), answers: server.answers.clone() };
    while !server.asked.is_empty() {
        server.step(Fate::Done);
    }
    server.answers.contains(&b'Z')
}
