//! The bytes that the threads of the relay read.
//!
//! Each thread counts for itself, once per read and not per message, and a scrape adds the threads up. Invariant: one thread alone writes to a
//! [`Traffic`], so that counting is a load and a store without a lock.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static HERE: OnceCell<Arc<Traffic>> = const { OnceCell::new() };
}

/// The bytes that one thread has read.
#[derive(Debug, Default)]
pub struct Traffic {
    from_clients: AtomicU64,
    from_server: AtomicU64,
}

impl Traffic {
    /// The bytes that came from clients, and those that came from the server.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.from_clients.load(Ordering::Relaxed), self.from_server.load(Ordering::Relaxed))
    }
}

/// Makes this thread count in `traffic`, in which no other thread counts. A thread without one counts nothing.
pub fn count_here(traffic: Arc<Traffic>) {
    HERE.with(|here| {
        // A thread serves one proxy.
        let _ = here.set(traffic);
    });
}

/// Counts bytes that came from a client.
#[inline]
pub fn count_from_client(bytes: usize) {
    HERE.with(|here| here.get().into_iter().for_each(|here| add(&here.from_clients, bytes)));
}

/// Counts bytes that came from the server.
#[inline]
pub fn count_from_server(bytes: usize) {
    HERE.with(|here| here.get().into_iter().for_each(|here| add(&here.from_server, bytes)));
}

#[inline]
fn add(counter: &AtomicU64, bytes: usize) {
    // No other thread writes, so that nothing is lost between the load and the store.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
}
