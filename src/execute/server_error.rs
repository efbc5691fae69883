//! Errors of the server's: what they mean for a run, and how the client is told of one that a step of the proxy's met.
//!
//! Pure. It keeps true that the client gets the error which its own statement would have got.

use crate::pg::sqlstate;
use crate::plan::{BoundsOf, Renamed};
use crate::wire::error_response::ServerError;
use std::time::Duration;

/// The server's clock and ours may differ by so much of a timeout.
const TIMEOUT_SHARE: f64 = 0.8;

/// 55P03, by NOWAIT or by `lock_timeout`; and the victim of a deadlock, which may try again.
pub(super) fn is_lock_failure(error: &ServerError) -> bool {
    matches!(error.sqlstate(), sqlstate::LOCK_NOT_AVAILABLE | sqlstate::DEADLOCK_DETECTED)
}

/// The server's own word for it, not one of a function's. `limit`: the timeout, as in another language (`lc_messages`) only the time that it
/// took tells a timeout from a cancel.
pub(super) fn is_statement_timeout(error: &ServerError, took: Duration, limit: Duration) -> bool {
    let message = error.message();
    error.sqlstate() == sqlstate::QUERY_CANCELED
        && error.field(b'R') == Some("ProcessInterrupts")
        && (message.contains("statement timeout")
            || (!message.contains("user request") && took >= limit.mul_f64(TIMEOUT_SHARE)))
}

/// The error of what has a name of the proxy's, with its author's.
pub(super) fn with_name(error: &ServerError, renamed: &Renamed) -> ServerError {
    let told = |code: u8| Some((code, error.field(code)?.replace(&renamed.from, &renamed.to)));
    let fields: Vec<(u8, String)> = b"MDHWn".iter().filter_map(|code| told(*code)).collect();
    let fields: Vec<(u8, &str)> = fields.iter().map(|(code, text)| (*code, text.as_str())).collect();
    ServerError::new(error.restated(&fields, b""))
}

/// The violation of a check that stands for NOT NULL, as SET NOT NULL would have told it. The relation is the one
/// that the server found it in: a child, maybe. Its name is in the client's encoding.
pub(super) fn contains_nulls(error: &ServerError, column: &str, version: i32) -> ServerError {
    let relation = error.bytes_of(b't').unwrap_or_default();
    // Before 13 without the relation's name.
    let relation = if version < 130_000 { Vec::new() } else { [b" of relation \"", relation, b"\""].concat() };
    let column = column.as_bytes();
    let message = [b"column \"", column, b"\"", &relation, b" contains null values"].concat();
    let fields = [(b'C', sqlstate::NOT_NULL_VIOLATION.as_bytes()), (b'M', message.as_slice()), (b'c', column)];
    ServerError::new(error.restated(&fields, b"nDHP"))
}

/// The violation of a check that stands for a partition's bounds, as ATTACH PARTITION would have told it.
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
    // Before 13 without the relation's name.
    let dropped: &[u8] = if version < 130_000 { b"nDHPst" } else { b"nDHP" };
    ServerError::new(error.restated(&[(b'M', message)], dropped))
}
