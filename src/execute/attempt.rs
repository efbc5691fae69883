//! Lock attempts: one try of a brief step, and the loop around it.
//!
//! A try is one round trip: take all locks by name with NOWAIT, run the step, commit. It never
//! stands in PostgreSQL's lock queue, unless waiting in the proxy starves behind many short
//! transactions; then it queues for a few milliseconds (the ladder), never longer than the stall
//! budget. In a transaction block the same happens in a savepoint.

use super::wait::{AttemptMode, LockWait};
use super::{AttemptOutcome, Basis, Reply, Run, RunError};
use crate::backend::Answer;
use crate::catalog::naming;
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::plan::{LockNeed, Phase, PhaseKind, Step, Undo};
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// How it ended to bring something back.
pub(super) enum UndoOutcome {
    Undone,
    /// It never will be; a WARNING has said so.
    Reported,
    /// Not now; why.
    NotNow(String),
}

/// Where things stand in the batch of one try.
struct AttemptBatch {
    batch: Batch,
    /// The first step's place.
    steps_at: usize,
}

impl Run<'_> {
    /// Tries until the phase is done, or gives up.
    pub(super) async fn attempts(&mut self, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
        let mut waiting = LockWait::new(phase, self);
        let result = self.attempt_loop(phase, reply, &mut waiting).await;
        if !matches!(result, Err(RunError::Lost)) {
            self.release_wait_lanes(&mut waiting).await?;
        }
        result
    }

    async fn attempt_loop(&mut self, phase: &Phase, reply: &mut Reply, waiting: &mut LockWait) -> Result<(), RunError> {
        let mut phase = Cow::Borrowed(phase);
        let mut next = if waiting.lane_is_taken() { self.wait(&phase, waiting).await? } else { AttemptMode::Poll };
        loop {
            if let Some(stop) = self.interrupted() {
                return Err(self.give_up_block(stop).await);
            }
            match self.attempt(&phase, next, reply).await? {
                AttemptOutcome::Done => return Ok(()),
                AttemptOutcome::Failed(stop) => return Err(stop),
                AttemptOutcome::Slow => phase = Cow::Owned(self.outlived(&phase)?),
                // LOCK TABLE could not (the relation is gone, a privilege is missing): the statement itself will say why.
                AttemptOutcome::Unlockable => {
                    phase = Cow::Owned(Phase { locks: unnamed(&phase.locks), ..phase.into_owned() });
                }
                AttemptOutcome::Locked => {
                    self.metrics.lock_attempts_failed.add();
                    if self.basis == Basis::Fresh {
                        return Err(RunError::Stale);
                    }
                    waiting.failed(next);
                    next = self.wait(&phase, waiting).await?;
                }
            }
        }
    }

    /// One try. A lock that is not to be had leaves everything as it was.
    pub(super) async fn attempt(
        &mut self,
        phase: &Phase,
        how: AttemptMode,
        reply: &mut Reply,
    ) -> Result<AttemptOutcome, RunError> {
        self.metrics.lock_attempts.add();
        if !phase.in_transaction && !self.in_transaction() {
            return self.attempt_alone(phase, how, reply).await;
        }
        let AttemptBatch { batch, steps_at } = self.layout(phase, how);
        let visible = phase.steps.iter().position(|step| step.visible).map(|i| steps_at + place(phase, i));
        let begun = Instant::now();
        let answer = self.channel.ask(batch, visible).await?;
        let took = begun.elapsed();
        let Answer { mut error, notices, completion, done, rows, .. } = answer;
        if error.is_none() {
            let rows = self.channel.decoded(rows);
            self.learn_names(phase, rows);
            if self.records(phase) {
                error = self.commit_recorded().await?.error;
            }
        }
        let Some(error) = error else {
            reply.frames.unsplit(notices);
            reply.frames.unsplit(completion);
            return Ok(AttemptOutcome::Done);
        };
        let step = done.checked_sub(steps_at).and_then(|i| step_at(phase, i));
        // A deadlock of the step's in a block may be about what the transaction held before: it would be found each time.
        let hopeless = step.is_some() && self.in_transaction() && error.sqlstate() == sqlstate::DEADLOCK_DETECTED;
        // The locks of an attempt have one time together.
        let in_queue =
            done < steps_at && self.was_queue_budget(phase, how, &error, took) && !self.channel.client_gone();
        if (is_lock_failure(&error) && !hopeless) || (in_queue && !self.channel.take_cancelled()) {
            self.rollback_attempt().await?;
            return Ok(AttemptOutcome::Locked);
        }
        if done < steps_at && phase.locks.iter().any(|lock| lock.lockable) && !self.interrupts(&error) {
            self.rollback_attempt().await?;
            return Ok(AttemptOutcome::Unlockable);
        }
        if step.is_some() && self.was_hold_budget(phase, &error, took) {
            self.rollback_attempt().await?;
            return Ok(AttemptOutcome::Slow);
        }
        reply.frames.unsplit(notices);
        // At COMMIT the error of a deferred constraint comes: it is the last step's.
        let step = step.or_else(|| phase.steps.last());
        let stop = match step {
            Some(step) => self.failed(step, error, reply),
            None => RunError::Server(error),
        };
        // Not only the savepoint fails: the client's own block does, which gives back what it held.
        self.rollback_attempt().await?;
        Ok(AttemptOutcome::Failed(self.give_up_block(stop).await))
    }

    /// Keeps the names that the server chose: a row for each step that makes a constraint.
    pub(super) fn learn_names(&mut self, phase: &Phase, rows: Vec<Vec<Option<String>>>) {
        if self.state.notes_created {
            self.note_created(phase, &rows);
        }
        // But for what is asked for last, nothing else in such a phase gives rows.
        let made = phase.steps.iter().filter_map(|step| step.learns);
        for (made, row) in made.zip(rows) {
            let mut values = row.into_iter();
            self.learned_at(made.slot, values.next().flatten());
            self.note_named(made.table, made.slot, values.next().flatten().as_deref());
        }
    }

    /// A name that the server chose, quoted; `None`: it made nothing.
    pub(super) fn learned_at(&mut self, slot: usize, name: Option<String>) {
        if self.learned_names.len() <= slot {
            self.learned_names.resize(slot + 1, String::new());
        }
        self.learned_names[slot] = name.unwrap_or_default();
    }

    fn layout(&self, phase: &Phase, how: AttemptMode) -> AttemptBatch {
        let inside = self.in_transaction();
        let mut batch = Batch::new();
        if inside {
            batch.statement(SETTLE, &[]);
        }
        batch.statement(if inside { "SAVEPOINT pgsluice" } else { "BEGIN" }, &[]);
        batch.statement(&set_local("lock_timeout", self.lock_timeout(phase, how)), &[]);
        let hold = self.hold_timeout(phase);
        // COMMIT is sent when the record can be written: should this proxy be frozen, or its machine die, nobody else would end that.
        if let Some(budget) = self.hold_budget(phase).filter(|_| self.records(phase)) {
            batch.statement(&set_local("idle_in_transaction_session_timeout", budget), &[]);
        }
        let waited = self.put_locks(&mut batch, phase, how);
        let own = Duration::from_millis(self.facts.session.statement_timeout_ms);
        if hold.is_some() || waited {
            batch.statement(&set_local("statement_timeout", hold.unwrap_or(own)), &[]);
        }
        if waited && matches!(how, AttemptMode::Queue(_) | AttemptMode::Each(_)) {
            batch.statement(&set_local("lock_timeout", self.lock_timeout(phase, AttemptMode::Poll)), &[]);
        }
        let steps_at = batch.statements;
        for step in &phase.steps {
            batch.statement(&step.named(&self.learned_names), &[]);
            if let Some(made) = &step.learns {
                batch.statement(
                    &self.channel.in_json(naming::LEARN_SQL),
                    &[&made.table.to_string(), &made.kind.to_string()],
                );
            }
        }
        if inside {
            let session = &self.facts.session;
            batch.statement(&set_local("lock_timeout", Duration::from_millis(session.lock_timeout_ms)), &[]);
            if hold.is_some() || waited {
                batch.statement(&set_local("statement_timeout", own), &[]);
            }
            batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
        } else {
            if self.state.notes_created {
                batch = self.put_identity_question(phase, batch);
            }
            if !self.records(phase) {
                batch.statement("COMMIT", &[]);
            }
        }
        AttemptBatch { batch, steps_at }
    }

    /// A try of what may not stand in a transaction block: under the session's `lock_timeout`, which is put back.
    pub(super) async fn attempt_alone(
        &mut self,
        phase: &Phase,
        how: AttemptMode,
        reply: &mut Reply,
    ) -> Result<AttemptOutcome, RunError> {
        let own = self.facts.session.lock_timeout_ms;
        let timeout = self.lock_timeout(phase, how).as_millis();
        self.channel.ask_one(&format!("SET lock_timeout = {timeout}"), &[]).await?;
        let mut tried = AttemptOutcome::Done;
        for step in &phase.steps {
            let mut batch = Batch::new();
            batch.statement(&step.named(&self.learned_names), &[]);
            let answer = self.channel.ask(batch, step.visible.then_some(0)).await?;
            match answer.error {
                Some(error) if is_lock_failure(&error) => tried = AttemptOutcome::Locked,
                Some(error) => {
                    reply.frames.unsplit(answer.notices);
                    tried = AttemptOutcome::Failed(self.failed(step, error, reply));
                }
                None => {
                    reply.frames.unsplit(answer.notices);
                    reply.frames.unsplit(answer.completion);
                    continue;
                }
            }
            break;
        }
        self.channel.cancel_settled().await;
        self.channel.ask_one(&format!("SET lock_timeout = {own}"), &[]).await?;
        Ok(tried)
    }

    /// Undoes by a phase of its own what was done. Neither a cancel nor a client that left ends it, but it gives up when
    /// the locks are not to be had for long.
    pub(super) async fn undo_by_phase(&mut self, phase: &Phase) -> Result<UndoOutcome, RunError> {
        let planned = &*self.with_names(phase);
        let deadline = tokio::time::Instant::now() + UNDO_PATIENCE;
        let (mut by_name, mut kind) = (true, planned.kind);
        loop {
            let mut phase = match self.as_it_is_now(planned).await {
                Ok(phase) => phase,
                Err(RunError::Lost) => return Err(RunError::Lost),
                Err(_) => planned.clone(),
            };
            if phase.steps.is_empty() {
                return Ok(UndoOutcome::Undone);
            }
            if !by_name {
                phase.locks = unnamed(&phase.locks);
            }
            phase.kind = kind;
            let reason = match self.attempt(&phase, AttemptMode::Poll, &mut Reply::default()).await? {
                AttemptOutcome::Done => return Ok(UndoOutcome::Undone),
                // Somebody has dropped or renamed the table: the statement itself will say so.
                AttemptOutcome::Unlockable if by_name => {
                    by_name = false;
                    continue;
                }
                // It takes as long as it takes: what is left would stay.
                AttemptOutcome::Slow => {
                    kind = PhaseKind::Guarded;
                    continue;
                }
                AttemptOutcome::Locked | AttemptOutcome::Unlockable => "its locks were not to be had".to_owned(),
                // It has been changed since it was looked at.
                AttemptOutcome::Failed(RunError::Report(report))
                    if report.sqlstate == sqlstate::SERIALIZATION_FAILURE =>
                {
                    report.message
                }
                // What a cancel struck is tried again.
                AttemptOutcome::Failed(RunError::Server(error)) if error.sqlstate() == sqlstate::QUERY_CANCELED => {
                    error.message().to_owned()
                }
                AttemptOutcome::Failed(stop) => {
                    self.warn_left(&phase, &stop.reason());
                    return Ok(UndoOutcome::Reported);
                }
            };
            if tokio::time::Instant::now() >= deadline {
                return Ok(UndoOutcome::NotNow(reason));
            }
            self.channel.ask_one(&nap(self.config.locks.poll), &[]).await?;
        }
    }

    /// The statements that undo a phase.
    fn remedy(&self, phase: &Phase) -> String {
        let steps = phase.steps.iter().filter(|step| step.must_hold.is_none());
        steps.map(|step| step.named(&self.learned_names)).collect::<Vec<_>>().join("; ")
    }

    /// The server has ended the session: what a phase has left stays.
    pub(super) fn log_left(&self, phase: &Phase) {
        if let Some(Undo::Run(undo)) = &phase.undo {
            let remedy = self.remedy(&self.with_names(undo));
            tracing::warn!(remedy, "the session of a schema change has ended; what it had begun stays");
        }
    }

    /// The same, where nobody else will try it later.
    pub(super) async fn undo_by_phase_or_warn(&mut self, phase: &Phase) -> Result<(), RunError> {
        if let UndoOutcome::NotNow(reason) = self.undo_by_phase(phase).await? {
            let phase = self.with_names(phase).into_owned();
            self.warn_left(&phase, &reason);
        }
        Ok(())
    }

    /// The same of a phase that was done.
    pub(super) fn warn_not_undone(&mut self, phase: &Phase, reason: &str) {
        if let Some(Undo::Run(undo)) = &phase.undo {
            let undo = self.with_names(undo).into_owned();
            self.warn_left(&undo, reason);
        }
    }

    pub(super) fn warn_left(&mut self, phase: &Phase, reason: &str) {
        let remedy = self.remedy(phase);
        tracing::warn!(reason, remedy, "what a schema change had begun could not be finished or brought back");
        let message = format!("what this statement had begun could not be finished or brought back: {reason}");
        let report = Report::warning(sqlstate::WARNING, message).hint(format!("Do it by hand: {remedy}"));
        self.notify(&report);
    }

    /// A cancel or a timeout, not a fault of the statement that met it.
    fn interrupts(&self, error: &ServerError) -> bool {
        error.sqlstate() == sqlstate::QUERY_CANCELED || self.channel.client_gone()
    }

    /// Takes back a failed try: its transaction, or its savepoint.
    pub(super) async fn rollback_attempt(&mut self) -> Result<(), RunError> {
        let mut batch = Batch::new();
        if self.in_transaction() {
            batch.statement("ROLLBACK TO SAVEPOINT pgsluice", &[]);
            batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
        } else {
            batch.statement("ROLLBACK", &[]);
        }
        self.channel.ask(batch, None).await?;
        Ok(())
    }

    /// Gives up for a reason of the proxy's: a transaction block is failed, as an error of the server's would have.
    pub(super) async fn give_up_block(&mut self, stop: RunError) -> RunError {
        if self.in_transaction() && self.channel.status() == b'T' {
            let fail =
                self.channel.ask_one("ROLLBACK TO SAVEPOINT \"pgsluice: the statement before has failed\"", &[]).await;
            if fail.is_err() {
                return RunError::Lost;
            }
        }
        stop
    }
}

