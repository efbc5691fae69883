//! Work that takes long runs on a thread of its own, so that the other sessions of the worker do not wait for it.
//!
//! [`Aside`] owns the places for such work. It keeps true: no more than [`AT_ONCE`] pieces of work run at a time in the whole proxy, since each
//! may take memory. Neither a client that leaves nor a proxy that stops waits for the end of the work. (A proxy that stops would wait for a
//! thread of its async runtime.)

use crate::backend::ServerChannel;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// The pieces of work that may run at once. Each takes a few hundred megabytes at most.
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
    /// Does the work and gives its result. `None`: the client has left meanwhile.
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
        // The semaphore is never closed.
        let place = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("pgsluice aside".to_owned()).spawn(move || {
            let _ = tell.send(work());
            // Only now the next piece of work may begin.
            drop(place);
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread could be begun to read a large text");
        }
        told.await.ok()
    }
}
