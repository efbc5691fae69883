//! Standing in a lane: who is first there looks who is in the way (`wait.rs`), the others look rarely and cheaply.
//!
//! A wait for a lane costs the server a nap and a try of an advisory lock, and the naps grow with the time that was waited. They end where
//! they would hold others up: a nap has a snapshot, and a concurrent build waits for every snapshot that is older.

use crate::execute::blocked::waiting_for;
use crate::execute::context::Context;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::execute::timing::LONGEST_NAP;
use crate::lanes;
use crate::plan::Phase;
use crate::wire::message::Batch;
use std::time::Instant;

/// A nap is so much of the time that was waited already.
const NAP_SHARE: u32 = 8;

impl LockWait {
    /// A nap behind the one who is first, and a try for the lane.
    pub(super) async fn nap_in_lane(&mut self, context: &mut Context<'_>, phase: &Phase) -> Result<(), RunError> {
        let Some(lane) = self.missing_lane() else { return Ok(()) };
        let poll = context.config().locks.poll;
        let nap = (self.waited() / NAP_SHARE).clamp(poll.min(LONGEST_NAP), LONGEST_NAP.max(poll));
        let words = waiting_for(phase, self.last());
        let words = context.channel().words(&words);
        let mut batch = Batch::new();
        batch.statement(&lanes::nap_and_try_sql(context.spread(nap), &words, lane, context.in_transaction()), &[]);
        // Until the next one has come to the server.
        let cover = lanes::nap_sql(context.spread(poll) / 2, &words);
        let (answer, struck) = context.channel_mut().ask_then_nap(batch, &cover).await?;
        if answer.value() == Some("t") {
            self.lane_taken();
        }
        context.cancelled_by(struck)?;
        context.cancelled_by(answer.error)
    }

    /// Whether to stand behind another one, without a look at who is in the way.
    pub(super) fn stands_behind(&self, context: &Context<'_>, now: Instant) -> bool {
        self.missing_lane().is_some() && !self.hurts() && !self.is_look_due(now, context.config().ddl.progress_interval)
    }

    /// As most of them are: nobody is looked for, and no nap is taken.
    pub(super) async fn take_free_lanes(&mut self, context: &mut Context<'_>) -> Result<(), RunError> {
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

    /// Gives the lanes back. In a transaction they go with it.
    pub(super) async fn release_lanes(&mut self, context: &mut Context<'_>) -> Result<(), RunError> {
        let held = self.take_held_lanes();
        if held.is_empty() || context.in_transaction() {
            return Ok(());
        }
        context.release_lanes(held).await
    }
}
