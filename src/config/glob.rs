//! A pattern of names, with `*` for any number of characters and `?` for one. `\` takes the next character as it is.
//!
//! It is plain data. It keeps true: a name matches as a whole, in the case in which the server stores it.

use std::fmt;

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Is(char),
    One,
    Any,
}

impl Glob {
    /// The patterns that are allowed, as an error names them.
    pub const ALLOWED: &'static str = "one or more patterns such as \"orders\" or \"tmp_*\" (* is any text, ? is one character, \\\\ before a character takes it as it is)";

    /// Reads a pattern. `None`: it is empty, or ends in a backslash.
    pub fn new(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let piece = match character {
                '\\' => Piece::Is(characters.next()?),
                '?' => Piece::One,
                '*' if pieces.last() == Some(&Piece::Any) => continue,
                '*' => Piece::Any,
                other => Piece::Is(other),
            };
            pieces.push(piece);
        }
        (!pieces.is_empty()).then(|| Self { text: text.to_owned(), pieces })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether every name matches.
    pub fn is_any(&self) -> bool {
        self.pieces == [Piece::Any]
    }

    /// Whether `schema.name` may match in any schema. A pattern without a dot matches no such name.
    pub fn may_match_in_a_schema(&self, name: &str) -> bool {
        let Some((_, tail)) = self.text.split_once('.') else { return false };
        let Some(tail) = Self::new(tail) else { return false };
        // A `*` before the dot may stand for a part of a name that has dots itself.
        let behind_dots = name.match_indices('.').filter_map(|(at, dot)| name.get(at + dot.len()..));
        tail.matches(name) || behind_dots.into_iter().any(|rest| tail.matches(rest))
    }

    /// Whether the name matches. The time is at most the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut piece, mut at) = (0, 0);
        // The last `*`, and how far the name was when it began.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match (self.pieces.get(piece), name.get(at)) {
                (None, None) => return true,
                (Some(Piece::Any), _) => {
                    star = Some((piece, at));
                    piece += 1;
                }
                (Some(Piece::One), Some(_)) => (piece, at) = (piece + 1, at + 1),
                (Some(Piece::Is(wanted)), Some(found)) if wanted == found => (piece, at) = (piece + 1, at + 1),
                _ => {
                    let Some((of_star, taken)) = star.filter(|(_, taken)| *taken < name.len()) else { return false };
                    star = Some((of_star, taken + 1));
                    (piece, at) = (of_star + 1, taken + 1);
                }
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("orders", "orders"),
            ("*", ""),
            ("tmp_*", "tmp_"),
            ("*_old", "orders_old"),
            ("o?ders", "orders"),
            ("*a*b*", "xxaxxbxx"),
            ("a**b", "ab"),
            (r"a\*", "a*"),
            ("grün?", "grüné"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("orders", "Orders"), ("orders", "orders2"), ("?", ""), ("*_old", "old"), (r"a\*", "ab"), ("a*b", "abc")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        for wrong in ["", "\\", "a\\"] {
            assert_eq!(Glob::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_whose_schema_is_not_known() {
        let may = |pattern: &str, name: &str| Glob::new(pattern).unwrap().may_match_in_a_schema(name);
        assert!(may("public.orders", "orders") && may("*.orders", "orders") && may("public.*", "orders"));
        assert!(!may("public.orders", "items") && !may("orders", "orders"));
        assert!(may("p*.x", "a.x") && !may("p*.x", "a.y"));
    }

    /// What matches, told in another way: every way in which the first piece may match is tried.
    fn slowly(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|taken| slowly(rest, &name[taken..])),
            Some((piece, rest)) => name
                .split_first()
                .is_some_and(|(first, others)| (*piece == '?' || piece == first) && slowly(rest, others)),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_it_is_told_to(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), slowly(&characters(&pattern), &characters(&name)));
        }
    }
}
