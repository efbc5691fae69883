//! The record of the plan that is under way. The writer keeps it up to date.
//!
//! This file owns whether there is a record, its contents, and the lock of its table. It keeps true that the work of a transaction and its
//! record are committed together, and that a run that ends leaves neither a record nor its lock, except the record of a plan that must be
//! undone later.

use super::format::{MOST_OF_ALL, builds, fingerprint, is_recorded, new_table};
use super::table::{
    TRIES, change_records, comment_sql, forget, forget_run, forget_run_in_block, lock_again, lock_sql, look_at_record,
    may_overwrite, release_record, write_record_of,
};
use crate::backend::{Answer, BackendLost};
use crate::catalog::RelationRef;
use crate::catalog::record::{RecordRow, question};
use crate::execute::context::ExecutionContext;
use crate::execute::objects::unquoted;
use crate::execute::outcome::RunError;
use crate::execute::record::{BackfillPosition, Record, RecordKey};
use crate::execute::server_error::is_lock_failure;
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{CreatedObject, ObjectKind, Phase, Plan};
use crate::report::Report;
use crate::wire::message::Batch;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How long a run ahead of a block waits for another block that has changed the table. The run holds the lane of the table meanwhile, which the
/// other block may need.
const BLOCK_PATIENCE: Duration = Duration::from_secs(1);
/// The nap between two looks at such a block.
const NAP: Duration = Duration::from_millis(50);

/// The record of the plan, if there is one, and its lock.
#[derive(Debug, Default)]
pub(in crate::execute) struct RunRecord {
    writer: Option<RecordWriter>,
    /// The table whose record lock this session holds without keeping a record.
    locked: Option<u32>,
    /// The run is ahead of a block of its client's, so that its record stays when it is complete: the fingerprint of the plan.
    ahead: Option<String>,
}

/// A record and what is needed to keep it up to date.
#[derive(Debug)]
struct RecordWriter {
    record: Record,
    table: RelationName,
    oid: u32,
    quiet: bool,
    phases: usize,
    /// The record stays when the plan is complete.
    stays: bool,
    /// The plan makes the table. The transaction that makes it also takes the lock of its record.
    new_table: bool,
    /// The phase under way, whose end is written into the record.
    under_way: Option<usize>,
    /// The database has a record.
    written: bool,
    /// When the position was last written.
    at: Instant,
}

impl RecordWriter {
    /// Returns the text of the record as it must be now. `None` means that all phases are done. Then the record before it is left.
    fn text(&self) -> Option<String> {
        if self.record.next >= self.phases && !self.stays {
            return self.record.before.as_ref().and_then(|before| before.to_text());
        }
        self.record.to_text()
    }

    /// Returns the key of the record.
    fn key(&self) -> RecordKey {
        RecordKey { statement: self.record.statement.clone(), table: self.oid, id: self.record.job.clone() }
    }
}

impl RunRecord {
    /// Returns the writer of a record that exists and whose lock this session holds.
    pub(in crate::execute) fn resumed(record: Record, plan: &Plan, table: &RelationRef, quiet: bool) -> Self {
        let (phases, at) = (plan.phases.len(), Instant::now());
        let (table, oid) = (table.full_name(), table.oid);
        let (stays, new_table) = (false, false);
        let writer =
            RecordWriter { record, table, oid, quiet, phases, stays, new_table, under_way: None, written: true, at };
        Self { writer: Some(writer), locked: None, ahead: None }
    }

    /// Says that the plan runs ahead of a block of its client's. A record that exists becomes one of such a plan.
    pub(in crate::execute) fn run_ahead(&mut self, plan: &Plan) {
        self.ahead = Some(fingerprint(plan));
        if let Some(writer) = &mut self.writer {
            writer.stays = true;
            writer.record.ahead = true;
            writer.record.plan = fingerprint(plan);
            writer.record.builds = builds(plan);
        }
    }

