//! The points at which a run may be held: before each of its phases, and between the batches of a backfill.
//!
//! A [`HoldSource`](super::hold::HoldSource) says whether the run is held and what becomes of it; this file carries it out. It owns no state. It keeps true:
//!
//! - A run that is held has no lock on a table. It has given its lanes back, so that other schema changes of its tables go on, and takes them again
//!   before it goes on. (Without a record it keeps its lanes, since nothing would tell it afterwards what has changed.) It keeps the lock of its
//!   record, so that no other session continues or undoes it meanwhile.
//! - Behind a hold the run looks at its tables again, as a run does that continues the plan of a lost session. A run that has done nothing yet is
//!   planned anew.
//! - The wait is visible in `pg_stat_activity`, and ends with a cancel, the session's own timeout, and the end of the client.

use crate::execute::context::ExecutionContext;
use crate::execute::hold::{HoldEnd, HoldSource, HoldStep, Point};
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::execute::record::resume;
use crate::execute::state::RunState;
use crate::execute::take_turn::{end_turn, wait_for_turn};
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::plan::Phase;
use crate::report::Report;
use std::time::{Duration, Instant};

/// How a run ends at a checkpoint.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It is undone.
    Undo(RunError),
    /// It stays on record.
    Leave(RunError),
}

impl From<RunError> for Stopped {
    fn from(stop: RunError) -> Self {
        Self::Undo(stop)
    }
}

/// Holds a run that has done nothing yet, if it is to be held.
///
/// # Errors
/// [`RunError::Stale`] if the run was held. Otherwise the statement was cancelled or rejected, or the backend is lost.
pub(super) async fn before_all(context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
    match pass(context, Point::Phase(0), true, None).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(RunError::Stale),
        Err(Stopped::Undo(stop) | Stopped::Leave(stop)) => Err(stop),
    }
}

/// Holds a run before a phase, if it is to be held.
pub(super) async fn before_phase(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    at: usize,
) -> Result<(), Stopped> {
    let is_recorded = state.record().is_kept();
    match pass(context, Point::Phase(at), is_recorded, None).await {
        Ok(true) => Ok(look_again(context, state).await?),
        Ok(false) => Ok(()),
        Err(Stopped::Leave(stop)) if !may_stay(state) => Err(Stopped::Undo(stop)),
        Err(stopped) => Err(stopped),
    }
}

/// Whether the same statement can continue the run. What was run ahead of a block ends with its block.
fn may_stay(state: &RunState) -> bool {
    state.record().key().is_some() && !state.record().is_of_ahead()
}

/// Holds a backfill between two batches, if it is to be held. Returns whether it was.
pub(super) async fn between_batches(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    phase: &Phase,
    waiting: &mut LockWait,
) -> Result<bool, RunError> {
    if !state.record().is_kept() {
        return Ok(false);
    }
    match pass(context, Point::Batch, true, Some((phase, waiting))).await {
        Ok(true) => look_again(context, state).await.map(|()| true),
        Ok(false) => Ok(false),
        Err(Stopped::Undo(stop) | Stopped::Leave(stop)) => Err(stop),
    }
}

/// Holds the run as long as it is to be held. Returns whether it was. `frees`: it gives its lanes back meanwhile. `lanes`: those of the phase under
/// way.
async fn pass(
    context: &mut ExecutionContext<'_>,
    point: Point,
    frees: bool,
    lanes: Option<(&Phase, &mut LockWait)>,
) -> Result<bool, Stopped> {
    if context.in_transaction() {
        return Ok(false);
    }
    let Some(source) = context.take_hold_source() else { return Ok(false) };
    let result = match source.may_hold(point) {
        true => held(context, source, point, frees, lanes).await,
        false => Ok(false),
    };
    context.put_hold_source(source);
    result
}

