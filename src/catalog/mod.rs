//! Facts: what is true now of the relations that a statement names. The only module that reads the catalogue.

pub mod facts;

pub use facts::*;
