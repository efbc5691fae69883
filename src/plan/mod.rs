//! Statement + facts → [`Plan`]. Pure: no I/O, no clock, no choice left to the executor.

pub mod model;

pub use model::*;
