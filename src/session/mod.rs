//! One client from its first packet to its last; the only place that knows all parts.
//!
//! `Session` owns the parts and puts them together. It keeps true: the proxy answers in place of the server only when the backend is idle and
//! every answer that is owed to the client has been sent on.
//!
//! A session relays until a frame needs attention, attends to the frame, and relays again. A frame that needs attention comes in by its protocol
//! (`simple`, `extended`). If the client's block holds the locks that it needs, it passes. Otherwise it is a schema change. Its answer goes out by
//! its protocol.
//!
//! - `hello`, `proxy_header`: the first packets. `shared`: the state that all sessions share.
//! - `interceptor`, `prepared`: which frames stop the relay. `block`, `journal`: the client's transaction, and what the client has sent in it.
//! - `simple`, `extended`: the two protocols. They know no plan and no facts. They use `text` (the verdict on a text), `statement`, `pipeline`,
//!   `transaction` (the proxy's own block) and `reply`. Their result for a frame is an `outcome`.
//! - `change`: the schema changes. They know no frame and no portal. `advisory`: waits for advisory locks. Both make their runs by `run`.
//! - `aside`: work that takes long. `continuing`: changes that go on without their clients. `console`: what the console may see and do.

mod advisory;
mod ahead;
mod ahead_statements;
mod aside;
mod block;
mod change;
mod console;
mod continuing;
mod extended;
mod hello;
mod interceptor;
mod journal;
mod outcome;
mod pipeline;
mod prepared;
mod proxy_header;
mod reply;
mod run;
mod shared;
mod simple;
mod sent;
mod statement;
mod text;
mod transaction;

pub use self::shared::{Drain, Shared};

use self::ahead::AheadRun;
use self::change::SchemaChanges;
use self::extended::{Extended, prepared_too_much};
use self::interceptor::Interceptor;
use self::outcome::{FrameOutcome, SessionEnd};
use self::shared::{Registered, Seat};
use self::simple::Simple;
use crate::backend::ServerChannel;
use crate::execute::RunError;
use crate::net::Arrival;
use crate::pg::sqlstate;
use crate::registry::SessionEntry;
use crate::relay::{Event, Link, Login};
use crate::report::{Report, Severity};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// One client, and its backend.
#[derive(Debug)]
struct Session {
    shared: Arc<Shared>,
    channel: ServerChannel,
    interceptor: Interceptor,
    changes: SchemaChanges,
    /// The client's place among the clients of its address, until the session ends.
    _seat: Option<Seat>,
}

/// Serves one client until its connection ends.
/// `crowded`: there are as many clients as there may be. A CancelRequest is still served.
pub async fn serve(arrival: Arrival, crowded: bool, shared: Arc<Shared>, mut drain: watch::Receiver<Drain>) {
    let login = Box::pin(hello::hello(arrival, crowded, &shared));
    let hello = match tokio::time::timeout(shared.config.proxy.login_timeout, login).await {
        Ok(Some(hello)) => hello,
        Ok(None) => return,
        Err(_) => return tracing::info!("a client did not say who it is within login_timeout"),
    };
    // The session is not moved from here on. Each move into a future would take the memory of one more session.
    let mut session = Session::new(shared, hello);
    session.run(&mut drain).await;
}

impl Session {
    fn new(shared: Arc<Shared>, hello: hello::Hello) -> Self {
        let (front_encrypted, back_encrypted) = (hello.front.is_encrypted(), hello.back.is_encrypted());
        let mut link = Link::new(hello.front, hello.back, &hello.packet);
        link.set_login(match (front_encrypted, back_encrypted) {
            (false, true) => Login::NoBinding,
            (true, true) => Login::Encrypted,
            _ => Login::Plain,
        });
        let parameters = Arc::new(hello.parameters);
        let number = shared.registry.next_session();
        let mut entry = SessionEntry::new(number, Arc::clone(&parameters), hello.address, front_encrypted);
        entry.console = hello.console;
        let limit = u32::try_from(shared.config.ddl.notifications_limit).unwrap_or(u32::MAX);
        let channel = ServerChannel::new(link, Arc::clone(&shared.target), limit);
        let interceptor = Interceptor::new(&shared, parameters.replication || hello.console);
        let changes = SchemaChanges::new(Arc::clone(&shared), Arc::new(entry));
        Self { shared, channel, interceptor, changes, _seat: hello.seat }
    }

