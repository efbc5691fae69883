//! Where a statement of a transaction is run, for EXPLAIN and `pgsluice plan`: in the transaction, or ahead of it.
//!
//! Plain data. [`super::ahead`] makes the choice, and [`mod@super::print`] shows it.

use serde::Serialize;

/// Where a statement of a transaction is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockPlace {
    /// In the transaction. The application does not wait for it there.
    Inside,
    /// Ahead of the transaction, behind these earlier statements, which go ahead with it.
    Ahead { with: Vec<EarlierStatement> },
    /// Ahead of the transaction, because a later statement goes ahead. `at`: which one, such as "line 3".
    AheadWith { at: String },
    /// In the transaction, where the application may wait for it.
    NotAhead(NotAhead),
}

/// A statement that stands earlier in the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EarlierStatement {
    /// Which statement it is, such as "line 3".
    pub at: String,
    pub statement: String,
}

/// Why nothing goes ahead: a sentence for the DETAIL of a WARNING, and one for its HINT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotAhead {
    pub detail: String,
    pub hint: String,
}

impl NotAhead {
    /// The statement cannot be undone. `what`: a fragment such as "DROP COLUMN".
    pub fn cannot_be_undone(what: &str) -> Self {
        let mut letters = what.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let detail = format!("{first}{} cannot be undone if the transaction is rolled back.", letters.as_str());
        Self { detail, hint: "Send the statement outside a transaction.".to_owned() }
    }
}
