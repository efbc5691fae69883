//! Whether SCRAM's channel binding can hold, for the log.
//!
//! It owns nothing. It keeps true: nothing but the log depends on the answer.

use crate::config::{BackendTlsMode, ListenTlsMode};
use crate::net::Stream;
use crate::session::Shared;
use crate::tls::{self, Binding};

/// Logs whether SCRAM's channel binding can hold. libpq uses channel binding wherever both ends offer it.
pub(super) async fn check_binding(shared: &Shared) {
    let encrypted = shared.front_tls.mode() != ListenTlsMode::Disable;
    if !encrypted || shared.target.tls.settings().mode == BackendTlsMode::Disable {
        return;
    }
    let back = match shared.target.connect().await {
        Ok(Stream::Tls(back)) => back,
        Ok(_) => {
            return tracing::info!(
                "the server does not encrypt connections, so clients cannot use SCRAM channel binding"
            );
        }
        Err(error) => return tracing::warn!(%error, "could not compare the proxy's certificate with the server's"),
    };
    match tls::binding(&shared.front_tls, &back) {
        Some(Binding::Same) => {
            tracing::info!("the proxy shows the server's certificate, so SCRAM channel binding works");
        }
        Some(Binding::Different) => tracing::warn!(
            "the proxy's certificate is not the server's, so an encrypted client that logs in with SCRAM fails unless it connects \
             with channel_binding=disable; set the server's certificate and key in [listen.tls]"
        ),
        None => {}
    }
}
