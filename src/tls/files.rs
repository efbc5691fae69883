//! Reads the files that the settings of TLS name: certificates, keys and roots.
//!
//! Invariant: an error names the setting and the file. It never contains a part of a key.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// Why a setting of TLS cannot be used: the setting, its file, and the reason.
pub type SettingError = String;

/// The cryptography of both sides' handshakes.
pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM file, which must hold at least one.
pub(super) fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let wrong = |error: &dyn std::fmt::Display| format!("{key}: {}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| wrong(&error))?;
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if all.is_empty() { Err(no_certificate(key, path)) } else { Ok(all) }
}

pub(super) fn no_certificate(key: &str, path: &Path) -> SettingError {
    format!("{key}: {}: the file contains no certificate (PEM)", path.display())
}

/// The private key of a PEM file. No part of the file enters the error.
pub(super) fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, SettingError> {
    let bytes = std::fs::read(path).map_err(|error| format!("{key}: {}: {error}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| format!("{key}: {}: the file contains no private key (PEM, without a passphrase)", path.display()))
}

/// The certificates of a PEM file, as roots to verify with.
pub(super) fn roots(key: &str, path: &Path) -> Result<RootCertStore, SettingError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        roots.add(certificate).map_err(|error| format!("{key}: {}: {error}", path.display()))?;
    }
    Ok(roots)
}
