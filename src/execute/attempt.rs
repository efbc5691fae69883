//! Lock attempts: one attempt of a brief or guarded phase, and the loop around it.
//!
//! An attempt is one round trip: it takes all locks by name with NOWAIT, runs the steps and commits. It does not wait in PostgreSQL's lock
//! queue, unless many short transactions starve the wait in the proxy. Then it waits in the queue for a few milliseconds (the ladder), at
//! most for the stall budget. In a transaction block an attempt runs in a savepoint.
//!
//! This file owns the batch of an attempt and the reading of its answer. It keeps true that an attempt whose lock is not available leaves
//! everything as it was.

use crate::backend::{Answer, BackendLost};
use crate::catalog::naming;
use crate::execute::budget::{self, AttemptMode};
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::{AttemptOutcome, Reply, RunError};
use crate::execute::server_error::is_lock_failure;
use crate::execute::state::RunState;
use crate::execute::timing::{SETTLE, set_local};
use crate::pg::sqlstate;
use crate::plan::{LockNeed, Phase, Step};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The batch of one attempt.
struct AttemptBatch {
    batch: Batch,
    /// The position of the first step among the statements.
    steps_at: usize,
}

/// Tries until the phase is done, or gives up. Without `may_wait` it stops with [`RunError::Stale`] when it would have to wait.
pub(super) async fn until_done(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    may_wait: bool,
    phase: &Phase,
    reply: &mut Reply,
) -> Result<(), RunError> {
    let mut waiting = LockWait::new(phase, context);
    let result = attempt_loop(context, state, may_wait, phase, reply, &mut waiting).await;
    if !matches!(result, Ok(()) | Err(RunError::Stale)) {
        context.metrics().measures.waited_for_locks(waiting.waited());
    }
    if !matches!(result, Err(RunError::Lost)) {
        waiting.release_lanes(context).await?;
    }
    result
}

