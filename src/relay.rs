//! The relay's fast path: it passes the bytes of both directions on unchanged.
//!
//! Each connection has one task and one poll loop. Each direction reads into the scratch buffer of the thread, walks the
//! frames in that buffer in place, and writes the slice with one call. Only two kinds of bytes are ever copied: those that a
//! short write leaves, and frames that must be seen whole. An idle connection therefore holds no buffer.
//!
//! The file owns [`Link`], the two ends of one session.
//!
//! Invariants: a frame that is not opened leaves byte for byte as it came. The backend is not read while the client does not
//! take the bytes that were read, and the client is not read while the backend does not. No frame goes to the backend
//! without [`Owed`] knowing of it.

mod answers;
mod back;
mod buffers;
mod front;
mod inspect;

pub use answers::{AnswerLog, Answered, LogGap};
pub use back::BackendLost;
pub(crate) use buffers::{give_back, take_buffer};
use inspect::CopyOnly;
pub use inspect::{FrameAction, Inspect};

use crate::net::Stream;
use crate::net::ring::Present;
use crate::wire::frame::{FRONTEND_LIMIT, Header};
use crate::wire::owed::Owed;
use crate::wire::speech::Speech;
use bytes::{Buf, Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// The most bytes that one read takes. Only touched bytes cost memory, and there is one buffer per thread.
const SCRATCH: usize = 64 * 1024;

/// The number of reads in one direction before the other direction and the thread's other tasks get their turn.
const TURNS: usize = 8;

/// The most client bytes that are kept while the session is busy with a statement. The client must wait beyond them.
const READ_AHEAD: usize = 64 * 1024;

/// The most bytes that are kept for a client that takes none, while the proxy asks the client's backend something. The
/// server must wait beyond them.
const FRONT_WAITING: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Why the pump stopped.
#[derive(Debug)]
pub enum Event {
    /// A frontend's frame needs attention. It stands at the start of the input. It is whole if it was opened. If
    /// [`FrameAction::Stop`] or an oversize stopped it, at least its header is there.
    Frame,
    /// The backend has answered all that it owed (only from [`Link::settle`]).
    Settled,
    /// One side broke the protocol; `what` is the message for it.
    Broken { front: bool, what: String },
    /// The server closed the connection, and all it had sent has gone to the client.
    BackendClosed,
    /// The client takes no more bytes.
    FrontendGone,
}

/// How [`Link::settle`] treats the ReadyForQuery that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settling {
    No,
    Pass,
    Keep,
}

/// What the encryption of the two ends means for the login until the login ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// The login needs no care.
    Plain,
    /// Only the server's end is encrypted. The client cannot take the server's offer of channel binding.
    NoBinding,
    /// Both ends are encrypted. Channel binding holds if the proxy shows the server's certificate.
    Encrypted,
    /// Both ends are encrypted, and the server has just offered channel binding.
    Binding,
}

/// Both ends of one session.
#[derive(Debug)]
pub struct Link {
    front: Stream,
    back: Stream,
    /// Bytes that were read from the client and not yet passed on.
    front_in: BytesMut,
    /// Bytes for the client that it has not yet taken.
    front_out: BytesMut,
    back_in: BytesMut,
    back_out: BytesMut,
    /// Bytes of the current frame that are still to pass unopened.
    front_skip: u32,
    back_skip: u32,
    /// `front_in` ends amid a frame. More must be read before it is walked again.
    front_short: bool,
    /// `back_in` ends amid a frame.
    back_short: bool,
    front_eof: bool,
    back_shut: bool,
    owed: Owed,
    /// The status of the last ReadyForQuery: `I`, `T` or `E`; 0 before the first.
    status: u8,
    /// During the login, the server has asked the client something and waits for the answer.
    asked: bool,
    /// Execute messages sent since the last Sync or Query.
    executes: u32,
    /// The body of BackendKeyData as it came: pid and key.
    key: Bytes,
    /// The encodings of the server and of the session, as the server has reported them.
    speech: Speech,
    /// The server's major version, as the server has reported it.
    server: u16,
    /// The server's version as it was reported, until it is taken.
    #[expect(clippy::box_collection, reason = "an idle session should not take the memory of what is rare")]
    version: Option<Box<String>>,
    /// The number of ErrorResponse messages that were passed to the client.
    errors: u32,
    /// The number that is added to the positions of errors that pass: the characters before a piece of a string.
    shift_errors: u32,
    /// The answers that the client gets in its transaction block, while they are logged.
    answers: Option<Box<AnswerLog>>,
    login: Login,
    settling: Settling,
    /// The proxy's wait for the server was told that the client has left.
    told_gone: bool,
    /// `None` if an end is encrypted: such a session cannot use the thread's ring.
    present: Option<Present>,
    on_ring: bool,
}

