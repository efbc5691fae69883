//! The frontend messages that the proxy opens, and the messages that the proxy itself sends to the backend.
//!
//! The file owns [`Batch`], a series of the proxy's own messages. The proxy's prepared statement and portal have a name of
//! their own; the unnamed ones are the client's.

use super::frame::{FRONTEND_LIMIT, HEADER_LEN, Header};
use super::speech::Speech;
use bytes::{BufMut, BytesMut};

/// A NUL-terminated string at the start of `body`, and the bytes behind it.
fn cstr(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().position(|b| *b == 0)?;
    Some((&body[..end], &body[end + 1..]))
}

// A body with extra bytes behind its last field gives `None`: the server refuses such a message, too.

/// Query: its text.
pub fn query(body: &[u8]) -> Option<&[u8]> {
    cstr(body).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| text)
}

/// Parse: the statement's name and its text.
pub fn parse(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(body)?;
    let (text, rest) = cstr(rest)?;
    let (count, types) = rest.split_first_chunk::<2>()?;
    (types.len() == 4 * usize::from(u16::from_be_bytes(*count))).then_some((name, text))
}

/// Bind: the portal's name and the statement's.
pub fn bind(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (portal, rest) = cstr(body)?;
    Some((portal, cstr(rest)?.0))
}

/// Parse: the types of its parameters, which stand behind the text.
pub fn parameter_types(body: &[u8]) -> Option<&[u8]> {
    let (name, text) = parse(body)?;
    body.get(name.len() + text.len() + 2..)
}

/// Bind: the formats of the parameters, and their values.
pub fn bind_parameters(body: &[u8]) -> Option<&[u8]> {
    let parameters = cstr(cstr(body)?.1)?.1;
    let (formats, rest) = parameters.split_first_chunk::<2>()?;
    let rest = rest.get(2 * usize::from(u16::from_be_bytes(*formats))..)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, value) = rest.split_first_chunk::<4>()?;
        // NULL has the length -1, and no value.
        rest = value.get(usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default()..)?;
    }
    parameters.get(..parameters.len() - rest.len())
}

/// Execute: the portal's name.
pub fn execute(body: &[u8]) -> Option<&[u8]> {
    cstr(body).filter(|(_, rows)| rows.len() == 4).map(|(portal, _)| portal)
}

/// Close or Describe: `S` or `P`, and the name.
pub fn close(body: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = body.split_first()?;
    Some((*kind, cstr(rest)?.0))
}

/// Messages on their way to the backend.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: BytesMut,
    /// The number of statements that the batch executes.
    pub statements: usize,
    /// A statement or a parameter is not pure ASCII.
    beyond_ascii: bool,
}

/// The name of the proxy's own prepared statement and of its portal. The proxy never uses the unnamed ones, which are the
/// client's.
const OWN: &[u8] = b"pgsluice proxy\0";

impl Batch {
    pub fn new() -> Self {
        let mut batch = Self::default();
        // An error may have left the statement and the portal of an earlier batch. To close one that does not exist is no
        // error.
        batch.close_own();
        batch
    }

    /// Ends the client's unnamed statement and portal, as the start of a simple Query does.
    pub fn end_unnamed() -> BytesMut {
        let mut bytes = BytesMut::new();
        for kind in *b"SP" {
            put_frame(&mut bytes, b'C', |b| b.put_slice(&[kind, 0]));
        }
        bytes
    }

    /// A batch in place of the portal's Execute, behind the messages that the client has sent of its pipeline.
    pub fn behind(portal: &str) -> Self {
        let mut batch = Self::new();
        batch.close_portal(portal);
        batch
    }

    fn frame(&mut self, tag: u8, fill: impl FnOnce(&mut BytesMut)) {
        put_frame(&mut self.bytes, tag, fill);
    }

    fn close_own(&mut self) {
        for kind in *b"PS" {
            self.frame(b'C', |b| {
                b.put_u8(kind);
                b.put_slice(OWN);
            });
        }
    }

    /// Closes one of the client's portals.
    pub fn close_portal(&mut self, portal: &str) {
        self.frame(b'C', |b| {
            b.put_u8(b'P');
            b.put_slice(portal.as_bytes());
            b.put_u8(0);
        });
    }

