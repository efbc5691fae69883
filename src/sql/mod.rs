//! Turns the text of a Query or Parse into [`Statement`]s: with a prefilter, and with PostgreSQL's own grammar (libpg_query).
//!
//! The module is pure, and no other module names the parser. A text that the grammar cannot parse is [`Unparsable`]. It is relayed,
//! and the server reports the error.

pub mod console;
pub mod effect;
pub mod form;
pub mod parse;
pub mod prefilter;
pub mod statement;
pub mod transaction;

pub use effect::{Effect, EffectKind, effects};
pub use parse::{GRAMMAR, ParseOptions, Unparsable, logged_text, parse, parse_with, words_of};
pub use prefilter::may_carry_ddl;
pub(crate) use prefilter::{first_word, has_word};
pub use statement::*;
pub use transaction::exactly_transaction;
