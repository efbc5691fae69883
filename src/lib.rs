//! pgsluice: a wire-protocol proxy for PostgreSQL that runs DDL without making the application wait.
//!
//! A walk through a statement's life, which is also the order of the modules; a module imports only
//! modules declared above it (`tests/tidy.rs` holds that):
//!
//! 1. [`server`] accepts a client and hands it to one of its single-threaded workers, for good.
//! 2. [`session`] reads the first packets ([`wire::startup`]), connects a backend ([`net`], [`tls`]), and lets both
//!    ends talk. Authentication is theirs.
//! 3. [`relay`] passes bytes on as they came. It walks frames ([`wire::frame`]) in place, keeps count of
//!    what the backend owes ([`wire::owed`]), and stops only at a Query, Parse or Execute that the session's
//!    interceptor stops at: one whose text has a keyword of DDL ([`sql::prefilter`]).
//! 4. [`mod@sql`] splits and parses that text with PostgreSQL's own grammar into [`sql::Statement`]s, each
//!    DDL of one or more [`sql::form::Form`]s.
//!    What is most often brief is tried at once ([`plan::optimistic`]); the rest goes on:
//! 5. [`catalog`] brings the facts, in a few questions on the client's own backend ([`backend`]): what the
//!    statement names; then [`learn`] asks whether it would rewrite it, and what else a plan may need.
//! 6. [`plan`] makes phases of steps from statement and facts: exact SQL, locks, what to undo. Pure.
//! 7. [`execute`] runs them: lock attempts with NOWAIT, waits in the proxy ([`lanes`] says who is in the
//!    way), long steps, progress ([`operator`]), undo.
//! 8. [`session`] gives the client the reply that PostgreSQL would have given, and relays on.
//!
//! Beside the flow: [`report`] is what a person is told, [`pg`] PostgreSQL's vocabulary, [`config`] the
//! settings, [`metrics`] the counters; [`dev`] a throw-away server for `pgsluice dev`, `demo` and the
//! tests, [`cli`] the commands.

// A panic takes every session of its thread down. Where one cannot happen, `#[expect]` gives the reason.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod pg;
pub mod report;
pub mod config;
pub mod metrics;
pub mod wire;
pub mod tls;
pub mod net;
pub mod relay;
pub mod backend;
pub mod sql;
pub mod catalog;
pub mod operator;
pub mod plan;
pub mod learn;
pub mod lanes;
pub mod execute;
pub mod session;
pub mod server;
pub mod dev;
pub mod cli;
