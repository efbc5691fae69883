//! The text of a statement as the log may contain it.
//!
//! Invariants: the text contains nothing of any string, whatever the statement is. (A list of the statements that can
//! carry a password, a connection string or somebody's data would never be complete.) It contains no comment, and nothing
//! that begins a new line or moves a terminal's cursor. It is never longer than a screen.

use super::options::ParseOptions;
use super::tokens::{Scanned, scan};
use pg_query::protobuf::Token;
use std::fmt::Write;

/// The text that replaces every string.
const HIDDEN: &str = "'***'";

/// The most characters of a statement that the log contains. The log need not hold all columns of a table.
const MOST: usize = 1000;

/// Any SQL as the log may contain it.
pub fn logged_text(text: &str, options: ParseOptions) -> String {
    logged(text, &scan(text, options))
}

pub(super) fn logged(text: &str, scanned: &Scanned<'_>) -> String {
    let mut out = String::new();
    let mut end = scanned.range().start;
    for word in scanned.tokens() {
        // Whatever stands between two words becomes a blank.
        if word.range.start > end {
            out.push(' ');
        }
        end = word.range.end;
        match word.token {
            Token::Sconst | Token::Usconst | Token::Bconst | Token::Xconst => out.push_str(HIDDEN),
            _ => put(&mut out, text.get(word.range.clone()).unwrap_or_default()),
        }
        if let Some((cut, _)) = out.char_indices().nth(MOST) {
            out.truncate(cut);
            out.push_str(" ...");
            return out;
        }
    }
    if out.is_empty() { "(text not shown)".to_owned() } else { out }
}

/// Appends a word. A quoted name may hold anything but NUL.
fn put(out: &mut String, word: &str) {
    for c in word.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::{ParseOptions, parse, parse_with};

    fn logged(text: &str) -> String {
        parse(text).unwrap().remove(0).logged
    }

    #[test]
    fn no_string_is_shown() {
        for (text, shown) in [
            ("ALTER ROLE joe PASSWORD 'hunter2'", "ALTER ROLE joe PASSWORD '***'"),
            (
                "CREATE USER joe\nENCRYPTED PASSWORD E'hun\\'ter2' LOGIN",
                "CREATE USER joe ENCRYPTED PASSWORD '***' LOGIN",
            ),
            (
                "CREATE USER MAPPING FOR joe SERVER s OPTIONS (user 'joe', password 'hunter2')",
                "CREATE USER MAPPING FOR joe SERVER s OPTIONS (user '***', password '***')",
            ),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2' PUBLICATION p",
                "CREATE SUBSCRIPTION s CONNECTION '***' PUBLICATION p",
            ),
            (
                "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (key $$hunter2$$)",
                "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (key '***')",
            ),
            ("ALTER SYSTEM SET x = U&'hunter\\0032'", "ALTER SYSTEM SET x = '***'"),
            ("COMMENT ON TABLE t IS 'hun'\n  'ter2'  ", "COMMENT ON TABLE t IS '***'"),
            (
                "ALTER TABLE t ADD c bit(8) DEFAULT b'10101010', ADD d bit(8) DEFAULT X'AA'",
                "ALTER TABLE t ADD c bit(8) DEFAULT '***', ADD d bit(8) DEFAULT '***'",
            ),
            (
                "ALTER/* hunter2 */TABLE t -- hunter2\n ADD COLUMN c numeric(10,2)",
                "ALTER TABLE t ADD COLUMN c numeric(10,2)",
            ),
            ("EXPLAIN ALTER ROLE joe PASSWORD 'hunter2'", "EXPLAIN ALTER ROLE joe PASSWORD '***'"),
            (
                "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $body$SELECT 'hunter2'$body$",
                "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS '***'",
            ),
        ] {
            assert_eq!(logged(text), shown);
        }
    }

    #[test]
    fn escapes_are_read_as_the_session_reads_them() {
        let text = r"ALTER ROLE joe PASSWORD 'a\'hunter2 \'b' LOGIN";
        let options = ParseOptions { standard_conforming_strings: false, ..ParseOptions::default() };
        let shown = parse_with(text, options).unwrap().remove(0).logged;
        assert_eq!(shown, "ALTER ROLE joe PASSWORD '***' LOGIN");
    }

    #[test]
    fn one_line_of_some_length() {
        let text = "DROP TABLE \"a\nINFO forged\u{1b}[2J\u{2028}\", b";
        assert_eq!(logged(text), "DROP TABLE \"a\\nINFO forged\\u{1b}[2J\\u{2028}\", b");
        let long = logged(&format!("DROP TABLE a{}", ", a".repeat(1000)));
        assert_eq!(long.chars().count(), 1004);
    }

    #[test]
    fn what_is_no_ddl_has_none() {
        assert_eq!(logged("SELECT 'hunter2'"), "");
        assert_eq!(logged("DO 'hunter2'"), "");
    }
}
