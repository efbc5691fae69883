//! Waiting in the proxy: naps on the server that say what is waited for, and when to try again.
//!
//! Every wait has a limit (the policy's deadline, the session's own `lock_timeout` and
//! `statement_timeout`, the stall budget while the transaction holds a strong lock), a reason that
//! the client and `pg_stat_activity` see, and three ways to stop it (the client's cancel, the
//! client's end, `pg_cancel_backend`).

use super::blocked::{in_the_way, waiting_for, waiting_for_lock};
use super::lane::LONGEST_NAP;
use super::{Run, RunError};
use crate::config::{Autovacuum, Config};
use crate::lanes::{self, Blocker, View};
use crate::pg::sqlstate;
use crate::plan::Phase;
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptMode {
    /// NOWAIT.
    Poll,
    /// In PostgreSQL's queue, for at most this long, all relations together.
    Queue(Duration),
    /// The same for each of them, where that was in vain: transactions that use all of them may be too long for them to be had in one.
    Each(Duration),
    /// The same, until an autovacuum yields: the one thing that may take longer than the stall budget.
    Outwait(Duration),
}

/// The first notice comes when a wait is long enough for a person to notice it.
const FIRST_NOTICE: Duration = Duration::from_millis(250);

/// Who is first in a lane looks so often who is in the way, and more seldom the longer it has waited; in between it glances at one of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
const LOOK_SHARE: u32 = 4;

/// So many times the highest rung, which take some twenty seconds, are no bad luck any more.
const IN_VAIN: u32 = 8;

/// A nap between two glances is so much of the time that was waited already: two of them are what a lock may be free unnoticed.
const GLANCE_SHARE: u32 = 40;

/// A rung's pause: so many times as long as it made others wait.
const LADDER_PAUSE: u32 = 10;

/// The state of one phase's wait.
#[derive(Debug)]
pub(super) struct LockWait {
    pub(super) since: Instant,
    pub(super) limit: Duration,
    noticed: Option<Instant>,
    looked: Option<Instant>,
    /// Who was first seen in the way, and when.
    seen: HashMap<(Option<i32>, String), Instant>,
    pub(super) last: View,
    /// Lanes this phase needs, and how many of them (from the first) it has.
    pub(super) lanes: Vec<u32>,
    pub(super) held: usize,
    /// The next rung of the ladder, its highest, and when it may be stepped on.
    rung: Duration,
    highest: Duration,
    rung_from: Instant,
    /// How often the highest was in vain.
    at_the_top: u32,
    /// The transaction makes others wait meanwhile: it stands behind no lane for longer than the stall budget.
    pub(super) hurts: bool,
    taken_by_other: bool,
    outwaited: bool,
}

