//! A statement as it was written, where nothing may be asked and nothing kept in the session: no plan, no lane, no view of who is in the way.
//!
//! It still never stands in PostgreSQL's lock queue for longer than the stall budget: it is tried under a small `lock_timeout`, again and
//! again, with pauses that are the proxy's own. It needs no function and no catalogue. What may not stand in a transaction block goes as
//! it is.

use crate::execute::advisory;
use crate::execute::context::Context;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::server_error::is_lock_failure;
use crate::execute::timing::set_local;
use crate::pg::sqlstate;
use crate::report::{Report, in_words};
use crate::sql::Statement;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// A pause is so many times as long as others may have been made to wait.
const PAUSE: u32 = 10;

const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SLICE: Duration = Duration::from_millis(100);

/// `alone`: it may not stand in a transaction block.
///
/// # Errors
/// Why it was not done.
pub async fn as_written(context: &mut Context<'_>, statement: &Statement, alone: bool) -> Result<Reply, RunError> {
    let timeouts = advisory::own_timeouts(context).await?;
    let own = [timeouts.lock, timeouts.statement].into_iter().filter(|limit| !limit.is_zero()).min();
    let deadline = context.config().locks.deadline;
    let limit = own.map_or(deadline, |own| own.min(deadline));
    let begun = Instant::now();
    let mut patience = context.config().locks.ladder_start;
    loop {
        if let Some(stop) = context.interrupted() {
            return Err(context.give_up_block(stop).await);
        }
        let error = match try_as_written(context, statement, alone, patience, timeouts.lock).await? {
            Ok(reply) => return Ok(reply),
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

/// Nothing is asked of the server but a setting now and then: so a session that is idle in a transaction is not so for long, and the
/// client's end is heard.
async fn pause(context: &mut Context<'_>, pause: Duration) -> Result<(), RunError> {
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

/// One try; where it fails, all is as it was.
async fn try_as_written(
    context: &mut Context<'_>,
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
        batch.statement(if inside { "SAVEPOINT pgsluice" } else { "BEGIN" }, &[]);
        batch.statement(&set_local("lock_timeout", patience.max(Duration::from_millis(1))), &[]);
    }
    let visible = batch.statements;
    batch.statement(&statement.text, &[]);
    if inside && !alone {
        batch.statement(&set_local("lock_timeout", own), &[]);
        batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
    } else if !alone {
        batch.statement("COMMIT", &[]);
    }
    let answer = context.channel_mut().ask(batch, Some(visible)).await?;
    let mut reply = Reply::default();
    reply.frames.unsplit(answer.notices);
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

fn gave_up(waited: Duration, by_statement_timeout: bool) -> Report {
    if by_statement_timeout {
        return Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
    }
    Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
        .detail(format!("Waited {} for its locks; who was in the way may not be asked here.", in_words(waited)))
}
