//! One client from hello to goodbye; the only place that knows all stages.
//!
//! The loop below reads as the list of stages: relay until something needs attention, attend to it,
//! go on. Invariant: the proxy speaks for the server only when the backend is idle and everything
//! owed to the client has been put on its way.

mod advisory;
mod aside;
mod block;
mod ddl;
mod extended;
mod interceptor;
mod guarded;
mod hello;
mod pipeline;
mod prepared;
mod proxy_header;
mod shared;
mod simple;
mod slow;
mod statement;
mod string;
mod together;
mod turn;
mod unfinished;

pub use self::shared::Shared;
use crate::backend::ServerChannel;
use crate::net::Arrival;
use crate::pg::sqlstate;
use crate::relay::{Event, Link, Login};
use crate::report::Report;
use crate::wire::startup::Parameters;
use interceptor::Interceptor;
use shared::{Registered, Seat};
use slow::TryHistory;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How far the proxy is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    No,
    /// Sessions end when they are idle and outside a transaction.
    Idle,
    /// Sessions end.
    Now,
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameOutcome {
    Continue,
    End,
}

#[derive(Debug)]
struct Session {
    shared: Arc<Shared>,
    channel: ServerChannel,
    interceptor: Interceptor,
    /// Boxed, as it is looked at for the log only.
    parameters: Box<Parameters>,
    /// What its first tries have shown. Boxed, as few sessions try any.
    try_history: Option<Box<TryHistory>>,
    guard_only: guarded::GuardOnly,
    /// A transaction block that the proxy opened, to keep an implicit transaction together.
    owns_block: bool,
    /// Counted as one of its address, until the session ends.
    _seat: Option<Seat>,
}

/// Serves one client to its end.
///
/// `crowded`: there are as many clients as there may be; a cancel request is served still.
pub async fn serve(arrival: Arrival, crowded: bool, shared: Arc<Shared>, mut drain: watch::Receiver<Drain>) {
    let login = Box::pin(hello::hello(arrival, crowded, &shared));
    let hello = match tokio::time::timeout(shared.config.proxy.login_timeout, login).await {
        Ok(Some(hello)) => hello,
        Ok(None) => return,
        Err(_) => return tracing::info!("a client did not say who it is within login_timeout"),
    };
    // Not moved from here on: each move into a future would be room for one more session in it.
    let mut session = Session::new(shared, hello);
    session.run(&mut drain).await;
}

impl Session {
    fn new(shared: Arc<Shared>, hello: hello::Hello) -> Self {
        let (front_encrypted, back_encrypted) = (hello.front.is_encrypted(), hello.back.is_encrypted());
        let mut link = Link::new(hello.front, hello.back, &hello.packet);
        link.login = match (front_encrypted, back_encrypted) {
            (false, true) => Login::NoBinding,
            (true, true) => Login::Encrypted,
            _ => Login::Plain,
        };
        let limit = u32::try_from(shared.config.ddl.notifications_limit).unwrap_or(u32::MAX);
        let channel = ServerChannel::new(link, Arc::clone(&shared.target), limit);
        let interceptor = Interceptor::new(&shared, &hello.parameters);
        Self {
            shared,
            channel,
            interceptor,
            parameters: Box::new(hello.parameters),
            try_history: None,
            guard_only: guarded::GuardOnly::default(),
            owns_block: false,
            _seat: hello.seat,
        }
    }

    async fn run(&mut self, drain: &mut watch::Receiver<Drain>) {
        let limit = self.shared.config.proxy.login_timeout;
        match Box::pin(tokio::time::timeout(limit, self.login())).await {
            Ok(FrameOutcome::Continue) => {}
            Ok(FrameOutcome::End) => return,
            Err(_) => return tracing::info!("a login was not over within login_timeout"),
        }
        self.shared.metrics.sessions.add();
        let registered = Registered::new(&self.shared, &self.channel);
        self.relay(drain).await;
        drop(registered);
    }

    /// Up to the first ReadyForQuery, all of it the client's and the server's own affair.
    async fn login(&mut self) -> FrameOutcome {
        loop {
            let event = self.channel.pump_settling(&mut self.interceptor).await;
            match event {
                Event::Settled => {
                    self.channel.set_login(Login::Plain);
                    return FrameOutcome::Continue;
                }
                // No frame is looked at before the session is ready.
                Event::Frame => self.channel.pass_frame(),
                other => return self.end(other).await,
            }
        }
    }

