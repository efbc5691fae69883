//! What the backend has answered to the proxy's own statements.
//!
//! It owns an answer while it is read: rows as text, the statement's error, and the messages that are the client's. It keeps true that a frame
//! is looked at once, and that messages for the client stay byte for byte as the server sent them.

use crate::wire::error_response::ServerError;
use crate::wire::frame::HEADER_LEN;
use bytes::BytesMut;
use std::time::Duration;

/// What a batch of statements brought.
#[derive(Debug, Default)]
pub struct Answer {
    /// The rows of all statements, values as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Statements that were parsed, and that were completed.
    pub parsed: usize,
    pub done: usize,
    /// Rows that the statements have updated.
    pub updated: u64,
    /// From when the backend was free for it to when it had answered.
    pub took: Duration,
    /// What the next one failed with.
    pub error: Option<ServerError>,
    /// NoticeResponse messages of the visible statement, as they came, that have not gone to the client yet (`backend/heard.rs`).
    pub notices: BytesMut,
    pub(super) held_until: Option<tokio::time::Instant>,
    /// CommandComplete of the visible statement, as it came.
    pub completion: BytesMut,
}

impl Answer {
    /// The first value of the first row.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// # Errors
    /// The server's error, if there was one.
    pub fn ok(self) -> Result<Self, ServerError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

/// The rows that CommandComplete says an UPDATE has changed.
pub(super) fn updated(frame: &[u8]) -> u64 {
    let tag = frame.get(HEADER_LEN..).and_then(|body| body.strip_suffix(b"\0"));
    let rows = tag.and_then(|tag| std::str::from_utf8(tag).ok()?.strip_prefix("UPDATE ")?.parse().ok());
    rows.unwrap_or_default()
}

/// DataRow's values, as `read` has them; NULL is `None`.
pub fn data_row(body: &[u8], read: impl Fn(&[u8]) -> String) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                row.push(Some(read(tail.get(..length)?)));
                rest = &tail[length..];
            }
            Err(_) => {
                row.push(None);
                rest = tail;
            }
        }
    }
    Some(row)
}
