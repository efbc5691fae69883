//! Standing in a lane: who is first there looks who is in the way (`wait.rs`), the others look rarely and cheaply.
//!
//! A wait for a lane costs the server a nap and a try of an advisory lock, and the naps grow with the time that was waited. They end where
//! they would hold others up: a nap has a snapshot, and a concurrent build waits for every snapshot that is older.

use super::blocked::waiting_for;
use super::wait::Waiting;
use super::{Execution, Stop};
use crate::lanes;
use crate::plan::Phase;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// The longest nap of who is not first: a lane that becomes free is taken after half of it, and a build waits for as long in vain.
pub(super) const LONGEST_NAP: Duration = Duration::from_millis(250);

/// A nap is so much of the time that was waited already.
const NAP_SHARE: u32 = 8;

impl Execution<'_> {
    /// A nap behind the one who is first, and a try for the lane.
    pub(super) async fn nap_in_lane(&mut self, phase: &Phase, waiting: &mut Waiting) -> Result<(), Stop> {
        let Some(lane) = waiting.missing_lane() else { return Ok(()) };
        let poll = self.config.locks.poll;
        let nap = (waiting.since.elapsed() / NAP_SHARE).clamp(poll.min(LONGEST_NAP), LONGEST_NAP.max(poll));
        let words = waiting_for(phase, &waiting.last);
        let words = self.talk.words(&words);
        let mut batch = Batch::new();
        batch.statement(&lanes::nap_and_try_sql(self.spread(nap), &words, lane, self.in_transaction()), &[]);
        // Until the next one has come to the server.
        let cover = lanes::nap_sql(self.spread(poll) / 2, &words);
        let (answer, struck) = self.talk.ask_then_nap(batch, &cover).await?;
        if answer.value() == Some("t") {
            waiting.held += 1;
        }
        self.struck(struck)?;
        self.struck(answer.error)
    }

    /// Whether to stand behind another one, without a look at who is in the way.
    pub(super) fn stands_behind(&self, waiting: &Waiting, now: Instant) -> bool {
        waiting.missing_lane().is_some()
            && !waiting.hurts
            && !waiting.is_look_due(now, self.config.ddl.progress_interval)
    }

    /// Takes the lanes of a long phase before it starts, so that other DDL on the relation waits in the proxy.
    pub(super) async fn take_lanes(&mut self, phase: &Phase) -> Result<Waiting, Stop> {
        let mut waiting = Waiting::new(phase, self);
        match self.wait_for_lanes(phase, &mut waiting).await {
            Ok(()) => Ok(waiting),
            Err(Stop::Lost) => Err(Stop::Lost),
            Err(stop) => {
                self.give_lanes(&mut waiting).await?;
                Err(stop)
            }
        }
    }

    async fn wait_for_lanes(&mut self, phase: &Phase, waiting: &mut Waiting) -> Result<(), Stop> {
        self.take_free_lanes(waiting).await?;
        while waiting.missing_lane().is_some() {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            if waiting.since.elapsed() >= waiting.limit {
                return Err(Stop::Report(self.gave_up(phase, waiting, waiting.since.elapsed())));
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
        self.wake().await
    }

    /// As most of them are: nobody is looked for, and no nap is taken.
    async fn take_free_lanes(&mut self, waiting: &mut Waiting) -> Result<(), Stop> {
        while let Some(lane) = waiting.missing_lane() {
            let answer = self.talk.ask_one(&lanes::try_lane_sql(lane, self.in_transaction()), &[]).await?;
            if answer.value() != Some("t") {
                return self.struck(answer.error);
            }
            waiting.held += 1;
        }
        Ok(())
    }

    /// Gives the lanes back. In a transaction they go with it.
    pub(super) async fn give_lanes(&mut self, waiting: &mut Waiting) -> Result<(), Stop> {
        let held = std::mem::take(&mut waiting.held);
        if held == 0 || self.in_transaction() {
            return Ok(());
        }
        self.give(waiting.lanes[..held].to_vec()).await
    }
}
