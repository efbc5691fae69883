//! An address to listen on, or the address of the backend: `HOST:PORT` or `unix:DIR[:PORT]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A TCP address or a PostgreSQL Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host` without the brackets of an IPv6 address.
    Tcp { host: String, port: u16 },
    /// The socket file is `dir/.s.PGSQL.port`.
    Unix { dir: PathBuf, port: u16 },
}

impl Address {
    /// The forms that a setting may have.
    pub const ALLOWED: &'static str = "HOST:PORT or unix:DIR or unix:DIR:PORT";

    /// PostgreSQL's default port, for `unix:DIR`.
    pub const DEFAULT_PORT: u16 = 5432;

    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }

    /// The address as libpq's `host`: a host, or a directory.
    pub fn libpq_host(&self) -> String {
        match self {
            Self::Tcp { host, .. } => host.clone(),
            Self::Unix { dir, .. } => dir.display().to_string(),
        }
    }

    /// The path of a Unix socket's file.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { dir, port } => Some(dir.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port: Self::DEFAULT_PORT } => write!(f, "unix:{}", dir.display()),
            Self::Unix { dir, port } => write!(f, "unix:{}:{port}", dir.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| format!("expected {}", Self::ALLOWED))
    }
}

fn parse(text: &str) -> Option<Address> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (dir, port) = match rest.rsplit_once(':') {
            Some((dir, port)) => (dir, parse_port(port)?),
            None => (rest, Address::DEFAULT_PORT),
        };
        return (!dir.is_empty()).then(|| Address::Unix { dir: PathBuf::from(dir), port });
    }
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) => inner.contains(':').then_some(inner)?,
        None => (!host.contains([':', '/', '[', ']'])).then_some(host)?,
    };
    let plain = !host.is_empty() && !host.contains(char::is_whitespace);
    let port = parse_port(port)?;
    plain.then(|| Address::tcp(host, port))
}

/// A port from 1 to 65535, in digits only. Port 0 (any free port) is for users of the library, and not for a file.
fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok().filter(|port| *port != 0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_written() {
        for text in ["127.0.0.1:6432", "db.example:5432", "[::1]:5432", "unix:/run/postgresql", "unix:/tmp:6432"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "localhost",
            ":5432",
            "host:",
            "host:0",
            "host:65536",
            "host:+5",
            "::1:5432",
            "a b:1",
            "unix:",
            "unix::5",
            "unix:/tmp:x",
            "/tmp",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_file_is_named_as_postgresql_names_it() {
        let address: Address = "unix:/tmp:6432".parse().unwrap();
        assert_eq!(address.socket_path().unwrap(), PathBuf::from("/tmp/.s.PGSQL.6432"));
    }
}
