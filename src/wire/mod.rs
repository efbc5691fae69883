//! Bytes to frames to messages, and back. Pure: no I/O.
//!
//! A frame (tag, length, body unopened) is read exactly as PostgreSQL reads it; a length it would
//! refuse is refused here, and never skipped over. Only what the proxy must look at is opened, and
//! opening a short or odd body is an error or `None`, never a panic.

pub mod authentication;
pub mod error_response;
pub mod frame;
pub mod message;
pub mod owed;
pub mod reply;
pub mod speech;
pub mod startup;

pub use frame::{BadFrame, Header};
