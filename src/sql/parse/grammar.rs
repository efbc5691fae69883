//! Parses a text with PostgreSQL's grammar, and turns its trees into [`Statement`]s.
//!
//! Invariant: a statement's `range` starts at its first token and ends at its last, so that text may be put before and after it.

use super::options::ParseOptions;
use super::tokens::scan;
use super::{classify, logged};
use crate::sql::{Class, Statement};
use pg_query::protobuf::RawStmt;
use std::fmt;
use std::ops::Range;

/// The parser's reason for rejecting a text.
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

/// The statements of a text as trees of PostgreSQL's grammar.
pub(super) fn grammar(text: &str, options: ParseOptions) -> Result<Vec<RawStmt>, Unparsable> {
    match pg_query::parse(text, options.bits()) {
        Ok(parsed) => Ok(parsed.protobuf.stmts),
        Err(pg_query::Error::Parse(message)) => Err(Unparsable { message }),
        Err(error) => Err(Unparsable { message: error.to_string() }),
    }
}

/// The statements that summarize those trees. `text` is the text that the trees were parsed from.
pub(super) fn statements(text: &str, raw: &[RawStmt], options: ParseOptions) -> Vec<Statement> {
    let scanned = scan(text, options);
    let whole = text;
    let one = |raw: &RawStmt| {
        let scanned = scanned.within(raw_range(text, raw));
        let text = text.get(scanned.range()).unwrap_or_default().to_owned();
        let node = raw.stmt.as_ref().and_then(|node| node.node.as_ref());
        let class = node.map_or(Class::Other, |node| classify::class(node, &text, &scanned));
        let is_logged = matches!(class, Class::Ddl(_) | Class::ExplainDdl(_));
        let logged = if is_logged { logged::logged(whole, &scanned) } else { String::new() };
        Statement { range: scanned.range(), text, logged, class, gated: false }
    };
    raw.iter().map(one).collect()
}

/// The bytes that the grammar gives to a statement: with outer white space and comments, without the semicolon.
fn raw_range(text: &str, raw: &RawStmt) -> Range<usize> {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(text.len());
    let length = usize::try_from(raw.stmt_len).unwrap_or(0);
    // A length of 0 means "to the end of the text".
    let end = if length == 0 { text.len() } else { start.saturating_add(length).min(text.len()) };
    start..end
}
