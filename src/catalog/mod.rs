//! The facts about the relations that a statement names. This is the only module that reads the catalogue.
//!
//! The module is pure: it says what to ask ([`reading::Reading`], [`inquiry`]) and how to read the answers. The caller
//! owns the connection.
//!
//! The files build on each other in this order: [`relation`] and the plain data of partitions ([`tree`], [`attach`],
//! [`leaves`], [`detachable`]), [`facts`] over all of these, and then the questions.

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
pub mod reach;
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
