//! Lock attempts: one try of a brief step, and the loop around it.
//!
//! A try is one round trip: take all locks by name with NOWAIT, run the step, commit. It never
//! stands in PostgreSQL's lock queue, unless waiting in the proxy starves behind many short
//! transactions; then it queues for a few milliseconds (the ladder), never longer than the stall
//! budget. In a transaction block the same happens in a savepoint.

use crate::backend::{Answer, BackendLost};
use crate::catalog::naming;
use crate::execute::budget::{self, AttemptMode};
use crate::execute::context::Context;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::{AttemptOutcome, Reply, RunError};
use crate::execute::server_error::is_lock_failure;
use crate::execute::state::RunState;
use crate::execute::timing::set_local;
use crate::pg::sqlstate;
use crate::plan::{LockNeed, Phase, Step};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// Where things stand in the batch of one try.
struct AttemptBatch {
    batch: Batch,
    /// The first step's place.
    steps_at: usize,
}

/// Tries until the phase is done, or gives up. `may_wait`: else it stops with [`RunError::Stale`] where it would have to wait.
pub(super) async fn until_done(
    context: &mut Context<'_>,
    state: &mut RunState,
    may_wait: bool,
    phase: &Phase,
    reply: &mut Reply,
) -> Result<(), RunError> {
    let mut waiting = LockWait::new(phase, context);
    let result = attempt_loop(context, state, may_wait, phase, reply, &mut waiting).await;
    if !matches!(result, Err(RunError::Lost)) {
        waiting.release_lanes(context).await?;
    }
    result
}

async fn attempt_loop(
    context: &mut Context<'_>,
    state: &mut RunState,
    may_wait: bool,
    phase: &Phase,
    reply: &mut Reply,
    waiting: &mut LockWait,
) -> Result<(), RunError> {
    let mut phase = Cow::Borrowed(phase);
    let mut next = if waiting.lane_is_taken() { waiting.wait(context, &phase).await? } else { AttemptMode::Poll };
    loop {
        if let Some(stop) = context.interrupted() {
            return Err(context.give_up_block(stop).await);
        }
        match once(context, state, &phase, next, reply).await? {
            AttemptOutcome::Done => return Ok(()),
            AttemptOutcome::Failed(stop) => return Err(stop),
            AttemptOutcome::Slow => phase = Cow::Owned(budget::outlived(context, &phase)?),
            // LOCK TABLE could not (the relation is gone, a privilege is missing): the statement itself will say why.
            AttemptOutcome::Unlockable => {
                phase = Cow::Owned(Phase { locks: unnamed(&phase.locks), ..phase.into_owned() });
            }
            AttemptOutcome::Locked => {
                context.metrics().lock_attempts_failed.add();
                if !may_wait {
                    return Err(RunError::Stale);
                }
                waiting.failed(next);
                next = waiting.wait(context, &phase).await?;
            }
        }
    }
}

/// One try. A lock that is not to be had leaves everything as it was.
pub(super) async fn once(
    context: &mut Context<'_>,
    state: &mut RunState,
    phase: &Phase,
    how: AttemptMode,
    reply: &mut Reply,
) -> Result<AttemptOutcome, RunError> {
    context.metrics().lock_attempts.add();
    if !phase.in_transaction && !context.in_transaction() {
        return once_alone(context, state, phase, how, reply).await;
    }
    let AttemptBatch { batch, steps_at } = layout(context, state, phase, how);
    let visible = phase.steps.iter().position(|step| step.visible).map(|i| steps_at + place(phase, i));
    let begun = Instant::now();
    let answer = context.channel_mut().ask(batch, visible).await?;
    let took = begun.elapsed();
    let Answer { mut error, notices, completion, done, rows, .. } = answer;
    if error.is_none() {
        let rows = context.channel().decoded(rows);
        state.learn_names(phase, rows);
        if state.record().records(phase) {
            error = commit(context, state).await?.error;
        }
    }
    let Some(error) = error else {
        reply.frames.unsplit(notices);
        reply.frames.unsplit(completion);
        return Ok(AttemptOutcome::Done);
    };
    let step = done.checked_sub(steps_at).and_then(|i| step_at(phase, i));
    // A deadlock of the step's in a block may be about what the transaction held before: it would be found each time.
    let hopeless = step.is_some() && context.in_transaction() && error.sqlstate() == sqlstate::DEADLOCK_DETECTED;
    // The locks of an attempt have one time together.
    let in_queue = done < steps_at
        && budget::was_queue_budget(context, phase, how, &error, took)
        && !context.channel().client_gone();
    if (is_lock_failure(&error) && !hopeless) || (in_queue && !context.channel().take_cancelled()) {
        context.rollback_attempt().await?;
        return Ok(AttemptOutcome::Locked);
    }
    if done < steps_at && phase.locks.iter().any(|lock| lock.lockable) && !interrupts(context, &error) {
        context.rollback_attempt().await?;
        return Ok(AttemptOutcome::Unlockable);
    }
    if step.is_some() && budget::was_hold_budget(context, phase, &error, took) {
        context.rollback_attempt().await?;
        return Ok(AttemptOutcome::Slow);
    }
    reply.frames.unsplit(notices);
    // At COMMIT the error of a deferred constraint comes: it is the last step's.
    let step = step.or_else(|| phase.steps.last());
    let stop = match step {
        Some(step) => context.failed(step, error, reply),
        None => RunError::Server(error),
    };
    // Not only the savepoint fails: the client's own block does, which gives back what it held.
    context.rollback_attempt().await?;
    Ok(AttemptOutcome::Failed(context.give_up_block(stop).await))
}

