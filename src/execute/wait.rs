//! Waiting in the proxy: naps on the server that say what is waited for, and when to try again.
//!
//! Every wait has a limit (the policy's deadline, the session's own `lock_timeout` and
//! `statement_timeout`, the stall budget while the transaction holds a strong lock), a reason that
//! the client and `pg_stat_activity` see, and three ways to stop it (the client's cancel, the
//! client's end, `pg_cancel_backend`).

use super::{Execution, Stop};
use crate::config::Autovacuum;
use crate::lanes::{self, Blocker, View};
use crate::pg::{LockMode, sqlstate};
use crate::plan::{LockNeed, Phase};
use crate::report::{Report, in_words};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// NOWAIT.
    Poll,
    /// In PostgreSQL's queue, for at most this long.
    Queue(Duration),
    /// The same, until an autovacuum yields: the one thing that may take longer than the stall budget.
    Outwait(Duration),
}

/// The first notice comes when a wait is long enough for a person to notice it.
const FIRST_NOTICE: Duration = Duration::from_millis(250);

/// Nobody cancels the same session more often, unless by a program.
const GIVE_TRIES: usize = 100;

/// What is traded where a transaction gives up.
const IN_TRANSACTION: &str = " The transaction holds a lock that makes others wait, and they wait for as long as it does: after \
    in_transaction_wait ([locks] in proxy.toml) the statement fails rather than that they wait on.";

/// A rung's pause: so many times as long as it made others wait.
const LADDER_PAUSE: u32 = 10;

/// The state of one phase's wait.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    limit: Duration,
    noticed: Option<Instant>,
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
    /// The transaction makes others wait meanwhile: it stands behind no lane for longer than the stall budget.
    hurts: bool,
    taken_by_other: bool,
    outwaited: bool,
}

