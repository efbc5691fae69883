//! `[console]`: the users of the console, with what the proxy keeps of their passwords.
//!
//! Invariant: no error and no debug print shows a key of a [`Verifier`].

use super::words::Role;
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A user of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleUser {
    pub name: String,
    pub role: Role,
    pub verifier: Verifier,
}

/// What a server keeps of a password for SCRAM-SHA-256 (RFC 5803, and `rolpassword` of `pg_authid`).
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Verifier {
    /// The form of a verifier, as an error names it.
    pub const ALLOWED: &str =
        "a SCRAM-SHA-256 verifier, as in pg_authid: SCRAM-SHA-256$iterations:salt$stored key:server key";

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`. `None`: the text is not a verifier.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (first, keys) = rest.split_once('$')?;
        let (iterations, salt) = first.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|count| (1..=10_000_000).contains(count))?;
        let salt = decode(salt).filter(|salt| !salt.is_empty())?;
        Some(Self {
            iterations,
            salt,
            stored_key: decode(stored)?.try_into().ok()?,
            server_key: decode(server)?.try_into().ok()?,
        })
    }
}

/// Reads base64 with its padding (RFC 4648).
fn decode(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in body.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// What is wrong with a list of users, and the byte of the file at which it stands.
pub(super) struct UserFault {
    pub(super) at: usize,
    pub(super) message: String,
}

/// Reads the list of users.
pub(super) fn users(value: &Spanned<DeValue<'_>>) -> Result<Vec<ConsoleUser>, UserFault> {
    let fault = |at, message: &str| UserFault { at, message: format!("console.users: {message}") };
    let Some(list) = value.get_ref().as_array() else {
        return Err(fault(value.span().start, "expected [[console.users]] with name, role and verifier"));
    };
    let mut users: Vec<ConsoleUser> = Vec::new();
    for item in list {
        let Some(table) = item.get_ref().as_table() else {
            return Err(fault(item.span().start, "expected a table with name, role and verifier"));
        };
        let user = user(table, item.span().start)?;
        if users.iter().any(|other| other.name == user.name) {
            return Err(fault(item.span().start, &format!("the name \"{}\" is there twice", user.name)));
        }
        users.push(user);
    }
    Ok(users)
}

fn user(table: &DeTable<'_>, at: usize) -> Result<ConsoleUser, UserFault> {
    let fault = |at, message: String| UserFault { at, message: format!("console.users: {message}") };
    let text = |name: &str| {
        let found = table.iter().find(|(key, _)| key.get_ref() == name);
        let (key, value) = found.ok_or_else(|| fault(at, format!("a user has no {name}")))?;
        let text = value.get_ref().as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| fault(key.span().start, format!("{name} is not a string, or is empty")))?;
        Ok((key.span().start, text))
    };
    if let Some((key, _)) =
        table.iter().find(|(key, _)| !["name", "role", "verifier"].contains(&key.get_ref().as_ref()))
    {
        let shown = key.get_ref();
        return Err(fault(
            key.span().start,
            format!("{shown}: unknown key; the keys of a user are name, role, verifier"),
        ));
    }
    let (_, name) = text("name")?;
    let (role_at, role) = text("role")?;
    let role = Role::from_word(role).ok_or_else(|| {
        fault(role_at, format!("role: \"{role}\" is not allowed; expected one of \"admin\", \"viewer\""))
    })?;
    let (verifier_at, verifier) = text("verifier")?;
    let verifier = Verifier::parse(verifier).ok_or_else(|| {
        fault(verifier_at, format!("verifier: (not shown) is not allowed; expected {}", Verifier::ALLOWED))
    })?;
    Ok(ConsoleUser { name: name.to_owned(), role, verifier })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SCRAM-SHA-256$4096:cGdzbHVpY2VzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=://///////////////////////////////////////w8=";

    #[test]
    fn verifiers_as_in_pg_authid() {
        let verifier = Verifier::parse(GOOD).unwrap();
        assert_eq!((verifier.iterations, verifier.salt.as_slice()), (4096, b"pgsluicesalt".as_slice()));
        assert_eq!(verifier.stored_key, [0; 32]);
        assert_eq!(format!("{verifier:?}"), "(not shown)");
        for bad in [
            "",
            "hunter2",
            "md5aabbccddeeff00112233445566778899",
            &GOOD[..GOOD.len() - 4],
            &GOOD.replace("4096", "0"),
            &GOOD.replace("SHA-256", "SHA-1"),
            &GOOD.replace('A', "!"),
        ] {
            assert_eq!(Verifier::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn base64() {
        assert_eq!(decode("").as_deref(), Some(b"".as_slice()));
        assert_eq!(decode("Zg==").as_deref(), Some(b"f".as_slice()));
        assert_eq!(decode("Zm9v").as_deref(), Some(b"foo".as_slice()));
        assert_eq!(decode("Zm9"), None);
        assert_eq!(decode("Z==="), None);
    }
}
