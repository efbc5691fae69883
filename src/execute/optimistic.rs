//! The first try (`plan/optimistic.rs`): one round trip, which does all of the statement or nothing.
//!
//! It waits for nobody: what it names is locked with NOWAIT, and for what it does not name (the other end of a foreign key, say)
//! it stands in PostgreSQL's queue for a few milliseconds at most. In a transaction block the session's timeouts are kept
//! in settings of that transaction, and put back from there, as they are not known yet.

use crate::backend::Answer;
use crate::execute::budget;
use crate::execute::context::Context;
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

/// For the locks that the statement takes beside those of what it names.
const PATIENCE: Duration = Duration::from_millis(10);

/// How many statements are done once the condition of a single relation holds: BEGIN or SAVEPOINT, and the condition.
const CONDITION_IS_DONE: usize = 2;

/// In a transaction block: keeps the session's timeouts for the rest of the transaction.
const KEEP: &str = "pg_catalog.set_config('pgsluice.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), \
     pg_catalog.set_config('pgsluice.statement_timeout', pg_catalog.current_setting('statement_timeout'), true), ";

/// One of several statements that are tried together.
#[derive(Debug)]
pub struct OptimisticTry<'s> {
    pub statement: &'s Statement,
    /// What must be so before it; `None`: nothing, as the transaction holds what it needs.
    pub optimistic: Option<OptimisticPlan>,
}

/// Where in a batch a statement stands, and the end of what is asked before it.
struct Place {
    asked: usize,
    statement: usize,
}

/// How it ended to try several together.
#[derive(Debug)]
pub enum BatchOutcome {
    /// With all that the client gets for them.
    Done(BytesMut),
    /// Nothing was done, for one of them.
    Failed { at: usize, why: NotDoneReason },
}

/// Why one of several was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDoneReason {
    /// Its condition does not hold.
    ConditionFailed,
    /// It outlived the hold budget.
    Slow,
    Other,
}

/// Puts them back.
const PUT_BACK_SQL: &str = "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pgsluice.lock_timeout'), true), \
     pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('pgsluice.statement_timeout'), true)";

/// How a first try ended.
#[derive(Debug)]
pub enum OptimisticOutcome {
    /// It came behind messages of the client's. One of those has failed, and the client has its error; nothing was tried.
    ClientFailed,
    /// Nothing was done, as the condition does not hold: it may not soon.
    NotSo,
    /// Nothing was done.
    NotDone,
    /// Nothing was done, as it outlived the hold budget.
    Slow,
    Done(Reply),
}

/// Unless it is done, the statement is to go its full way.
///
/// # Errors
/// The client cancels, or is gone; or the backend is.
pub async fn optimistic_try(context: &mut Context<'_>, first: &OptimisticPlan) -> Result<OptimisticOutcome, RunError> {
    let Some(phase) = first.plan.phases.first() else { return Ok(OptimisticOutcome::NotDone) };
    let (batch, visible) = optimistic_batch(context, Batch::new(), first, phase);
    let answer = context.channel_mut().ask(batch, Some(visible)).await?;
    optimistic_outcome(context, answer, phase).await
}

/// The same, in place of an Execute of the client's portal and in one pipeline with what the client has sent before it.
///
/// # Errors
/// As [`Run::optimistic_try`].
pub async fn optimistic_try_in_pipeline(
    context: &mut Context<'_>,
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

/// Several statements of a transaction block in one round trip, all or nothing. What is needed for each is asked for and locked
/// right before it, so names mean what they do there.
///
/// # Errors
/// As [`Run::optimistic_try`].
pub async fn optimistic_tries(
    context: &mut Context<'_>,
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
        tries.iter().filter(|one| one.optimistic.is_some()).for_each(|_| count_done(context));
        return Ok(BatchOutcome::Done(answer.completion));
    };
    let sqlstate = error.sqlstate().to_owned();
    let slow = optimistic_failure(context, error, phase).await?;
    // Behind the last are only settings of the proxy's.
    let at = places.iter().position(|place| answer.done <= place.statement).unwrap_or(tries.len() - 1);
    let asked = places.get(at).is_some_and(|place| answer.done < place.asked);
    let why = match slow {
        true => NotDoneReason::Slow,
        false if asked && sqlstate == sqlstate::INVALID_TEXT_REPRESENTATION => NotDoneReason::ConditionFailed,
        false => NotDoneReason::Other,
    };
    Ok(BatchOutcome::Failed { at, why })
}

