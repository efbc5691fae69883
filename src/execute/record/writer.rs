//! The record of the plan that is under way, kept up to date.
//!
//! It owns whether there is a record, what it says, and the lock of its table. It keeps true that what a transaction of the plan's has done and
//! what the record says of it are committed together, and that a run that ends leaves neither a record nor its lock, unless the record is to
//! be undone later.

use super::format::{MOST_OF_ALL, builds, fingerprint, is_recorded};
use super::table::{TRIES, comment_sql, forget, look_at_record, may_overwrite, release_record, write_record_of};
use crate::backend::{Answer, BackendLost};
use crate::catalog::RelationRef;
use crate::execute::context::Context;
use crate::execute::objects::unquoted;
use crate::execute::outcome::RunError;
use crate::execute::record::{BackfillPosition, Record, RecordKey};
use crate::execute::server_error::is_lock_failure;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{CreatedObject, Phase, Plan};
use crate::wire::message::Batch;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

/// Whether the plan is on record.
#[derive(Debug, Default)]
pub(in crate::execute) struct RunRecord {
    writer: Option<RecordWriter>,
    /// The table whose record's lock is held without a record.
    locked: Option<u32>,
}

/// A record that is kept up to date.
#[derive(Debug)]
struct RecordWriter {
    record: Record,
    table: RelationName,
    oid: u32,
    quiet: bool,
    phases: usize,
    /// The phase whose end is to be recorded with it.
    under_way: Option<usize>,
    /// There is one in the database.
    written: bool,
    /// When the place was last written.
    at: Instant,
}

impl RecordWriter {
    /// The comment as it is to be now; none if all is done.
    fn text(&self) -> Option<String> {
        if self.record.next >= self.phases { None } else { self.record.to_text() }
    }

    fn key(&self) -> RecordKey {
        RecordKey { statement: self.record.statement.clone(), table: self.oid, id: self.record.job.clone() }
    }
}

impl RunRecord {
    /// A record that is there, whose lock this session has, is kept from now on.
    pub(in crate::execute) fn resumed(record: Record, plan: &Plan, table: &RelationRef, quiet: bool) -> Self {
        let (phases, at) = (plan.phases.len(), Instant::now());
        let (table, oid) = (table.full_name(), table.oid);
        let writer = RecordWriter { record, table, oid, quiet, phases, under_way: None, written: true, at };
        Self { writer: Some(writer), locked: None }
    }

    /// Whether the plan is on record.
    pub(in crate::execute) fn is_kept(&self) -> bool {
        self.writer.is_some()
    }

    /// The phase that is under way is done; what the plan has made so far is known.
    pub(in crate::execute) fn advance(
        &mut self,
        created: &[(CreatedObject, u32)],
        built: &[(usize, u32)],
        names: &[String],
    ) {
        let Some(writer) = &mut self.writer else { return };
        let Some(at) = writer.under_way else { return };
        writer.record.next = at + 1;
        writer.record.place = None;
        writer.record.things = created.to_vec();
        writer.record.built = built.to_vec();
        writer.record.learned = names.iter().map(|name| unquoted(name)).collect();
    }

