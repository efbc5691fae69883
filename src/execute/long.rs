//! Long steps: builds, validations (and backfills, `backfill.rs`) that block neither reads nor writes, and what they leave when they fail.
//!
//! They take no lock attempts and no `lock_timeout` of ours: their waits hurt nobody, and a timeout in a
//! concurrent build leaves an invalid index. What the session itself has set holds.

use super::attempt::UndoOutcome;
use super::{Reply, Run, RunError, UndoneAfter};
use crate::pg::relation::RelationName;
use crate::pg::sqlstate;
use crate::plan::{Phase, Undo};
use crate::report::Report;

/// A question is put again if a cancel struck it.
const QUESTIONS: usize = 100;

impl Run<'_> {
    pub(super) async fn long(&mut self, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
        let mut waiting = self.take_lanes(phase).await?;
        let result = match &phase.backfill {
            Some(what) => self.backfill(phase, what, &mut waiting).await,
            None => self.long_steps(phase, reply).await,
        };
        if !matches!(result, Err(RunError::Lost)) {
            // An invalid index is dropped while the lane is still ours, so that nobody takes it for his own.
            if result.is_err() {
                self.channel.cancel_settled().await;
                self.undo(phase, UndoneAfter::Failed).await?;
            }
            self.release_wait_lanes(&mut waiting).await?;
        }
        result
    }

    /// Brings back what a phase left. What cannot be brought back now is named in a WARNING, with the remedy.
    pub(super) async fn undo(&mut self, phase: &Phase, how: UndoneAfter) -> Result<UndoOutcome, RunError> {
        if let (Some(Undo::Run(undo)), UndoneAfter::Done(_)) = (&phase.undo, how) {
            return self.undo_by_phase(undo).await;
        }
        for index in self.leftover_indexes(phase, how).await? {
            self.drop_leftover(&index).await?;
        }
        Ok(UndoOutcome::Undone)
    }

    /// The indexes that are to be dropped.
    pub(super) async fn leftover_indexes(
        &mut self,
        phase: &Phase,
        how: UndoneAfter,
    ) -> Result<Vec<RelationName>, RunError> {
        match (&phase.undo, how) {
            (None | Some(Undo::Run(_)), _) => Ok(Vec::new()),
            (Some(Undo::DropBuiltIndex { oid, index, .. }), UndoneAfter::Done(at)) => {
                self.built_by(at, *oid, index).await
            }
            (Some(Undo::DropInvalidIndexes { oid, known, .. }), _) => self.invalid_indexes(*oid, known).await,
            (Some(Undo::DropBuiltIndex { oid, known, index, .. }), _) => {
                let mut found = self.invalid_indexes(*oid, known).await?;
                found.retain(|one| one == index);
                Ok(found)
            }
            (Some(Undo::FinishDrop { index, oid }), _) => self.half_dropped(index, *oid).await,
        }
    }

    /// The index, if an interrupted drop left it invalid.
    async fn half_dropped(&mut self, index: &RelationName, oid: u32) -> Result<Vec<RelationName>, RunError> {
        let found = self
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
            self.notify(
                &Report::notice(
                    sqlstate::SUCCESSFUL_COMPLETION,
                    format!("index {index} is invalid already: finishing its drop"),
                )
                .detail("A concurrent drop that was interrupted cannot be taken back."),
            );
        }
        Ok(found)
    }

    pub(super) async fn names(&mut self, sql: &str, parameters: &[&str]) -> Result<Vec<RelationName>, RunError> {
        let rows = match self.surely(sql, parameters).await {
            Ok(rows) => rows,
            Err(RunError::Lost) => return Err(RunError::Lost),
            Err(stop) => {
                tracing::warn!(reason = stop.reason(), "what a schema change has left could not be asked for");
                Vec::new()
            }
        };
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let mut values = row.into_iter();
                Some(RelationName { schema: values.next()?, name: values.next()?? })
            })
            .collect())
    }

    /// A question that no cancel keeps from being answered.
    pub(super) async fn surely(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Vec<Vec<Option<String>>>, RunError> {
        self.channel.cancel_settled().await;
        for _ in 0..QUESTIONS {
            let answer = self.channel.ask_rows(sql, parameters).await?;
            match answer.error {
                None => return Ok(answer.rows),
                Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => {}
                Some(error) => return Err(RunError::Server(error)),
            }
        }
        Err(RunError::Report(Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request")))
    }
}
