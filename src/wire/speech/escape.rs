//! Rewrites SQL as ASCII: the other characters of names and strings are written by their numbers.
//!
//! The file is for the proxy's own SQL only, under `standard_conforming_strings`. In this SQL the other characters stand
//! only in quotes, since neither the server nor the proxy writes a name with such characters without quotes.

use std::fmt::Write as _;

/// The statement in ASCII, with `parameters` in place of `$1` and so on. It is `None` if a character beyond ASCII outside a
/// comment is U+FFFD, or stands where no escape is possible, or if `escapes` forbids all escapes.
pub(super) fn escaped(sql: &str, parameters: &[&str], escapes: bool) -> Option<String> {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = token(rest, before);
        let (token, behind) = rest.split_at(length);
        match first {
            '$' if parameter(token).is_some() && !parameters.is_empty() => {
                let value = parameters.get(parameter(token)?.checked_sub(1)?)?;
                (!value.contains(char::REPLACEMENT_CHARACTER)).then_some(())?;
                literal(&mut out, value);
            }
            _ if token.is_ascii() => out.push_str(token),
            '/' | '-' => out.extend(token.chars().map(|c| if c.is_ascii() { c } else { '?' })),
            _ if !escapes || token.contains(char::REPLACEMENT_CHARACTER) => return None,
            '"' => numbered(&mut out, "U&\"", &token[1..]),
            '\'' if is_word(before) => {
                // `E'…'` has escapes of its own. Any other letter before the quote is a mistake of the proxy's.
                matches!(before, 'e' | 'E').then_some(())?;
                out.push('\'');
                in_escape_string(&mut out, &token[1..]);
            }
            '\'' => numbered(&mut out, "U&'", &token[1..]),
            '$' => {
                let tag = token.get(1..)?.find('$')? + 2;
                let body = token.get(tag..token.len().checked_sub(tag)?)?;
                literal(&mut out, body);
            }
            _ => return None,
        }
        before = token.chars().next_back()?;
        rest = behind;
    }
    Some(out)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

/// The number of a parameter such as `$1`.
fn parameter(token: &str) -> Option<usize> {
    token.strip_prefix('$')?.parse().ok()
}

/// Writes any text as a string literal.
fn literal(out: &mut String, text: &str) {
    let doubled = text.replace('\'', "''");
    out.push(' ');
    numbered(out, "U&'", &doubled);
    out.push('\'');
}

/// Writes `text` with `open` as its opening quote. Backslashes are doubled, and characters beyond ASCII are written by their
/// numbers.
fn numbered(out: &mut String, open: &str, text: &str) {
    out.push_str(open);
    for c in text.chars() {
        match (c, u32::from(c)) {
            ('\\', _) => out.push_str("\\\\"),
            (c, _) if c.is_ascii() => out.push(c),
            (_, code @ ..=0xFFFF) => drop(write!(out, "\\{code:04X}")),
            (_, code) => drop(write!(out, "\\+{code:06X}")),
        }
    }
}

fn in_escape_string(out: &mut String, text: &str) {
    for c in text.chars() {
        match u32::from(c) {
            _ if c.is_ascii() => out.push(c),
            code @ ..=0xFFFF => drop(write!(out, "\\u{code:04X}")),
            code => drop(write!(out, "\\U{code:08X}")),
        }
    }
}

/// The length in bytes of the first token of `rest`. A character that begins no quote, comment or `$` token is a token by
/// itself.
fn token(rest: &str, before: char) -> usize {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    let bytes = rest.as_bytes();
    match bytes {
        [b'"', ..] => quoted(rest, '"', false),
        [b'\'', ..] => quoted(rest, '\'', matches!(before, 'e' | 'E')),
        [b'-', b'-', ..] => rest.find('\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment(bytes),
        [b'$', b'0'..=b'9', ..] if !is_word(before) => {
            1 + bytes[1..].iter().take_while(|byte| byte.is_ascii_digit()).count()
        }
        [b'$', ..] if !is_word(before) => dollar_quoted(rest).unwrap_or(first),
        _ => first,
    }
}

fn quoted(rest: &str, quote: char, backslash: bool) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if backslash && c == '\\' {
            characters.next();
        } else if c == quote {
            // A doubled quote does not end the string.
            if rest[at + 1..].starts_with(quote) {
                characters.next();
            } else {
                return at + 1;
            }
        }
    }
    rest.len()
}

fn comment(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(two) = bytes.get(at..at + 2) {
        match two {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn dollar_quoted(rest: &str) -> Option<usize> {
    let end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..end)?;
    if !tag[1..end - 1].chars().all(|c| c != '$' && is_word(c)) {
        return None;
    }
    Some(end + rest.get(end..)?.find(tag)? + end)
}
