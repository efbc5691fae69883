//! A session's calls on its streams: read, write, flush, shutdown and drop.
//!
//! A small write waits for the ring's next call. A large write goes at once, behind the waiting bytes. A read takes the
//! bytes that the ring has received, or those that are probably in the socket. If there are none, it arms a receive.

use super::{CANCEL, RECEIVE, WRITABLE};
use super::{Driver, Inward, LARGEST, SMALL, Slot, given_up, keep, name, raw, send};
use socket2::SockRef;
use std::io::{self, Read};
use std::net::Shutdown;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

impl Driver {
    pub(in crate::net::ring) fn read(
        &mut self,
        at: u32,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(given_up()));
        }
        loop {
            let slot = &mut self.slots[at as usize];
            match slot.inward {
                Inward::Here { buffer, from, until, more } => {
                    let here = &self.kernel.bytes(buffer, until.into())[from.into()..];
                    let taken = here.len().min(buf.remaining());
                    buf.put_slice(&here[..taken]);
                    let from = from + taken as u16;
                    if from < until {
                        slot.inward = Inward::Here { buffer, from, until, more };
                    } else {
                        slot.inward = if more { Inward::Likely } else { Inward::Idle };
                        self.kernel.give_back(buffer);
                    }
                    return Poll::Ready(Ok(()));
                }
                Inward::Likely => {
                    slot.inward = Inward::Idle;
                    match receive(slot, buf) {
                        // The read filled all the room, so the socket may have more.
                        Ok(n) if n > 0 && buf.remaining() == 0 => slot.inward = Inward::Likely,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                            slot.inward = Inward::Likely;
                            continue;
                        }
                        Ok(0) if buf.remaining() > 0 => slot.inward = Inward::End,
                        Ok(_) => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    return Poll::Ready(Ok(()));
                }
                Inward::End => return Poll::Ready(Ok(())),
                Inward::Failed(code) => {
                    slot.inward = Inward::Likely;
                    return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
                }
                Inward::Idle => {
                    slot.inward = Inward::Armed;
                    let armed = self.kernel.receive(raw(slot), name(at, RECEIVE));
                    self.receiving += 1;
                    self.after_push(armed);
                }
                Inward::Armed => {
                    keep(&mut slot.reader, cx.waker());
                    return if self.broken { Poll::Ready(Err(given_up())) } else { Poll::Pending };
                }
            }
        }
    }

    pub(in crate::net::ring) fn write(&mut self, at: u32, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Poll::Ready(()) = self.flush(at, cx)? else { return Poll::Pending };
        let slot = &mut self.slots[at as usize];
        if bytes.len() <= SMALL && slot.out.len() + bytes.len() <= LARGEST {
            if slot.out.is_empty() && !bytes.is_empty() {
                slot.out = self.spare.pop().unwrap_or_default();
                self.queued.push(at);
                self.wake_worker();
            }
            self.slots[at as usize].out.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.send_queued(at);
        let Poll::Ready(()) = self.flush(at, cx)? else { return Poll::Pending };
        loop {
            let slot = &mut self.slots[at as usize];
            match send(slot, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    keep(&mut slot.writer, cx.waker());
                    self.send_later(at);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    pub(in crate::net::ring) fn flush(&mut self, at: u32, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(given_up()));
        }
        let slot = &mut self.slots[at as usize];
        if let Some(code) = slot.broken {
            return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
        }
        if slot.blocked {
            keep(&mut slot.writer, cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(in crate::net::ring) fn shutdown(&mut self, at: u32, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.send_queued(at);
        let Poll::Ready(()) = self.flush(at, cx)? else { return Poll::Pending };
        let Some(socket) = &self.slots[at as usize].socket else { return Poll::Ready(Ok(())) };
        match SockRef::from(socket).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Sends the bytes that wait for the next call now, so that others can follow them.
    fn send_queued(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        if !slot.out.is_empty() && !slot.blocked {
            self.queued.retain(|queued| *queued != at);
            self.send_out(at);
        }
    }

    /// Drops the stream. Its written bytes go as far as the socket takes them, as with any socket that is closed.
    pub(in crate::net::ring) fn remove(&mut self, at: u32) {
        self.send_queued(at);
        let slot = &mut self.slots[at as usize];
        slot.orphan = true;
        // The wakers belong to the task that drops the stream, so they are not woken.
        drop((slot.reader.take(), slot.writer.take()));
        let (armed, blocked) = (slot.inward == Inward::Armed, slot.blocked);
        if let Inward::Here { buffer, .. } = slot.inward {
            slot.inward = Inward::Idle;
            self.kernel.give_back(buffer);
        }
        for (under_way, kind) in [(armed, RECEIVE), (blocked, WRITABLE)] {
            if under_way && !self.broken {
                let asked = self.kernel.cancel(name(at, kind), name(at, CANCEL));
                self.after_push(asked);
            }
        }
        self.release(at);
    }
}

fn receive(slot: &Slot, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    let socket = slot.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    let n = (&*SockRef::from(socket)).read(buf.initialize_unfilled())?;
    buf.advance(n);
    Ok(n)
}
