//! Fuzzes the relay between two sockets, and compares it with a walk that has all bytes at once.

use pgsluice::net::Stream;
use pgsluice::relay::{Event, FrameAction, Inspect, Link};
use pgsluice::wire::frame::{BACKEND_LIMIT, FRONTEND_LIMIT, HEADER_LEN, Header};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// The largest body that is collected in order to be opened.
const LIMIT: u32 = 40;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// Opens Query and Parse, lets everything go.
#[derive(Default)]
struct Reader {
    opened: Vec<(u8, Vec<u8>)>,
    oversize: usize,
}

fn opens(tag: u8) -> bool {
    matches!(tag, b'Q' | b'P')
}

impl Inspect for Reader {
    fn action_for(&self, tag: u8) -> FrameAction {
        if opens(tag) { FrameAction::Open } else { FrameAction::Pass }
    }

    fn stops_at(&mut self, tag: u8, body: &[u8]) -> bool {
        self.opened.push((tag, body.to_vec()));
        false
    }

    fn oversize(&mut self, _: u8, _: u32) -> bool {
        self.oversize += 1;
        false
    }

    fn limit(&self, _: u8) -> u32 {
        LIMIT
    }
}

/// What should become of `bytes`.
#[derive(Default)]
struct Expected {
    /// How many may pass.
    pass: usize,
    opened: Vec<(u8, Vec<u8>)>,
    oversize: usize,
    bad: bool,
}

fn expect(bytes: &[u8], from_client: bool) -> Expected {
    let limit = if from_client { FRONTEND_LIMIT } else { BACKEND_LIMIT };
    let mut expected = Expected::default();
    while let Some(rest) = bytes.get(expected.pass..) {
        let header = match Header::read(rest, limit) {
            Ok(Some(header)) => header,
            Ok(None) => return expected,
            Err(_) => return Expected { bad: true, ..expected },
        };
        let body = rest.get(HEADER_LEN..header.total());
        let held = if from_client { opens(header.tag) && header.body <= LIMIT } else { b"ZKS".contains(&header.tag) };
        match body {
            Some(body) if held && from_client => expected.opened.push((header.tag, body.to_vec())),
            None if held => return expected,
            _ if from_client && opens(header.tag) && !held => expected.oversize += 1,
            _ => {}
        }
        expected.pass = bytes.len().min(expected.pass + header.total());
        if body.is_none() {
            return expected;
        }
    }
    expected
}

/// The first byte says from which side the rest comes, and in what pieces.
pub fn relay(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let from_client = how & 1 == 0;
    let piece = match usize::from(how >> 1) {
        0 => bytes.len().max(1),
        // Not too many of them: each is a round trip.
        n => n.max(bytes.len() / 40),
    };
    RUNTIME.with(|runtime| runtime.block_on(play(bytes, from_client, piece)));
}

async fn play(bytes: &[u8], from_client: bool, piece: usize) {
    let (front, client) = UnixStream::pair().expect("sockets");
    let (back, server) = UnixStream::pair().expect("sockets");
    let mut link = Link::new(Stream::Unix(front), Stream::Unix(back), b"");
    // The login is over.
    link.begin_with_status(b'I');
    let (mut from, mut to) = if from_client { (client, server) } else { (server, client) };
    let mut reader = Reader::default();
    let mut got = Vec::new();
    let mut ended = None;
    let end = expect(bytes, from_client);
    for at in (0..bytes.len()).step_by(piece) {
        let sent = bytes.len().min(at + piece);
        if from.write_all(&bytes[at..sent]).await.is_err() {
            break;
        }
        let pass = expect(&bytes[..sent], from_client);
        pump(&mut link, &mut reader, &mut to, &mut got, &mut ended, pass.pass, pass.bad).await;
        if pass.bad {
            break;
        }
    }
    assert_eq!(matches!(ended, Some(Event::Broken { front, .. }) if front == from_client), end.bad, "{ended:?}");
    assert!(got == bytes[..end.pass], "{} bytes for {}", got.len(), end.pass);
    // Nothing more comes.
    let _ = link.finish_front().await;
    drop(link);
    let mut rest = Vec::new();
    let _ = to.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    assert_eq!((reader.opened, reader.oversize), (end.opened, end.oversize));
}

/// Until as much has come as should, and the link has said what it should.
async fn pump(
    link: &mut Link,
    reader: &mut Reader,
    to: &mut UnixStream,
    got: &mut Vec<u8>,
    ended: &mut Option<Event>,
    wanted: usize,
    bad: bool,
) {
    let all = async {
        let mut part = [0; 4096];
        loop {
            if got.len() >= wanted && (!bad || ended.is_some()) {
                return;
            }
            tokio::select! {
                biased;
                event = link.pump(reader), if ended.is_none() => *ended = Some(event),
                read = to.read(&mut part), if got.len() < wanted => match read.expect("bytes") {
                    0 => panic!("closed after {} of {wanted} bytes", got.len()),
                    n => got.extend(&part[..n]),
                },
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("what may pass passes at once");
}
