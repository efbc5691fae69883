//! Waiting in a lane. The session that holds the lane looks at the blockers (`wait.rs`). The sessions behind it only try the lane.
//!
//! A wait for a lane costs the server a nap and a try of an advisory lock. The naps grow with the time waited, up to a limit: a nap holds a
//! snapshot, and a concurrent build waits for every older snapshot. This file owns no state; it works on [`LockWait`]. It keeps true that a
//! session gives back the lanes that it has taken, except in a transaction block, whose end gives them back.

use crate::execute::blocked::waiting_for;
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::execute::timing::LONGEST_NAP;
use crate::lanes;
use crate::plan::Phase;
use crate::wire::message::Batch;
use std::time::Instant;

/// A nap takes this part of the time waited so far: an eighth.
const NAP_SHARE: u32 = 8;

impl LockWait {
    /// Naps behind the session that holds the lane, then tries to take the lane.
    pub(super) async fn nap_in_lane(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<(), RunError> {
        let Some(lane) = self.missing_lane() else { return Ok(()) };
        let poll = context.config().locks.poll;
        let nap = (self.waited() / NAP_SHARE).clamp(poll.min(LONGEST_NAP), LONGEST_NAP.max(poll));
        let words = waiting_for(phase, self.last());
        let words = context.channel().words(&words);
        let mut batch = Batch::new();
        batch.statement(&lanes::nap_and_try_sql(context.spread(nap), &words, lane, context.in_transaction()), &[]);
        // This nap covers the time until the next statement reaches the server.
        let cover = lanes::nap_sql(context.spread(poll) / 2, &words);
        let (answer, nap_error) = context.channel_mut().ask_then_nap(batch, &cover).await?;
        if answer.value() == Some("t") {
            self.lane_taken();
        }
        context.cancelled_by(nap_error)?;
        context.cancelled_by(answer.error)
    }

    /// Whether to wait behind another session without a look at the blockers.
    pub(super) fn stands_behind(&self, context: &ExecutionContext<'_>, now: Instant) -> bool {
        self.missing_lane().is_some() && !self.hurts() && !self.is_look_due(now, context.config().ddl.progress_interval)
    }

    /// Takes the lanes that are free, without a look at the blockers and without a nap. Most lanes are free.
    pub(super) async fn take_free_lanes(&mut self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        while let Some(lane) = self.missing_lane() {
            let sql = lanes::try_lane_sql(lane, context.in_transaction());
            let answer = context.channel_mut().ask_one(&sql, &[]).await?;
            if answer.value() != Some("t") {
                return context.cancelled_by(answer.error);
            }
            self.lane_taken();
        }
        Ok(())
    }

    /// Gives the lanes back. In a transaction block they are held until its end.
    pub(super) async fn release_lanes(&mut self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        let held = self.take_held_lanes();
        if held.is_empty() || context.in_transaction() {
            return Ok(());
        }
        context.release_lanes(held).await
    }
}
