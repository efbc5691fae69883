//! Statements that the grammar does not know, alone or among others: EXPLAIN of DDL, which PostgreSQL does not have, and
//! statements of a server that is newer than this grammar.
//!
//! Each such statement is covered, byte for byte, by a text that the grammar reads in its place. Then the whole text is read at
//! once, so that the other statements are read as they would be without it.
//!
//! Invariants: a text that the grammar understands never comes here. If the rest of the text is not understood either, the whole
//! text is not understood.

use super::grammar::{grammar, statements};
use super::logged;
use super::options::ParseOptions;
use super::tokens::{Scanned, Word, scan};
use crate::sql::{Class, Statement};
use pg_query::protobuf::Token;
use std::ops::Range;

/// The text that stands in for a statement of another grammar. A shorter statement (DROP alone) belongs to no grammar.
const STAND_IN: &str = "DO ''";

/// The first words of statements that a newer server may have in other forms, or (REPACK) for the first time.
const NEWER: [&str; 6] = ["alter", "create", "drop", "reindex", "repack", "vacuum"];

/// A statement that is covered.
enum Covered {
    /// EXPLAIN with its options: where EXPLAIN begins, and where the explained statement begins.
    Explain { start: usize, inner: usize },
    /// A whole statement.
    Newer(Range<usize>),
}

/// The statements of the text. `None`: the rest of the text is not understood either.
pub(super) fn with_stand_ins(text: &str, options: ParseOptions) -> Option<Vec<Statement>> {
    let scanned = scan(text, options);
    let covered: Vec<Covered> =
        pieces(scanned.tokens())?.into_iter().filter_map(|piece| cover(text, piece, options)).collect();
    if covered.is_empty() {
        return None;
    }
    let mut readable = text.as_bytes().to_vec();
    for one in &covered {
        match one {
            Covered::Explain { start, inner } => readable.get_mut(*start..*inner)?.fill(b' '),
            Covered::Newer(range) => {
                readable.get_mut(range.clone())?.fill(b' ');
                readable.get_mut(range.start..range.start + STAND_IN.len())?.copy_from_slice(STAND_IN.as_bytes());
            }
        }
    }
    let readable = String::from_utf8(readable).ok()?;
    let mut found = statements(&readable, &grammar(&readable, options).ok()?, options);
    for one in covered {
        uncover(text, &scanned, &one, &mut found)?;
    }
    Some(found)
}

/// The words of each statement of a text. `None`: a statement may have semicolons within.
fn pieces(words: &[Word]) -> Option<Vec<&[Word]>> {
    let within = |word: &Word| word.token == Token::Atomic;
    let pieces = words.split(|word| word.token == Token::Ascii59).filter(|piece| !piece.is_empty());
    (!words.iter().any(within)).then(|| pieces.collect())
}

fn cover(text: &str, piece: &[Word], options: ParseOptions) -> Option<Covered> {
    let (first, last) = (piece.first()?, piece.last()?);
    let range = first.range.start..last.range.end;
    let word = text.get(first.range.clone())?;
    let is_newer =
        options.newer && range.len() >= STAND_IN.len() && NEWER.iter().any(|newer| word.eq_ignore_ascii_case(newer));
    if (first.token != Token::Explain && !is_newer) || grammar(text.get(range.clone())?, options).is_ok() {
        return None;
    }
    if is_newer {
        return Some(Covered::Newer(range));
    }
    let inner = piece.get(after_explain(piece))?.range.start;
    Some(Covered::Explain { start: range.start, inner })
}

/// The index of the first token behind EXPLAIN and its options.
fn after_explain(words: &[Word]) -> usize {
    if words.get(1).is_some_and(|word| word.token == Token::Ascii40) {
        let close = words.iter().position(|word| word.token == Token::Ascii41);
        return close.map_or(words.len(), |close| close + 1);
    }
    let option = |word: &&Word| matches!(word.token, Token::Analyze | Token::Analyse | Token::Verbose);
    1 + words.iter().skip(1).take_while(option).count()
}

/// Turns the statement that was read in place of a covered one into the covered one.
fn uncover(text: &str, scanned: &Scanned<'_>, one: &Covered, found: &mut [Statement]) -> Option<()> {
    let (start, read_at) = match one {
        Covered::Explain { start, inner } => (*start, *inner),
        Covered::Newer(range) => (range.start, range.start),
    };
    let statement = found.iter_mut().find(|statement| statement.range.start == read_at)?;
    let end = match one {
        Covered::Explain { .. } if !matches!(statement.class, Class::Ddl(_)) => return None,
        Covered::Explain { .. } => statement.range.end,
        Covered::Newer(range) => range.end,
    };
    let range = start..end;
    let logged = logged::logged(text, &scanned.within(range.clone()));
    let text = text.get(range.clone())?.to_owned();
    let class = match one {
        Covered::Explain { .. } => Class::ExplainDdl(Box::new(statement.clone())),
        Covered::Newer(_) => Class::Newer,
    };
    *statement = Statement { range, text, logged, class, gated: false };
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_with;

    fn classes(text: &str, newer: bool) -> Vec<String> {
        let options = ParseOptions { newer, ..ParseOptions::default() };
        let Ok(found) = parse_with(text, options) else { return vec!["unparsable".to_owned()] };
        let class = |statement: &Statement| match &statement.class {
            Class::Ddl(ddl) => ddl.tag.clone(),
            Class::ExplainDdl(inner) => format!("explain {}", inner.text),
            Class::Transaction(_) => "transaction".to_owned(),
            Class::Newer => format!("newer {}", statement.text),
            other => format!("{other:?}"),
        };
        assert!(found.iter().all(|one| text.get(one.range.clone()) == Some(one.text.as_str())), "{text}");
        found.iter().map(class).collect()
    }

    #[test]
    fn explain_of_ddl_among_others() {
        assert_eq!(
            classes("BEGIN; EXPLAIN (COSTS off) CREATE INDEX ON t (a); EXPLAIN SELECT 1; DROP TABLE é", false),
            ["transaction", "explain CREATE INDEX ON t (a)", "Other", "DROP TABLE"]
        );
        assert_eq!(
            classes("explain drop table t; explain analyze verbose alter table t add c int", false),
            ["explain drop table t", "explain alter table t add c int"]
        );
        for unparsable in ["EXPLAIN DROP TABLE t; SELECT FROM FROM", "EXPLAIN COMMIT; SELECT 1", "EXPLAIN; SELECT 1"] {
            assert_eq!(classes(unparsable, false), ["unparsable"], "{unparsable}");
        }
    }

    #[test]
    fn what_a_newer_server_may_have() {
        let text = "BEGIN; Repack (verbose) t /* x */; ALTER TABLE t MERGE PARTITIONS (a, b) INTO c; DROP TABLE t";
        assert_eq!(classes(text, false), ["unparsable"]);
        assert_eq!(
            classes(text, true),
            [
                "transaction",
                "newer Repack (verbose) t",
                "newer ALTER TABLE t MERGE PARTITIONS (a, b) INTO c",
                "DROP TABLE"
            ]
        );
        assert_eq!(classes("REPACK", true), ["newer REPACK"]);
        assert_eq!(classes("SELECT repack FROM t", true), ["Other"]);
        // It cannot be told to which statement the rest would belong.
        let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 NEW WORD; END";
        assert_eq!(classes(body, true), ["unparsable"]);
    }
}
