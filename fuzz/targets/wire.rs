//! Fuzzes the reading of first packets, of frames, and of the bodies that are opened.

use bytes::Bytes;
use pgsluice::backend::data_row;
use pgsluice::wire::error_response::ServerError;
use pgsluice::wire::frame::{BACKEND_LIMIT, FRONTEND_LIMIT, HEADER_LEN, Header};
use pgsluice::wire::message;
use pgsluice::wire::startup::{self, First, MAX_STARTUP};

/// A first packet, its length word and all.
pub fn startup(data: &[u8]) {
    if let Some(word) = data.first_chunk::<4>() {
        let length = i32::from_be_bytes(*word);
        match startup::packet_len(*word) {
            Ok(found) => assert!(found as i64 == i64::from(length) && (8..=MAX_STARTUP + 4).contains(&found)),
            Err(_) => assert!(!(8..=MAX_STARTUP as i32 + 4).contains(&length)),
        }
    }
    match startup::read(data) {
        Ok(First::Session(parameters)) => {
            assert_eq!(data.last(), Some(&0), "PostgreSQL refuses a packet without its terminator");
            for word in [&parameters.user, &parameters.database, &parameters.application_name] {
                assert!(!word.contains('\0'));
            }
            assert_eq!(parameters.user.as_bytes(), value(data, b"user").as_bytes(), "the last one counts");
            assert!(!parameters.database.is_empty() || parameters.user.is_empty(), "the user's name by default");
        }
        Ok(First::Cancel { pid }) => assert_eq!(data[8..12], pid.to_be_bytes()),
        Ok(First::Ssl | First::GssEnc) | Err(_) => {}
    }
}

/// The last value of `wanted`, read as `ProcessStartupPacket` does: name by name from byte 8.
fn value(data: &[u8], wanted: &[u8]) -> String {
    let cstr = |at: usize| data[at..].split(|b| *b == 0).next().unwrap_or_default();
    let mut found = String::new();
    let mut at = 8;
    while at < data.len() {
        let name = cstr(at);
        let value_at = at + name.len() + 1;
        if name.is_empty() || value_at >= data.len() {
            break;
        }
        if name == wanted {
            found = String::from_utf8_lossy(cstr(value_at)).into_owned();
        }
        at = value_at + cstr(value_at).len() + 1;
    }
    found
}

/// A walk over headers, from both sides.
pub fn frames(data: &[u8]) {
    for limit in [FRONTEND_LIMIT, BACKEND_LIMIT] {
        let mut rest = data;
        loop {
            let length = rest.get(1..HEADER_LEN).map(|word| i32::from_be_bytes(word.try_into().unwrap()));
            match (Header::read(rest, limit), length) {
                (Ok(None), None) => break,
                (Ok(Some(header)), Some(length)) => {
                    assert!(length >= 4 && length as u32 <= limit);
                    assert_eq!((header.tag, header.total()), (rest[0], length as usize + 1));
                    let Some(next) = rest.get(header.total()..) else { break };
                    assert!(next.len() < rest.len(), "it moves on");
                    rest = next;
                }
                (Err(bad), Some(length)) => {
                    assert!(length < 4 || length as u32 > limit);
                    assert!(bad.to_string().contains(&length.to_string()));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A body, opened as each of the messages that are opened.
pub fn messages(data: &[u8]) {
    if let Some(text) = message::query(data) {
        assert_eq!([text, b"\0"].concat(), data, "all of the body is the text");
    }
    if let Some((name, text)) = message::parse(data) {
        assert!(data.starts_with(&[name, b"\0", text, b"\0"].concat()));
        let types = &data[name.len() + text.len() + 2..];
        assert_eq!(types.len(), 2 + 4 * usize::from(u16::from_be_bytes([types[0], types[1]])));
    }
    if let Some((portal, statement)) = message::bind(data) {
        assert!(data.starts_with(&[portal, b"\0", statement, b"\0"].concat()));
    }
    if let Some(portal) = message::execute(data) {
        assert!(data.starts_with(portal) && data.len() == portal.len() + 5);
    }
    if let Some((kind, name)) = message::close(data) {
        assert!(data.starts_with(&[&[kind], name, b"\0"].concat()));
    }
    if let Some(row) = data_row(data, |value| String::from_utf8_lossy(value).into_owned()) {
        assert_eq!(row.len(), usize::from(u16::from_be_bytes([data[0], data[1]])));
    }
    error_response(data);
}

fn error_response(data: &[u8]) {
    // As a whole frame, and as what is none.
    let length = (data.len() as u32 + 4).to_be_bytes();
    for frame in [[&b"E"[..], &length, data].concat(), data.to_vec()] {
        let error = ServerError::new(Bytes::from(frame));
        let _ = (error.sqlstate(), error.message(), error.is_fatal());
        for (place, moved) in [(Some(7), true), (None, false)] {
            let mended = error.with_position(|_| place);
            if error.field(b'P').is_none() {
                assert_eq!(mended, error.frame);
                continue;
            }
            let header = Header::read(&mended, BACKEND_LIMIT).unwrap().expect("a header");
            assert_eq!(header.total(), mended.len());
            let mended = ServerError::new(mended);
            assert_eq!((mended.sqlstate(), mended.message()), (error.sqlstate(), error.message()));
            let old: Option<usize> = error.field(b'P').and_then(|place| place.parse().ok());
            if old.is_some() && moved {
                assert_eq!(mended.field(b'P'), Some("7"));
            }
        }
    }
}
