//! What the console sees of the proxy, and who is at the console.
//!
//! It owns nothing: the state behind [`Host`] is the proxy's.

use crate::config::{Address, Config, Role};
use crate::gate::Rules;
use crate::holds::{Actor, Holds, Scope, ScopeHold};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::report::Report;
use async_trait::async_trait;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The process ids of the console's sessions begin here. No system gives a process such a number, so that no backend has it.
pub const FIRST_PID: i32 = 1 << 30;

/// What the console may see and do of the proxy.
#[async_trait]
pub trait Host: fmt::Debug + Send + Sync {
    fn config(&self) -> &Config;
    fn metrics(&self) -> &Metrics;
    fn registry(&self) -> &Registry;
    /// The rules of the gate.
    fn rules(&self) -> Arc<Rules>;
    /// The changes that are held, and what is held by hand.
    fn holds(&self) -> &Holds;
    /// Holds what is in the scope.
    ///
    /// # Errors
    /// It is held already, or the mode is one in which nothing can be held.
    async fn hold(&self, hold: ScopeHold) -> Result<(), Report>;
    /// Holds what is in the scope no longer.
    ///
    /// # Errors
    /// It was not held.
    async fn let_go(&self, scope: &Scope, actor: &Actor<'_>) -> Result<(), Report>;
    /// The addresses that the proxy listens on.
    fn listening(&self) -> &[Address];
    /// Whether the proxy takes no more clients.
    fn is_draining(&self) -> bool;
    /// Sets a setting that a running proxy follows.
    ///
    /// # Errors
    /// There is no such key, or it does not allow the value.
    fn set(&self, key: &str, value: &str) -> Result<(), Report>;
    /// Reads settings, certificates and keys anew.
    ///
    /// # Errors
    /// Something in them is wrong. The old ones stay.
    fn reload(&self) -> Result<Reloaded, Report>;
    /// Stops the proxy.
    fn stop(&self, stop: Stop);
}

/// How the proxy stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// No new clients are accepted, and sessions end when they are idle.
    WhenIdle,
    /// All sessions end.
    Now,
}

/// The keys of `proxy.toml` that differ since it was read before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The proxy follows these from now on.
    pub live: Vec<String>,
    /// These wait for a restart.
    pub waiting: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.live.as_slice() {
            [] => f.write_str("no setting that a running proxy follows has changed")?,
            live => write!(f, "changed settings: {}", live.join(", "))?,
        }
        if !self.waiting.is_empty() {
            write!(f, "; after a restart: {}", self.waiting.join(", "))?;
        }
        Ok(())
    }
}

/// Where a client of the console comes from.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// `None`: the client has come over a Unix socket.
    pub address: Option<IpAddr>,
    /// The client's process belongs to the user that the proxy runs as.
    pub trusted: bool,
}

/// A user who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: String,
    pub(super) role: Role,
    /// `None`: the user has come over a Unix socket.
    pub(super) address: Option<IpAddr>,
}

impl Identity {
    /// Where the user has come from, for people.
    pub(super) fn from(&self) -> String {
        self.address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string())
    }
}
