//! pgsluice: a wire-protocol proxy for PostgreSQL.

// A panic takes every session of its thread down. Where one cannot happen, `#[expect]` gives the reason.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod pg;
pub mod report;
pub mod config;
pub mod sql;
pub mod catalog;
pub mod plan;
pub mod server;
pub mod dev;
pub mod cli;