/// Makes attempts, with waits between them, until the phase is done or fails.
async fn attempt_loop(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    may_wait: bool,
    phase: &Phase,
    reply: &mut Reply,
    waiting: &mut LockWait,
) -> Result<(), RunError> {
    let mut phase = Cow::Borrowed(phase);
    if may_be_waited_for(context, &phase) {
        waiting.look_for_deadlock(context, &phase).await?;
    }
    let mut next = if waiting.lane_is_taken() { waiting.wait(context, &phase).await? } else { AttemptMode::Poll };
    loop {
        if let Some(stop) = context.interrupted() {
            return Err(context.give_up_block(stop).await);
        }
        let waited = waiting.waited();
        match once(context, state, &phase, next, reply).await? {
            AttemptOutcome::Done => {
                context.metrics().measures.waited_for_locks(waited);
                return Ok(());
            }
            AttemptOutcome::Failed(stop) => return Err(stop),
            AttemptOutcome::Slow => phase = Cow::Owned(budget::outlived(context, &phase)?),
            // LOCK TABLE failed because the relation is gone or a privilege is missing. The statement itself will raise the error.
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

/// Whether a session that waits for a row of the client's transaction may hold a lock that the phase needs. An attempt would be a deadlock while it
/// waits in PostgreSQL's queue, and the server might end it with an error of that session, whose `deadlock_timeout` may be over just then.
fn may_be_waited_for(context: &ExecutionContext<'_>, phase: &Phase) -> bool {
    let keeps_nobody_out = |oid: u32| {
        let mut found = context.facts().relations.iter().filter_map(|asked| asked.found.as_ref());
        found.any(|f| f.id.oid == oid && f.own_lock.is_some_and(|mode| !mode.blocks_application()))
    };
    context.may_run_again() && phase.locks.iter().any(|lock| lock.held && keeps_nobody_out(lock.oid))
}

/// Makes one attempt. If a lock is not available, everything is as it was before.
pub(super) async fn once(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    how: AttemptMode,
    reply: &mut Reply,
) -> Result<AttemptOutcome, RunError> {
    context.metrics().lock_attempts.add();
    let begun = Instant::now();
    let outcome = make(context, state, phase, how, reply).await?;
    let word = match &outcome {
        AttemptOutcome::Done => "done",
        AttemptOutcome::Locked | AttemptOutcome::Unlockable => "locked",
        AttemptOutcome::Slow => "slow",
        AttemptOutcome::Failed(_) => "failed",
    };
    context.metrics().measures.attempted(word, begun.elapsed());
    Ok(outcome)
}

async fn make(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    how: AttemptMode,
    reply: &mut Reply,
) -> Result<AttemptOutcome, RunError> {
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
    // A deadlock of a step in a block may involve locks that the transaction held before. It would be found in every attempt.
    let hopeless = step.is_some() && context.in_transaction() && error.sqlstate() == sqlstate::DEADLOCK_DETECTED;
    // All locks of an attempt share one timeout.
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
    // An error at COMMIT is that of a deferred constraint. It belongs to the last step.
    let step = step.or_else(|| phase.steps.last());
    let stop = match step {
        Some(step) => context.failed(step, error, reply),
        None => RunError::Server(error),
    };
    // The client's own block fails too, and not only the savepoint. Its failure releases the locks of the block.
    context.rollback_attempt().await?;
    Ok(AttemptOutcome::Failed(context.give_up_block(stop).await))
}

/// Builds the batch of one attempt.
fn layout(context: &ExecutionContext<'_>, state: &RunState, phase: &Phase, how: AttemptMode) -> AttemptBatch {
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    if inside {
        batch.statement(SETTLE, &[]);
    }
    batch.begin_or_savepoint(inside);
    batch.statement(&set_local("lock_timeout", budget::lock_timeout(context, phase, how)), &[]);
    let hold = budget::hold_timeout(context, phase);
    // COMMIT is sent later, when the record can be written. If this proxy freezes or its machine dies before, this timeout ends the
    // transaction.
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
                &[&made.table.to_string(), &made.kind.to_string(), &made.nth.to_string()],
            );
        }
    }
    if inside {
        let session = &context.facts().session;
        batch.statement(&set_local("lock_timeout", Duration::from_millis(session.lock_timeout_ms)), &[]);
        if hold.is_some() || waited {
            batch.statement(&set_local("statement_timeout", own), &[]);
        }
        batch.release_savepoint();
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

/// Makes one attempt of a phase that may not run in a transaction block. The timeout is the session's `lock_timeout`, which is restored
/// afterwards.
pub(super) async fn once_alone(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    phase: &Phase,
    how: AttemptMode,
    reply: &mut Reply,
) -> Result<AttemptOutcome, RunError> {
    let own = context.facts().session.lock_timeout_ms;
    let timeout = budget::lock_timeout(context, phase, how).as_millis();
    context.channel_mut().ask_one(&format!("SET lock_timeout = {timeout}"), &[]).await?;
    let mut outcome = AttemptOutcome::Done;
    for step in &phase.steps {
        let mut batch = Batch::new();
        batch.statement(&step.named(state.names()), &[]);
        let answer = context.channel_mut().ask(batch, step.visible.then_some(0)).await?;
        match answer.error {
            Some(error) if is_lock_failure(&error) => outcome = AttemptOutcome::Locked,
            Some(error) => {
                reply.frames.unsplit(answer.notices);
                outcome = AttemptOutcome::Failed(context.failed(step, error, reply));
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
    Ok(outcome)
}

/// Whether the error is a cancel or a timeout, and not a fault of the statement.
fn interrupts(context: &ExecutionContext<'_>, error: &ServerError) -> bool {
    error.sqlstate() == sqlstate::QUERY_CANCELED || context.channel().client_gone()
}

/// Commits, and writes the record of the phase in the same transaction.
async fn commit(context: &mut ExecutionContext<'_>, state: &mut RunState) -> Result<Answer, BackendLost> {
    state.advance_record();
    state.record_mut().commit(context).await
}

/// Returns the position of the `nth` step among the statements of its phase. Each step before it that makes a constraint is followed by a
/// question for the constraint's name.
fn place(phase: &Phase, nth: usize) -> usize {
    nth + phase.steps.iter().take(nth).filter(|step| step.learns.is_some()).count()
}

/// Returns the step that the statement at position `at` belongs to.
fn step_at(phase: &Phase, at: usize) -> Option<&Step> {
    let last = (0..phase.steps.len()).rev().find(|nth| place(phase, *nth) <= at)?;
    let step = phase.steps.get(last)?;
    (at <= place(phase, last) + usize::from(step.learns.is_some())).then_some(step)
}

/// Returns the locks without LOCK TABLE by name: only `lock_timeout` bounds the wait for them.
pub(super) fn unnamed(locks: &[LockNeed]) -> Vec<LockNeed> {
    locks.iter().map(|lock| LockNeed { lockable: false, ..lock.clone() }).collect()
}
