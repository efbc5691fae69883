//! The state of one phase's wait for its locks: since when, for whom, which lanes it has, and how it tries next.
//!
//! It owns that state and asks nobody. It keeps true that a wait has a limit (`deadline`, the session's own `lock_timeout` and
//! `statement_timeout`, less while the transaction holds a strong lock), and that no rung of the ladder is longer than the stall budget.

use super::budget::AttemptMode;
use super::context::Context;
use crate::config::Config;
use crate::lanes::{self, Blocker, View};
use crate::plan::Phase;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first notice comes when a wait is long enough for a person to notice it.
const FIRST_NOTICE: Duration = Duration::from_millis(250);

/// Who is first in a lane looks so often who is in the way, and more seldom the longer it has waited; in between it glances at one of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
const LOOK_SHARE: u32 = 4;

/// So many times the highest rung, which take some twenty seconds, are no bad luck any more.
const IN_VAIN: u32 = 8;

/// A rung's pause: so many times as long as it made others wait.
const LADDER_PAUSE: u32 = 10;

/// The state of one phase's wait.
#[derive(Debug)]
pub(super) struct LockWait {
    since: Instant,
    limit: Duration,
    noticed: Option<Instant>,
    looked: Option<Instant>,
    /// Who was first seen in the way, and when.
    seen: HashMap<(Option<i32>, String), Instant>,
    last: View,
    /// Lanes this phase needs, and how many of them (from the first) it has.
    lanes: Vec<u32>,
    held: usize,
    /// The next rung of the ladder, its highest, and when it may be stepped on.
    rung: Duration,
    highest: Duration,
    rung_from: Instant,
    /// How often the highest was in vain.
    at_the_top: u32,
    /// The transaction makes others wait meanwhile: it stands behind no lane for longer than the stall budget.
    hurts: bool,
    taken_by_other: bool,
    outwaited: bool,
}

impl LockWait {
    pub(super) fn new(phase: &Phase, context: &Context<'_>) -> Self {
        let now = Instant::now();
        let taken_by_other = phase.locks.iter().any(|lock| {
            let mut found = context.facts().relations.iter().filter_map(|asked| asked.found.as_ref());
            found.any(|relation| relation.id.oid == lock.oid && relation.lane_holder.is_some())
        });
        let held = phase.locks.iter().any(|lock| lock.held);
        Self {
            since: now,
            limit: context.wait_limit(),
            noticed: None,
            looked: None,
            seen: HashMap::new(),
            last: View::default(),
            lanes: lanes::lanes_of(&phase.locks)
                .into_iter()
                .filter(|lane| context.turn().is_none_or(|turn| !turn.has(*lane)))
                .collect(),
            held: 0,
            rung: context.config().locks.ladder_start,
            highest: context.config().locks.stall_budget,
            // Who holds a lock there already is ahead of all that wait for it, so that nothing is to be gained by polling.
            rung_from: if held { now } else { now + context.config().locks.starve_after },
            at_the_top: 0,
            hurts: context.holds_strong_lock(),
            taken_by_other,
            outwaited: false,
        }
    }

    /// Another session's DDL is first in a lane we need.
    pub(super) fn lane_is_taken(&self) -> bool {
        self.taken_by_other
    }

    /// The next lane to take.
    pub(super) fn missing_lane(&self) -> Option<u32> {
        self.lanes.get(self.held).copied()
    }

    /// Who is behind another one in a lane looks who is in the way when the client is told, and now and then.
    pub(super) fn is_look_due(&self, now: Instant, interval: Duration) -> bool {
        match self.looked {
            None => now - self.since >= FIRST_NOTICE,
            Some(at) => now - at >= interval,
        }
    }

    pub(super) fn queue(&self) -> AttemptMode {
        let rung = self.rung.min(self.highest);
        if self.at_the_top >= IN_VAIN { AttemptMode::Each(rung) } else { AttemptMode::Queue(rung) }
    }

    /// Another wait of the same phase, whose lanes it has: the limit counts anew.
    pub(super) fn begin_anew(&mut self) {
        let now = Instant::now();
        self.rung_from = now + (self.rung_from - self.since);
        self.since = now;
        self.noticed = None;
    }

    /// A try found its lock taken.
    pub(super) fn failed(&mut self, how: AttemptMode) {
        if let AttemptMode::Queue(timeout) | AttemptMode::Each(timeout) | AttemptMode::Outwait(timeout) = how {
            self.at_the_top = self.at_the_top.saturating_add(u32::from(timeout >= self.highest));
            self.rung_from = Instant::now() + timeout.saturating_mul(LADDER_PAUSE);
            self.rung = self.rung.max(timeout).saturating_mul(2).min(self.highest);
        }
    }

    /// Someone has been in the way, in one transaction, for so long that a short queue would not outlast it.
    pub(super) fn settled_blocker(&self, patience: Duration, now: Instant) -> bool {
        self.last.blockers.iter().any(|blocker| {
            let known = blocker.age_ms.map(Duration::from_millis).unwrap_or_default();
            let seen = self.seen.get(&key(blocker)).map(|at| now - *at).unwrap_or_default();
            blocker.prepared.is_some() || known.max(seen) > patience
        })
    }

