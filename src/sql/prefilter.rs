//! A search for words in the raw text of a Query or Parse: may the text contain DDL or LOCK TABLE, or wait for an advisory lock?
//!
//! Invariant: the search never misses what [`super::parse()`] calls DDL, EXPLAIN of DDL, DO, CALL or LOCK TABLE. A false hit costs one
//! parse. The one exception is a plain ANALYZE. It is always relayed, and its word stands in every `EXPLAIN ANALYZE`.
//!
//! LOCK is a common name of columns. It counts only where a statement may begin: as the first word, or somewhere behind a semicolon.
//!
//! A word ends at a byte that cannot be part of an identifier, so `created_at` is no hit. Quotes and comments are not
//! recognized. That would take a lexer, and the parser is a better one.

/// The words that start a DDL statement, or one that hides DDL, or LOCK TABLE; and the functions that wait for an advisory lock.
const KEYWORDS: [&[u8]; 22] = [
    b"alter",
    b"call",
    b"cluster",
    b"comment",
    b"create",
    b"do",
    b"drop",
    b"grant",
    b"import",
    b"lock",
    b"pg_advisory_lock",
    b"pg_advisory_lock_shared",
    b"pg_advisory_xact_lock",
    b"pg_advisory_xact_lock_shared",
    b"reassign",
    b"refresh",
    b"reindex",
    b"repack",
    b"revoke",
    b"security",
    b"truncate",
    b"vacuum",
];

/// How many bytes are examined together: enough for two vectors of the smallest machine.
const LANES: usize = 32;

/// The offset of the bytes that identify `pg_advisory`. Its word may begin this many bytes before the lanes in which these bytes
/// are.
const ADVISORY_AT: usize = "pg_a".len();

/// Whether `text` has a word that can start or hide DDL, or start a LOCK TABLE, or waits for an advisory lock.
///
/// The function runs on every Query and Parse. So it first checks for [`LANES`] bytes at once whether any could begin a keyword, in
/// a loop without branches that the compiler turns into vector code.
pub fn may_carry_ddl(text: &[u8]) -> bool {
    // A window is its lanes, the byte before the first lane, and the two bytes after the last one.
    let Some(last) = text.len().checked_sub(LANES + 2).filter(|last| *last > 0) else {
        return hit_within(text, 0, text.len());
    };
    // No lane covers the first byte, which has no byte before it, and the last two, which have too few after them.
    let mut found = hit_within(text, 0, 1) || hit_within(text, last + LANES, text.len());
    let mut start = 1;
    while !found && start < last + LANES {
        // The last window overlaps the one before it.
        start = start.min(last);
        let window = text.get(start - 1..start + LANES + 2).and_then(|window| window.try_into().ok());
        found = window.is_none_or(may_begin) && hit_within(text, start.saturating_sub(ADVISORY_AT), start + LANES);
        start += LANES;
    }
    found
}

/// Whether a LOCK behind `before` may begin a statement: there is a semicolon, or nothing but blanks and comments.
fn may_begin_a_statement(before: &[u8]) -> bool {
    if before.contains(&b';') {
        return true;
    }
    let mut rest = before;
    loop {
        rest = match rest {
            [] => return true,
            // The server's lexer takes these for white space.
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, rest @ ..] => rest,
            [b'-', b'-', rest @ ..] => match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                Some(end) => &rest[end..],
                // The word is in the comment.
                None => return false,
            },
            [b'/', b'*', rest @ ..] => match behind_comment(rest) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        };
    }
}

/// The text behind a comment, which may contain others. `text` is the text behind the first `/*`. `None`: the comment does not end.
fn behind_comment(mut text: &[u8]) -> Option<&[u8]> {
    let mut depth = 1_usize;
    while depth > 0 {
        text = match text {
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                rest
            }
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                rest
            }
            [_, rest @ ..] => rest,
            [] => return None,
        };
    }
    Some(text)
}

