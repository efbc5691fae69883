//! The direction from the server to the client, and the server's answers to the proxy itself.
//!
//! Invariant: the server's bytes reach the client in their order. The only messages that change are the positions and hints
//! of errors, and the offer of channel binding.

use super::answers::logs_body;
use super::{Event, FRONT_WAITING, Link, Login, SCRATCH_BUFFER, Settling, TURNS, flush, read_scratch, write_through};
use crate::metrics::count_from_server;
use crate::pg::sqlstate;
use crate::wire::authentication;
use crate::wire::error_response::ServerError;
use crate::wire::frame::{BACKEND_LIMIT, BadFrame, HEADER_LEN, Header};
use bytes::Bytes;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// Whether the relay reads messages of this tag. They are small, and are held until they are whole.
fn opened(tag: u8) -> bool {
    matches!(tag, b'Z' | b'K' | b'S')
}

/// Where a walk over the server's bytes ended.
enum Walked {
    Short,
    /// The walk ended at the last ReadyForQuery that was owed, which is kept back.
    Settled,
    /// The walk ended at a message that the relay changes for the client.
    Altered,
    Bad(BadFrame),
}

const BINDING_HINT: &str = "SCRAM channel binding through the proxy needs the server's own certificate and key in [listen.tls] of \
    proxy.toml. Without them, connect with channel_binding=disable.";

/// The server closed the connection, or broke it.
#[derive(Debug)]
pub struct BackendLost;

