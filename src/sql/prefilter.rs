//! A word search over the raw text of a Query or Parse: may it carry DDL?
//!
//! Invariant: it never misses what [`super::parse()`] calls DDL, EXPLAIN of DDL, DO or CALL; a false
//! hit costs one parse. The one exception is a plain ANALYZE, which is relayed whatever is known of
//! it, and whose word stands in every `EXPLAIN ANALYZE`.
//!
//! A word is bounded by bytes that cannot be part of an identifier, so `created_at` is no hit. What is
//! quoted or commented is not told apart: that would be a lexer, and the parser is a better one.

/// The words that start a DDL statement, or one that hides DDL.
const KEYWORDS: [&[u8]; 17] = [
    b"alter",
    b"call",
    b"cluster",
    b"comment",
    b"create",
    b"do",
    b"drop",
    b"grant",
    b"import",
    b"reassign",
    b"refresh",
    b"reindex",
    b"repack",
    b"revoke",
    b"security",
    b"truncate",
    b"vacuum",
];

/// Whether `text` has a word that can start or hide DDL.
pub fn may_carry_ddl(text: &[u8]) -> bool {
    let mut before = b' ';
    for (at, &byte) in text.iter().enumerate() {
        if STARTS[usize::from(byte)] && !is_word(before) && is_hit(&text[at..]) {
            return true;
        }
        before = byte;
    }
    false
}

/// Whether `text` has one of `words` (lower case) as a word.
pub(super) fn has_word(text: &[u8], words: &[&str]) -> bool {
    text.split(|&byte| !is_word(byte)).any(|found| words.iter().any(|word| found.eq_ignore_ascii_case(word.as_bytes())))
}

/// Whether `byte` can be part of an identifier. (Every byte of a character beyond ASCII can.)
pub(super) fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)]
}

/// Whether `rest`, which begins at the start of a word, begins with a keyword that counts.
#[cold]
fn is_hit(rest: &[u8]) -> bool {
    let length = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(length);
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
        && !(word.eq_ignore_ascii_case(b"do") && is_upsert_action(after))
}

/// Whether `after` is what follows the DO of `ON CONFLICT DO UPDATE`, `DO NOTHING`: every upsert has it.
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

/// The bytes that a keyword can start with.
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
