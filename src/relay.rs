//! The fast path: bytes of both directions, passed on as they came.
//!
//! One task and one poll loop per connection. Each direction reads into the thread's scratch
//! buffer, walks the frames in it in place, and writes the slice with one call; what a short write
//! leaves, and frames that must be seen whole, are the only bytes ever copied. An idle connection
//! therefore holds no buffer.
//!
//! Invariants: a frame that is not opened leaves byte for byte as it came; the backend is not read
//! while the client does not take what was read, and the other way round; no frame goes to the
//! backend without [`Owed`] knowing of it.

mod back;
mod front;

pub use back::BackendLost;

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

/// What is read at once. Only touched bytes cost memory, and there is one per thread.
const SCRATCH: usize = 64 * 1024;

/// Reads in one direction before the other, and the other tasks of the thread, get their turn.
const TURNS: usize = 8;

/// Client bytes kept while the session is busy with a statement; beyond it the client has to wait.
const READ_AHEAD: usize = 64 * 1024;

/// Bytes on the way to a client that does not take them, while its backend is asked something; beyond it the
/// server has to wait.
const FRONT_WAITING: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What to do with a frontend's frame, told by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameAction {
    /// Let it go.
    Pass,
    /// Show it whole to [`Inspect::stops_at`].
    Open,
    /// Stop before it.
    Stop,
}

/// Which of the frontend's frames are opened, and which stop the relay.
pub trait Inspect {
    fn action_for(&self, tag: u8) -> FrameAction;
    /// Whether this frame is one to stop at.
    fn stops_at(&mut self, tag: u8, body: &[u8]) -> bool;
    /// A frame to open is larger than [`Inspect::limit`]: it is about to pass unopened. Whether to stop instead.
    fn oversize(&mut self, tag: u8, body: u32) -> bool;
    /// The largest body (bytes) that is collected in order to be opened.
    fn limit(&self) -> u32;
}

/// Why the pump stopped.
#[derive(Debug)]
pub enum Event {
    /// A frontend's frame needs attention. It stands at the start of the input: whole if it was
    /// opened, its header at least if [`FrameAction::Stop`] or an oversize stopped it.
    Frame,
    /// The backend has answered all that it owed (only from [`Link::settle`]).
    Settled,
    /// One side broke the protocol: what to tell it.
    Broken { front: bool, what: String },
    /// The server closed the connection, and all it had sent has gone to the client.
    BackendClosed,
    /// The client does not take bytes any more.
    FrontendGone,
}

/// What becomes of the ReadyForQuery that [`Link::settle`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settling {
    No,
    Pass,
    Keep,
}

/// What the encryption of the two ends means for the login, up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    Plain,
    /// Only the server's end is encrypted: its offer of channel binding is none that the client could take.
    NoBinding,
    /// Both are: channel binding holds if the proxy shows the server's certificate.
    Encrypted,
    /// Both are, and the server has just offered it.
    Binding,
}

