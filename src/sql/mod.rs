//! Text to [`Statement`]: prefilter, split, parse. Pure; the only module that names the SQL parser.
//!
//! PostgreSQL's own grammar decides (libpg_query). What it cannot parse is [`Class::Unparsable`]
//! and is relayed: the server will say what is wrong.

pub mod form;
pub mod statement;

pub use statement::*;
