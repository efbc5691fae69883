//! Undoing a phase: by a phase of its own, or by dropping the index that it built.
//!
//! It keeps true that neither a cancel nor a client that left ends an undo; that only what the plan has made is undone; and that what cannot be
//! undone now is named to the client, with the statements that do it.

use crate::catalog::identity;
use crate::execute::attempt::{self, unnamed};
use crate::execute::budget::AttemptMode;
use crate::execute::context::Context;
use crate::execute::outcome::{AttemptOutcome, Reply, RunError, UndoOutcome, UndoneAfter};
use crate::execute::state::RunState;
use crate::execute::timing::UNDO_PATIENCE;
use crate::execute::{invalid, unchanged};
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{Phase, PhaseKind, Undo};
use crate::report::Report;
use std::time::{Duration, Instant};

/// Who undoes a phase, and so what ends the undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undoer {
    /// The statement that failed. Neither a cancel nor a client that left ends its undo.
    Author,
    /// A later statement of the same role, whose client waits meanwhile.
    Another,
}

impl Undoer {
    /// How long the locks are asked for.
    fn patience(self) -> Duration {
        match self {
            Self::Author => UNDO_PATIENCE,
            Self::Another => Duration::from_secs(2),
        }
    }

    /// For `pg_stat_activity`.
    fn waits_for(self) -> &'static str {
        match self {
            Self::Author => "waiting to finish or undo",
            Self::Another => "waiting to undo what a lost session has left",
        }
    }

    /// What an error of a try means. What has failed at its author's hand is left to people; another statement leaves it to a later one,
    /// unless the schema or the rows have become something else meanwhile: then it would fail again and again.
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

/// Undoes by a phase of its own what was done. It gives up when the locks are not to be had for long.
pub(super) async fn by_phase(
    context: &mut Context<'_>,
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
            // Somebody has dropped or renamed the table: the statement itself will say so.
            AttemptOutcome::Unlockable if by_name && undoer == Undoer::Author => {
                by_name = false;
                continue;
            }
            AttemptOutcome::Unlockable if undoer == Undoer::Another => {
                return Ok(UndoOutcome::NotNow("its table cannot be locked".to_owned()));
            }
            // It takes as long as it takes: what is left would stay.
            AttemptOutcome::Slow if undoer == Undoer::Author => {
                kind = PhaseKind::Guarded;
                continue;
            }
            AttemptOutcome::Slow => {
                kind = PhaseKind::Guarded;
                "it took longer than hold_budget".to_owned()
            }
            AttemptOutcome::Locked | AttemptOutcome::Unlockable => "its locks were not to be had".to_owned(),
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

/// The same, where nobody else will try it later.
pub(super) async fn by_phase_or_warn(
    context: &mut Context<'_>,
    state: &mut RunState,
    phase: &Phase,
) -> Result<(), RunError> {
    if let UndoOutcome::NotNow(reason) = by_phase(context, state, phase, Undoer::Author).await? {
        let phase = state.with_names(phase).into_owned();
        warn_left(context, state, &phase, &reason);
    }
    Ok(())
}

/// The same of a phase that was done.
pub(super) fn warn_not_undone(context: &mut Context<'_>, state: &RunState, phase: &Phase, reason: &str) {
    if let Some(Undo::Run(undo)) = &phase.undo {
        let undo = state.with_names(undo).into_owned();
        warn_left(context, state, &undo, reason);
    }
}

pub(super) fn warn_left(context: &mut Context<'_>, state: &RunState, phase: &Phase, reason: &str) {
    let remedy = state.remedy(phase);
    tracing::warn!(reason, remedy, "what a schema change had begun could not be finished or brought back");
    let message = format!("what this statement had begun could not be finished or brought back: {reason}");
    let report = Report::warning(sqlstate::WARNING, message).hint(format!("Do it by hand: {remedy}"));
    context.notify(&report);
}

/// Brings back what a phase left. What cannot be brought back now is named in a WARNING, with the remedy.
pub(super) async fn undo_phase(
    context: &mut Context<'_>,
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

/// The indexes that are to be dropped.
pub(super) async fn leftover_indexes(
    context: &mut Context<'_>,
    state: &RunState,
    phase: &Phase,
    how: UndoneAfter,
) -> Result<Vec<RelationName>, RunError> {
    match (&phase.undo, how) {
        (None | Some(Undo::Run(_)), _) => Ok(Vec::new()),
        (Some(Undo::DropBuiltIndex { oid, index, .. }), UndoneAfter::Done(at)) => {
            built_by(context, state, at, *oid, index).await
        }
        (Some(Undo::DropInvalidIndexes { oid, known, .. }), _) => invalid::invalid_indexes(context, *oid, known).await,
        (Some(Undo::DropBuiltIndex { oid, known, index, .. }), _) => {
            let mut found = invalid::invalid_indexes(context, *oid, known).await?;
            found.retain(|one| one == index);
            Ok(found)
        }
        (Some(Undo::FinishDrop { index, oid }), _) => half_dropped(context, index, *oid).await,
    }
}

/// The index, if an interrupted drop left it invalid.
async fn half_dropped(
    context: &mut Context<'_>,
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
            .detail("A concurrent drop that was interrupted cannot be taken back."),
        );
    }
    Ok(found)
}

/// The index that a phase has built on a table, by its name of now; one that nobody could tell the oid of, by the plan's.
pub(super) async fn built_by(
    context: &mut Context<'_>,
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
