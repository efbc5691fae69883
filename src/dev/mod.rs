//! `pgsluice dev` and `pgsluice demo`, and the throw-away PostgreSQL they and the tests stand on.

mod binaries;
pub mod server;

pub use server::{Options, Postgres};
