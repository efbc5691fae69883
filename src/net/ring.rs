//! Sockets on an io_uring: one ring for each worker, on which all its sessions receive and send.
//!
//! With epoll, a message takes three calls: wait, receive, send. The ring gathers these calls. Sessions leave small sends
//! with the ring's [`Driver`] and arm receives. When every session that had something to do has done it, one call submits
//! all of them. That call also sleeps until there is more to do. The worker's tasks are a [`LocalSet`] that the worker's
//! loop ([`AtWork`]) runs, so the loop knows when nothing is left to do. The ring also watches the runtime's epoll, which
//! has every socket that is not on the ring, and the loop looks at the runtime's timers every millisecond. After a
//! millisecond in which nothing came, the worker sleeps in the runtime's epoll like any other worker. There an eventfd wakes
//! it when the ring has something.
//!
//! Invariants: bytes leave a socket in the order in which they were written. A receive is armed only when the session
//! wants to read, so a peer that does not read makes the other side wait. An idle session holds no buffer. A descriptor
//! is closed when nothing refers to it any more. The kernel holds no address of a session's memory.
//!
//! `docs/decisions/0013-io-uring.md` has the reasons, and what else was tried.

mod driver;
mod kernel;

use driver::{Driver, Turn};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, LocalSet};

thread_local! {
    static RING: RefCell<Option<Driver>> = const { RefCell::new(None) };
    /// The number of this thread's sessions that could use its ring, and the number of sessions from which they do. Without
    /// a ring no session uses it.
    static PRESENT: Cell<u32> = const { Cell::new(0) };
    static WORTH: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// With fewer sessions there is too little to gather.
pub const A_FEW: u32 = 8;

/// The number of rings so far. Each ring has a number of its own, so that a stream on another thread does not use that
/// thread's ring.
static RINGS: AtomicU32 = AtomicU32::new(0);

/// A socket on this thread's ring.
#[derive(Debug)]
pub struct RingStream {
    slot: u32,
    ring: u32,
}

/// A session without encryption. It is counted for as long as it lives.
#[derive(Debug)]
pub struct Present(());

impl Present {
    pub fn here() -> Self {
        PRESENT.set(PRESENT.get().wrapping_add(1));
        Self(())
    }

    /// Whether the session should use the ring.
    pub fn belongs_on_ring(&self) -> bool {
        PRESENT.get() >= WORTH.get()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let _ = PRESENT.try_with(|present| present.set(present.get().wrapping_sub(1)));
    }
}

/// Makes this thread's ring. Sessions use it while `worth` or more of them are there. The owner of its [`Bell`] works by
/// [`work`], and calls [`stop`] at the end.
///
/// # Errors
/// The kernel or the sandbox does not allow it.
pub fn start(worth: u32) -> io::Result<Bell> {
    let (driver, bell) = Driver::new(RINGS.fetch_add(1, Ordering::Relaxed))?;
    RING.with_borrow_mut(|ring| *ring = Some(driver));
    WORTH.set(worth);
    Ok(Bell(bell))
}

/// Ends this thread's ring, after its last stream.
pub fn stop() {
    WORTH.set(u32::MAX);
    if let Some(driver) = RING.with_borrow_mut(Option::take) {
        driver.end();
    }
}

/// Wakes a worker that sleeps in the runtime's epoll when its ring has something. The eventfd is never read: each write to
/// it is an edge, and an edge only says that there is news.
#[derive(Debug)]
pub struct Bell(AsyncFd<OwnedFd>);

/// Runs the tasks of `tasks` until `main`, one of them, is done.
pub async fn work(bell: Bell, tasks: &mut LocalSet, main: &JoinHandle<()>) {
    let call = Arc::new(Call { state: AtomicU8::new(AT_WORK), sleeper: Mutex::new(None) });
    let waker = Waker::from(Arc::clone(&call));
    AtWork { bell, tasks, main, call, waker, woken: Vec::new() }.await;
}

/// The number of rounds after which the runtime's sockets and timers get their turn, however busy the tasks are.
const ROUNDS: usize = 64;

/// A worker's loop.
struct AtWork<'a> {
    bell: Bell,
    tasks: &'a mut LocalSet,
    main: &'a JoinHandle<()>,
    call: Arc<Call>,
    /// `call` as a waker.
    waker: Waker,
    woken: Vec<Waker>,
}

