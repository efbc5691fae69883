//! Tests of the bytes before the first startup packet: requests for encryption, a direct handshake, a load balancer's
//! header.

mod common;

use common::tls::{GSSENC_REQUEST, SERVER, SSL_REQUEST, both, handshake, psql, tls, tls_client};
use common::{Client, Message, PATIENCE, port, proxy, raw, startup_packet, wait_until};
use pgsluice::config::ListenTlsMode;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn the_first_bytes_of_a_client() {
    let running = both(|config| config.listen_tls.mode = ListenTlsMode::Allow);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    // Bytes in plain text right behind the request.
    for more in [&b"x"[..], &startup_packet("postgres", "postgres")] {
        let mut stream = connect();
        stream.write_all(&[&SSL_REQUEST[..], more].concat()).unwrap();
        let mut client = Client { stream, pid: 0, key: Vec::new() };
        let message = client.read();
        assert_eq!(message.field(b'C').as_deref(), Some("08P01"));
        assert!(message.field(b'M').unwrap().contains("unencrypted data after SSL request"));
    }
    // GSS is declined, then TLS granted; after it no further request.
    let mut stream = connect();
    let mut answer = [0];
    for (request, expected) in [(GSSENC_REQUEST, b'N'), (SSL_REQUEST, b'S')] {
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], expected);
    }
    let mut stream = handshake(stream, &[]).unwrap();
    stream.write_all(&SSL_REQUEST).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(raw::messages(&rest)[0].field(b'C').as_deref(), Some("0A000"));
    // A direct handshake must name the protocol.
    assert!(tls_client(&running, true).is_some());
    assert!(tls(&running, true, &[]).is_none());
    assert!(tls(&running, true, &[b"http/1.1"]).is_none());
    // What is neither TLS nor PostgreSQL.
    let mut stream = connect();
    stream.write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_ne!(rest.first(), Some(&b'R'));
    // Nobody was hurt.
    assert!(psql(port(&running), "SELECT 1", &[]).status.success());
    running.stop_now();
}

/// A load balancer's header says who the client is; limits count it.
#[test]
fn proxy_headers_and_limits() {
    let running = proxy(&SERVER, |config| {
        config.proxy.proxy_protocol_from = vec!["127.0.0.1".parse().unwrap()];
        config.proxy.max_clients_per_address = 2;
    });
    let connect = |header: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[header, &startup_packet("postgres", "postgres")].concat()).unwrap();
        let mut client = Client { stream, pid: 0, key: Vec::new() };
        let first = client.try_read();
        (client, first.map(|message: Message| message.field(b'C').unwrap_or_else(|| "in".to_owned())))
    };
    let from = |address: &str| format!("PROXY TCP4 {address} 127.0.0.1 1 2\r\n").into_bytes();
    let (one, first) = connect(&from("192.0.2.1"));
    assert_eq!(first.as_deref(), Some("in"));
    let (_two, first) = connect(&from("192.0.2.1"));
    assert_eq!(first.as_deref(), Some("in"));
    assert_eq!(connect(&from("192.0.2.1")).1.as_deref(), Some("53300"));
    assert_eq!(connect(&from("192.0.2.2")).1.as_deref(), Some("in"));
    drop(one);
    wait_until("there is room again", || connect(&from("192.0.2.1")).1.as_deref() == Some("in"));
    // From there, nothing goes without a header.
    assert_eq!(connect(b"").1, None);
    running.stop_now();

    let running = proxy(&SERVER, |config| config.proxy.max_clients = 1);
    let one = Client::connect(port(&running), "postgres", "postgres");
    let mut two = TcpStream::connect(("127.0.0.1", port(&running))).unwrap();
    two.write_all(&startup_packet("postgres", "postgres")).unwrap();
    let message = Client { stream: two, pid: 0, key: Vec::new() }.read();
    assert_eq!((message.field(b'C').as_deref(), message.field(b'V').as_deref()), (Some("53300"), Some("FATAL")));
    one.cancel(port(&running));
    running.stop_now();
}
