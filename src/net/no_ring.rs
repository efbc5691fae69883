//! The stand-in for `ring.rs` on systems without io_uring, and in builds without the feature `io_uring`.
//!
//! Invariant: no value of a ring, a bell or a stream can exist, so every session stays on epoll.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;
use tokio::task::{JoinHandle, LocalSet};

pub const A_FEW: u32 = 0;

/// No value of this type exists.
#[derive(Debug)]
pub struct RingStream(Infallible);

/// No value of this type exists.
#[derive(Debug)]
pub struct Bell(Infallible);

/// # Errors
/// The call always fails.
pub fn start(_: u32) -> io::Result<Bell> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this program was built without io_uring"))
}

pub async fn work(bell: Bell, _: &mut LocalSet, _: &JoinHandle<()>) {
    match bell.0 {}
}

pub fn stop() {}

/// A session that could use a ring if there were one.
#[derive(Debug)]
pub struct Present(());

impl Present {
    pub fn here() -> Self {
        Self(())
    }

    pub fn belongs_on_ring(&self) -> bool {
        false
    }
}

impl RingStream {
    pub fn new(_: OwnedFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn poll_read(&mut self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub fn poll_write(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    pub fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
