//! A statement that was run ahead of its client's transaction block: it is complete, and can still be undone.
//!
//! The block may commit or roll back. Until then the statement's record stays in the database, with its lock, so that another session undoes
//! the statement if this one dies. This file owns the plan and the state of the run. It keeps true that the statement is final exactly if the
//! block has committed: the record is removed in the block itself, and an undo that cannot run now is kept for another session.
//!
//! Limits: a statement without a record (`AheadOfBlock::is_recorded`) is undone by this session alone.

use crate::execute::context::ExecutionContext;
use crate::execute::lost_session;
use crate::execute::outcome::RunError;
use crate::execute::pending_undo::PendingUndo;
use crate::execute::record::RecordKey;
use crate::execute::state::RunState;
use crate::plan::Plan;

/// A statement that was run ahead of the client's block and can still be undone.
#[derive(Debug)]
pub struct AheadOfBlock {
    plan: Plan,
    state: RunState,
}

impl AheadOfBlock {
    /// Returns a statement whose plan is complete. `state` is that of its run.
    pub(super) fn new(plan: &Plan, state: RunState) -> Self {
        Self { plan: plan.clone(), state }
    }

    /// Returns the text of the statement.
    pub fn statement(&self) -> &str {
        &self.plan.statement
    }

    /// Returns the key of the statement's record, if it has one.
    pub fn key(&self) -> Option<RecordKey> {
        self.state.record().kept_key()
    }

    /// Whether another session finds the statement on record if this one dies, or there is nothing that it would have to undo.
    pub fn is_recorded(&self) -> bool {
        self.state.record().is_kept() || self.plan.phases.iter().all(|phase| phase.undo.is_none())
    }

    /// Removes the record inside the client's block, right before its COMMIT, in a savepoint. The session must have the role that has run the
    /// statement.
    ///
    /// # Errors
    /// The record could not be removed, so that the block must not commit. Or the backend is lost.
    pub async fn confirm(&self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        self.state.record().forget_in_block(context).await
    }

    /// The block has committed: gives the record's lock back.
    ///
    /// # Errors
    /// The backend is lost.
    pub async fn committed(mut self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        self.state.record_mut().leave();
        self.state.record_mut().end(context).await
    }

    /// Undoes the statement, outside any transaction. Neither a cancel nor the end of the client stops it. An undo that cannot run now stays on
    /// record, with a WARNING, and is returned so that the caller keeps it. The undo that a lost backend has cut short is returned, too.
    ///
    /// # Errors
    /// The backend is lost, and nothing is left to be undone.
    pub async fn undo(mut self, context: &mut ExecutionContext<'_>) -> Result<Option<PendingUndo>, RunError> {
        context.channel().cancel_settled().await;
        let all = self.plan.phases.len();
        self.state.record_mut().under_way(None);
        lost_session::undo_phases(context, &mut self.state, &self.plan, all).await;
        let ended = self.state.record_mut().end(context).await;
        match self.state.take_pending_undo() {
            Some(pending) => Ok(Some(pending)),
            None => ended.map(|()| None),
        }
    }

    /// The backend is lost: returns the undo that another session of the role must do. If the client's block has committed after all, the
    /// record is gone, and the undo does nothing. Without a record that cannot be known, so that the log says what may have to be undone.
    pub fn left_behind(self) -> Option<PendingUndo> {
        lost_session::left_ahead(&self.state, &self.plan)
    }
}
