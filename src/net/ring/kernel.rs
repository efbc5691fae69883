//! The kernel's side of a ring: submissions, completions, and the buffers that the ring receives into.
//!
//! All `unsafe` of the crate is here. It is sound for two reasons. The kernel is given three kinds of address: that of
//! the receive buffers, which live until no receive is under way; that of a constant; and that of bytes to send, which
//! the kernel has copied when [`Kernel::enter`] returns (with `MSG_DONTWAIT`, a send is over by then, done or not). To
//! the kernel, a file descriptor is a number.

#![allow(unsafe_code, reason = "shared memory with the kernel; each block says why it holds")]

use io_uring::types::{BufRingEntry, Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The most submissions that wait for the next call. One more makes a call of its own.
const SUBMISSIONS: u32 = 512;
/// The size of the completion queue. The kernel keeps further completions to itself until there is room.
const COMPLETIONS: u32 = 4096;
/// The number of a worker's receive buffers. Bytes stand in a buffer only between a completion and the session's turn. When
/// no buffer is left, sessions receive directly.
const BUFFERS: u16 = 64;
/// The size of a receive buffer. Most messages are far smaller. Direct receives take the rest of a larger one.
pub(super) const BUFFER: usize = 8 * 1024;
/// The number of the one group of buffers that a ring has.
const GROUP: u16 = 0;
/// How long a lively worker sleeps in its ring at a time. The runtime's timers count in milliseconds too.
static TICK: Timespec = Timespec::new().nsec(1_000_000);
/// The number of refusals for want of memory after which the ring is given up.
const PATIENCE: u32 = 1000;
/// `IORING_RECVSEND_POLL_FIRST`: the socket is empty, since otherwise the session would have read it before.
const POLL_FIRST: u16 = 1;

/// The completion of a submission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) what: u64,
    /// The result, as a system call returns it: a negative result is an error's number.
    pub(super) result: i32,
    /// The receive buffer that the operation filled.
    pub(super) buffer: Option<u16>,
    /// The socket has more bytes.
    pub(super) more: bool,
}

pub(super) struct Kernel {
    ring: IoUring,
    /// The receive buffers. Only [`Kernel::end`] frees them, since a closed ring ends its receives later.
    buffers: ManuallyDrop<Buffers>,
    /// The runtime's epoll. The ring watches it while the worker sleeps in the ring.
    epoll: OwnedFd,
    /// The flags of each call.
    flags: u32,
    done: Vec<Done>,
    /// [`Kernel::enter`] failed. The rest of its queue must never be submitted, since the bytes to send may be freed.
    dead: bool,
}

