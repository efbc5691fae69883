//! The place of a record of a schema change: a comment on the row type of its table.
//!
//! Such a comment takes no lock on the table, needs no right but the owner's, is dropped with the table, and is in no
//! dump (`docs/decisions/0036-where-a-position-is-recorded.md`). This file has the SQL that reads and writes the comment.
//! `execute/record.rs` owns what the comment says.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

use super::backfill::may_set_role;
use serde::Deserialize;

/// The first key of the advisory lock of a session that works on a record, "pgsj" in ASCII. The second key is the table's oid.
/// `record.sql` has the same key.
pub const JOB_CLASS: i32 = 0x7067_736a;

/// The facts about a table's record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordRow {
    /// The table's present name.
    pub schema: String,
    pub name: String,
    /// The server's clock, for people.
    pub now: String,
    /// The text of the comment, whoever wrote it.
    pub text: Option<String>,
    /// The session's role may write the comment, and no event trigger is told of that.
    pub may: bool,
    /// The role writes the comment under `session_replication_role = replica`, which it may set.
    pub quiet: bool,
    /// The record may be followed: only roles with the rights of the role that has logged in can have written it.
    pub trusted: bool,
    /// The table's owner, quoted.
    pub owner: String,
    /// The backend that holds the advisory lock. A backend whose role may not change the table does not count.
    pub holder: Option<i32>,
}

/// The question about the table `$1` (an oid as text). The answer is one row, one JSON text, a [`RecordRow`]. No row: the table is
/// gone.
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
