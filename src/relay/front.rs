//! The direction from the client to the server.
//!
//! Invariant: each frame that passes to the server is counted in [`Owed`](crate::wire::owed::Owed) first.

use super::{Event, FrameAction, Inspect, Link, READ_AHEAD, SCRATCH_BUFFER, TURNS, flush, read_scratch, write_through};
use crate::metrics::count_from_client;
use crate::wire::frame::{BadFrame, FRONTEND_LIMIT, HEADER_LEN, Header};
use bytes::{Buf, Bytes};
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// Where a walk over the client's bytes ended.
enum Walked {
    /// All complete frames may pass. An incomplete frame follows.
    Short,
    /// A frame needs attention.
    Stopped,
    Bad(BadFrame),
}

impl Link {
    /// Passes on the bytes that the client sent. `Pending` means that nothing more can be done now; the end of file is also
    /// `Pending`.
    pub(super) fn poll_front<I: Inspect>(&mut self, cx: &mut Context<'_>, inspect: &mut I) -> Poll<Event> {
        for _ in 0..TURNS {
            match flush(&mut self.back, &mut self.back_out, cx) {
                Poll::Ready(Ok(())) => {}
                // The other direction reads the server's last messages, if there are any.
                Poll::Ready(Err(_)) => {
                    self.back_out.clear();
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            }
            if !self.front_in.is_empty() && !self.front_short {
                if let Some(event) = self.forward_held(cx, inspect) {
                    return Poll::Ready(event);
                }
                continue;
            }
            if self.front_eof {
                if inspect.outlives_client() {
                    return Poll::Ready(Event::FrontendGone);
                }
                return self.poll_half_close(cx);
            }
            match self.poll_read_front(cx, inspect) {
                Poll::Ready(Some(event)) => return Poll::Ready(event),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The client sends no more. The server is told so, and may still answer.
    fn poll_half_close(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if !self.back_shut {
            match self.back.poll_shutdown(cx) {
                Poll::Ready(_) => self.back_shut = true,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn poll_read_front<I: Inspect>(&mut self, cx: &mut Context<'_>, inspect: &mut I) -> Poll<Option<Event>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match self.front.poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => count_from_client(buf.filled().len()),
                Poll::Ready(_) => {
                    self.front_eof = true;
                    return Poll::Ready(None);
                }
            }
            if self.front_in.is_empty() {
                return Poll::Ready(self.forward(buf.filled(), cx, inspect));
            }
            self.front_in.extend_from_slice(buf.filled());
            Poll::Ready(self.forward_held(cx, inspect))
        })
    }

    /// Walks `input`, passes on the bytes that may pass, and holds the rest.
    fn forward<I: Inspect>(&mut self, input: &[u8], cx: &mut Context<'_>, inspect: &mut I) -> Option<Event> {
        let (pass, walked) = self.walk_front(input, inspect);
        self.write_back(&input[..pass], cx);
        self.front_in.extend_from_slice(&input[pass..]);
        self.after_walk(&walked)
    }

    /// Does what `forward` does, with the bytes that are already held.
    fn forward_held<I: Inspect>(&mut self, cx: &mut Context<'_>, inspect: &mut I) -> Option<Event> {
        let mut held = std::mem::take(&mut self.front_in);
        let (pass, walked) = self.walk_front(&held, inspect);
        self.write_back(&held[..pass], cx);
        held.advance(pass);
        if !held.is_empty() {
            self.front_in = held;
        }
        self.after_walk(&walked)
    }

    /// Writes to the server. If the server takes no more, its end of file is noticed in the other direction, after its last
    /// messages.
    fn write_back(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if write_through(&mut self.back, &mut self.back_out, bytes, cx).is_err() {
            self.back_out.clear();
        }
    }

    fn after_walk(&mut self, walked: &Walked) -> Option<Event> {
        self.front_short = matches!(walked, Walked::Short);
        match walked {
            Walked::Short => None,
            Walked::Stopped => Some(Event::Frame),
            Walked::Bad(bad) => Some(Event::Broken { front: true, what: bad.to_string() }),
        }
    }

    fn walk_front<I: Inspect>(&mut self, input: &[u8], inspect: &mut I) -> (usize, Walked) {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if self.front_skip > 0 {
                let n = rest.len().min(self.front_skip as usize);
                self.front_skip -= n as u32;
                at += n;
                if self.front_skip > 0 {
                    return (at, Walked::Short);
                }
                continue;
            }
            let header = match Header::read(rest, FRONTEND_LIMIT) {
                Ok(Some(header)) => header,
                Ok(None) => return (at, Walked::Short),
                Err(bad) => return (at, Walked::Bad(bad)),
            };
            match inspect.action_for(header.tag) {
                FrameAction::Pass => {}
                FrameAction::Stop => return (at, Walked::Stopped),
                FrameAction::Open if header.body > inspect.limit(header.tag) => {
                    if inspect.oversize(header.tag, header.body) {
                        return (at, Walked::Stopped);
                    }
                }
                FrameAction::Open => {
                    let Some(body) = rest.get(HEADER_LEN..header.total()) else { return (at, Walked::Short) };
                    if self.logged_block_has_ended() {
                        inspect.block_has_ended();
                        self.log_answers(0);
                    }
                    if inspect.stops_at(header.tag, body) {
                        return (at, Walked::Stopped);
                    }
                    self.log_answers(inspect.answers_limit());
                }
            }
            self.account(header.tag);
            at += HEADER_LEN;
            self.front_skip = header.body;
        }
    }

    /// Records that a frontend's message goes to the backend.
    pub fn account(&mut self, tag: u8) {
        self.owed.sent(tag);
        match tag {
            b'E' => self.executes = self.executes.saturating_add(1),
            b'S' | b'Q' => self.executes = 0,
            _ => {}
        }
    }

    /// Waits for the client's frame after the one that it stopped at, and returns that frame's tag. Returns `None` if the
    /// client is at its end or broke the protocol.
    pub async fn tag_after_next(&mut self) -> Option<u8> {
        let skip = self.peek_frame()?.0.total();
        std::future::poll_fn(|cx| {
            loop {
                if let Some(tag) = self.front_in.get(skip) {
                    return Poll::Ready(Some(*tag));
                }
                if self.front_eof {
                    return Poll::Ready(None);
                }
                match self.poll_watch_front(cx) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Returns when the client has left without a Terminate.
    pub async fn front_leaves(&mut self) {
        std::future::poll_fn(|cx| {
            while let Poll::Ready(()) = self.poll_watch_front(cx) {}
            if self.front_gone() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads ahead from the client, so that its end is noticed while it sends nothing. `Ready` means that something came.
    pub(super) fn poll_watch_front(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The limit is raised by the size of one frame, so that the frame behind a large frame can be read.
        let limit = READ_AHEAD + self.peek_header().map_or(0, Header::total);
        if self.front_eof || self.front_in.len() >= limit {
            return Poll::Pending;
        }
        let input = &mut self.front_in;
        match read_scratch(&mut self.front, cx, |bytes, _| {
            input.extend_from_slice(bytes);
            count_from_client(bytes.len());
            bytes.len()
        }) {
            Poll::Ready(Ok(0) | Err(_)) => {
                self.front_eof = true;
                Poll::Ready(())
            }
            Poll::Ready(Ok(_)) => {
                self.front_short = false;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The frame that [`Event::Frame`] stopped at. The frame stays in the input.
    pub fn peek_frame(&self) -> Option<(Header, &[u8])> {
        let header = Header::read(&self.front_in, FRONTEND_LIMIT).ok().flatten()?;
        Some((header, self.front_in.get(HEADER_LEN..header.total())?))
    }

    /// The header of that frame, for a frame whose body was not waited for.
    pub fn peek_header(&self) -> Option<Header> {
        Header::read(&self.front_in, FRONTEND_LIMIT).ok().flatten()
    }

    /// Takes the client's next frame with its header, if the whole frame is there.
    pub fn take_frame(&mut self) -> Option<Bytes> {
        let (header, _) = self.peek_frame()?;
        self.front_short = false;
        Some(self.front_in.split_to(header.total()).freeze())
    }

    /// Passes the client's next frame on to the backend. The part of the body that is not here yet follows unopened.
    pub fn pass_frame(&mut self) {
        let Ok(Some(header)) = Header::read(&self.front_in, FRONTEND_LIMIT) else { return };
        self.account(header.tag);
        let here = self.front_in.len().min(header.total());
        self.back_out.extend_from_slice(&self.front_in[..here]);
        self.front_in.advance(here);
        self.front_skip = u32::try_from(header.total() - here).unwrap_or(u32::MAX);
        self.front_short = false;
    }
}