impl Future for AtWork<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.call.sleeper(cx.waker());
        while let Poll::Ready(Ok(mut ready)) = this.bell.0.poll_read_ready(cx) {
            ready.clear_ready();
        }
        with_ring(|ring| ring.at_work(&this.waker));
        for _ in 0..ROUNDS {
            this.call.wake_up();
            let _ = Pin::new(&mut *this.tasks).poll(&mut Context::from_waker(&this.waker));
            if this.main.is_finished() {
                return Poll::Ready(());
            }
            match this.turn() {
                Turn::Busy => {}
                Turn::Runtime => break,
                Turn::Idle if this.call.sleep() => {
                    with_ring(Driver::leave);
                    return Poll::Pending;
                }
                Turn::Idle => with_ring(|ring| ring.at_work(&this.waker)),
            }
        }
        with_ring(Driver::leave);
        // The runtime polls this future again when it has looked at its sockets and timers.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        this.call.sleep_in_any_case();
        Poll::Pending
    }
}

impl AtWork<'_> {
    fn turn(&mut self) -> Turn {
        let (call, woken) = (&self.call, &mut self.woken);
        let turn = RING.with_borrow_mut(|ring| ring.as_mut().map(|ring| ring.turn(|| call.sleep(), woken)));
        if turn != Some(Turn::Idle) {
            // The worker counts as awake before it wakes others. Otherwise their calls would wake the worker.
            call.wake_up();
        }
        // Tasks are woken after the borrow has ended, since a task that is woken may be dropped.
        for waker in self.woken.drain(..) {
            waker.wake();
        }
        turn.unwrap_or(Turn::Idle)
    }
}

/// Notes that a worker's tasks have work, and wakes the worker if it sleeps.
#[derive(Debug)]
struct Call {
    state: AtomicU8,
    /// The runtime's waker. The runtime's epoll reports it, and so does the ring that watches this epoll.
    sleeper: Mutex<Option<Waker>>,
}

const AT_WORK: u8 = 0;
const CALLED: u8 = 1;
const ASLEEP: u8 = 2;

impl Call {
    fn sleeper(&self, waker: &Waker) {
        driver::keep(&mut self.sleeper.lock().unwrap_or_else(PoisonError::into_inner), waker);
    }

    fn wake_up(&self) {
        self.state.store(AT_WORK, Ordering::Release);
    }

    /// Whether the worker may sleep, because no call came since it woke up. From here on a call wakes it.
    fn sleep(&self) -> bool {
        self.state.compare_exchange(AT_WORK, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn sleep_in_any_case(&self) {
        self.state.store(ASLEEP, Ordering::Release);
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(CALLED, Ordering::AcqRel) == ASLEEP
            && let Some(sleeper) = &*self.sleeper.lock().unwrap_or_else(PoisonError::into_inner)
        {
            sleeper.wake_by_ref();
        }
    }
}

fn with_ring(then: impl FnOnce(&mut Driver)) {
    RING.with_borrow_mut(|ring| ring.as_mut().map(then));
}

impl RingStream {
    /// Puts a socket that does not block on the ring. If this thread has no ring, the socket is closed.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        RING.with_borrow_mut(|ring| {
            let driver = ring.as_mut().ok_or_else(elsewhere)?;
            Ok(Self { slot: driver.add(socket), ring: driver.number() })
        })
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|driver, slot| driver.read(slot, cx, buf))
    }

    /// Written bytes may wait for the ring's next call. The next write or flush reports an error of theirs.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|driver, slot| driver.write(slot, cx, bytes))
    }

    /// Ready if more can be written, which may be while bytes wait for the ring's next call.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|driver, slot| driver.flush(slot, cx))
    }

    /// Sends the waiting bytes, and then ends this side's sending.
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
        // If the ring has ended, the socket is closed already.
        let _ = RING.try_with(|ring| {
            if let Some(driver) = ring.borrow_mut().as_mut().filter(|driver| driver.number() == self.ring) {
                driver.remove(self.slot);
            }
        });
    }
}

fn elsewhere() -> io::Error {
    io::Error::other("the stream is used outside the thread of its ring")
}

#[cfg(test)]
mod tests;
