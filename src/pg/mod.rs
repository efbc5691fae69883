//! PostgreSQL's vocabulary: lock modes, names of relations, SQLSTATEs.
//!
//! Invariant: nothing here imports another module of this crate.

pub mod lock_mode;
pub mod relation;
pub mod sqlstate;

pub use lock_mode::LockMode;
pub use relation::{RelationKind, RelationName};
