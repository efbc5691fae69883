//! The optimistic try (`plan/optimistic.rs`): one round trip that does all of the statement or nothing.
//!
//! A try does not wait in the proxy. It locks the relations that it names with NOWAIT. For relations that it does not name, such as the
//! other table of a foreign key, it waits in PostgreSQL's lock queue for a few milliseconds at most. In a transaction block it saves the
//! session's timeouts in settings of that transaction and restores them from there, because the proxy does not know them yet.
//!
//! This file owns the batch of a try and the reading of its answer. It keeps true that a try that is not done leaves everything as it was.

use crate::backend::Answer;
use crate::execute::budget;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::server_error::{is_lock_failure, is_statement_timeout};
use crate::lanes::lock_sql;
use crate::pg::sqlstate;
use crate::plan::Phase;
use crate::plan::optimistic::OptimisticPlan;
use crate::sql::Statement;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use bytes::BytesMut;
use std::time::Duration;

/// How long a try waits for the locks of relations that it does not name.
const PATIENCE: Duration = Duration::from_millis(10);

/// The number of statements that are done when the condition of a single relation holds: BEGIN or SAVEPOINT, and the condition.
const CONDITION_IS_DONE: usize = 2;

/// The target list that saves the session's timeouts for the rest of the transaction. It is used in a transaction block.
const KEEP: &str = "pg_catalog.set_config('pgsluice.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), \
     pg_catalog.set_config('pgsluice.statement_timeout', pg_catalog.current_setting('statement_timeout'), true), ";

/// One of several statements that run in one try.
#[derive(Debug)]
pub struct OptimisticTry<'s> {
    pub statement: &'s Statement,
    /// The condition and the locks that the statement needs. `None` means that the transaction holds all locks already.
    pub optimistic: Option<OptimisticPlan>,
}

/// The position of a statement in a batch, and the end of the questions before it.
struct Place {
    asked: usize,
    statement: usize,
}

/// How a try of several statements ended.
#[derive(Debug)]
pub enum BatchOutcome {
    /// All statements are done. These are the frames for the client.
    Done(BytesMut),
    /// Nothing was done, because the statement at this position failed.
    Failed { at: usize, why: NotDoneReason },
}

/// Why one of several statements was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDoneReason {
    /// The condition of the statement does not hold.
    ConditionFailed,
    /// The try took longer than the hold budget.
    Slow,
    Other,
}

/// Restores the timeouts that [`KEEP`] has saved.
const PUT_BACK_SQL: &str = "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pgsluice.lock_timeout'), true), \
     pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('pgsluice.statement_timeout'), true)";

/// How an optimistic try ended.
#[derive(Debug)]
pub enum OptimisticOutcome {
    /// The try followed messages of the client's. One of those has failed, and the client has got its error. The try did not run.
    ClientFailed,
    /// Nothing was done, because the condition does not hold. It may not hold for the next statements either.
    NotSo,
    /// Nothing was done.
    NotDone,
    /// Nothing was done, because the try took longer than the hold budget.
    Slow,
    Done(Reply),
}

/// Makes an optimistic try of a statement. If it is not done, the statement must be planned.
///
/// # Errors
/// The client has cancelled the statement or is gone, or the backend is lost.
pub async fn optimistic_try(
    context: &mut ExecutionContext<'_>,
    first: &OptimisticPlan,
) -> Result<OptimisticOutcome, RunError> {
    let Some(phase) = first.plan.phases.first() else { return Ok(OptimisticOutcome::NotDone) };
    let (batch, visible) = optimistic_batch(context, Batch::new(), first, phase);
    let answer = context.channel_mut().ask(batch, Some(visible)).await?;
    optimistic_outcome(context, answer, phase).await
}

