//! pgsluice: a wire-protocol proxy for PostgreSQL.

pub mod catalog;
pub mod pg;
pub mod plan;
pub mod report;
pub mod sql;
