//! The client's own wait for an advisory lock (`SELECT pg_advisory_lock(…)`): the proxy polls for the lock.
//!
//! A session that waits in the server holds a snapshot, and a concurrent build waits for every older snapshot. If the session that builds
//! holds the advisory lock, the two wait for each other, and the server ends one of them with 40P01. This happens when migration tools run
//! in several pods at once.
//!
//! So the client's statement waits in the server for less than `deadlock_timeout`. Then the proxy tries the lock again and again, with naps
//! between the tries. When the session holds the lock, the client's statement runs and is granted the lock at once, so that its answer is
//! the server's own. A cancel, `lock_timeout`, `statement_timeout` and the end of the client have the same effect as in the server.
//!
//! The server cannot see a deadlock between clients that wait in this way. So a session for which others may be waiting waits in the
//! server's queue now and then, for long enough that the server searches for a deadlock. It does not do so while a session that holds an
//! advisory lock builds an index.
//!
//! In a transaction block the proxy itself sleeps, because a build would wait for the end of the block if it met a snapshot of the block.
//! There a `pg_cancel_backend` between two tries has no effect, as in any idle session. The client's own cancel has its effect.
//!
//! This file owns the wait. It keeps true that the client's statement runs exactly as the client sent it, and that the session holds the
//! lock as often as the client has asked for it.

use crate::execute::context::ExecutionContext;
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

/// How the client has sent its statement.
#[derive(Debug)]
pub enum ClientCall<'a> {
    /// The text of a statement in a simple query.
    Text(&'a str),
    /// The parameter types of the Parse, the body of the Bind, and the frame of the Execute.
    Bound { types: &'a [u8], bind: &'a [u8], execute: &'a [u8] },
}

/// The answer to the client's statement.
#[derive(Debug, Default)]
struct ClientAnswer {
    /// The frames that the client gets.
    frames: BytesMut,
    done: usize,
    error: Option<ServerError>,
}

/// The session's own timeouts. 0 means none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timeouts {
    pub(super) lock: Duration,
    pub(super) statement: Duration,
    deadlock: Duration,
}

/// What the server says about the session and about builds.
#[derive(Debug, Clone, Copy)]
struct Surroundings {
    /// The session holds locks that other sessions may wait for.
    holds: bool,
    /// Another session that holds an advisory lock builds an index concurrently, or runs a similar command.
    builds: bool,
    /// The role may call `pg_sleep`.
    may_sleep: bool,
    /// The pid of the backend that has answered.
    pid: i32,
}

/// How one wait in the server's queue ended.
enum Queued {
    Done(Reply),
    /// The wait reached its timeout.
    Locked(ServerError),
    /// The timeout cannot be set, so the client's statement must run unchanged.
    AsItIs,
}

/// How long the client's statement first waits in the server's queue. A short wait ends soonest there, and a build waits for it no longer
/// than this. If half of `deadlock_timeout` is less, that is the time.
const FIRST: &str = "'400 ms'";

/// A query that saves the session's `lock_timeout` for the rest of the transaction and sets it to `t.most` if that is shorter. The FROM
/// item `t` follows.
const SHORTEN_SQL: &str = "SELECT pg_catalog.set_config('pgsluice.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), \
     CASE WHEN pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '0' \
       OR pg_catalog.current_setting('lock_timeout')::pg_catalog.interval OPERATOR(pg_catalog.>) t.most \
     THEN pg_catalog.set_config('lock_timeout', \
       pg_catalog.concat(pg_catalog.ceil(pg_catalog.date_part('epoch', t.most) OPERATOR(pg_catalog.*) 1000), 'ms'), true) END FROM ";

/// A query that restores the session's `lock_timeout`.
const PUT_BACK_SQL: &str =
    "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pgsluice.lock_timeout'), true)";

/// A query for [`Surroundings`]. A session that builds holds the lock of builds on the table, and as an advisory lock its lane or the lock
/// of the migration tool.
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

/// A nap takes this part of the time waited so far, a twentieth, within the bounds below: after a long wait the lock may be taken a little
/// late.
const SHARE: u32 = 20;
/// The longest nap outside a transaction block.
const LONGEST_NAP: Duration = Duration::from_millis(500);
/// The longest sleep in a transaction block. It is shorter than any sensible `idle_in_transaction_session_timeout`.
const LONGEST_IN_A_BLOCK: Duration = Duration::from_millis(100);