    async fn run(&mut self, drain: &mut watch::Receiver<Drain>) {
        let limit = self.shared.config.proxy.login_timeout;
        match Box::pin(tokio::time::timeout(limit, self.login())).await {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return Box::pin(self.end(end)).await,
            Err(_) => return tracing::info!("a login was not over within login_timeout"),
        }
        if !self.changes.session().console {
            self.shared.metrics.sessions.add();
        }
        if let Some(version) = self.channel.take_server_version().filter(|_| !self.changes.session().console) {
            self.shared.registry.note_server_version(&version);
        }
        let registered = Registered::new(&self.shared, &self.channel, self.changes.session());
        let end = self.relay(drain).await;
        Box::pin(self.end(end)).await;
        drop(registered);
    }

    /// Relays up to the first ReadyForQuery. The login is between the client and the server.
    async fn login(&mut self) -> Result<(), SessionEnd> {
        loop {
            match self.channel.pump_settling(&mut self.interceptor).await {
                Event::Settled => {
                    self.channel.set_login(Login::Plain);
                    return Ok(());
                }
                // No frame is looked at before the session is ready.
                Event::Frame => self.channel.pass_frame(),
                other => return Err(SessionEnd::Event(other)),
            }
        }
    }

    /// Relays, and attends to the frames that need attention, until the session ends.
    async fn relay(&mut self, drain: &mut watch::Receiver<Drain>) -> SessionEnd {
        loop {
            let draining = *drain.borrow_and_update();
            if draining == Drain::Now || (draining == Drain::Idle && self.channel.is_idle()) {
                return SessionEnd::Drained;
            }
            if self.interceptor.block().sees_writes() {
                // It is rare, and an idle session should not take its memory.
                match Box::pin(self.relay_holding(draining, drain)).await {
                    None => continue,
                    Some(end) => return end,
                }
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
                () = self.changes.session().killed() => return SessionEnd::Killed,
            };
            match event {
                Event::Frame => {
                    // The future is boxed, since it is rare. An idle session should not take the memory that a schema change needs.
                    if let Err(end) = Box::pin(self.attend_until(drain)).await {
                        return end;
                    }
                }
                Event::Settled => {}
                other => return SessionEnd::Event(other),
            }
        }
    }

    /// Relays one step of a transaction that holds a table. When the client has been idle for the hold budget, the table is freed. Returns the end
    /// of the session, if it ends.
    async fn relay_holding(&mut self, draining: Drain, drain: &mut watch::Receiver<Drain>) -> Option<SessionEnd> {
        let event = tokio::select! {
            biased;
            event = async {
                if draining == Drain::Idle {
                    self.channel.pump_settling(&mut self.interceptor).await
                } else {
                    self.channel.pump(&mut self.interceptor).await
                }
            } => event,
            _ = drain.changed() => return None,
            () = self.changes.session().killed() => return Some(SessionEnd::Killed),
            () = tokio::time::sleep(self.shared.config.locks.hold_budget) => {
                self.free_idle().await;
                return None;
            }
        };
        match event {
            Event::Frame => Box::pin(self.attend_until(drain)).await.err(),
            Event::Settled => None,
            other => Some(SessionEnd::Event(other)),
        }
    }

    /// The client's transaction holds a table, and the client has been idle for the hold budget.
    async fn free_idle(&mut self) {
        let Self { shared, channel, interceptor, changes, .. } = self;
        let busy =
            channel.status() != b'T' || channel.owes() > 0 || channel.is_unsynced() || !channel.owed_is_certain();
        if busy || !channel.between_messages() {
            return;
        }
        channel.cancels().requests().begin();
        let block = interceptor.block_mut();
        let result = AheadRun { channel, block, changes, shared }.free_idle().await;
        if let Err(stop) = result {
            // No statement is under way that could get the error. The next one finds a transaction that has failed.
            tracing::info!(reason = stop.reason(), "a transaction has failed while its client was idle");
            if let RunError::Report(report) = stop {
                self.channel.notify(&Report { severity: Severity::Warning, ..report });
            }
        }
    }

    /// Attends to a frame. If the sessions are to end meanwhile, the work is cancelled. It then still undoes its earlier phases.
    async fn attend_until(&mut self, drain: &mut watch::Receiver<Drain>) -> Result<(), SessionEnd> {
        let cancels = self.channel.cancels().clone();
        let key = self.channel.backend_key().clone();
        let entry = Arc::clone(self.changes.session());
        let mut attending = pin!(self.attend());
        tokio::select! {
            result = &mut attending => return result,
            () = drained(drain) => {}
            () = entry.killed() => {}
        }
        cancels.requests().cancel(cancels.requests().current());
        cancels.cancel_work(&key);
        tokio::time::timeout(CLEAN_UP, attending).await.unwrap_or(Err(SessionEnd::TakesTooLong))
    }

