//! The console: a virtual database in which the proxy answers itself, for those who operate it.
//!
//! The console is a backend. The session makes a pair of sockets, relays to one end of it as to a server, and gives the other end to [`spawn`]. So
//! encryption, limits, cancel requests, drain and the PROXY header are the relay's as for everyone, and a panic ends one session.
//!
//! - `login`: who may come in, and as what. `wire`: the simple and the extended protocol, by the crate pgwire.
//! - `command`: what a text asks for. `run`: its answer. `table`: rows and their types.
//! - `views`, `views/…`: what SHOW shows, as one table of views. Another view is another row of that table.
//! - `verbs`: what an admin may do, as one table of verbs. `steer`: the ones about a change that runs. `audit`: the event that each verb leaves.
//! - `rehearse`: what a string would be answered, without a client.
//! - `noise`: what drivers and tools send on their own: settings, and SELECT without a table. `catalogs`: the columns of the server's catalogs.
//!
//! `host`: [`Host`] is all that the console sees of the proxy. Nothing here opens a connection to the server.

mod audit;
mod catalogs;
mod command;
mod host;
mod login;
mod noise;
mod rehearse;
mod run;
mod steer;
mod table;
mod verbs;
mod views;
mod wire;

pub use self::host::{Caller, FIRST_PID, Host, Reloaded, Stop};
pub use self::rehearse::{Rehearsed, rehearse};

use crate::net::tasks;
use std::sync::Arc;
use tokio::net::UnixStream;

/// Serves a client of the console on this end of a pair of sockets, in a task of its own.
pub fn spawn(socket: UnixStream, host: Arc<dyn Host>, caller: Caller) {
    let handlers = wire::Handlers::new(host, caller);
    tasks::spawn(async move {
        if let Err(error) = pgwire::tokio::process_socket_unix(socket, handlers).await {
            tracing::debug!(%error, "a session of the console has ended with an error");
        }
    });
}
