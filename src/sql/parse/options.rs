//! The settings of a session, and the version of the grammar, that decide how its SQL is read.

use pg_query::ParserOptions;

/// The settings of the session that change how text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseOptions {
    /// The session's `standard_conforming_strings`: off makes a backslash an escape in every string.
    pub standard_conforming_strings: bool,
    /// The server is newer than this grammar ([`GRAMMAR`]). A text that the grammar cannot read may be a statement that the server
    /// knows.
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
    pub(super) fn bits(self) -> ParserOptions {
        if self.standard_conforming_strings {
            ParserOptions::DEFAULT
        } else {
            ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
        }
    }
}
