//! The server's offer of SASL mechanisms, which is the only message of a login that the proxy ever changes.
//!
//! A server on an encrypted connection offers `SCRAM-SHA-256-PLUS`, which binds the login to that connection. A client on
//! a connection without encryption cannot take the offer, and libpq refuses to go on.

use super::message::put_frame;
use bytes::{BufMut, Bytes, BytesMut};

/// AuthenticationSASL. The mechanisms follow, each ended by a zero byte; one more zero byte ends the list.
const SASL: [u8; 4] = 10_u32.to_be_bytes();

/// Whether a SASL exchange begins that can bind the login to the channel. `None` means that the login is over; `Some(false)`
/// stands for any other frame.
pub fn offers_channel_binding(frame: &[u8]) -> Option<bool> {
    let body = frame.get(super::frame::HEADER_LEN..).unwrap_or_default();
    if body == [0; 4] {
        return None;
    }
    let list = body.strip_prefix(&SASL).unwrap_or_default();
    Some(list.split(|byte| *byte == 0).any(|mechanism| mechanism.ends_with(b"-PLUS")))
}

/// The frame without the mechanisms that bind to the channel, unless there are no others. Any other frame is returned
/// unchanged.
pub fn without_channel_binding(frame: &[u8]) -> Bytes {
    let as_it_is = || Bytes::copy_from_slice(frame);
    let Some(list) = frame.get(super::frame::HEADER_LEN..).and_then(|body| body.strip_prefix(&SASL)) else {
        return as_it_is();
    };
    let kept: Vec<&[u8]> = list
        .split(|byte| *byte == 0)
        .take_while(|mechanism| !mechanism.is_empty())
        .filter(|mechanism| !mechanism.ends_with(b"-PLUS"))
        .collect();
    if kept.is_empty() {
        return as_it_is();
    }
    let mut out = BytesMut::with_capacity(frame.len());
    put_frame(&mut out, b'R', |b| {
        b.put_slice(&SASL);
        for mechanism in kept {
            b.put_slice(mechanism);
            b.put_u8(0);
        }
        b.put_u8(0);
    });
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(list: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_frame(&mut out, b'R', |b| {
            b.put_slice(&SASL);
            b.put_slice(list);
        });
        out.to_vec()
    }

    #[test]
    fn offers() {
        let both = sasl(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        assert_eq!(without_channel_binding(&both)[..], sasl(b"SCRAM-SHA-256\0\0"));
        assert_eq!(offers_channel_binding(&both), Some(true));
        assert_eq!(offers_channel_binding(&sasl(b"SCRAM-SHA-256\0\0")), Some(false));
        assert_eq!(offers_channel_binding(b"R\0\0\0\x08\0\0\0\0"), None);
        for same in [
            sasl(b"SCRAM-SHA-256\0\0"),
            sasl(b"OAUTHBEARER\0\0"),
            sasl(b"SCRAM-SHA-256-PLUS\0\0"),
            sasl(b""),
            b"R\0\0\0\x08\0\0\0\0".to_vec(),
            b"R\0\0\0\x0c\0\0\0\x05salt".to_vec(),
            b"R\0\0\0\x04".to_vec(),
        ] {
            assert_eq!(without_channel_binding(&same)[..], same, "{}", same.escape_ascii());
        }
    }
}
