//! Listeners and workers.

use crate::config::{Address, Config};
use crate::pg::sqlstate;
use crate::report::Report;

/// A proxy that runs on threads of its own.
#[derive(Debug)]
pub struct Running {
    address: Address,
}

impl Running {
    /// The first address it listens on.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Drains and ends it.
    pub fn stop(self) {}
}

/// Runs the proxy until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<(), Report> {
    spawn(config).map(Running::stop)
}

/// Starts the proxy, and returns once it listens.
pub fn spawn(config: Config) -> Result<Running, Report> {
    let address = config.proxy.backend;
    Err(Report::error(sqlstate::FEATURE_NOT_SUPPORTED, format!("cannot relay to {address} yet")))
}
