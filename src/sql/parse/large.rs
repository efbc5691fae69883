//! Large texts. A statement that is not DDL is not parsed, and neither is one whose tree would take a gigabyte.
//!
//! The tree of the grammar takes a kilobyte for each word, so a text of a few megabytes would take gigabytes.
//! PostgreSQL's scanner splits a text into its statements in a few bytes for each word. Then each statement that may be
//! DDL, or is short, is parsed by itself.
//!
//! Invariants: a statement that is not parsed is certainly no DDL ([`Class::Other`]), or it hides what it does
//! ([`Class::MayHideDdl`]) and is guarded. If a statement of the text is wrong, the server executes nothing of the whole text.
//! Where the proxy could have committed a part of such a text, the whole text counts as not understood.

use super::grammar::{Unparsable, grammar, statements};
use super::options::ParseOptions;
use super::tokens::conforming;
use crate::sql::prefilter::{first_word, is_keyword};
use crate::sql::transaction::skip_blank;
use crate::sql::{Class, Statement};
use std::ops::Range;

/// The longest text, in bytes, that is parsed as a whole.
const LARGE: usize = 64 << 10;

/// The most words of one statement. The grammar's tree of so many takes some 50 MB. The widest table has 1,600 columns.
const MOST_TOKENS: usize = 50_000;

/// The most steps of the scanner over rows of operators and comments, which take a fraction of a second. The scanner reads such a
/// row again from each of its characters.
const MOST_STEPS: usize = 1 << 27;

/// The statements of a large text; `None`: the text is not large, or it is one statement that can be parsed as a whole.
///
/// # Errors
/// The text is too large to be understood, or one of its statements is wrong.
pub(super) fn parse(text: &str, options: ParseOptions) -> Result<Option<Vec<Statement>>, Unparsable> {
    if text.len() <= LARGE {
        return Ok(None);
    }
    let not = |message: &str| Unparsable { message: message.to_owned() };
    if steps(text) > MOST_STEPS {
        return Err(not("a sequence of operators or comments is too long to be read"));
    }
    let ranges = split(text, options).ok_or_else(|| not("the text cannot be split into statements"))?;
    if ranges.len() == 1 && has_few_tokens(text, options) {
        return Ok(None);
    }
    let mut all = Vec::with_capacity(ranges.len());
    let mut unread = false;
    for range in ranges {
        let part = text.get(range.clone()).unwrap_or_default();
        let blank = part.len() - skip_blank(part.as_bytes()).map_or(part.len(), <[u8]>::len);
        let text = part.get(blank..).unwrap_or_default().trim_end();
        let start = range.start + blank;
        if text.is_empty() {
            continue;
        }
        let word = first_word(text.as_bytes());
        // LOCK TABLE of thousands of tables is relayed. It is what pg_dump sends.
        let is_ddl = (is_keyword(word) && !word.eq_ignore_ascii_case(b"lock")) || word.eq_ignore_ascii_case(b"explain");
        if text.len() <= LARGE || (is_ddl && has_few_tokens(text, options)) {
            for mut statement in statements(text, &grammar(text, options)?, options) {
                statement.range = statement.range.start + start..statement.range.end + start;
                all.push(statement);
            }
            continue;
        }
        unread = true;
        let class = if is_ddl { Class::MayHideDdl { names_ddl: true, swallows: false } } else { Class::Other };
        all.push(Statement {
            range: start..start + text.len(),
            text: text.to_owned(),
            logged: String::new(),
            class,
            gated: false,
        });
    }
    if unread && all.iter().any(|statement| matches!(statement.class, Class::Transaction(_))) {
        return Err(not("the text ends a transaction, and one of its statements is too large to be parsed"));
    }
    Ok(Some(all))
}

/// How many times the scanner looks at a character of such a row, in all.
fn steps(text: &str) -> usize {
    let is_operator = |byte: &u8| b"+-*/<>=~!@#%^&|`?".contains(byte);
    text.as_bytes().chunk_by(|one, other| is_operator(one) == is_operator(other)).fold(0_usize, |steps, row| {
        let length = if row.first().is_some_and(is_operator) { row.len() } else { 0 };
        steps.saturating_add(length.saturating_mul(length))
    })
}

/// The ranges of the statements. `None`: some text is in none of them.
fn split(text: &str, options: ParseOptions) -> Option<Vec<Range<usize>>> {
    let conforming = conforming(text, options);
    let parts = pg_query::split_with_scanner(&conforming).ok()?;
    let begin = conforming.as_ptr().addr();
    let mut at = 0;
    let mut ranges = Vec::with_capacity(parts.len());
    for part in parts {
        let start = part.as_ptr().addr().checked_sub(begin)?;
        is_between(text.get(at..start)?).then_some(())?;
        at = start + part.len();
        ranges.push(start..at);
    }
    is_between(text.get(at..)?).then_some(ranges)
}

