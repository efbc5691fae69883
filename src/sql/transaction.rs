//! The transaction control of a text, found without the parser. Every driver sends it in Parse messages.
//!
//! Invariant: `Some` is returned only for a text of one statement that PostgreSQL reads in the same way. `None` means
//! "not sure", never "no".

use super::TransactionControl;
use super::prefilter::is_word;

/// No driver writes a longer one. A text with a long comment is left to the parser.
const LONGEST: usize = 512;

/// The transaction control that `text` is, if the text is certainly one such statement.
#[inline]
pub fn exactly_transaction(text: &[u8]) -> Option<TransactionControl> {
    if text.len() > LONGEST || !may_start(text) {
        return None;
    }
    plain(text).or_else(|| read(text))
}

/// The control of a text that is one word, as most drivers send it.
fn plain(text: &[u8]) -> Option<TransactionControl> {
    let word = text.strip_suffix(b";").unwrap_or(text);
    let is = |plain: &[u8]| word.eq_ignore_ascii_case(plain);
    match word.len() {
        5 if is(b"begin") => Some(TransactionControl::Begin),
        6 if is(b"commit") => Some(TransactionControl::Commit { chain: false }),
        8 if is(b"rollback") => Some(TransactionControl::Rollback { chain: false }),
        _ => None,
    }
}

fn read(text: &[u8]) -> Option<TransactionControl> {
    let words = words(text)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (first, rest) = words.split_first()?;
    match *first {
        "begin" => modes(work(rest)).then_some(TransactionControl::Begin),
        "start" => match rest.split_first()? {
            (&"transaction", rest) => modes(rest).then_some(TransactionControl::Begin),
            _ => None,
        },
        "commit" | "end" => chain(work(rest)).map(|chain| TransactionControl::Commit { chain }),
        "abort" => chain(work(rest)).map(|chain| TransactionControl::Rollback { chain }),
        "rollback" => match work(rest) {
            ["to", "savepoint", _] | ["to", _] => Some(TransactionControl::Savepoint),
            rest => chain(rest).map(|chain| TransactionControl::Rollback { chain }),
        },
        "savepoint" => matches!(rest, [_]).then_some(TransactionControl::Savepoint),
        "release" => matches!(rest, ["savepoint", _] | [_]).then_some(TransactionControl::Savepoint),
        _ => None,
    }
}

/// A look at the first two bytes behind white space and comments, so that an ordinary query costs nothing.
#[inline]
fn may_start(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    match text {
        [b'/' | b'-' | b'\x0b', ..] => skip_blank(text).is_some_and(starts_as_control),
        _ => starts_as_control(text),
    }
}

#[inline]
fn starts_as_control(text: &[u8]) -> bool {
    match text {
        [first, second, ..] => {
            let start = [first.to_ascii_lowercase(), second.to_ascii_lowercase()];
            [b"ab", b"be", b"co", b"en", b"re", b"ro", b"sa", b"st"].contains(&&start)
        }
        _ => false,
    }
}

/// The words of the text in lower case. A comma counts as a word. `None`: there is anything else, such as a second statement or a
/// quoted name.
fn words(text: &[u8]) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = skip_blank(text)?;
    while let Some(&byte) = rest.first() {
        if byte == b';' {
            return skip_blank(&rest[1..])?.is_empty().then_some(words);
        }
        let length = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
        let length = if byte == b',' { 1 } else { length };
        if length == 0 {
            return None;
        }
        let (word, after) = rest.split_at(length);
        words.push(std::str::from_utf8(word).ok()?.to_ascii_lowercase());
        rest = skip_blank(after)?;
    }
    Some(words)
}

/// `text` from its first byte that is neither white space nor in a comment; `None`: a comment does not end.
pub(super) fn skip_blank(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        // PostgreSQL (16 and later) takes the vertical tab for white space. The functions of Rust do not.
        if let Some(after) = rest.strip_prefix(b"\x0b") {
            rest = after;
        } else if let Some(comment) = rest.strip_prefix(b"--") {
            let end = comment.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(comment.len());
            rest = &comment[end..];
        } else if let Some(comment) = rest.strip_prefix(b"/*") {
            rest = after_block_comment(comment)?;
        } else {
            return Some(rest);
        }
    }
}

/// The text after a block comment whose opening was just read. Block comments nest.
fn after_block_comment(comment: &[u8]) -> Option<&[u8]> {
    let mut depth = 1;
    let mut rest = comment;
    while depth > 0 {
        if let Some(after) = rest.strip_prefix(b"*/") {
            depth -= 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix(b"/*") {
            depth += 1;
            rest = after;
        } else {
            rest = rest.get(1..)?;
        }
    }
    Some(rest)
}

fn work<'a, 'b>(words: &'a [&'b str]) -> &'a [&'b str] {
    match words {
        ["work" | "transaction", rest @ ..] => rest,
        rest => rest,
    }
}

/// Whether the words can only be transaction modes.
fn modes(words: &[&str]) -> bool {
    const MODES: [&str; 13] = [
        "isolation",
        "level",
        "read",
        "write",
        "only",
        "committed",
        "uncommitted",
        "repeatable",
        "serializable",
        "not",
        "deferrable",
        ",",
        "snapshot",
    ];
    words.iter().all(|word| MODES.contains(word))
}

fn chain(words: &[&str]) -> Option<bool> {
    match words {
        [] | ["and", "no", "chain"] => Some(false),
        ["and", "chain"] => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionControl::*;

    #[test]
    fn says_what_is_sure() {
        for (text, expect) in [
            ("BEGIN", Begin),
            ("begin;", Begin),
            (" Begin Work ; ", Begin),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, NOT DEFERRABLE", Begin),
            ("START TRANSACTION READ WRITE", Begin),
            ("/* app=x */ begin -- so", Begin),
            ("/* a /* b */ c */COMMIT/**/;", Commit { chain: false }),
            ("END TRANSACTION", Commit { chain: false }),
            ("commit and chain", Commit { chain: true }),
            ("ROLLBACK", Rollback { chain: false }),
            ("ABORT WORK AND NO CHAIN", Rollback { chain: false }),
            ("rollback and chain", Rollback { chain: true }),
            ("rollback to savepoint s1", Savepoint),
            ("ROLLBACK TO s1;", Savepoint),
            ("SAVEPOINT s1", Savepoint),
            ("RELEASE SAVEPOINT s1", Savepoint),
        ] {
            assert_eq!(exactly_transaction(text.as_bytes()), Some(expect), "{text}");
            let parsed = super::super::parse(text).unwrap();
            assert_eq!(parsed.len(), 1, "{text}");
            assert_eq!(parsed[0].class, super::super::Class::Transaction(expect), "{text}");
        }
    }

    #[test]
    fn is_unsure_of_all_else() {
        for text in [
            "",
            ";",
            "SELECT 1",
            "BEGIN; SELECT 1",
            "begin;;",
            "commit prepared 'x'",
            "ROLLBACK PREPARED 'x'",
            "PREPARE TRANSACTION 'x'",
            "START",
            "BEGIN foo",
            "commit /* open",
            "COMMIT AND",
            "savepoint \"s;1\"",
            "endx",
            "begin\u{e9}",
        ] {
            assert_eq!(exactly_transaction(text.as_bytes()), None, "{text}");
        }
    }
}
