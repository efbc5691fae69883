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

/// One thing to ask: `first` runs in a transaction that is rolled back, then the question, for one text, in the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRound {
    pub first: Vec<String>,
    pub question: Cow<'static, str>,
    pub parameters: Vec<String>,
}

/// What is learned round by round.
pub trait Inquire {
    /// What to ask now; `None`: no more.
    fn round(&mut self) -> Option<ProbeRound>;

    /// Reads the answer to the round.
    ///
    /// # Errors
    /// It is not what was asked for.
    fn answer(&mut self, json: &str) -> Result<(), serde_json::Error>;
}
