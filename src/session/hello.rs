//! The first packets: the PROXY header, encryption, cancel requests, and the startup packet that makes a session.
//!
//! `Greeting` owns a client's connection until it has a session. It keeps true: nothing is allocated for a packet before its length is checked.
//! A packet is read to its end and not beyond, so that the proxy holds no byte of plain text when a handshake begins. A client may ask for each
//! kind of encryption once, as in PostgreSQL.

use super::proxy_header;
use super::shared::{Seat, Shared, pid_of};
use crate::backend;
use crate::config::ListenTlsMode;
use crate::console::{self, Caller, Host};
use crate::net::{self, Arrival, Stream};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::reply;
use crate::wire::startup::{self, First, Parameters};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A client that has asked for a session, and its backend (a server's, or the console), which has been sent nothing yet.
pub(super) struct Hello {
    pub(super) front: Stream,
    pub(super) back: Stream,
    /// The startup packet, byte for byte.
    pub(super) packet: Vec<u8>,
    pub(super) parameters: Parameters,
    pub(super) seat: Option<Seat>,
    /// `None`: the client has come over a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// The backend is the console.
    pub(super) console: bool,
}

/// The first byte of a TLS record that holds a handshake. No startup packet is so long that its length begins with this byte.
const TLS_HANDSHAKE: u8 = 0x16;

/// A client that has sent nothing yet, or has only asked for encryption.
struct Greeting<'a> {
    shared: &'a Arc<Shared>,
    front: Stream,
    address: Option<IpAddr>,
    crowded: bool,
    asked_ssl: bool,
    asked_gss: bool,
}

/// Reads a client's first packets. `None`: there is no session, and the client has been told why, unless it has left.
pub(super) async fn hello(arrival: Arrival, crowded: bool, shared: &Arc<Shared>) -> Option<Hello> {
    let mut greeting = match Greeting::begin(arrival, crowded, shared).await {
        Ok(greeting) => greeting?,
        Err(error) => {
            tracing::info!(%error, "a client did not get as far as its first packet");
            return None;
        }
    };
    loop {
        // A client that connects and leaves is a health check. Nothing is sent or logged.
        let packet = match greeting.read_packet().await {
            Ok(packet) => packet?,
            Err(what) => return greeting.refuse(Report::fatal(sqlstate::PROTOCOL_VIOLATION, what)).await,
        };
        match startup::read(&packet) {
            Ok(First::Ssl) if !greeting.asked_ssl => greeting = greeting.ssl().await?,
            Ok(First::GssEnc) if !greeting.asked_gss => {
                greeting.asked_gss = true;
                // The proxy refuses GSS encryption, since it could not read the messages. The client continues in plain text or by TLS, or leaves.
                greeting.front.write_all(b"N").await.ok()?;
            }
            Ok(First::Ssl | First::GssEnc) => {
                let what = "unsupported frontend protocol: encryption was asked for before";
                return greeting.refuse(Report::fatal(sqlstate::FEATURE_NOT_SUPPORTED, what)).await;
            }
            Ok(First::Cancel { .. }) => {
                cancel(shared, &packet).await;
                return None;
            }
            Ok(First::Session(parameters)) => return greeting.connect(packet, parameters).await,
            Err(what) => return greeting.refuse(Report::fatal(sqlstate::PROTOCOL_VIOLATION, what)).await,
        }
    }
}

impl<'a> Greeting<'a> {
    /// Reads the bytes before the first packet: the PROXY header, and the handshake of a client that begins with TLS at once.
    async fn begin(arrival: Arrival, crowded: bool, shared: &'a Arc<Shared>) -> std::io::Result<Option<Self>> {
        let greeting = |front, address| Self { shared, front, address, crowded, asked_ssl: false, asked_gss: false };
        let (stream, peer) = match arrival {
            Arrival::Unix(stream) => {
                let stream = UnixStream::from_std(stream)?;
                return Ok(Some(greeting(Stream::Unix(stream), None)));
            }
            Arrival::Tcp(stream, peer) => (TcpStream::from_std(stream)?, peer),
        };
        net::tune(&stream, shared.target.keepalive)?;
        let mut stream = stream;
        let trusted = shared.config.proxy.proxy_protocol_from.iter().any(|network| network.contains(peer));
        let mut address = peer;
        if trusted {
            match proxy_header::read(&mut stream).await? {
                Some(header) => address = header.source.unwrap_or(peer),
                None => return Ok(None),
            }
        }
        let mut first = [0];
        let direct = shared.front_tls.mode() != ListenTlsMode::Disable
            && stream.peek(&mut first).await? == 1
            && first[0] == TLS_HANDSHAKE;
        if !direct {
            return Ok(Some(greeting(Stream::Tcp(stream), Some(address))));
        }
        let stream = Stream::Tls(Box::new(shared.front_tls.accept(stream, true).await?));
        // No further request for encryption is granted inside.
        Ok(Some(Self { asked_ssl: true, asked_gss: true, ..greeting(stream, Some(address)) }))
    }

    /// `Ok(None)`: the client left.
    async fn read_packet(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
        let mut word = [0; 4];
        if self.front.read_exact(&mut word).await.is_err() {
            return Ok(None);
        }
        let length = startup::packet_len(word)?;
        let mut packet = vec![0; length];
        packet[..4].copy_from_slice(&word);
        Ok(self.front.read_exact(&mut packet[4..]).await.is_ok().then_some(packet))
    }

