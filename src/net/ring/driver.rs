//! The sessions' side of a ring: it knows for what each socket waits, and what the next call of the kernel must do.
//!
//! The file owns the sockets on the ring, the bytes that wait to be sent, and the wakers of their tasks.
//!
//! Invariants: no session's waker is called while the ring is borrowed. The socket of a dropped stream stays open until nothing
//! on it is under way, or the worker ends.

mod streams;

use super::kernel::{BUFFER, Done, Kernel};
use socket2::SockRef;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Writes larger than this are sent at once, without a copy.
const SMALL: usize = 4 * 1024;
/// The most bytes of one socket that wait for the next call.
const LARGEST: usize = 16 * 1024;
/// The number of empty buffers for such bytes that are kept.
const SPARE: usize = 64;
/// The longest that the kernel may take to end the operations under way when the worker ends.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// The kinds of submission. The lowest bits of `user_data` hold the kind, and the others the socket's place.
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WRITABLE: u64 = 3;
const CANCEL: u64 = 4;
/// The runtime's epoll has something to report.
const EPOLL: u64 = 5;
/// A tick is over.
const TICK: u64 = 6;
const KINDS: u64 = 8;

fn name(slot: u32, kind: u64) -> u64 {
    u64::from(slot) * KINDS + kind
}

/// Where the next bytes of a socket are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inward {
    /// No reader has asked.
    Idle,
    /// A receive is under way.
    Armed,
    /// The bytes stand in a buffer of the kernel's.
    Here {
        buffer: u16,
        from: u16,
        until: u16,
        more: bool,
    },
    /// The bytes are probably in the socket, so a direct receive is worth a try.
    Likely,
    End,
    Failed(i32),
}

/// What the worker does after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The worker wakes the tasks, and takes another turn.
    Busy,
    /// The runtime looks at its own sockets and timers.
    Runtime,
    /// The worker has nothing to do, and the bell is on.
    Idle,
}

/// One socket.
#[derive(Debug)]
struct Slot {
    socket: Option<OwnedFd>,
    inward: Inward,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Bytes that are written and not sent. The vector has no capacity while it is empty.
    out: Vec<u8>,
    /// The kernel took only a part of `out`. It will say when it takes more.
    blocked: bool,
    /// The result of the last send of `out`; `None` if all of it was sent.
    unsent: Option<i32>,
    /// The error after which nothing can be sent any more.
    broken: Option<i32>,
    /// The stream was dropped. The slot waits for the end of the operations under way.
    orphan: bool,
}

pub(super) struct Driver {
    kernel: Kernel,
    number: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Sockets whose `out` the next call sends.
    queued: Vec<u32>,
    spare: Vec<Vec<u8>>,
    worker: Option<Waker>,
    /// The worker knows that there is something to do, because it is at work or has been woken.
    called: bool,
    /// The numbers of receives and of waits under way.
    receiving: usize,
    waiting: usize,
    /// Something was done lately. The worker sleeps in the ring, where one call sends, receives and waits.
    lively: bool,
    /// The tick and the watch of the runtime's epoll are under way, for a worker that sleeps in the ring.
    ticking: bool,
    watching: bool,
    /// Something was done since the last tick.
    moved: bool,
    /// The tick or the epoll's report has come, so the runtime gets its turn.
    due: bool,
    /// The kernel takes no more submissions.
    broken: bool,
    /// The wakers that are called once the ring is no longer borrowed.
    woken: Vec<Waker>,
}

impl Driver {
    pub(super) fn new(number: u32) -> io::Result<(Self, AsyncFd<OwnedFd>)> {
        let (kernel, bell) = Kernel::new()?;
        let driver = Self {
            kernel,
            number,
            slots: Vec::new(),
            free: Vec::new(),
            queued: Vec::new(),
            spare: Vec::new(),
            worker: None,
            called: false,
            receiving: 0,
            waiting: 0,
            lively: false,
            ticking: false,
            watching: false,
            moved: false,
            due: false,
            broken: false,
            woken: Vec::new(),
        };
        Ok((driver, bell))
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Gives a socket a place.
    pub(super) fn add(&mut self, socket: OwnedFd) -> u32 {
        let slot = Slot {
            socket: Some(socket),
            inward: Inward::Idle,
            reader: None,
            writer: None,
            out: Vec::new(),
            blocked: false,
            unsent: None,
            broken: None,
            orphan: false,
        };
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            return at;
        }
        self.slots.push(slot);
        (self.slots.len() - 1) as u32
    }

    /// Records that the worker is at work. The worker need not be woken for anything that is left here.
    pub(super) fn at_work(&mut self, worker: &Waker) {
        keep(&mut self.worker, worker);
        self.called = true;
        self.kernel.bell(false);
    }

