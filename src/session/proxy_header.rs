//! The header of the PROXY protocol. A load balancer sends the address of its client in it.
//!
//! It owns nothing. It keeps true: a header is read to its last byte and not beyond. HAProxy's `proxy-protocol.txt` describes the format.

use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The contents of a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The client's address. `None`: the connection is the load balancer's own (LOCAL, UNKNOWN), or the client came over a Unix socket.
    pub(super) source: Option<IpAddr>,
}

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the longest header of version 1, with its line end.
const V1_MAX: usize = 107;
/// Addresses take 216 bytes at most; the rest is for extensions, which are skipped.
const V2_MAX: usize = 4_096;

/// Reads a header of version 1 or 2. `None`: the peer left without a byte, as a health check does.
///
/// # Errors
/// The bytes are no such header, or the header is too long, or the connection broke.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Header>> {
    let mut bytes = vec![0; 12];
    match stream.read(&mut bytes[..1]).await? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut bytes[1..]).await?,
    };
    if bytes == V2_SIGNATURE {
        bytes.resize(16, 0);
        stream.read_exact(&mut bytes[12..]).await?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > V2_MAX {
            return Err(invalid("a header of version 2 that is too long"));
        }
        bytes.resize(16 + length, 0);
        stream.read_exact(&mut bytes[16..]).await?;
        return version_2(&bytes).map(Some);
    }
    if !bytes.starts_with(b"PROXY ") {
        return Err(invalid("no PROXY protocol header, though the address is in proxy_protocol_from"));
    }
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() == V1_MAX {
            return Err(invalid("a header of version 1 that does not end"));
        }
        bytes.push(stream.read_u8().await?);
    }
    version_1(&bytes).map(Some)
}

fn version_1(bytes: &[u8]) -> io::Result<Header> {
    use ppp::v1::Addresses;
    let header = ppp::v1::Header::try_from(bytes).map_err(|error| invalid(&error.to_string()))?;
    let source = match header.addresses {
        Addresses::Tcp4(addresses) => Some(IpAddr::V4(addresses.source_address)),
        Addresses::Tcp6(addresses) => Some(IpAddr::V6(addresses.source_address)),
        Addresses::Unknown => None,
    };
    Ok(Header { source })
}

fn version_2(bytes: &[u8]) -> io::Result<Header> {
    use ppp::v2::{Addresses, Command};
    let header = ppp::v2::Header::try_from(bytes).map_err(|error| invalid(&error.to_string()))?;
    let source = match (header.command, header.addresses) {
        (Command::Local, _) => None,
        (Command::Proxy, Addresses::IPv4(addresses)) => Some(IpAddr::V4(addresses.source_address)),
        (Command::Proxy, Addresses::IPv6(addresses)) => Some(IpAddr::V6(addresses.source_address).to_canonical()),
        (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => None,
    };
    Ok(Header { source })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> (io::Result<Option<Header>>, usize) {
        let mut rest = bytes;
        let header = read(&mut rest).await;
        (header, rest.len())
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    #[tokio::test]
    async fn headers() {
        let ip = |text: &str| Some(text.parse().unwrap());
        let tcp4 = [192, 0, 2, 1, 10, 0, 0, 1, 0, 9, 0, 8];
        for (bytes, source) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 5432\r\n".to_vec(), ip("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 56324 5432\r\n".to_vec(), ip("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(0x21, 0x11, &tcp4), ip("192.0.2.1")),
            (v2(0x21, 0x11, &[&tcp4[..], &[4, 0, 1, 7]].concat()), ip("192.0.2.1")),
            (v2(0x20, 0x00, &[]), None),
        ] {
            let text = bytes.escape_ascii().to_string();
            let (header, left) = read_all(&[&bytes[..], b"next"].concat()).await;
            assert_eq!((header.unwrap(), left), (Some(Header { source }), 4), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header() {
        assert!(read_all(b"").await.0.unwrap().is_none());
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let v2_long = [&V2_SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff], &[0; 5_000]].concat();
        for bytes in [
            &[0, 0, 0, 8, 4, 210, 22, 47, 0, 0, 0, 0][..],
            b"PROXY",
            b"PROXY TCP4 nonsense\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            &long,
            &v2_long,
            &v2(0x21, 0x11, &[1, 2]),
        ] {
            assert!(read_all(bytes).await.0.is_err(), "{}", bytes.escape_ascii());
        }
    }
}