    /// Answers an SSLRequest, and makes the handshake if TLS is configured and the client has come over TCP.
    async fn ssl(mut self) -> Option<Self> {
        self.asked_ssl = true;
        let stream = match self.front {
            Stream::Tcp(stream) if self.shared.front_tls.mode() != ListenTlsMode::Disable => stream,
            mut other => {
                other.write_all(b"N").await.ok()?;
                return Some(Self { front: other, ..self });
            }
        };
        // Bytes that a client sends before the answer would be taken for encrypted data (CVE-2021-23214).
        let unread = std::future::poll_fn(|cx| {
            let mut byte = [0];
            let mut buf = tokio::io::ReadBuf::new(&mut byte);
            std::task::Poll::Ready(matches!(stream.poll_peek(cx, &mut buf), std::task::Poll::Ready(Ok(n)) if n > 0))
        });
        if unread.await {
            let report = Report::fatal(sqlstate::PROTOCOL_VIOLATION, "received unencrypted data after SSL request")
                .detail(
                    "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
                );
            return Self { front: Stream::Tcp(stream), ..self }.refuse(report).await;
        }
        let mut stream = stream;
        stream.write_all(b"S").await.ok()?;
        match self.shared.front_tls.accept(stream, false).await {
            Ok(stream) => Some(Self { front: Stream::Tls(Box::new(stream)), asked_gss: true, ..self }),
            Err(error) => {
                tracing::info!(%error, client = ?self.address, "a TLS handshake with a client failed");
                None
            }
        }
    }

    async fn connect(mut self, packet: Vec<u8>, parameters: Parameters) -> Option<Hello> {
        let seat = match self.admit() {
            Ok(seat) => seat,
            Err(report) => return self.refuse(report).await,
        };
        let console = &self.shared.config.console;
        if console.enabled && parameters.database == console.database && !parameters.replication {
            return self.connect_console(packet, parameters, seat).await;
        }
        match self.shared.target.connect().await {
            Ok(back) => {
                let Self { front, address, .. } = self;
                Some(Hello { front, back, packet, parameters, seat, address, console: false })
            }
            Err(error) => {
                let address = &self.shared.target.address;
                let text = format!("could not connect to the server at {address}: {error}");
                tracing::warn!(backend = %address, %error, "could not connect to the server");
                let report = Report::fatal(sqlstate::CONNECTION_FAILURE, text);
                self.refuse(report.hint(
                    "The proxy runs. Check that the server runs, and that backend in [proxy] and [backend.tls] of proxy.toml fit the server.",
                ))
                .await
            }
        }
    }

    /// Makes the console the client's backend.
    async fn connect_console(self, packet: Vec<u8>, parameters: Parameters, seat: Option<Seat>) -> Option<Hello> {
        let (back, far) = match UnixStream::pair() {
            Ok(pair) => pair,
            Err(error) => {
                let text = format!("could not make a socket for the console: {error}");
                return self.refuse(Report::fatal(sqlstate::CANNOT_CONNECT_NOW, text)).await;
            }
        };
        // Both ends of the pair belong to this process, so that the pair tells its user.
        let own_user = far.peer_cred().ok().map(|credentials| credentials.uid());
        let peer = match &self.front {
            Stream::Unix(front) => front.peer_cred().ok().map(|credentials| credentials.uid()),
            _ => None,
        };
        let caller = Caller { address: self.address, trusted: peer.is_some() && peer == own_user };
        let host: Arc<dyn Host> = Arc::clone(self.shared) as Arc<dyn Host>;
        console::spawn(far, host, caller);
        let Self { front, address, .. } = self;
        let back = Stream::Unix(back);
        Some(Hello { front, back, packet, parameters, seat, address, console: true })
    }

    /// Whether the limits allow one more client, and its connection is encrypted as the settings demand.
    fn admit(&mut self) -> Result<Option<Seat>, Report> {
        let Self { shared, front, address, crowded, .. } = self;
        if shared.front_tls.mode() == ListenTlsMode::Require && matches!(front, Stream::Tcp(_)) {
            return Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, "the proxy takes encrypted connections only")
                .hint("Connect with sslmode=require, or better verify-full. The setting is mode in [listen.tls] of proxy.toml."));
        }
        if *crowded {
            return Err(too_many("max_clients"));
        }
        let limit = shared.config.proxy.max_clients_per_address;
        match address {
            Some(address) if limit > 0 => {
                Seat::new(shared, *address, limit).map(Some).ok_or_else(|| too_many("max_clients_per_address"))
            }
            _ => Ok(None),
        }
    }

    async fn refuse<T>(mut self, report: Report) -> Option<T> {
        self.shared.metrics.sessions_refused.add();
        let _ = self.front.write_all(&reply::report(&report)).await;
        let _ = self.front.flush().await;
        let _ = self.front.shutdown().await;
        None
    }
}

/// The error in PostgreSQL's words.
fn too_many(setting: &str) -> Report {
    Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
        .hint(format!("The proxy's limit is {setting} in [proxy] of proxy.toml."))
}

/// The CancelRequest goes to the server as it came, over a connection of its own. The client's connection is closed when the server has closed
/// that one.
async fn cancel(shared: &Arc<Shared>, packet: &[u8]) {
    shared.metrics.cancel_requests.add();
    let request = packet.get(8..).unwrap_or_default();
    // The console answers at once, so that there is nothing to cancel.
    if pid_of(request).is_some_and(|pid| pid >= console::FIRST_PID) {
        return;
    }
    let under_way = shared.cancellable(request);
    let on_its_way = under_way.as_ref().map(|(cancels, _)| cancels.send());
    if let Err(error) = backend::cancel(&shared.target, packet).await {
        tracing::warn!(%error, "a cancel request did not reach the server");
    }
    if let Some((cancels, request)) = under_way {
        cancels.cancel(request);
    }
    drop(on_its_way);
}
