//! TLS on both sides, by rustls: settings become handshakes, and both sides get one kind of stream.
//!
//! Invariants: a session keeps the certificates with which it began when the files are read anew. Bytes that came in
//! plain text before a handshake are never taken for bytes that came after it, since both handshakes begin on the bare
//! socket. Keys are never shown.

mod files;
mod verify;
mod web;

pub use files::SettingError;
pub use web::WebClient;

use crate::config::{BackendTls, BackendTlsMode, ListenTls, ListenTlsMode};
use files::{certificates, no_certificate, private_key, provider, roots};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The ALPN protocol that PostgreSQL 17 requires of direct connections, and accepts from others too.
const ALPN: &[u8] = b"postgresql";

/// A TLS connection. The TLS layer may keep written bytes until [`Stream::poll_flush`].
#[derive(Debug)]
pub struct Stream {
    inner: tokio_rustls::TlsStream<TcpStream>,
    unflushed: bool,
}

impl Stream {
    fn new(inner: impl Into<tokio_rustls::TlsStream<TcpStream>>) -> Self {
        Self { inner: inner.into(), unflushed: false }
    }

    /// Reads bytes. A peer that ends without TLS's close_notify counts as at its end of file, since PostgreSQL's messages
    /// carry their own lengths.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            ready => ready,
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.unflushed |= matches!(written, Poll::Ready(Ok(_)));
        written
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    /// The certificate that the peer showed, in DER.
    fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.inner.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }
}

/// The contents of one side's files when they were last read. A session keeps the contents with which it began.
#[derive(Debug)]
struct Loaded<T>(RwLock<Option<Arc<T>>>);

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<T> Loaded<T> {
    fn get(&self) -> Option<Arc<T>> {
        self.0.read().ok()?.clone()
    }

    fn set(&self, new: T) {
        if let Ok(mut current) = self.0.write() {
            *current = Some(Arc::new(new));
        }
    }
}

/// The proxy as a TLS server, towards clients.
#[derive(Debug)]
pub struct Front {
    settings: ListenTls,
    current: Loaded<Acceptor>,
}

/// The contents of the files of `[listen.tls]` when they were last read.
struct Acceptor {
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Front {
    /// # Errors
    /// A file cannot be read, or its contents are not as required.
    pub fn new(settings: ListenTls) -> Result<Self, SettingError> {
        let front = Self { settings, current: Loaded::default() };
        front.reload()?;
        Ok(front)
    }

    /// Reads the files anew, for the sessions to come.
    ///
    /// # Errors
    /// The errors are those of [`Front::new`]. After an error the old contents stay in use.
    pub fn reload(&self) -> Result<(), SettingError> {
        if self.settings.mode == ListenTlsMode::Disable {
            return Ok(());
        }
        self.current.set(Acceptor::new(&self.settings)?);
        Ok(())
    }

    pub fn mode(&self) -> ListenTlsMode {
        self.settings.mode
    }

    /// Makes the handshake with a client. If `direct`, the client began it without an SSLRequest and must name the protocol
    /// by ALPN, as PostgreSQL requires.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn accept(&self, stream: TcpStream, direct: bool) -> io::Result<Stream> {
        let Some(current) = self.current.get() else { return Err(other("TLS is not configured")) };
        let stream = current.acceptor.accept(stream).await?;
        if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(other("the client opened a direct TLS connection without the ALPN protocol \"postgresql\""));
        }
        Ok(Stream::new(stream))
    }
}

impl Acceptor {
    fn new(settings: &ListenTls) -> Result<Self, SettingError> {
        let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else {
            return Err("listen.tls: a certificate and a key are required".to_owned());
        };
        let chain = certificates("listen.tls.certificate", certificate)?;
        let first = chain.first().cloned().ok_or_else(|| no_certificate("listen.tls.certificate", certificate))?;
        let key = private_key("listen.tls.key", key)?;
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| format!("listen.tls: {error}"))?;
        let builder = match &settings.ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots("listen.tls.ca", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier =
                    if settings.require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
                let verifier =
                    verifier.build().map_err(|error| format!("listen.tls.ca: {}: {error}", path.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("listen.tls: the certificate and the key do not match: {error}"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate: first })
    }
}

/// The proxy as a TLS client, towards the server.
#[derive(Debug)]
pub struct Back {
    settings: BackendTls,
    current: Loaded<ClientConfig>,
}

impl Back {
    /// # Errors
    /// A file cannot be read, or its contents are not as required.
    pub fn new(settings: BackendTls) -> Result<Self, SettingError> {
        let back = Self { settings, current: Loaded::default() };
        back.reload()?;
        Ok(back)
    }

    /// Reads the files anew, for the sessions to come.
    ///
    /// # Errors
    /// The errors are those of [`Back::new`]. After an error the old contents stay in use.
    pub fn reload(&self) -> Result<(), SettingError> {
        if self.settings.mode == BackendTlsMode::Disable {
            return Ok(());
        }
        self.current.set(client_config(&self.settings)?);
        Ok(())
    }

    pub fn settings(&self) -> &BackendTls {
        &self.settings
    }

    /// Makes the handshake with the server. Nothing but the server's consent may have been read from the socket.
    ///
    /// # Errors
    /// The handshake failed. The text says what is wrong with the certificate.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let Some(config) = self.current.get() else { return Err(other("TLS is not configured")) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| other(&format!("\"{host}\" is not a name that a certificate can have")))?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        if self.settings.negotiation == crate::config::Negotiation::Direct
            && stream.get_ref().1.alpn_protocol() != Some(ALPN)
        {
            return Err(other("the server answered a direct TLS connection without the ALPN protocol \"postgresql\""));
        }
        Ok(Stream::new(stream))
    }
}

fn client_config(settings: &BackendTls) -> Result<ClientConfig, SettingError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| format!("backend.tls: {error}"))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verify::verifier(settings)?);
    let mut config = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("backend.tls.certificate", certificate)?;
            let key = private_key("backend.tls.key", key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("backend.tls: the certificate and the key do not match: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Whether SCRAM's channel binding can hold through the proxy. The client binds to the certificate that the proxy showed,
/// and the server compares that with its own certificate (RFC 5929, `tls-server-end-point`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The proxy shows the server's own certificate.
    Same,
    Different,
}

/// Compares the certificate that the proxy shows with the one that the server showed on `back`.
pub fn binding(front: &Front, back: &Stream) -> Option<Binding> {
    let own = front.current.get()?;
    let same = back.peer_certificate()? == own.certificate.as_ref();
    Some(if same { Binding::Same } else { Binding::Different })
}

fn other(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}
