//! How long others may be made to wait: by a lock attempt in PostgreSQL's queue, and by a step that holds its locks.
//!
//! Always holds: no attempt waits for longer than the stall budget, all its locks together. A brief step that outlives its hold budget
//! is taken back once, as it may be an outage; then it goes another way, or it is run without that budget, as it would be directly. It is
//! never refused for the time it takes.

use crate::execute::context::{Context, SizeGuess};
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

/// What each relation that is locked adds to the hold budget: what TRUNCATE or DROP takes for one, on a disk that is not slow.
const PER_RELATION: Duration = Duration::from_millis(10);

/// What it takes to lock a partition that is free, on a busy machine: thousands of them are not to fail for that.
const TO_LOCK_ONE: Duration = Duration::from_micros(100);

/// How long each statement of an attempt may wait for a lock. The session's own `lock_timeout` wins where it is stricter.
pub(super) fn lock_timeout(context: &Context<'_>, phase: &Phase, how: AttemptMode) -> Duration {
    let locks = &context.config().locks;
    let steps = u32::try_from(phase.steps.len()).unwrap_or(u32::MAX).max(1);
    let wanted = match how {
        // What the steps lock beside what is named, each of them.
        AttemptMode::Poll => locks.fallback_timeout.min((locks.stall_budget / steps).max(Duration::from_millis(1))),
        AttemptMode::Queue(timeout) | AttemptMode::Each(timeout) => timeout.min(locks.stall_budget),
        AttemptMode::Outwait(timeout) => timeout,
    };
    match context.facts().session.lock_timeout_ms {
        0 => wanted,
        own => wanted.min(Duration::from_millis(own)),
    }
}

/// The statements that lock by name, and what bounds those that wait: `lock_timeout` begins anew for every relation, with its partitions.
/// True: `statement_timeout` is theirs, and must be set again.
pub(super) fn put_locks(context: &Context<'_>, batch: &mut Batch, phase: &Phase, how: AttemptMode) -> bool {
    let LockSql { nowait, queued } = lock_sql(&phase.locks, !matches!(how, AttemptMode::Poll));
    nowait.iter().for_each(|sql| batch.statement(sql, &[]));
    if queued.is_empty() {
        return false;
    }
    batch.statement(&set_local("statement_timeout", queue_share(context, phase, how, queued.len())), &[]);
    queued.iter().for_each(|sql| batch.statement(sql, &[]));
    true
}

/// How long each of so many statements may wait for all of its locks.
fn queue_share(context: &Context<'_>, phase: &Phase, how: AttemptMode, statements: usize) -> Duration {
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

/// Whether a statement that locks by name has waited for that long.
pub(super) fn was_queue_budget(
    context: &Context<'_>,
    phase: &Phase,
    how: AttemptMode,
    error: &ServerError,
    took: Duration,
) -> bool {
    let statements = lock_sql(&phase.locks, !matches!(how, AttemptMode::Poll)).queued.len();
    statements > 0 && is_statement_timeout(error, took, queue_share(context, phase, how, statements))
}

/// How long a brief step may take once it holds its locks; `None`: as long as the session allows.
pub(super) fn hold_timeout(context: &Context<'_>, phase: &Phase) -> Option<Duration> {
    let own = context.facts().session.statement_timeout_ms;
    hold_budget(context, phase).filter(|budget| own == 0 || *budget < Duration::from_millis(own))
}

/// The same, whatever the session allows. Where many relations are locked at once, it is longer by what that takes.
pub(super) fn hold_budget(context: &Context<'_>, phase: &Phase) -> Option<Duration> {
    let budget = context.config().locks.hold_budget;
    let relations = phase.locks.iter().map(|lock| lock.below.saturating_add(1)).fold(0, u32::saturating_add);
    (phase.kind == PhaseKind::Brief && !budget.is_zero()).then(|| budget + PER_RELATION * relations.saturating_sub(1))
}

pub(super) fn was_hold_budget(context: &Context<'_>, phase: &Phase, error: &ServerError, took: Duration) -> bool {
    hold_timeout(context, phase).is_some_and(|hold| is_statement_timeout(error, took, hold))
        && !context.channel().client_gone()
        && !context.channel().take_cancelled()
}

/// A step has outlived its hold budget, and is taken back. It is to be planned again where its table may have been taken for small;
/// else it is run without the budget, and a WARNING says so.
pub(super) fn outlived(context: &mut Context<'_>, phase: &Phase) -> Result<Phase, RunError> {
    context.metrics().hold_budget_outlived.add();
    tracing::info!(purpose = phase.purpose, "a step has outlived hold_budget");
    if context.size_guess() == SizeGuess::Small {
        return Err(RunError::Slow);
    }
    let report = unhurried_warning(context, phase);
    context.notify(&report);
    Ok(unhurried(phase))
}

/// The plan of a statement that has outlived its hold budget already: as one step it gets none. Where it locks what was not counted then,
/// it gets the budget that this takes.
pub(super) fn at_its_pace<'p>(context: &Context<'_>, plan: &'p Plan) -> Cow<'p, Plan> {
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

fn unhurried_warning(context: &Context<'_>, phase: &Phase) -> Report {
    let budget = in_words(hold_budget(context, phase).unwrap_or_default());
    Report::warning(sqlstate::WARNING, format!("a step has held its lock for longer than {budget}, and is run again without that limit"))
        .detail(format!(
            "It should take milliseconds ({}). It was taken back, so that nobody waited on for it, but there is no other way to do it: \
             others may wait until it is done.",
            phase.purpose
        ))
        .hint("Find out what it does: an event trigger, a slow function, a slow disk. hold_budget in [locks] of proxy.toml says when it is taken back.")
}

/// The phase without a hold budget.
fn unhurried(phase: &Phase) -> Phase {
    Phase { kind: PhaseKind::Guarded, ..phase.clone() }
}

/// How to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptMode {
    /// NOWAIT.
    Poll,
    /// In PostgreSQL's queue, for at most this long, all relations together.
    Queue(Duration),
    /// The same for each of them, where that was in vain: transactions that use all of them may be too long for them to be had in one.
    Each(Duration),
    /// The same, until an autovacuum yields: the one thing that may take longer than the stall budget.
    Outwait(Duration),
}
