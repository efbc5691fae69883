//! The undo of a recorded plan: one that failed and could not be undone yet, or one that another statement has left unfinished.
//!
//! This file owns no state. It keeps true that only objects that the plan has made are undone, identified by oid and column number, as if
//! the plan had failed in the session that began it; and that the record stays as long as the plan cannot be undone.

use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{RunError, UndoOutcome, UndoneAfter};
use crate::execute::record::{Record, RecordKey, resume, table};
use crate::execute::state::RunState;
use crate::execute::undo;
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::report::Report;

/// Takes over the record of a table, of any statement that is `wanted`, together with its lock. `None` means that there is no such record,
/// that another session runs its plan, or that the record may not be followed. `own`: the runs ahead of this session's block, whose records are
/// not taken over.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn take_record(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    own: &[RecordKey],
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<(Record, bool)>, RunError> {
    let wanted = |record: &Record| !record.is_one_of(own) && wanted(record);
    let (_, seen) = table::look_at_record(context, oid, false).await?;
    let Some(seen) = seen.filter(|seen| seen.text.is_some()) else { return Ok(None) };
    let (locked, found) = if seen.holder == Some(context.facts().session.backend_pid) {
        // The table has records of this session's block. A lost block may have left another one behind them.
        table::lock_again(context, oid).await?;
        (true, Some(seen))
    } else {
        table::look_at_record(context, oid, true).await?
    };
    if !locked {
        return Ok(None);
    }
    let followed = found.filter(|found| found.trusted && found.may);
    let record = followed.and_then(|found| Some((Record::from_text(found.text.as_deref()?)?, found.quiet)));
    let record = record.filter(|(record, _)| wanted(record));
    if record.is_none() {
        table::release_record(context, oid).await?;
    }
    Ok(record)
}

/// Undoes a plan whose record this session has taken over. Returns false if another session blocks the undo now.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub(in crate::execute) async fn abandon(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    plan: &Plan,
) -> Result<bool, RunError> {
    let next = state.record().first_phase();
    let undone = undo_abandoned(context, state, plan, next).await;
    if matches!(undone, Err(RunError::Lost)) {
        return undone;
    }
    if !matches!(undone, Ok(true)) {
        // The record stays. Its lock is given back.
        state.record_mut().leave();
    }
    state.record_mut().end(context).await?;
    undone
}

/// Undoes the phase that was under way and all earlier phases.
async fn undo_abandoned(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    plan: &Plan,
    next: usize,
) -> Result<bool, RunError> {
    if let Some(phase) = plan.phases.get(next) {
        let phase = state.with_names(phase).into_owned();
        // This drops an index that is half built.
        resume::finish_interrupted_build(context, state, next, &phase).await?;
    }
    for at in (0..=next.min(plan.phases.len().saturating_sub(1))).rev() {
        match undo::undo_phase(context, state, &plan.phases[at], UndoneAfter::Done(at)).await? {
            UndoOutcome::Undone | UndoOutcome::Reported => {}
            UndoOutcome::NotNow(reason) => {
                tracing::info!(reason, "could not undo the plan that another statement has left");
                return Ok(false);
            }
        }
    }
    let report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, "undid another statement that was unfinished")
        .detail(format!("That {} failed and could not be undone at once, or its session is gone.", plan.tag));
    context.notify(&report);
    Ok(true)
}
