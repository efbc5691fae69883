//! The journal behind the relay itself: client and server are sockets of the test, and each side's bytes come in pieces.

use crate::config::Config;
use crate::net::Stream;
use crate::relay::{Event, Link};
use crate::session::interceptor::Interceptor;
use crate::session::journal::{Incomplete, Message};
use crate::session::shared::Shared;
use crate::wire::message::put_frame;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

struct Relay {
    link: Link,
    interceptor: Interceptor,
    client: UnixStream,
    server: UnixStream,
    /// The bytes that one write carries.
    piece: usize,
}

fn frame(tag: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, tag, |b| b.put_slice(body));
    out
}

fn frames(all: &[(u8, &[u8])]) -> Vec<u8> {
    all.iter().flat_map(|(tag, body)| frame(*tag, body)).collect()
}

impl Relay {
    async fn new(piece: usize) -> Self {
        let (front, client) = UnixStream::pair().unwrap();
        let (back, server) = UnixStream::pair().unwrap();
        let shared = Arc::new(Shared::new(Config::default()).unwrap());
        let interceptor = Interceptor::new(&shared, false);
        let link = Link::new(Stream::Unix(front), Stream::Unix(back), b"");
        let mut relay = Self { link, interceptor, client, server, piece };
        relay.server.write_all(&frame(b'Z', b"I")).await.unwrap();
        assert!(matches!(relay.link.pump_settling(&mut relay.interceptor).await, Event::Settled));
        assert_eq!(relay.client.read(&mut [0; 100]).await.unwrap(), 6);
        relay
    }

    async fn client_sends(&mut self, all: &[(u8, &[u8])]) {
        self.passes(&frames(all), true).await;
    }

    async fn server_sends(&mut self, all: &[(u8, &[u8])]) {
        self.passes(&frames(all), false).await;
    }

    /// All bytes arrive at the other side, as they are.
    async fn passes(&mut self, bytes: &[u8], from_client: bool) {
        let Self { link, interceptor, client, server, piece } = self;
        let (from, to) = if from_client { (client, server) } else { (server, client) };
        for sent in bytes.chunks(*piece) {
            from.write_all(sent).await.unwrap();
            for _ in 0..4 {
                tokio::select! {
                    biased;
                    event = link.pump(interceptor) => panic!("{event:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        let mut got = vec![0; bytes.len()];
        tokio::select! {
            biased;
            event = link.pump(interceptor) => panic!("{event:?}"),
            read = to.read_exact(&mut got) => drop(read.unwrap()),
        }
        assert_eq!(got, bytes);
    }

    fn tags(&self) -> Vec<String> {
        let messages = self.interceptor.block().journal().unwrap().messages(self.link.answers().unwrap()).unwrap();
        let tags = messages.into_iter().flat_map(|message| match message {
            Message::Query { tags, .. } => tags,
            Message::Execute { tag, .. } | Message::Acted { tag, .. } => vec![tag],
        });
        tags.map(|tag| String::from_utf8(tag).unwrap()).collect()
    }
}

const BOUND: &[u8] = b"\0\0\0\0\0\0\0\0";
const EXECUTE: &[u8] = &[0; 5];

#[tokio::test]
async fn what_passes_is_told() {
    for piece in [1, 7, 1000] {
        let mut relay = Relay::new(piece).await;
        relay.client_sends(&[(b'Q', b"SELECT 0\0"), (b'Q', b"BEGIN\0")]).await;
        relay.server_sends(&[(b'T', b"\0\0"), (b'D', b"\0\0"), (b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
        relay.server_sends(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
        relay.client_sends(&[(b'P', b"\0UPDATE t SET a = 1\0\0\0"), (b'B', BOUND), (b'E', EXECUTE), (b'S', b"")]).await;
        relay.server_sends(&[(b'1', b""), (b'2', b""), (b'C', b"UPDATE 7\0"), (b'Z', b"T")]).await;
        relay.client_sends(&[(b'Q', b"SELECT 1; INSERT INTO t VALUES (1)\0")]).await;
        relay.server_sends(&[(b'D', &[0; 300]), (b'C', b"SELECT 1\0"), (b'C', b"INSERT 0 1\0"), (b'Z', b"T")]).await;
        assert_eq!(relay.tags(), ["BEGIN", "UPDATE 7", "SELECT 1", "INSERT 0 1"], "pieces of {piece}");
        relay.client_sends(&[(b'Q', b"COMMIT\0")]).await;
        assert!(relay.interceptor.block().journal().is_none() && relay.link.answers().is_none());
        relay.server_sends(&[(b'C', b"COMMIT\0"), (b'Z', b"I")]).await;
        // BEGIN in one pipeline with the statement behind it.
        let begin: (u8, &[u8]) = (b'P', b"\0BEGIN\0\0\0");
        let update: (u8, &[u8]) = (b'P', b"\0UPDATE t SET a = 2\0\0\0");
        let bind: (u8, &[u8]) = (b'B', BOUND);
        let execute: (u8, &[u8]) = (b'E', EXECUTE);
        relay.client_sends(&[begin, bind, execute, update, bind, execute, (b'S', b"")]).await;
        relay.server_sends(&[(b'1', b""), (b'2', b""), (b'C', b"BEGIN\0"), (b'1', b""), (b'2', b"")]).await;
        relay.server_sends(&[(b'C', b"UPDATE 8\0"), (b'Z', b"T")]).await;
        assert_eq!(relay.tags(), ["BEGIN", "UPDATE 8"], "pieces of {piece}");
    }
}

#[tokio::test]
async fn a_block_that_ends_unseen_ends_the_log() {
    let mut relay = Relay::new(1000).await;
    relay.client_sends(&[(b'Q', b"BEGIN\0")]).await;
    relay.server_sends(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
    relay.client_sends(&[(b'Q', b"SELECT 1; COMMIT\0")]).await;
    assert!(relay.interceptor.block().journal().is_some());
    relay.server_sends(&[(b'C', b"SELECT 1\0"), (b'C', b"COMMIT\0"), (b'Z', b"I")]).await;
    relay.client_sends(&[(b'Q', b"SELECT 2\0")]).await;
    assert!(relay.interceptor.block().journal().is_none() && relay.link.answers().is_none());
}

/// An error that the client got makes the journal incomplete, also if the block goes on from a savepoint.
#[tokio::test]
async fn an_error_is_a_gap() {
    let mut relay = Relay::new(3).await;
    relay.client_sends(&[(b'Q', b"BEGIN\0")]).await;
    relay.server_sends(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
    relay.client_sends(&[(b'Q', b"SELECT 1/0\0")]).await;
    relay.server_sends(&[(b'E', b"SERROR\0C22012\0\0"), (b'Z', b"E")]).await;
    relay.client_sends(&[(b'Q', b"ROLLBACK TO a\0")]).await;
    relay.server_sends(&[(b'C', b"ROLLBACK\0"), (b'Z', b"T")]).await;
    let journal = relay.interceptor.block().journal().unwrap();
    assert_eq!(journal.messages(relay.link.answers().unwrap()), Err(Incomplete::Failed));
}
