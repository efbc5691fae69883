//! The budgets: how long other sessions may wait for a lock attempt in PostgreSQL's lock queue, and for a step that holds its locks.
//!
//! This file computes the timeouts of an attempt and decides what follows when one is exceeded. It keeps true that an attempt waits no
//! longer than the stall budget for all of its locks together. A brief step that takes longer than its hold budget is rolled back once,
//! because it may cause an outage. Then the statement is planned in another way, or the step runs without that budget, as it would without
//! the proxy. No statement is refused because of the time that it takes.

use crate::execute::context::{ExecutionContext, SizeGuess};
use crate::execute::outcome::RunError;
use crate::execute::server_error::is_statement_timeout;
use crate::execute::timing::set_local;
use crate::lanes::{LockSql, lock_sql};
use crate::pg::sqlstate;
use crate::plan::{Phase, PhaseKind, Plan};
use crate::report::{Report, in_words};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::borrow::Cow;
use std::time::Duration;

/// The time that each locked relation adds to the hold budget. It is the time that TRUNCATE or DROP takes for one relation, if the disk is
/// not slow.
const PER_RELATION: Duration = Duration::from_millis(10);

/// The time that it takes to lock a free partition on a busy machine. Without it, an attempt on thousands of partitions would always time
/// out.
const TO_LOCK_ONE: Duration = Duration::from_micros(100);

/// Returns how long each statement of an attempt may wait for a lock. The session's own `lock_timeout` wins if it is shorter.
pub(super) fn lock_timeout(context: &ExecutionContext<'_>, phase: &Phase, how: AttemptMode) -> Duration {
    let locks = &context.config().locks;
    let steps = u32::try_from(phase.steps.len()).unwrap_or(u32::MAX).max(1);
    let wanted = match how {
        // The timeout is for the relations that each step locks without naming them.
        AttemptMode::Poll => locks.fallback_timeout.min((locks.stall_budget / steps).max(Duration::from_millis(1))),
        AttemptMode::Queue(timeout) | AttemptMode::Each(timeout) => timeout.min(locks.stall_budget),
        AttemptMode::Outwait(timeout) => timeout,
    };
    match context.facts().session.lock_timeout_ms {
        0 => wanted,
        own => wanted.min(Duration::from_millis(own)),
    }
}

/// Adds the statements that lock relations by name. `statement_timeout` bounds those that wait, because `lock_timeout` starts again for
/// every relation and partition. Returns true if `statement_timeout` was set for them and must be set again.
pub(super) fn put_locks(context: &ExecutionContext<'_>, batch: &mut Batch, phase: &Phase, how: AttemptMode) -> bool {
    let LockSql { nowait, queued } = lock_sql(&phase.locks, !matches!(how, AttemptMode::Poll));
    nowait.iter().for_each(|sql| batch.statement(sql, &[]));
    if queued.is_empty() {
        return false;
    }
    batch.statement(&set_local("statement_timeout", queue_share(context, phase, how, queued.len())), &[]);
    queued.iter().for_each(|sql| batch.statement(sql, &[]));
    true
}

/// Returns how long each of `statements` LOCK statements may wait for all of its locks.
pub(super) fn queue_share(
    context: &ExecutionContext<'_>,
    phase: &Phase,
    how: AttemptMode,
    statements: usize,
) -> Duration {
    let count = u32::try_from(statements).unwrap_or(u32::MAX).max(1);
    let share = match how {
        AttemptMode::Poll | AttemptMode::Queue(_) => lock_timeout(context, phase, how) / count,
        AttemptMode::Each(timeout) => timeout.saturating_mul(u32::try_from(phase.locks.len()).unwrap_or(u32::MAX)),
        AttemptMode::Outwait(timeout) => timeout,
    };
    let below = phase.locks.iter().map(|lock| lock.below).fold(0, u32::saturating_add);
    let share = share + TO_LOCK_ONE * below;
    let own = Duration::from_millis(context.facts().session.statement_timeout_ms);
    let share = if own.is_zero() { share } else { share.min(own) };
    share.max(Duration::from_millis(1))
}

/// Whether the error is the timeout of a statement that locks by name.
pub(super) fn was_queue_budget(
    context: &ExecutionContext<'_>,
    phase: &Phase,
    how: AttemptMode,
    error: &ServerError,
    took: Duration,
) -> bool {
    let statements = lock_sql(&phase.locks, !matches!(how, AttemptMode::Poll)).queued.len();
    statements > 0 && is_statement_timeout(error, took, queue_share(context, phase, how, statements))
}