    /// Records that the runtime wakes the worker from now on.
    pub(super) fn leave(&mut self) {
        self.called = false;
    }

    /// Takes one turn: it submits and gathers. If the ring is lively and `may_sleep` allows it, the turn also sleeps until
    /// something comes.
    pub(super) fn turn(&mut self, may_sleep: impl FnOnce() -> bool, woken: &mut Vec<Waker>) -> Turn {
        let turn = self.next_turn(may_sleep);
        woken.append(&mut self.woken);
        turn
    }

    fn next_turn(&mut self, may_sleep: impl FnOnce() -> bool) -> Turn {
        if !self.broken && self.lively {
            self.watch();
            let sleeps = !self.kernel.has_news() && may_sleep();
            self.call(sleeps);
            return if std::mem::take(&mut self.due) { Turn::Runtime } else { Turn::Busy };
        }
        if self.broken {
            return Turn::Idle;
        }
        if !self.queued.is_empty() || self.kernel.has_queued() || self.kernel.has_news() {
            self.call(false);
            return Turn::Busy;
        }
        if self.watching {
            self.watch_no_more();
            return Turn::Busy;
        }
        // Without sockets there can be no news, so a worker of a few sessions saves this call.
        if self.free.len() == self.slots.len() && !self.ticking {
            return Turn::Idle;
        }
        self.kernel.bell(true);
        // The kernel hands over a limited number of completions at a time and does not mark the rest. So a call looks for
        // them.
        if self.call(false) || self.kernel.has_news() {
            self.kernel.bell(false);
            return Turn::Busy;
        }
        Turn::Idle
    }

    /// Ends the watch of the runtime's epoll before the worker sleeps in that epoll. If the ring still watched it, an
    /// eventfd of the runtime's would wake the ring. The ring could not ring its own bell then, and would not ring it later
    /// either.
    fn watch_no_more(&mut self) {
        match self.kernel.cancel(EPOLL, CANCEL) {
            Ok(()) => drop(self.call(false)),
            Err(error) => self.give_up(&error),
        }
    }

    /// Makes the ring report when the runtime has something to do for its sockets or its timers.
    fn watch(&mut self) {
        let asked =
            if std::mem::replace(&mut self.watching, true) { Ok(()) } else { self.kernel.wait_for_epoll(EPOLL) };
        let asked = asked.and_then(|()| match std::mem::replace(&mut self.ticking, true) {
            true => Ok(()),
            false => self.kernel.tick(TICK),
        });
        if let Err(error) = asked {
            self.give_up(&error);
        }
    }

    /// Makes one call of the kernel. Returns whether any operation was done by then.
    fn call(&mut self, sleeps: bool) -> bool {
        let mut queued = std::mem::take(&mut self.queued);
        let result = queued.iter().try_for_each(|at| {
            let slot = &self.slots[*at as usize];
            self.kernel.send(raw(slot), &slot.out, name(*at, SEND))
        });
        let entered = result.and_then(|()| match sleeps {
            true => self.kernel.enter_and_wait(),
            false => self.kernel.enter(),
        });
        if let Err(error) = entered {
            self.give_up(&error);
            return true;
        }
        let done = self.kernel.take_done();
        let any = !done.is_empty();
        for one in &done {
            self.is_done(*one);
        }
        self.kernel.give_done_back(done);
        for at in queued.drain(..) {
            self.after_send(at);
        }
        // No task was woken meanwhile, so nothing was added to `queued`.
        self.queued = queued;
        any
    }

    fn is_done(&mut self, done: Done) {
        let Ok(at) = u32::try_from(done.what / KINDS) else { return };
        match done.what % KINDS {
            RECEIVE => self.received(at, done),
            SEND => {
                if let Some(slot) = self.slots.get_mut(at as usize) {
                    slot.unsent = Some(done.result);
                }
            }
            WRITABLE => {
                self.waiting -= 1;
                self.slots[at as usize].blocked = false;
                if !self.release(at) {
                    self.send_out(at);
                }
            }
            EPOLL => (self.watching, self.due) = (false, true),
            TICK => {
                (self.ticking, self.due) = (false, true);
                self.lively = std::mem::take(&mut self.moved);
            }
            // The cancel found nothing, because the operation was done already.
            _ => {}
        }
    }

