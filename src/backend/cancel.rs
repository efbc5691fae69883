//! Cancels: the request of the session that a CancelRequest is for, and the CancelRequests that the proxy sends itself.
//!
//! [`Cancels`] owns the session's counter of requests and the CancelRequests that are under way to the server. It keeps true: a cancel ends the
//! request that was current when the cancel came, and no later one. While a CancelRequest is under way, the session can wait for its end, so that
//! it does not cancel a later question.

use crate::net::{Target, tasks};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The request of a session that a cancel is for.
///
/// A cancel takes effect on the server before the proxy hears of it, and the client may have sent its next request by then. So a cancel is for
/// the request that was under way when the cancel came, and for no later one.
#[derive(Debug, Default)]
pub struct CancelRequests {
    /// The number of the current request; 0 before the first.
    current: AtomicU32,
    to_cancel: AtomicU32,
    /// The number of CancelRequests that are under way to the server.
    in_flight: watch::Sender<u32>,
}

/// A CancelRequest that is on its way to the server, until this is dropped.
#[derive(Debug)]
pub struct CancelInFlight(Arc<CancelRequests>);

impl Drop for CancelInFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl CancelRequests {
    /// The number of the request that is under way.
    pub fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// A request of the client's begins.
    pub fn begin(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// A CancelRequest is sent to the server from now until the guard is dropped.
    pub fn send(self: &Arc<Self>) -> CancelInFlight {
        self.in_flight.send_modify(|count| *count = count.saturating_add(1));
        CancelInFlight(Arc::clone(self))
    }

    /// Marks a request as cancelled, if it is still under way.
    pub fn cancel(&self, request: u32) {
        self.to_cancel.store(request, Ordering::Relaxed);
    }
}

/// The cancels of one session: those of the client's, and the one that the proxy sends when the client leaves. Clones share one state.
#[derive(Debug, Clone)]
pub struct Cancels {
    requests: Arc<CancelRequests>,
    /// The task that sends the proxy's own CancelRequest.
    sending: Arc<Mutex<Option<JoinHandle<()>>>>,
    target: Arc<Target>,
}

impl Cancels {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { requests: Arc::default(), sending: Arc::default(), target }
    }

    /// The session's counter of requests, with the request that a cancel is for.
    pub fn requests(&self) -> &Arc<CancelRequests> {
        &self.requests
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether a CancelRequest has come for the current request since the last call.
    pub(super) fn take_cancelled(&self) -> bool {
        let current = self.requests.current();
        self.requests.to_cancel.compare_exchange(current, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && current > 0
    }

    /// Waits until the server has acted on every CancelRequest that is under way.
    pub(super) async fn settled(&self) {
        let task = self.sending.lock().ok().and_then(|mut task| task.take());
        if let Some(task) = task {
            let _ = task.await;
        }
        // `self` owns the sender, so it is not closed.
        let _ = self.requests.in_flight.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Sends a CancelRequest in a task of its own, since the client has left. `key`: BackendKeyData's body.
    pub fn cancel_work(&self, key: &[u8]) {
        let mut packet = u32::try_from(8 + key.len()).unwrap_or(8).to_be_bytes().to_vec();
        packet.extend(CANCEL_REQUEST.to_be_bytes());
        packet.extend(key);
        let target = Arc::clone(&self.target);
        let task = tasks::spawn(async move {
            if let Err(error) = cancel(&target, &packet).await {
                tracing::warn!(%error, "could not cancel the work of a client that left");
            }
        });
        if let Ok(mut sending) = self.sending.lock() {
            *sending = Some(task);
        }
    }
}

const CANCEL_REQUEST: u32 = 80_877_102;

/// Sends a CancelRequest to the server, and waits until the server has acted on it (it closes the connection).
///
/// # Errors
/// The server cannot be reached.
pub async fn cancel(target: &Target, packet: &[u8]) -> std::io::Result<()> {
    let mut stream = target.connect().await?;
    stream.write_all(packet).await?;
    stream.flush().await?;
    let mut rest = [0; 64];
    let _ = tokio::time::timeout(target.timeout, stream.read(&mut rest)).await;
    Ok(())
}
