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

/// Submissions that wait for the next call; more make a call of their own.
const SUBMISSIONS: u32 = 512;
/// Beyond it the kernel keeps completions to itself until there is room.
const COMPLETIONS: u32 = 4096;
/// Receive buffers of a worker. Bytes stand in one only between a completion and the session's turn; when none is
/// left, sessions receive directly.
const BUFFERS: u16 = 64;
/// Most messages are far smaller; what is larger goes on by direct receives.
pub(super) const BUFFER: usize = 8 * 1024;
/// The buffers' name among a ring's groups of buffers; there is one.
const GROUP: u16 = 0;
/// How long a worker sleeps in its ring at a time while it is lively: the runtime's timers count in milliseconds too.
static TICK: Timespec = Timespec::new().nsec(1_000_000);
/// Refusals for want of memory, before the ring is given up.
const PATIENCE: u32 = 1000;
/// `IORING_RECVSEND_POLL_FIRST`: nothing is there, or it would have been read before.
const POLL_FIRST: u16 = 1;

/// What came of a submission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) what: u64,
    /// As of a system call, negative: an error's number.
    pub(super) result: i32,
    /// The receive buffer it filled.
    pub(super) buffer: Option<u16>,
    /// More stands in the socket.
    pub(super) more: bool,
}

pub(super) struct Kernel {
    ring: IoUring,
    /// Freed by [`Kernel::end`] alone: a ring that is closed ends its receives later.
    buffers: ManuallyDrop<Buffers>,
    /// The runtime's, which the ring watches while the worker sleeps in it.
    epoll: OwnedFd,
    /// The flags of each call.
    flags: u32,
    done: Vec<Done>,
    /// [`Kernel::enter`] failed: what it left in the queue must never be submitted, as its bytes may be gone.
    dead: bool,
}

impl Kernel {
    /// A ring for this thread's runtime, and the eventfd that says there when the ring has something while the bell is on.
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
        // SAFETY: a system call without addresses; its result is checked.
        let bell = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        let bell = watch(bell)?;
        let epoll = epoll_of(bell.as_raw_fd())?;
        let buffers = ManuallyDrop::new(Buffers::new());
        // SAFETY: `buffers` is freed by `Kernel::end` alone.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(buffers.ring.as_ptr() as u64, BUFFERS, GROUP, 0)?;
        }
        let mut kernel = Self { ring, buffers, epoll, flags: GETEVENTS, done: Vec::new(), dead: false };
        kernel.bell(false);
        // A sandbox may allow the set-up and forbid the use.
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

    /// Receives into a buffer of the kernel's choice, as soon as something comes.
    pub(super) fn receive(&mut self, fd: RawFd, what: u64) -> io::Result<()> {
        let entry = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), BUFFER as u32).ioprio(POLL_FIRST).buf_group(GROUP);
        self.push(&entry.build().flags(squeue::Flags::BUFFER_SELECT).user_data(what))
    }

    /// Waits until `fd` takes bytes.
    pub(super) fn wait_writable(&mut self, fd: RawFd, what: u64) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build().user_data(what))
    }

    /// Waits until the runtime's epoll has something.
    pub(super) fn wait_for_epoll(&mut self, what: u64) -> io::Result<()> {
        let epoll = self.epoll.as_raw_fd();
        self.push(&opcode::PollAdd::new(Fd(epoll), libc::POLLIN as u32).build().user_data(what))
    }

    /// Says something in a millisecond.
    pub(super) fn tick(&mut self, what: u64) -> io::Result<()> {
        self.push(&opcode::Timeout::new(&raw const TICK).build().user_data(what))
    }

    /// Sends as much as `fd` takes now; says something only if that is not all.
    ///
    /// The caller leaves `bytes` as they are until [`Kernel::enter`] has returned.
    pub(super) fn send(&mut self, fd: RawFd, bytes: &[u8], what: u64) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // WAITALL makes a part an exception too, which has a completion.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), length).flags(flags).build();
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(what))
    }

    /// Ends what `what` began; its completion still comes.
    pub(super) fn cancel(&mut self, what: u64, own: u64) -> io::Result<()> {
        self.push(&opcode::AsyncCancel::new(what).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(own))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.enter()?;
        }
        // SAFETY: the only addresses in entries are that of a static, and those of bytes to send, which stay until `enter` has
        // returned.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::Error::other("the submission queue stays full"))
    }

    /// Whether something waits to be submitted.
    pub(super) fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Whether the kernel has something for us; costs no system call.
    pub(super) fn has_news(&mut self) -> bool {
        let submission = self.ring.submission();
        let news = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        news || !self.done.is_empty() || !self.ring.completion().is_empty()
    }

    /// Submits what is queued, and gathers what is done. Never waits. When it returns, all queued sends are over, and
    /// those that were not complete are among what is done.
    ///
    /// # Errors
    /// The kernel does not take submissions any more: the ring is of no more use.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        self.enter_for(0)
    }

    /// As [`Kernel::enter`], but waits for the first of what is done, or for a signal.
    ///
    /// # Errors
    /// As [`Kernel::enter`].
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
                    // A completion that the kernel keeps back may be a send's.
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

    /// What [`Kernel::enter`] gathered; to be given back empty or not.
    pub(super) fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// The room, for the next.
    pub(super) fn give_done_back(&mut self, mut done: Vec<Done>) {
        done.clear();
        if self.done.is_empty() {
            self.done = done;
        }
    }

    /// Whether the eventfd is to tell of news. When it has been switched on, [`Kernel::has_news`] tells of what came before.
    pub(super) fn bell(&mut self, on: bool) {
        let completion = self.ring.completion();
        if on {
            completion.enable_eventfd();
            drop(completion);
            // The kernel marks its news first and looks at the switch then; we the other way round.
            fence(Ordering::SeqCst);
        } else {
            completion.disable_eventfd();
        }
    }

    /// The bytes that were received into a buffer.
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    /// The kernel may receive into it again.
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

