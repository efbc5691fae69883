//! A statement that runs as it was written, because the proxy can neither ask the server questions nor keep anything in the session. It has
//! no plan, no lane and no look at blockers.
//!
//! This file owns the loop of attempts. It keeps true that the statement waits in PostgreSQL's lock queue no longer than the stall budget
//! at a time: it runs under a short `lock_timeout`, again and again, with pauses in the proxy. An attempt needs no function and no
//! catalogue. A statement that may not run in a transaction block is sent unchanged.

use crate::execute::advisory;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::server_error::{attempt_word, is_lock_failure};
use crate::execute::timing::set_local;
use crate::pg::sqlstate;
use crate::report::{Report, in_words};
use crate::sql::Statement;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// The pause after an attempt, as a multiple of the time that the attempt may have made others wait.
const PAUSE: u32 = 10;

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The interval at which a pause asks the server for a setting.
const SLICE: Duration = Duration::from_millis(100);

/// Runs a statement as it was written. `alone` means that it may not run in a transaction block.
///
/// # Errors
/// The reason why the statement was not done.
pub async fn as_written(
    context: &mut ExecutionContext<'_>,
    statement: &Statement,
    alone: bool,
) -> Result<Reply, RunError> {
    let timeouts = advisory::own_timeouts(context).await?;
    let own = [timeouts.lock, timeouts.statement].into_iter().filter(|limit| !limit.is_zero()).min();
    let deadline = context.config().locks.deadline;
    let limit = own.map_or(deadline, |own| own.min(deadline));
    let begun = Instant::now();
    let mut patience = context.config().locks.ladder_start;
    loop {
        let waited = begun.elapsed();
        context.waits(waited, || "The role may not ask who is in the way.".to_owned());
        if let Some(stop) = context.interrupted() {
            return Err(context.give_up_block(stop).await);
        }
        let error = match try_as_written(context, statement, alone, patience, timeouts.lock).await? {
            Ok(reply) => {
                context.metrics().measures.waited_for_locks(waited);
                return Ok(reply);
            }
            Err(error) => error,
        };
        let hopeless = alone || (context.in_transaction() && error.sqlstate() == sqlstate::DEADLOCK_DETECTED);
        if !is_lock_failure(&error) || hopeless || context.channel().client_gone() {
            let stop = context.ended(error);
            return Err(context.give_up_block(stop).await);
        }
        context.metrics().lock_attempts_failed.add();
        if begun.elapsed() >= limit {
            let stop = RunError::Report(gave_up(begun.elapsed(), limit == timeouts.statement));
            return Err(context.give_up_block(stop).await);
        }
        let left = limit.saturating_sub(begun.elapsed());
        pause(
            context,
            (patience * PAUSE).clamp(context.config().locks.poll.min(LONGEST_PAUSE), LONGEST_PAUSE).min(left),
        )
        .await?;
        patience = (patience * 2).min(context.config().locks.stall_budget);
    }
}

/// Pauses, and asks the server for a setting now and then: so a session in a transaction block is never idle for long, and the end of the
/// client is noticed.
async fn pause(context: &mut ExecutionContext<'_>, pause: Duration) -> Result<(), RunError> {
    let begun = Instant::now();
    while begun.elapsed() < pause {
        tokio::time::sleep((pause.saturating_sub(begun.elapsed())).min(SLICE)).await;
        let answer = context.channel_mut().ask_one("SHOW lock_timeout", &[]).await?;
        context.cancelled_by(answer.error)?;
        if let Some(stop) = context.interrupted() {
            return Err(context.give_up_block(stop).await);
        }
    }
    Ok(())
}

/// Makes one attempt. If it fails, everything is as it was before.
async fn try_as_written(
    context: &mut ExecutionContext<'_>,
    statement: &Statement,
    alone: bool,
    patience: Duration,
    own: Duration,
) -> Result<Result<Reply, ServerError>, RunError> {
    context.metrics().lock_attempts.add();
    let inside = context.in_transaction();
    let patience = if own.is_zero() { patience } else { patience.min(own) };
    let mut batch = Batch::new();
    if !alone {
        batch.begin_or_savepoint(inside);
        batch.statement(&set_local("lock_timeout", patience.max(Duration::from_millis(1))), &[]);
    }
    let visible = batch.statements;
    batch.statement(&statement.text, &[]);
    if inside && !alone {
        batch.statement(&set_local("lock_timeout", own), &[]);
        batch.release_savepoint();
    } else if !alone {
        batch.statement("COMMIT", &[]);
    }
    let answer = context.channel_mut().ask(batch, Some(visible)).await?;
    let mut reply = Reply::default();
    reply.frames.unsplit(answer.notices);
    let word = attempt_word(answer.error.as_ref());
    context.metrics().measures.attempted(word, answer.took);
    let Some(error) = answer.error else {
        reply.frames.unsplit(answer.completion);
        return Ok(Ok(reply));
    };
    if !is_lock_failure(&error) {
        context.channel_mut().send_to_client(&reply.frames);
    }
    if !alone {
        context.rollback_attempt().await?;
    }
    Ok(Err(error))
}

/// Returns the error of a wait that reached its limit.
fn gave_up(waited: Duration, by_statement_timeout: bool) -> Report {
    if by_statement_timeout {
        return Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
    }
    Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout").detail(format!(
        "Waited {} for the locks of the statement. The sessions that block it cannot be asked for here.",
        in_words(waited)
    ))
}
