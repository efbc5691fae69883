//! Standing in a lane: who is first there looks who is in the way (`wait.rs`), the others look rarely and cheaply.
//!
//! A wait for a lane costs the server a nap and a try of an advisory lock, and the naps grow with the time that was waited. They end where
//! they would hold others up: a nap has a snapshot, and a concurrent build waits for every snapshot that is older.

use super::blocked::waiting_for;
use super::wait::LockWait;
use super::{Run, RunError};
use crate::lanes;
use crate::plan::Phase;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// The longest nap of who is not first: a lane that becomes free is taken after half of it, and a build waits for as long in vain.
pub(super) const LONGEST_NAP: Duration = Duration::from_millis(250);

/// A nap is so much of the time that was waited already.
const NAP_SHARE: u32 = 8;

impl Run<'_> {
    /// A nap behind the one who is first, and a try for the lane.
    pub(super) async fn nap_in_lane(&mut self, phase: &Phase, waiting: &mut LockWait) -> Result<(), RunError> {
        let Some(lane) = waiting.missing_lane() else { return Ok(()) };
        let poll = self.config.locks.poll;
        let nap = (waiting.since.elapsed() / NAP_SHARE).clamp(poll.min(LONGEST_NAP), LONGEST_NAP.max(poll));
        let words = waiting_for(phase, &waiting.last);
        let words = self.channel.words(&words);
        let mut batch = Batch::new();
        batch.statement(&lanes::nap_and_try_sql(self.spread(nap), &words, lane, self.in_transaction()), &[]);
        // Until the next one has come to the server.
        let cover = lanes::nap_sql(self.spread(poll) / 2, &words);
        let (answer, struck) = self.channel.ask_then_nap(batch, &cover).await?;
        if answer.value() == Some("t") {
            waiting.held += 1;
        }
        self.cancelled_by(struck)?;
        self.cancelled_by(answer.error)
    }

    /// Whether to stand behind another one, without a look at who is in the way.
    pub(super) fn stands_behind(&self, waiting: &LockWait, now: Instant) -> bool {
        waiting.missing_lane().is_some()
            && !waiting.hurts
            && !waiting.is_look_due(now, self.config.ddl.progress_interval)
    }

    /// Takes the lanes of a long phase before it starts, so that other DDL on the relation waits in the proxy.
    pub(super) async fn take_lanes(&mut self, phase: &Phase) -> Result<LockWait, RunError> {
        let mut waiting = LockWait::new(phase, self);
        match self.wait_for_lanes(phase, &mut waiting).await {
            Ok(()) => Ok(waiting),
            Err(RunError::Lost) => Err(RunError::Lost),
            Err(stop) => {
                self.release_wait_lanes(&mut waiting).await?;
                Err(stop)
            }
        }
    }

    async fn wait_for_lanes(&mut self, phase: &Phase, waiting: &mut LockWait) -> Result<(), RunError> {
        self.take_free_lanes(waiting).await?;
        while waiting.missing_lane().is_some() {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            if waiting.since.elapsed() >= waiting.limit {
                return Err(RunError::Report(self.gave_up(phase, waiting, waiting.since.elapsed())));
            }
            if self.stands_behind(waiting, Instant::now()) {
                self.nap_in_lane(phase, waiting).await?;
                continue;
            }
            let mut view = self.nap_and_look(phase, waiting).await?;
            view.blockers.clear();
            let now = Instant::now();
            waiting.look(view, now);
            self.notice(phase, waiting, now);
        }
        self.finish_nap().await
    }

    /// As most of them are: nobody is looked for, and no nap is taken.
    async fn take_free_lanes(&mut self, waiting: &mut LockWait) -> Result<(), RunError> {
        while let Some(lane) = waiting.missing_lane() {
            let answer = self.channel.ask_one(&lanes::try_lane_sql(lane, self.in_transaction()), &[]).await?;
            if answer.value() != Some("t") {
                return self.cancelled_by(answer.error);
            }
            waiting.held += 1;
        }
        Ok(())
    }

    /// Gives the lanes back. In a transaction they go with it.
    pub(super) async fn release_wait_lanes(&mut self, waiting: &mut LockWait) -> Result<(), RunError> {
        let held = std::mem::take(&mut waiting.held);
        if held == 0 || self.in_transaction() {
            return Ok(());
        }
        self.release_lanes(waiting.lanes[..held].to_vec()).await
    }
}
