//! The backend's answers to the proxy's own statements.
//!
//! [`Answer`] owns the answers to one batch: rows as text, an error, and the messages that are for the client. It keeps true: each frame is read
//! once. The messages for the client stay byte for byte as the server sent them.

use crate::wire::error_response::ServerError;
use crate::wire::frame::HEADER_LEN;
use bytes::BytesMut;
use std::time::Duration;

/// The answers to a batch of statements.
#[derive(Debug, Default)]
pub struct Answer {
    /// The rows of all statements, values as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// The number of statements that were parsed.
    pub parsed: usize,
    /// The number of statements that were completed.
    pub done: usize,
    /// The number of rows that the batch has updated.
    pub updated: u64,
    /// The time that the batch took, from when the backend was free for it to the end of the answer.
    pub took: Duration,
    /// The error of the statement after the completed ones.
    pub error: Option<ServerError>,
    /// NoticeResponse messages of the visible statement, as they came, that have not gone to the client yet (`backend/notices.rs`).
    pub notices: BytesMut,
    /// When these notices go to the client.
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

/// The number of rows that an UPDATE has changed, as CommandComplete says.
pub(super) fn updated(frame: &[u8]) -> u64 {
    let tag = frame.get(HEADER_LEN..).and_then(|body| body.strip_suffix(b"\0"));
    let rows = tag.and_then(|tag| std::str::from_utf8(tag).ok()?.strip_prefix("UPDATE ")?.parse().ok());
    rows.unwrap_or_default()
}

/// The values of a DataRow, each read by `read`. NULL is `None`.
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