impl Link {
    pub fn new(front: Stream, back: Stream, startup: &[u8]) -> Self {
        let plain = !front.is_encrypted() && !back.is_encrypted();
        Self {
            present: plain.then(Present::here),
            on_ring: false,
            front,
            back,
            front_in: BytesMut::new(),
            front_out: BytesMut::new(),
            back_in: BytesMut::new(),
            back_out: BytesMut::from(startup),
            front_skip: 0,
            back_skip: 0,
            front_short: false,
            back_short: false,
            front_eof: false,
            back_shut: false,
            owed: Owed::startup(),
            status: 0,
            asked: false,
            executes: 0,
            key: Bytes::new(),
            speech: Speech::default(),
            server: 0,
            version: None,
            errors: 0,
            shift_errors: 0,
            answers: None,
            login: Login::Plain,
            settling: Settling::No,
            told_gone: false,
        }
    }

    /// The status of the last ReadyForQuery: `I`, `T` or `E`; 0 before the first.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Sets the status of a link whose login the caller has not seen. The login is over.
    pub fn begin_with_status(&mut self, status: u8) {
        self.status = status;
    }

    /// The encodings of the server and of the session, as the server has reported them.
    pub fn speech(&self) -> Speech {
        self.speech
    }

    /// The server's major version, as the server has reported it; 0 before that.
    pub fn server_major(&self) -> u16 {
        self.server
    }

    /// Takes the server's version, if the server has reported it since the last call.
    pub fn take_server_version(&mut self) -> Option<String> {
        self.version.take().map(|version| *version)
    }

    /// BackendKeyData's body as it came: pid and key.
    pub fn backend_key(&self) -> &Bytes {
        &self.key
    }

    /// The answers that the backend owes the client.
    pub fn owed(&self) -> &Owed {
        &self.owed
    }

    /// The caller read an answer of this tag in place of the relay.
    pub fn received(&mut self, tag: u8) {
        self.owed.received(tag);
    }

    /// The number of Execute messages since the last Sync or Query.
    pub fn executes(&self) -> u32 {
        self.executes
    }

    pub fn set_executes(&mut self, executes: u32) {
        self.executes = executes;
    }

    /// The number of ErrorResponse messages that were passed to the client.
    pub fn errors_passed(&self) -> u32 {
        self.errors
    }

    /// Sets the number of characters that is added to the positions of errors that pass.
    pub fn shift_errors(&mut self, characters: u32) {
        self.shift_errors = characters;
    }

    /// The log of the answers that the client has got in its transaction block, if there is one.
    pub fn answers(&self) -> Option<&AnswerLog> {
        self.answers.as_deref()
    }

    /// Begins or ends the log of answers, before the next frame goes to the server. `limit`: see [`Inspect::answers_limit`].
    #[inline]
    pub fn log_answers(&mut self, limit: u32) {
        if (limit > 0) != self.answers.is_some() {
            self.answers = (limit > 0).then(|| self.new_log(limit));
        }
    }

    fn new_log(&self, limit: u32) -> Box<AnswerLog> {
        let earlier = self.owed.owed();
        // An earlier Execute of the same pipeline would be in the same transaction.
        let alone = self.executes == 0 && self.owed.certain() && !self.owed.copying();
        Box::new(AnswerLog::new(limit, earlier, alone && (earlier > 0 || self.status == b'I')))
    }

