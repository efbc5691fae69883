//! The five-byte header of every message after the startup packet.
//!
//! Invariant: a header is accepted exactly if PostgreSQL would accept its length (`pq_getmessage`,
//! `PQ_LARGE_MESSAGE_LIMIT`): a signed 32-bit number of 4 or more. So the proxy and the server always agree where one
//! message ends and the next one begins.

use std::fmt;

/// Tag and length.
pub const HEADER_LEN: usize = 5;

/// PostgreSQL's limit for the messages of a frontend: `MaxAllocSize - 1` (`libpq/libpq.h`), the length word included.
pub const FRONTEND_LIMIT: u32 = 0x3fff_fffe;

/// Only the signed length word bounds a backend's messages.
pub const BACKEND_LIMIT: u32 = 0x7fff_ffff;

/// A header that was read and is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Bytes after the header.
    pub body: u32,
}

/// A length that PostgreSQL refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame {
    pub tag: u8,
    pub length: i32,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid message length {} for message type \"{}\"", self.length, self.tag.escape_ascii())
    }
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if it is not all there yet.
    ///
    /// # Errors
    /// The length is below 4 or above `limit`.
    pub fn read(bytes: &[u8], limit: u32) -> Result<Option<Self>, BadFrame> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes([a, b, c, d]);
        match u32::try_from(length) {
            Ok(length) if (4..=limit).contains(&length) => Ok(Some(Self { tag, body: length - 4 })),
            _ => Err(BadFrame { tag, length }),
        }
    }

    /// Header and body, in bytes.
    pub fn total(self) -> usize {
        HEADER_LEN + self.body as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tag: u8, length: i32) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(length.to_be_bytes());
        bytes
    }

    #[test]
    fn lengths_are_checked_as_postgresql_does() {
        for (length, good) in [
            (4, true),
            (5, true),
            (3, false),
            (0, false),
            (-1, false),
            (i32::MIN, false),
            (i32::MAX, false),
            (0x3fff_fffe, true),
            (0x3fff_ffff, false),
        ] {
            assert_eq!(Header::read(&header(b'Q', length), FRONTEND_LIMIT).is_ok(), good, "{length}");
        }
        assert!(Header::read(&header(b'D', i32::MAX), BACKEND_LIMIT).is_ok());
    }

    #[test]
    fn a_part_of_a_header_is_no_header_yet() {
        let whole = header(b'S', 4);
        for n in 0..HEADER_LEN {
            assert_eq!(Header::read(&whole[..n], FRONTEND_LIMIT), Ok(None));
        }
        assert_eq!(Header::read(&whole, FRONTEND_LIMIT), Ok(Some(Header { tag: b'S', body: 0 })));
    }
}