/// The batch, and where in it each statement stands.
fn batch_of_tries(context: &Context<'_>, tries: &[OptimisticTry<'_>], phase: &Phase) -> (Batch, Vec<Place>) {
    let mut batch = Batch::new();
    batch.statement("SAVEPOINT pgsluice", &[]);
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
    batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
    (batch, places)
}

fn count_done(context: &Context<'_>) {
    context.metrics().lock_attempts.add();
    context.metrics().first_tries_done.add();
}

/// Takes back what was tried. True: it had outlived the hold budget.
async fn optimistic_failure(context: &mut Context<'_>, error: ServerError, phase: &Phase) -> Result<bool, RunError> {
    context.rollback_attempt().await?;
    if context.channel().client_gone() {
        return Err(context.give_up_block(RunError::ClientGone).await);
    }
    if error.sqlstate() == sqlstate::QUERY_CANCELED {
        // A cancel, the session's own `statement_timeout`, or the hold budget.
        let cancelled = context.channel().take_cancelled();
        let over = |budget| is_statement_timeout(&error, context.begun().elapsed(), budget);
        if begun_over_budget(context, phase) && budget::hold_budget(context, phase).is_some_and(over) && !cancelled {
            context.metrics().hold_budget_outlived.add();
            return Ok(true);
        }
        return Err(context.give_up_block(RunError::Server(error)).await);
    }
    tracing::debug!(sqlstate = error.sqlstate(), locked = is_lock_failure(&error), "not at the first try");
    Ok(false)
}

async fn optimistic_outcome(
    context: &mut Context<'_>,
    answer: Answer,
    phase: &Phase,
) -> Result<OptimisticOutcome, RunError> {
    let Some(error) = answer.error else {
        count_done(context);
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

fn begun_over_budget(context: &Context<'_>, phase: &Phase) -> bool {
    budget::hold_budget(context, phase).is_some_and(|budget| context.begun().elapsed() >= budget)
}

/// A target list that sets the transaction's timeouts. A target is computed behind those before it.
fn timeouts(context: &Context<'_>, inside: bool, phase: &Phase) -> String {
    let wait = PATIENCE.min(context.config().locks.fallback_timeout).as_millis();
    let keep = if inside { KEEP } else { "" };
    let hold = budget::hold_budget(context, phase).map(hold).unwrap_or_default();
    format!("{keep}pg_catalog.set_config('lock_timeout', '{wait}', true){hold}")
}

/// With the place of the client's statement in it.
fn optimistic_batch(context: &Context<'_>, mut batch: Batch, first: &OptimisticPlan, phase: &Phase) -> (Batch, usize) {
    let inside = context.in_transaction();
    batch.statement(if inside { "SAVEPOINT pgsluice" } else { "BEGIN" }, &[]);
    // One statement for all of them: each costs the server as much as what it does here.
    put_needs(&mut batch, first, phase, &timeouts(context, inside, phase));
    let visible = batch.statements;
    for step in &phase.steps {
        batch.statement(&step.sql, &[]);
    }
    if inside {
        batch.statement(PUT_BACK_SQL, &[]);
        batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
    } else {
        batch.statement("COMMIT", &[]);
    }
    (batch, visible)
}

/// What must be so, and locked, before the statement; how many statements the batch has when that is asked.
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

/// The hold budget, unless the session's own limit is stricter.
fn hold(budget: Duration) -> String {
    const OWN: &str = "pg_catalog.current_setting('statement_timeout')";
    let ms = budget.as_millis();
    format!(
        ", CASE WHEN {OWN} OPERATOR(pg_catalog.=) '0' \
         OR {OWN}::pg_catalog.interval OPERATOR(pg_catalog.>) '{ms} ms'::pg_catalog.interval \
         THEN pg_catalog.set_config('statement_timeout', '{ms}', true) END"
    )
}
