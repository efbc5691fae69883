//! The client waits for an advisory lock of its own (`SELECT pg_advisory_lock(…)`): it is served by polling.
//!
//! Why: a session that waits in the server holds a snapshot, which a concurrent build has to wait out; and where the builder is who holds the
//! lock, as the tools of several pods are that migrate at once, neither ever ends (40P01, for one that did nothing wrong).
//!
//! So the client's statement waits in the server for a moment only, shorter than the server's search for deadlocks begins. Then the lock is
//! tried again and again, with naps between, and once it is held the client's statement is run, which is granted at once: its
//! answer is the server's own. Cancel, `lock_timeout`, `statement_timeout` and the client's end have the effect that they have in the server.
//!
//! A deadlock between clients who wait like this is none that the server can see. So a session that others could wait for, too, stands in
//! the server's queue now and then for as long as the search takes; but never while somebody who holds an advisory lock builds.
//!
//! In a transaction block the naps are the proxy's: a build that meets a snapshot of a block waits for the block's end. So there a
//! `pg_cancel_backend` that comes between two tries is lost, as it is in any session that is idle; the client's own cancel is not.

use crate::execute::context::Context;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::timing::jitter;
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::sql::AdvisoryLock;
use crate::wire::error_response::ServerError;
use crate::wire::message::{Batch, bind_parameters};
use bytes::BytesMut;
use std::time::{Duration, Instant};

/// How the client has sent its call.
#[derive(Debug)]
pub enum ClientCall<'a> {
    /// A text of a string.
    Text(&'a str),
    /// The types in its Parse, the body of its Bind, the frame of its Execute.
    Bound { types: &'a [u8], bind: &'a [u8], execute: &'a [u8] },
}

/// What the client's statement came to.
#[derive(Debug, Default)]
struct ClientAnswer {
    /// What the client gets of it.
    frames: BytesMut,
    done: usize,
    error: Option<ServerError>,
}

/// The session's own limits; 0: none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timeouts {
    pub(super) lock: Duration,
    pub(super) statement: Duration,
    deadlock: Duration,
}

/// A look around.
#[derive(Debug, Clone, Copy)]
struct Surroundings {
    /// Another session could wait for this one.
    holds: bool,
    /// Somebody who holds an advisory lock builds an index concurrently, or does the like.
    builds: bool,
    may_sleep: bool,
    /// Of the backend that answers.
    pid: i32,
}

/// How one stay in the server's queue ended.
enum Queued {
    Done(Reply),
    /// The time was over.
    Locked(ServerError),
    /// Nothing can be set here: the client's statement is to go as it is.
    AsItIs,
}

/// The client's statement stands in the server's queue for so long first, as a short wait is over soonest there, and a build waits for
/// it no longer than this. Half of `deadlock_timeout` where that is less.
const FIRST: &str = "'400 ms'";

/// Keeps the session's `lock_timeout` for the rest of its transaction, and sets a shorter one: `$1`, or half of `deadlock_timeout`.
const SHORTEN_SQL: &str = "SELECT pg_catalog.set_config('pgsluice.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), \
     CASE WHEN pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '0' \
       OR pg_catalog.current_setting('lock_timeout')::pg_catalog.interval OPERATOR(pg_catalog.>) t.most \
     THEN pg_catalog.set_config('lock_timeout', \
       pg_catalog.concat(pg_catalog.ceil(pg_catalog.date_part('epoch', t.most) OPERATOR(pg_catalog.*) 1000), 'ms'), true) END FROM ";

const PUT_BACK_SQL: &str =
    "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pgsluice.lock_timeout'), true)";

/// As in [`View`]. A build holds the lock of its kind on its table, and its session the lane or the tool's own lock.
const LOOK_SQL: &str = "/* pgsluice: waiting for an advisory lock */ SELECT pg_catalog.pg_backend_pid(), \
     EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.granted \
       AND (l.locktype OPERATOR(pg_catalog.=) ANY (ARRAY['advisory', 'transactionid']) \
         OR l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock')), \
     EXISTS (SELECT FROM pg_catalog.pg_locks b WHERE b.locktype OPERATOR(pg_catalog.=) 'relation' AND b.granted \
       AND b.mode OPERATOR(pg_catalog.=) 'ShareUpdateExclusiveLock' AND b.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() \
       AND b.database OPERATOR(pg_catalog.=) ANY (SELECT m.database FROM pg_catalog.pg_locks m \
         WHERE m.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND m.locktype OPERATOR(pg_catalog.=) 'relation') \
       AND EXISTS (SELECT FROM pg_catalog.pg_locks a WHERE a.pid OPERATOR(pg_catalog.=) b.pid \
         AND a.locktype OPERATOR(pg_catalog.=) 'advisory' AND a.granted)), \
     pg_catalog.has_function_privilege('pg_catalog.pg_sleep(pg_catalog.float8)', 'execute')";