    /// The caller has read a message of the server's in place of the relay, and passes it to the client.
    pub fn pass_answer(&mut self, frame: &[u8]) {
        if let (Some(log), Some((tag, body))) = (&mut self.answers, frame.split_first()) {
            log.observe(*tag, body.get(4..).unwrap_or_default());
        }
        self.send_to_client(frame);
    }

    /// Whether the block of the log has ended, and nothing is on its way.
    #[inline]
    fn logged_block_has_ended(&self) -> bool {
        self.answers.as_ref().is_some_and(|log| log.block_has_ended()) && self.owed.owed() == 0 && !self.owed.unsynced()
    }

    /// Sets what the encryption of the two ends means for the login.
    pub fn set_login(&mut self, login: Login) {
        self.login = login;
    }

    /// Relays in both directions until something needs the session. The future can be dropped and `pump` called again.
    pub async fn pump<I: Inspect>(&mut self, inspect: &mut I) -> Event {
        self.settling = Settling::No;
        poll_fn(|cx| self.poll_pump(cx, inspect)).await
    }

    /// Relays as `pump` does, and stops also when the backend has answered all that it owed.
    pub async fn pump_settling<I: Inspect>(&mut self, inspect: &mut I) -> Event {
        self.settling = Settling::Pass;
        // If the future is dropped midway, `settling` stays set. The next call sets it anew.
        let event = poll_fn(|cx| self.poll_pump(cx, inspect)).await;
        self.settling = Settling::No;
        event
    }

    fn poll_pump<I: Inspect>(&mut self, cx: &mut Context<'_>, inspect: &mut I) -> Poll<Event> {
        if self.status == 0 {
            return self.poll_login(cx);
        }
        if !self.on_ring && self.present.as_ref().is_some_and(Present::belongs_on_ring) {
            self.move_to_ring();
        }
        if let Poll::Ready(event) = self.poll_front(cx, inspect) {
            return Poll::Ready(event);
        }
        self.poll_back(cx)
    }

    /// Moves the session's sockets from the runtime's epoll to the ring. A socket that is lost ends the session like any
    /// broken one.
    #[cold]
    fn move_to_ring(&mut self) {
        self.on_ring = true;
        if let Err(error) = self.front.move_to_ring().and_then(|()| self.back.move_to_ring()) {
            tracing::error!(%error, "a session's socket could not be put on the io_uring");
        }
    }