impl Kernel {
    /// Makes a ring for this thread's runtime, and an eventfd on the runtime's epoll. While the bell is on, the eventfd
    /// reports that the ring has something.
    ///
    /// # Errors
    /// The kernel is older than 6.1, the sandbox forbids it, or there is no /proc.
    pub(super) fn new() -> io::Result<(Self, AsyncFd<OwnedFd>)> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        // SAFETY: the system call takes no address; its result is checked.
        let bell = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        let bell = watch(bell)?;
        let epoll = epoll_of(bell.as_raw_fd())?;
        let buffers = ManuallyDrop::new(Buffers::new());
        // SAFETY: only `Kernel::end` frees `buffers`.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(buffers.ring.as_ptr() as u64, BUFFERS, GROUP, 0)?;
        }
        let mut kernel = Self { ring, buffers, epoll, flags: GETEVENTS, done: Vec::new(), dead: false };
        kernel.bell(false);
        // A sandbox may allow the set-up of a ring and forbid its use.
        kernel.push(&opcode::Nop::new().build())?;
        kernel.enter()?;
        let tried = kernel.take_done();
        if tried.len() != 1 {
            return Err(io::Error::other("a ring that does nothing"));
        }
        kernel.give_done_back(tried);
        kernel.flags |= NO_IOWAIT;
        if kernel.enter().is_err() {
            (kernel.flags, kernel.dead) = (GETEVENTS, false);
        }
        Ok((kernel, bell))
    }

    /// Receives into a buffer of the kernel's choice when bytes come.
    pub(super) fn receive(&mut self, fd: RawFd, what: u64) -> io::Result<()> {
        let entry = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), BUFFER as u32).ioprio(POLL_FIRST).buf_group(GROUP);
        self.push(&entry.build().flags(squeue::Flags::BUFFER_SELECT).user_data(what))
    }

    /// Waits until `fd` takes bytes.
    pub(super) fn wait_writable(&mut self, fd: RawFd, what: u64) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build().user_data(what))
    }

    /// Waits until the runtime's epoll has something to report.
    pub(super) fn wait_for_epoll(&mut self, what: u64) -> io::Result<()> {
        let epoll = self.epoll.as_raw_fd();
        self.push(&opcode::PollAdd::new(Fd(epoll), libc::POLLIN as u32).build().user_data(what))
    }

    /// Completes after a millisecond.
    pub(super) fn tick(&mut self, what: u64) -> io::Result<()> {
        self.push(&opcode::Timeout::new(&raw const TICK).build().user_data(what))
    }

    /// Sends as much as `fd` takes now. A completion comes only if that is not all.
    ///
    /// The caller must not change `bytes` until [`Kernel::enter`] has returned.
    pub(super) fn send(&mut self, fd: RawFd, bytes: &[u8], what: u64) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // With WAITALL a partial send is an exception too, and so it has a completion.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), length).flags(flags).build();
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(what))
    }

    /// Cancels the operation `what`. The completion of that operation still comes.
    pub(super) fn cancel(&mut self, what: u64, own: u64) -> io::Result<()> {
        self.push(&opcode::AsyncCancel::new(what).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(own))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.enter()?;
        }
        // SAFETY: the only addresses in entries are that of a static, and those of bytes to send. These bytes stay in place
        // until `enter` has returned.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::Error::other("the submission queue stays full"))
    }

    /// Whether submissions wait.
    pub(super) fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether the kernel has completions. The check makes no system call.
    pub(super) fn has_news(&mut self) -> bool {
        let submission = self.ring.submission();
        let news = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        news || !self.done.is_empty() || !self.ring.completion().is_empty()
    }

    /// Submits the queue and gathers the completions. It never waits. When it returns, all queued sends are over, and each
    /// send that was not complete is among the completions.
    ///
    /// # Errors
    /// The kernel takes no more submissions, so the ring is of no more use.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        self.enter_for(0)
    }

    /// Does what [`Kernel::enter`] does, but waits for the first completion or for a signal.
    ///
    /// # Errors
    /// The errors are those of [`Kernel::enter`].
    pub(super) fn enter_and_wait(&mut self) -> io::Result<()> {
        self.enter_for(1)
    }

    fn enter_for(&mut self, mut wait: u32) -> io::Result<()> {
        let mut refused = 0;
        if self.dead {
            return Err(io::Error::other("the ring failed before"));
        }
        loop {
            let queued = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
            // SAFETY: no argument is an address.
            let taken = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, wait, self.flags, None) };
            wait = 0;
            self.gather();
            match taken {
                Ok(taken) if taken >= queued as usize => {
                    // The kernel may keep back the completion of a send.
                    if !self.ring.submission().cq_overflow() {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    refused += 1;
                    let for_now = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM));
                    if !for_now || refused > PATIENCE {
                        self.dead = true;
                        return Err(error);
                    }
                    std::thread::yield_now();
                }
            }
        }
    }

    fn gather(&mut self) {
        self.done.extend(self.ring.completion().map(|entry| Done {
            what: entry.user_data(),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::sock_nonempty(entry.flags()),
        }));
    }

    /// The completions that [`Kernel::enter`] gathered. The caller gives the vector back.
    pub(super) fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// Takes the vector back, for the next completions.
    pub(super) fn give_done_back(&mut self, mut done: Vec<Done>) {
        done.clear();
        if self.done.is_empty() {
            self.done = done;
        }
    }

    /// Switches the eventfd on or off. After it was switched on, [`Kernel::has_news`] tells whether something came before.
    pub(super) fn bell(&mut self, on: bool) {
        let completion = self.ring.completion();
        if on {
            completion.enable_eventfd();
            drop(completion);
            // The kernel marks its news first and then looks at the switch. The proxy sets the switch first and then looks
            // for news.
            fence(Ordering::SeqCst);
        } else {
            completion.disable_eventfd();
        }
    }

    /// The bytes that were received into a buffer.
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    /// Lets the kernel receive into the buffer again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        self.buffers.give(buffer);
    }

    /// Closes the ring, and frees the buffers if no receive is under way any more.
    pub(super) fn end(self, receiving: usize) {
        let Self { ring, buffers, .. } = self;
        drop(ring);
        if receiving == 0 {
            drop(ManuallyDrop::into_inner(buffers));
        }
    }
}