    /// Attends to the client's frame: it is answered, or goes to the server as it came.
    async fn attend(&mut self) -> Result<(), SessionEnd> {
        let header = self.channel.peek_header().ok_or_else(SessionEnd::without_frame)?;
        self.channel.cancels().requests().begin();
        // What runs has its own entry; what ran before is over.
        self.channel.set_change(None);
        let Self { shared, channel, interceptor, changes, .. } = self;
        let journaled = interceptor.block().keeper().length();
        let outcome = match header.tag {
            b'Q' => Simple::new(channel, interceptor, changes, shared).query().await?,
            b'P' => Extended::new(channel, interceptor, changes, shared).parse().await?,
            b'E' => Extended::new(channel, interceptor, changes, shared).execute().await?,
            b'S' => Extended::new(channel, interceptor, changes, shared).sync().await?,
            // The relay stops at a Bind only if the client is to be refused.
            b'B' => return Err(SessionEnd::refused(prepared_too_much())),
            b'X' => {
                self.leave(false).await;
                FrameOutcome::Pass
            }
            _ => FrameOutcome::Pass,
        };
        if outcome == FrameOutcome::Pass {
            let body = self.channel.peek_frame().map(|(_, body)| body);
            self.interceptor.passes(header.tag, body);
            self.channel.log_answers(self.interceptor.block().keeper().answers_limit());
            self.channel.pass_frame();
        } else {
            let failed = self.channel.status() == b'E';
            self.interceptor.block_mut().keeper_mut().handled(header.tag, journaled, failed);
        }
        // The server delivers notifications between two commands of the client's, and not during one.
        self.channel.send_notifications();
        Ok(())
    }

    /// Sends a FATAL error of the proxy's own, unless the client has got only a part of a message of the server's.
    async fn last_word(&mut self, report: &Report) {
        if self.channel.between_messages() {
            self.channel.notify(report);
        }
        self.close().await;
    }

    /// The session ends. If statements were done ahead of its transaction, they are undone; if the backend is `gone`, by the role's next
    /// statement.
    async fn leave(&mut self, gone: bool) {
        let block = self.interceptor.block_mut();
        if !block.has_ahead() {
            return;
        }
        let (channel, changes) = (&mut self.channel, &mut self.changes);
        let mut parts = AheadRun { channel, block, changes, shared: &self.shared };
        if gone || parts.leave().await.is_err() {
            parts.leave_behind();
        }
    }

    /// Ends the session.
    async fn end(&mut self, end: SessionEnd) {
        let gone = match end {
            SessionEnd::TakesTooLong | SessionEnd::Event(Event::Broken { front: false, .. }) => true,
            // A statement whose client has left ends in this way, too. If the backend is gone as well, the first question finds that.
            SessionEnd::Event(Event::BackendClosed) => !self.channel.client_gone(),
            _ => false,
        };
        let limit = if matches!(end, SessionEnd::Drained | SessionEnd::Killed) { CLEAN_UP } else { Duration::MAX };
        if tokio::time::timeout(limit, self.leave(gone)).await.is_err() {
            self.leave(true).await;
        }
        match end {
            SessionEnd::TakesTooLong => {}
            // The client is told as the server would tell it.
            SessionEnd::Drained | SessionEnd::Killed => {
                let what = "terminating connection due to administrator command";
                let killed = self.changes.session().is_killed();
                let why = if killed { "An operator has ended this session." } else { "The proxy is shutting down." };
                let report = Report::fatal(sqlstate::ADMIN_SHUTDOWN, what).detail(why);
                self.last_word(&report).await;
            }
            SessionEnd::Refused(report) => {
                self.shared.metrics.ddl_refused.add();
                self.last_word(&Report { severity: Severity::Fatal, ..*report }).await;
            }
            SessionEnd::Event(Event::Broken { front: true, what }) => {
                tracing::info!(what, "a client broke the protocol");
                self.last_word(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, what)).await;
            }
            SessionEnd::Event(Event::Broken { front: false, what }) => {
                tracing::warn!(what, "the server broke the protocol");
                self.last_word(&Report::fatal(sqlstate::PROTOCOL_VIOLATION, format!("from the server: {what}"))).await;
            }
            SessionEnd::Event(_) => self.close().await,
        }
    }

    /// Sends the rest of the bytes to the client, and waits a short while for it to read them.
    async fn close(&mut self) {
        let _ = tokio::time::timeout(LAST_WORDS, self.channel.finish_client()).await;
    }
}

/// The longest that the proxy waits for a client that does not read.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The time that a cancelled schema change has for its undo when the proxy stops. A drop that still waits for another session continues in its
/// backend, which does not notice that its client is gone.
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

    /// Thousands of clients are idle at any time, so state that is rare must be boxed.
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
