//! The pending undo of this role: the undo of its sessions whose backends are gone.
//!
//! It owns nothing: the table of pending undo belongs to [`crate::session::Shared`]. It keeps true: an undo that could not run now is in the
//! table again, whatever happens. In a transaction of the client's the undo would be part of it, so it is left to the next statement.

use super::context::StatementContext;
use super::log::ChangeLog;
use crate::execute::RunError;
use crate::execute::lost_session::{self, UndoResult};
use crate::execute::pending_undo::PendingUndo;
use crate::pg::sqlstate;
use crate::wire::speech::Sayable;

/// Runs the pending undo, except that of a change which this statement may continue. The record tells whether it did (`execute/record.rs`).
pub(super) async fn undo_pending(context: &mut StatementContext<'_>) -> Result<(), RunError> {
    let mut continued = Vec::new();
    let result = undo_all_but(context, &mut continued).await;
    continued.into_iter().for_each(|pending| keep(context.log, pending));
    result
}

/// Whether this role has any pending undo.
pub(super) fn has_pending(log: &ChangeLog) -> bool {
    log.shared().pending_undos().has_any(log.database(), log.role())
}

/// Puts the undo into the table, for the next statement of this role.
pub(super) fn keep(log: &ChangeLog, pending: PendingUndo) {
    log.shared().pending_undos().keep(log.database(), log.role(), pending);
}

async fn undo_all_but(context: &mut StatementContext<'_>, continued: &mut Vec<PendingUndo>) -> Result<(), RunError> {
    let (role, database, undos) = (context.log.role(), context.log.database(), context.log.shared().pending_undos());
    // If the session's encoding can carry only ASCII, the undo is left to another session of the role.
    while context.channel.status() == b'I' && context.channel.speech().sayable() != Sayable::Ascii {
        let Some(pending) = undos.take(database, role) else { break };
        if pending.key().is_some_and(|key| key.statement == context.statement.text) {
            continued.push(pending);
            continue;
        }
        match undo(context, &pending).await {
            Ok(UndoResult::Nothing) => {}
            Ok(UndoResult::Undone(done)) => {
                let report = pending.report(&done);
                tracing::info!(role, database, "{}: {}", report.message, done.join("; "));
                context.channel.notify(&report);
            }
            Ok(UndoResult::Later) => {
                keep(context.log, pending);
                break;
            }
            Err(stop) => {
                keep(context.log, pending);
                if matches!(&stop, RunError::Server(error) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE) {
                    break;
                }
                return Err(stop);
            }
        }
    }
    Ok(())
}

async fn undo(context: &mut StatementContext<'_>, pending: &PendingUndo) -> Result<UndoResult, RunError> {
    let facts = context.facts().of_session().await?;
    lost_session::undo_pending(&mut context.side_run(&facts), pending).await
}
