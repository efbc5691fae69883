//! Waiting in the proxy: naps on the server, each with its reason in a comment, and the choice of the next attempt.
//!
//! This file owns the loops of a wait; `lock_wait.rs` owns its state. It keeps true that every wait has a limit (`deadline`, the session's
//! own `lock_timeout` and `statement_timeout`, `in_transaction_wait` while the transaction holds a strong lock), a reason that the client
//! and `pg_stat_activity` show, and three ways to stop it: a cancel by the client, the end of the client, `pg_cancel_backend`.

use crate::backend::Answer;
use crate::config::Autovacuum;
use crate::execute::blocked::{self, in_the_way, waiting_for, waiting_for_lock};
use crate::execute::budget::AttemptMode;
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::{Deadlock, RunError, Suspend};
use crate::execute::timing::LONGEST_NAP;
use crate::lanes::{self, Blocker, View};
use crate::pg::sqlstate;
use crate::plan::Phase;
use crate::report::Report;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// A nap between two glances takes this part of the time waited so far: a fortieth. A lock may be free for two such naps before the proxy
/// notices it.
const GLANCE_SHARE: u32 = 40;

/// Takes the lanes of a long phase before the phase starts, so that other DDL on the relation waits in the proxy.
pub(super) async fn take_lanes(context: &mut ExecutionContext<'_>, phase: &Phase) -> Result<LockWait, RunError> {
    let mut waiting = LockWait::new(phase, context);
    match waiting.wait_for_lanes(context, phase).await {
        Ok(()) => Ok(waiting),
        Err(RunError::Lost) => Err(RunError::Lost),
        Err(stop) => {
            waiting.release_lanes(context).await?;
            Err(stop)
        }
    }
}

