//! pgsluice: a wire-protocol proxy for PostgreSQL.

pub mod report;
pub mod config;
pub mod pg;
pub mod sql;
pub mod catalog;
pub mod plan;
pub mod server;
pub mod dev;
pub mod cli;
