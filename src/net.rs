//! Sockets: TCP and Unix, towards clients and the server, with the options that a relay needs.
//!
//! [`Stream`] is the one type that the relay reads and writes. A TLS connection is a variant of it, and so is a socket on
//! a worker's io_uring ([`ring`]).

#[cfg(all(target_os = "linux", feature = "io_uring"))]
pub mod ring;
#[cfg(not(all(target_os = "linux", feature = "io_uring")))]
#[path = "net/no_ring.rs"]
pub mod ring;
pub mod tasks;

use crate::config::{Address, BackendTlsMode, Negotiation};
use crate::tls;
use ring::RingStream;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The variant is boxed so that a session without encryption does not carry its size.
    Tls(Box<tls::Stream>),
    Ring(RingStream),
    /// The socket was lost on its way to the ring.
    Lost,
}

impl Stream {
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => s.poll_read(cx, buf),
            Self::Ring(s) => s.poll_read(cx, buf),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// The stream may keep written bytes until [`Stream::poll_flush`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Tls(s) => s.poll_write(cx, bytes),
            Self::Ring(s) => s.poll_write(cx, bytes),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(s) => s.poll_flush(cx),
            Self::Ring(s) => s.poll_flush(cx),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Ends this side's sending; the peer reads end of file. The call waits only while a TLS layer has bytes left.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => s.poll_shutdown(cx),
            Self::Ring(s) => s.poll_shutdown(cx),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Moves the socket from the runtime's epoll to the thread's ring. Bytes that wait in the socket stay there.
    ///
    /// The operating system's error. The stream is lost then.
    /// As the operating system says; the stream is lost then.
    pub fn move_to_ring(&mut self) -> io::Result<()> {
        let socket: OwnedFd = match std::mem::replace(self, Self::Lost) {
            Self::Tcp(s) => s.into_std()?.into(),
            Self::Unix(s) => s.into_std()?.into(),
            other => {
                *self = other;
                return Ok(());
            }
        };
        *self = Self::Ring(RingStream::new(socket)?);
        Ok(())
    }
}

/// The server, and how to reach it.
#[derive(Debug)]
pub struct Target {
    pub address: Address,
    pub timeout: Duration,
    pub keepalive: Keepalive,
    pub tls: Arc<tls::Back>,
}

impl Target {
    /// Another address that is reached in the same way.
    #[must_use]
    pub fn at(&self, address: Address) -> Self {
        Self { address, timeout: self.timeout, keepalive: self.keepalive, tls: Arc::clone(&self.tls) }
    }

    /// Opens a connection, encrypted if the settings ask for it, on which nothing else has been sent.
    ///
    /// # Errors
    /// The error of the operating system or of the handshake, or `TimedOut`.
    pub async fn connect(&self) -> io::Result<Stream> {
        match tokio::time::timeout(self.timeout, self.connect_without_limit()).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out")),
        }
    }

    /// Whether the server accepts a connection, on which nothing is sent. The server does not log it.
    ///
    /// # Errors
    /// The operating system's error.
    pub async fn accepts(&self) -> io::Result<()> {
        match &self.address {
            Address::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(drop),
            Address::Unix { .. } => {
                let path = self.address.socket_path().ok_or(io::ErrorKind::InvalidInput)?;
                UnixStream::connect(path).await.map(drop)
            }
        }
    }

    async fn connect_without_limit(&self) -> io::Result<Stream> {
        let (host, port) = match &self.address {
            Address::Tcp { host, port } => (host, *port),
            Address::Unix { dir, port } => {
                return Ok(Stream::Unix(UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await?));
            }
        };
        let stream = self.connect_tcp(host, port).await?;
        let encrypted = match self.tls.settings().mode {
            BackendTlsMode::Disable => return Ok(Stream::Tcp(stream)),
            BackendTlsMode::Prefer => match self.encrypt(stream, host).await {
                Err(_) => return Ok(Stream::Tcp(self.connect_tcp(host, port).await?)),
                ok => ok?,
            },
            _ => match self.encrypt(stream, host).await? {
                Stream::Tcp(_) => {
                    return Err(io::Error::other("the server does not support SSL, but SSL was required"));
                }
                encrypted => encrypted,
            },
        };
        Ok(encrypted)
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((host, port)).await?;
        tune(&stream, self.keepalive)?;
        Ok(stream)
    }

    /// Asks for encryption, and begins it if the server agrees. It reads exactly one byte of the answer, since the bytes
    /// behind it belong to the handshake. If an error message comes instead, its sender has proved nothing, so the message
    /// is not shown.
    async fn encrypt(&self, mut stream: TcpStream, host: &str) -> io::Result<Stream> {
        if self.tls.settings().negotiation == Negotiation::Postgres {
            stream.write_all(&SSL_REQUEST).await?;
            match stream.read_u8().await? {
                b'S' => {}
                b'N' => return Ok(Stream::Tcp(stream)),
                b'E' => return Err(io::Error::other("the server answered the SSLRequest with an error")),
                _ => return Err(io::Error::other("the server gave an invalid answer to the SSLRequest")),
            }
        }
        Ok(Stream::Tls(Box::new(self.tls.connect(stream, host).await.map_err(named)?)))
    }
}

/// Marks an error as one of the TLS handshake.
fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("TLS: {error}"))
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// When the system notices that a peer has vanished. Zero leaves the system's own setting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keepalive {
    /// The silence before the first probe.
    pub idle: Duration,
    /// The time for which sent bytes may stay unacknowledged.
    pub user_timeout: Duration,
}

/// Sets TCP_NODELAY, since a relay must not add Nagle's wait to every exchange, and keepalive, so that a vanished peer is
/// noticed.
///
/// # Errors
/// The peer has left already.
pub fn tune(stream: &TcpStream, keepalive: Keepalive) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let Keepalive { idle, user_timeout } = keepalive;
    if idle > Duration::ZERO {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(idle / 6))?;
    }
    if user_timeout > Duration::ZERO {
        socket.set_tcp_user_timeout(Some(user_timeout))?;
    }
    Ok(())
}

/// A client on its way to the thread that will serve it. No runtime knows its socket yet.
#[derive(Debug)]
pub enum Arrival {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Accepts one client and returns its socket, with its address if it came by TCP.
    ///
    /// # Errors
    /// The operating system's error.
    pub async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Arrival::Tcp(stream.into_std()?, peer.ip().to_canonical()))
            }
            Self::Unix(listener) => Ok(Arrival::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

/// Binds and listens. It does not set SO_REUSEPORT, so that a second proxy on the same port gets an error.
///
/// # Errors
/// The operating system's error.
pub fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Self::poll_read(self.get_mut(), cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self.get_mut(), cx)
    }
}
