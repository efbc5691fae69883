//! The proxy as a client of HTTPS: the receiver of the webhook must show a certificate for its name.
//!
//! Invariant: a certificate is always checked. There is no setting that turns this off.

use super::files::{SettingError, provider, roots};
use super::verify::system_roots;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The proxy as a client of HTTPS.
pub struct WebClient(TlsConnector);

impl std::fmt::Debug for WebClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebClient").finish_non_exhaustive()
    }
}

impl WebClient {
    /// `key`: the setting of `ca`, the file with the authorities that may have signed a certificate. `None` means the system's.
    ///
    /// # Errors
    /// The file cannot be read, or there are no authorities.
    pub fn new(key: &str, ca: Option<&Path>) -> Result<Self, SettingError> {
        let roots = match ca {
            Some(path) => roots(key, path)?,
            None => system_roots(key)?,
        };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| format!("{key}: {error}"))?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// The handshake failed. The text says what is wrong with the certificate.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("\"{host}\" is not a name that a certificate can have")))?;
        self.0.connect(name, stream).await
    }
}
