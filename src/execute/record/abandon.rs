//! Giving up what is on record: a plan that failed and could not be taken back yet, or that another statement has left.
//!
//! It promises: what is undone is what the record's plan has made, told by oid and column number, as if the plan had failed in the session that
//! began it; while it cannot be undone, the record stays and says so.

use crate::execute::context::Context;
use crate::execute::outcome::{RunError, UndoOutcome, UndoneAfter};
use crate::execute::record::{Record, resume, table};
use crate::execute::state::RunState;
use crate::execute::undo;
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::report::Report;

/// The record of a table, whatever statement it is of, with its lock; none if it is at work, or is not to be followed.
/// `wanted`: of which records.
///
/// # Errors
/// It is cancelled, or the backend is gone.
pub async fn take_record(
    context: &mut Context<'_>,
    oid: u32,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<(Record, bool)>, RunError> {
    let (locked, found) = table::look_at_record(context, oid, true).await?;
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

/// Undoes a plan whose record this session has taken over. False: not now, as somebody is in the way.
///
/// # Errors
/// It is cancelled, or the backend is gone.
pub(in crate::execute) async fn abandon(
    context: &mut Context<'_>,
    state: &mut RunState,
    plan: &Plan,
) -> Result<bool, RunError> {
    let next = state.record().first_phase();
    let undone = undo_abandoned(context, state, plan, next).await;
    if matches!(undone, Err(RunError::Lost)) {
        return undone;
    }
    if !matches!(undone, Ok(true)) {
        // The record stays; its lock does not.
        state.record_mut().leave();
    }
    state.record_mut().end(context).await?;
    undone
}

async fn undo_abandoned(
    context: &mut Context<'_>,
    state: &mut RunState,
    plan: &Plan,
    next: usize,
) -> Result<bool, RunError> {
    if let Some(phase) = plan.phases.get(next) {
        let phase = state.with_names(phase).into_owned();
        // What it has left half built is dropped by this.
        resume::finish_interrupted_build(context, state, next, &phase).await?;
    }
    for at in (0..=next.min(plan.phases.len().saturating_sub(1))).rev() {
        match undo::undo_phase(context, state, &plan.phases[at], UndoneAfter::Done(at)).await? {
            UndoOutcome::Undone | UndoOutcome::Reported => {}
            UndoOutcome::NotNow(reason) => {
                tracing::info!(reason, "what another statement has left could not be undone");
                return Ok(false);
            }
        }
    }
    let report =
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, "undid what another statement had left unfinished").detail(
            format!("It was a {} that had begun and whose session is gone, or that could not be taken back.", plan.tag),
        );
    context.notify(&report);
    Ok(true)
}
