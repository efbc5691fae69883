//! The undo of a phase: another phase undoes it, or the index that it built is dropped.
//!
//! This file owns the choice of what to run and how long to try. It keeps true that neither a cancel nor the end of the client stops the
//! undo of a failed statement; that only objects that the plan has made are undone; and that the client is told of a phase that cannot be
//! undone, with the statements that undo it.

use crate::catalog::identity;
use crate::execute::attempt::{self, unnamed};
use crate::execute::budget::AttemptMode;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{AttemptOutcome, Reply, RunError, UndoOutcome, UndoneAfter};
use crate::execute::state::RunState;
use crate::execute::timing::UNDO_PATIENCE;
use crate::execute::{invalid, unchanged};
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{Phase, PhaseKind, Undo};
use crate::report::Report;
use std::time::{Duration, Instant};

/// The statement that undoes a phase. It decides what stops the undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undoer {
    /// The statement that failed. Neither a cancel nor the end of the client stops its undo.
    Author,
    /// A later statement of the same role. Its client waits for the undo.
    Another,
}

impl Undoer {
    /// Returns how long the undo tries to get its locks.
    fn patience(self) -> Duration {
        match self {
            Self::Author => UNDO_PATIENCE,
            Self::Another => Duration::from_secs(2),
        }
    }

    /// Returns the comment of a nap, for `pg_stat_activity`.
    fn waits_for(self) -> &'static str {
        match self {
            Self::Author => "waiting to finish or undo",
            Self::Another => "waiting to undo the schema change of a lost session",
        }
    }

    /// What an error of a try means. The author gives up after any error but a cancel, and leaves the rest to people. A later statement leaves
    /// the undo to the next one, unless the error says that the schema or the rows have changed, so that it would come again.
    fn judge(self, stop: RunError) -> Failure {
        match (self, stop) {
            // A cancel.
            (Self::Author, RunError::Server(error)) if error.sqlstate() == sqlstate::QUERY_CANCELED => {
                Failure::Again(error.message().to_owned())
            }
            (Self::Another, RunError::Server(error)) if error.sqlstate() == sqlstate::QUERY_CANCELED => {
                Failure::Ends(RunError::Server(error))
            }
            // The table has been changed since it was looked at.
            (Self::Author, RunError::Report(report)) if report.sqlstate == sqlstate::SERIALIZATION_FAILURE => {
                Failure::Again(report.message)
            }
            (Self::Author, stop) => Failure::Final(stop.reason()),
            (Self::Another, RunError::Server(error))
                if error.sqlstate().starts_with("42") || error.sqlstate().starts_with("23") =>
            {
                Failure::Final(RunError::Server(error).reason())
            }
            (Self::Another, stop) => Failure::Later(stop.reason()),
        }
    }
}

/// What an error of a try to undo means.
enum Failure {
    /// It is tried again; why it failed.
    Again(String),
    /// A later statement tries again.
    Later(String),
    /// It would fail each time.
    Final(String),
    /// This statement ends.
    Ends(RunError),
}