fn is_between(text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        match skip_blank(rest) {
            Some([b';', behind @ ..]) => rest = behind,
            other => return other.is_some_and(<[u8]>::is_empty),
        }
    }
}

/// Whether the text has no more than [`MOST_TOKENS`] tokens. Some parts of a token are counted as tokens, too.
fn has_few_tokens(text: &str, options: ParseOptions) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut count = 0;
    let mut escapes = !options.standard_conforming_strings;
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        at += match byte {
            _ if byte.is_ascii_whitespace() => 1,
            b'-' if rest.starts_with(b"--") => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => rest.len() - skip_blank(rest).map_or(0, <[u8]>::len),
            b'\'' => quoted(rest, b'\'', escapes),
            b'"' => quoted(rest, b'"', false),
            b'$' => dollar_quoted(text.get(at..).unwrap_or_default()).unwrap_or(1),
            _ if is_word(*byte) => {
                let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
                escapes = !options.standard_conforming_strings || matches!(&rest[..length], b"e" | b"E");
                length
            }
            _ => 1,
        };
        count += usize::from(!byte.is_ascii_whitespace());
        if count > MOST_TOKENS {
            return false;
        }
    }
    true
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// The length of a quoted text in bytes. A doubled quote ends one text and begins another.
fn quoted(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        at += 1;
        if escapes && *byte == b'\\' {
            at += 1;
        } else if *byte == quote {
            break;
        }
    }
    at.min(rest.len())
}

fn dollar_quoted(rest: &str) -> Option<usize> {
    let end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..end)?;
    let is_tag = tag[1..end - 1].bytes().all(is_word) && !tag[1..].starts_with(|c: char| c.is_ascii_digit());
    is_tag.then_some(())?;
    Some(end + rest.get(end..)?.find(tag)? + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    fn classes(text: &str) -> Option<Vec<&'static str>> {
        let name = |statement: &Statement| match &statement.class {
            Class::Ddl(_) => "ddl",
            Class::MayHideDdl { .. } => "hides",
            Class::Transaction(_) => "transaction",
            _ => "other",
        };
        let all = parse(text).ok()?;
        assert!(all.iter().all(|statement| text[statement.range.clone()] == statement.text));
        Some(all.iter().map(name).collect())
    }

    #[test]
    fn what_is_no_ddl_is_not_parsed() {
        let long = "b.".repeat(LARGE);
        for (text, wanted) in [
            (format!("SELECT a.{long}b; DROP TABLE x"), Some(vec!["other", "ddl"])),
            (format!("/* ; */ DROP TABLE x; SELECT ' ; ', $$;$$, a.{long}b;;"), Some(vec!["ddl", "other"])),
            (format!("DROP TABLE a.{long}b; DROP TABLE x;"), Some(vec!["hides", "ddl"])),
            (format!("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT '{long}')"), Some(vec!["ddl"])),
            (
                format!("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT {long}b; DROP TABLE t $$"),
                Some(vec!["ddl"]),
            ),
            (format!("COMMENT ON TABLE t IS E'\\'{long}'; SELECT 1"), Some(vec!["ddl", "other"])),
            (format!("COMMENT ON TABLE t IS '{}'; COMMIT", "it''s, ".repeat(LARGE)), None),
            (format!("SELECT a.{long}b; COMMIT; DROP TABLE x"), None),
            (format!("SELECT '{long}'; DROP TABL x"), None),
            (format!("DROP TABLE x; SELECT {}1", "+".repeat(LARGE)), None),
            (format!("DROP TABLE x; SELECT {}1", "/*".repeat(LARGE)), None),
        ] {
            assert_eq!(classes(&text), wanted, "{}", &text[..60]);
        }
    }

    #[test]
    fn a_large_text_is_read_as_its_statements_are() {
        let text =
            "CREATE TABLE t (a int, b text DEFAULT 'é;'); -- and so on\n ALTER TABLE t ADD c int /* ; */;\nSELECT 1; ";
        let large = text.repeat(LARGE / text.len() + 1);
        let (one, all) = (parse(text).unwrap(), parse(&large).unwrap());
        assert_eq!(all.len(), one.len() * (LARGE / text.len() + 1));
        for (at, statement) in all.iter().enumerate() {
            let like = &one[at % one.len()];
            assert_eq!((&statement.text, &statement.class), (&like.text, &like.class));
            assert_eq!(large[statement.range.clone()], statement.text);
        }
    }
}
