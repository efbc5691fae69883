//! Sockets on an io_uring: one ring per worker, on which all its sessions receive and send.
//!
//! What epoll does in three calls per message (wait, receive, send) is gathered here: sessions leave small sends with
//! the ring's [`Driver`], receives are armed, and one call for all of them follows when the sessions that had something
//! to do have done it. That call is made by a task of its own ([`Tender`]), which is woken by the first thing that is
//! left and so comes behind all who are in the runtime's queue; while it has nothing to do, an eventfd in the runtime's
//! epoll wakes it. Nothing depends on the runtime being idle, or on its hooks.
//!
//! Invariants: bytes leave a socket in the order they were written in; a receive is armed only when the session wants to
//! read, so a peer that does not read makes the other side wait; an idle session holds no buffer; a descriptor is
//! closed when nothing refers to it any more; the kernel holds no address of a session's.
//! Why, and what was tried: `docs/decisions/0013-io-uring.md`.

mod driver;
mod kernel;

use driver::Driver;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

thread_local! {
    static RING: RefCell<Option<Driver>> = const { RefCell::new(None) };
    /// Sessions of this thread that could be on its ring, and how many make it worth while; none do without a ring.
    static PRESENT: Cell<u32> = const { Cell::new(0) };
    static WORTH: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// With fewer sessions there is too little to gather: a call for the ring's news is one more than epoll needs.
pub const A_FEW: u32 = 16;

/// Rings so far: a stream that strays to another thread must not take that one's place for its own.
static RINGS: AtomicU32 = AtomicU32::new(0);

/// A socket on this thread's ring.
#[derive(Debug)]
pub struct RingStream {
    slot: u32,
    ring: u32,
}

/// A session without encryption, counted for as long as it lives.
#[derive(Debug)]
pub struct Present(());

impl Present {
    pub fn here() -> Self {
        PRESENT.set(PRESENT.get().wrapping_add(1));
        Self(())
    }

    /// Whether the session is better off on the ring.
    pub fn belongs_on_ring(&self) -> bool {
        PRESENT.get() >= WORTH.get()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let _ = PRESENT.try_with(|present| present.set(present.get().wrapping_sub(1)));
    }
}

/// Makes this thread's ring, for sessions that meet `worth` or more. Whoever gets its [`Tender`] runs it on this thread's runtime, and calls [`stop`] at the end.
///
/// # Errors
/// The kernel or the sandbox does not allow it.
pub fn start(worth: u32) -> io::Result<Tender> {
    let (driver, bell) = Driver::new(RINGS.fetch_add(1, Ordering::Relaxed))?;
    let bell = kernel::watch(bell)?;
    RING.with_borrow_mut(|ring| *ring = Some(driver));
    WORTH.set(worth);
    Ok(Tender { bell, woken: Vec::new() })
}

/// Ends this thread's ring, after its last stream.
pub fn stop() {
    WORTH.set(u32::MAX);
    if let Some(driver) = RING.with_borrow_mut(Option::take) {
        driver.end();
    }
}

/// The task that speaks with the kernel, for as long as its runtime lives.
#[derive(Debug)]
pub struct Tender {
    bell: AsyncFd<OwnedFd>,
    woken: Vec<Waker>,
}

impl Future for Tender {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // It is never read: each ring of it is an edge, and all that an edge says is that there is news.
        while let Poll::Ready(Ok(mut ready)) = self.bell.poll_read_ready(cx) {
            ready.clear_ready();
        }
        let woken = &mut self.woken;
        let here = RING.with_borrow_mut(|ring| ring.as_mut().map(|driver| driver.tend(cx.waker(), woken)).is_some());
        // Outside of the borrow, as whoever is woken may be dropped.
        for waker in self.woken.drain(..) {
            waker.wake();
        }
        if here { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl RingStream {
    /// A socket that does not block. Drops it if this thread has no ring.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        RING.with_borrow_mut(|ring| {
            let driver = ring.as_mut().ok_or_else(elsewhere)?;
            Ok(Self { slot: driver.add(socket), ring: driver.number() })
        })
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|driver, slot| driver.read(slot, cx, buf))
    }

    /// What was written may wait for the ring's next call; an error of it is told by the next write or flush.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|driver, slot| driver.write(slot, cx, bytes))
    }

    /// Whether more can be written: ready also while bytes wait for the ring's next call.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|driver, slot| driver.flush(slot, cx))
    }

    /// Sends what waits, and then ends this side's sending.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|driver, slot| driver.shutdown(slot, cx))
    }

    fn with<T>(&self, then: impl FnOnce(&mut Driver, u32) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        RING.with_borrow_mut(|ring| match ring {
            Some(driver) if driver.number() == self.ring => then(driver, self.slot),
            _ => Poll::Ready(Err(elsewhere())),
        })
    }
}

impl Drop for RingStream {
    fn drop(&mut self) {
        // With its ring gone the socket is closed already.
        let _ = RING.try_with(|ring| {
            if let Some(driver) = ring.borrow_mut().as_mut().filter(|driver| driver.number() == self.ring) {
                driver.remove(self.slot);
            }
        });
    }
}

fn elsewhere() -> io::Error {
    io::Error::other("a stream away from its thread's ring")
}

#[cfg(test)]
mod tests;