    /// Relays up to the first ReadyForQuery. The client's passwords pass. Anything else that the client sends waits,
    /// uncollected, until the session begins, and is inspected then. The one exception: if the server waits for an answer,
    /// the server gets the client's next frame, whatever it is, and refuses it.
    fn poll_login(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let mut answers = Answers { due: Cell::new(self.asked) };
            match self.poll_front(cx, &mut answers) {
                Poll::Ready(Event::Frame) | Poll::Pending => {}
                ready => return ready,
            }
            self.asked = answers.due.get();
            let before = self.asked;
            let event = self.poll_back(cx);
            // The server has just asked. A frame that waits in `front_in` may stand in place of the answer.
            if event.is_ready() || before || !self.asked {
                return event;
            }
        }
    }

    /// Relays until the backend owes nothing. The client's further messages wait, except during a COPY. During a COPY the
    /// data pass. A message in place of the data passes too and makes the copy fail; the number of owed answers is uncertain
    /// after that. With `keep_ready` the last ReadyForQuery does not go to the client. The client may leave meanwhile: what the server does for
    /// it comes to its end.
    pub async fn settle(&mut self, keep_ready: bool) -> Event {
        self.settling = if keep_ready { Settling::Keep } else { Settling::Pass };
        let event = poll_fn(|cx| {
            if self.owed.owed() == 0 && self.back_out.is_empty() {
                return Poll::Ready(Event::Settled);
            }
            loop {
                match self.poll_front(cx, &mut CopyOnly { copying: self.owed.copying() }) {
                    Poll::Ready(Event::Frame) if self.owed.copying() => {
                        self.pass_frame();
                        continue;
                    }
                    Poll::Ready(Event::Frame | Event::FrontendGone) | Poll::Pending => {}
                    ready => return ready,
                }
                let event = self.poll_back(cx);
                // The server has just begun to take data. A message that waits in `front_in` may stand in place of the data.
                if event.is_ready() || !self.owed.copying() || self.front_in.is_empty() || self.front_short {
                    return event;
                }
            }
        })
        .await;
        self.settling = Settling::No;
        event
    }

    /// Sends the waiting bytes to the client, and ends the sending side of the client's socket.
    ///
    /// # Errors
    /// The client does not take the bytes.
    pub async fn finish_front(&mut self) -> io::Result<()> {
        poll_fn(|cx| flush(&mut self.front, &mut self.front_out, cx)).await?;
        poll_fn(|cx| self.front.poll_shutdown(cx)).await
    }

    /// Appends bytes to those that wait for the client.
    pub fn send_to_client(&mut self, bytes: &[u8]) {
        self.front_out.extend_from_slice(bytes);
    }

    /// Appends bytes to those that wait for the backend. The caller accounts for the answers.
    pub fn send_to_server(&mut self, bytes: &[u8]) {
        self.back_out.extend_from_slice(bytes);
    }

    /// The client has got whole messages only, so that a message of the proxy can follow.
    pub fn between_messages(&self) -> bool {
        self.back_skip == 0
    }

    /// The client's connection has ended without Terminate, so its requests need not be finished. After a Terminate the
    /// proxy still finishes the requests that came before it, as the server would.
    pub fn front_gone(&self) -> bool {
        self.front_eof && !ends_with_terminate(&self.front_in)
    }
}

/// Whether the complete frames of `input` end with Terminate.
fn ends_with_terminate(mut input: &[u8]) -> bool {
    while let Ok(Some(header)) = Header::read(input, FRONTEND_LIMIT) {
        if header.tag == b'X' {
            return true;
        }
        let Some(rest) = input.get(header.total()..) else { return false };
        input = rest;
    }
    false
}

/// Passes the client's answers during the login.
struct Answers {
    /// The server waits for an answer.
    due: Cell<bool>,
}

impl Inspect for Answers {
    fn action_for(&self, tag: u8) -> FrameAction {
        if self.due.replace(false) || tag == b'p' { FrameAction::Pass } else { FrameAction::Stop }
    }

    fn stops_at(&mut self, _: u8, _: &[u8]) -> bool {
        true
    }

    fn oversize(&mut self, _: u8, _: u32) -> bool {
        true
    }

    fn limit(&self, _: u8) -> u32 {
        0
    }
}

/// Reads once into the thread's scratch buffer and passes the bytes to `then`. `Ok(0)` means end of file.
fn read_scratch<T>(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    then: impl FnOnce(&[u8], &mut Context<'_>) -> T,
) -> Poll<io::Result<T>> {
    SCRATCH_BUFFER.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        match stream.poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(then(buf.filled(), cx))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
}

/// Writes all of `out`, or returns `Pending`.
fn flush(stream: &mut Stream, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match stream.poll_write(cx, out) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => out.advance(n),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    // The memory of a burst is freed.
    if out.capacity() > 0 {
        *out = BytesMut::new();
    }
    stream.poll_flush(cx)
}

/// Writes as many of `bytes` as the peer takes now. The rest waits in `out`.
fn write_through(stream: &mut Stream, out: &mut BytesMut, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
    if !out.is_empty() || bytes.is_empty() {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    match stream.poll_write(cx, bytes) {
        Poll::Ready(Ok(n)) => {
            out.extend_from_slice(&bytes[n..]);
            // The next flush of this direction sends the bytes that the stream still holds, before any further byte.
            match stream.poll_flush(cx) {
                Poll::Ready(Err(error)) => Err(error),
                _ => Ok(()),
            }
        }
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => {
            out.extend_from_slice(bytes);
            Ok(())
        }
    }
}