    /// The plan failed, and cannot be undone now: the record says so, and stays. False: there is none.
    pub(in crate::execute) async fn keep_to_be_undone(&mut self, context: &mut Context<'_>) -> Result<bool, RunError> {
        let Some(writer) = &mut self.writer else { return Ok(false) };
        writer.record.undoing = true;
        let Some(text) = writer.text() else { return Ok(false) };
        for _ in 0..TRIES {
            context.channel().cancel_settled().await;
            if self.write(context, Some(&text)).await? {
                self.leave();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The record stays when the run ends; its lock does not.
    pub(in crate::execute) fn leave(&mut self) {
        self.locked = self.writer.take().map(|writer| writer.oid);
    }

    /// Before the first phase: the lock, and that nothing else is on record.
    pub(in crate::execute) async fn begin(&mut self, context: &mut Context<'_>, plan: &Plan) -> Result<(), RunError> {
        let Some(table) = is_recorded(plan, context.facts()) else { return Ok(()) };
        if context.config().ddl.record_interval.is_zero() {
            return Ok(());
        }
        let (oid, table) = (table.oid, table.full_name());
        let (locked, found) = look_at_record(context, oid, true).await?;
        if !locked {
            return Ok(());
        }
        // Whatever ends it from here on, the lock is given back.
        self.locked = Some(oid);
        let id = RandomState::new().hash_one(context.facts().session.backend_pid);
        let writer = match found.filter(|found| found.may && found.trusted) {
            Some(found) if may_overwrite(context, found.text.as_deref()).await? => {
                let record = Record {
                    job: format!("{id:016x}"),
                    since: found.now,
                    statement: plan.statement.clone(),
                    plan: fingerprint(plan),
                    next: 0,
                    place: None,
                    things: Vec::new(),
                    built: Vec::new(),
                    learned: Vec::new(),
                    builds: builds(plan),
                    undoing: false,
                    facts: context.facts().clone(),
                };
                let (phases, at) = (plan.phases.len(), Instant::now());
                let writer = RecordWriter {
                    record,
                    table,
                    oid,
                    quiet: found.quiet,
                    phases,
                    under_way: None,
                    written: false,
                    at,
                };
                let size = writer.text().map(|text| text.len().saturating_mul(phases));
                size.is_some_and(|size| size <= MOST_OF_ALL).then_some(writer)
            }
            _ => None,
        };
        let Some(writer) = writer else {
            tracing::debug!(oid, "how far this is cannot be recorded");
            return self.end(context).await;
        };
        let text = writer.text();
        self.writer = Some(writer);
        self.locked = None;
        // What a transaction begins is recorded in it.
        if plan.phases.first().is_some_and(|phase| !phase.in_transaction)
            && self.write(context, text.as_deref()).await?
            && let Some(writer) = &mut self.writer
        {
            writer.written = true;
        }
        Ok(())
    }

    /// The first phase that is not done.
    pub(in crate::execute) fn first_phase(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.record.next)
    }

    /// Where the backfill of a dead session had come to.
    pub(in crate::execute) fn position(&self) -> Option<BackfillPosition> {
        self.writer.as_ref().and_then(|writer| writer.record.place)
    }

    /// The key of the record that is to be kept, written yet or not.
    pub(in crate::execute) fn kept_key(&self) -> Option<RecordKey> {
        self.writer.as_ref().map(RecordWriter::key)
    }

    /// The key of the record, once it is written.
    pub(in crate::execute) fn key(&self) -> Option<RecordKey> {
        self.writer.as_ref().filter(|writer| writer.written).map(RecordWriter::key)
    }

    /// Whether the end of this phase's transaction is to be recorded in it.
    pub(in crate::execute) fn records(&self, phase: &Phase) -> bool {
        phase.in_transaction && self.writer.as_ref().is_some_and(|writer| writer.under_way.is_some())
    }

    /// The plan's phase that begins; none: what follows is no part of it.
    pub(in crate::execute) fn under_way(&mut self, phase: Option<usize>) {
        if let Some(writer) = &mut self.writer {
            writer.under_way = phase;
        }
    }
    /// The record, then COMMIT, behind the steps of a phase that have gone well. What is wrong with the record alone does
    /// no harm to the phase; but where one is in the database already, which would be behind, its lock is waited for as the
    /// phase's own.
    pub(in crate::execute) async fn commit(&mut self, context: &mut Context<'_>) -> Result<Answer, BackendLost> {
        let Some(writer) = &mut self.writer else { return context.channel_mut().ask_one("COMMIT", &[]).await };
        let text = writer.text();
        let mut batch = Batch::new();
        if text.is_some() || writer.written {
            batch.statement("SAVEPOINT pgsluice", &[]);
            if writer.quiet {
                batch.statement("SET LOCAL session_replication_role = replica", &[]);
            }
            batch.statement(&comment_sql(&writer.table, text.as_deref()), &[]);
        }
        let before_commit = batch.statements;
        batch.statement("COMMIT", &[]);
        // If the backend dies now, nobody knows whether there is one.
        let (stays, was_written) = (text.is_some(), writer.written);
        writer.written = true;
        let answer = context.channel_mut().ask(batch, None).await?;
        match &answer.error {
            None => {
                if let Some(writer) = &mut self.writer {
                    writer.written = stays;
                }
                Ok(answer)
            }
            Some(error) if was_written && is_lock_failure(error) => Ok(answer),
            Some(error) if answer.done < before_commit && error.sqlstate() != sqlstate::QUERY_CANCELED => {
                tracing::warn!(sqlstate = error.sqlstate(), "how far a schema change is could not be recorded");
                // One that is there is to be written later, or removed in the end.
                if !was_written {
                    self.locked = self.writer.take().map(|writer| writer.oid);
                }
                let mut batch = Batch::new();
                batch.statement("ROLLBACK TO SAVEPOINT pgsluice", &[]);
                batch.statement("COMMIT", &[]);
                context.channel_mut().ask(batch, None).await
            }
            Some(_) => Ok(answer),
        }
    }

    /// A phase is done that was not one transaction.
    pub(in crate::execute) async fn phase_done(&self, context: &mut Context<'_>) -> Result<(), RunError> {
        match self.writer.as_ref().and_then(RecordWriter::text) {
            Some(text) => self.write(context, Some(&text)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// How far the backfill is, if that is due.
    pub(in crate::execute) async fn note_position(
        &mut self,
        context: &mut Context<'_>,
        position: impl FnOnce() -> Option<BackfillPosition>,
    ) -> Result<(), RunError> {
        let interval = context.config().ddl.record_interval;
        let Some(writer) = self.writer.as_mut().filter(|writer| writer.at.elapsed() >= interval) else {
            return Ok(());
        };
        writer.at = Instant::now();
        let Some(place) = position().filter(|place| writer.record.place != Some(*place)) else { return Ok(()) };
        writer.record.place = Some(place);
        match writer.text() {
            Some(text) => self.write(context, Some(&text)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// In a transaction of its own. False: not now.
    pub(super) async fn write(&self, context: &mut Context<'_>, text: Option<&str>) -> Result<bool, RunError> {
        let Some(writer) = &self.writer else { return Ok(false) };
        let (oid, quiet) = (writer.oid, writer.quiet);
        write_record_of(context, oid, quiet, text).await
    }

    /// The plan has come to its end, or to nothing: no record is left, and its lock is given back.
    pub(in crate::execute) async fn end(&mut self, context: &mut Context<'_>) -> Result<(), RunError> {
        let unrecorded = self.locked.take();
        let writer = self.writer.take();
        let Some(oid) = writer.as_ref().map(|writer| writer.oid).or(unrecorded) else { return Ok(()) };
        if let Some(writer) = writer.filter(|writer| writer.written) {
            forget(context, writer.oid, writer.quiet).await?;
        }
        release_record(context, oid).await
    }
}