/// Returns how long a brief step may take once it holds its locks. `None` means as long as the session's `statement_timeout` allows.
pub(super) fn hold_timeout(context: &ExecutionContext<'_>, phase: &Phase) -> Option<Duration> {
    let own = context.facts().session.statement_timeout_ms;
    hold_budget(context, phase).filter(|budget| own == 0 || *budget < Duration::from_millis(own))
}

/// Returns the hold budget of a phase, without regard to the session's `statement_timeout`. The budget is longer if the phase locks many
/// relations. `None` means that the phase has no budget.
pub(super) fn hold_budget(context: &ExecutionContext<'_>, phase: &Phase) -> Option<Duration> {
    let budget = context.config().locks.hold_budget;
    let relations = phase.locks.iter().map(|lock| lock.below.saturating_add(1)).fold(0, u32::saturating_add);
    (phase.kind == PhaseKind::Brief && !budget.is_zero()).then(|| budget + PER_RELATION * relations.saturating_sub(1))
}

/// Whether the error is the timeout of the hold budget, and not a cancel.
pub(super) fn was_hold_budget(
    context: &ExecutionContext<'_>,
    phase: &Phase,
    error: &ServerError,
    took: Duration,
) -> bool {
    hold_timeout(context, phase).is_some_and(|hold| is_statement_timeout(error, took, hold))
        && !context.channel().client_gone()
        && !context.channel().take_cancelled()
}

/// Handles a step that took longer than its hold budget and was rolled back. If the step was planned for a small table, the result is
/// [`RunError::Slow`] and the statement is planned again. Otherwise the result is the phase without the budget, and a WARNING reports it.
pub(super) fn outlived(context: &mut ExecutionContext<'_>, phase: &Phase) -> Result<Phase, RunError> {
    context.metrics().hold_budget_outlived.add();
    tracing::info!(purpose = phase.purpose, "a step took longer than hold_budget");
    if context.size_guess() == SizeGuess::Small {
        return Err(RunError::Slow);
    }
    let report = unhurried_warning(context, phase);
    context.notify(&report);
    Ok(unhurried(phase))
}

/// Returns the plan without the hold budget if the statement has exceeded that budget already and the plan is one step. A phase keeps its
/// budget if it locks partitions or children that the first budget did not count.
pub(super) fn at_its_pace<'p>(context: &ExecutionContext<'_>, plan: &'p Plan) -> Cow<'p, Plan> {
    let counted = |phase: &Phase| phase.locks.iter().all(|lock| lock.below == 0);
    match plan.phases.as_slice() {
        [phase] if context.size_guess() == SizeGuess::Slow && phase.kind == PhaseKind::Brief && counted(phase) => {
            let mut again = plan.clone();
            again.notes.push(unhurried_warning(context, phase));
            again.phases = vec![unhurried(phase)];
            Cow::Owned(again)
        }
        _ => Cow::Borrowed(plan),
    }
}

/// Returns the WARNING that a step is run again without the hold budget.
fn unhurried_warning(context: &ExecutionContext<'_>, phase: &Phase) -> Report {
    let budget = in_words(hold_budget(context, phase).unwrap_or_default());
    Report::warning(sqlstate::WARNING, format!("a step has held its lock for longer than {budget}, and is run again without that limit"))
        .detail(format!(
            "The step should take milliseconds ({}). It was rolled back so that other sessions did not wait longer, but there is no \
             other way to run it: other sessions may wait until it is done.",
            phase.purpose
        ))
        .hint("Find out what makes the step slow: an event trigger, a slow function, a slow disk. hold_budget in [locks] of proxy.toml says when a step is rolled back.")
}

/// Returns the phase without a hold budget.
fn unhurried(phase: &Phase) -> Phase {
    Phase { kind: PhaseKind::Guarded, ..phase.clone() }
}

/// How an attempt gets its locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptMode {
    /// The attempt uses NOWAIT.
    Poll,
    /// The attempt waits in PostgreSQL's lock queue, for all relations together at most this long.
    Queue(Duration),
    /// The attempt waits at most this long for each relation. It follows attempts of `Queue` that failed: if transactions that use all the
    /// relations are long, one timeout for all of them is too short.
    Each(Duration),
    /// The attempt waits at most this long until an autovacuum yields. This wait alone may take longer than the stall budget.
    Outwait(Duration),
}