/// Who waits for long may be a little late: a nap is this part of the wait so far, within these bounds.
const SHARE: u32 = 20;
const LONGEST_NAP: Duration = Duration::from_millis(500);
/// Shorter than any `idle_in_transaction_session_timeout`.
const LONGEST_IN_A_BLOCK: Duration = Duration::from_millis(100);

/// The pauses between two searches for a deadlock double up to this.
const RAREST_SEARCH: Duration = Duration::from_secs(30);

/// Nobody cancels the same session more often, unless by a program.
const UNLOCKS: usize = 20;

/// `backend`: the pid that the server has given at the login.
///
/// # Errors
/// As the server's own: a cancel, a timeout, a deadlock; or the client is gone.
pub async fn advisory_lock(
    context: &mut Context<'_>,
    lock: &AdvisoryLock,
    own: &ClientCall<'_>,
    backend: Option<i32>,
) -> Result<Reply, RunError> {
    let most = format!(
        "(SELECT LEAST({FIRST}::pg_catalog.interval, pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval \
         OPERATOR(pg_catalog./) 2)) AS t(most)"
    );
    match queue(context, own, &most).await? {
        Queued::Done(reply) => Ok(reply),
        Queued::AsItIs => as_it_is(context, own).await,
        Queued::Locked(error) => poll_for(context, lock, own, backend, error).await,
    }
}

/// Stands in the server's queue for at most `most`: a FROM item.
async fn queue(context: &mut Context<'_>, own: &ClientCall<'_>, most: &str) -> Result<Queued, RunError> {
    /// BEGIN or SAVEPOINT, and the timeout.
    const BEFORE: usize = 2;
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    batch.statement(if inside { "SAVEPOINT pgsluice" } else { "BEGIN" }, &[]);
    batch.statement(&format!("{SHORTEN_SQL}{most}"), &[]);
    put_own(&mut batch, own);
    if inside {
        batch.statement(PUT_BACK_SQL, &[]);
        batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
    } else {
        batch.statement("COMMIT", &[]);
    }
    let told = told(context, batch, BEFORE).await?;
    let Some(error) = told.error else { return Ok(Queued::Done(Reply { frames: told.frames })) };
    if context.channel().client_gone() {
        return Err(RunError::ClientGone);
    }
    let locked = error.sqlstate() == sqlstate::LOCK_NOT_AVAILABLE && told.done == BEFORE;
    let refused = told.done < BEFORE && error.sqlstate() != sqlstate::QUERY_CANCELED;
    if !inside || locked || refused {
        context.rollback_attempt().await?;
    }
    match error {
        error if locked => Ok(Queued::Locked(error)),
        error if refused => {
            tracing::debug!(sqlstate = error.sqlstate(), "a wait for an advisory lock cannot be shortened");
            Ok(Queued::AsItIs)
        }
        error => Err(context.ended(error)),
    }
}

/// The client's statement alone.
async fn as_it_is(context: &mut Context<'_>, own: &ClientCall<'_>) -> Result<Reply, RunError> {
    let mut batch = Batch::new();
    put_own(&mut batch, own);
    let told = told(context, batch, 0).await?;
    match told.error {
        None => Ok(Reply { frames: told.frames }),
        Some(error) => Err(context.ended(error)),
    }
}

async fn poll_for(
    context: &mut Context<'_>,
    lock: &AdvisoryLock,
    own: &ClientCall<'_>,
    backend: Option<i32>,
    error: ServerError,
) -> Result<Reply, RunError> {
    context.metrics().advisory_waits.add();
    let timeouts = own_timeouts(context).await?;
    if !timeouts.lock.is_zero() && context.begun().elapsed() >= timeouts.lock {
        let stop = context.ended(error);
        return Err(context.give_up_block(stop).await);
    }
    let mut view = look_around(context).await?;
    // Behind a pooler the next statement may have another backend, and this one another client.
    if view.is_some_and(|view| backend.is_some_and(|pid| pid != view.pid)) {
        return as_it_is(context, own).await;
    }
    tracing::debug!("a client waits for an advisory lock");
    let (mut pause, mut searched) = (timeouts.deadlock, Instant::now());
    loop {
        if let Some(stop) = context.interrupted().or_else(|| timed_out(context, timeouts)) {
            return Err(context.give_up_block(stop).await);
        }
        if try_lock(context, lock, own).await? {
            return granted(context, lock, own).await;
        }
        if searched.elapsed() >= pause.mul_f64(0.5 + jitter()) {
            view = look_around(context).await?;
            if view.is_some_and(|view| view.holds && !view.builds)
                && let Some(reply) = search(context, own, timeouts).await?
            {
                return Ok(reply);
            }
            (pause, searched) = ((pause * 5 / 4).min(RAREST_SEARCH), Instant::now());
        }
        nap_for(context, view, timeouts).await?;
    }
}

