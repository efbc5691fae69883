//! Long phases: builds, validations and backfills, which block neither reads nor writes, and the undo when one fails.
//!
//! A long phase makes no lock attempts and runs without a `lock_timeout` of the proxy's: its waits block nobody, and a timeout in a
//! concurrent build leaves an invalid index. The session's own settings apply. This file owns no state. It keeps true that a phase holds
//! its lanes until its undo is over.

use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError, UndoneAfter};
use crate::execute::state::RunState;
use crate::execute::{backfill, build, undo, wait};
use crate::plan::Phase;

/// Takes the lanes of a long phase, runs the phase, undoes it if it fails, and gives the lanes back.
pub(super) async fn run(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    reply: &mut Reply,
) -> Result<(), RunError> {
    let mut waiting = wait::take_lanes(context, phase).await?;
    let result = match &phase.backfill {
        Some(what) => backfill::fill(context, state, phase, what, &mut waiting).await,
        None => build::long_steps(context, state, phase, reply).await,
    };
    if !matches!(result, Err(RunError::Lost)) {
        // An invalid index is dropped while this session holds the lane, so that no other session takes the index for its own.
        if result.is_err() {
            context.channel().cancel_settled().await;
            undo::undo_phase(context, state, phase, UndoneAfter::Failed).await?;
        }
        waiting.release_lanes(context).await?;
    }
    result
}