fn layout(context: &Context<'_>, state: &RunState, phase: &Phase, how: AttemptMode) -> AttemptBatch {
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    if inside {
        batch.statement(SETTLE, &[]);
    }
    batch.statement(if inside { "SAVEPOINT pgsluice" } else { "BEGIN" }, &[]);
    batch.statement(&set_local("lock_timeout", budget::lock_timeout(context, phase, how)), &[]);
    let hold = budget::hold_timeout(context, phase);
    // COMMIT is sent when the record can be written: should this proxy be frozen, or its machine die, nobody else would end that.
    if let Some(budget) = budget::hold_budget(context, phase).filter(|_| state.record().records(phase)) {
        batch.statement(&set_local("idle_in_transaction_session_timeout", budget), &[]);
    }
    let waited = budget::put_locks(context, &mut batch, phase, how);
    let own = Duration::from_millis(context.facts().session.statement_timeout_ms);
    if hold.is_some() || waited {
        batch.statement(&set_local("statement_timeout", hold.unwrap_or(own)), &[]);
    }
    if waited && matches!(how, AttemptMode::Queue(_) | AttemptMode::Each(_)) {
        batch.statement(&set_local("lock_timeout", budget::lock_timeout(context, phase, AttemptMode::Poll)), &[]);
    }
    let steps_at = batch.statements;
    for step in &phase.steps {
        batch.statement(&step.named(state.names()), &[]);
        if let Some(made) = &step.learns {
            batch.statement(
                &context.channel().in_json(naming::LEARN_SQL),
                &[&made.table.to_string(), &made.kind.to_string()],
            );
        }
    }
    if inside {
        let session = &context.facts().session;
        batch.statement(&set_local("lock_timeout", Duration::from_millis(session.lock_timeout_ms)), &[]);
        if hold.is_some() || waited {
            batch.statement(&set_local("statement_timeout", own), &[]);
        }
        batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
    } else {
        if state.notes_created() {
            batch = state.put_identity_question(phase, batch);
        }
        if !state.record().records(phase) {
            batch.statement("COMMIT", &[]);
        }
    }
    AttemptBatch { batch, steps_at }
}

/// A try of what may not stand in a transaction block: under the session's `lock_timeout`, which is put back.
pub(super) async fn once_alone(
    context: &mut Context<'_>,
    state: &RunState,
    phase: &Phase,
    how: AttemptMode,
    reply: &mut Reply,
) -> Result<AttemptOutcome, RunError> {
    let own = context.facts().session.lock_timeout_ms;
    let timeout = budget::lock_timeout(context, phase, how).as_millis();
    context.channel_mut().ask_one(&format!("SET lock_timeout = {timeout}"), &[]).await?;
    let mut tried = AttemptOutcome::Done;
    for step in &phase.steps {
        let mut batch = Batch::new();
        batch.statement(&step.named(state.names()), &[]);
        let answer = context.channel_mut().ask(batch, step.visible.then_some(0)).await?;
        match answer.error {
            Some(error) if is_lock_failure(&error) => tried = AttemptOutcome::Locked,
            Some(error) => {
                reply.frames.unsplit(answer.notices);
                tried = AttemptOutcome::Failed(context.failed(step, error, reply));
            }
            None => {
                reply.frames.unsplit(answer.notices);
                reply.frames.unsplit(answer.completion);
                continue;
            }
        }
        break;
    }
    context.channel().cancel_settled().await;
    context.channel_mut().ask_one(&format!("SET lock_timeout = {own}"), &[]).await?;
    Ok(tried)
}

/// A cancel or a timeout, not a fault of the statement that met it.
fn interrupts(context: &Context<'_>, error: &ServerError) -> bool {
    error.sqlstate() == sqlstate::QUERY_CANCELED || context.channel().client_gone()
}

/// COMMIT, with what the record is to say of the phase.
async fn commit(context: &mut Context<'_>, state: &mut RunState) -> Result<Answer, BackendLost> {
    state.advance_record();
    state.record_mut().commit(context).await
}

/// Where the `nth` step stands among the statements of its phase: behind those that make a constraint the server is asked
/// for its name.
fn place(phase: &Phase, nth: usize) -> usize {
    nth + phase.steps.iter().take(nth).filter(|step| step.learns.is_some()).count()
}

/// The step that the statement at `at` belongs to.
fn step_at(phase: &Phase, at: usize) -> Option<&Step> {
    let last = (0..phase.steps.len()).rev().find(|nth| place(phase, *nth) <= at)?;
    let step = phase.steps.get(last)?;
    (at <= place(phase, last) + usize::from(step.learns.is_some())).then_some(step)
}

/// Before a savepoint. ALTER DOMAIN … DROP CONSTRAINT tells the server's caches of the domain when it has counted the command already, so that
/// this is sent with the next command which writes. In a savepoint that one fails (XX000, since 15: *cannot start a subtransaction when there are
/// unprocessed inval messages*). To the server this is such a command, though it names no relation, locks nothing and needs no privilege.
const SETTLE: &str = "/* pgsluice: before a savepoint */ SELECT FROM (SELECT 1 OFFSET 0) AS nothing LIMIT 0 FOR UPDATE";

/// The same locks, guarded by `lock_timeout` alone.
pub(super) fn unnamed(locks: &[LockNeed]) -> Vec<LockNeed> {
    locks.iter().map(|lock| LockNeed { lockable: false, ..lock.clone() }).collect()
}
