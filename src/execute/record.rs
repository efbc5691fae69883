//! How far a plan of several phases is, on record in the database: the same statement continues it after whatever died.
//!
//! The record is a comment on the row type of the plan's table (`catalog/record.rs`). It holds what the plan was made from, so that the
//! planner, which is pure, makes the same again; which phases are done; what they have made, with what tells it; and the
//! place that the backfill has reached.
//!
//! It promises: what a transaction of the plan's has done and what the record says of it are committed together; who follows a
//! record has its lock, which nobody has who is alive and at work on it; nothing is followed that has become another table, or
//! another column. That every row has its value never depends on it: the sweep looks at them all.
//!
//! Where it cannot be written (an event trigger would see it, the comment is somebody else's), the plan runs without.

mod abandon;
mod resume;
mod trust;

pub(super) use self::resume::TakeRecordOutcome;
pub use self::resume::UnfinishedChange;
use super::attempt::is_lock_failure;
use super::pending_undo::{known, made, unquoted};
use super::{Run, RunError};
use crate::backend::{Answer, BackendLost};
use crate::catalog::identity::{self, IDENTITY_SQL};
use crate::catalog::record::{JOB_CLASS, RecordRow, question};
use crate::catalog::{Facts, RelationFacts, RelationRef, SessionFacts};
use crate::lanes;
use crate::pg::relation::{quote_identifier, quote_literal};
use crate::pg::{RelationKind, RelationName, sqlstate};
use crate::plan::{CreatedObject, ObjectKind, ObjectName, Phase, PhaseKind, Plan, Undo};
use crate::report::Report;
use crate::sql::Ddl;
use crate::wire::message::Batch;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The first line is for people. The number is the layout's.
const HEADING: &str =
    "pgsluice 1: an unfinished schema change; the same statement, sent through pgsluice, continues it\n";

/// Bytes; what is larger is not recorded, nor what would come to more if it is written after each phase.
const MOST: usize = 256 * 1024;
const MOST_OF_ALL: usize = 16 * 1024 * 1024;

/// As long as others do not wait for it to be written.
const PATIENCE: Duration = Duration::from_millis(100);

/// Nobody cancels the same session more often, unless by a program.
const TRIES: usize = 20;

/// What is on record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Tells one run of a statement from another.
    job: String,
    /// The server's clock, for people.
    since: String,
    statement: String,
    /// Of the plan, as [`fingerprint`] has it.
    plan: String,
    /// The first phase that is not done.
    next: usize,
    place: Option<Place>,
    things: Vec<(CreatedObject, u32)>,
    built: Vec<(usize, u32)>,
    /// Unquoted.
    learned: Vec<String>,
    /// The indexes that the plan builds, built yet or not: the oid of the table, and the name.
    #[serde(default)]
    builds: Vec<(u32, String)>,
    /// It has failed, and could not be taken back yet: it is not to be continued, but undone.
    #[serde(default)]
    undoing: bool,
    facts: Facts,
}

/// How far the backfill is: all tables with a smaller oid are done, and of this one all pages before `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) table: u32,
    /// Another file has other pages.
    pub(super) file: u32,
    pub(super) page: u64,
    /// What is behind this page has come since the backfill began, with its value.
    pub(super) end: u64,
    /// That were given their value.
    pub(super) rows: u64,
}

/// Which run of a statement a table's record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordKey {
    pub statement: String,
    pub table: u32,
    id: String,
}

/// A record that is kept up to date.
#[derive(Debug)]
pub(super) struct RecordWriter {
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

impl Record {
    /// As the comment has it: ASCII, whatever encoding the session has.
    fn to_text(&self) -> Option<String> {
        let json = serde_json::to_string(self).ok()?;
        let mut text = String::with_capacity(HEADING.len() + json.len());
        text.push_str(HEADING);
        for c in json.chars() {
            if c.is_ascii() {
                text.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        (text.len() <= MOST).then_some(text)
    }

    fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix(HEADING)?).ok()
    }

