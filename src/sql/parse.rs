//! A string of SQL into [`Statement`]s: PostgreSQL's grammar, then our summary of its tree.
//!
//! Invariant: nothing panics on any text or tree, and a statement's `range` starts at its first token and
//! ends at its last, so that text may be put before and after it.

mod advisory;
mod alter_table;
mod classify;
mod column;
mod comment;
mod create;
mod drop;
mod index;
mod key;
mod large;
mod logged;
mod maintenance;
mod names;
mod objects;
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

use super::{Class, Statement};
use pg_query::ParserOptions;
use pg_query::protobuf::{RawStmt, Token};
use std::fmt;
use std::ops::Range;
use tokens::scan;

/// The settings of the session that change how text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseOptions {
    /// The session's `standard_conforming_strings`: off makes a backslash an escape in every string.
    pub standard_conforming_strings: bool,
    /// The server is newer than this grammar ([`GRAMMAR`]): what cannot be read may be a statement that it has.
    pub newer: bool,
}

/// The version of PostgreSQL whose grammar this is.
pub const GRAMMAR: u16 = 18;

impl Default for ParseOptions {
    fn default() -> Self {
        Self { standard_conforming_strings: true, newer: false }
    }
}

impl ParseOptions {
    fn bits(self) -> ParserOptions {
        if self.standard_conforming_strings {
            ParserOptions::DEFAULT
        } else {
            ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
        }
    }
}

/// The parser's reason for not understanding a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unparsable {
    pub message: String,
}

impl fmt::Display for Unparsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unparsable {}

/// The statements of `text`, under PostgreSQL's default settings.
pub fn parse(text: &str) -> Result<Vec<Statement>, Unparsable> {
    parse_with(text, ParseOptions::default())
}

/// The statements of `text`.
pub fn parse_with(text: &str, options: ParseOptions) -> Result<Vec<Statement>, Unparsable> {
    if text.len() > large::LARGE {
        return large::parse(text, options);
    }
    parse_whole(text, options)
}

fn parse_whole(text: &str, options: ParseOptions) -> Result<Vec<Statement>, Unparsable> {
    match grammar(text, options) {
        Ok(raw) => Ok(statements(text, &raw, options)),
        Err(reason) => stand_in::with_stand_ins(text, options).ok_or(reason),
    }
}

fn grammar(text: &str, options: ParseOptions) -> Result<Vec<RawStmt>, Unparsable> {
    match pg_query::parse(text, options.bits()) {
        Ok(parsed) => Ok(parsed.protobuf.stmts),
        Err(pg_query::Error::Parse(message)) => Err(Unparsable { message }),
        Err(error) => Err(Unparsable { message: error.to_string() }),
    }
}

fn statements(text: &str, raw: &[RawStmt], options: ParseOptions) -> Vec<Statement> {
    let scanned = scan(text, options);
    let whole = text;
    let one = |raw: &RawStmt| {
        let scanned = scanned.within(raw_range(text, raw));
        let text = text.get(scanned.range()).unwrap_or_default().to_owned();
        let node = raw.stmt.as_ref().and_then(|node| node.node.as_ref());
        let class = node.map_or(Class::Other, |node| classify::class(node, &text, &scanned));
        let is_logged = matches!(class, Class::Ddl(_) | Class::ExplainDdl(_));
        let logged = if is_logged { logged::logged(whole, &scanned) } else { String::new() };
        Statement { range: scanned.range(), text, logged, class }
    };
    raw.iter().map(one).collect()
}

/// The bytes that the grammar gave to a statement: with outer white space and comments, without semicolon.
fn raw_range(text: &str, raw: &RawStmt) -> Range<usize> {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(text.len());
    let length = usize::try_from(raw.stmt_len).unwrap_or(0);
    // A length of 0 means "to the end of the text".
    let end = if length == 0 { text.len() } else { start.saturating_add(length).min(text.len()) };
    start..end
}

/// The index of the first token behind EXPLAIN and its options.
fn after_explain(words: &[tokens::Word]) -> usize {
    if words.get(1).is_some_and(|word| word.token == Token::Ascii40) {
        let close = words.iter().position(|word| word.token == Token::Ascii41);
        return close.map_or(words.len(), |close| close + 1);
    }
    let option = |word: &&tokens::Word| matches!(word.token, Token::Analyze | Token::Analyse | Token::Verbose);
    1 + words.iter().skip(1).take_while(option).count()
}
