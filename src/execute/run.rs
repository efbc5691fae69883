//! One plan under way: its phases in order, and what is undone when one of them fails.
//!
//! It owns the state of the run and what the plan rests on. It makes no choice that a plan could have made. It keeps true:
//!
//! - The client's reply is put on its way only when the phase that it belongs to has committed.
//! - Whatever ends the run (an error, a cancel, a client that left), the backend is back in the state that the client may expect, its
//!   settings are the client's, and what earlier phases left is undone, or remembered to be undone.

use crate::catalog::RelationRef;
use crate::execute::context::Context;
use crate::execute::outcome::{Reply, RunError, STALE, UndoOutcome, UndoneAfter};
use crate::execute::pending_undo::PendingUndo;
use crate::execute::record::{Record, abandon, resume};
use crate::execute::state::RunState;
use crate::execute::{as_directly, attempt, budget, detach, long, lost_session, unchanged, undo};
use crate::plan::{Phase, PhaseKind, Plan, Step};
use crate::report::Report;
use crate::wire::message::Batch;
use crate::wire::reply::put_command_complete;
use std::borrow::Cow;

/// What a plan rests on, as long as none of its phases is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Basis {
    /// Nothing that a wait could change: it runs as it is.
    #[default]
    Any,
    /// Facts that a wait would leave behind: it stops with [`RunError::Stale`] before it waits.
    Fresh,
    /// Facts that are true for as long as this condition is, which is looked at under the first phase's locks.
    While(String),
}

/// One plan under way.
#[derive(Debug)]
pub struct Run<'a> {
    context: Context<'a>,
    state: RunState,
    /// What the first phase does when its lock is not to be had at once.
    basis: Basis,
}

impl<'a> Run<'a> {
    pub fn new(context: Context<'a>, basis: Basis) -> Self {
        Self { context, state: RunState::default(), basis }
    }

    /// A run that continues what is on record, whose lock this session has. `quiet`: the record is written under
    /// `session_replication_role = replica`.
    pub fn resumed(context: Context<'a>, record: Record, plan: &Plan, table: &RelationRef, quiet: bool) -> Self {
        Self { context, state: RunState::resumed(record, plan, table, quiet), basis: Basis::Any }
    }

    /// Undoes the plan, whose record this session has taken over. False: not now, as somebody is in the way.
    ///
    /// # Errors
    /// It is cancelled, or the backend is gone.
    pub async fn abandon(&mut self, plan: &Plan) -> Result<bool, RunError> {
        abandon::abandon(&mut self.context, &mut self.state, plan).await
    }

    /// What the run has left for another session to undo.
    pub fn take_pending_undo(&mut self) -> Option<PendingUndo> {
        self.state.take_pending_undo()
    }
}

impl Run<'_> {
    /// Runs the plan. The notices that come before the end (waits, progress) have gone to the client by then;
    /// the reply has not. `told`: notes that the client has had already.
    ///
    /// # Errors
    /// Why it stopped. Phases that were done have been undone.
    pub async fn run(&mut self, plan: &Plan, told: &[Report]) -> Result<Reply, RunError> {
        let plan = &*budget::at_its_pace(&self.context, plan);
        let result = self.run_phases(plan, told).await;
        // Whatever ended it: no answer of the backend's to us is left on its way.
        if !matches!(result, Err(RunError::Lost)) {
            self.context.channel_mut().finish_nap().await?;
            self.state.record_mut().end(&mut self.context).await?;
        }
        match result {
            Err(stop) => Err(as_directly::error_of(&mut self.context, &self.state, plan, stop).await?),
            done => done,
        }
    }

    async fn run_phases(&mut self, plan: &Plan, told: &[Report]) -> Result<Reply, RunError> {
        let mut reply = Reply::default();
        let (first, resumed) = (self.state.record().first_phase(), self.state.record().is_kept());
        if !resumed {
            for note in plan.notes.iter().filter(|note| !told.contains(note)) {
                self.context.notify(note);
            }
            let undone = plan.phases.iter().any(|phase| phase.undo.is_some());
            if undone && !self.context.in_transaction() {
                self.state.note_objects();
                self.state.record_mut().begin(&mut self.context, plan).await?;
            }
        }
        let mut interrupted = resumed;
        for (at, phase) in plan.phases.iter().enumerate().skip(first) {
            let phase = &*self.state.with_names(phase);
            if phase.steps.is_empty() {
                continue;
            }
            self.state.record_mut().under_way(Some(at));
            let mut stopped = at;
            let mut result = self.phase_or_its_rest(at, phase, std::mem::take(&mut interrupted), &mut reply).await;
            if result.is_ok() && !self.state.record().records(phase) {
                // It is done: what stops here is to undo it too.
                stopped = at + 1;
                result = self.phase_done().await;
            }
            self.state.record_mut().under_way(None);
            // From here on a wait changes nothing about what the plan rests on: it is half done.
            self.basis = Basis::Any;
            if let Err(stop) = result {
                return Err(self.undo_all(plan, stopped, stop).await);
            }
        }
        // A dead session has had the server's.
        if plan.phases.iter().take(first).flat_map(|phase| &phase.steps).any(|step| step.visible) {
            put_command_complete(&mut reply.frames, &plan.tag);
        }
        Ok(reply)
    }

    /// The phase is done, and was not one transaction with its record.
    async fn phase_done(&mut self) -> Result<(), RunError> {
        self.state.advance_record();
        self.state.record_mut().phase_done(&mut self.context).await
    }

    /// `interrupted`: a dead session was in it.
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
                lost_session::note_built(&mut self.context, &mut self.state, at, phase).await.map_err(RunError::from)
            }
            Err(stop) if phase.tidies && !matches!(stop, RunError::Lost) => {
                undo::by_phase_or_warn(&mut self.context, &mut self.state, phase).await
            }
            other => other,
        }
    }

    /// Undoes the phases before the one that stopped, which has cleaned up after itself. Where no session is there any
    /// more that could, it is remembered.
    async fn undo_all(&mut self, plan: &Plan, stopped: usize, stop: RunError) -> RunError {
        if matches!(stop, RunError::Lost) {
            lost_session::keep_pending_undo(&mut self.context, &mut self.state, plan, stopped, false);
            return stop;
        }
        for at in (0..stopped).rev() {
            match undo::undo_phase(&mut self.context, &mut self.state, &plan.phases[at], UndoneAfter::Done(at)).await {
                Ok(UndoOutcome::Undone | UndoOutcome::Reported) => {}
                // What is in the way now would be in the way of the others, too.
                Ok(UndoOutcome::NotNow(reason))
                    if lost_session::leave_for_later(&mut self.context, &mut self.state, plan, at, &reason).await =>
                {
                    break;
                }
                Ok(UndoOutcome::NotNow(reason)) => {
                    undo::warn_not_undone(&mut self.context, &self.state, &plan.phases[at], &reason);
                }
                Err(_) => {
                    lost_session::keep_pending_undo(&mut self.context, &mut self.state, plan, at, true);
                    return RunError::Lost;
                }
            }
        }
        stop
    }

    /// `at`: its place in the plan.
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
                // The facts are as fresh as a look before the first could be.
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

    /// Keeps the first phase to what the plan rests on.
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

/// Steps that need no protection: each as it is.
async fn relay(context: &mut Context<'_>, state: &RunState, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
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
