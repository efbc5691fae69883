//! The run of one plan: its phases in order, and the undo of the earlier phases when one fails.
//!
//! This file owns the state of the run and the basis of the plan. It makes no choice that a plan could have made. It keeps true:
//!
//! - The client gets its reply only when the phase that the reply belongs to has committed.
//! - Whatever ends the run (an error, a cancel, the end of the client), the backend is in the state that the client may expect, its
//!   settings are the client's, and the earlier phases are undone, or their undo is kept for later.

use crate::catalog::RelationRef;
use crate::execute::ahead::AheadOfBlock;
use crate::execute::checkpoint::{self, Stopped};
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError, STALE};
use crate::execute::pending_undo::PendingUndo;
use crate::execute::record::{Record, abandon, resume};
use crate::execute::state::RunState;
use crate::execute::{as_directly, attempt, budget, built_index, detach, long, lost_session, unchanged, undo};
use crate::plan::{Phase, PhaseKind, Plan, Step};
use crate::report::Report;
use crate::wire::message::Batch;
use crate::wire::reply::put_command_complete;
use std::borrow::Cow;

/// What a plan rests on until its first phase is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Basis {
    /// The plan rests on nothing that may change during a wait. It runs as it is.
    #[default]
    Any,
    /// The plan rests on facts that may change during a wait. It stops with [`RunError::Stale`] before it waits.
    Fresh,
    /// The plan rests on facts that are true as long as this condition is true. The condition is checked under the locks of the first
    /// phase.
    While(String),
}

/// The run of one plan.
#[derive(Debug)]
pub struct Run<'a> {
    context: ExecutionContext<'a>,
    state: RunState,
    /// What the plan rests on. It decides what the first phase does if its lock is not available at once.
    basis: Basis,
}

impl<'a> Run<'a> {
    /// Returns a run that has not begun.
    pub fn new(context: ExecutionContext<'a>, basis: Basis) -> Self {
        Self { context, state: RunState::default(), basis }
    }

    /// Returns a run that continues a recorded plan. This session holds the lock of the record. With `quiet`, the record is written under
    /// `session_replication_role = replica`.
    pub fn resumed(
        context: ExecutionContext<'a>,
        record: Record,
        plan: &Plan,
        table: &RelationRef,
        quiet: bool,
    ) -> Self {
        Self { context, state: RunState::resumed(record, plan, table, quiet), basis: Basis::Any }
    }

    /// Undoes a plan whose record this session has taken over. Returns false if another session blocks the undo now.
    ///
    /// # Errors
    /// The statement was cancelled, or the backend is lost.
    pub async fn abandon(&mut self, plan: &Plan) -> Result<bool, RunError> {
        abandon::abandon(&mut self.context, &mut self.state, plan).await
    }

    /// Takes the undo that the run has left to another session.
    pub fn take_pending_undo(&mut self) -> Option<PendingUndo> {
        self.state.take_pending_undo()
    }
}

