//! The state of one phase's wait for its locks: since when it waits, for which sessions, which lanes it holds, and how it tries next.
//!
//! This file owns that state and asks the server nothing. It keeps true that a wait has a limit (`deadline`, the session's own
//! `lock_timeout` and `statement_timeout`, `in_transaction_wait` while the transaction holds a strong lock), and that no attempt in
//! PostgreSQL's queue is longer than the stall budget. These attempts are the ladder: each rung doubles the time of the one before.

use super::budget::AttemptMode;
use super::context::ExecutionContext;
use crate::config::Config;
use crate::lanes::{self, Blocker, View};
use crate::plan::Phase;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first notice comes when a wait is long enough for a person to notice it.
const FIRST_NOTICE: Duration = Duration::from_millis(250);

/// The session that holds its lanes looks at all blockers at this interval, which grows with the time waited. Between two looks it glances
/// at one blocker.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest interval of looks.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// The interval of looks, as a part of the time waited so far: a quarter.
const LOOK_SHARE: u32 = 4;

/// After this many failed attempts of the highest rung, which take about twenty seconds, the wait tries another way to queue.
const IN_VAIN: u32 = 8;

/// The pause after a rung, as a multiple of the time that the attempt made others wait.
const LADDER_PAUSE: u32 = 10;

/// The state of one phase's wait. `since` is when it began, `limit` how long it may last, `noticed` when the client was notified last,
/// `looked` when the blockers were looked at last.
#[derive(Debug)]
pub(super) struct LockWait {
    since: Instant,
    limit: Duration,
    noticed: Option<Instant>,
    looked: Option<Instant>,
    /// When each blocker was seen first, by its pid and transaction.
    seen: HashMap<(Option<i32>, String), Instant>,
    last: View,
    /// The lanes that this phase needs, and how many of them, from the first on, it holds.
    lanes: Vec<u32>,
    held: usize,
    /// The next rung of the ladder, the highest rung, and when the next rung may be tried.
    rung: Duration,
    highest: Duration,
    rung_from: Instant,
    /// How often the highest rung has failed.
    at_the_top: u32,
    /// The client's transaction blocks other sessions. It waits for a lane no longer than the stall budget.
    hurts: bool,
    taken_by_other: bool,
    outwaited: bool,
}