    /// The facts that its plan was made from, in a session of now.
    pub fn facts(&self, session: &SessionFacts) -> Facts {
        let mut facts = Facts { session: session.clone(), ..self.facts.clone() };
        for found in facts.relations.iter_mut().filter_map(|asked| asked.found.as_mut()) {
            found.lane_holder = None;
        }
        facts
    }

    /// The client's text.
    pub fn statement(&self) -> &str {
        &self.statement
    }

    /// It has failed, and is to be undone, not continued.
    pub fn is_undoing(&self) -> bool {
        self.undoing
    }

    /// Whether the statement names what the plan makes: a column, a constraint, an index.
    pub fn touches(&self, ddl: &Ddl) -> bool {
        let things = self.things.iter().filter_map(|(thing, _)| known(thing)).map(|(_, _, name)| name);
        let learned = self.learned.iter().map(String::as_str);
        let builds = self.builds.iter().map(|(_, name)| name.as_str());
        let mut made = things.chain(learned).chain(builds).filter(|name| !name.is_empty());
        let parts = ddl.parts.iter().flat_map(|part| part.column.iter().chain(&part.constraint));
        let targets = ddl.targets.iter().map(|target| &target.name);
        let named: Vec<&String> = parts.chain(&ddl.index_name).chain(targets).collect();
        made.any(|name| named.iter().any(|named| *named == name))
    }

    /// Whether the plan is the one that was begun.
    pub fn is_plan(&self, plan: &Plan) -> bool {
        self.plan == fingerprint(plan) && self.next < plan.phases.len()
    }

    /// Whether the plan made from them is the one that was begun, and what it names what it named; if not, why not.
    pub fn is_of(&self, plan: &Plan, now: &Facts) -> Result<(), &'static str> {
        let same = self.facts.relations.iter().all(|asked| {
            let now = now.asked(&asked.name).and_then(|now| now.found.as_ref());
            asked.found.as_ref().map(|found| &found.id) == now.map(|now| &now.id)
        });
        if !same {
            return Err("a table that it names has been renamed or replaced");
        }
        if !self.is_plan(plan) {
            return Err("this pgsluice, or its settings, would do it otherwise");
        }
        let mut columns =
            plan.phases.iter().take(self.next).flat_map(made).filter(|thing| thing.kind == ObjectKind::Column);
        if columns.any(|column| !self.things.iter().any(|(thing, _)| thing == column)) {
            return Err("its record is damaged");
        }
        Ok(())
    }

    /// For people.
    pub fn report(&self, plan: &Plan) -> Report {
        let tag = &plan.tag;
        let message = format!("continuing what this {tag} had begun at {}", self.since);
        let purpose = plan.phases.get(self.next).map_or("to its end", |phase| phase.purpose.as_str());
        let mut detail = format!("Phase {} of {}: {purpose}.", self.next + 1, plan.phases.len());
        if let Some(place) = self.place {
            let _ = write!(detail, " {} rows have their value.", place.rows);
        }
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail)
    }
}

fn builds(plan: &Plan) -> Vec<(u32, String)> {
    let built = |phase: &Phase| match &phase.undo {
        Some(Undo::DropBuiltIndex { oid, index, .. }) => Some((*oid, index.name.clone())),
        _ => None,
    };
    plan.phases.iter().filter_map(built).collect()
}

/// The table whose row type has the record of a plan that is recorded: it has several phases, of which none is the server's own to
/// finish.
fn is_recorded<'f>(plan: &Plan, facts: &'f Facts) -> Option<&'f RelationRef> {
    let undone = plan.phases.iter().any(|phase| phase.undo.is_some());
    let detaches = plan.phases.iter().any(|phase| phase.kind == PhaseKind::Detach);
    table_of(facts).filter(|_| plan.phases.len() > 1 && undone && !detaches).map(|table| &table.id)
}

/// The table that a statement's record is about: the first that it names.
pub fn table_of(facts: &Facts) -> Option<&RelationFacts> {
    let mut found = facts.relations.iter().filter_map(|asked| asked.found.as_ref());
    found.find(|table| matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable))
}

/// FNV-1a of all that a plan does: the same in every build, and no secret.
fn fingerprint(plan: &Plan) -> String {
    let json = serde_json::to_string(plan).unwrap_or_default();
    let hash = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3) //
    });
    format!("{hash:016x}")
}

