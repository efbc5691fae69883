//! PostgreSQL's vocabulary: lock modes, relation names, SQLSTATEs.
//!
//! Leaves only: nothing here imports another module of this crate.

pub mod lock_mode;
pub mod relation;
pub mod sqlstate;

pub use lock_mode::LockMode;
pub use relation::{RelationKind, RelationName};