    /// One statement with text parameters, executed to its end.
    pub fn statement(&mut self, sql: &str, parameters: &[&str]) {
        self.statements += 1;
        self.beyond_ascii |= !sql.is_ascii() || !parameters.iter().all(|value| value.is_ascii());
        self.parse_and_bind(sql.as_bytes(), parameters.iter().map(|value| value.as_bytes()));
        self.frame(b'E', |b| {
            b.put_slice(OWN);
            b.put_u32(0);
        });
        self.close_own();
    }

    fn parse_and_bind<'a>(&mut self, sql: &[u8], parameters: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.frame(b'P', |b| {
            b.put_slice(OWN);
            b.put_slice(sql);
            b.put_slice(&[0, 0, 0]);
        });
        self.frame(b'B', |b| {
            b.put_slice(OWN);
            b.put_slice(OWN);
            b.put_slice(&[0, 0]);
            b.put_u16(u16::try_from(parameters.len()).unwrap_or(u16::MAX));
            for value in parameters {
                b.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
                b.put_slice(value);
            }
            b.put_slice(&[0, 0]);
        });
    }

    /// The bytes of the batch in the session's encodings. If a statement names something that these encodings cannot
    /// express, a statement that fails stands in its place, since the server's reading of the name would be unknown.
    pub fn said(self, speech: &Speech) -> BytesMut {
        if !self.beyond_ascii {
            return self.bytes;
        }
        let mut out = Self::default();
        let mut rest = &self.bytes[..];
        while let Ok(Some(header)) = Header::read(rest, FRONTEND_LIMIT)
            && let Some((frame, behind)) = rest.split_at_checked(header.total())
        {
            rest = behind;
            if header.tag != b'P' {
                out.bytes.put_slice(frame);
                continue;
            }
            // The Bind of the statement follows.
            let Ok(Some(bind)) = Header::read(rest, FRONTEND_LIMIT) else { break };
            let Some((bind, behind)) = rest.split_at_checked(bind.total()) else { break };
            rest = behind;
            let (sql, values) = (text_of(frame), values_of(bind));
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            match speech.say_with(&sql, &values) {
                Some((sql, values)) => out.parse_and_bind(&sql, values.iter().map(|value| &value[..])),
                None => out.parse_and_bind(UNSAYABLE, std::iter::empty()),
            }
        }
        out.bytes
    }

    /// One statement with a client's parameters, as [`parameter_types`] and [`bind_parameters`] return them. All of its rows
    /// are text. `sql` is in the client's encoding. A batch with such a statement has ASCII alone in all others.
    pub fn statement_with(&mut self, sql: impl AsRef<[u8]>, types: &[u8], parameters: &[u8]) {
        self.begin(sql.as_ref(), types, parameters);
        self.end();
    }

    /// One statement without parameters. Its rows are described before they come.
    pub fn described(&mut self, sql: &str) {
        self.begin(sql.as_bytes(), &[0, 0], &[0; 4]);
        self.frame(b'D', |b| {
            b.put_u8(b'P');
            b.put_slice(OWN);
        });
        self.end();
    }

    fn begin(&mut self, sql: &[u8], types: &[u8], parameters: &[u8]) {
        self.statements += 1;
        self.frame(b'P', |b| {
            b.put_slice(OWN);
            b.put_slice(sql);
            b.put_u8(0);
            b.put_slice(types);
        });
        self.frame(b'B', |b| {
            b.put_slice(OWN);
            b.put_slice(OWN);
            b.put_slice(parameters);
            b.put_slice(&[0, 0]);
        });
    }

    fn end(&mut self) {
        self.frame(b'E', |b| {
            b.put_slice(OWN);
            b.put_u32(0);
        });
        self.close_own();
    }

    /// One statement that is parsed and not executed.
    pub fn parse(&mut self, sql: &str) {
        self.frame(b'P', |b| {
            b.put_slice(OWN);
            b.put_slice(sql.as_bytes());
            b.put_slice(&[0, 0, 0]);
        });
        self.close_own();
    }

    /// A client's own Bind (its body) and Execute (its frame).
    pub fn bound(&mut self, bind: &[u8], execute: &[u8]) {
        self.statements += 1;
        self.frame(b'B', |b| b.put_slice(bind));
        self.bytes.put_slice(execute);
    }

    /// Begins work that can be rolled back. If `inside` says that the client has a transaction, it sets the proxy's
    /// savepoint there; otherwise it begins a transaction.
    pub fn begin_or_savepoint(&mut self, inside: bool) {
        if inside { self.savepoint() } else { self.statement("BEGIN", &[]) }
    }

    pub fn savepoint(&mut self) {
        self.statement("SAVEPOINT pgsluice", &[]);
    }

    pub fn release_savepoint(&mut self) {
        self.statement("RELEASE SAVEPOINT pgsluice", &[]);
    }

    /// Restores the transaction to its state at the savepoint. The savepoint stays.
    pub fn roll_back_to_savepoint(&mut self) {
        self.statement("ROLLBACK TO SAVEPOINT pgsluice", &[]);
    }

    /// Restores the transaction to its state at the savepoint, and ends the savepoint.
    pub fn undo_savepoint(&mut self) {
        self.roll_back_to_savepoint();
        self.release_savepoint();
    }

    /// Makes the server answer the messages so far before those that follow.
    pub fn flush(mut self) -> Self {
        self.bytes.put_slice(&FLUSH);
        self
    }

    pub fn sync(mut self) -> Self {
        self.frame(b'S', |_| ());
        self
    }
}

