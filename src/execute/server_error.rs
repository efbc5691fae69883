//! The server's errors: what an error means for a run, and how the client gets the error of a step that the proxy has added.
//!
//! The functions are pure. They keep true that the client gets the error that its own statement would have got.

use crate::pg::sqlstate;
use crate::plan::{BoundsOf, Renamed};
use crate::wire::error_response::ServerError;
use std::time::Duration;

/// The share of a timeout after which an error counts as that timeout. The proxy's measurement may be shorter than the server's by the
/// rest.
const TIMEOUT_SHARE: f64 = 0.8;

/// Whether the error says that a lock was not available: 55P03, by NOWAIT or by `lock_timeout`, or a deadlock, whose victim may try again.
pub(super) fn is_lock_failure(error: &ServerError) -> bool {
    matches!(error.sqlstate(), sqlstate::LOCK_NOT_AVAILABLE | sqlstate::DEADLOCK_DETECTED)
}

/// The outcome of a lock attempt, as it is counted.
pub(super) fn attempt_word(error: Option<&ServerError>) -> &'static str {
    match error {
        None => "done",
        Some(error) if is_lock_failure(error) => "locked",
        Some(_) => "failed",
    }
}

/// Whether the error is the server's `statement_timeout`, and not an error that a function has raised with the same SQLSTATE. `limit` is
/// the timeout: if the message is in another language (`lc_messages`), only the time that the statement took tells a timeout from a cancel.
pub(super) fn is_statement_timeout(error: &ServerError, took: Duration, limit: Duration) -> bool {
    let message = error.message();
    error.sqlstate() == sqlstate::QUERY_CANCELED
        && error.field(b'R') == Some("ProcessInterrupts")
        && (message.contains("statement timeout")
            || (!message.contains("user request") && took >= limit.mul_f64(TIMEOUT_SHARE)))
}

/// Returns the error of a step that uses a name of the proxy's, with the name that the author of the statement wrote.
pub(super) fn with_name(error: &ServerError, renamed: &Renamed) -> ServerError {
    let renamed_field = |code: u8| Some((code, error.field(code)?.replace(&renamed.from, &renamed.to)));
    let fields: Vec<(u8, String)> = b"MDHWn".iter().filter_map(|code| renamed_field(*code)).collect();
    let fields: Vec<(u8, &str)> = fields.iter().map(|(code, text)| (*code, text.as_str())).collect();
    ServerError::new(error.restated(&fields, b""))
}

/// Returns the violation of a CHECK that stands for NOT NULL as the error that SET NOT NULL would have raised. The relation is the one in
/// which the server found the row, which may be a child table. Its name is in the client's encoding.
pub(super) fn contains_nulls(error: &ServerError, column: &str, version: i32) -> ServerError {
    let relation = error.bytes_of(b't').unwrap_or_default();
    // Before 13 the message does not name the relation.
    let relation = if version < 130_000 { Vec::new() } else { [b" of relation \"", relation, b"\""].concat() };
    let column = column.as_bytes();
    let message = [b"column \"", column, b"\"", &relation, b" contains null values"].concat();
    let fields = [(b'C', sqlstate::NOT_NULL_VIOLATION.as_bytes()), (b'M', message.as_slice()), (b'c', column)];
    ServerError::new(error.restated(&fields, b"nDHP"))
}

/// Returns the violation of a CHECK that stands for a partition's bounds as the error that ATTACH PARTITION would have raised.
pub(super) fn outside_bounds(error: &ServerError, of: BoundsOf, version: i32) -> ServerError {
    let relation = error.bytes_of(b't').unwrap_or_default();
    let (before, behind): (&str, &str) = match (of, version < 130_000) {
        (BoundsOf::Partition, true) => ("partition constraint is violated by some row", ""),
        (BoundsOf::Partition, false) => ("partition constraint of relation \"", "\" is violated by some row"),
        (BoundsOf::Default, true) => {
            ("updated partition constraint for default partition would be violated by some row", "")
        }
        (BoundsOf::Default, false) | (BoundsOf::DefaultBesideNew, _) => {
            ("updated partition constraint for default partition \"", "\" would be violated by some row")
        }
    };
    let relation = if behind.is_empty() { &[] } else { relation };
    let message = [before.as_bytes(), relation, behind.as_bytes()].concat();
    // Before 13 the message does not name the relation.
    let dropped: &[u8] = if version < 130_000 { b"nDHPst" } else { b"nDHP" };
    ServerError::new(error.restated(&[(b'M', message)], dropped))
}
