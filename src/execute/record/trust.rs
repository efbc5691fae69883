//! The decision whose record is followed, and the WARNING about a record that is not.
//!
//! The table's owner can write the comment, and its contents become SQL. So a record is followed only if every role that can have written
//! it has the rights of the role that has logged in anyway (`catalog/record.sql`). A record is written only where it may be followed.
//! Elsewhere an unfinished plan is undone, or its objects are named. The indexes of a record count only if they belong to the plan's own
//! tables.
//!
//! The lock of a record is an advisory lock, which every role can take. So a lock that is held by a session whose role may not change the
//! table does not count.
//!
//! This file owns no state. It keeps true that every such record of the statement that is not followed is reported.

use crate::catalog::record::RecordRow;
use crate::execute::record::{Record, RecordKey};
use crate::pg::sqlstate;
use crate::report::Report;

/// Returns the WARNING about a record of this statement that may not be followed. Without it, the client would only see an error that an
/// object exists or, with IF NOT EXISTS, nothing at all.
pub(super) fn not_followed(found: &RecordRow, statement: &str) -> Option<Report> {
    let record =
        Record::from_text(found.text.as_deref()?).filter(|record| record.statement == statement && !record.undoing)?;
    let (reason, hint) = match (found.trusted, found.may) {
        (true, true) => return None,
        (false, _) => (
            "a role other than the one that has logged in may have written its record",
            format!("Log in as {}, and send the statement again.", found.owner),
        ),
        (true, false) => (
            "its record could not be kept up to date",
            "Send the statement as the table's owner, in a database without an event trigger on COMMENT.".to_owned(),
        ),
    };
    Some(not_continued(&record, reason).hint(hint))
}

/// Returns the record, if it is a record of this statement and may be followed. It may be before the record of a later statement of the
/// same block. `own`: the runs of this session. A record of theirs is not followed. A record behind that of another run is not followed either,
/// since the statement may rest on what is to be undone.
pub(super) fn followed(found: RecordRow, statement: &str, own: &[RecordKey]) -> Option<(Record, RecordRow)> {
    let is_wanted = |record: &Record| {
        !record.undoing && record.statement == statement && !record.is_one_of(own) && record.stands_on(own)
    };
    let record = Record::from_text(found.text.as_deref()?)?.find(&is_wanted)?;
    (found.trusted && found.may).then_some((record, found))
}

/// Returns the WARNING that a session that may not change the table holds the lock of the record.
pub(super) fn kept_off(record: &Record) -> Report {
    not_continued(record, "a session whose role has no rights on the table holds the advisory lock of its record")
        .hint("Find that session in pg_locks (locktype advisory), end it, and send the statement again.")
}

/// Returns the WARNING that a statement is not continued, with the reason.
fn not_continued(record: &Record, reason: &str) -> Report {
    let message = format!("not continuing this statement as begun at {}: {reason}", record.since);
    Report::warning(sqlstate::WARNING, message)
}
