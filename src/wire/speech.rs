//! The encodings of a session: how the proxy sends a name so that the name keeps its meaning.
//!
//! The server reads text in `client_encoding` and converts it to `server_encoding`. If both are UTF-8, or nothing is
//! converted, a name is sent as its bytes. Otherwise the proxy's own SQL is ASCII. Where the server surely knows the other
//! characters of a name by their numbers (`U&"caf\00E9"`), the proxy writes these numbers. Elsewhere the proxy does not send
//! the name at all. Some bytes of the client's text belong to an encoding that the proxy cannot read. A `String` holds such
//! bytes as characters of private use, of two kinds: one for a byte that begins a character, one for a byte that continues
//! it. They go back to the server as the bytes that came.
//!
//! Invariants: a name that cannot be expressed is not sent ([`Speech::say`] returns `None`). A text that could not be read
//! contains U+FFFD and is never sent.

mod escape;
#[cfg(test)]
mod tests;

use escape::escaped;
use std::borrow::Cow;

/// How an encoding makes characters of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Utf8,
    /// SQL_ASCII: the server converts nothing.
    Unconverted,
    /// One byte is one character, and each byte is a Unicode character of its own.
    Single,
    /// Each character that is not ASCII has two bytes. The second byte may look like ASCII.
    Pairs,
    Sjis,
    Gb18030,
    EucJp,
    EucTw,
    /// MULE_INTERNAL and every unknown encoding.
    Other,
}

impl Charset {
    fn named(name: &str) -> Self {
        match name {
            "UTF8" | "UNICODE" => Self::Utf8,
            "SQL_ASCII" => Self::Unconverted,
            "EUC_CN" | "EUC_KR" | "BIG5" | "GBK" | "UHC" | "JOHAB" => Self::Pairs,
            "SJIS" | "SHIFT_JIS_2004" => Self::Sjis,
            "GB18030" => Self::Gb18030,
            "EUC_JP" | "EUC_JIS_2004" => Self::EucJp,
            "EUC_TW" => Self::EucTw,
            _ if ["LATIN", "ISO_8859_", "WIN", "KOI8"].iter().any(|family| name.starts_with(family)) => Self::Single,
            _ => Self::Other,
        }
    }

    /// The number of bytes of the character that begins with `first`, which is not ASCII.
    fn width(self, first: u8, second: Option<&u8>) -> usize {
        match (self, first) {
            (Self::Utf8, 0xC0..=0xDF) | (Self::Pairs | Self::Gb18030, _) => match second {
                Some(b'0'..=b'9') if self == Self::Gb18030 => 4,
                _ => 2,
            },
            (Self::Utf8, 0xE0..=0xEF) | (Self::EucJp, 0x8F) => 3,
            (Self::Utf8, 0xF0..=0xFF) | (Self::EucTw, 0x8E) => 4,
            (Self::EucJp | Self::EucTw, _) => 2,
            (Self::Sjis, first) if !(0xA1..=0xDF).contains(&first) => 2,
            _ => 1,
        }
    }
}

/// Which names the session's encodings can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sayable {
    /// Every name, by its own characters.
    All,
    /// Every name, by the numbers of its characters.
    Escaped,
    Ascii,
}

/// The bytes of a statement and of its parameters.
pub type Said<'s> = (Cow<'s, [u8]>, Vec<Cow<'s, [u8]>>);

/// The encodings of a session, as the server has reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speech {
    client: Charset,
    server: Charset,
    conforming: bool,
    /// The server's major version.
    major: u8,
    /// Counts the reports. Two values are equal only if nothing has changed between them.
    changes: u16,
}

impl Default for Speech {
    /// The encodings of a server that reports nothing.
    fn default() -> Self {
        Self { client: Charset::Utf8, server: Charset::Utf8, conforming: true, major: 0, changes: 0 }
    }
}

/// The bases of the characters that stand for a client's bytes: one for a byte that begins a character, one for a byte that
/// continues it. These are the last characters of Unicode, which no text contains.
const RAW: [u32; 2] = [0x10_FF00, 0x10_FE00];

/// The byte that a character of private use stands for.
fn raw(c: char) -> Option<u8> {
    let code = u32::from(c);
    RAW.iter().find(|base| code & !0xFF == **base).map(|_| (code & 0xFF) as u8)
}

/// Whether the character stands for a byte that only continues a character. The server does not count such a byte as a
/// character.
pub fn goes_on(c: char) -> bool {
    u32::from(c) & !0xFF == RAW[1]
}

/// The text as people may read it.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !goes_on(*c)).map(|c| if raw(c).is_some() { '?' } else { c }).collect()
}

impl Speech {
    /// Takes a ParameterStatus.
    pub fn reported(&mut self, name: &[u8], value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        match name {
            b"client_encoding" => self.client = Charset::named(value),
            b"server_encoding" => self.server = Charset::named(value),
            b"standard_conforming_strings" => self.conforming = value == "on",
            b"server_version" => {
                let digits = value.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                self.major = digits.parse().unwrap_or_default();
            }
            _ => return,
        }
        self.changes = self.changes.wrapping_add(1);
    }

    /// Whether `standard_conforming_strings` is on.
    pub fn conforming(&self) -> bool {
        self.conforming
    }

    /// Whether a text is the same bytes at both ends.
    fn is_plain(&self) -> bool {
        self.server == Charset::Utf8 && self.sayable() == Sayable::All
    }