/// Makes an optimistic try in place of an Execute of the client's portal, in one pipeline with the messages that the client has sent before
/// it.
///
/// # Errors
/// As [`optimistic_try`].
pub async fn optimistic_try_in_pipeline(
    context: &mut ExecutionContext<'_>,
    first: &OptimisticPlan,
    portal: &str,
) -> Result<OptimisticOutcome, RunError> {
    let Some(phase) = first.plan.phases.first() else { return Ok(OptimisticOutcome::NotDone) };
    let (batch, visible) = optimistic_batch(context, Batch::behind(portal), first, phase);
    match context.channel_mut().ask_in_pipeline(batch, Some(visible)).await? {
        Some(answer) => optimistic_outcome(context, answer, phase).await,
        None => Ok(OptimisticOutcome::ClientFailed),
    }
}

/// Tries several statements of a transaction block in one round trip, all or nothing. The condition and the locks of each statement come
/// directly before it, so that a name means what it means at that place.
///
/// # Errors
/// As [`optimistic_try`].
pub async fn optimistic_tries(
    context: &mut ExecutionContext<'_>,
    tries: &[OptimisticTry<'_>],
) -> Result<BatchOutcome, RunError> {
    let phases = tries.iter().filter_map(|one| one.optimistic.as_ref()?.plan.phases.first());
    let Some(phase) = phases.max_by_key(|phase| budget::hold_budget(context, phase)) else {
        return Ok(BatchOutcome::Failed { at: 0, why: NotDoneReason::Other });
    };
    let (batch, places) = batch_of_tries(context, tries, phase);
    let visible: Vec<usize> = places.iter().map(|place| place.statement).collect();
    let answer = context.channel_mut().ask_each(batch, &visible).await?;
    let Some(error) = answer.error else {
        tries.iter().filter(|one| one.optimistic.is_some()).for_each(|_| count_done(context, answer.took));
        return Ok(BatchOutcome::Done(answer.completion));
    };
    let sqlstate = error.sqlstate().to_owned();
    let slow = optimistic_failure(context, error, phase).await?;
    // After the last statement there are only settings of the proxy's.
    let at = places.iter().position(|place| answer.done <= place.statement).unwrap_or(tries.len() - 1);
    let asked = places.get(at).is_some_and(|place| answer.done < place.asked);
    let why = match slow {
        true => NotDoneReason::Slow,
        false if asked && sqlstate == sqlstate::INVALID_TEXT_REPRESENTATION => NotDoneReason::ConditionFailed,
        false => NotDoneReason::Other,
    };
    Ok(BatchOutcome::Failed { at, why })
}

/// Builds the batch. Returns it with the position of each statement.
fn batch_of_tries(context: &ExecutionContext<'_>, tries: &[OptimisticTry<'_>], phase: &Phase) -> (Batch, Vec<Place>) {
    let mut batch = Batch::new();
    batch.savepoint();
    batch.statement(&format!("SELECT {}", timeouts(context, true, phase)), &[]);
    let mut places = Vec::with_capacity(tries.len());
    for one in tries {
        let needs = one.optimistic.as_ref().and_then(|first| Some((first, first.plan.phases.first()?)));
        let asked = match needs {
            Some((first, phase)) => put_needs(&mut batch, first, phase, ""),
            None => batch.statements,
        };
        places.push(Place { asked, statement: batch.statements });
        batch.statement(&one.statement.text, &[]);
    }
    batch.statement(PUT_BACK_SQL, &[]);
    batch.release_savepoint();
    (batch, places)
}

/// Counts an optimistic try that is done.
fn count_done(context: &ExecutionContext<'_>, took: Duration) {
    context.metrics().measures.attempted("done", took);
    context.metrics().measures.waited_for_locks(Duration::ZERO);
    context.metrics().lock_attempts.add();
    context.metrics().first_tries_done.add();
}

/// Rolls a failed try back. Returns true if it took longer than the hold budget.
async fn optimistic_failure(
    context: &mut ExecutionContext<'_>,
    error: ServerError,
    phase: &Phase,
) -> Result<bool, RunError> {
    context.rollback_attempt().await?;
    if context.channel().client_gone() {
        return Err(context.give_up_block(RunError::ClientGone).await);
    }
    if error.sqlstate() == sqlstate::QUERY_CANCELED {
        // The error is a cancel, the session's own `statement_timeout` or the hold budget.
        let cancelled = context.channel().take_cancelled();
        let over = |budget| is_statement_timeout(&error, context.begun().elapsed(), budget);
        if begun_over_budget(context, phase) && budget::hold_budget(context, phase).is_some_and(over) && !cancelled {
            context.metrics().hold_budget_outlived.add();
            return Ok(true);
        }
        return Err(context.give_up_block(RunError::Server(error)).await);
    }
    tracing::debug!(sqlstate = error.sqlstate(), locked = is_lock_failure(&error), "an optimistic try has failed");
    Ok(false)
}