    /// Whether the plan runs ahead of a block of its client's.
    pub(in crate::execute) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Whether the record is that of a plan that was run ahead of a block.
    pub(in crate::execute) fn is_of_ahead(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.record.ahead)
    }

    /// Removes the record in the client's block, right before the block commits.
    pub(in crate::execute) async fn forget_in_block(&self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        match &self.writer {
            Some(writer) => forget_run_in_block(context, writer.oid, writer.quiet, &writer.record.job).await,
            None => Ok(()),
        }
    }

    /// Whether the plan has a record.
    pub(in crate::execute) fn is_kept(&self) -> bool {
        self.writer.is_some()
    }

    /// Puts into the record that the phase under way is done, and the objects that the plan has made so far.
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

    /// Writes into the record that the plan has failed and must be undone, and leaves the record. Returns false if there is no record.
    pub(in crate::execute) async fn keep_to_be_undone(
        &mut self,
        context: &mut ExecutionContext<'_>,
    ) -> Result<bool, RunError> {
        let Some(writer) = &mut self.writer else { return Ok(false) };
        writer.record.undoing = true;
        if writer.record.ahead {
            // Later statements of the block may have their records on the table, too.
            let (record, oid, quiet) = (writer.record.clone(), writer.oid, writer.quiet);
            let with = |found: Option<Record>| {
                Some(Some(match found {
                    Some(found) if found.has(&record.job) => found.with(&record),
                    _ => record.clone(),
                }))
            };
            let is_kept = change_records(context, oid, quiet, with).await?;
            if is_kept {
                self.leave();
            }
            return Ok(is_kept);
        }
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

    /// Leaves the record when the run ends. Its lock is given back.
    pub(in crate::execute) fn leave(&mut self) {
        self.locked = self.writer.take().map(|writer| writer.oid);
    }

    /// Begins a record before the first phase: takes its lock and checks that there is no other record.
    pub(in crate::execute) async fn begin(
        &mut self,
        context: &mut ExecutionContext<'_>,
        plan: &Plan,
    ) -> Result<(), RunError> {
        if context.config().ddl.record_interval.is_zero() {
            return Ok(());
        }
        if let Some(table) = new_table(plan, context.facts()).filter(|_| self.ahead.is_some()) {
            let writer = self.new_writer(context, plan, &table);
            self.writer = writer.map(|writer| RecordWriter { new_table: true, ..writer });
            return Ok(());
        }
        let Some(table) = is_recorded(plan, context.facts(), self.ahead.is_some()) else { return Ok(()) };
        let (oid, own) = (table.oid, self.own_records(context, table.oid).await?);
        let (locked, found) = self.take_lock(context, oid, own.is_some()).await?;
        if !locked {
            return Ok(());
        }
        // From here on the lock is given back, whatever ends the run.
        self.locked = Some(oid);
        let writer = match found.filter(|found| found.may && found.trusted) {
            Some(found) if own.is_some() || may_overwrite(context, found.text.as_deref()).await? => {
                let writer = self.new_writer(context, plan, table);
                writer.map(|mut writer| {
                    writer.quiet = found.quiet;
                    writer.record.since = found.now;
                    writer.record.before = own.map(Box::new);
                    writer
                })
            }
            _ => None,
        };
        let writer = writer.filter(|writer| {
            let size = writer.text().map(|text| text.len().saturating_mul(plan.phases.len()));
            size.is_some_and(|size| size <= MOST_OF_ALL)
        });
        let Some(writer) = writer else {
            tracing::debug!(oid, "cannot keep a record of a schema change");
            return self.end(context).await;
        };
        let text = writer.text();
        self.writer = Some(writer);
        self.locked = None;
        // If the first phase is a transaction, that transaction writes the record.
        if plan.phases.first().is_some_and(|phase| !phase.in_transaction)
            && self.write(context, text.as_deref()).await?
            && let Some(writer) = &mut self.writer
        {
            writer.written = true;
        }
        Ok(())
    }

    /// Returns the records of this session's own block on the table, if the run is ahead of a block.
    async fn own_records(&self, context: &mut ExecutionContext<'_>, oid: u32) -> Result<Option<Record>, RunError> {
        if self.ahead.is_none() {
            return Ok(None);
        }
        let (_, found) = look_at_record(context, oid, false).await?;
        let own = Some(context.facts().session.backend_pid);
        let record = found.filter(|found| found.holder == own).and_then(|found| Record::from_text(&found.text?));
        Ok(record.filter(Record::is_ahead))
    }

    /// Takes the lock of a table's record. A run ahead of a block waits a moment for another block that holds it, since it must be on record.
    async fn take_lock(
        &self,
        context: &mut ExecutionContext<'_>,
        oid: u32,
        own: bool,
    ) -> Result<(bool, Option<RecordRow>), RunError> {
        let begun = Instant::now();
        // Each statement of the block takes the lock once more, and gives it back once.
        if own {
            lock_again(context, oid).await?;
            return Ok((true, look_at_record(context, oid, false).await?.1));
        }
        loop {
            let (locked, found) = look_at_record(context, oid, true).await?;
            let Some(holder) =
                found.as_ref().and_then(|found| found.holder).filter(|_| !locked && self.ahead.is_some())
            else {
                return Ok((locked, found));
            };
            if begun.elapsed() >= BLOCK_PATIENCE.min(context.wait_limit()) {
                let report = Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout");
                let detail = format!("The transaction of pid {holder} has changed the table and is not over yet.");
                return Err(RunError::Report(report.detail(detail)));
            }
            if let Some(stop) = context.interrupted() {
                return Err(stop);
            }
            let nap = nap_sql(NAP, "waiting for the end of a transaction with a schema change");
            let answer = context.channel_mut().ask_one(&nap, &[]).await?;
            context.cancelled_by(answer.error)?;
        }
    }

    /// Returns the writer of a new record, which is not written yet.
    fn new_writer(&self, context: &ExecutionContext<'_>, plan: &Plan, table: &RelationRef) -> Option<RecordWriter> {
        let id = RandomState::new().hash_one(context.facts().session.backend_pid);
        let record = Record {
            job: format!("{id:016x}"),
            since: String::new(),
            statement: plan.statement.clone(),
            plan: self.ahead.clone().unwrap_or_else(|| fingerprint(plan)),
            next: 0,
            place: None,
            things: Vec::new(),
            built: Vec::new(),
            learned: Vec::new(),
            builds: builds(plan),
            undoing: false,
            ahead: self.ahead.is_some(),
            before: None,
            facts: context.facts().clone(),
        };
        let (phases, at) = (plan.phases.len(), Instant::now());
        let (oid, table, stays) = (table.oid, table.full_name(), self.ahead.is_some());
        let (quiet, new_table, under_way, written) = (false, false, None, false);
        let writer = RecordWriter { record, table, oid, quiet, phases, stays, new_table, under_way, written, at };
        writer.record.to_text().map(|_| writer)
    }

    /// In the transaction that makes the table of the record: takes the lock of the record. If the record cannot be kept there, there is none.
    /// An answer is returned if the transaction has failed.
    async fn take_new_table(&mut self, context: &mut ExecutionContext<'_>) -> Result<Option<Answer>, BackendLost> {
        let Some(writer) = self.writer.as_mut().filter(|writer| writer.new_table) else {
            return Ok(None);
        };
        let mut batch = Batch::new();
        // An attempt that was rolled back has left its lock.
        if writer.oid != 0 {
            batch.statement(&lock_sql("pg_advisory_unlock", writer.oid), &[]);
        }
        let unlocks = batch.statements;
        let made = writer.record.things.iter().rev().find(|(thing, _)| thing.kind == ObjectKind::Table);
        let Some(oid) = made.map(|(_, oid)| *oid) else {
            self.writer = None;
            return Ok(None);
        };
        writer.oid = oid;
        batch.statement(&lock_sql("pg_try_advisory_lock", oid), &[]);
        let question = question(context.facts().session.server_version);
        context.channel().put_question(&mut batch, &question, &[&oid.to_string()]);
        let answer = context.channel_mut().ask(batch, None).await?;
        if answer.error.is_some() {
            return Ok(Some(answer));
        }
        let value = |nth: usize| answer.rows.get(unlocks + nth).and_then(|row| row.first()?.clone());
        let found = value(1).and_then(|json| serde_json::from_str::<RecordRow>(&context.channel().text(&json)).ok());
        match found.filter(|found| found.may && found.trusted && found.text.is_none()) {
            Some(found) if value(0).as_deref() == Some("t") => {
                writer.quiet = found.quiet;
                writer.record.since = found.now;
            }
            _ => self.leave(),
        }
        Ok(None)
    }

    /// Returns the first phase that is not done.
    pub(in crate::execute) fn first_phase(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.record.next)
    }

    /// Returns the position that the backfill of a session that is gone has reached.
    pub(in crate::execute) fn position(&self) -> Option<BackfillPosition> {
        self.writer.as_ref().and_then(|writer| writer.record.place)
    }

    /// Returns the key of the record, whether or not it is written yet.
    pub(in crate::execute) fn kept_key(&self) -> Option<RecordKey> {
        self.writer.as_ref().map(RecordWriter::key)
    }

    /// Returns the record as it is now, and the oid of its table.
    pub(in crate::execute) fn current(&self) -> Option<(&Record, u32)> {
        self.writer.as_ref().map(|writer| (&writer.record, writer.oid))
    }

    /// Returns the key of the record, if it is written.
    pub(in crate::execute) fn key(&self) -> Option<RecordKey> {
        self.writer.as_ref().filter(|writer| writer.written).map(RecordWriter::key)
    }

    /// Whether the transaction of this phase writes the record at its end.
    pub(in crate::execute) fn records(&self, phase: &Phase) -> bool {
        phase.in_transaction && self.writer.as_ref().is_some_and(|writer| writer.under_way.is_some())
    }

    /// Notes the phase that begins. `None` means that the following statements are not part of the plan.
    pub(in crate::execute) fn under_way(&mut self, phase: Option<usize>) {
        if let Some(writer) = &mut self.writer {
            writer.under_way = phase;
        }
    }

    /// Writes the record and commits, after the steps of a phase have succeeded. An error of the record alone does not make the phase fail.
    /// But if the database has a record already, which would become out of date, a lock that is not available makes the attempt fail like a
    /// lock of the phase itself.
    pub(in crate::execute) async fn commit(
        &mut self,
        context: &mut ExecutionContext<'_>,
    ) -> Result<Answer, BackendLost> {
        if let Some(failed) = self.take_new_table(context).await? {
            return Ok(failed);
        }
        let Some(writer) = &mut self.writer else { return context.channel_mut().ask_one("COMMIT", &[]).await };
        let text = writer.text();
        let mut batch = Batch::new();
        if text.is_some() || writer.written {
            batch.savepoint();
            if writer.quiet {
                batch.statement("SET LOCAL session_replication_role = replica", &[]);
            }
            batch.statement(&comment_sql(&writer.table, text.as_deref()), &[]);
        }
        let before_commit = batch.statements;
        batch.statement("COMMIT", &[]);
        // If the backend dies now, it is not known whether the database has a record.
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
                tracing::warn!(sqlstate = error.sqlstate(), "could not write the record of a schema change");
                // A record in the database is written later, or removed at the end.
                if !was_written {
                    self.locked = self.writer.take().map(|writer| writer.oid);
                }
                let mut batch = Batch::new();
                batch.roll_back_to_savepoint();
                batch.statement("COMMIT", &[]);
                context.channel_mut().ask(batch, None).await
            }
            Some(_) => Ok(answer),
        }
    }

    /// Writes the record after a phase whose transaction did not write it.
    pub(in crate::execute) async fn phase_done(&self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        match self.writer.as_ref().and_then(RecordWriter::text) {
            Some(text) => self.write(context, Some(&text)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Writes the position of the backfill, if a write is due.
    pub(in crate::execute) async fn note_position(
        &mut self,
        context: &mut ExecutionContext<'_>,
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

    /// Writes the record in a transaction of its own. Returns false if that was not possible now.
    pub(super) async fn write(&self, context: &mut ExecutionContext<'_>, text: Option<&str>) -> Result<bool, RunError> {
        let Some(writer) = &self.writer else { return Ok(false) };
        let (oid, quiet) = (writer.oid, writer.quiet);
        write_record_of(context, oid, quiet, text).await
    }

    /// Ends the record when the plan is complete or undone: removes it and gives its lock back.
    pub(in crate::execute) async fn end(&mut self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        let unrecorded = self.locked.take();
        let writer = self.writer.take();
        let Some(oid) = writer.as_ref().map(|writer| writer.oid).or(unrecorded) else { return Ok(()) };
        match writer.filter(|writer| writer.written) {
            Some(writer) if writer.record.ahead => {
                forget_run(context, writer.oid, writer.quiet, &writer.record.job).await?;
            }
            Some(writer) => forget(context, writer.oid, writer.quiet).await?,
            None => {}
        }
        // A new table whose phase did not come to its end has no lock.
        if oid == 0 { Ok(()) } else { release_record(context, oid).await }
    }
}