/// Has the runtime's epoll watch the eventfd.
fn watch(bell: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which the `AsyncFd` does last.
    unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// The epoll that watches `fd`: the runtime's own, which it tells nobody. proc(5) shows what each epoll watches.
fn epoll_of(fd: RawFd) -> io::Result<OwnedFd> {
    let watched = format!("tfd: {fd:>8} ");
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(epoll) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        let is_one = std::fs::read_link(format!("/proc/self/fd/{epoll}"))
            .is_ok_and(|kind| kind.as_os_str() == "anon_inode:[eventpoll]");
        let info = || std::fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap_or_default();
        if is_one && info().lines().any(|line| line.starts_with(&watched)) && watches(epoll, fd) {
            // SAFETY: a system call without addresses; its result is checked.
            return owned(unsafe { libc::fcntl(epoll, libc::F_DUPFD_CLOEXEC, 0) });
        }
    }
    Err(io::Error::other("/proc does not show the runtime's epoll"))
}

/// Whether it watches just this `fd`, and not what had the number before.
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

/// What a system call has just opened.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it has just been opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Flags of the call, of the kernel's `io_uring.h`.
const GETEVENTS: u32 = 1;
/// Who sleeps is not counted as waiting for a disk. Since 6.15.
const NO_IOWAIT: u32 = 1 << 7;

/// A ring of buffers that the kernel takes from and we give to.
struct Buffers {
    /// [`BUFFERS`] entries; the tail of the ring stands in what would be a reserved field of the first.
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
        // SAFETY: neither layout is of size 0. Zeros are good entries.
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
        // SAFETY: a number below BUFFERS, so it stays within the memory.
        unsafe { self.memory.add(usize::from(buffer % BUFFERS) * BUFFER) }
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        // SAFETY: within the buffer; initialised from the start; the kernel does not touch a buffer between its
        // completion and `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.at(buffer).as_ptr(), length.min(BUFFER)) }
    }

    fn give(&mut self, buffer: u16) {
        let address = self.at(buffer).as_ptr() as u64;
        // SAFETY: an entry within the ring, and one that the kernel has taken, as there are no more buffers than
        // entries. The tail is an aligned u16 that the kernel reads only; it is published after the entry.
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
        // SAFETY: from the allocator with these layouts; whoever has a receive under way forgets the buffers instead.
        unsafe {
            dealloc(self.ring.as_ptr().cast(), RING);
            dealloc(self.memory.as_ptr(), MEMORY);
        }
    }
}