/// Where the `nth` step stands among the statements of its phase: behind those that make a constraint the server is asked
/// for its name.
fn place(phase: &Phase, nth: usize) -> usize {
    nth + phase.steps.iter().take(nth).filter(|step| step.learns.is_some()).count()
}

/// The step that the statement at `at` belongs to.
fn step_at(phase: &Phase, at: usize) -> Option<&Step> {
    let last = (0..phase.steps.len()).rev().find(|nth| place(phase, *nth) <= at)?;
    let step = phase.steps.get(last)?;
    (at <= place(phase, last) + usize::from(step.learns.is_some())).then_some(step)
}

/// Before a savepoint. ALTER DOMAIN … DROP CONSTRAINT tells the server's caches of the domain when it has counted the command already, so that
/// this is sent with the next command which writes. In a savepoint that one fails (XX000, since 15: *cannot start a subtransaction when there are
/// unprocessed inval messages*). To the server this is such a command, though it names no relation, locks nothing and needs no privilege.
const SETTLE: &str = "/* pgsluice: before a savepoint */ SELECT FROM (SELECT 1 OFFSET 0) AS nothing LIMIT 0 FOR UPDATE";

/// How long the locks are asked for that undoing takes.
pub(super) const UNDO_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn nap(time: Duration) -> String {
    nap_sql(time, "waiting to finish or undo")
}

/// The same locks, guarded by `lock_timeout` alone.
fn unnamed(locks: &[LockNeed]) -> Vec<LockNeed> {
    locks.iter().map(|lock| LockNeed { lockable: false, ..lock.clone() }).collect()
}

/// 55P03, by NOWAIT or by `lock_timeout`; and the victim of a deadlock, which may try again.
pub(super) fn is_lock_failure(error: &ServerError) -> bool {
    matches!(error.sqlstate(), sqlstate::LOCK_NOT_AVAILABLE | sqlstate::DEADLOCK_DETECTED)
}

pub(super) fn set_local(setting: &str, time: Duration) -> String {
    format!("SET LOCAL {setting} = {}", time.as_millis())
}