/// Runs the phase that undoes another one. It gives up if the locks are not available within the undoer's patience. The author tries again
/// after a cancel. It tries without LOCK TABLE if the table cannot be locked by name, because another session may have dropped or renamed
/// it; the statements themselves then raise the error. It tries without a hold budget if the undo takes too long, because the objects would
/// stay otherwise.
pub(super) async fn by_phase(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    undoer: Undoer,
) -> Result<UndoOutcome, RunError> {
    let planned = &*state.with_names(phase);
    let deadline = Instant::now() + undoer.patience();
    let (mut by_name, mut kind) = (true, planned.kind);
    loop {
        let mut phase = match unchanged::as_it_is_now(context, state, planned).await {
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
        let reason = match attempt::once(context, state, &phase, AttemptMode::Poll, &mut Reply::default()).await? {
            AttemptOutcome::Done => return Ok(UndoOutcome::Undone),
            AttemptOutcome::Unlockable if by_name && undoer == Undoer::Author => {
                by_name = false;
                continue;
            }
            AttemptOutcome::Unlockable if undoer == Undoer::Another => {
                return Ok(UndoOutcome::NotNow("its table cannot be locked".to_owned()));
            }
            AttemptOutcome::Slow if undoer == Undoer::Author => {
                kind = PhaseKind::Guarded;
                continue;
            }
            AttemptOutcome::Slow => {
                kind = PhaseKind::Guarded;
                "it took longer than hold_budget".to_owned()
            }
            AttemptOutcome::Locked | AttemptOutcome::Unlockable => "its locks were not available".to_owned(),
            AttemptOutcome::Failed(stop) => match undoer.judge(stop) {
                Failure::Again(reason) => reason,
                Failure::Later(reason) => return Ok(UndoOutcome::NotNow(reason)),
                Failure::Final(reason) => {
                    warn_left(context, state, &phase, &reason);
                    return Ok(UndoOutcome::Reported);
                }
                Failure::Ends(stop) => return Err(stop),
            },
        };
        if undoer == Undoer::Another
            && let Some(stop) = context.interrupted()
        {
            return Err(stop);
        }
        if Instant::now() >= deadline {
            return Ok(UndoOutcome::NotNow(reason));
        }
        let nap = nap_sql(context.config().locks.poll, undoer.waits_for());
        context.channel_mut().ask_one(&nap, &[]).await?;
    }
}

/// Runs a phase that undoes or finishes another one. Nobody tries it later, so that a WARNING reports it if it cannot run now.
pub(super) async fn by_phase_or_warn(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
) -> Result<(), RunError> {
    if let UndoOutcome::NotNow(reason) = by_phase(context, state, phase, Undoer::Author).await? {
        let phase = state.with_names(phase).into_owned();
        warn_left(context, state, &phase, &reason);
    }
    Ok(())
}

/// Sends the WARNING that a phase that was done cannot be undone.
pub(super) fn warn_not_undone(context: &mut ExecutionContext<'_>, state: &RunState, phase: &Phase, reason: &str) {
    if let Some(Undo::Run(undo)) = &phase.undo {
        let undo = state.with_names(undo).into_owned();
        warn_left(context, state, &undo, reason);
    }
}

/// Sends the WARNING that the statements of this phase could not run, with the statements as the HINT.
pub(super) fn warn_left(context: &mut ExecutionContext<'_>, state: &RunState, phase: &Phase, reason: &str) {
    let remedy = state.remedy(phase);
    tracing::warn!(reason, remedy, "could not finish or undo a phase of a schema change");
    let message = format!("could not finish or undo a phase of this statement: {reason}");
    let report = Report::warning(sqlstate::WARNING, message).hint(format!("Run by hand: {remedy}"));
    context.notify(&report);
}

/// Undoes a phase. A WARNING reports an object that cannot be undone, with the remedy.
pub(super) async fn undo_phase(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    how: UndoneAfter,
) -> Result<UndoOutcome, RunError> {
    if let (Some(Undo::Run(undo)), UndoneAfter::Done(_)) = (&phase.undo, how) {
        return by_phase(context, state, undo, Undoer::Author).await;
    }
    for index in leftover_indexes(context, state, phase, how).await? {
        invalid::drop_leftover(context, &index).await?;
    }
    Ok(UndoOutcome::Undone)
}

/// Returns the indexes that the undo of a phase drops.
pub(super) async fn leftover_indexes(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    phase: &Phase,
    how: UndoneAfter,
) -> Result<Vec<RelationName>, RunError> {
    match (&phase.undo, how) {
        (None | Some(Undo::Run(_)), _) => Ok(Vec::new()),
        (Some(Undo::DropBuiltIndex { oid, index, .. }), UndoneAfter::Done(at)) => {
            built_by(context, state, at, *oid, index).await
        }
        (Some(Undo::DropNewIndex { oid, .. }), UndoneAfter::Done(at)) if state.built_at(at).is_some() => {
            let built = state.built_at(at).unwrap_or_default();
            context.names(identity::INDEX_SQL, &[&built.to_string(), &oid.to_string()]).await
        }
        (Some(Undo::DropInvalidIndexes { oid, known, .. } | Undo::DropNewIndex { oid, known, .. }), _) => {
            invalid::invalid_indexes(context, *oid, known).await
        }
        (Some(Undo::DropBuiltIndex { oid, known, index, .. }), _) => {
            let mut found = invalid::invalid_indexes(context, *oid, known).await?;
            found.retain(|one| one == index);
            Ok(found)
        }
        (Some(Undo::FinishDrop { index, oid }), _) => half_dropped(context, index, *oid).await,
    }
}

/// Returns the index if an interrupted drop has left it invalid.
async fn half_dropped(
    context: &mut ExecutionContext<'_>,
    index: &RelationName,
    oid: u32,
) -> Result<Vec<RelationName>, RunError> {
    let found = context
        .names(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
             WHERE i.indexrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
             AND NOT (i.indisvalid AND i.indisready AND i.indislive)",
            &[&oid.to_string()],
        )
        .await?;
    if !found.is_empty() {
        context.notify(
            &Report::notice(
                sqlstate::SUCCESSFUL_COMPLETION,
                format!("index {index} is invalid already: finishing its drop"),
            )
            .detail("A concurrent drop that was interrupted cannot be undone."),
        );
    }
    Ok(found)
}

/// Returns the index that a phase has built on a table, by its current name. If its oid is not known, the plan's name is used.
pub(super) async fn built_by(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    at: usize,
    table: u32,
    planned: &RelationName,
) -> Result<Vec<RelationName>, RunError> {
    let table = table.to_string();
    match (state.built_at(at), &planned.schema) {
        (Some(oid), _) => context.names(identity::INDEX_SQL, &[&oid.to_string(), &table]).await,
        (None, Some(schema)) => context.names(identity::NAMED_INDEX_SQL, &[&table, schema, &planned.name]).await,
        (None, None) => Ok(vec![planned.clone()]),
    }
}
