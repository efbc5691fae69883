//! Reads an ErrorResponse or NoticeResponse of the server, and corrects its position.
//!
//! Invariant: every field is optional. An odd body gives empty fields.

use super::message::put_frame;
use bytes::{BufMut, Bytes, BytesMut};

/// An ErrorResponse, kept as it came.
#[derive(Debug, Clone)]
pub struct ServerError {
    /// The whole frame.
    pub frame: Bytes,
}

impl ServerError {
    pub fn new(frame: Bytes) -> Self {
        Self { frame }
    }

    fn fields(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.frame
            .get(super::frame::HEADER_LEN..)
            .unwrap_or_default()
            .split(|b| *b == 0)
            .filter_map(|field| field.split_first().map(|(code, text)| (*code, text)))
    }

    pub fn field(&self, code: u8) -> Option<&str> {
        self.bytes_of(code).and_then(|text| std::str::from_utf8(text).ok())
    }

    /// The field's bytes, in the client's encoding.
    pub fn bytes_of(&self, code: u8) -> Option<&[u8]> {
        self.fields().find(|(c, _)| *c == code).map(|(_, text)| text)
    }

    /// Empty if the server gave none.
    pub fn sqlstate(&self) -> &str {
        self.field(b'C').unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.field(b'M').unwrap_or_default()
    }

    /// The severity is FATAL or PANIC: the backend has ended.
    pub fn is_fatal(&self) -> bool {
        matches!(self.field(b'V').or_else(|| self.field(b'S')), Some("FATAL" | "PANIC"))
    }

    /// The frame with the given values for `fields`, which are added if they are missing, and without the fields of
    /// `dropped`.
    pub fn restated<T: AsRef<[u8]>>(&self, fields: &[(u8, T)], dropped: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        let kept =
            self.fields().filter(|(code, _)| !dropped.contains(code) && fields.iter().all(|(other, _)| other != code));
        put_frame(&mut out, b'E', |b| {
            for (code, text) in kept.chain(fields.iter().map(|(code, text)| (*code, text.as_ref()))) {
                b.put_u8(code);
                b.put_slice(text);
                b.put_u8(0);
            }
            b.put_u8(0);
        });
        out.freeze()
    }

    /// The frame with `hint`, unless the frame has a hint already.
    pub fn with_hint(&self, hint: &str) -> Bytes {
        match self.field(b'H') {
            Some(_) => self.frame.clone(),
            None => self.restated(&[(b'H', hint)], b""),
        }
    }

    /// The frame with its position (field `P`, characters from 1) mapped by `map`. The position is left out if `map` returns
    /// `None`.
    pub fn with_position(&self, map: impl Fn(usize) -> Option<usize>) -> Bytes {
        let Some(tag) = self.frame.first().copied() else { return self.frame.clone() };
        if self.field(b'P').is_none() {
            return self.frame.clone();
        }
        let mut out = BytesMut::with_capacity(self.frame.len() + 8);
        put_frame(&mut out, tag, |b| {
            for (code, text) in self.fields() {
                let moved = (code == b'P').then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten().map(&map);
                match moved {
                    Some(None) => continue,
                    Some(Some(position)) => {
                        b.put_u8(code);
                        b.put_slice(position.to_string().as_bytes());
                    }
                    None => {
                        b.put_u8(code);
                        b.put_slice(text);
                    }
                }
                b.put_u8(0);
            }
            b.put_u8(0);
        });
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(fields: &[&str]) -> ServerError {
        let mut out = BytesMut::new();
        put_frame(&mut out, b'E', |b| {
            for field in fields {
                b.put_slice(field.as_bytes());
                b.put_u8(0);
            }
            b.put_u8(0);
        });
        ServerError::new(out.freeze())
    }

    #[test]
    fn fields_and_positions() {
        let e = error(&["SERROR", "VERROR", "C42601", "Msyntax error", "P12"]);
        assert_eq!((e.sqlstate(), e.message(), e.is_fatal()), ("42601", "syntax error", false));
        let moved = ServerError::new(e.with_position(|p| Some(p + 10)));
        assert_eq!(moved.field(b'P'), Some("22"));
        assert_eq!(moved.sqlstate(), "42601");
        let gone = ServerError::new(e.with_position(|_| None));
        assert_eq!(gone.field(b'P'), None);
        let hinted = ServerError::new(e.with_hint("try this"));
        assert_eq!((hinted.field(b'H'), hinted.field(b'P')), (Some("try this"), Some("12")));
        assert_eq!(hinted.with_hint("another"), hinted.frame);
        assert_eq!(error(&[]).sqlstate(), "");
        assert_eq!(ServerError::new(Bytes::new()).message(), "");
    }
}