    /// Who is in the way for sure, of those who were seen at the last look: it is not looked for others while he is. Not where there is
    /// more to find out: an autovacuum may be about to yield, a short queue may be worth a try. In a transaction somebody may come to wait for it.
    pub(super) fn watched(&self, config: &Config, now: Instant, in_transaction: bool) -> Option<Blocker> {
        let seldom = if in_transaction { LOOK_EVERY } else { (now - self.since) / LOOK_SHARE };
        let fresh = self.looked.is_some_and(|at| now - at < seldom.clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY));
        let told = match self.noticed {
            None => now - self.since < FIRST_NOTICE,
            Some(at) => now - at < config.ddl.progress_interval,
        };
        let queues = now >= self.rung_from && !self.settled_blocker(config.locks.starve_after, now);
        let others = self.last.blockers.iter().any(|blocker| blocker.autovacuum || blocker.waits_for_us);
        let first = self.last.blockers.first().filter(|_| fresh && told && !queues && !others)?;
        self.missing_lane().is_none().then(|| first.clone())
    }

    pub(super) fn look(&mut self, view: View, now: Instant) {
        let mut seen = HashMap::with_capacity(view.blockers.len());
        for blocker in &view.blockers {
            let key = key(blocker);
            let first = self.seen.get(&key).copied().unwrap_or(now);
            seen.insert(key, first);
        }
        self.seen = seen;
        // Those it has come before.
        let mut place = 0;
        self.lanes.retain(|lane| {
            place += 1;
            place <= self.held || !view.lanes_of_strangers.contains(lane)
        });
        self.last = view;
        self.looked = Some(now);
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// The longest that it may wait.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether it has waited for as long as it may.
    pub(super) fn is_over(&self) -> bool {
        self.waited() >= self.limit
    }

    /// What the last look at the blockers has brought.
    pub(super) fn last(&self) -> &View {
        &self.last
    }

    /// Whether the transaction makes others wait meanwhile.
    pub(super) fn hurts(&self) -> bool {
        self.hurts
    }

    /// The lanes that this phase needs.
    pub(super) fn lanes(&self) -> &[u32] {
        &self.lanes
    }

    /// The missing lane is taken.
    pub(super) fn lane_taken(&mut self) {
        self.held += 1;
    }

    /// The lanes that are held, which the caller gives back.
    pub(super) fn take_held_lanes(&mut self) -> Vec<u32> {
        let held = std::mem::take(&mut self.held);
        self.lanes[..held].to_vec()
    }

    /// Who was seen last is in the way no more: the next look is due.
    pub(super) fn forget_look(&mut self) {
        self.looked = None;
    }

    /// It is too early to stand in PostgreSQL's queue.
    pub(super) fn polls(&self, now: Instant) -> bool {
        now < self.rung_from
    }

    /// Whether the client is to be told now; if so, it counts as told.
    pub(super) fn take_notice(&mut self, now: Instant, interval: Duration) -> bool {
        let due = match self.noticed {
            None => now - self.since >= FIRST_NOTICE,
            Some(at) => now - at >= interval,
        };
        let told = due && !(self.last.blockers.is_empty() && self.last.lane_holder.is_none());
        if told {
            self.noticed = Some(now);
        }
        told
    }

    /// Only autovacuums are in the way that yield, and they have been for as long as PostgreSQL itself would let them.
    pub(super) fn is_behind_autovacuum(&self, deadlock_timeout: Duration, now: Instant) -> bool {
        let blockers = &self.last.blockers;
        let yields = !blockers.is_empty()
            && blockers.iter().all(|b| b.autovacuum && (b.waits_for_us || !b.to_prevent_wraparound));
        let long = |b: &Blocker| self.seen.get(&key(b)).is_some_and(|at| now - *at >= deadlock_timeout);
        yields && blockers.iter().all(|b| b.waits_for_us || long(b))
    }

    /// The blockers have been cancelled: whoever is seen from now on is new.
    pub(super) fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// Whether an autovacuum may be waited for in the queue, which is done once.
    pub(super) fn take_outwait(&mut self) -> bool {
        !std::mem::replace(&mut self.outwaited, true)
    }
}

fn key(blocker: &Blocker) -> (Option<i32>, String) {
    (blocker.pid, blocker.transaction.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind short transactions that overlap without an end.
    #[test]
    fn the_ladder_ends_at_the_stall_budget() {
        let now = Instant::now();
        let (first, highest) = (Duration::from_millis(5), Duration::from_millis(200));
        let mut waiting = LockWait {
            since: now,
            limit: Duration::MAX,
            noticed: None,
            looked: None,
            seen: HashMap::new(),
            last: View::default(),
            lanes: Vec::new(),
            held: 0,
            rung: first,
            highest,
            rung_from: now,
            at_the_top: 0,
            hurts: false,
            taken_by_other: false,
            outwaited: false,
        };
        let mut rungs = Vec::new();
        for _ in 0..200 {
            rungs.push(waiting.rung.as_millis());
            waiting.failed(AttemptMode::Queue(waiting.rung));
            waiting.failed(AttemptMode::Poll);
        }
        assert_eq!(rungs[..7], [5, 10, 20, 40, 80, 160, 200]);
        assert_eq!(waiting.rung, highest);
    }
}
