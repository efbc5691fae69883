//! The entries of a journal: the client's messages, one behind the other in one buffer.
//!
//! The file owns the form of an entry: its kind, the length of its body in four bytes, the body. It keeps true: what [`put`] writes, [`entries`]
//! reads.

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// The text of a Query, or of a piece of a string.
    Query,
    Parse,
    Bind,
    Execute,
    Close,
    /// The Execute of a BEGIN whose Parse came before the journal. The body is the statement's name, NUL, and the text.
    Begin,
    /// A statement that the proxy ran. It is kept beside the buffer.
    Acted,
}

/// The bytes of an entry beside its body.
const HEAD: usize = 5;

/// How many bytes an entry takes.
#[inline]
pub(super) fn size(body: &[u8]) -> usize {
    HEAD + body.len()
}

#[inline]
pub(super) fn put(out: &mut Vec<u8>, kind: EntryKind, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[kind as u8, length[0], length[1], length[2], length[3]]);
    out.extend_from_slice(body);
}

/// The entries of a buffer, from the first to the last.
pub(super) fn entries(mut buffer: &[u8]) -> impl Iterator<Item = (EntryKind, &[u8])> {
    std::iter::from_fn(move || {
        let ([kind, length @ ..], rest) = buffer.split_first_chunk::<HEAD>()?;
        let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        buffer = rest;
        Some((kind_of(*kind)?, body))
    })
}

fn kind_of(byte: u8) -> Option<EntryKind> {
    use EntryKind::*;
    [Query, Parse, Bind, Execute, Close, Begin, Acted].into_iter().find(|kind| *kind as u8 == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        let all = [
            (EntryKind::Begin, &b"s\0BEGIN"[..]),
            (EntryKind::Query, b"SELECT 1"),
            (EntryKind::Parse, b"\0\0\0\0"),
            (EntryKind::Bind, b""),
            (EntryKind::Execute, &[0; 300]),
            (EntryKind::Close, b"Sx\0"),
            (EntryKind::Acted, b""),
        ];
        let mut buffer = Vec::new();
        for (kind, body) in all {
            let before = buffer.len();
            put(&mut buffer, kind, body);
            assert_eq!(buffer.len(), before + size(body));
        }
        assert_eq!(entries(&buffer).collect::<Vec<_>>(), all);
    }
}
