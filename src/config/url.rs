//! The URL of a receiver: `https://HOST[:PORT][/PATH]`, or the same with `http`.
//!
//! Invariant: no error and no print shows the path, since services put a token there.

use std::fmt;

/// A URL of HTTP, without a user name and without a fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl {
    https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// The path and the query. It begins with a slash.
    path: String,
}

impl WebUrl {
    /// The forms that a setting may have.
    pub(super) const ALLOWED: &'static str = "\"https://HOST[:PORT]/PATH\" or \"http://HOST[:PORT]/PATH\"";

    /// The URL of a text. `None`: it is none, or has a part that the proxy would not send.
    pub fn new(text: &str) -> Option<Self> {
        let (https, rest) = match text.split_once("://")? {
            ("https", rest) => (true, rest),
            ("http", rest) => (false, rest),
            _ => return None,
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\') {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
            None => (authority, if https { 443 } else { 80 }),
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok())?,
            None => host,
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        let host = Some(host).filter(|host| !host.is_empty() && host.bytes().all(named))?.to_owned();
        Some(Self { https, host, port, path })
    }

    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path and the query. They may be secret.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `HOST` or `HOST:PORT`, as the header `Host` has it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.https { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read() {
        let url = WebUrl::new("https://hooks.example.com/T1/secret?x=1").unwrap();
        assert_eq!(
            (url.is_https(), url.host(), url.port(), url.path()),
            (true, "hooks.example.com", 443, "/T1/secret?x=1")
        );
        assert_eq!(
            (url.to_string(), url.authority()),
            ("https://hooks.example.com".into(), "hooks.example.com".into())
        );
        assert!(!format!("{url:?} {url}").contains("secret"));
        let url = WebUrl::new("http://[::1]:8080?q").unwrap();
        assert_eq!((url.host(), url.port(), url.path(), url.authority()), ("::1", 8080, "/?q", "[::1]:8080".into()));
        assert_eq!(WebUrl::new("http://h").unwrap().path(), "/");
    }

    #[test]
    fn what_is_no_url_is_none() {
        for text in [
            "",
            "h",
            "ftp://h/",
            "https://",
            "https:///x",
            "https://u:p@h/",
            "https://h:0/",
            "https://h:x/",
            "https://h/ x",
            "https://h/#f",
            "https://h\r\nX: y/",
            "https://[::1/",
            "https://[x]/",
            "HTTPS://h/",
        ] {
            assert_eq!(WebUrl::new(text), None, "{text}");
        }
    }
}