impl Run<'_> {
    /// Runs the plan. Notices of waits and of progress are sent to the client during the run; the reply is returned. `sent_notes` are the
    /// notes that the client has got already.
    ///
    /// # Errors
    /// The reason why the run stopped. The phases that were done have been undone.
    pub async fn run(&mut self, plan: &Plan, sent_notes: &[Report]) -> Result<Reply, RunError> {
        let plan = &*budget::at_its_pace(&self.context, plan);
        let result = self.run_phases(plan, sent_notes).await;
        // Whatever has ended the run, no answer of the backend to the proxy is left unread.
        if !matches!(result, Err(RunError::Lost)) {
            self.context.channel_mut().finish_nap().await?;
            self.state.record_mut().end(&mut self.context).await?;
        }
        match result {
            Err(stop) => Err(as_directly::error_of(&mut self.context, &self.state, plan, stop).await?),
            done => done,
        }
    }

    /// Runs the plan ahead of the client's block, as [`Run::run`]. The plan has an undo for all that it makes
    /// ([`with_full_undo`](crate::plan::hoist::with_full_undo)). Its record stays when it is complete, with its lock. A run that continues a
    /// recorded plan takes over its record; maybe no phase is left to be run.
    ///
    /// # Errors
    /// The reason why the run stopped. The phases that were done have been undone.
    pub async fn run_ahead(&mut self, plan: &Plan, sent_notes: &[Report]) -> Result<(Reply, AheadOfBlock), RunError> {
        self.state.record_mut().run_ahead(plan);
        let paced = &*budget::at_its_pace(&self.context, plan);
        let result = self.run_phases(paced, sent_notes).await;
        let stop = match result {
            Ok(reply) => {
                let ahead = AheadOfBlock::new(plan, std::mem::take(&mut self.state));
                // A cancel that came at the very end.
                match self.context.channel_mut().finish_nap().await.map(|error| self.context.cancelled_by(error)) {
                    Ok(Ok(())) => return Ok((reply, ahead)),
                    Ok(Err(stop)) => {
                        let pending = ahead.undo(&mut self.context).await?;
                        pending.into_iter().for_each(|pending| self.state.set_pending_undo(pending));
                        stop
                    }
                    Err(_) => {
                        let pending = ahead.left_behind();
                        pending.into_iter().for_each(|pending| self.state.set_pending_undo(pending));
                        RunError::Lost
                    }
                }
            }
            Err(stop) => stop,
        };
        if !matches!(stop, RunError::Lost) {
            self.context.channel_mut().finish_nap().await?;
            self.state.record_mut().end(&mut self.context).await?;
        }
        Err(as_directly::error_of(&mut self.context, &self.state, plan, stop).await?)
    }

    /// Runs the phases from the first that is not done, and undoes the earlier ones if one fails.
    async fn run_phases(&mut self, plan: &Plan, sent_notes: &[Report]) -> Result<Reply, RunError> {
        let mut reply = Reply::default();
        let (first, resumed) = (self.state.record().first_phase(), self.state.record().is_kept());
        self.steered(plan);
        if !resumed {
            for note in plan.notes.iter().filter(|note| !sent_notes.contains(note)) {
                self.context.notify(note);
            }
            checkpoint::before_all(&mut self.context).await?;
            let undone = plan.phases.iter().any(|phase| phase.undo.is_some());
            if undone && !self.context.in_transaction() {
                self.state.note_objects();
                self.state.record_mut().begin(&mut self.context, plan).await?;
            }
            if plan.phases.len() > 1 && !self.state.record().is_kept() {
                self.context.channel().change_cannot_stop("it has no record that another session could continue");
            }
        }
        let mut interrupted = resumed;
        for (at, phase) in plan.phases.iter().enumerate().skip(first) {
            let phase = &*self.state.with_names(phase);
            if phase.steps.is_empty() {
                continue;
            }
            self.context.channel().change_enters(at + 1, plan.phases.len());
            if (at > first || resumed)
                && let Err(stopped) = checkpoint::before_phase(&mut self.context, &self.state, at).await
            {
                return Err(self.stopped_at_checkpoint(plan, at, stopped).await);
            }
            self.state.record_mut().under_way(Some(at));
            let mut stopped = at;
            let mut result = self.phase_or_its_rest(at, phase, std::mem::take(&mut interrupted), &mut reply).await;
            if result.is_ok() && !self.state.record().records(phase) {
                // This phase is done. An error from here on undoes it too.
                stopped = at + 1;
                result = self.phase_done().await;
            }
            self.state.record_mut().under_way(None);
            // The plan is half done, so that it no longer depends on its basis.
            self.basis = Basis::Any;
            if let Err(stop) = result {
                return Err(self.undo_all(plan, stopped, stop).await);
            }
        }
        // The server sent its CommandComplete to a session that is gone.
        if plan.phases.iter().take(first).flat_map(|phase| &phase.steps).any(|step| step.visible) {
            put_command_complete(&mut reply.frames, &plan.tag);
        }
        Ok(reply)
    }

    /// Tells operators what they may ask of this run.
    fn steered(&self, plan: &Plan) {
        let last = plan.phases.iter().rposition(|phase| phase.backfill.is_some());
        if let Some(change) = self.context.channel().change() {
            change.steering.begins(last.map_or(0, |at| at + 1));
        }
        if self.context.in_transaction() {
            self.context.channel().change_cannot_stop("it runs in a transaction of its client");
        }
    }

    /// Ends a run that was held before the phase at this position.
    async fn stopped_at_checkpoint(&mut self, plan: &Plan, at: usize, stopped: Stopped) -> RunError {
        match stopped {
            Stopped::Leave(stop) => {
                self.state.record_mut().leave();
                stop
            }
            Stopped::Undo(stop) => self.undo_all(plan, at, stop).await,
        }
    }

    /// Records that a phase is done whose transaction did not write the record.
    async fn phase_done(&mut self) -> Result<(), RunError> {
        self.state.advance_record();
        self.state.record_mut().phase_done(&mut self.context).await
    }

    /// Runs a phase. If a session that is gone was `interrupted` in this phase, only its rest is run.
    async fn phase_or_its_rest(
        &mut self,
        at: usize,
        phase: &Phase,
        interrupted: bool,
        reply: &mut Reply,
    ) -> Result<(), RunError> {
        if interrupted && resume::finish_interrupted_build(&mut self.context, &mut self.state, at, phase).await? {
            return Ok(());
        }
        match self.phase(at, phase, reply).await {
            Ok(()) if self.state.notes_created() => {
                built_index::note(&mut self.context, &mut self.state, at, phase, reply).await
            }
            Err(stop) if phase.tidies && !matches!(stop, RunError::Lost) => {
                undo::by_phase_or_warn(&mut self.context, &mut self.state, phase).await
            }
            other => other,
        }
    }

    /// Undoes the phases before the one that stopped, which has undone itself. If the session is lost, the undo is kept for another
    /// session.
    async fn undo_all(&mut self, plan: &Plan, stopped: usize, stop: RunError) -> RunError {
        if matches!(stop, RunError::Lost) {
            lost_session::keep_pending_undo(&mut self.context, &mut self.state, plan, stopped, false);
            return stop;
        }
        match lost_session::undo_phases(&mut self.context, &mut self.state, plan, stopped).await {
            true => stop,
            false => RunError::Lost,
        }
    }

    /// Runs a phase by its kind. `at` is its position in the plan.
    async fn phase(&mut self, at: usize, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
        if let Some(what) = &phase.detach {
            return detach::run(&mut self.context, &mut self.state, phase, what, reply).await;
        }
        let may_wait = self.basis != Basis::Fresh;
        match phase.kind {
            PhaseKind::Relay => relay(&mut self.context, &self.state, phase, reply).await,
            PhaseKind::Brief | PhaseKind::Guarded => {
                let phase = self.on_its_basis(unchanged::guarded(&self.context, &self.state, phase));
                attempt::until_done(&mut self.context, &mut self.state, may_wait, &phase, reply).await
            }
            PhaseKind::Long if self.context.in_transaction() => {
                attempt::until_done(&mut self.context, &mut self.state, may_wait, phase, reply).await
            }
            PhaseKind::Long => {
                // Before the first phase no check is needed, because the facts have just been read.
                if at > 0 {
                    unchanged::look_before(&mut self.context, &self.state, phase).await?;
                }
                long::run(&mut self.context, &mut self.state, phase, reply).await
            }
            PhaseKind::Backfill | PhaseKind::Detach => {
                long::run(&mut self.context, &mut self.state, phase, reply).await
            }
        }
    }

    /// Adds an assertion to the first phase: the condition that the plan rests on must be true.
    fn on_its_basis<'p>(&self, phase: Cow<'p, Phase>) -> Cow<'p, Phase> {
        match &self.basis {
            Basis::While(condition) if phase.in_transaction => {
                let mut held = phase.into_owned();
                held.steps.insert(0, Step::assertion(condition, STALE));
                Cow::Owned(held)
            }
            _ => phase,
        }
    }
}

/// Runs steps that need no protection, each as it is.
async fn relay(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    phase: &Phase,
    reply: &mut Reply,
) -> Result<(), RunError> {
    for step in &phase.steps {
        let mut batch = Batch::new();
        batch.statement(&step.named(state.names()), &[]);
        let answer = context.channel_mut().ask(batch, step.visible.then_some(0)).await?;
        reply.frames.unsplit(answer.notices);
        if let Some(error) = answer.error {
            return Err(context.failed(step, error, reply));
        }
        reply.frames.unsplit(answer.completion);
    }
    Ok(())
}
