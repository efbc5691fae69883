//! Giving up what is on record: a plan that failed and could not be taken back yet, or that another statement has left.
//!
//! It promises: what is undone is what the record's plan has made, told by oid and column number, as if the plan had failed in the session that
//! began it; while it cannot be undone, the record stays and says so.

use super::{Record, TRIES};
use crate::execute::attempt::UndoOutcome;
use crate::execute::{Run, RunError, UndoneAfter};
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::report::Report;

impl Run<'_> {
    /// What failed could not be taken back: the record stays, and says so. False: there is none.
    pub(in crate::execute) async fn keep_to_be_undone(&mut self) -> Result<bool, RunError> {
        let Some(writer) = &mut self.state.record else { return Ok(false) };
        writer.record.undoing = true;
        let Some(text) = writer.text() else { return Ok(false) };
        for _ in 0..TRIES {
            self.channel.cancel_settled().await;
            if self.write_record(Some(&text)).await? {
                // Its end is another's.
                self.state.unrecorded = self.state.record.take().map(|writer| writer.oid);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The record of a table, whatever statement it is of, with its lock; none if it is at work, or is not to be followed.
    /// `wanted`: of which records.
    ///
    /// # Errors
    /// It is cancelled, or the backend is gone.
    pub async fn take_record(
        &mut self,
        oid: u32,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Option<(Record, bool)>, RunError> {
        let (locked, found) = self.look_at_record(oid, true).await?;
        if !locked {
            return Ok(None);
        }
        let followed = found.filter(|found| found.trusted && found.may);
        let record = followed.and_then(|found| Some((Record::from_text(found.text.as_deref()?)?, found.quiet)));
        let record = record.filter(|(record, _)| wanted(record));
        if record.is_none() {
            self.release_record(oid).await?;
        }
        Ok(record)
    }

    /// Undoes a plan whose record this session has taken over. False: not now, as somebody is in the way.
    ///
    /// # Errors
    /// It is cancelled, or the backend is gone.
    pub async fn abandon(&mut self, plan: &Plan) -> Result<bool, RunError> {
        let next = self.first_phase();
        let undone = self.undo_abandoned(plan, next).await;
        if matches!(undone, Err(RunError::Lost)) {
            return undone;
        }
        if !matches!(undone, Ok(true)) {
            // The record stays; its lock does not.
            self.state.unrecorded = self.state.record.take().map(|writer| writer.oid);
        }
        self.end_record().await?;
        undone
    }

    async fn undo_abandoned(&mut self, plan: &Plan, next: usize) -> Result<bool, RunError> {
        if let Some(phase) = plan.phases.get(next) {
            let phase = self.with_names(phase).into_owned();
            // What it has left half built is dropped by this.
            self.finish_interrupted_build(next, &phase).await?;
        }
        for at in (0..=next.min(plan.phases.len().saturating_sub(1))).rev() {
            match self.undo(&plan.phases[at], UndoneAfter::Done(at)).await? {
                UndoOutcome::Undone | UndoOutcome::Reported => {}
                UndoOutcome::NotNow(reason) => {
                    tracing::info!(reason, "what another statement has left could not be undone");
                    return Ok(false);
                }
            }
        }
        let report =
            Report::notice(sqlstate::SUCCESSFUL_COMPLETION, "undid what another statement had left unfinished").detail(
                format!(
                    "It was a {} that had begun and whose session is gone, or that could not be taken back.",
                    plan.tag
                ),
            );
        self.notify(&report);
        Ok(true)
    }
}