impl LockWait {
    /// Waits until the phase has its lanes.
    pub(super) async fn wait_for_lanes(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<(), RunError> {
        self.take_free_lanes(context).await?;
        while self.missing_lane().is_some() {
            if let Some(stop) = context.interrupted() {
                return Err(stop);
            }
            if self.is_over() {
                return Err(RunError::Report(blocked::gave_up(context, phase, self)));
            }
            if self.stands_behind(context, Instant::now()) {
                self.nap_in_lane(context, phase).await?;
                continue;
            }
            let mut view = self.nap_and_look(context, phase).await?;
            view.blockers.clear();
            let now = Instant::now();
            self.look(view, now);
            self.notice(context, phase, now);
        }
        context.finish_nap().await
    }

    /// Waits until another attempt may succeed, and returns how it gets its locks.
    pub(super) async fn wait(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<AttemptMode, RunError> {
        let next = self.wait_asleep(context, phase).await?;
        context.finish_nap().await?;
        Ok(next)
    }

    /// Waits as [`Self::wait`] does, but leaves the last nap unfinished.
    async fn wait_asleep(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<AttemptMode, RunError> {
        loop {
            let waited = self.waited();
            context.waits(waited, || in_the_way(self.last()));
            if waited >= self.limit() {
                let report = blocked::gave_up(context, phase, self);
                return Err(context.give_up_block(RunError::Report(report)).await);
            }
            if let Some(stop) = context.interrupted() {
                return Err(context.give_up_block(stop).await);
            }
            if self.hurts() && context.is_suspendable() && waited >= context.config().locks.stall_budget {
                context.finish_nap().await?;
                return Err(RunError::Suspend(Suspend::LockedOut));
            }
            if self.stands_behind(context, Instant::now()) {
                self.nap_in_lane(context, phase).await?;
                // The session ahead has just ended, and there may be no other blocker.
                match self.missing_lane() {
                    None => return Ok(AttemptMode::Poll),
                    Some(_) => continue,
                }
            }
            if let Some(blocker) = self.watched(context.config(), Instant::now(), context.in_transaction()) {
                if self.nap_and_glance(context, phase, &blocker).await? {
                    continue;
                }
                self.forget_look();
                if self.last().blockers.len() == 1 {
                    return Ok(AttemptMode::Poll);
                }
            }
            let view = self.nap_and_look(context, phase).await?;
            let now = Instant::now();
            self.look(view, now);
            self.notice(context, phase, now);
            if self.end_idle_blockers(context).await? {
                // Its locks are free in a moment.
                continue;
            }
            if context.in_transaction() && self.is_deadlock() {
                let report = blocked::deadlock(phase, self);
                return Err(deadlocked(context, phase, report).await);
            }
            // The session that holds the lane may be waiting for this transaction.
            let impatient = self.hurts() && waited >= context.config().locks.stall_budget;
            if self.missing_lane().is_some() && !impatient {
                continue;
            }
            if self.last().blockers.is_empty() && self.polls(now) {
                return Ok(AttemptMode::Poll);
            }
            if let Some(next) = self.autovacuum(context, now).await? {
                return Ok(next);
            }
            if !self.polls(now) && !self.settled_blocker(context.config().locks.starve_after, now) {
                return Ok(self.queue());
            }
        }
    }

    /// Looks once, before the first attempt, whether a blocker waits for this transaction.
    pub(super) async fn look_for_deadlock(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<(), RunError> {
        let view = self.nap_and_look(context, phase).await?;
        self.look(view, Instant::now());
        if self.is_deadlock() {
            let report = blocked::deadlock(phase, self);
            return Err(deadlocked(context, phase, report).await);
        }
        context.finish_nap().await
    }

    /// Whether a blocker of the last look waits for this transaction. An autovacuum makes no deadlock: it is cancelled, or it gives up by itself.
    fn is_deadlock(&self) -> bool {
        self.last().blockers.iter().any(|blocker| blocker.waits_for_us && !blocker.autovacuum)
    }

    /// Waits until no blocker has been there for longer than the stall budget. The caller holds the lanes.
    pub(super) async fn wait_for_old_transactions(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<AttemptMode, RunError> {
        let patience = context.config().locks.stall_budget;
        let next = loop {
            if self.is_over() {
                return Err(RunError::Report(blocked::gave_up(context, phase, self)));
            }
            if let Some(stop) = context.interrupted() {
                return Err(stop);
            }
            let view = self.nap_and_look(context, phase).await?;
            let now = Instant::now();
            self.look(view, now);
            self.notice(context, phase, now);
            if self.end_idle_blockers(context).await? {
                continue;
            }
            if let Some(next) = self.autovacuum(context, now).await? {
                break next;
            }
            if !self.settled_blocker(patience, now) {
                break AttemptMode::Queue(patience);
            }
        };
        context.finish_nap().await?;
        Ok(next)
    }

    /// Looks at the blockers and tries to take a missing lane. The look comes after the previous nap and is followed by another nap, so
    /// that the backend is always busy and a cancel from anywhere ends one of the naps.
    pub(super) async fn nap_and_look(
        &mut self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<View, RunError> {
        let mut batch = Batch::new();
        let missing = self.missing_lane();
        if let Some(lane) = missing {
            batch.statement(&lanes::try_lane_sql(lane, context.in_transaction()), &[]);
        }
        if context.in_transaction() {
            // Otherwise it shows the sessions as they were at the first look.
            batch.statement(lanes::CLEAR_SQL, &[]);
        }
        let [oids, modes, lanes, alone] = lanes::view_parameters(&phase.locks, self.lanes());
        context.channel().put_question(&mut batch, lanes::view_sql(), &[&oids, &modes, &lanes, &alone]);
        // The look is made when the previous nap ends and is acted on when the next nap ends. Each nap takes half a poll interval.
        let nap = context.spread(context.config().locks.poll) / 2;
        let nap = lanes::nap_sql(nap, &context.channel().words(&waiting_for(phase, self.last())));
        let (answer, nap_error) = context.channel_mut().ask_then_nap_always(batch, &nap).await?;
        // The lane is tried even if a cancel ended the previous nap.
        if missing.is_some() && answer.value() == Some("t") {
            self.lane_taken();
        }
        context.cancelled_by(nap_error)?;
        let answer = match answer.ok() {
            Ok(answer) => answer,
            Err(error) => return context.cancelled_by(Some(error)).map(|()| View::default()),
        };
        Ok(view_of(context, &answer))
    }

    /// Naps and asks only whether this blocker is still there. Returns true if it is.
    async fn nap_and_glance(
        &self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
        blocker: &Blocker,
    ) -> Result<bool, RunError> {
        let mut batch = Batch::new();
        batch.statement(lanes::GLANCE_SQL, &[&blocker.transaction, &blocker.oid.to_string(), &blocker.mode]);
        let half = context.config().locks.poll / 2;
        let nap = if self.hurts() { half } else { (self.waited() / GLANCE_SHARE).min(LONGEST_NAP).max(half) };
        let nap = lanes::nap_sql(context.spread(nap), &context.channel().words(&waiting_for(phase, self.last())));
        let (answer, nap_error) = context.channel_mut().ask_then_nap_always(batch, &nap).await?;
        context.cancelled_by(nap_error)?;
        let held = answer.value() != Some("f");
        context.cancelled_by(answer.error)?;
        Ok(held)
    }

    /// Tells the client what the statement waits for: once soon, then once per `progress_interval`.
    pub(super) fn notice(&mut self, context: &mut ExecutionContext<'_>, phase: &Phase, now: Instant) {
        context.waits(self.waited(), || in_the_way(self.last()));
        if !self.take_notice(now, context.config().ddl.progress_interval) {
            return;
        }
        let message = format!("waiting {}", waiting_for_lock(&phase.locks));
        let mut report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(in_the_way(self.last()));
        if let Some(pid) = self.last().blockers.iter().find_map(|b| b.pid) {
            report = report.hint(format!(
                "Nobody else waits meanwhile. To end the wait: cancel this statement, or SELECT pg_terminate_backend({pid})."
            ));
        }
        tracing::info!(blocked_by = %in_the_way(self.last()), "{}", report.message);
        if context.config().ddl.notices {
            context.notify(&report);
        }
    }

    /// Handles a wait in which only autovacuums block, for longer than PostgreSQL itself would let them, or which wait for this
    /// transaction. An autovacuum that waits for this transaction (its ANALYZE waits for a changed row of `pg_class`) cannot go on anyway.
    /// Returns how to try next, if the autovacuum is to be waited for in the queue.
    pub(super) async fn autovacuum(
        &mut self,
        context: &mut ExecutionContext<'_>,
        now: Instant,
    ) -> Result<Option<AttemptMode>, RunError> {
        let deadlock_timeout = Duration::from_millis(context.facts().session.deadlock_timeout_ms);
        if !self.is_behind_autovacuum(deadlock_timeout, now) {
            return Ok(None);
        }
        match context.config().locks.autovacuum {
            Autovacuum::Cancel if self.last().may_cancel => {
                let pids: Vec<i32> = self.last().blockers.iter().filter_map(|b| b.pid).collect();
                for pid in pids {
                    tracing::info!(pid, "cancelling an autovacuum that blocks a schema change");
                    context.channel_mut().ask_one(&format!("SELECT pg_catalog.pg_cancel_backend({pid})"), &[]).await?;
                }
                self.forget_seen();
                Ok(None)
            }
            Autovacuum::Outwait if self.take_outwait() => {
                Ok(Some(AttemptMode::Outwait(deadlock_timeout + deadlock_timeout / 5)))
            }
            Autovacuum::Cancel | Autovacuum::Outwait | Autovacuum::Wait => Ok(None),
        }
    }
}

/// Ends a wait for a session that waits for this transaction. If the transaction may be run again, it has not failed.
pub(super) async fn deadlocked(context: &mut ExecutionContext<'_>, phase: &Phase, report: Report) -> RunError {
    if !context.may_run_again() {
        return context.give_up_block(RunError::Report(report)).await;
    }
    match context.finish_nap().await {
        Ok(()) => RunError::Suspend(Suspend::Deadlock(Box::new(Deadlock { report, locks: phase.locks.clone() }))),
        Err(stop) => context.give_up_block(stop).await,
    }
}

/// Reads the answer to a look at the blockers.
pub(super) fn view_of(context: &ExecutionContext<'_>, answer: &Answer) -> View {
    let json = answer.rows.last().and_then(|row| row.first()?.clone()).unwrap_or_default();
    let view: View = serde_json::from_str(&context.channel().text(&json)).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read which sessions block a statement");
        View::default()
    });
    context.channel().change_sees(view.blockers.iter().map(Blocker::seen));
    view
}
