//! Work that takes long, apart from the worker's thread, where other sessions wait for their turn.
//!
//! [`Aside`] owns the places for such work. It keeps true: no more than [`AT_ONCE`] are at work, whoever asks, as each may take memory; nobody
//! waits for the end of one: not a client that leaves, nor a proxy that is to stop (the thread of a runtime would be waited for).

use crate::backend::ServerChannel;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// What one of them takes at most, a few hundred megabytes, is there so many times.
const AT_ONCE: usize = 2;

/// The places for such work.
#[derive(Debug)]
pub(super) struct Aside(Arc<Semaphore>);

impl Default for Aside {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Aside {
    /// What the work comes to. `None`: the client has left meanwhile.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        channel: &mut ServerChannel,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = self.on_a_thread(work) => done,
            () = channel.client_leaves() => None,
        }
    }

    async fn on_a_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // It is never closed.
        let place = Arc::clone(&self.0).acquire_owned().await.ok()?;
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
}
