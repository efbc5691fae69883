//! The place of a record of a schema change: a comment on the row type of its table.
//!
//! Such a comment takes no lock on the table, needs no right but the owner's, is dropped with the table, and is in no
//! dump (`docs/decisions/0036-where-a-position-is-recorded.md`). This file has the SQL that reads and writes the comment.
//! `execute/record.rs` owns what the comment says.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

use super::backfill::may_set_role;
use serde::Deserialize;

/// The first key of the advisory lock of who works on what is recorded, "pgsj" in ASCII; the second is the table's oid.
/// `record.sql` has it too.
pub const JOB_CLASS: i32 = 0x7067_736a;

/// What is known of a table's record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordRow {
    /// The table's name of now.
    pub schema: String,
    pub name: String,
    /// The server's clock, for people.
    pub now: String,
    /// The comment, whoever wrote it.
    pub text: Option<String>,
    /// The session's role may write it, and nobody is told of that.
    pub may: bool,
    /// Only under `session_replication_role = replica`, which it may set.
    pub quiet: bool,
    /// It may be followed: nobody can have written it who has not the rights of who has logged in.
    pub trusted: bool,
    /// The table's owner, quoted.
    pub owner: String,
    /// The backend that has the lock; not one whose role may not change the table.
    pub holder: Option<i32>,
}

/// The question about the table `$1` (an oid as text): one row, one JSON text, which is a [`RecordRow`]. No row: it is gone.
pub fn question(server_version: i32) -> String {
    let question = include_str!("record.sql").replace("holder_counts", &super::query::may_change("a.usesysid"));
    question.replace("may_set_role", may_set_role(server_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_knows_the_lock() {
        assert!(question(150_000).contains(&JOB_CLASS.to_string()));
        assert!(!question(100_000).contains("may_set_role"));
    }
}
