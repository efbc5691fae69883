//! Facts: what is true now of the relations that a statement names. The only module that reads the catalogue.
//!
//! Pure: it says what to ask ([`reading::Reading`]) and how to read the answer; the caller owns the connection.

pub mod attach;
pub mod backfill;
pub mod building;
pub mod coercion;
pub mod detachable;
pub mod domain;
pub mod facts;
pub mod leaves;
pub mod identity;
pub mod inquiry;
pub mod matview;
pub mod may_ask;
pub mod naming;
pub mod places;
pub mod probe;
pub mod query;
pub mod reading;
pub mod record;
mod relation;
pub mod supposed;
pub mod tree;
pub mod version;
pub mod trust;
pub mod volatility;

pub use facts::*;
pub use inquiry::{Inquire, ProbeRound};
pub use relation::*;