/// Stands in place of a statement that the session's encodings cannot express.
const UNSAYABLE: &[u8] = b"SELECT \"pgsluice: a name that the encodings of this session have no words for\"";

/// The statement of one of the proxy's own Parse messages.
fn text_of(parse: &[u8]) -> String {
    let text = parse.get(HEADER_LEN + OWN.len()..parse.len().saturating_sub(3)).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The values of one of the proxy's own Bind messages.
fn values_of(bind: &[u8]) -> Vec<String> {
    // Behind the two names stand the number of formats, which is 0, and the number of values.
    let mut rest = bind.get(HEADER_LEN + 2 * OWN.len() + 4..).unwrap_or_default();
    let mut values = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let Some((value, behind)) = behind.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = behind;
    }
    values
}

/// Appends one frame.
pub fn put_frame(out: &mut BytesMut, tag: u8, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    fill(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A simple Query.
pub fn put_query(out: &mut BytesMut, sql: &[u8]) {
    put_frame(out, b'Q', |b| {
        b.put_slice(sql);
        b.put_u8(0);
    });
}

/// A Flush message.
pub const FLUSH: [u8; 5] = [b'H', 0, 0, 0, 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_bodies_are_none() {
        assert_eq!(query(b"select 1"), None);
        assert_eq!(parse(b"name\0select"), None);
        assert_eq!(bind(b""), None);
        assert_eq!(close(b""), None);
        assert_eq!(close(b"Sabc"), None);
        assert_eq!(parse(b"n\0q\0\0\0"), Some((&b"n"[..], &b"q"[..])));
        assert_eq!(parse(b"n\0q\0\0\x01\0\0\0\x17"), Some((&b"n"[..], &b"q"[..])));
        assert_eq!(execute(b"p\0\0\0\0\0"), Some(&b"p"[..]));
    }

    #[test]
    fn parameters_are_found() {
        assert_eq!(parameter_types(b"n\0q\0\0\x01\0\0\0\x17"), Some(&b"\0\x01\0\0\0\x17"[..]));
        let two = b"\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x02ab";
        let body = [b"p\0s\0", &two[..], b"\0\0"].concat();
        assert_eq!(bind_parameters(&body), Some(&two[..]));
        assert_eq!(bind_parameters(&body[..body.len() - 4]), None);
        assert_eq!(bind_parameters(b"p\0s\0\0"), None);
    }

    #[test]
    fn what_the_server_refuses_is_none() {
        assert_eq!(query(b"select 1\0select 2\0"), None);
        assert_eq!(parse(b"n\0q\0\0\x01"), None);
        assert_eq!(parse(b"n\0q\0\0\0x"), None);
        assert_eq!(execute(b"p\0\0\0\0"), None);
        assert_eq!(execute(b"p\0\0\0\0\0x"), None);
    }
}