impl LockWait {
    pub(super) fn new(phase: &Phase, run: &Run<'_>) -> Self {
        let now = Instant::now();
        let taken_by_other = phase.locks.iter().any(|lock| {
            let mut found = run.facts.relations.iter().filter_map(|asked| asked.found.as_ref());
            found.any(|relation| relation.id.oid == lock.oid && relation.lane_holder.is_some())
        });
        let held = phase.locks.iter().any(|lock| lock.held);
        Self {
            since: now,
            limit: run.wait_limit(),
            noticed: None,
            looked: None,
            seen: HashMap::new(),
            last: View::default(),
            lanes: lanes::lanes_of(&phase.locks)
                .into_iter()
                .filter(|lane| run.turn.is_none_or(|turn| !turn.has(*lane)))
                .collect(),
            held: 0,
            rung: run.config.locks.ladder_start,
            highest: run.config.locks.stall_budget,
            // Who holds a lock there already is ahead of all that wait for it, so that nothing is to be gained by polling.
            rung_from: if held { now } else { now + run.config.locks.starve_after },
            at_the_top: 0,
            hurts: run.holds_strong_lock(),
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

    fn queue(&self) -> AttemptMode {
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
    fn settled_blocker(&self, patience: Duration, now: Instant) -> bool {
        self.last.blockers.iter().any(|blocker| {
            let known = blocker.age_ms.map(Duration::from_millis).unwrap_or_default();
            let seen = self.seen.get(&key(blocker)).map(|at| now - *at).unwrap_or_default();
            blocker.prepared.is_some() || known.max(seen) > patience
        })
    }

    /// Who is in the way for sure, of those who were seen at the last look: it is not looked for others while he is. Not where there is
    /// more to find out: an autovacuum may be about to yield, a short queue may be worth a try. In a transaction somebody may come to wait for it.
    fn watched(&self, config: &Config, now: Instant, in_transaction: bool) -> Option<Blocker> {
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
}

fn key(blocker: &Blocker) -> (Option<i32>, String) {
    (blocker.pid, blocker.transaction.clone())
}

impl Run<'_> {
    /// The longest that this phase may wait.
    pub(super) fn wait_limit(&self) -> Duration {
        let session = &self.facts.session;
        let mut limit = self.config.locks.deadline;
        if session.lock_timeout_ms > 0 {
            limit = limit.min(Duration::from_millis(session.lock_timeout_ms));
        }
        if session.statement_timeout_ms > 0 {
            limit = limit.min(Duration::from_millis(session.statement_timeout_ms));
        }
        if self.holds_strong_lock() {
            limit = limit.min(self.config.locks.in_transaction_wait);
        }
        limit
    }

    /// Others wait for what the client's transaction holds, for as long as that waits itself.
    fn holds_strong_lock(&self) -> bool {
        let session = &self.facts.session;
        session.in_transaction && session.strongest_lock.is_some_and(|mode| mode.blocks_application())
    }

    /// Waits until it is worth trying again.
    pub(super) async fn wait(&mut self, phase: &Phase, waiting: &mut LockWait) -> Result<AttemptMode, RunError> {
        let next = self.wait_asleep(phase, waiting).await?;
        self.finish_nap().await?;
        Ok(next)
    }

    async fn wait_asleep(&mut self, phase: &Phase, waiting: &mut LockWait) -> Result<AttemptMode, RunError> {
        loop {
            let waited = waiting.since.elapsed();
            if waited >= waiting.limit {
                let report = self.gave_up(phase, waiting, waited);
                return Err(self.give_up_block(RunError::Report(report)).await);
            }
            if let Some(stop) = self.interrupted() {
                return Err(self.give_up_block(stop).await);
            }
            if self.stands_behind(waiting, Instant::now()) {
                self.nap_in_lane(phase, waiting).await?;
                // Who was first has just ended, and nobody else may be in the way.
                match waiting.missing_lane() {
                    None => return Ok(AttemptMode::Poll),
                    Some(_) => continue,
                }
            }
            if let Some(blocker) = waiting.watched(self.config, Instant::now(), self.in_transaction()) {
                if self.nap_and_glance(phase, waiting, &blocker).await? {
                    continue;
                }
                waiting.looked = None;
                if waiting.last.blockers.len() == 1 {
                    return Ok(AttemptMode::Poll);
                }
            }
            let view = self.nap_and_look(phase, waiting).await?;
            let now = Instant::now();
            waiting.look(view, now);
            self.notice(phase, waiting, now);
            // An autovacuum is none: it is cancelled, or finds out by itself and ends.
            if self.in_transaction() && waiting.last.blockers.iter().any(|b| b.waits_for_us && !b.autovacuum) {
                let report = self.deadlock(phase, waiting);
                return Err(self.give_up_block(RunError::Report(report)).await);
            }
            // Whose lane it is may be waiting for this very transaction.
            let impatient = waiting.hurts && waited >= self.config.locks.stall_budget;
            if waiting.missing_lane().is_some() && !impatient {
                continue;
            }
            if waiting.last.blockers.is_empty() && now < waiting.rung_from {
                return Ok(AttemptMode::Poll);
            }
            if let Some(next) = self.autovacuum(waiting, now).await? {
                return Ok(next);
            }
            if now >= waiting.rung_from && !waiting.settled_blocker(self.config.locks.starve_after, now) {
                return Ok(waiting.queue());
            }
        }
    }

    /// Waits until nobody is in the way who has been there for longer than others may be made to wait. With the lanes held.
    pub(super) async fn wait_for_old_transactions(
        &mut self,
        phase: &Phase,
        waiting: &mut LockWait,
    ) -> Result<AttemptMode, RunError> {
        let patience = self.config.locks.stall_budget;
        let next = loop {
            if waiting.since.elapsed() >= waiting.limit {
                return Err(RunError::Report(self.gave_up(phase, waiting, waiting.since.elapsed())));
            }
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            let view = self.nap_and_look(phase, waiting).await?;
            let now = Instant::now();
            waiting.look(view, now);
            self.notice(phase, waiting, now);
            if let Some(next) = self.autovacuum(waiting, now).await? {
                break next;
            }
            if !waiting.settled_blocker(patience, now) {
                break AttemptMode::Queue(patience);
            }
        };
        self.finish_nap().await?;
        Ok(next)
    }

    /// One look at who is in the way, and a try for a lane still missing, after the nap before it and with a nap
    /// behind it: the backend is busy all the time, and a cancel from anywhere ends one of the naps.
    pub(super) async fn nap_and_look(&mut self, phase: &Phase, waiting: &mut LockWait) -> Result<View, RunError> {
        let mut batch = Batch::new();
        let missing = waiting.missing_lane();
        if let Some(lane) = missing {
            batch.statement(&lanes::try_lane_sql(lane, self.in_transaction()), &[]);
        }
        let [oids, modes, lanes, alone] = lanes::view_parameters(&phase.locks, &waiting.lanes);
        self.channel.put_question(&mut batch, lanes::view_sql(), &[&oids, &modes, &lanes, &alone]);
        // A look is fresh when the nap before it ends, and acted on when the nap behind it does: half a poll each.
        let nap = self.spread(self.config.locks.poll) / 2;
        let nap = lanes::nap_sql(nap, &self.channel.words(&waiting_for(phase, &waiting.last)));
        let (answer, struck) = self.channel.ask_then_nap_always(batch, &nap).await?;
        // Behind a nap that was struck the lane is tried all the same.
        if missing.is_some() && answer.value() == Some("t") {
            waiting.held += 1;
        }
        self.cancelled_by(struck)?;
        let answer = match answer.ok() {
            Ok(answer) => answer,
            Err(error) => return self.cancelled_by(Some(error)).map(|()| View::default()),
        };
        let json = answer.rows.last().and_then(|row| row.first()?.clone()).unwrap_or_default();
        Ok(serde_json::from_str(&self.channel.text(&json)).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read who blocks a statement");
            View::default()
        }))
    }

    /// The same, but whether this one is still in the way is all that is asked.
    async fn nap_and_glance(&mut self, phase: &Phase, waiting: &LockWait, blocker: &Blocker) -> Result<bool, RunError> {
        let mut batch = Batch::new();
        batch.statement(lanes::GLANCE_SQL, &[&blocker.transaction, &blocker.oid.to_string(), &blocker.mode]);
        let half = self.config.locks.poll / 2;
        let nap =
            if waiting.hurts { half } else { (waiting.since.elapsed() / GLANCE_SHARE).min(LONGEST_NAP).max(half) };
        let nap = lanes::nap_sql(self.spread(nap), &self.channel.words(&waiting_for(phase, &waiting.last)));
        let (answer, struck) = self.channel.ask_then_nap_always(batch, &nap).await?;
        self.cancelled_by(struck)?;
        let held = answer.value() != Some("f");
        self.cancelled_by(answer.error)?;
        Ok(held)
    }

    /// A nap moved at random, so that several proxies do not ask in step.
    pub(super) fn spread(&self, nap: Duration) -> Duration {
        nap.mul_f64((1.0 + self.config.locks.poll_jitter * (jitter() * 2.0 - 1.0)).max(0.0))
    }

    /// A nap is where a cancel or the session's own timeout strikes: the error is the client's, as it is.
    pub(super) fn cancelled_by(&self, error: Option<ServerError>) -> Result<(), RunError> {
        match error {
            None => Ok(()),
            Some(_) if self.channel.client_gone() => Err(RunError::ClientGone),
            Some(error) => {
                self.channel.take_cancelled();
                Err(RunError::Server(error))
            }
        }
    }

    /// The end of the last nap.
    pub(super) async fn finish_nap(&mut self) -> Result<(), RunError> {
        let struck = self.channel.finish_nap().await?;
        self.cancelled_by(struck)
    }

    /// Tells the client what is waited for: soon once, then at the configured pace.
    pub(super) fn notice(&mut self, phase: &Phase, waiting: &mut LockWait, now: Instant) {
        let due = match waiting.noticed {
            None => now - waiting.since >= FIRST_NOTICE,
            Some(at) => now - at >= self.config.ddl.progress_interval,
        };
        if !due || (waiting.last.blockers.is_empty() && waiting.last.lane_holder.is_none()) {
            return;
        }
        waiting.noticed = Some(now);
        let message = format!("waiting {}", waiting_for_lock(&phase.locks));
        let mut report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(in_the_way(&waiting.last));
        if let Some(pid) = waiting.last.blockers.iter().find_map(|b| b.pid) {
            report = report.hint(format!(
                "Nobody else waits meanwhile. To end the wait: cancel this statement, or SELECT pg_terminate_backend({pid})."
            ));
        }
        tracing::info!(blocked_by = %in_the_way(&waiting.last), "{}", report.message);
        if self.config.ddl.notices {
            self.notify(&report);
        }
    }

    /// Only an autovacuum is in the way, and has been for as long as PostgreSQL itself would let it. One that waits for
    /// our transaction (as its ANALYZE does for a changed row of `pg_class`) cannot go on anyway.
    async fn autovacuum(&mut self, waiting: &mut LockWait, now: Instant) -> Result<Option<AttemptMode>, RunError> {
        let blockers = &waiting.last.blockers;
        let deadlock_timeout = Duration::from_millis(self.facts.session.deadlock_timeout_ms);
        let yields = !blockers.is_empty()
            && blockers.iter().all(|b| b.autovacuum && (b.waits_for_us || !b.to_prevent_wraparound));
        let long = |b: &Blocker| waiting.seen.get(&key(b)).is_some_and(|at| now - *at >= deadlock_timeout);
        let waited = blockers.iter().all(|b| b.waits_for_us || long(b));
        if !yields || !waited {
            return Ok(None);
        }
        match self.config.locks.autovacuum {
            Autovacuum::Cancel if waiting.last.may_cancel => {
                let pids: Vec<i32> = blockers.iter().filter_map(|b| b.pid).collect();
                for pid in pids {
                    tracing::info!(pid, "cancelling an autovacuum that is in the way");
                    self.channel.ask_one(&format!("SELECT pg_catalog.pg_cancel_backend({pid})"), &[]).await?;
                }
                waiting.seen.clear();
                Ok(None)
            }
            Autovacuum::Outwait if !waiting.outwaited => {
                waiting.outwaited = true;
                Ok(Some(AttemptMode::Outwait(deadlock_timeout + deadlock_timeout / 5)))
            }
            Autovacuum::Cancel | Autovacuum::Outwait | Autovacuum::Wait => Ok(None),
        }
    }
}

/// From 0 up to 1, to keep polls apart. The thread's own generator, no shared state.
pub(super) fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The upper 53 bits, as a fraction.
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
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