    async fn relay(&mut self, drain: &mut watch::Receiver<Drain>) {
        loop {
            let draining = *drain.borrow_and_update();
            if draining == Drain::Now || (draining == Drain::Idle && self.is_idle()) {
                return Box::pin(self.goodbye()).await;
            }
            let event = tokio::select! {
                biased;
                event = async {
                    if draining == Drain::Idle {
                        self.channel.pump_settling(&mut self.interceptor).await
                    } else {
                        self.channel.pump(&mut self.interceptor).await
                    }
                } => event,
                _ = drain.changed() => continue,
            };
            let flow = match event {
                // Boxed, as all that is rare: an idle session should not carry the room that a schema change needs.
                Event::Frame => self.attend_until(drain).await,
                Event::Settled => FrameOutcome::Continue,
                other => Box::pin(self.end(other)).await,
            };
            if flow == FrameOutcome::End {
                return;
            }
        }
    }

    /// Attends to a frame. When the sessions are to end, the work is cancelled, and what it left is still undone.
    async fn attend_until(&mut self, drain: &mut watch::Receiver<Drain>) -> FrameOutcome {
        let cancels = self.channel.cancels().clone();
        let key = self.channel.backend_key().clone();
        let mut attending = Box::pin(self.attend());
        tokio::select! {
            flow = &mut attending => return flow,
            () = drained(drain) => {}
        }
        cancels.requests().cancel(cancels.requests().current());
        cancels.cancel_work(&key);
        tokio::time::timeout(CLEAN_UP, attending).await.unwrap_or(FrameOutcome::End)
    }

    fn is_idle(&self) -> bool {
        self.channel.status() == b'I' && self.channel.owes() == 0 && !self.channel.is_unsynced()
    }

    /// The proxy goes away: the client is told as the server would tell it.
    async fn goodbye(&mut self) {
        self.last_word(
            &Report::fatal(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
                .detail("The proxy is shutting down."),
        )
        .await;
    }

    /// A FATAL error of the proxy's own, if the client can take one: amid a message of the server's it could not.
    async fn last_word(&mut self, report: &Report) {
        if self.channel.between_messages() {
            self.channel.notify(report);
        }
        self.close().await;
    }

    /// One frame of the client's that needs a look.
    async fn attend(&mut self) -> FrameOutcome {
        let Some(header) = self.channel.peek_header() else { return FrameOutcome::End };
        self.channel.cancels().requests().begin();
        let flow = match header.tag {
            b'Q' => self.query().await,
            b'P' => self.parse().await,
            b'E' => self.execute().await,
            b'S' => self.sync().await,
            b'B' => self.refuse_session(&extended::prepared_too_much()).await,
            _ => {
                self.channel.pass_frame();
                FrameOutcome::Continue
            }
        };
        // The server delivers notifications between two commands of the client's, not amid one.
        self.channel.send_notifications();
        flow
    }

    /// An event that ends the session.
    async fn end(&mut self, event: Event) -> FrameOutcome {
        match event {
            Event::Broken { front: true, what } => {
                tracing::info!(what, "a client broke the protocol");
                self.last_word(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, what)).await;
            }
            Event::Broken { front: false, what } => {
                tracing::warn!(what, "the server broke the protocol");
                self.last_word(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, format!("from the server: {what}"))).await;
            }
            Event::BackendClosed | Event::FrontendGone | Event::Frame | Event::Settled => self.close().await,
        }
        FrameOutcome::End
    }

    /// Gives the client what is still on its way, for a short while.
    async fn close(&mut self) {
        let _ = tokio::time::timeout(LAST_WORDS, self.channel.finish_client()).await;
    }
}

/// A client that does not read is not waited for longer.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What a cancelled schema change may take to undo what it left, when the proxy stops. A drop that waits for
/// somebody still goes on in its backend, which does not notice that nobody listens.
pub const CLEAN_UP: Duration = Duration::from_secs(4);

async fn drained(drain: &mut watch::Receiver<Drain>) {
    if drain.wait_for(|state| *state == Drain::Now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Thousands of clients are idle at any time: what is rare must be boxed.
    #[tokio::test]
    async fn an_idle_session_is_small() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (_drain, watched) = watch::channel(Drain::No);
        let shared = Arc::new(Shared::new(Config::default()).unwrap());
        let session = serve(Arrival::Unix(one), false, shared, watched);
        let size = size_of_val(&session);
        assert!(size <= 1024, "{size} bytes for each session");
    }
}
