//! Reads the first packet of a connection, which has no tag.
//!
//! Invariants: nothing is allocated for a packet before its length is known to be within PostgreSQL's limit. The packet
//! goes on byte for byte; only a copy is read.

/// `MAX_STARTUP_PACKET_LENGTH` (`libpq/pqcomm.h`): the most bytes of the packet, without its length word.
pub const MAX_STARTUP: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// The request of a first packet.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    Ssl,
    GssEnc,
    /// The pid of the backend to cancel; the key stays opaque.
    Cancel {
        pid: i32,
    },
    Session(Parameters),
}

/// The parameters of a StartupMessage that the proxy reads.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Parameters {
    pub protocol: u32,
    pub user: String,
    pub database: String,
    pub application_name: String,
    /// `replication` is on or `database`: the session is for a walsender.
    pub replication: bool,
}

/// Checks the length word. `Ok` gives the length of the whole packet.
///
/// # Errors
/// The length is out of PostgreSQL's bounds; the text says so as PostgreSQL does.
pub fn packet_len(word: [u8; 4]) -> Result<usize, &'static str> {
    match usize::try_from(i32::from_be_bytes(word)) {
        Ok(length) if (8..=MAX_STARTUP + 4).contains(&length) => Ok(length),
        _ => Err("invalid length of startup packet"),
    }
}

/// Reads a whole first packet, length word included.
///
/// # Errors
/// PostgreSQL would refuse the packet.
pub fn read(packet: &[u8]) -> Result<First, &'static str> {
    let code =
        packet.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or("incomplete startup packet")?;
    let body = packet.get(8..).unwrap_or_default();
    match code {
        SSL => Ok(First::Ssl),
        GSSENC => Ok(First::GssEnc),
        CANCEL => match body.first_chunk::<4>() {
            Some(pid) => Ok(First::Cancel { pid: i32::from_be_bytes(*pid) }),
            None => Err("invalid length of cancel request packet"),
        },
        protocol => session(protocol, body),
    }
}

fn session(protocol: u32, body: &[u8]) -> Result<First, &'static str> {
    let Some((0, body)) = body.split_last() else {
        return Err("invalid startup packet layout: expected terminator as last byte");
    };
    let mut found = Parameters { protocol, ..Parameters::default() };
    let mut words = body.split(|b| *b == 0);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name.is_empty() {
            break;
        }
        let value = String::from_utf8_lossy(value);
        match name {
            b"user" => found.user = value.into_owned(),
            b"database" => found.database = value.into_owned(),
            b"application_name" => found.application_name = value.into_owned(),
            b"replication" => found.replication = &*value == "database" || boolean(&value) != Some(false),
            _ => {}
        }
    }
    if found.database.is_empty() {
        found.database.clone_from(&found.user);
    }
    Ok(First::Session(found))
}

/// A boolean as the server reads it (`parse_bool` in its `bool.c`): a word, or any beginning that only one word has.
fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str| !value.is_empty() && word.starts_with(&value);
    match value.as_str() {
        "o" => None,
        "1" => Some(true),
        "0" => Some(false),
        _ if begins("true") || begins("yes") || begins("on") => Some(true),
        _ if begins("false") || begins("no") || begins("off") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (8 + body.len() as u32).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn lengths() {
        assert!(packet_len(7_i32.to_be_bytes()).is_err());
        assert!(packet_len((-1_i32).to_be_bytes()).is_err());
        assert!(packet_len(i32::MAX.to_be_bytes()).is_err());
        assert_eq!(packet_len(10_004_i32.to_be_bytes()), Ok(10_004));
        assert!(packet_len(10_005_i32.to_be_bytes()).is_err());
    }

    #[test]
    fn replication_is_off_where_the_server_takes_it_for_that() {
        let replication =
            |value: &str| match read(&packet(196_608, format!("user\0a\0replication\0{value}\0\0").as_bytes())) {
                Ok(First::Session(parameters)) => parameters.replication,
                other => panic!("{other:?}"),
            };
        for off in ["0", "f", "F", "fa", "false", "FALSE", "n", "no", "of", "off", "OFF"] {
            assert!(!replication(off), "{off}");
        }
        // The server refuses some of these values.
        for on in ["1", "t", "true", "y", "yes", "on", "database", "", "o", "offf", "falsey", "2", " f"] {
            assert!(replication(on), "{on}");
        }
    }

    #[test]
    fn requests() {
        assert_eq!(read(&packet(SSL, b"")), Ok(First::Ssl));
        assert_eq!(read(&packet(GSSENC, b"")), Ok(First::GssEnc));
        assert_eq!(read(&packet(CANCEL, &[0, 0, 0, 9, 1, 2, 3, 4])), Ok(First::Cancel { pid: 9 }));
        assert!(read(&packet(CANCEL, &[0, 0])).is_err());
        let Ok(First::Session(p)) = read(&packet(196_610, b"user\0ann\0replication\0database\0\0")) else { panic!() };
        assert_eq!((p.user.as_str(), p.database.as_str(), p.replication), ("ann", "ann", true));
        assert!(read(&packet(196_608, b"user\0ann")).is_err());
        assert!(read(&packet(196_608, b"\0")).is_ok());
        // Neither PostgreSQL nor the proxy accepts a name without a value.
        let Ok(First::Session(p)) = read(&packet(196_608, b"user\0ann\0user\0")) else { panic!() };
        assert_eq!(p.user, "ann");
    }
}
