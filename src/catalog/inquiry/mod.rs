//! Questions about one kind of statement that are asked after its facts are read, in one round or several.
//!
//! Each file has the questions of one kind: [`index`] on a partitioned table, [`attach`] of a partition, [`leaves`] under a table that
//! gets a foreign key, and [`detachable`] partitions that DROP TABLE names. A file says what to ask and reads the answer. The caller
//! owns the connection.

pub mod attach;
pub mod detachable;
pub mod index;
pub mod leaves;

use std::borrow::Cow;

/// One question, which is answered with one text. The commands in `first` and then the question run in one transaction, which is
/// rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRound {
    pub first: Vec<String>,
    pub question: Cow<'static, str>,
    pub parameters: Vec<String>,
}

/// Questions that are asked round by round.
pub trait Inquire {
    /// The question of the next round. `None`: there is no further round.
    fn round(&mut self) -> Option<ProbeRound>;

    /// Reads the answer to the round.
    ///
    /// # Errors
    /// The text is not an answer to the question.
    fn answer(&mut self, json: &str) -> Result<(), serde_json::Error>;
}