impl LockWait {
    /// Returns the state of a wait that begins now.
    pub(super) fn new(phase: &Phase, context: &ExecutionContext<'_>) -> Self {
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
            // A session that holds a lock on the relation already goes ahead of all sessions that wait for one, so that polling gains
            // nothing.
            rung_from: if held { now } else { now + context.config().locks.starve_after },
            at_the_top: 0,
            hurts: context.holds_strong_lock(),
            taken_by_other,
            outwaited: false,
        }
    }

    /// Returns the state of a wait for a statement that stands in no lane. The wait has begun at `since`.
    pub(super) fn without_lanes(phase: &Phase, context: &ExecutionContext<'_>, since: Instant) -> Self {
        let wait = Self::new(phase, context);
        let rung_from = since + (wait.rung_from - wait.since);
        Self { since, rung_from, lanes: Vec::new(), taken_by_other: false, ..wait }
    }

    /// Whether another session's DDL holds a lane that this phase needs.
    pub(super) fn lane_is_taken(&self) -> bool {
        self.taken_by_other
    }

    /// Returns the next lane to take.
    pub(super) fn missing_lane(&self) -> Option<u32> {
        self.lanes.get(self.held).copied()
    }

    /// Whether a session that waits behind another one in a lane looks at the blockers now. It does so when the client is notified.
    pub(super) fn is_look_due(&self, now: Instant, interval: Duration) -> bool {
        match self.looked {
            None => now - self.since >= FIRST_NOTICE,
            Some(at) => now - at >= interval,
        }
    }

    /// Returns how the next attempt waits in PostgreSQL's queue.
    pub(super) fn queue(&self) -> AttemptMode {
        let rung = self.rung.min(self.highest);
        if self.at_the_top >= IN_VAIN { AttemptMode::Each(rung) } else { AttemptMode::Queue(rung) }
    }

    /// Begins another wait of the same phase, which holds its lanes. The limit counts from now.
    pub(super) fn begin_anew(&mut self) {
        let now = Instant::now();
        self.rung_from = now + (self.rung_from - self.since);
        self.since = now;
        self.noticed = None;
    }

    /// Notes that an attempt found its lock taken.
    pub(super) fn failed(&mut self, how: AttemptMode) {
        if let AttemptMode::Queue(timeout) | AttemptMode::Each(timeout) | AttemptMode::Outwait(timeout) = how {
            self.at_the_top = self.at_the_top.saturating_add(u32::from(timeout >= self.highest));
            self.rung_from = Instant::now() + timeout.saturating_mul(LADDER_PAUSE);
            self.rung = self.rung.max(timeout).saturating_mul(2).min(self.highest);
        }
    }

    /// Whether a blocker has been there, in one transaction, for longer than `patience`, so that a short wait in the queue would not
    /// outlast it.
    pub(super) fn settled_blocker(&self, patience: Duration, now: Instant) -> bool {
        self.last.blockers.iter().any(|blocker| {
            let known = blocker.age_ms.map(Duration::from_millis).unwrap_or_default();
            let seen = self.seen.get(&key(blocker)).map(|at| now - *at).unwrap_or_default();
            blocker.prepared.is_some() || known.max(seen) > patience
        })
    }

    /// Returns a blocker of the last look that is enough to ask for: while it is there, a look at others tells nothing new. `None` means
    /// that a full look is due: an autovacuum may be about to yield, a short wait in the queue may succeed, or another session may have
    /// come to wait for this transaction.
    pub(super) fn watched(&self, config: &Config, now: Instant, in_transaction: bool) -> Option<Blocker> {
        let seldom = if in_transaction { LOOK_EVERY } else { (now - self.since) / LOOK_SHARE };
        let fresh = self.looked.is_some_and(|at| now - at < seldom.clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY));
        let notified = match self.noticed {
            None => now - self.since < FIRST_NOTICE,
            Some(at) => now - at < config.ddl.progress_interval,
        };
        let queues = now >= self.rung_from && !self.settled_blocker(config.locks.starve_after, now);
        let others = self.last.blockers.iter().any(|blocker| blocker.autovacuum || blocker.waits_for_us);
        let first = self.last.blockers.first().filter(|_| fresh && notified && !queues && !others)?;
        self.missing_lane().is_none().then(|| first.clone())
    }

    /// Keeps the result of a look at the blockers, and drops the lanes that are held by sessions whose role may not change the relation.
    pub(super) fn look(&mut self, view: View, now: Instant) {
        let mut seen = HashMap::with_capacity(view.blockers.len());
        for blocker in &view.blockers {
            let key = key(blocker);
            let first = self.seen.get(&key).copied().unwrap_or(now);
            seen.insert(key, first);
        }
        self.seen = seen;
        // The lanes that this phase holds stay in the list.
        let mut place = 0;
        self.lanes.retain(|lane| {
            place += 1;
            place <= self.held || !view.lanes_of_strangers.contains(lane)
        });
        self.last = view;
        self.looked = Some(now);
    }

    /// Returns the time waited so far.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Returns the longest that it may wait.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether the wait has reached its limit.
    pub(super) fn is_over(&self) -> bool {
        self.waited() >= self.limit
    }

    /// Returns the result of the last look at the blockers.
    pub(super) fn last(&self) -> &View {
        &self.last
    }

    /// Whether the client's transaction blocks other sessions.
    pub(super) fn hurts(&self) -> bool {
        self.hurts
    }

    /// Returns the lanes that this phase needs.
    pub(super) fn lanes(&self) -> &[u32] {
        &self.lanes
    }

    /// Notes that the missing lane is taken.
    pub(super) fn lane_taken(&mut self) {
        self.held += 1;
    }

    /// Takes the lanes that are held out of the state. The caller gives them back.
    pub(super) fn take_held_lanes(&mut self) -> Vec<u32> {
        let held = std::mem::take(&mut self.held);
        self.lanes[..held].to_vec()
    }

    /// Forgets the time of the last look, so that the next look is due.
    pub(super) fn forget_look(&mut self) {
        self.looked = None;
    }

    /// Whether it is too early to wait in PostgreSQL's queue.
    pub(super) fn polls(&self, now: Instant) -> bool {
        now < self.rung_from
    }

    /// Whether the client is to be notified now. If so, the notification counts as sent.
    pub(super) fn take_notice(&mut self, now: Instant, interval: Duration) -> bool {
        let due = match self.noticed {
            None => now - self.since >= FIRST_NOTICE,
            Some(at) => now - at >= interval,
        };
        let notifies = due && !(self.last.blockers.is_empty() && self.last.lane_holder.is_none());
        if notifies {
            self.noticed = Some(now);
        }
        notifies
    }

    /// Whether all blockers are autovacuums that yield, and have been there for as long as PostgreSQL itself would let them.
    pub(super) fn is_behind_autovacuum(&self, deadlock_timeout: Duration, now: Instant) -> bool {
        let blockers = &self.last.blockers;
        let yields = !blockers.is_empty()
            && blockers.iter().all(|b| b.autovacuum && (b.waits_for_us || !b.to_prevent_wraparound));
        let long = |b: &Blocker| self.seen.get(&key(b)).is_some_and(|at| now - *at >= deadlock_timeout);
        yields && blockers.iter().all(|b| b.waits_for_us || long(b))
    }

    /// Forgets when blockers were seen first. It is called when they have been cancelled.
    pub(super) fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// Whether an autovacuum may be waited for in the queue. Only the first call returns true.
    pub(super) fn take_outwait(&mut self) -> bool {
        !std::mem::replace(&mut self.outwaited, true)
    }
}

/// Returns what identifies a blocker between two looks.
fn key(blocker: &Blocker) -> (Option<i32>, String) {
    (blocker.pid, blocker.transaction.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short transactions overlap without an end.
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