    fn received(&mut self, at: u32, done: Done) {
        self.receiving -= 1;
        (self.moved, self.lively) = (true, true);
        let slot = &mut self.slots[at as usize];
        slot.inward = match (done.result, done.buffer) {
            (length @ 1.., Some(buffer)) => {
                let until = u16::try_from(length).unwrap_or(u16::MAX);
                // Some kinds of socket do not report that more bytes follow.
                Inward::Here { buffer, from: 0, until, more: done.more || usize::from(until) >= BUFFER }
            }
            (0, _) => Inward::End,
            // No buffer was left, or the report was a false alarm.
            (code, _) if matches!(-code, libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => Inward::Likely,
            (code, _) => Inward::Failed(-code),
        };
        if let (Some(buffer), false) = (done.buffer, matches!(slot.inward, Inward::Here { .. })) {
            self.kernel.give_back(buffer);
        }
        self.woken.extend(slot.reader.take());
        self.release(at);
    }

    /// Handles the bytes of a queued write that the call did not send.
    fn after_send(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        match slot.unsent.take() {
            None => self.empty(at),
            Some(sent @ 0..) => {
                slot.out.drain(..slot.out.len().min(sent as usize));
                self.send_later(at);
            }
            Some(code) if -code == libc::EAGAIN => self.send_later(at),
            Some(code) => self.fail(at, -code),
        }
    }

    /// Sends the waiting bytes directly, and the rest later. The socket must not be in `queued`.
    fn send_out(&mut self, at: u32) {
        loop {
            let slot = &mut self.slots[at as usize];
            if slot.out.is_empty() {
                self.woken.extend(slot.writer.take());
                self.empty(at);
                return self.wake_worker();
            }
            match send(slot, &slot.out) {
                Ok(sent) => {
                    slot.out.drain(..sent.min(slot.out.len()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.send_later(at),
                Err(error) => return self.fail(at, error.raw_os_error().unwrap_or(libc::EPIPE)),
            }
        }
    }

    /// Asks the kernel to report when the socket takes bytes again.
    fn send_later(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        slot.blocked = true;
        let asked = self.kernel.wait_writable(raw(slot), name(at, WRITABLE));
        self.waiting += 1;
        self.after_push(asked);
    }

    fn fail(&mut self, at: u32, code: i32) {
        let slot = &mut self.slots[at as usize];
        slot.broken = Some(code);
        self.woken.extend(slot.writer.take());
        self.woken.extend(slot.reader.take());
        self.empty(at);
        self.wake_worker();
    }

    fn empty(&mut self, at: u32) {
        let mut out = std::mem::take(&mut self.slots[at as usize].out);
        out.clear();
        if self.spare.len() < SPARE && (1..=2 * LARGEST).contains(&out.capacity()) {
            self.spare.push(out);
        }
    }

    /// Closes the socket of a dropped stream when nothing is under way any more. Returns whether the stream was dropped.
    fn release(&mut self, at: u32) -> bool {
        let slot = &mut self.slots[at as usize];
        if !slot.orphan {
            return false;
        }
        if slot.inward != Inward::Armed && !slot.blocked && slot.socket.take().is_some() {
            if let Inward::Here { buffer, .. } = slot.inward {
                self.kernel.give_back(buffer);
            }
            slot.inward = Inward::Idle;
            self.empty(at);
            self.free.push(at);
        }
        true
    }

    fn after_push(&mut self, pushed: io::Result<()>) {
        match pushed {
            Ok(()) => self.wake_worker(),
            Err(error) => self.give_up(&error),
        }
    }

    fn wake_worker(&mut self) {
        if !std::mem::replace(&mut self.called, true)
            && let Some(worker) = &self.worker
        {
            worker.wake_by_ref();
        }
    }

    /// Gives the ring up. No session of this worker can go on, and new sessions cannot use their streams.
    fn give_up(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.broken, true) {
            tracing::error!(%error, "the kernel does not serve a worker's io_uring any more: its sessions end");
        }
        for slot in &mut self.slots {
            self.woken.extend(slot.reader.take());
            self.woken.extend(slot.writer.take());
            if let Some(socket) = &slot.socket {
                // The kernel may keep the socket open. The peer should not wait for that.
                let _ = SockRef::from(socket).shutdown(Shutdown::Both);
            }
        }
        self.wake_worker();
    }

    #[cfg(test)]
    pub(super) fn fail_for_good(&mut self) {
        self.give_up(&io::Error::other("as is meant"));
    }

    /// Ends the operations under way, and then the ring.
    pub(super) fn end(mut self) {
        let places = 0..self.slots.len() as u32;
        for at in places.filter(|at| !self.slots[*at as usize].orphan).collect::<Vec<_>>() {
            self.remove(at);
        }
        let until = Instant::now() + LAST_CALLS;
        while !self.broken && self.receiving + self.waiting > 0 && Instant::now() < until {
            if !self.call(false) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.kernel.end(self.receiving);
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.slots.len() - self.free.len(), self.receiving, self.waiting)
    }
}

fn raw(slot: &Slot) -> RawFd {
    slot.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
}

fn send(slot: &Slot, bytes: &[u8]) -> io::Result<usize> {
    let socket = slot.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    SockRef::from(socket).send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
}

pub(super) fn keep(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|there| there.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

fn given_up() -> io::Error {
    io::Error::other("the worker's io_uring is of no more use")
}
