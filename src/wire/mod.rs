//! Bytes become frames and messages, and messages become bytes. The module is pure: it does no I/O.
//!
//! Invariants: a frame (a tag, a length, and an unopened body) is read exactly as PostgreSQL reads it. A length that
//! PostgreSQL would refuse is refused here, and never skipped over. A body is opened only if the proxy must look at it. A
//! short or odd body is an error or `None`, and never a panic.

pub mod authentication;
pub mod error_response;
pub mod frame;
pub mod message;
pub mod owed;
pub mod reply;
pub mod speech;
pub mod startup;

pub use frame::{BadFrame, Header};