async fn held(
    context: &mut ExecutionContext<'_>,
    source: &mut dyn HoldSource,
    point: Point,
    frees: bool,
    mut lanes: Option<(&Phase, &mut LockWait)>,
) -> Result<bool, Stopped> {
    let mut step = source.look(point, Duration::ZERO).await;
    if matches!(step, HoldStep::Go) {
        return Ok(false);
    }
    context.finish_nap().await?;
    let freed = if frees { free_lanes(context, &mut lanes).await? } else { FreedLanes::default() };
    let begun = Instant::now();
    let result = loop {
        step = match step {
            HoldStep::Go => break Ok(()),
            HoldStep::End(report) => break Err(Stopped::Undo(RunError::Report(report))),
            HoldStep::Leave(report) => break Err(Stopped::Leave(RunError::Report(report))),
            HoldStep::Nap { time, words, notice } => {
                if let Some(notice) = notice.filter(|_| context.config().ddl.notices) {
                    context.notify(&notice);
                }
                match nap(context, time, &words).await {
                    Ok(()) => source.look(point, begun.elapsed()).await,
                    Err(stop) => break Err(Stopped::Undo(stop)),
                }
            }
        };
    };
    source.is_over(end_of(&result));
    result?;
    take_lanes_again(context, freed, lanes).await?;
    Ok(true)
}

/// What the end of a hold means for those who hold.
fn end_of(result: &Result<(), Stopped>) -> HoldEnd {
    match result {
        Ok(()) => HoldEnd::GoesOn,
        Err(Stopped::Undo(RunError::Server(_))) => HoldEnd::Cancelled,
        Err(Stopped::Undo(RunError::Report(report))) if report.sqlstate == sqlstate::QUERY_CANCELED => {
            HoldEnd::Cancelled
        }
        Err(Stopped::Undo(_) | Stopped::Leave(_)) => HoldEnd::Ends,
    }
}

/// Naps on the server, for no longer than the session's own timeout allows.
async fn nap(context: &mut ExecutionContext<'_>, time: Duration, words: &str) -> Result<(), RunError> {
    let timeout = Duration::from_millis(context.facts().session.statement_timeout_ms);
    let left = timeout.saturating_sub(context.begun().elapsed());
    if !timeout.is_zero() && left.is_zero() {
        let report = Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
        return Err(RunError::Report(report));
    }
    let time = if timeout.is_zero() { time } else { time.min(left) };
    let nap = nap_sql(time, &context.channel().words(words));
    let error = context.channel_mut().nap(&nap).await?;
    context.cancelled_by(error)?;
    context.interrupted().map_or(Ok(()), Err)
}

/// The lanes that a held run has given back.
#[derive(Debug, Default)]
struct FreedLanes {
    oids: Vec<u32>,
    shown: Vec<(u32, Option<String>)>,
}

async fn free_lanes(
    context: &mut ExecutionContext<'_>,
    lanes: &mut Option<(&Phase, &mut LockWait)>,
) -> Result<FreedLanes, RunError> {
    if let Some((_, waiting)) = lanes {
        waiting.release_lanes(context).await?;
    }
    let shown = context.channel().change_lanes();
    let mut oids = Vec::new();
    if let Some(turn) = context.take_turn() {
        oids = turn.lanes().to_vec();
        oids.dedup();
        let ended = end_turn(context, turn).await;
        context.put_turn(turn);
        ended?;
    }
    context.channel().change_holds(std::iter::empty());
    Ok(FreedLanes { oids, shown })
}

/// Waits for the lanes, behind the schema changes that have taken them meanwhile.
async fn take_lanes_again(
    context: &mut ExecutionContext<'_>,
    freed: FreedLanes,
    lanes: Option<(&Phase, &mut LockWait)>,
) -> Result<(), RunError> {
    let FreedLanes { oids, shown } = freed;
    if let Some(turn) = context.take_turn() {
        let taken = if oids.is_empty() { None } else { Some(wait_for_turn(context, &[], &oids, None).await) };
        let result = match taken {
            Some(Ok(taken)) => {
                *turn = taken;
                Ok(())
            }
            Some(Err(stop)) => Err(stop),
            None => Ok(()),
        };
        context.put_turn(turn);
        result?;
    }
    if let Some((phase, waiting)) = lanes {
        waiting.wait_for_lanes(context, phase).await?;
    }
    context.channel().change_holds(shown.into_iter());
    Ok(())
}

/// Looks whether the plan would still have the same result.
async fn look_again(context: &mut ExecutionContext<'_>, state: &RunState) -> Result<(), RunError> {
    let Some(source) = context.take_hold_source() else { return Ok(()) };
    let changed = resume::has_changed(context, state, source.plan()).await;
    context.put_hold_source(source);
    match changed? {
        None => Ok(()),
        Some(reason) => Err(RunError::Report(
            Report::error(sqlstate::SERIALIZATION_FAILURE, format!("cannot go on after a hold: {reason}"))
                .detail("The table was changed while this statement was held. What it had done is undone.")
                .hint("Try again."),
        )),
    }
}
