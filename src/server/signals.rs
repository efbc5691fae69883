//! The signals that the proxy follows, and what SIGHUP reads anew.
//!
//! It owns the listeners of signals. It keeps true: what is wrong in a file that is read anew changes nothing.

use super::binding::check_binding;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::session::Shared;
use tokio::signal::unix::{SignalKind, signal};

pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    counters: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Report> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Report::fatal(sqlstate::CANNOT_CONNECT_NOW, format!("could not listen for signals: {error}"))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            counters: listen(SignalKind::user_defined1())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal that ends the proxy. SIGUSR1 writes the counters to the log, and SIGHUP reads settings, certificates and
    /// keys anew.
    pub(super) async fn next(&mut self, shared: &Shared) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.counters.recv() => tracing::info!("counters: {}", shared.metrics),
                _ = self.reload.recv() => reload(shared).await,
            }
        }
    }
}

/// Reads `proxy.toml`, certificates and keys anew. What is wrong in them changes nothing.
async fn reload(shared: &Shared) {
    match shared.reload() {
        Ok(reloaded) => {
            shared.metrics.reloads.add();
            for section in ["listen.tls", "backend.tls"] {
                tracing::info!(section, "certificates and keys were reloaded");
            }
            tracing::info!("{reloaded}");
        }
        Err(report) => {
            shared.metrics.reloads_failed.add();
            tracing::error!("{}; what was loaded before stays in use", report.message);
        }
    }
    check_binding(shared).await;
}