    pub fn sayable(&self) -> Sayable {
        use Charset::{Single, Unconverted, Utf8};
        match (self.client, self.server) {
            (Utf8 | Unconverted, Utf8) | (Utf8, Single) => Sayable::All,
            (_, Utf8) if self.conforming => Sayable::Escaped,
            // Before version 13 a server took the numbers only if its own encoding was UTF-8.
            (_, Single) if self.conforming && self.major >= 13 => Sayable::Escaped,
            _ => Sayable::Ascii,
        }
    }

    /// Whether the server can convert all of its text into UTF-8 and back, character by character.
    pub fn converts(&self) -> bool {
        matches!(self.server, Charset::Utf8 | Charset::Single)
    }

    /// A text of the client's, ready to be parsed. If its names surely mean the same to the server, the text is returned
    /// unchanged. Otherwise its bytes beyond ASCII become characters of private use. The grammar takes these for letters, as
    /// the server's grammar takes the bytes.
    pub fn readable<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if text.is_ascii() || self.is_plain() {
            return Cow::Borrowed(text);
        }
        let understood = std::str::from_utf8(text).is_ok_and(keeps_its_names);
        if self.sayable() == Sayable::All && understood {
            return Cow::Borrowed(text);
        }
        Cow::Owned(self.in_private(text).into_bytes())
    }

    fn in_private(&self, text: &[u8]) -> String {
        let mut out = String::with_capacity(text.len() * 3);
        let mut rest = text;
        while let Some((first, behind)) = rest.split_first() {
            let width = if first.is_ascii() { 1 } else { self.client.width(*first, behind.first()) };
            let (character, after) = rest.split_at(width.min(rest.len()));
            match character {
                [ascii] if ascii.is_ascii() => out.push(char::from(*ascii)),
                _ => out.extend(
                    character
                        .iter()
                        .enumerate()
                        .filter_map(|(at, byte)| char::from_u32(RAW[usize::from(at > 0)] | u32::from(*byte))),
                ),
            }
            rest = after;
        }
        out
    }

    /// Whether some words of the text were read as bytes only, so that their names are unknown.
    pub fn is_in_private(&self, text: &str) -> bool {
        !text.is_ascii() && !self.is_plain() && text.chars().any(|c| raw(c).is_some())
    }

    /// The text of a value that the server sent, unless the value was asked for in hexadecimal.
    pub fn heard(&self, value: &[u8]) -> String {
        match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() || self.sayable() == Sayable::All => text.to_owned(),
            _ if self.sayable() == Sayable::All => String::from_utf8_lossy(value).into_owned(),
            _ => value
                .iter()
                .map(|byte| if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER })
                .collect(),
        }
    }

    /// The text of a value that was asked for in hexadecimal. The value is in UTF-8 if the server
    /// [converts](Self::converts), and otherwise in the server's encoding.
    pub fn deciphered(&self, hexadecimal: &str) -> String {
        let pairs = hexadecimal.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        let bytes: Vec<u8> = pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
        let text = match String::from_utf8(bytes) {
            Ok(text) if text.is_ascii() || self.converts() => text,
            Ok(text) => text.replace(|c: char| !c.is_ascii(), "\u{FFFD}"),
            Err(error) => String::from_utf8_lossy(error.as_bytes()).replace(|c: char| !c.is_ascii(), "\u{FFFD}"),
        };
        // A name must not contain a character that stands for a client's byte.
        text.replace(|c| raw(c).is_some(), "\u{FFFD}")
    }

    /// The bytes of a statement, or `None` if the encodings cannot express one of its names.
    pub fn say<'s>(&self, sql: &'s str) -> Option<Cow<'s, [u8]>> {
        if sql.is_ascii() || self.is_plain() {
            return Some(Cow::Borrowed(sql.as_bytes()));
        }
        if self.is_in_private(sql) {
            let byte = |c: char| raw(c).or_else(|| c.is_ascii().then_some(c as u8));
            return sql.chars().map(byte).collect::<Option<Vec<u8>>>().map(Cow::Owned);
        }
        match self.sayable() {
            Sayable::All if sql.contains(char::REPLACEMENT_CHARACTER) => None,
            Sayable::All => Some(Cow::Borrowed(sql.as_bytes())),
            how => escaped(sql, &[], how == Sayable::Escaped).map(|sql| Cow::Owned(sql.into_bytes())),
        }
    }

    /// The bytes of a statement and of its parameters. If a parameter has to be escaped, all parameters become literals in
    /// the statement, and none is left.
    pub fn say_with<'s>(&self, sql: &'s str, parameters: &[&'s str]) -> Option<Said<'s>> {
        let inline = self.sayable() == Sayable::Escaped
            && parameters.iter().any(|value| !value.is_ascii() && !self.is_in_private(value));
        if inline {
            return escaped(sql, parameters, true).map(|sql| (Cow::Owned(sql.into_bytes()), Vec::new()));
        }
        let parameters: Option<Vec<_>> = parameters.iter().map(|value| self.say(value)).collect();
        Some((self.say(sql)?, parameters?))
    }
}

/// Whether the server surely reads every name as the proxy does. A server with a single-byte encoding folds `É` to `é` by
/// its locale, and cuts names behind 63 of its own bytes. The check treats a quoted name like any other; that costs at most
/// a phase.
fn keeps_its_names(text: &str) -> bool {
    const LONGEST: usize = 63;
    let is_lower = |c: char| c.is_ascii() || (raw(c).is_none() && c.to_lowercase().eq([c]));
    let long = |word: &str| word.len() > LONGEST && !word.is_ascii();
    let part_of_word = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    text.chars().all(is_lower)
        && !text.split(|c| !part_of_word(c)).any(long)
        && (!text.contains('"') || !text.split('"').any(long))
}