/// Long enough in the server's queue for it to find a deadlock.
async fn search(
    context: &mut Context<'_>,
    own: &ClientCall<'_>,
    timeouts: Timeouts,
) -> Result<Option<Reply>, RunError> {
    let most = (timeouts.deadlock + timeouts.deadlock / 5).as_millis();
    let left = timeouts.lock.saturating_sub(context.begun().elapsed()).as_millis();
    let most = if timeouts.lock.is_zero() { most } else { most.min(left.max(1)) };
    match queue(context, own, &format!("(SELECT '{most} ms'::pg_catalog.interval) AS t(most)")).await {
        Ok(Queued::Done(reply)) => Ok(Some(reply)),
        Ok(Queued::Locked(_) | Queued::AsItIs) => Ok(None),
        Err(RunError::Server(error))
            if error.sqlstate() == sqlstate::DEADLOCK_DETECTED && !context.in_transaction() =>
        {
            // With a build that has begun just now there is none: it goes on as soon as we do not wait in the server.
            match look_around(context).await? {
                Some(view) if view.builds => Ok(None),
                _ => Err(RunError::Server(error)),
            }
        }
        Err(stop) => Err(stop),
    }
}

/// Whether the lock is held now, as the client has not been told yet.
async fn try_lock(context: &mut Context<'_>, lock: &AdvisoryLock, own: &ClientCall<'_>) -> Result<bool, RunError> {
    let sql = if for_session(context, lock) { &lock.try_of_session } else { &lock.try_of_transaction };
    let mut batch = Batch::new();
    // For who looks at what the session does.
    put_like(&mut batch, &format!("/* pgsluice: waiting for an advisory lock */ {sql}"), own);
    let answer = context.channel_mut().ask(batch, None).await?;
    let got = answer.value() == Some("t");
    context.cancelled_by(answer.error)?;
    Ok(got)
}

/// What is tried for outside a block is to stay until the client's statement has been run.
fn for_session(context: &Context<'_>, lock: &AdvisoryLock) -> bool {
    lock.session || !context.in_transaction()
}

/// The lock is held: the client's statement is granted what the session has already, and what it has twice is given back once.
async fn granted(context: &mut Context<'_>, lock: &AdvisoryLock, own: &ClientCall<'_>) -> Result<Reply, RunError> {
    let mut batch = Batch::new();
    put_own(&mut batch, own);
    if for_session(context, lock) {
        put_like(&mut batch, &lock.unlock, own);
    }
    let told = told(context, batch, 0).await?;
    let Some(error) = told.error else { return Ok(Reply { frames: told.frames }) };
    if for_session(context, lock) && !context.in_transaction() {
        // A second cancel may strike this too.
        for _ in 0..UNLOCKS {
            let mut batch = Batch::new();
            put_like(&mut batch, &lock.unlock, own);
            if context.channel_mut().ask(batch, None).await?.error.is_none() {
                break;
            }
        }
    }
    // Its own part was done: what has failed is that it was given back.
    if told.done > 0 && !context.in_transaction() {
        Ok(Reply { frames: told.frames })
    } else {
        Err(context.ended(error))
    }
}

/// The session's own limits, which count from when its statement began.
fn timed_out(context: &Context<'_>, timeouts: Timeouts) -> Option<RunError> {
    let waited = context.begun().elapsed();
    let over = |limit: Duration| !limit.is_zero() && waited >= limit;
    let report = match (over(timeouts.lock), over(timeouts.statement)) {
        (true, _) => Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout"),
        (_, true) => Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout"),
        _ => return None,
    };
    Some(RunError::Report(report))
}

/// SHOW needs no privilege.
pub(super) async fn own_timeouts(context: &mut Context<'_>) -> Result<Timeouts, RunError> {
    let mut batch = Batch::new();
    for setting in ["lock_timeout", "statement_timeout", "deadlock_timeout"] {
        batch.statement(&format!("SHOW {setting}"), &[]);
    }
    let answer = context.channel_mut().ask(batch, None).await?;
    let shown = |nth: usize| {
        let text = answer.rows.get(nth).and_then(|row| row.first()?.as_deref());
        text.and_then(milliseconds).unwrap_or_default()
    };
    let timeouts = Timeouts { lock: shown(0), statement: shown(1), deadlock: shown(2) };
    context.cancelled_by(answer.error)?;
    Ok(timeouts)
}

