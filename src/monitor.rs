//! HTTP for monitoring, on an address of its own: `/metrics`, `/livez` and `/readyz`.
//!
//! It runs on a thread of its own, so that nothing here can keep the relay waiting. It keeps true: a connection serves one request, within a
//! bounded time and a bounded amount of memory, and there are only so many connections at once. A peer can waste its own connection only.

use crate::metrics::{Exporter, Metrics};
use crate::net::Target;
use crate::session::Drain;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};

/// The most connections at once. A further one waits in the system's queue.
const CONNECTIONS: usize = 64;
/// The longest that a connection may last, from its first byte to the last byte of its answer.
const CONNECTION: Duration = Duration::from_secs(10);
/// The longest that a peer may take for the head of its request.
const HEAD: Duration = Duration::from_secs(5);
/// The most bytes of that head.
const HEAD_LIMIT: usize = 16 * 1024;
/// The pause after a connection could not be accepted. The system has no file left then.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that the server may take to accept a connection.
const PROBE: Duration = Duration::from_secs(2);
/// How long the result of such a probe holds.
const FRESH: Duration = Duration::from_secs(1);

/// What is shown, and what is asked for it.
#[derive(Debug)]
pub struct Monitor {
    exporter: Exporter,
    target: Arc<Target>,
    drain: watch::Receiver<Drain>,
    probed: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Monitor {
    /// `mode`: that of the proxy. `drain`: whether the proxy is to end.
    pub fn new(
        metrics: &Arc<Metrics>,
        mode: &'static str,
        target: Arc<Target>,
        drain: watch::Receiver<Drain>,
    ) -> Arc<Self> {
        Arc::new(Self { exporter: Exporter::new(metrics, mode), target, drain, probed: Mutex::default() })
    }

    /// Answers requests for as long as the runtime lives.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let own = Arc::clone(&self);
                    tokio::spawn(async move {
                        own.connection(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "could not accept a connection for monitoring");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let answer =
            service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(self.answer(&request).await) });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_LIMIT).keep_alive(false);
        let connection = http.serve_connection(TokioIo::new(stream), answer);
        match tokio::time::timeout(CONNECTION, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a request for monitoring failed"),
            Err(_) => tracing::debug!("a request for monitoring took too long"),
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" => match self.exporter.text() {
                Ok(metrics) => {
                    let mut answer = text(StatusCode::OK, metrics);
                    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Exporter::CONTENT_TYPE));
                    answer
                }
                Err(error) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, format!("could not write the metrics: {error}\n"))
                }
            },
            "/livez" => text(StatusCode::OK, "the proxy serves\n"),
            "/readyz" => match self.ready().await {
                Ok(()) => text(StatusCode::OK, "the proxy takes clients, and the server accepts connections\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n"),
        }
    }

    /// Whether the proxy can serve a new client. The error says why not.
    async fn ready(&self) -> Result<(), String> {
        if *self.drain.borrow() != Drain::No {
            return Err("the proxy is draining: it takes no new clients".to_owned());
        }
        // Requests that come meanwhile wait for the same probe.
        let mut probed = self.probed.lock().await;
        if let Some((_, result)) = probed.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return result.clone();
        }
        let result = match tokio::time::timeout(PROBE, self.target.accepts()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the server does not accept connections: {error}")),
            Err(_) => Err("the server does not accept connections in time".to_owned()),
        };
        *probed = Some((Instant::now(), result.clone()));
        result
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
