//! The requests of the webhook: one event after the other, each tried several times.
//!
//! Invariants: the body is signed as it is sent. A request takes a bounded time, and so does an event. Neither the secret nor the path of the
//! URL is logged. A redirect is not followed, since it would take an event to somebody whom no setting names.

use crate::config::{Secret, WebUrl, WebhookSettings};
use crate::metrics::Metrics;
use crate::tls::{SettingError, WebClient};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use ring::hmac;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The longest that one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// The pauses before the second and each further try of an event.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
/// The longest that events which wait are delivered when the proxy ends.
const AT_THE_END: Duration = Duration::from_secs(3);
/// The header of the signature: `sha256=` and the HMAC-SHA256 of the body in hexadecimal digits.
const SIGNATURE: &str = "x-pgsluice-signature";

/// Delivers the events of a queue.
#[derive(Debug)]
pub struct Deliveries {
    url: WebUrl,
    secret: Option<Secret>,
    tls: Option<WebClient>,
    waiting: mpsc::Receiver<Vec<u8>>,
    metrics: Arc<Metrics>,
}

/// How one request ended.
enum Tried {
    Taken,
    /// Another try is useless.
    Refused(StatusCode),
    /// Another try may succeed.
    NotNow(String),
}

impl Deliveries {
    pub(super) fn new(
        settings: &WebhookSettings,
        url: &WebUrl,
        waiting: mpsc::Receiver<Vec<u8>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SettingError> {
        let tls = url.is_https().then(|| WebClient::new("webhook.ca", settings.ca.as_deref())).transpose()?;
        Ok(Self { url: url.clone(), secret: settings.secret.clone(), tls, waiting, metrics })
    }

    /// Delivers until `end`, and then what waits, for a few seconds.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            let body = tokio::select! {
                biased;
                () = &mut end => break,
                body = self.waiting.recv() => match body {
                    Some(body) => Bytes::from(body),
                    None => return,
                },
            };
            let delivered = tokio::select! {
                () = &mut end => false,
                () = self.deliver(body.clone()) => true,
            };
            if !delivered {
                self.at_the_end(Some(body)).await;
                return;
            }
        }
        self.at_the_end(None).await;
    }

    async fn at_the_end(&mut self, first: Option<Bytes>) {
        let rest = async {
            let mut next = first;
            while let Some(body) = next.take().or_else(|| self.waiting.try_recv().ok().map(Bytes::from)) {
                let tried = self.request(body).await;
                self.count(matches!(tried, Tried::Taken));
            }
        };
        let _ = tokio::time::timeout(AT_THE_END, rest).await;
        while self.waiting.try_recv().is_ok() {
            self.metrics.webhook_dropped.add();
        }
    }

    /// Tries until the receiver has taken the event, or until it is given up.
    async fn deliver(&self, body: Bytes) {
        let mut pauses = PAUSES.into_iter();
        loop {
            let why = match self.request(body.clone()).await {
                Tried::Taken => return self.count(true),
                Tried::Refused(status) => format!("the receiver answered {status}"),
                Tried::NotNow(why) => match pauses.next() {
                    Some(pause) => {
                        tracing::debug!(receiver = %self.url, reason = why, "an event for the webhook is tried again");
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    None => why,
                },
            };
            tracing::warn!(receiver = %self.url, reason = why, "an event for the webhook was not delivered");
            return self.count(false);
        }
    }

    fn count(&self, taken: bool) {
        if taken { self.metrics.webhook_delivered.add() } else { self.metrics.webhook_failed.add() }
    }

    async fn request(&self, body: Bytes) -> Tried {
        match tokio::time::timeout(REQUEST, self.post(body)).await {
            Ok(Ok(status)) if status.is_success() => Tried::Taken,
            Ok(Ok(status)) => {
                let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
                let not_now = status.is_server_error() || later.contains(&status);
                if not_now { Tried::NotNow(format!("the receiver answered {status}")) } else { Tried::Refused(status) }
            }
            Ok(Err(error)) => Tried::NotNow(error.to_string()),
            Err(_) => Tried::NotNow("the receiver took too long".to_owned()),
        }
    }

    async fn post(&self, body: Bytes) -> io::Result<StatusCode> {
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await?;
        match &self.tls {
            None => self.exchange(stream, body).await,
            Some(tls) => self.exchange(tls.connect(stream, self.url.host()).await?, body).await,
        }
    }

    /// Sends the request and reads the head of the answer. The rest of the answer is of no interest.
    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Bytes,
    ) -> io::Result<StatusCode> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = self.signed(body).map_err(io::Error::other)?;
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // The connection may end right behind the answer.
            _ = &mut connection => answer.await,
        };
        answer.map(|answer| answer.status()).map_err(io::Error::other)
    }

    fn signed(&self, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.path())
            .header(header::HOST, self.url.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("pgsluice/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        let request = match &self.secret {
            None => request,
            Some(secret) => request.header(SIGNATURE, signature(secret, &body)),
        };
        request.body(Full::new(body))
    }
}

fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in hmac::sign(&key, body).as_ref() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_hmac_sha256() {
        assert_eq!(
            signature(&Secret::new("Jefe"), b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
