//! Work that takes long, apart from the worker's thread, where other sessions wait for their turn.
//!
//! Invariants: no more than [`AT_ONCE`] are at work, whoever asks, as each may take memory; nobody waits for the end of one: not
//! a client that leaves, nor a proxy that is to stop (the thread of a runtime would be waited for).

use super::Session;
use crate::backend::ServerChannel;
use std::sync::LazyLock;
use tokio::sync::{Semaphore, oneshot};

/// What one of them takes at most, a few hundred megabytes, is there so many times.
const AT_ONCE: usize = 2;

static PLACES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(AT_ONCE));

impl Session {
    /// What the work comes to; `None`: the client has left meanwhile.
    pub(super) async fn aside<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        aside(&mut self.channel, work).await
    }
}

async fn aside<T: Send + 'static>(channel: &mut ServerChannel, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::select! {
        biased;
        done = on_a_thread(work) => done,
        () = channel.client_leaves() => None,
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // It is never closed.
    let place = PLACES.acquire().await.ok()?;
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("pgsluice aside".to_owned()).spawn(move || {
        let _ = tell.send(work());
        // Only now is there a place for another.
        drop(place);
    });
    if let Err(error) = thread {
        tracing::error!(%error, "no thread could be begun to read a large text");
    }
    told.await.ok()
}