/// Makes the runtime's epoll watch the eventfd.
fn watch(bell: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped. The `AsyncFd` drops it last.
    unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Finds the epoll that watches `fd`, which is the runtime's own. The runtime has no call that returns it; proc(5) shows
/// which descriptors each epoll watches.
fn epoll_of(fd: RawFd) -> io::Result<OwnedFd> {
    let watched = format!("tfd: {fd:>8} ");
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(epoll) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        let is_one = std::fs::read_link(format!("/proc/self/fd/{epoll}"))
            .is_ok_and(|kind| kind.as_os_str() == "anon_inode:[eventpoll]");
        let info = || std::fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap_or_default();
        if is_one && info().lines().any(|line| line.starts_with(&watched)) && watches(epoll, fd) {
            // SAFETY: the system call takes no address; its result is checked.
            return owned(unsafe { libc::fcntl(epoll, libc::F_DUPFD_CLOEXEC, 0) });
        }
    }
    Err(io::Error::other("/proc does not show the runtime's epoll"))
}

/// Whether the epoll watches this `fd`, and not an older descriptor of the same number.
fn watches(epoll: RawFd, fd: RawFd) -> bool {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` lives until the calls have returned; the kernel only reads it.
    unsafe {
        if libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) == 0 {
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, &raw mut event);
            return false;
        }
    }
    io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST)
}

/// Owns the descriptor that a system call has just opened.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor has just been opened and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The flags of the call, from the kernel's `io_uring.h`.
const GETEVENTS: u32 = 1;
/// A sleeping worker does not count as waiting for a disk. The flag exists since 6.15.
const NO_IOWAIT: u32 = 1 << 7;

/// A ring of buffers. The kernel takes buffers from it, and the proxy gives them back.
struct Buffers {
    /// [`BUFFERS`] entries. The tail of the ring stands in a reserved field of the first entry.
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

const RING: Layout = match Layout::from_size_align(BUFFERS as usize * size_of::<BufRingEntry>(), 4096) {
    Ok(layout) => layout,
    Err(_) => Layout::new::<u8>(),
};
const MEMORY: Layout = match Layout::from_size_align(BUFFERS as usize * BUFFER, 4096) {
    Ok(layout) => layout,
    Err(_) => Layout::new::<u8>(),
};
const _: () = assert!(RING.size() > 1 && MEMORY.size() > 1 && BUFFERS.is_power_of_two());

impl Buffers {
    fn new() -> Self {
        // SAFETY: neither layout is of size 0. Zeros are valid entries.
        let (ring, memory) = unsafe { (alloc_zeroed(RING), alloc_zeroed(MEMORY)) };
        let (Some(ring), Some(memory)) = (NonNull::new(ring.cast::<BufRingEntry>()), NonNull::new(memory)) else {
            handle_alloc_error(MEMORY);
        };
        let mut buffers = Self { ring, memory, tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give(buffer);
        }
        buffers
    }

    fn at(&self, buffer: u16) -> NonNull<u8> {
        // SAFETY: the number is below BUFFERS, so the address is within the memory.
        unsafe { self.memory.add(usize::from(buffer % BUFFERS) * BUFFER) }
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        // SAFETY: the slice is within the buffer, which is initialised from the start. The kernel does not touch a buffer
        // between its completion and `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.at(buffer).as_ptr(), length.min(BUFFER)) }
    }

    fn give(&mut self, buffer: u16) {
        let address = self.at(buffer).as_ptr() as u64;
        // SAFETY: the entry is within the ring, and the kernel has taken it, as there are no more buffers than entries. The
        // tail is an aligned u16 that the kernel only reads; it is published after the entry.
        unsafe {
            let entry = self.ring.add(usize::from(self.tail % BUFFERS)).as_mut();
            entry.set_addr(address);
            entry.set_len(BUFFER as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the memory came from the allocator with these layouts. While a receive is under way, `Kernel::end` does
        // not drop the buffers.
        unsafe {
            dealloc(self.ring.as_ptr().cast(), RING);
            dealloc(self.memory.as_ptr(), MEMORY);
        }
    }
}