/// Whether any lane of the window has no letter before it and begins, with the two bytes after it, like one of [`KEYWORDS`]; or
/// whether any lane is in the middle of `pg_advisory`.
fn may_begin(window: &[u8; LANES + 3]) -> bool {
    let mut any = 0;
    for lane in 0..LANES {
        // To lower case. A byte that is no letter may become one, which is wrong but costs only a closer look.
        let lower = |at: usize| window[lane + at] | 0x20;
        let (before, first, second, third) = (lower(0), lower(1), lower(2), lower(3));
        let is = |a: u8, b: u8, c: u8| (first == a) & (second == b) & (third == c);
        let begins = is(b'a', b'l', b't')
            | is(b'c', b'a', b'l')
            | is(b'c', b'l', b'u')
            | is(b'c', b'o', b'm')
            | is(b'c', b'r', b'e')
            | ((first == b'd') & (second == b'o'))
            | is(b'd', b'r', b'o')
            | is(b'g', b'r', b'a')
            | is(b'i', b'm', b'p')
            | is(b'l', b'o', b'c')
            | ((first == b'r') & (second == b'e'))
            | is(b's', b'e', b'c')
            | is(b't', b'r', b'u')
            | is(b'v', b'a', b'c');
        let behind_letter = before.wrapping_sub(b'a') < 26;
        // Hardly any other word has these bytes of `pg_advisory`. Its first bytes are no use: queries of the catalogue are full of
        // words that begin with them.
        let advisory = is(b'd', b'v', b'i');
        any |= u8::from((begins & !behind_letter) | advisory);
    }
    any != 0
}

/// Whether a keyword that counts begins at one of the bytes `start..end`.
fn hit_within(text: &[u8], start: usize, end: usize) -> bool {
    let mut before = start.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or(b' ');
    for (at, &byte) in text.iter().enumerate().take(end).skip(start) {
        if STARTS[usize::from(byte)] && !is_word(before) && is_hit(text, at) {
            return true;
        }
        before = byte;
    }
    false
}

/// Whether `text` has one of `words` (lower case) as a word.
pub(crate) fn has_word(text: &[u8], words: &[&str]) -> bool {
    text.split(|&byte| !is_word(byte)).any(|found| words.iter().any(|word| found.eq_ignore_ascii_case(word.as_bytes())))
}

/// The word that `text` begins with, perhaps none.
pub(crate) fn first_word(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_start();
    let length = text.iter().position(|&byte| !is_word(byte)).unwrap_or(text.len());
    &text[..length]
}

/// Whether `byte` can be part of an identifier. (Every byte of a character beyond ASCII can.)
pub(super) fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)]
}

/// Whether a statement that begins with this word is DDL, or may hide some, or is LOCK TABLE.
pub(super) fn is_keyword(word: &[u8]) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Whether the word of `text` that begins at this byte is a keyword that counts.
fn is_hit(text: &[u8], at: usize) -> bool {
    let (before, rest) = text.split_at(at);
    let length = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(length);
    match word.first() {
        _ if !is_keyword(word) => false,
        Some(b'd' | b'D') if word.len() == b"do".len() => !is_upsert_action(after),
        Some(b'l' | b'L') => may_begin_a_statement(before),
        _ => true,
    }
}

/// Whether `after` is the text after the DO of `ON CONFLICT DO UPDATE` or `DO NOTHING`. Every upsert has it.
fn is_upsert_action(after: &[u8]) -> bool {
    let after = after.trim_ascii_start();
    let length = after.iter().position(|&byte| !is_word(byte)).unwrap_or(after.len());
    let word = &after[..length];
    word.eq_ignore_ascii_case(b"update") || word.eq_ignore_ascii_case(b"nothing")
}

static WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80;
        byte += 1;
    }
    table
};