/// The longest pause between two searches for a deadlock. The pauses grow up to it.
const RAREST_SEARCH: Duration = Duration::from_secs(30);

/// How many times the lock is given back if a cancel hits each try. Only a program cancels a session more often.
const UNLOCKS: usize = 20;

/// Runs the client's call for an advisory lock. `backend` is the pid that the server has given at login.
///
/// # Errors
/// The server's own errors: a cancel, a timeout, a deadlock. Or the client is gone.
pub async fn advisory_lock(
    context: &mut ExecutionContext<'_>,
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

/// Runs the client's statement, which waits in the server's queue for at most `most`. `most` is a FROM item.
async fn queue(context: &mut ExecutionContext<'_>, own: &ClientCall<'_>, most: &str) -> Result<Queued, RunError> {
    /// The statements before the client's: BEGIN or SAVEPOINT, and the timeout.
    const BEFORE: usize = 2;
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    batch.begin_or_savepoint(inside);
    batch.statement(&format!("{SHORTEN_SQL}{most}"), &[]);
    put_own(&mut batch, own);
    if inside {
        batch.statement(PUT_BACK_SQL, &[]);
        batch.release_savepoint();
    } else {
        batch.statement("COMMIT", &[]);
    }
    let answer = client_answer(context, batch, BEFORE).await?;
    let Some(error) = answer.error else { return Ok(Queued::Done(Reply { frames: answer.frames })) };
    if context.channel().client_gone() {
        return Err(RunError::ClientGone);
    }
    let locked = error.sqlstate() == sqlstate::LOCK_NOT_AVAILABLE && answer.done == BEFORE;
    let refused = answer.done < BEFORE && error.sqlstate() != sqlstate::QUERY_CANCELED;
    if !inside || locked || refused {
        context.rollback_attempt().await?;
    }
    match error {
        error if locked => Ok(Queued::Locked(error)),
        error if refused => {
            tracing::debug!(sqlstate = error.sqlstate(), "cannot set the timeout of a wait for an advisory lock");
            Ok(Queued::AsItIs)
        }
        error => Err(context.ended(error)),
    }
}

/// Runs the client's statement unchanged.
async fn as_it_is(context: &mut ExecutionContext<'_>, own: &ClientCall<'_>) -> Result<Reply, RunError> {
    let mut batch = Batch::new();
    put_own(&mut batch, own);
    let answer = client_answer(context, batch, 0).await?;
    match answer.error {
        None => Ok(Reply { frames: answer.frames }),
        Some(error) => Err(context.ended(error)),
    }
}

/// Polls for the lock until the session holds it or the wait ends, then runs the client's statement.
async fn poll_for(
    context: &mut ExecutionContext<'_>,
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
    // Behind a pooler the next statement may reach another backend, and this backend may get another client.
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

/// Runs the client's statement, which waits in the server's queue long enough for the server to search for a deadlock.
async fn search(
    context: &mut ExecutionContext<'_>,
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
            // A deadlock with a build that has just begun does not last: the build goes on when this session no longer waits in the server.
            match look_around(context).await? {
                Some(view) if view.builds => Ok(None),
                _ => Err(RunError::Server(error)),
            }
        }
        Err(stop) => Err(stop),
    }
}

/// Tries to take the lock. Returns true if the session holds it now. The client has not been answered yet.
async fn try_lock(
    context: &mut ExecutionContext<'_>,
    lock: &AdvisoryLock,
    own: &ClientCall<'_>,
) -> Result<bool, RunError> {
    let sql = if for_session(context, lock) { &lock.try_of_session } else { &lock.try_of_transaction };
    let mut batch = Batch::new();
    // The comment is for `pg_stat_activity`.
    put_like(&mut batch, &format!("/* pgsluice: waiting for an advisory lock */ {sql}"), own);
    let answer = context.channel_mut().ask(batch, None).await?;
    let got = answer.value() == Some("t");
    context.cancelled_by(answer.error)?;
    Ok(got)
}

/// Whether the lock is tried for the session. Outside a transaction block it must be, because it has to last until the client's statement
/// has run.
fn for_session(context: &ExecutionContext<'_>, lock: &AdvisoryLock) -> bool {
    lock.session || !context.in_transaction()
}

