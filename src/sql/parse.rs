//! Turns a string of SQL into [`Statement`]s: PostgreSQL's grammar parses it, and this module summarizes the tree.
//!
//! A large text is read statement by statement ([`large`]), any other text as a whole ([`grammar`]). If the grammar does not
//! understand a text, statements that only another grammar knows are covered, and the rest is read ([`stand_in`]).
//!
//! Invariant: nothing panics, whatever the text or tree is.

mod advisory;
mod alter_table;
mod classify;
mod column;
mod comment;
pub mod console;
mod create;
mod definition;
mod drop;
mod effect;
mod from_items;
mod grammar;
mod index;
mod key;
mod large;
mod lock_table;
mod logged;
mod maintenance;
mod names;
mod objects;
mod options;
mod subcommand_text;
mod probe;
mod rename;
mod stand_in;
mod tag;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::corpus;
mod tokens;

pub(super) use effect::with_effect;
pub use grammar::Unparsable;
pub use logged::logged_text;
pub use options::{GRAMMAR, ParseOptions};
pub use tokens::words_of;

use super::Statement;

/// The statements of `text`, under PostgreSQL's default settings.
pub fn parse(text: &str) -> Result<Vec<Statement>, Unparsable> {
    parse_with(text, ParseOptions::default())
}

/// The statements of `text`.
pub fn parse_with(text: &str, options: ParseOptions) -> Result<Vec<Statement>, Unparsable> {
    if let Some(statements) = large::parse(text, options)? {
        return Ok(statements);
    }
    match grammar::grammar(text, options) {
        Ok(raw) => Ok(grammar::statements(text, &raw, options)),
        Err(reason) => stand_in::with_stand_ins(text, options).ok_or(reason),
    }
}
