//! The short transactions of a backfill, and the naps between them.
//!
//! It owns how such a transaction begins, what bounds it, and how it ends. It keeps true: a transaction waits for a row's writer no longer than
//! its `lock_timeout`, which is less than `deadlock_timeout`; the session's own timeouts hold; the backend is busy all the time, if only with a
//! nap, so that a cancel from anywhere ends it.

use crate::backend::Answer;
use crate::execute::context::Context;
use crate::execute::outcome::RunError;
use crate::execute::timing::set_local;
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::Duration;

/// A nap behind what has no pause, so that the backend is not idle before the next question comes.
pub(super) const COVER: Duration = Duration::from_millis(2);

/// How a short transaction ended, if the backfill goes on.
pub(super) enum BatchOutcome {
    Done(Answer),
    /// A lock was not to be had in time.
    Locked,
    /// It took longer than it may.
    TooLong,
    Refused(ServerError),
    /// The table's name finds another one.
    Moved(ServerError),
}

/// The beginning of a short transaction. `longest`: for each of its statements; none: as the session allows.
pub(super) fn open(context: &Context<'_>, longest: Option<Duration>, quiet: bool) -> Result<Batch, RunError> {
    let mut batch = Batch::new();
    batch.statement("BEGIN ISOLATION LEVEL READ COMMITTED", &[]);
    put_settings(context, &mut batch, longest, quiet)?;
    Ok(batch)
}

/// What holds in it.
pub(super) fn put_settings(
    context: &Context<'_>,
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
        // There the clock of a statement is set by the first one behind a change of the transaction's state.
        if version < 110_000 {
            batch.statement("SAVEPOINT pgsluice", &[]);
        }
    }
    batch.statement("SET LOCAL enable_tidscan = on", &[]);
    if quiet {
        batch.statement("SET LOCAL session_replication_role = replica", &[]);
    }
    Ok(())
}

/// Runs a short transaction, with a nap right behind it; what fails is taken back.
pub(super) async fn short(
    context: &mut Context<'_>,
    batch: Batch,
    nap: &str,
    longest: Option<Duration>,
) -> Result<BatchOutcome, RunError> {
    let (answer, struck) = context.channel_mut().ask_then_nap(batch, nap).await?;
    let took = answer.took;
    // Whatever struck the nap before: no failed transaction is left open.
    if answer.error.is_some() && context.channel().status() != b'I' {
        let mut rollback = Batch::new();
        rollback.statement("ROLLBACK", &[]);
        nap_behind(context, rollback, COVER, "backfill: after a batch that failed").await?;
    }
    context.cancelled_by(struck)?;
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

/// The next question is sent while it lasts, and answered when it is over.
pub(super) async fn nap(context: &mut Context<'_>, time: Duration, why: &str) -> Result<(), RunError> {
    nap_behind(context, Batch::new(), time, why).await
}

/// A nap behind what needs no answer.
pub(super) async fn nap_behind(
    context: &mut Context<'_>,
    batch: Batch,
    time: Duration,
    why: &str,
) -> Result<(), RunError> {
    let nap = nap_sql(time, &context.channel().words(why));
    let (_, struck) = context.channel_mut().ask_then_nap_always(batch, &nap).await?;
    context.cancelled_by(struck)
}

/// The longest that a batch waits for a lock: less than after which the server looks for a deadlock.
pub(super) fn row_timeout(context: &Context<'_>) -> Duration {
    let session = &context.facts().session;
    let deadlock = Duration::from_millis(session.deadlock_timeout_ms) / 2;
    let mut timeout = context.config().backfill.lock_timeout.min(context.config().locks.stall_budget).min(deadlock);
    if session.lock_timeout_ms > 0 {
        timeout = timeout.min(Duration::from_millis(session.lock_timeout_ms));
    }
    timeout.max(Duration::from_millis(1))
}

/// Of the session's `statement_timeout`, which counts from the statement's begin; none: there is none.
pub(super) fn time_left(context: &Context<'_>) -> Result<Option<Duration>, RunError> {
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

/// A cancel has the same SQLSTATE as a timeout. Where the words are in another language, the time must tell; the
/// server's clock has started a little before ours.
pub(super) fn is_timeout(error: &ServerError, took: Duration, longest: Duration) -> bool {
    let message = error.message();
    message.contains("statement timeout") || (!message.contains("user request") && took >= longest.mul_f64(0.8))
}
