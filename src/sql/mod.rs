//! Text to [`Statement`]: prefilter, split, parse. Pure; the only module that names the SQL parser.
//!
//! PostgreSQL's own grammar decides (libpg_query). What it cannot parse is [`Unparsable`] and is
//! relayed: the server will say what is wrong.

pub mod form;
pub mod parse;
pub mod prefilter;
pub mod statement;
pub mod transaction;

pub use parse::{GRAMMAR, ParseOptions, Unparsable, parse, parse_with};
pub use prefilter::may_carry_ddl;
pub(crate) use prefilter::{first_word, has_word};
pub use statement::*;
pub use transaction::exactly_transaction;