/// The bytes with which a keyword can start.
static STARTS: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < KEYWORDS.len() {
        let first = KEYWORDS[i][0];
        table[first as usize] = true;
        table[first.to_ascii_uppercase() as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Class, parse};
    use proptest::prelude::*;

    #[test]
    fn hits_words_that_start_or_hide_ddl() {
        for text in [
            "ALTER TABLE t ADD c int",
            "select 1;drop table t",
            "/*x*/Create/*y*/table t ()",
            "GRANT\nSELECT ON t TO joe",
            "EXPLAIN (ANALYZE)TRUNCATE t",
            "DO $$ BEGIN END $$",
            "do'BEGIN END'",
            "DO LANGUAGE plpgsql $$ $$",
            "INSERT INTO t VALUES (1) ON CONFLICT DO /* x */ NOTHING",
            "do updates",
            "CALL p()",
            "call\"p\"()",
            "VACUUM FULL t",
            "REPACK t",
            "SELECT 'drop'",
            "SELECT \"comment\" FROM t",
            "SELECT pg_catalog.PG_ADVISORY_XACT_LOCK_SHARED($1)",
            "\u{c}cluster",
            "DO",
            "LOCK TABLE t IN ACCESS EXCLUSIVE MODE NOWAIT",
            "\n\t -- it's\n /* a; /* drop_ */ b */ ; Lock t",
            "lock\"t\"",
            "lock",
            "SELECT 1; LOCK TABLE t",
            "BEGIN ; select pg_sleep(0) from a_table_with_a_long_name_indeed ;/* x */lock only t",
        ] {
            assert!(may_carry_ddl(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn lets_ordinary_queries_pass() {
        for text in [
            "",
            "SELECT created_at, comment_count, dropped, alter_ego, _grant, grant_, x$drop, call1 FROM t",
            "SELECT * FROM t FOR UPDATE",
            "SELECT pg_try_advisory_lock(1)",
            "SELECT pg_advisory_unlock(1), pg_advisory_lock2, pg_class.oid FROM pg_catalog.pg_class",
            "SELECT domain, docs, does, todo FROM comments",
            "SELECT \u{e9}drop, drop\u{e9}",
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "insert into t values (1) on conflict (id) do\n\t update set a = 1",
            "MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING",
            "SELECT lock, locked FROM locks FOR UPDATE SKIP LOCKED",
            "SELECT * FROM t FOR UPDATE SKIP LOCKED",
            "/* LOCK */ SELECT 1",
            "-- lock",
            "/* lock",
            "lo",
            "locks",
            "lock_ x",
            "/* a /* b */ lock",
            "SELECT pg_sleep(0) -- ; \n, (SELECT 1) AS locked",
            "SELECT 1 INTO t",
            "EXPLAIN ANALYZE SELECT 1",
            "ANALYZE t",
            "SET search_path = x",
            "COPY t FROM STDIN",
            "BEGIN; SAVEPOINT a; COMMIT",
            "PREPARE p AS SELECT 1",
            "WITH recent AS (SELECT 1) UPDATE t SET a = 1 RETURNING *",
        ] {
            assert!(!may_carry_ddl(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn every_keyword_hits_in_every_place() {
        for keyword in KEYWORDS {
            let keyword = std::str::from_utf8(keyword).unwrap();
            for before in 0..70 {
                for after in ["", " ", ";x", "(", "\"", "/", "'"] {
                    let text = format!("{}{keyword}{after}", " ".repeat(before));
                    assert!(may_carry_ddl(text.as_bytes()), "{text}");
                    assert!(may_carry_ddl(text.to_uppercase().as_bytes()), "{text}");
                    if before > 0 {
                        let within = format!("{}x{keyword}{after}", " ".repeat(before - 1));
                        assert!(!may_carry_ddl(within.as_bytes()), "{within}");
                    }
                }
            }
        }
    }

    fn matters(class: &Class) -> bool {
        match class {
            // A plain ANALYZE is the exception that the top of the file names.
            Class::Ddl(ddl) => ddl.tag != "ANALYZE",
            Class::ExplainDdl(inner) => matters(&inner.class),
            Class::MayHideDdl { .. } | Class::Newer | Class::Lock(_) => true,
            Class::AdvisoryLock(_) | Class::Transaction(_) | Class::Other => false,
        }
    }

    const BLANKS: [&str; 9] =
        [" ", "  ", "\n", "\t", "\r\n", "\u{c}", "/**/", " /* a; /* drop_ */ b */ ", " -- it's\n"];
    const BEFORE: [&str; 8] = ["", " ", ";", "/**/", "--x\n", "SELECT 1;", "SELECT '\u{e9}' ; ", "BEGIN;"];

    /// The text with each of its blanks exchanged, and the case of its letters changed, by the bits of `choice`.
    fn vary(text: &str, choice: &[u8]) -> String {
        let mut varied = String::new();
        for (i, (letter, choice)) in text.chars().zip(choice.iter().cycle()).enumerate() {
            if i == 0 {
                varied.push_str(BEFORE[usize::from(*choice) % BEFORE.len()]);
            }
            match letter {
                ' ' => varied.push_str(BLANKS[usize::from(*choice) % BLANKS.len()]),
                letter if choice & 0x80 == 0 => varied.push(letter.to_ascii_uppercase()),
                letter => varied.push(letter.to_ascii_lowercase()),
            }
        }
        varied
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn never_misses_what_the_parser_finds(
            sql in proptest::sample::select(parse::corpus()),
            choice in proptest::collection::vec(any::<u8>(), 1..60),
        ) {
            for text in [sql.clone(), vary(&sql, &choice)] {
                let found = parse(&text).unwrap_or_default().iter().any(|statement| matters(&statement.class));
                prop_assert!(!found || may_carry_ddl(text.as_bytes()), "missed: {text}");
            }
        }
    }
}
