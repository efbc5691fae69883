//! Checks the server's certificate as libpq's `sslmode` does.
//!
//! Invariant: the signature of the handshake is checked in every mode, so the peer holds the key of the certificate that it
//! shows.

use super::files::{SettingError, certificates, provider, roots};
use crate::config::{BackendTls, BackendTlsMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The checks of one mode.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Checks the chain of certificates. `None` accepts any certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are trusted without a chain because the root file holds them, such as a self-signed one of the
    /// server's.
    trusted: Vec<CertificateDer<'static>>,
    /// Whether the certificate must name the host.
    name: bool,
}

/// # Errors
/// The roots cannot be read, or the system has none.
pub(super) fn verifier(settings: &BackendTls) -> Result<Arc<dyn ServerCertVerifier>, SettingError> {
    let provider = provider();
    let chain = match settings.mode {
        BackendTlsMode::VerifyCa | BackendTlsMode::VerifyFull => true,
        // A root certificate that is given is used, as in libpq.
        BackendTlsMode::Require => settings.root.is_some(),
        BackendTlsMode::Disable | BackendTlsMode::Prefer => false,
    };
    if !chain {
        return Ok(Arc::new(Verifier { provider, chain: None, trusted: Vec::new(), name: false }));
    }
    let (store, trusted) = match &settings.root {
        Some(path) => (roots("backend.tls.root", path)?, certificates("backend.tls.root", path)?),
        None => (system_roots("backend.tls.root")?, Vec::new()),
    };
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
        .build()
        .map_err(|error| format!("backend.tls.root: {error}"))?;
    let name = settings.mode == BackendTlsMode::VerifyFull;
    Ok(Arc::new(Verifier { provider, chain: Some(chain), trusted, name }))
}

/// The system's authorities. `key`: the setting that names others.
pub(super) fn system_roots(key: &str) -> Result<RootCertStore, SettingError> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        return Err(format!("{key}: the system has no root certificates; set a file"));
    }
    Ok(store)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            if self.name {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name, so here the chain is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