/// `None`: this role may not look.
async fn look_around(context: &mut Context<'_>) -> Result<Option<Surroundings>, RunError> {
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    if inside {
        batch.statement("SAVEPOINT pgsluice", &[]);
    }
    batch.statement(LOOK_SQL, &[]);
    if inside {
        batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
    }
    let answer = context.channel_mut().ask(batch, None).await?;
    if let Some(error) = answer.error {
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            return context.cancelled_by(Some(error)).map(|()| None);
        }
        if inside {
            context.rollback_attempt().await?;
        }
        return Ok(None);
    }
    let row = answer.rows.into_iter().next().unwrap_or_default();
    let value = |nth: usize| row.get(nth).and_then(|value| value.as_deref());
    let is = |nth: usize| value(nth) == Some("t");
    let pid = value(0).and_then(|pid| pid.parse().ok()).unwrap_or_default();
    Ok(Some(Surroundings { holds: is(1), builds: is(2), may_sleep: is(3), pid }))
}

/// A nap on the server can be seen and cancelled there.
async fn nap_for(context: &mut Context<'_>, view: Option<Surroundings>, timeouts: Timeouts) -> Result<(), RunError> {
    let waited = context.begun().elapsed();
    let longest = if context.in_transaction() { LONGEST_IN_A_BLOCK } else { LONGEST_NAP };
    let mut nap =
        (waited / SHARE).clamp(context.config().locks.poll.min(longest), longest).mul_f64(0.75 + jitter() / 2.0);
    for limit in [timeouts.lock, timeouts.statement].into_iter().filter(|limit| !limit.is_zero()) {
        nap = nap.min(limit.saturating_sub(waited));
    }
    if context.in_transaction() || !view.is_some_and(|view| view.may_sleep) {
        tokio::time::sleep(nap).await;
        return Ok(());
    }
    let answer = context.channel_mut().ask_one(&nap_sql(nap, "waiting for an advisory lock"), &[]).await?;
    context.cancelled_by(answer.error)
}

/// Sends a batch; of its statement `visible` the client is to get all, as it comes.
async fn told(context: &mut Context<'_>, batch: Batch, visible: usize) -> Result<ClientAnswer, RunError> {
    context.channel_mut().finish_nap().await?;
    context.channel_mut().send(batch.sync());
    let mut told = ClientAnswer::default();
    loop {
        let frame = context.channel_mut().next_server_frame().await?;
        let shown = told.done == visible;
        match frame.first().copied().unwrap_or_default() {
            b'Z' => break,
            b'S' => context.channel_mut().send_to_client(&frame),
            b'A' => context.channel_mut().hold_notification(&frame),
            b'T' | b'D' | b'N' if shown => told.frames.extend_from_slice(&frame),
            b'C' | b'I' => {
                if shown {
                    told.frames.extend_from_slice(&frame);
                }
                told.done += 1;
            }
            b'E' => {
                let error = ServerError::new(frame);
                if error.is_fatal() {
                    context.channel_mut().send_to_client(&error.frame);
                    return Err(RunError::Lost);
                }
                told.error = Some(error);
            }
            _ => {}
        }
    }
    if told.error.as_ref().is_some_and(|error| error.sqlstate() == sqlstate::QUERY_CANCELED) {
        context.channel().cancel_settled().await;
    }
    Ok(told)
}

fn put_own(batch: &mut Batch, own: &ClientCall<'_>) {
    match own {
        ClientCall::Text(sql) => batch.described(sql),
        ClientCall::Bound { bind, execute, .. } => batch.bound(bind, execute),
    }
}

/// Another call with the arguments of the client's.
fn put_like(batch: &mut Batch, sql: &str, own: &ClientCall<'_>) {
    match own {
        ClientCall::Text(_) => batch.statement(sql, &[]),
        ClientCall::Bound { types, bind, .. } => {
            batch.statement_with(sql, types, bind_parameters(bind).unwrap_or(&[0; 4]));
        }
    }
}

/// A setting of time, as SHOW has it.
fn milliseconds(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_time() {
        for (text, ms) in
            [("0", 0), ("250ms", 250), ("1s", 1000), ("90s", 90_000), ("2min", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(milliseconds(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!([milliseconds("soon"), milliseconds("1 y")], [None, None]);
    }
}
