//! The short transactions of a backfill, and the naps between them.
//!
//! This file owns the beginning, the timeouts and the end of such a transaction. It keeps true that a transaction waits for the writer of a
//! row no longer than its `lock_timeout`, which is less than `deadlock_timeout`; that the session's own timeouts apply; and that the
//! backend is always busy, if only with a nap, so that a cancel from anywhere takes effect.

use crate::backend::Answer;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use crate::execute::timing::set_local;
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::Duration;

/// The nap after a transaction that has no pause. It keeps the backend busy until the next question comes.
pub(super) const COVER: Duration = Duration::from_millis(2);

/// How a short transaction ended.
pub(super) enum BatchOutcome {
    Done(Answer),
    /// A lock was not available in time.
    Locked,
    /// A statement took longer than its timeout.
    TooLong,
    /// The server raised another error.
    Refused(ServerError),
    /// The name of the table finds another table.
    Moved(ServerError),
}

/// Returns the beginning of a short transaction. `longest` is the timeout of each of its statements; without it the session's own timeout
/// applies.
pub(super) fn open(context: &ExecutionContext<'_>, longest: Option<Duration>, quiet: bool) -> Result<Batch, RunError> {
    let mut batch = Batch::new();
    batch.statement("BEGIN ISOLATION LEVEL READ COMMITTED", &[]);
    put_settings(context, &mut batch, longest, quiet)?;
    Ok(batch)
}

/// Adds the settings of a short transaction.
pub(super) fn put_settings(
    context: &ExecutionContext<'_>,
    batch: &mut Batch,
    longest: Option<Duration>,
    quiet: bool,
) -> Result<(), RunError> {
    let version = context.facts().session.server_version;
    batch.statement(&set_local("lock_timeout", row_timeout(context)), &[]);
    let timeout = match (longest, time_left(context)?) {
        (Some(longest), Some(left)) => Some(longest.min(left)),
        (longest, left) => longest.or(left),
    };
    if let Some(timeout) = timeout {
        batch.statement(&set_local("statement_timeout", timeout), &[]);
        // Before 11 only the first statement after a change of the transaction's state starts the clock of the timeout.
        if version < 110_000 {
            batch.savepoint();
        }
    }
    batch.statement("SET LOCAL enable_tidscan = on", &[]);
    if quiet {
        batch.statement("SET LOCAL session_replication_role = replica", &[]);
    }
    Ok(())
}

/// Runs a short transaction, followed by a nap. A transaction that fails is rolled back.
pub(super) async fn short(
    context: &mut ExecutionContext<'_>,
    batch: Batch,
    nap: &str,
    longest: Option<Duration>,
) -> Result<BatchOutcome, RunError> {
    let (answer, nap_error) = context.channel_mut().ask_then_nap(batch, nap).await?;
    let took = answer.took;
    // No failed transaction is left open, even if an error ended the nap before.
    if answer.error.is_some() && context.channel().status() != b'I' {
        let mut rollback = Batch::new();
        rollback.statement("ROLLBACK", &[]);
        nap_behind(context, rollback, COVER, "backfill: after a batch that failed").await?;
    }
    context.cancelled_by(nap_error)?;
    let error = match answer.ok() {
        Ok(answer) => return Ok(BatchOutcome::Done(answer)),
        Err(error) => error,
    };
    if context.channel().client_gone() {
        return Err(RunError::ClientGone);
    }
    match error.sqlstate() {
        sqlstate::LOCK_NOT_AVAILABLE | sqlstate::DEADLOCK_DETECTED => Ok(BatchOutcome::Locked),
        sqlstate::QUERY_CANCELED => {
            if longest.is_some_and(|longest| is_timeout(&error, took, longest)) && !context.channel().take_cancelled() {
                return Ok(BatchOutcome::TooLong);
            }
            context.cancelled_by(Some(error))?;
            Ok(BatchOutcome::TooLong)
        }
        _ => Ok(BatchOutcome::Refused(error)),
    }
}

/// Naps. The next question is sent during the nap and answered after it.
pub(super) async fn nap(context: &mut ExecutionContext<'_>, time: Duration, why: &str) -> Result<(), RunError> {
    nap_behind(context, Batch::new(), time, why).await
}

/// Naps after statements whose answer is not needed.
pub(super) async fn nap_behind(
    context: &mut ExecutionContext<'_>,
    batch: Batch,
    time: Duration,
    why: &str,
) -> Result<(), RunError> {
    let nap = nap_sql(time, &context.channel().words(why));
    let (_, nap_error) = context.channel_mut().ask_then_nap_always(batch, &nap).await?;
    context.cancelled_by(nap_error)
}

/// Returns the longest that a batch waits for a lock. It is less than `deadlock_timeout`, after which the server searches for a deadlock.
pub(super) fn row_timeout(context: &ExecutionContext<'_>) -> Duration {
    let session = &context.facts().session;
    let deadlock = Duration::from_millis(session.deadlock_timeout_ms) / 2;
    let mut timeout = context.config().backfill.lock_timeout.min(context.config().locks.stall_budget).min(deadlock);
    if session.lock_timeout_ms > 0 {
        timeout = timeout.min(Duration::from_millis(session.lock_timeout_ms));
    }
    timeout.max(Duration::from_millis(1))
}

/// Returns the rest of the session's `statement_timeout`, which counts from the beginning of the statement. `None` means that there is no
/// timeout.
pub(super) fn time_left(context: &ExecutionContext<'_>) -> Result<Option<Duration>, RunError> {
    let limit = match context.facts().session.statement_timeout_ms {
        0 => return Ok(None),
        ms => Duration::from_millis(ms),
    };
    match limit.checked_sub(context.begun().elapsed()).filter(|left| *left >= Duration::from_millis(1)) {
        Some(left) => Ok(Some(left)),
        None => Err(RunError::Report(Report::error(
            sqlstate::QUERY_CANCELED,
            "canceling statement due to statement timeout",
        ))),
    }
}

/// Whether an error is a timeout. A cancel has the same SQLSTATE. If the message is in another language, the time that the statement took
/// must tell. The server's clock has started a little before the proxy's.
pub(super) fn is_timeout(error: &ServerError, took: Duration, longest: Duration) -> bool {
    let message = error.message();
    message.contains("statement timeout") || (!message.contains("user request") && took >= longest.mul_f64(0.8))
}
