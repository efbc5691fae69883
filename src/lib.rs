//! pgsluice: a wire-protocol proxy for PostgreSQL that runs DDL without making the application wait.
//!
//! A statement goes through the modules in this order. The modules are declared in the same order, and a module imports only
//! modules declared above it (`tests/tidy.rs` holds that):
//!
//! 1. [`server`] accepts a client and gives it to one of its single-threaded workers, for good.
//! 2. [`session`] reads the first packets ([`wire::startup`]), connects a backend ([`net`], [`tls`]), and relays the login, which
//!    is between client and server.
//! 3. [`relay`] passes bytes on as they came. It walks frames ([`wire::frame`]) in place, counts what the backend owes
//!    ([`wire::owed`]), and stops only at a Query, Parse or Execute that the session's interceptor asks for: one whose text
//!    contains a keyword of DDL ([`sql::prefilter`]).
//! 4. [`mod@sql`] parses that text with PostgreSQL's own grammar into [`sql::Statement`]s. A DDL statement has one or more
//!    [`sql::form::Form`]s. Most statements that are brief are tried at once ([`plan::optimistic`]). The others go on:
//! 5. [`catalog`] has the questions for the facts about the relations that the statement names. They are asked on the client's own
//!    backend ([`backend`]). Then [`learn`] asks whether the statement would rewrite its table, and what else a plan may need.
//! 6. [`plan`] makes phases of steps from the statement and its facts: exact SQL, locks, undo. It is pure.
//! 7. [`gate`] asks the operators' rules: the plan runs, or is refused. It is pure, too.
//! 8. [`execute`] runs the phases: lock attempts with NOWAIT, waits in the proxy ([`lanes`] says which sessions are in the way), long
//!    steps with their progress ([`operator`]), undo.
//! 9. [`session`] gives the client the reply that PostgreSQL would have given, and relays on.
//!
//! A client that asks for the virtual database of the proxy is served by [`console`] instead of the server, from what [`registry`] and
//! the other parts know.
//!
//! Beside that flow, [`report`] is a message to a person, [`pg`] has PostgreSQL's vocabulary, [`config`] the settings, [`metrics`]
//! the counters and [`logging`] the log. [`monitor`] shows the counters by HTTP, and [`webhook`] tells a service of schema changes. [`dev`] has a
//! throw-away server for `pgsluice dev`, `demo` and the tests, and [`cli`] the commands.

// A panic takes every session of its thread down. Where one cannot happen, `#[expect]` gives the reason.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod pg;
pub mod report;
pub mod config;
pub mod metrics;
pub mod logging;
pub mod wire;
pub mod registry;
pub mod tls;
pub mod net;
pub mod webhook;
pub mod relay;
pub mod backend;
pub mod sql;
pub mod catalog;
pub mod operator;
pub mod plan;
pub mod gate;
pub mod holds;
pub mod ledger;
pub mod learn;
pub mod lanes;
pub mod execute;
pub mod console;
pub mod session;
pub mod monitor;
pub mod server;
pub mod dev;
pub mod cli;