impl Waiting {
    pub(super) fn new(phase: &Phase, run: &Execution<'_>) -> Self {
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
            seen: HashMap::new(),
            last: View::default(),
            lanes: lanes::lanes_of(&phase.locks),
            held: 0,
            rung: run.config.locks.ladder_start,
            highest: run.config.locks.stall_budget,
            // Who holds a lock there already is ahead of all that wait for it, so that nothing is to be gained by polling.
            rung_from: if held { now } else { now + run.config.locks.starve_after },
            hurts: run.holds_strong_lock(),
            taken_by_other,
            outwaited: false,
        }
    }

    /// Another session's DDL is first in a lane we need.
    pub(super) fn lane_is_taken(&self) -> bool {
        self.taken_by_other
    }

    /// Another wait of the same phase, whose lanes it has: the limit counts anew.
    pub(super) fn begin_anew(&mut self) {
        let now = Instant::now();
        self.rung_from = now + (self.rung_from - self.since);
        self.since = now;
        self.noticed = None;
    }

    /// A try found its lock taken.
    pub(super) fn failed(&mut self, how: Next) {
        if let Next::Queue(timeout) | Next::Outwait(timeout) = how {
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

    fn look(&mut self, view: View, now: Instant) {
        let mut seen = HashMap::with_capacity(view.blockers.len());
        for blocker in &view.blockers {
            let key = key(blocker);
            let first = self.seen.get(&key).copied().unwrap_or(now);
            seen.insert(key, first);
        }
        self.seen = seen;
        self.last = view;
    }
}

fn key(blocker: &Blocker) -> (Option<i32>, String) {
    (blocker.pid, blocker.transaction.clone())
}

impl Execution<'_> {
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
    pub(super) async fn wait(&mut self, phase: &Phase, waiting: &mut Waiting) -> Result<Next, Stop> {
        let next = self.wait_asleep(phase, waiting).await?;
        self.wake().await?;
        Ok(next)
    }

    async fn wait_asleep(&mut self, phase: &Phase, waiting: &mut Waiting) -> Result<Next, Stop> {
        loop {
            let waited = waiting.since.elapsed();
            if waited >= waiting.limit {
                let report = self.gave_up(phase, waiting, waited);
                return Err(self.leave(Stop::Report(report)).await);
            }
            if let Some(stop) = self.interrupted() {
                return Err(self.leave(stop).await);
            }
            let view = self.nap_and_look(phase, waiting).await?;
            let now = Instant::now();
            waiting.look(view, now);
            self.notice(phase, waiting, now);
            // An autovacuum is none: it is cancelled, or finds out by itself and ends.
            if self.in_transaction() && waiting.last.blockers.iter().any(|b| b.waits_for_us && !b.autovacuum) {
                let report = self.deadlock(phase, waiting);
                return Err(self.leave(Stop::Report(report)).await);
            }
            // Whose lane it is may be waiting for this very transaction.
            let impatient = waiting.hurts && waited >= self.config.locks.stall_budget;
            if waiting.held < waiting.lanes.len() && !impatient {
                continue;
            }
            if waiting.last.blockers.is_empty() && now < waiting.rung_from {
                return Ok(Next::Poll);
            }
            if let Some(next) = self.autovacuum(waiting, now).await? {
                return Ok(next);
            }
            if now >= waiting.rung_from && !waiting.settled_blocker(self.config.locks.starve_after, now) {
                return Ok(Next::Queue(waiting.rung.min(waiting.highest)));
            }
        }
    }

    /// Waits until nobody is in the way who has been there for longer than others may be made to wait. With the lanes held.
    pub(super) async fn wait_for_old_ones(&mut self, phase: &Phase, waiting: &mut Waiting) -> Result<Next, Stop> {
        let patience = self.config.locks.stall_budget;
        let next = loop {
            if waiting.since.elapsed() >= waiting.limit {
                return Err(Stop::Report(self.gave_up(phase, waiting, waiting.since.elapsed())));
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
                break Next::Queue(patience);
            }
        };
        self.wake().await?;
        Ok(next)
    }

    /// One look at who is in the way, and a try for a lane still missing, after the nap before it and with a nap
    /// behind it: the backend is busy all the time, and a cancel from anywhere ends one of the naps.
    async fn nap_and_look(&mut self, phase: &Phase, waiting: &mut Waiting) -> Result<View, Stop> {
        let mut batch = Batch::new();
        let missing = waiting.lanes.get(waiting.held).copied();
        if let Some(lane) = missing {
            batch.statement(&lanes::try_lane_sql(lane, self.in_transaction()), &[]);
        }
        let [oids, modes, lanes, alone] = lanes::view_parameters(&phase.locks, &waiting.lanes);
        self.talk.put_question(&mut batch, lanes::VIEW_SQL, &[&oids, &modes, &lanes, &alone]);
        // A look is fresh when the nap before it ends, and acted on when the nap behind it does: half a poll each.
        let spread = 1.0 + self.config.locks.poll_jitter * (jitter() * 2.0 - 1.0);
        let nap = self.config.locks.poll.mul_f64(spread.max(0.0)) / 2;
        let nap = lanes::nap_sql(nap, &self.talk.words(&waiting_for(phase, &waiting.last)));
        let (answer, struck) = self.talk.ask_covered(batch, &nap).await?;
        // Behind a nap that was struck the lane is tried all the same.
        if missing.is_some() && answer.value() == Some("t") {
            waiting.held += 1;
        }
        self.struck(struck)?;
        let answer = match answer.ok() {
            Ok(answer) => answer,
            Err(error) => return self.struck(Some(error)).map(|()| View::default()),
        };
        let json = answer.rows.last().and_then(|row| row.first()?.clone()).unwrap_or_default();
        Ok(serde_json::from_str(&self.talk.text(&json)).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read who blocks a statement");
            View::default()
        }))
    }

    /// A nap is where a cancel or the session's own timeout strikes: the error is the client's, as it is.
    pub(super) fn struck(&self, error: Option<ServerError>) -> Result<(), Stop> {
        match error {
            None => Ok(()),
            Some(_) if self.talk.link.front_gone() => Err(Stop::ClientGone),
            Some(error) => {
                self.talk.take_cancelled();
                Err(Stop::Server(error))
            }
        }
    }

    /// The end of the last nap.
    async fn wake(&mut self) -> Result<(), Stop> {
        let struck = self.talk.uncover().await?;
        self.struck(struck)
    }

    /// Tells the client what is waited for: soon once, then at the configured pace.
    fn notice(&mut self, phase: &Phase, waiting: &mut Waiting, now: Instant) {
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
            self.tell(&report);
        }
    }

    /// Only an autovacuum is in the way, and has been for as long as PostgreSQL itself would let it. One that waits for
    /// our transaction (as its ANALYZE does for a changed row of `pg_class`) cannot go on anyway.
    async fn autovacuum(&mut self, waiting: &mut Waiting, now: Instant) -> Result<Option<Next>, Stop> {
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
                    self.talk.ask_one(&format!("SELECT pg_catalog.pg_cancel_backend({pid})"), &[]).await?;
                }
                waiting.seen.clear();
                Ok(None)
            }
            Autovacuum::Outwait if !waiting.outwaited => {
                waiting.outwaited = true;
                Ok(Some(Next::Outwait(deadlock_timeout + deadlock_timeout / 5)))
            }
            Autovacuum::Cancel | Autovacuum::Outwait | Autovacuum::Wait => Ok(None),
        }
    }

    fn gave_up(&self, phase: &Phase, waiting: &Waiting, waited: Duration) -> Report {
        let session = &self.facts.session;
        let ms = u64::try_from(waiting.limit.as_millis()).unwrap_or(u64::MAX);
        if ms == session.statement_timeout_ms {
            return Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout")
                .detail(in_the_way(&waiting.last));
        }
        let why = match waiting.limit < self.config.locks.deadline && ms != session.lock_timeout_ms {
            true => IN_TRANSACTION,
            false => "",
        };
        let report =
            Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout").detail(format!(
                "Waited {} {}. {}{why}",
                in_words(waited),
                waiting_for_lock(&phase.locks),
                who_was(phase, &waiting.last)
            ));
        if ms == session.lock_timeout_ms {
            return report;
        }
        if !why.is_empty() {
            return report
                .hint("Roll back and try again, or run this statement first or in a transaction of its own.");
        }
        report.hint("Try again when the blocker is gone, end it, or raise deadline in [locks] of proxy.toml.")
    }

    fn deadlock(&self, phase: &Phase, waiting: &Waiting) -> Report {
        Report::error(sqlstate::DEADLOCK_DETECTED, "deadlock detected").detail(format!(
            "This transaction waits {}, and what blocks it waits for this transaction. {}",
            waiting_for_lock(&phase.locks),
            in_the_way(&waiting.last)
        ))
    }

    /// Gives the lanes back. In a transaction they go with it.
    pub(super) async fn give_lanes(&mut self, waiting: &mut Waiting) -> Result<(), Stop> {
        let held = std::mem::take(&mut waiting.held);
        if held == 0 || self.in_transaction() {
            return Ok(());
        }
        let mut given = 0;
        // A second cancel may strike this too; what was given is not given twice.
        for _ in 0..GIVE_TRIES {
            let mut batch = Batch::new();
            for lane in &waiting.lanes[given..held] {
                batch.statement(&lanes::give_lane_sql(*lane), &[]);
            }
            given = held.min(given + self.talk.ask(batch, None).await?.done);
            if given == held {
                return Ok(());
            }
        }
        tracing::warn!("a lane was not given back: it is when its session ends");
        Ok(())
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
        while waiting.held < waiting.lanes.len() {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            if waiting.since.elapsed() >= waiting.limit {
                return Err(Stop::Report(self.gave_up(phase, waiting, waiting.since.elapsed())));
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
        while let Some(lane) = waiting.lanes.get(waiting.held) {
            let answer = self.talk.ask_one(&lanes::try_lane_sql(*lane, self.in_transaction()), &[]).await?;
            if answer.value() != Some("t") {
                return self.struck(answer.error);
            }
            waiting.held += 1;
        }
        Ok(())
    }
}

/// From 0 up to 1, to keep polls apart. The thread's own generator, no shared state.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The upper 53 bits, as a fraction.
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

/// `for ACCESS EXCLUSIVE on public.orders`
fn waiting_for_lock(locks: &[LockNeed]) -> String {
    let names: Vec<String> = locks.iter().map(|lock| format!("{} on {}", lock.mode, lock.relation)).collect();
    if names.is_empty() { "for its locks".to_owned() } else { format!("for {}", names.join(" and ")) }
}

fn waiting_for(phase: &Phase, view: &View) -> String {
    let mut text = format!("waiting {}", waiting_for_lock(&phase.locks));
    if let Some(blocker) = view.blockers.first() {
        text.push_str(&format!(", blocked by {blocker}"));
    } else if let Some(pid) = view.lane_holder {
        text.push_str(&format!(", behind the DDL of pid {pid}"));
    }
    text
}

/// A lock mode in SQL's words.
fn mode(blocker: &Blocker) -> &str {
    match LockMode::from_pg_locks(&blocker.mode) {
        Some(mode) => mode.sql(),
        None => &blocker.mode,
    }
}

/// Who was in the way to the end. Locks on rows are not to be seen.
fn who_was(phase: &Phase, view: &View) -> String {
    if phase.backfill.is_some() && view.blockers.is_empty() && view.lane_holder.is_none() {
        return "Rows of it have been locked by others all the time, by the oldest open transactions perhaps."
            .to_owned();
    }
    in_the_way(view)
}

fn in_the_way(view: &View) -> String {
    if view.blockers.is_empty() {
        return match view.lane_holder {
            Some(pid) => format!("Another schema change on it is under way or first in line: pid {pid}."),
            None => "Its holders come and go.".to_owned(),
        };
    }
    let named: Vec<String> =
        view.blockers.iter().take(5).map(|b| format!("{b}, which holds {} on {}", mode(b), b.relation)).collect();
    let more = view.blockers.len().saturating_sub(named.len());
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("Blocked by {}{rest}.", named.join("; "))
}