/// Both ends of one session.
#[derive(Debug)]
pub struct Link {
    front: Stream,
    back: Stream,
    /// Read from the client, not yet passed on.
    front_in: BytesMut,
    /// For the client, not yet taken.
    front_out: BytesMut,
    back_in: BytesMut,
    back_out: BytesMut,
    /// Bytes of the frame under way that are passed unopened.
    front_skip: u32,
    back_skip: u32,
    /// `front_in` ends amid a frame: more must be read before it is walked again.
    front_short: bool,
    /// The same of `back_in`.
    back_short: bool,
    front_eof: bool,
    back_shut: bool,
    owed: Owed,
    /// Of the last ReadyForQuery: `I`, `T` or `E`; 0 before the first.
    status: u8,
    /// During the login: the server has asked the client something, and waits for the answer.
    asked: bool,
    /// Execute messages sent since the last Sync or Query.
    executes: u32,
    /// BackendKeyData as it came: pid and key.
    key: Bytes,
    /// What the server has reported of its encodings and the session's.
    speech: Speech,
    /// The server's major version, as it reported.
    server: u16,
    /// ErrorResponse messages that were passed to the client.
    errors: u32,
    /// Added to the positions of errors that are passed: characters before a piece of a string.
    shift_errors: u32,
    login: Login,
    settling: Settling,
    /// The client's end was told to whoever waits for the server.
    told_gone: bool,
    /// Nothing if an end is encrypted: such a session is not for the thread's ring.
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
            errors: 0,
            shift_errors: 0,
            login: Login::Plain,
            settling: Settling::No,
            told_gone: false,
        }
    }

    /// The status of the last ReadyForQuery: `I`, `T` or `E`; 0 before the first.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The login is over with this status: for a link whose login the caller has not seen.
    pub fn begin_with_status(&mut self, status: u8) {
        self.status = status;
    }

    /// What the server has reported of its encodings and the session's.
    pub fn speech(&self) -> Speech {
        self.speech
    }

    /// The server's major version, as it reported; 0 before.
    pub fn server_major(&self) -> u16 {
        self.server
    }

    /// BackendKeyData's body as it came: pid and key.
    pub fn backend_key(&self) -> &Bytes {
        &self.key
    }

    /// What the backend owes the client.
    pub fn owed(&self) -> &Owed {
        &self.owed
    }

    /// An answer of this tag was read in place of the relay.
    pub fn received(&mut self, tag: u8) {
        self.owed.received(tag);
    }

    /// Execute messages since the last Sync or Query.
    pub fn executes(&self) -> u32 {
        self.executes
    }

    pub fn set_executes(&mut self, executes: u32) {
        self.executes = executes;
    }

    /// ErrorResponse messages that were passed to the client.
    pub fn errors_passed(&self) -> u32 {
        self.errors
    }

    /// Characters to be added to the positions of errors that are passed.
    pub fn shift_errors(&mut self, characters: u32) {
        self.shift_errors = characters;
    }

    /// What the encryption of the two ends means for the login.
    pub fn set_login(&mut self, login: Login) {
        self.login = login;
    }

    /// Relays in both directions until something needs the session. Can be dropped and called again.
    pub async fn pump<I: Inspect>(&mut self, inspect: &mut I) -> Event {
        self.settling = Settling::No;
        poll_fn(|cx| self.poll_pump(cx, inspect)).await
    }

    /// The same, but stops also when the backend has answered all that it owed.
    pub async fn pump_settling<I: Inspect>(&mut self, inspect: &mut I) -> Event {
        self.settling = Settling::Pass;
        // Dropped midway it stays set: the next call sets what it wants.
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

    /// The session's sockets leave the runtime's epoll. One that is lost ends the session as any that breaks.
    #[cold]
    fn move_to_ring(&mut self) {
        self.on_ring = true;
        if let Err(error) = self.front.move_to_ring().and_then(|()| self.back.move_to_ring()) {
            tracing::error!(%error, "a session's socket could not be put on the io_uring");
        }
    }

    /// Up to the first ReadyForQuery. The client's passwords pass; whatever else it sends waits, and is looked at
    /// once it has a session, as anything later is; nothing of it is collected before. Only where the server waits
    /// for an answer it gets what came in its place, and refuses it.
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
            // The server has just asked: what waits here may be in the answer's place.
            if event.is_ready() || before || !self.asked {
                return event;
            }
        }
    }

    /// Relays until the backend owes nothing; the client's further messages wait, except the data of
    /// a COPY, and what comes in their place: it goes on too, and makes the copy fail (then what is owed
    /// is not certain any more). With `keep_ready` the last ReadyForQuery does not go to the client.
    pub async fn settle(&mut self, keep_ready: bool) -> Event {
        self.settling = if keep_ready { Settling::Keep } else { Settling::Pass };
        let mut copy_only = CopyOnly;
        let event = poll_fn(|cx| {
            if self.owed.owed() == 0 && self.back_out.is_empty() {
                return Poll::Ready(Event::Settled);
            }
            loop {
                match self.poll_front(cx, &mut copy_only) {
                    Poll::Ready(Event::Frame) if self.owed.copying() => {
                        self.pass_frame();
                        continue;
                    }
                    Poll::Ready(Event::Frame) | Poll::Pending => {}
                    ready => return ready,
                }
                let event = self.poll_back(cx);
                // The server has just begun to take data: what waits here may be in their place.
                if event.is_ready() || !self.owed.copying() || self.front_in.is_empty() || self.front_short {
                    return event;
                }
            }
        })
        .await;
        self.settling = Settling::No;
        event
    }

    /// Sends to the client what is waiting for it, and says that nothing more will come.
    ///
    /// # Errors
    /// The client does not take it.
    pub async fn finish_front(&mut self) -> io::Result<()> {
        poll_fn(|cx| flush(&mut self.front, &mut self.front_out, cx)).await?;
        poll_fn(|cx| self.front.poll_shutdown(cx)).await
    }

    /// Puts bytes on the way to the client, behind all that was put there before.
    pub fn send_to_client(&mut self, bytes: &[u8]) {
        self.front_out.extend_from_slice(bytes);
    }

    /// Puts bytes on the way to the backend. Whoever does so accounts for the answers.
    pub fn send_to_server(&mut self, bytes: &[u8]) {
        self.back_out.extend_from_slice(bytes);
    }

    /// The client has got whole messages only, so that one of ours can follow.
    pub fn between_messages(&self) -> bool {
        self.back_skip == 0
    }

    /// The client's connection has ended without a goodbye (Terminate): what it asked for is wanted no more.
    /// After a goodbye what it sent before is still to be done, as the server would.
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

/// The client's part during the login.
struct Answers {
    /// The server waits for one.
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

    fn limit(&self) -> u32 {
        0
    }
}

/// The client's part while a COPY runs: its data pass, anything else waits.
struct CopyOnly;

impl Inspect for CopyOnly {
    fn action_for(&self, tag: u8) -> FrameAction {
        if matches!(tag, b'd' | b'c' | b'f') { FrameAction::Pass } else { FrameAction::Stop }
    }

    fn stops_at(&mut self, _: u8, _: &[u8]) -> bool {
        true
    }

    fn oversize(&mut self, _: u8, _: u32) -> bool {
        true
    }

    fn limit(&self) -> u32 {
        0
    }
}

/// Reads once into the thread's scratch buffer and hands what came to `then`. `Ok(0)`: end of file.
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

/// Writes all of `out`, or is pending.
fn flush(stream: &mut Stream, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match stream.poll_write(cx, out) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => out.advance(n),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    // What a burst needed is given back.
    if out.capacity() > 0 {
        *out = BytesMut::new();
    }
    stream.poll_flush(cx)
}

/// Writes `bytes` now as far as the peer takes them; the rest waits in `out`, which is empty before.
fn write_through(stream: &mut Stream, out: &mut BytesMut, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
    if !out.is_empty() || bytes.is_empty() {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    match stream.poll_write(cx, bytes) {
        Poll::Ready(Ok(n)) => {
            out.extend_from_slice(&bytes[n..]);
            // What the stream still holds, the next flush of this direction sends; it comes before any further byte.
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
