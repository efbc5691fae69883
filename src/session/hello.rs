//! The first packets: encryption requests, cancel requests, and the startup packet that makes a session.
//!
//! Nothing is allocated for a packet before its length is known to be good, and nothing that follows
//! a request for encryption is read before its answer is sent.

use super::{Shared, pid_of};
use crate::backend;
use crate::net::Stream;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::reply;
use crate::wire::startup::{self, First, Parameters};
use bytes::Bytes;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client that asked for a session, and its backend, which has been told nothing yet.
pub(super) struct Hello {
    pub(super) front: Stream,
    pub(super) back: Stream,
    /// The startup packet, byte for byte.
    pub(super) packet: Vec<u8>,
    pub(super) parameters: Parameters,
}

/// PostgreSQL takes each request for encryption once; more of them is no client but noise.
const MAX_REQUESTS: usize = 3;

/// `None`: no session comes of it, and the client has been told why if it made sense to.
pub(super) async fn hello(mut front: Stream, shared: &Arc<Shared>) -> Option<Hello> {
    for _ in 0..MAX_REQUESTS {
        // A client that connects and leaves is a health check: nothing is said or logged.
        let packet = match read_packet(&mut front).await {
            Ok(packet) => packet?,
            Err(what) => return refuse(&mut front, shared, Report::fatal(sqlstate::PROTOCOL_VIOLATION, what)).await,
        };
        match startup::read(&packet) {
            // N: no encryption here; the client goes on in plain text, or leaves.
            Ok(First::Ssl | First::GssEnc) => front.write_all(b"N").await.ok()?,
            Ok(First::Cancel { .. }) => {
                cancel(shared, &packet).await;
                return None;
            }
            Ok(First::Session(parameters)) => return connect(front, packet, parameters, shared).await,
            Err(what) => return refuse(&mut front, shared, Report::fatal(sqlstate::PROTOCOL_VIOLATION, what)).await,
        }
    }
    refuse(&mut front, shared, Report::fatal(sqlstate::PROTOCOL_VIOLATION, "too many requests for encryption")).await
}

/// `Ok(None)`: the client left.
async fn read_packet(front: &mut Stream) -> Result<Option<Vec<u8>>, &'static str> {
    let mut word = [0; 4];
    if front.read_exact(&mut word).await.is_err() {
        return Ok(None);
    }
    let length = startup::packet_len(word)?;
    let mut packet = vec![0; length];
    packet[..4].copy_from_slice(&word);
    Ok(front.read_exact(&mut packet[4..]).await.is_ok().then_some(packet))
}

async fn connect(mut front: Stream, packet: Vec<u8>, parameters: Parameters, shared: &Arc<Shared>) -> Option<Hello> {
    let proxy = &shared.config.proxy;
    match Stream::connect(&proxy.backend, proxy.connect_timeout, proxy.keepalive).await {
        Ok(back) => Some(Hello { front, back, packet, parameters }),
        Err(error) => {
            let report = Report::fatal(
                sqlstate::CONNECTION_FAILURE,
                format!("could not connect to the server at {}: {error}", proxy.backend),
            )
            .hint("The proxy is up; its backend is not, or backend in [proxy] of proxy.toml names another address.");
            tracing::warn!(backend = %proxy.backend, %error, "could not connect to the server");
            refuse(&mut front, shared, report).await
        }
    }
}

async fn refuse(front: &mut Stream, shared: &Arc<Shared>, report: Report) -> Option<Hello> {
    shared.metrics.sessions_refused.add();
    let _ = front.write_all(&reply::report(&report)).await;
    let _ = front.shutdown().await;
    None
}

/// Goes to the server as it came, over a connection of its own; the client's is closed when the server closed that.
async fn cancel(shared: &Arc<Shared>, packet: &[u8]) {
    shared.metrics.cancel_requests.add();
    let request = packet.get(8..).unwrap_or_default();
    let under_way = pid_of(&Bytes::copy_from_slice(request)).and_then(|pid| shared.cancellable(pid, request));
    if let Err(error) = backend::cancel(&shared.backend, packet, shared.config.proxy.connect_timeout).await {
        tracing::warn!(%error, "a cancel request did not reach the server");
    }
    if let Some((cancels, request)) = under_way {
        cancels.ask(request);
    }
}