/// Runs the client's statement when the session holds the lock. The server grants the lock again, so that the session's extra lock is given
/// back.
async fn granted(
    context: &mut ExecutionContext<'_>,
    lock: &AdvisoryLock,
    own: &ClientCall<'_>,
) -> Result<Reply, RunError> {
    let mut batch = Batch::new();
    put_own(&mut batch, own);
    if for_session(context, lock) {
        put_like(&mut batch, &lock.unlock, own);
    }
    let answer = client_answer(context, batch, 0).await?;
    let Some(error) = answer.error else { return Ok(Reply { frames: answer.frames }) };
    if for_session(context, lock) && !context.in_transaction() {
        // A second cancel may hit this too.
        for _ in 0..UNLOCKS {
            let mut batch = Batch::new();
            put_like(&mut batch, &lock.unlock, own);
            if context.channel_mut().ask(batch, None).await?.error.is_none() {
                break;
            }
        }
    }
    // The client's statement was done. The error is that of giving the lock back.
    if answer.done > 0 && !context.in_transaction() {
        Ok(Reply { frames: answer.frames })
    } else {
        Err(context.ended(error))
    }
}

/// Returns the error of the session's own timeouts, if one is over. They count from the beginning of the statement.
fn timed_out(context: &ExecutionContext<'_>, timeouts: Timeouts) -> Option<RunError> {
    let waited = context.begun().elapsed();
    let over = |limit: Duration| !limit.is_zero() && waited >= limit;
    let report = match (over(timeouts.lock), over(timeouts.statement)) {
        (true, _) => Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout"),
        (_, true) => Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout"),
        _ => return None,
    };
    Some(RunError::Report(report))
}

/// Asks for the session's own timeouts with SHOW, which needs no privilege.
pub(super) async fn own_timeouts(context: &mut ExecutionContext<'_>) -> Result<Timeouts, RunError> {
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

/// Asks for the surroundings of the session. `None` means that the role lacks a privilege for the question.
async fn look_around(context: &mut ExecutionContext<'_>) -> Result<Option<Surroundings>, RunError> {
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    if inside {
        batch.savepoint();
    }
    batch.statement(LOOK_SQL, &[]);
    if inside {
        batch.release_savepoint();
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

/// Naps until the next try. Outside a transaction block the nap is on the server, where it can be seen and cancelled.
async fn nap_for(
    context: &mut ExecutionContext<'_>,
    view: Option<Surroundings>,
    timeouts: Timeouts,
) -> Result<(), RunError> {
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

/// Sends a batch and reads its answer. The frames of the statement at position `visible` are kept unchanged for the client.
async fn client_answer(
    context: &mut ExecutionContext<'_>,
    batch: Batch,
    visible: usize,
) -> Result<ClientAnswer, RunError> {
    context.channel_mut().finish_nap().await?;
    context.channel_mut().send(batch.sync());
    let mut answer = ClientAnswer::default();
    loop {
        let frame = context.channel_mut().next_server_frame().await?;
        let shown = answer.done == visible;
        match frame.first().copied().unwrap_or_default() {
            b'Z' => break,
            b'S' => context.channel_mut().send_to_client(&frame),
            b'A' => context.channel_mut().hold_notification(&frame),
            b'T' | b'D' | b'N' if shown => answer.frames.extend_from_slice(&frame),
            b'C' | b'I' => {
                if shown {
                    answer.frames.extend_from_slice(&frame);
                }
                answer.done += 1;
            }
            b'E' => {
                let error = ServerError::new(frame);
                if error.is_fatal() {
                    context.channel_mut().send_to_client(&error.frame);
                    return Err(RunError::Lost);
                }
                answer.error = Some(error);
            }
            _ => {}
        }
    }
    if answer.error.as_ref().is_some_and(|error| error.sqlstate() == sqlstate::QUERY_CANCELED) {
        context.channel().cancel_settled().await;
    }
    Ok(answer)
}

/// Adds the client's statement to a batch.
fn put_own(batch: &mut Batch, own: &ClientCall<'_>) {
    match own {
        ClientCall::Text(sql) => batch.described(sql),
        ClientCall::Bound { bind, execute, .. } => batch.bound(bind, execute),
    }
}

/// Adds another call to a batch, with the arguments of the client's statement.
fn put_like(batch: &mut Batch, sql: &str, own: &ClientCall<'_>) {
    match own {
        ClientCall::Text(_) => batch.statement(sql, &[]),
        ClientCall::Bound { types, bind, .. } => {
            batch.statement_with(sql, types, bind_parameters(bind).unwrap_or(&[0; 4]));
        }
    }
}

/// Reads a time setting as SHOW writes it.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
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
