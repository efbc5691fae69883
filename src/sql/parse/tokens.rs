//! The words of a text, as PostgreSQL's scanner finds them.
//!
//! Invariants: comments are never among the words. If the scanner gives up, which it can do only with
//! `standard_conforming_strings` off, there are no words. A statement then keeps the range that the grammar gave it,
//! without its outer white space.

use super::options::ParseOptions;
use crate::sql::PartitionOf;
use crate::sql::transaction::skip_blank;
use pg_query::protobuf::Token;
use std::borrow::Cow;
use std::ops::Range;

#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) token: Token,
    /// Bytes of the scanned text.
    pub(super) range: Range<usize>,
}

/// A text, or a part of it, with its words.
pub(super) struct Scanned<'a> {
    text: &'a str,
    words: Cow<'a, [Word]>,
    range: Range<usize>,
}

pub(super) fn scan(text: &str, options: ParseOptions) -> Scanned<'_> {
    // For a text without any token, pg_query 18.1 makes a slice from a null pointer.
    let blank = text.bytes().all(|byte| byte.is_ascii_whitespace() || byte == b'\x0b');
    let tokens = if blank { Vec::new() } else { pg_query::scan_tokens(&conforming(text, options)).unwrap_or_default() };
    let words = tokens.iter().filter_map(|found| {
        let token = Token::try_from(found.token).ok()?;
        let range = usize::try_from(found.start).ok()?..usize::try_from(found.end).ok()?;
        (!matches!(token, Token::CComment | Token::SqlComment)).then_some(Word { token, range })
    });
    Scanned { text, words: words.collect(), range: 0..text.len() }
}

/// The words of a text, without comments and blanks. If the scanner gives up, the whole text is one word.
pub fn words_of(text: &str, options: ParseOptions) -> Vec<&str> {
    let scanned = scan(text, options);
    if scanned.words.is_empty() {
        return vec![text.trim()];
    }
    scanned.words.iter().filter_map(|word| text.get(word.range.clone())).collect()
}

/// Makes a text that the scanner can read: the scanner knows only `standard_conforming_strings = on`. Where it is off, the escapes
/// that would end a string too early are covered, byte for byte, so that every word stays where it was.
pub(super) fn conforming(text: &str, options: ParseOptions) -> Cow<'_, str> {
    if options.standard_conforming_strings || !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(r"\\", "xx").replace(r"\'", "xx"))
}