impl RecordWriter {
    /// The comment as it is to be now; none if all is done.
    fn text(&self) -> Option<String> {
        if self.record.next >= self.phases { None } else { self.record.to_text() }
    }

    pub(super) fn job(&self) -> RecordKey {
        RecordKey { statement: self.record.statement.clone(), table: self.oid, id: self.record.job.clone() }
    }
}

fn comment_sql(table: &RelationName, text: Option<&str>) -> String {
    let text = text.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON TYPE {} IS {text}", table.quoted())
}

/// Tries to take the lock of who works on a table's record (`t` or `f`), or gives it back.
fn lock_sql(function: &str, oid: u32) -> String {
    format!("SELECT pg_catalog.{function}({JOB_CLASS}, {})", lanes::signed(oid))
}

impl Run<'_> {
    /// Before the first phase: the lock, and that nothing else is on record.
    pub(super) async fn begin_record(&mut self, plan: &Plan) -> Result<(), RunError> {
        let Some(table) = is_recorded(plan, self.facts) else { return Ok(()) };
        if self.config.ddl.record_interval.is_zero() || !self.state.notes_created {
            return Ok(());
        }
        let (oid, table) = (table.oid, table.full_name());
        let (locked, found) = self.look_at_record(oid, true).await?;
        if !locked {
            return Ok(());
        }
        // Whatever ends it from here on, the lock is given back.
        self.state.unrecorded = Some(oid);
        let id = RandomState::new().hash_one(self.facts.session.backend_pid);
        let writer = match found.filter(|found| found.may && found.trusted) {
            Some(found) if self.may_overwrite(found.text.as_deref()).await? => {
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
                    facts: self.facts.clone(),
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
            return self.end_record().await;
        };
        let text = writer.text();
        self.state.record = Some(writer);
        self.state.unrecorded = None;
        // What a transaction begins is recorded in it.
        if plan.phases.first().is_some_and(|phase| !phase.in_transaction)
            && self.write_record(text.as_deref()).await?
            && let Some(writer) = &mut self.state.record
        {
            writer.written = true;
        }
        Ok(())
    }

    /// A record that is there, whose lock this session has, is kept from now on.
    pub fn resume(&mut self, record: Record, plan: &Plan, table: &RelationRef, quiet: bool) {
        self.state.notes_created = true;
        self.state.created.clone_from(&record.things);
        self.state.built.clone_from(&record.built);
        let quoted = |name: &String| if name.is_empty() { String::new() } else { quote_identifier(name) };
        self.learned_names = record.learned.iter().map(quoted).collect();
        let (phases, at) = (plan.phases.len(), Instant::now());
        let (table, oid) = (table.full_name(), table.oid);
        self.state.record =
            Some(RecordWriter { record, table, oid, quiet, phases, under_way: None, written: true, at });
    }

    /// The first phase that is not done.
    pub(super) fn first_phase(&self) -> usize {
        self.state.record.as_ref().map_or(0, |writer| writer.record.next)
    }

    /// Where the backfill of a dead session had come to.
    pub(super) fn recorded_place(&self) -> Option<Place> {
        self.state.record.as_ref().and_then(|writer| writer.record.place)
    }

    pub(super) fn record_key(&self) -> Option<RecordKey> {
        self.state.record.as_ref().filter(|writer| writer.written).map(RecordWriter::job)
    }

    /// Whether the end of this phase's transaction is to be recorded in it.
    pub(super) fn records(&self, phase: &Phase) -> bool {
        phase.in_transaction && self.state.record.as_ref().is_some_and(|writer| writer.under_way.is_some())
    }

    /// The plan's phase that begins; none: what follows is no part of it.
    pub(super) fn under_way(&mut self, phase: Option<usize>) {
        if let Some(writer) = &mut self.state.record {
            writer.under_way = phase;
        }
    }

    /// A phase is done; what it has made is known.
    fn advance(&mut self) {
        let memory = &mut self.state;
        if let Some((writer, at)) = memory.record.as_mut().and_then(|writer| writer.under_way.map(|at| (writer, at))) {
            writer.record.next = at + 1;
            writer.record.place = None;
            writer.record.things.clone_from(&memory.created);
            writer.record.built.clone_from(&memory.built);
            writer.record.learned = self.learned_names.iter().map(|name| unquoted(name)).collect();
        }
    }

    /// The record, then COMMIT, behind the steps of a phase that have gone well. What is wrong with the record alone does
    /// no harm to the phase; but where one is in the database already, which would be behind, its lock is waited for as the
    /// phase's own.
    pub(super) async fn commit_recorded(&mut self) -> Result<Answer, BackendLost> {
        self.advance();
        let Some(writer) = &mut self.state.record else { return self.channel.ask_one("COMMIT", &[]).await };
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
        let answer = self.channel.ask(batch, None).await?;
        match &answer.error {
            None => {
                if let Some(writer) = &mut self.state.record {
                    writer.written = stays;
                }
                Ok(answer)
            }
            Some(error) if was_written && is_lock_failure(error) => Ok(answer),
            Some(error) if answer.done < before_commit && error.sqlstate() != sqlstate::QUERY_CANCELED => {
                tracing::warn!(sqlstate = error.sqlstate(), "how far a schema change is could not be recorded");
                // One that is there is to be written later, or removed in the end.
                if !was_written {
                    self.state.unrecorded = self.state.record.take().map(|writer| writer.oid);
                }
                let mut batch = Batch::new();
                batch.statement("ROLLBACK TO SAVEPOINT pgsluice", &[]);
                batch.statement("COMMIT", &[]);
                self.channel.ask(batch, None).await
            }
            Some(_) => Ok(answer),
        }
    }

    /// A phase is done that was not one transaction.
    pub(super) async fn record_phase(&mut self) -> Result<(), RunError> {
        self.advance();
        match self.state.record.as_ref().and_then(RecordWriter::text) {
            Some(text) => self.write_record(Some(&text)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// How far the backfill is, if that is due.
    pub(super) async fn record_place(&mut self, place: impl FnOnce() -> Option<Place>) -> Result<(), RunError> {
        let interval = self.config.ddl.record_interval;
        let Some(writer) = self.state.record.as_mut().filter(|writer| writer.at.elapsed() >= interval) else {
            return Ok(());
        };
        writer.at = Instant::now();
        let Some(place) = place().filter(|place| writer.record.place != Some(*place)) else { return Ok(()) };
        writer.record.place = Some(place);
        match writer.text() {
            Some(text) => self.write_record(Some(&text)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// In a transaction of its own. False: not now.
    async fn write_record(&mut self, text: Option<&str>) -> Result<bool, RunError> {
        let Some(writer) = &self.state.record else { return Ok(false) };
        let (oid, quiet) = (writer.oid, writer.quiet);
        self.write_record_of(oid, quiet, text).await
    }

    async fn write_record_of(&mut self, oid: u32, quiet: bool, text: Option<&str>) -> Result<bool, RunError> {
        // With the table its record is gone.
        let Some((_, table)) = self.names_now(&[oid]).await?.pop() else { return Ok(true) };
        let mut batch = Batch::new();
        batch.statement("BEGIN", &[]);
        batch.statement(&super::attempt::set_local("lock_timeout", PATIENCE), &[]);
        if quiet {
            batch.statement("SET LOCAL session_replication_role = replica", &[]);
        }
        let assertion = crate::plan::Step::assertion(&identity::is_called(&table, oid), "");
        batch.statement(&assertion.sql, &[]);
        batch.statement(&comment_sql(&table, text), &[]);
        batch.statement("COMMIT", &[]);
        let Some(error) = self.channel.ask(batch, None).await?.error else { return Ok(true) };
        self.channel.ask_one("ROLLBACK", &[]).await?;
        if error.sqlstate() == sqlstate::QUERY_CANCELED && text.is_some() {
            self.cancelled_by(Some(error))?;
        } else {
            tracing::debug!(sqlstate = error.sqlstate(), "a record could not be written just now");
        }
        Ok(false)
    }

    /// The plan has come to its end, or to nothing: no record is left, and its lock is given back.
    pub(super) async fn end_record(&mut self) -> Result<(), RunError> {
        let unrecorded = self.state.unrecorded.take();
        let writer = self.state.record.take();
        let Some(oid) = writer.as_ref().map(|writer| writer.oid).or(unrecorded) else { return Ok(()) };
        if let Some(writer) = writer.filter(|writer| writer.written) {
            self.forget(writer.oid, writer.quiet).await?;
        }
        self.release_record(oid).await
    }

    async fn forget(&mut self, oid: u32, quiet: bool) -> Result<(), RunError> {
        for _ in 0..TRIES {
            self.channel.cancel_settled().await;
            if self.write_record_of(oid, quiet, None).await? {
                return Ok(());
            }
        }
        tracing::warn!(
            oid,
            "the record of a schema change that is over could not be removed: COMMENT ON TYPE … IS NULL does it"
        );
        Ok(())
    }

    pub async fn release_record(&mut self, oid: u32) -> Result<(), RunError> {
        self.surely(&lock_sql("pg_advisory_unlock", oid), &[]).await.map(|_| ())
    }

    /// What is on record of a table; with `lock`, its lock if nobody has it.
    async fn look_at_record(&mut self, oid: u32, lock: bool) -> Result<(bool, Option<RecordRow>), RunError> {
        let mut batch = Batch::new();
        if lock {
            batch.statement(&lock_sql("pg_try_advisory_lock", oid), &[]);
        }
        let question = question(self.facts.session.server_version);
        self.channel.put_question(&mut batch, &question, &[&oid.to_string()]);
        let Answer { rows, error, .. } = self.channel.ask(batch, None).await?;
        let mut values = rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default());
        let locked = lock && values.next().is_some_and(|value| value == "t");
        if let Some(error) = error {
            if locked {
                self.release_record(oid).await?;
            }
            if error.sqlstate() == sqlstate::QUERY_CANCELED {
                self.cancelled_by(Some(error))?;
            }
            return Ok((false, None));
        }
        let recorded = values.next().and_then(|json| serde_json::from_str(&self.channel.text(&json)).ok());
        Ok((locked, recorded))
    }

    /// Whether the comment may be written over: there is none, or one of a change of which nothing is left.
    async fn may_overwrite(&mut self, text: Option<&str>) -> Result<bool, RunError> {
        let Some(text) = text else { return Ok(true) };
        let Some(record) = Record::from_text(text) else { return Ok(false) };
        let things = self.objects_now(&record, |_| true).await?;
        Ok(!things.contains(&true) && self.indexes_now(&record).await?.is_empty())
    }

    /// The indexes that a recorded plan has built, or is about to have built, and that are there.
    async fn indexes_now(&mut self, record: &Record) -> Result<Vec<u32>, RunError> {
        let named = record.builds.iter().map(|(table, name)| ("index", *table, name.as_str()));
        let parameters = identity::parameters(named);
        let rows = self.surely(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
        Ok(rows.iter().filter_map(|row| row.get(1)?.as_deref()?.parse().ok()).collect())
    }

    /// Whether the things that were made, of these kinds, are those of their names still.
    async fn objects_now(&mut self, record: &Record, of: impl Fn(ObjectKind) -> bool) -> Result<Vec<bool>, RunError> {
        let named = |thing: &CreatedObject| match &thing.name {
            ObjectName::Known(_) => thing.clone(),
            ObjectName::Learned(slot) => {
                let name = record.learned.get(*slot).cloned().unwrap_or_default();
                CreatedObject { name: ObjectName::Known(name), ..thing.clone() }
            }
        };
        let things: Vec<(CreatedObject, u32)> =
            record.things.iter().filter(|(thing, _)| of(thing.kind)).map(|(thing, id)| (named(thing), *id)).collect();
        if things.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = identity::parameters(things.iter().filter_map(|(thing, _)| known(thing)));
        let rows = self.surely(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
        let now = rows.iter().map(|row| row.get(1).and_then(|value| value.as_deref()?.parse::<u32>().ok()));
        Ok(now.zip(&things).map(|(now, (_, made))| now == Some(*made)).collect())
    }
}
