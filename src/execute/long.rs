//! Long steps: builds, validations (and backfills, `backfill.rs`) that block neither reads nor writes, and what they leave when they fail.
//!
//! They take no lock attempts and no `lock_timeout` of ours: their waits hurt nobody, and a timeout in a
//! concurrent build leaves an invalid index. What the session itself has set holds.

use crate::execute::context::Context;
use crate::execute::outcome::{Reply, RunError, UndoneAfter};
use crate::execute::state::RunState;
use crate::execute::{backfill, build, undo, wait};
use crate::plan::Phase;

pub(super) async fn run(
    context: &mut Context<'_>,
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
        // An invalid index is dropped while the lane is still ours, so that nobody takes it for his own.
        if result.is_err() {
            context.channel().cancel_settled().await;
            undo::undo_phase(context, state, phase, UndoneAfter::Failed).await?;
        }
        waiting.release_lanes(context).await?;
    }
    result
}