impl Link {
    /// Passes on what the server sent.
    pub(super) fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for _ in 0..TURNS {
            match flush(&mut self.front, &mut self.front_out, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Event::FrontendGone),
                Poll::Pending => return Poll::Pending,
            }
            let mut input = std::mem::take(&mut self.back_in);
            // A part of the proxy that asked the server something may have read more than its answer.
            if !input.is_empty() && !self.back_short {
                match self.backward(&input, cx) {
                    Some(event) => return Poll::Ready(event),
                    None => continue,
                }
            }
            let read = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                match self.back.poll_read(cx, &mut buf) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                        count_from_server(buf.filled().len());
                        if input.is_empty() {
                            return Poll::Ready(self.backward(buf.filled(), cx));
                        }
                        input.extend_from_slice(buf.filled());
                        let whole = std::mem::take(&mut input);
                        Poll::Ready(self.backward(&whole, cx))
                    }
                    Poll::Ready(_) => Poll::Ready(Some(Event::BackendClosed)),
                }
            });
            if !input.is_empty() {
                self.back_in = input;
            }
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(event)) => return Poll::Ready(event),
                Poll::Ready(None) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Walks `input`, passes on the bytes that may pass, and holds the rest.
    fn backward(&mut self, mut input: &[u8], cx: &mut Context<'_>) -> Option<Event> {
        loop {
            let (pass, taken, walked) = self.walk_back(input);
            if write_through(&mut self.front, &mut self.front_out, &input[..pass], cx).is_err() {
                return Some(Event::FrontendGone);
            }
            let rest = &input[taken..];
            self.back_short = matches!(walked, Walked::Short);
            let event = match walked {
                Walked::Altered => {
                    let altered = self.alter(&input[pass..taken]);
                    self.front_out.extend_from_slice(&altered);
                    input = rest;
                    continue;
                }
                Walked::Short => None,
                Walked::Settled => Some(Event::Settled),
                Walked::Bad(bad) => Some(Event::Broken { front: false, what: bad.to_string() }),
            };
            self.back_in.extend_from_slice(rest);
            return event;
        }
    }

    /// Returns how many bytes may pass, and how many are done with. The second number is larger if the last frame is
    /// swallowed or changed.
    fn walk_back(&mut self, input: &[u8]) -> (usize, usize, Walked) {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if self.back_skip > 0 {
                let n = rest.len().min(self.back_skip as usize);
                self.back_skip -= n as u32;
                at += n;
                if self.back_skip > 0 {
                    return (at, at, Walked::Short);
                }
                continue;
            }
            let header = match Header::read(rest, BACKEND_LIMIT) {
                Ok(Some(header)) => header,
                Ok(None) => return (at, at, Walked::Short),
                Err(bad) => return (at, at, Walked::Bad(bad)),
            };
            let altered = self.alters(header.tag);
            let asks = header.tag == b'R' && self.status == 0;
            let logged = self.answers.is_some();
            if opened(header.tag) || asks || altered || (logged && logs_body(header.tag)) {
                let Some(body) = rest.get(HEADER_LEN..header.total()) else { return (at, at, Walked::Short) };
                self.note(header.tag, body);
            }
            if let Some(log) = &mut self.answers {
                log.observe(header.tag, rest.get(HEADER_LEN..header.total()).unwrap_or_default());
            }
            self.owed.received(header.tag);
            if header.tag == b'E' {
                self.errors = self.errors.wrapping_add(1);
            }
            if altered {
                return (at, at + header.total(), Walked::Altered);
            }
            if header.tag == b'Z' && self.owed.owed() == 0 {
                match self.settling {
                    Settling::No => {}
                    Settling::Keep => return (at, at + header.total(), Walked::Settled),
                    Settling::Pass => return (at + header.total(), at + header.total(), Walked::Settled),
                }
            }
            at += HEADER_LEN;
            self.back_skip = header.body;
        }
    }

    fn alters(&self, tag: u8) -> bool {
        match (tag, self.login) {
            (b'R', login) => login != Login::Plain,
            (b'E', Login::Binding) => true,
            (b'E', _) => self.shift_errors > 0,
            _ => false,
        }
    }

    fn alter(&mut self, frame: &[u8]) -> Bytes {
        let as_it_is = Bytes::copy_from_slice(frame);
        let error = ServerError::new(as_it_is.clone());
        match (frame.first(), self.login) {
            (Some(b'R'), Login::NoBinding) => authentication::without_channel_binding(frame),
            (Some(b'R'), _) => {
                match authentication::offers_channel_binding(frame) {
                    Some(true) => self.login = Login::Binding,
                    Some(false) => {}
                    None => self.login = Login::Encrypted,
                }
                as_it_is
            }
            (_, Login::Binding) if error.sqlstate() == sqlstate::INVALID_AUTHORIZATION => {
                tracing::warn!("a client's SCRAM channel binding does not fit the server: {BINDING_HINT}");
                error.with_hint(BINDING_HINT)
            }
            (_, Login::Binding) => as_it_is,
            _ => error.with_position(|position| Some(position + self.shift_errors as usize)),
        }
    }

    /// Stores the facts of the server's small messages.
    fn note(&mut self, tag: u8, body: &[u8]) {
        match tag {
            // AuthenticationOk and SASLFinal need no answer.
            b'R' => self.asked = !matches!(body.first_chunk(), Some([0, 0, 0, 0 | 12])),
            b'Z' => self.status = body.first().copied().unwrap_or_default(),
            b'K' => self.key = Bytes::copy_from_slice(body),
            b'S' => {
                if let Some(value) = body.strip_prefix(b"server_version\0") {
                    self.server = major(value);
                    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                    self.version = Some(Box::new(String::from_utf8_lossy(text).into_owned()));
                }
                let mut words = body.split(|byte| *byte == 0);
                if let (Some(name), Some(value)) = (words.next(), words.next()) {
                    self.speech.reported(name, value);
                }
            }
            _ => {}
        }
    }

    /// Returns the server's next whole frame, which is not passed on. Meanwhile the bytes that wait for either side are
    /// written, and the client's end is watched. When the client's end is there, `gone` is called with the backend's key, and with whether the
    /// client left without a Terminate. It is called until it returns true.
    ///
    /// # Errors
    /// The server closed the connection, or sent bytes that are not a frame.
    pub async fn next_back_frame(&mut self, gone: &mut impl FnMut(&[u8], bool) -> bool) -> Result<Bytes, BackendLost> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = flush(&mut self.back, &mut self.back_out, cx) {
                self.back_out.clear();
            }
            // A failed write counts as the end of the client.
            if let Poll::Ready(Err(_)) = flush(&mut self.front, &mut self.front_out, cx) {
                self.front_out.clear();
                self.front_eof = true;
            }
            while let Poll::Ready(()) = self.poll_watch_front(cx) {}
            if self.front_eof && !self.told_gone {
                self.told_gone = gone(&self.key, self.front_gone());
            }
            let deaf = self.front_out.len() > FRONT_WAITING && !self.front_eof;
            loop {
                match Header::read(&self.back_in, BACKEND_LIMIT) {
                    Err(_) => return Poll::Ready(Err(BackendLost)),
                    Ok(Some(header)) if self.back_in.len() >= header.total() => {
                        let frame = self.back_in.split_to(header.total()).freeze();
                        self.back_short = false;
                        self.note(header.tag, frame.get(HEADER_LEN..).unwrap_or_default());
                        return Poll::Ready(Ok(frame));
                    }
                    Ok(_) if deaf => return Poll::Pending,
                    Ok(_) => {}
                }
                let input = &mut self.back_in;
                match read_scratch(&mut self.back, cx, |bytes, _| {
                    input.extend_from_slice(bytes);
                    count_from_server(bytes.len());
                    bytes.len()
                }) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(BackendLost)),
                    Poll::Ready(Ok(_)) => {}
                }
            }
        })
        .await
    }
}

/// The major version of a text such as `19beta1 (Debian …)`.
fn major(version: &[u8]) -> u16 {
    let digits = version.iter().take_while(|byte| byte.is_ascii_digit()).take(4);
    digits.fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}
