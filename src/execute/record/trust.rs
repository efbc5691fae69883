//! Whose record is followed, and what is said of one that is not.
//!
//! The comment is the table owner's to write, and what it says becomes SQL. So it is followed only where nobody can have written it but such
//! as have the rights of who has logged in anyway (`catalog/record.sql`); and it is written only where it may be followed, so that what is
//! left elsewhere is undone instead, or named. What it says of indexes holds only of indexes of the plan's own tables.
//!
//! The lock of who works on it is an advisory lock, which anybody can take: a session whose role may not change the table has none.

use crate::catalog::record::RecordRow;
use crate::execute::record::Record;
use crate::pg::sqlstate;
use crate::report::Report;

/// What is on record of this statement, and may not be followed, would end in a refusal that nobody understands; or, with IF NOT
/// EXISTS, in nothing at all.
pub(super) fn not_followed(found: &RecordRow, statement: &str) -> Option<Report> {
    let record =
        Record::from_text(found.text.as_deref()?).filter(|record| record.statement == statement && !record.undoing)?;
    let (reason, hint) = match (found.trusted, found.may) {
        (true, true) => return None,
        (false, _) => (
            "others than the role that has logged in may have written that down",
            format!("Log in as {}, and send it again.", found.owner),
        ),
        (true, false) => (
            "its record could not be kept up to date",
            "Send it as the table's owner, where no event trigger hears of COMMENT.".to_owned(),
        ),
    };
    Some(not_continued(&record, reason).hint(hint))
}

/// The record, if it is of this statement, and may be followed.
pub(super) fn followed(found: RecordRow, statement: &str) -> Option<(Record, RecordRow)> {
    let record = Record::from_text(found.text.as_deref()?)?;
    (found.trusted && found.may && !record.undoing && record.statement == statement).then_some((record, found))
}

/// Its lock is held by somebody who can have nothing to do with it.
pub(super) fn kept_off(record: &Record) -> Report {
    not_continued(record, "a session whose role has no rights on the table holds the advisory lock of who works on it")
        .hint("Look for it in pg_locks (locktype advisory), end it, and send the statement again.")
}

fn not_continued(record: &Record, reason: &str) -> Report {
    let message = format!("what this statement had begun at {} is not continued: {reason}", record.since);
    Report::warning(sqlstate::WARNING, message)
}
