//! Schema changes inside the client's transaction: done ahead of it, final with its COMMIT, undone with its end.
//!
//! Each block is run directly and through the proxy. Tags, rows, SQLSTATEs and statuses must be the same, and afterwards schema, data and comments.

#[path = "ahead/blocks.rs"]
mod blocks;
#[path = "ahead/deadlocks.rs"]
mod deadlocks;
#[path = "parity/catalog.rs"]
mod catalog;
mod common;
#[path = "ahead/ends.rs"]
mod ends;
#[path = "ahead/explain.rs"]
mod explain;
#[path = "ahead/free.rs"]
mod free;
#[path = "ahead/instances.rs"]
mod instances;
#[path = "ahead/locks.rs"]
mod locks;
#[path = "ahead/pipelines.rs"]
mod pipelines;
#[path = "ahead/reasons.rs"]
mod reasons;
#[path = "ahead/stage.rs"]
mod stage;
#[allow(dead_code, reason = "the parity test compares sessions, too")]
#[path = "parity/state.rs"]
mod state;
#[path = "ahead/told.rs"]
mod told;
#[path = "ahead/waits.rs"]
mod waits;
