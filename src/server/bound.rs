//! The sockets that the proxy listens on.
//!
//! It owns nothing. It keeps true: an address that another program uses is an error, and the file of a Unix socket that a dead proxy has left
//! is none.

use crate::config::Address;
use crate::net;
use crate::pg::sqlstate;
use crate::report::Report;
use std::net::ToSocketAddrs;

/// A listening socket that no runtime knows yet.
pub(super) enum Bound {
    Tcp(std::net::TcpListener),
    /// A Unix socket. Its file is removed when the proxy ends.
    Unix(std::os::unix::net::UnixListener),
}

pub(super) fn bind(address: &Address) -> Result<(Vec<Bound>, Address), Report> {
    let failed = |error: &std::io::Error| {
        let report = Report::fatal(sqlstate::CONNECTION_FAILURE, format!("could not listen on {address}: {error}"));
        if error.kind() == std::io::ErrorKind::AddrInUse {
            report.hint(
                "Another program uses this address. Stop it, or choose another address with --listen or listen in [proxy].",
            )
        } else {
            report
        }
    };
    match address {
        Address::Tcp { host, port } => {
            let mut bound = Vec::new();
            let mut at = *port;
            for socket in (host.as_str(), *port).to_socket_addrs().map_err(|e| failed(&e))? {
                let listener = net::bind_tcp(socket).map_err(|e| failed(&e))?;
                at = listener.local_addr().map_err(|e| failed(&e))?.port();
                bound.push(Bound::Tcp(listener));
                if *port == 0 {
                    break;
                }
            }
            Ok((bound, Address::tcp(host, at)))
        }
        Address::Unix { dir, port } => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            // A socket file without a listener was left by a proxy that died.
            if std::os::unix::net::UnixStream::connect(&path).is_err() {
                let _ = std::fs::remove_file(&path);
            }
            let listener = std::os::unix::net::UnixListener::bind(&path).map_err(|e| failed(&e))?;
            listener.set_nonblocking(true).map_err(|e| failed(&e))?;
            Ok((vec![Bound::Unix(listener)], address.clone()))
        }
    }
}

/// The files of the Unix sockets.
pub(super) fn socket_files(listen: &[Address]) -> Vec<std::path::PathBuf> {
    listen.iter().filter_map(Address::socket_path).collect()
}