impl<'a> Scanned<'a> {
    /// The part of the text that lies in `range`, from its first word to the end of its last.
    pub(super) fn within(&'a self, range: Range<usize>) -> Self {
        let first = self.words.partition_point(|word| word.range.start < range.start);
        let last = self.words.partition_point(|word| word.range.end <= range.end);
        let words = self.words.get(first..last).unwrap_or_default();
        let range = match (words.first(), words.last()) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => trimmed(self.text, range),
        };
        Scanned { text: self.text, words: Cow::Borrowed(words), range }
    }

    pub(super) fn tokens(&self) -> &[Word] {
        &self.words
    }

    /// A part of the whole text that was scanned.
    pub(super) fn source(&self, range: Range<usize>) -> Option<&'a str> {
        self.text.get(range)
    }

    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Where, from the start of this part, CONCURRENTLY may be put: behind the INDEX of CREATE \[UNIQUE\]
    /// INDEX and DROP INDEX, behind the INDEX, TABLE or SCHEMA of REINDEX [(options)], behind the VIEW of REFRESH.
    pub(super) fn concurrently_at(&self) -> Option<usize> {
        let mut words = self.words.iter();
        let first = words.next()?;
        let mut word = words.next()?;
        if first.token == Token::Create && word.token == Token::Unique {
            word = words.next()?;
        }
        if first.token == Token::Reindex && word.token == Token::Ascii40 {
            words.by_ref().find(|word| word.token == Token::Ascii41)?;
            word = words.next()?;
        }
        let here = match first.token {
            Token::Create | Token::Drop => word.token == Token::Index,
            // REFRESH MATERIALIZED VIEW
            Token::Refresh => {
                word = words.next()?;
                word.token == Token::View
            }
            Token::Reindex => matches!(word.token, Token::Index | Token::Table | Token::Schema),
            _ => false,
        };
        here.then(|| word.range.end.saturating_sub(self.range.start))
    }

    /// Where, from the start of this part, the name behind one of these words ends: `[schema .] name [*]`.
    pub(super) fn tail_at(&self, before: &[Token]) -> Option<usize> {
        let starts =
            |at: &usize| self.words[*at..].iter().map(|word| word.token).take(before.len()).eq(before.iter().copied());
        let at = (0..self.words.len()).find(starts)?;
        let mut words = self.words.get(at + before.len()..)?.iter();
        let mut last = words.next().filter(|word| word.token != Token::Only)?;
        while let Some(dot) = words.next() {
            match dot.token {
                Token::Ascii46 => last = words.next()?,
                Token::Ascii42 => last = dot,
                _ => break,
            }
        }
        Some(last.range.end.saturating_sub(self.range.start))
    }

    /// Where, from the start of this part, `FOR VALUES …` stands: IN (…), FROM (…) TO (…) or WITH (…).
    pub(super) fn bounds(&self) -> Option<Range<usize>> {
        let at = self.words.windows(2).position(|two| two[0].token == Token::For && two[1].token == Token::Values)?;
        let words = self.words.get(at..)?;
        let mut lists = if words.get(2)?.token == Token::From { 2 } else { 1 };
        let mut depth = 0_usize;
        let last = words.iter().find(|word| {
            match word.token {
                Token::Ascii40 => depth += 1,
                Token::Ascii41 => {
                    depth = depth.saturating_sub(1);
                    lists -= i32::from(depth == 0);
                }
                _ => {}
            }
            lists == 0
        })?;
        let from = |at: usize| at.saturating_sub(self.range.start);
        Some(from(words.first()?.range.start)..from(last.range.end))
    }
}

impl Scanned<'_> {
    /// Where, from the start of this part, the first FOREIGN KEY stands.
    pub(super) fn foreign_key_at(&self) -> Option<usize> {
        let starts = |two: &&[Word]| [two[0].token, two[1].token] == [Token::Foreign, Token::Key];
        let first = self.words.windows(2).find(starts)?.first()?;
        Some(first.range.start.saturating_sub(self.range.start))
    }

    /// Where, from the start of this part, `PARTITION OF parent FOR VALUES …` (or `DEFAULT`) stands, if nothing stands between
    /// the parent's name and its bounds.
    pub(super) fn partition_of(&self) -> Option<PartitionOf> {
        const OF: [Token; 2] = [Token::Partition, Token::Of];
        let from = |at: usize| at.saturating_sub(self.range.start);
        let of = self.words.windows(2).find(|two| OF == [two[0].token, two[1].token])?;
        let tail = self.tail_at(&OF)?;
        let next = self.words.iter().find(|word| from(word.range.start) >= tail)?;
        let bound = match next.token {
            Token::Default => from(next.range.start)..from(next.range.end),
            _ => self.bounds().filter(|bounds| bounds.start == from(next.range.start))?,
        };
        const UNLESS: [Token; 3] = [Token::IfP, Token::Not, Token::Exists];
        let clause = from(of[0].range.start)..bound.end;
        let mut unless =
            self.words.windows(3).filter(|words| UNLESS == [words[0].token, words[1].token, words[2].token]);
        let unless = unless.next().map(|words| from(words[0].range.start)..from(words[2].range.end));
        Some(PartitionOf { bound, if_not_exists: unless.filter(|range| range.end <= clause.start), clause })
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes().get(range.clone()).unwrap_or_default();
    let rest = skip_blank(bytes).unwrap_or(bytes);
    let start = range.end - rest.len();
    start..start + rest.trim_ascii_end().len()
}