/// Reads the answer to a try.
async fn optimistic_outcome(
    context: &mut ExecutionContext<'_>,
    answer: Answer,
    phase: &Phase,
) -> Result<OptimisticOutcome, RunError> {
    let Some(error) = answer.error else {
        count_done(context, answer.took);
        let mut reply = Reply::default();
        reply.frames.unsplit(answer.notices);
        reply.frames.unsplit(answer.completion);
        return Ok(OptimisticOutcome::Done(reply));
    };
    let sqlstate = error.sqlstate().to_owned();
    if optimistic_failure(context, error, phase).await? {
        return Ok(OptimisticOutcome::Slow);
    }
    let condition = sqlstate == sqlstate::INVALID_TEXT_REPRESENTATION && answer.done < CONDITION_IS_DONE;
    Ok(if condition { OptimisticOutcome::NotSo } else { OptimisticOutcome::NotDone })
}

/// Whether the statement began longer ago than the hold budget.
fn begun_over_budget(context: &ExecutionContext<'_>, phase: &Phase) -> bool {
    budget::hold_budget(context, phase).is_some_and(|budget| context.begun().elapsed() >= budget)
}

/// Returns a target list that sets the timeouts of the transaction. The server computes the targets in their order.
fn timeouts(context: &ExecutionContext<'_>, inside: bool, phase: &Phase) -> String {
    let wait = PATIENCE.min(context.config().locks.fallback_timeout).as_millis();
    let keep = if inside { KEEP } else { "" };
    let hold = budget::hold_budget(context, phase).map(hold).unwrap_or_default();
    format!("{keep}pg_catalog.set_config('lock_timeout', '{wait}', true){hold}")
}

/// Builds the batch of one try. Returns it with the position of the client's statement.
fn optimistic_batch(
    context: &ExecutionContext<'_>,
    mut batch: Batch,
    first: &OptimisticPlan,
    phase: &Phase,
) -> (Batch, usize) {
    let inside = context.in_transaction();
    batch.begin_or_savepoint(inside);
    // One statement sets all of them, because a further statement would cost the server as much as its work.
    put_needs(&mut batch, first, phase, &timeouts(context, inside, phase));
    let visible = batch.statements;
    for step in &phase.steps {
        batch.statement(&step.sql, &[]);
    }
    if inside {
        batch.statement(PUT_BACK_SQL, &[]);
        batch.release_savepoint();
    } else {
        batch.statement("COMMIT", &[]);
    }
    (batch, visible)
}

/// Adds the condition and the locks of a statement. Returns the number of statements in the batch after the condition.
fn put_needs(batch: &mut Batch, first: &OptimisticPlan, phase: &Phase, settings: &str) -> usize {
    for (sql, parameters) in first.condition.questions(settings) {
        batch.statement(&sql, &parameters.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let asked = batch.statements;
    for sql in lock_sql(&phase.locks, false).nowait {
        batch.statement(&sql, &[]);
    }
    asked
}

/// Returns the target that sets `statement_timeout` to the hold budget, unless the session's own limit is shorter.
fn hold(budget: Duration) -> String {
    /// The session's own `statement_timeout`.
    const OWN: &str = "pg_catalog.current_setting('statement_timeout')";
    let ms = budget.as_millis();
    format!(
        ", CASE WHEN {OWN} OPERATOR(pg_catalog.=) '0' \
         OR {OWN}::pg_catalog.interval OPERATOR(pg_catalog.>) '{ms} ms'::pg_catalog.interval \
         THEN pg_catalog.set_config('statement_timeout', '{ms}', true) END"
    )
}
