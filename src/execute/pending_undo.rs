//! What a plan has left whose backend is gone: remembered, and undone by another session of the same role.
//!
//! The undo would have run on that same backend. So what is to be undone is kept in memory, with what tells each thing
//! (`catalog/identity.rs`), and done before the next schema change of the same role in the same database.
//!
//! It promises: only what still is what the plan made is undone; nothing is if the last phase has committed, whatever the
//! client heard of it; where that cannot be told, nothing is undone, and the log says what may be left.
//!
//! Limits: a proxy that ends forgets. An index whose build was lost is told by its table, its name and that it is
//! invalid: the server tells an oid only when a build is over.

use super::record::{RecordKey, RecordWriter, TakeRecordOutcome};
use super::{AttemptOutcome, Reply, Run, RunError, UndoneAfter};
use crate::backend::BackendLost;
use crate::catalog::identity::{self, IDENTITY_SQL, INDEX_SQL, TRANSACTION_SQL, VALID_SQL};
use crate::execute::wait::AttemptMode;
use crate::lanes;
use crate::pg::sqlstate;
use crate::plan::{CreatedObject, Detach, ObjectKind, ObjectName, Phase, PhaseKind, Plan, Step, Undo};
use crate::report::Report;
use crate::wire::message::Batch;
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the next schema change may be kept waiting for this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of one role in one database: as many statements must have lost their backends one after another.
const MOST: usize = 64;

/// What is known of a plan under way, for the case that its backend is lost.
#[derive(Debug, Default)]
pub struct RunState {
    /// There is something to remember: the plan has several phases, and is not in a transaction of the client's.
    pub(super) notes_created: bool,
    /// What the phases have made, each with what tells it.
    pub(super) created: Vec<(CreatedObject, u32)>,
    /// The id of the newest transaction that was about to commit.
    transaction: Option<String>,
    /// Indexes that were built, with their phases.
    pub(super) built: Vec<(usize, u32)>,
    /// What is to be undone by another session.
    pub pending_undo: Option<PendingUndo>,
    /// How far the plan is, on record.
    pub(super) record: Option<RecordWriter>,
    /// The table whose record's lock is held without one.
    pub(super) unrecorded: Option<u32>,
}

impl RunState {
    /// The columns that the plan has added to a table, with their numbers.
    pub(super) fn columns_of(&self, table: u32) -> impl Iterator<Item = (&str, u32)> {
        let columns =
            self.created.iter().filter(move |(thing, _)| thing.table == table && thing.kind == ObjectKind::Column);
        columns.filter_map(|(thing, number)| known(thing).map(|(_, _, name)| (name, *number)))
    }

    /// The oid of the index that a phase has built.
    pub(super) fn built_at(&self, at: usize) -> Option<u32> {
        self.built.iter().find(|(phase, _)| *phase == at).map(|(_, oid)| *oid)
    }
}

/// What one statement has left.
#[derive(Debug)]
pub struct PendingUndo {
    tag: String,
    reason: PendingReason,
    completed: Completed,
    /// In the order in which it is undone.
    items: Vec<UndoItem>,
    /// It is on record too: the same statement continues it.
    pub job: Option<RecordKey>,
}

/// Why it is there.
#[derive(Debug, Clone, Copy)]
enum PendingReason {
    Lost,
    /// Somebody was in the way when the statement had failed.
    Blocked,
}

/// Whether the plan came to its end all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Completed {
    No,
    /// If this transaction has committed.
    Transaction(String),
    /// If this constraint is valid.
    Valid(u32),
}

#[derive(Debug)]
enum UndoItem {
    /// Steps that undo, each with what tells the thing that it drops.
    Steps { undo: Phase, things: Vec<u32> },
    /// The phase of a build or a drop.
    Index { phase: Phase, how: UndoneAfter, built: Option<u32> },
}

/// How an attempt to undo ended.
#[derive(Debug)]
pub enum UndoResult {
    /// Nothing was left, or the plan had come to its end, or it cannot be undone any more, which is told.
    Nothing,
    /// What was done.
    Undone(Vec<String>),
    /// Not now.
    Later,
}

/// How it ended for one phase.
enum UndoAttempt {
    Done,
    /// Nor will it ever be done; why.
    Refused(String),
    NotNow,
}

/// By database and role.
#[derive(Debug, Default)]
pub struct PendingUndos(Mutex<HashMap<(String, String), VecDeque<PendingUndo>>>);

impl PendingUndos {
    pub fn keep(&self, database: &str, role: &str, pending: PendingUndo) {
        let Ok(mut kept) = self.0.lock() else { return };
        let of_role = kept.entry((database.to_owned(), role.to_owned())).or_default();
        if of_role.len() < MOST {
            of_role.push_back(pending);
        } else {
            tracing::warn!(remedy = pending.remedy(), "too much is left to be undone; this has to be done by hand");
        }
    }

    pub fn has_any(&self, database: &str, role: &str) -> bool {
        let key = (database.to_owned(), role.to_owned());
        self.0.lock().is_ok_and(|kept| kept.contains_key(&key))
    }

    pub fn take(&self, database: &str, role: &str) -> Option<PendingUndo> {
        let mut kept = self.0.lock().ok()?;
        let key = (database.to_owned(), role.to_owned());
        let of_role = kept.get_mut(&key)?;
        let first = of_role.pop_front();
        if of_role.is_empty() {
            kept.remove(&key);
        }
        first
    }
}

impl PendingUndo {
    /// The statements that undo it, for people.
    pub fn remedy(&self) -> String {
        let words: Vec<String> = self.items.iter().flat_map(UndoItem::words).collect();
        words.join("; ")
    }

    /// What was done about it.
    pub fn report(&self, done: &[String]) -> Report {
        let message = match self.reason {
            PendingReason::Lost => format!("undid what {} had begun before its session was lost", self.tag),
            PendingReason::Blocked => format!("undid what {} had begun before it failed", self.tag),
        };
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(format!("Done: {}.", done.join("; ")))
    }
}

impl UndoItem {
    fn words(&self) -> Vec<String> {
        match self {
            Self::Steps { undo, .. } => undo.steps.iter().map(|step| step.sql.clone()).collect(),
            Self::Index { phase, .. } => match &phase.undo {
                Some(Undo::DropBuiltIndex { index, .. } | Undo::FinishDrop { index, .. }) => {
                    vec![format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.quoted())]
                }
                Some(Undo::DropInvalidIndexes { table, .. }) => vec![format!("-- drop the invalid indexes of {table}")],
                Some(Undo::Run(_)) | None => Vec::new(),
            },
        }
    }
}

fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Column => "column",
        ObjectKind::Default => "default",
        ObjectKind::Constraint => "constraint",
        ObjectKind::Partition => "partition",
    }
}

/// A thing as [`IDENTITY_SQL`] asks for it; what the server named is learned otherwise.
pub(super) fn known(thing: &CreatedObject) -> Option<(&str, u32, &str)> {
    match &thing.name {
        ObjectName::Known(name) => Some((kind(thing.kind), thing.table, name)),
        ObjectName::Learned(_) => None,
    }
}

/// What undoing a phase would drop.
pub(super) fn made(phase: &Phase) -> impl Iterator<Item = &CreatedObject> {
    let steps = match &phase.undo {
        Some(Undo::Run(undo)) => undo.steps.as_slice(),
        _ => &[],
    };
    steps.iter().filter_map(|step| step.about.as_ref())
}

impl Run<'_> {
    /// Asks, behind a phase's steps and before its COMMIT, for what tells the things that it made. The answer is on its way
    /// before the transaction commits.
    pub(super) fn put_identity_question(&self, phase: &Phase, batch: Batch) -> Batch {
        let mut batch = batch;
        let marked = self.created_by(phase);
        let parameters = identity::parameters(marked.iter().filter_map(known));
        batch.statement(IDENTITY_SQL, &parameters.each_ref().map(String::as_str));
        batch.flush()
    }

    /// What a phase has made, and a name tells for the moment. What is on record has the defaults of new columns too: whoever
    /// continues it gives them to old rows.
    fn created_by(&self, phase: &Phase) -> Vec<CreatedObject> {
        let mut things: Vec<CreatedObject> = made(phase).filter(|thing| known(thing).is_some()).cloned().collect();
        if self.state.record.is_some() {
            let columns = things.iter().filter(|thing| thing.kind == ObjectKind::Column);
            let defaults: Vec<CreatedObject> =
                columns.map(|column| CreatedObject { kind: ObjectKind::Default, ..column.clone() }).collect();
            things.extend(defaults);
        }
        things
    }

    /// Reads that answer.
    pub(super) fn note_created(&mut self, phase: &Phase, rows: &[Vec<Option<String>>]) {
        let things = self.created_by(phase);
        let rows: Vec<_> = rows.iter().filter(|row| row.len() == 3).collect();
        self.state.transaction = rows.first().and_then(|row| row.first()?.clone());
        for (thing, row) in things.into_iter().zip(rows) {
            if let Some(identity) = row.get(1).and_then(|value| value.as_deref()?.parse().ok()) {
                self.state.created.push((thing, identity));
            }
        }
    }

    /// The oid of a constraint that has got its name from the server.
    pub(super) fn note_named(&mut self, table: u32, slot: usize, oid: Option<&str>) {
        let thing = CreatedObject { table, kind: ObjectKind::Constraint, name: ObjectName::Learned(slot) };
        if let Some(oid) = oid.and_then(|oid| oid.parse().ok()) {
            self.state.created.push((thing, oid));
        }
    }

    /// A phase has detached a partition; the undo is to attach it.
    pub(super) fn note_detached(&mut self, phase: &Phase, partition: u32) {
        let attached = made(phase).find(|thing| thing.kind == ObjectKind::Partition);
        self.state.created.extend(attached.map(|thing| (thing.clone(), partition)));
    }

    /// Asks for the oid of an index that a phase has built, and that may have to be dropped.
    pub(super) async fn note_built(&mut self, at: usize, phase: &Phase) -> Result<(), BackendLost> {
        let Some(Undo::DropBuiltIndex { oid, index, .. }) = &phase.undo else { return Ok(()) };
        let parameters = identity::parameters(std::iter::once(("index", *oid, index.name.as_str())));
        let answer = self.channel.ask_one(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
        if let Some(oid) = answer.rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok()) {
            self.state.built.push((at, oid));
        }
        Ok(())
    }

    /// The backend is gone. `stopped`: the phase that was under way, or the last that was not undone yet.
    pub(super) fn keep_pending_undo(&mut self, plan: &Plan, stopped: usize, undoing: bool) {
        let Some(under_way) = plan.phases.get(stopped) else { return };
        if let Some(detach) = under_way.detach.as_ref().filter(|_| !undoing) {
            self.log_half_way(detach);
        }
        if !self.state.notes_created {
            return;
        }
        if !undoing && under_way.in_transaction && matches!(under_way.kind, PhaseKind::Brief | PhaseKind::Guarded) {
            self.state.transaction = None;
            let rows = self.channel.take_rows_before_loss();
            self.learn_names(under_way, rows);
        }
        let left: Vec<UndoItem> =
            (0..=stopped).rev().filter_map(|at| self.undo_item_of(plan, at, at < stopped || undoing)).collect();
        let completed = match stopped + 1 == plan.phases.len() && !undoing {
            true => self.completed(under_way),
            false => Some(Completed::No),
        };
        // What nothing tells apart from another of its name is left to people.
        let known_things = |phase: &Phase| made(phase).any(|thing| self.identity(thing).is_some());
        for phase in plan.phases[..stopped].iter().filter(|phase| !known_things(phase)) {
            self.log_left(phase);
        }
        if left.is_empty() {
            return;
        }
        let known = completed.is_some();
        let completed = completed.unwrap_or(Completed::No);
        let pending = PendingUndo {
            tag: plan.tag.clone(),
            reason: PendingReason::Lost,
            completed,
            items: left,
            job: self.record_key(),
        };
        let remedy = pending.remedy();
        if known {
            tracing::warn!(
                remedy,
                "the session of a schema change has ended; what it had begun is undone before the next one of its role"
            );
            self.state.pending_undo = Some(pending);
        } else {
            tracing::warn!(
                remedy,
                "the session of a schema change has ended, perhaps at its very end: look, and undo by hand what it has not finished"
            );
        }
    }

    /// Whoever is in the way now will not always be: what the phases up to this one have made is undone before the next schema
    /// change of the role. False: nothing tells these things from others of their names.
    pub(super) async fn leave_for_later(&mut self, plan: &Plan, at: usize, reason: &str) -> bool {
        let left: Vec<UndoItem> = (0..=at).rev().filter_map(|at| self.undo_item_of(plan, at, true)).collect();
        if !self.state.notes_created || left.is_empty() {
            return false;
        }
        let (tag, completed) = (plan.tag.clone(), Completed::No);
        // Whoever finds it there meanwhile is not to take it for done: the record says so.
        let job = self.state.record.as_ref().map(RecordWriter::job);
        let job = if matches!(self.keep_to_be_undone().await, Ok(true)) { job } else { None };
        let pending = PendingUndo { tag, reason: PendingReason::Blocked, completed, items: left, job };
        let remedy = pending.remedy();
        tracing::warn!(reason, remedy, "what a schema change had begun is undone before the next one of its role");
        let message = format!("what this statement had begun could not be brought back yet: {reason}");
        let report = Report::warning(sqlstate::WARNING, message)
            .detail("It is undone before the next schema change of this role in this database, if that is not in a transaction block.")
            .hint(format!("Or do it by hand: {remedy}"));
        self.notify(&report);
        self.state.pending_undo = Some(pending);
        true
    }

    /// Nobody finishes that for another session: only its author knows whether the partition is still to go.
    fn log_half_way(&self, detach: &Detach) {
        let remedy: Vec<&str> = detach.finish.steps.iter().map(|step| step.sql.as_str()).collect();
        tracing::warn!(
            partition = %detach.partition.full_name(),
            remedy = remedy.join("; "),
            "the session of a schema change has ended while it detached a partition, which may be half detached: no new query of \
             its table sees it then, and rows for it are refused"
        );
    }

    fn undo_item_of(&self, plan: &Plan, at: usize, done: bool) -> Option<UndoItem> {
        let phase = plan.phases.get(at)?;
        let Some(Undo::Run(undo)) = &phase.undo else {
            phase.undo.as_ref()?;
            let how = if done { UndoneAfter::Done(at) } else { UndoneAfter::Failed };
            let built = self.state.built_at(at);
            return Some(UndoItem::Index { phase: phase.clone(), how, built });
        };
        let mut things = Vec::new();
        let mut steps = Vec::new();
        for step in &undo.steps {
            let Some(identity) = step.about.as_ref().and_then(|about| self.identity(about)) else { continue };
            // By its name, as another session has learned none.
            let about = step.about.as_ref().map(|about| self.with_name(about));
            steps.push(Step {
                sql: step.named(&self.learned_names).into_owned(),
                name_at: None,
                about,
                ..step.clone()
            });
            things.push(identity);
        }
        (!steps.is_empty()).then(|| UndoItem::Steps { undo: Phase { steps, ..(**undo).clone() }, things })
    }

    pub(super) fn identity(&self, thing: &CreatedObject) -> Option<u32> {
        self.state.created.iter().rev().find(|(made, _)| made == thing).map(|(_, identity)| *identity)
    }

    pub(super) fn with_name(&self, thing: &CreatedObject) -> CreatedObject {
        let name = match &thing.name {
            ObjectName::Known(name) => name.clone(),
            ObjectName::Learned(slot) => unquoted(self.learned_names.get(*slot).map_or("", String::as_str)),
        };
        CreatedObject { name: ObjectName::Known(name), ..thing.clone() }
    }

    /// Whether the last phase may have committed; `None`: it cannot be told.
    fn completed(&self, last: &Phase) -> Option<Completed> {
        match last.kind {
            PhaseKind::Brief | PhaseKind::Guarded if last.in_transaction => match &self.state.transaction {
                Some(id) => Some(Completed::Transaction(id.clone())),
                // The server has said that it ends the session, and not that it was about to commit.
                None => self.channel.server_has_ended().then_some(Completed::No),
            },
            PhaseKind::Long => match last.steps.last().and_then(|step| step.about.as_ref()) {
                Some(validated) => self.identity(validated).map(Completed::Valid),
                // A build: what is valid is not touched.
                None => Some(Completed::No),
            },
            PhaseKind::Backfill => Some(Completed::No),
            PhaseKind::Brief | PhaseKind::Guarded | PhaseKind::Relay | PhaseKind::Detach => None,
        }
    }

    /// Undoes what another session has left.
    ///
    /// # Errors
    /// This session's statement is cancelled, or its backend is gone too.
    pub async fn undo_pending(&mut self, pending: &PendingUndo) -> Result<UndoResult, RunError> {
        let Some(job) = &pending.job else { return self.undo_items(pending).await };
        match self.take_own_record(job).await? {
            TakeRecordOutcome::Gone => Ok(UndoResult::Nothing),
            TakeRecordOutcome::Busy => Ok(UndoResult::Later),
            TakeRecordOutcome::Ours { quiet } => {
                let cleared = self.undo_items(pending).await;
                let undone = matches!(cleared, Ok(UndoResult::Undone(_) | UndoResult::Nothing));
                if !matches!(cleared, Err(RunError::Lost)) {
                    self.end_own_record(job, quiet, undone).await?;
                }
                cleared
            }
        }
    }

    async fn undo_items(&mut self, pending: &PendingUndo) -> Result<UndoResult, RunError> {
        match self.has_completed(&pending.completed).await? {
            Some(true) => return Ok(UndoResult::Nothing),
            Some(false) => {}
            None => return Ok(UndoResult::Later),
        }
        let mut done = Vec::new();
        for left in &pending.items {
            let undone = match left {
                UndoItem::Steps { undo, things } => self.undo_steps(undo, things).await?,
                UndoItem::Index { phase, how, built } => Some(self.drop_built_index(phase, *how, *built).await?),
            };
            match undone {
                Some(words) => done.extend(words),
                None => return Ok(UndoResult::Later),
            }
        }
        Ok(if done.is_empty() { UndoResult::Nothing } else { UndoResult::Undone(done) })
    }

    /// `None`: that is not decided yet.
    async fn has_completed(&mut self, completed: &Completed) -> Result<Option<bool>, RunError> {
        let (sql, parameter) = match completed {
            Completed::No => return Ok(Some(false)),
            Completed::Transaction(id) => (TRANSACTION_SQL, id.clone()),
            Completed::Valid(constraint) => (VALID_SQL, constraint.to_string()),
        };
        let answer = self.channel.ask_one(sql, &[&parameter]).await?;
        Ok(match answer.value() {
            Some("committed" | "t") => Some(true),
            Some("in progress") => None,
            // Of a transaction of so long ago nothing is known: whatever it left has been lived with.
            None if matches!(completed, Completed::Transaction(_)) => Some(true),
            _ => Some(false),
        })
    }

    /// `None`: not now.
    async fn undo_steps(&mut self, undo: &Phase, things: &[u32]) -> Result<Option<Vec<String>>, RunError> {
        let asked = undo.steps.iter().filter_map(|step| step.about.as_ref().and_then(known));
        let parameters = identity::parameters(asked);
        let answer = self.channel.ask_one(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
        let now = answer.rows.iter().map(|row| row.get(1).and_then(|value| value.as_deref()?.parse::<u32>().ok()));
        let still: Vec<_> =
            undo.steps.iter().zip(things).zip(now).filter(|((_, made), now)| Some(**made) == *now).collect();
        let is_attach = |step: &Step| step.about.as_ref().is_some_and(|about| about.kind == ObjectKind::Partition);
        // Without the CHECK that proves its bounds, attaching a partition again would read every row of it.
        if still.len() < undo.steps.len() && undo.steps.iter().any(is_attach) {
            return Ok(Some(Vec::new()));
        }
        let (mut steps, mut words) = (Vec::new(), Vec::new());
        for ((step, made), _) in still {
            let Some((kind, oid, name)) = step.about.as_ref().and_then(known) else { continue };
            let Some(table) = undo.locks.iter().find(|lock| lock.oid == oid) else { continue };
            // Once more when the table is locked: then nobody changes it any more.
            let condition = identity::still(kind, &table.relation, oid, name, *made);
            steps.push(Step::assertion(&condition, "what was to be undone has been changed meanwhile"));
            steps.push(step.clone());
            words.push(step.sql.clone());
        }
        if steps.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let phase = Phase { steps, ..undo.clone() };
        Ok(match self.run_undo(&phase).await? {
            UndoAttempt::Done => Some(words),
            UndoAttempt::Refused(reason) => {
                self.warn_left(undo, &reason);
                Some(Vec::new())
            }
            UndoAttempt::NotNow => None,
        })
    }

    async fn run_undo(&mut self, phase: &Phase) -> Result<UndoAttempt, RunError> {
        let begun = Instant::now();
        let mut phase = Cow::Borrowed(phase);
        loop {
            match self.attempt(&phase, AttemptMode::Poll, &mut Reply::default()).await? {
                AttemptOutcome::Done => return Ok(UndoAttempt::Done),
                AttemptOutcome::Locked => {}
                AttemptOutcome::Slow => phase.to_mut().kind = PhaseKind::Guarded,
                AttemptOutcome::Failed(RunError::Server(error)) if error.sqlstate() == sqlstate::QUERY_CANCELED => {
                    return Err(RunError::Server(error));
                }
                AttemptOutcome::Failed(RunError::Server(error)) if is_for_good(error.sqlstate()) => {
                    return Ok(UndoAttempt::Refused(RunError::Server(error).reason()));
                }
                AttemptOutcome::Unlockable | AttemptOutcome::Failed(_) => return Ok(UndoAttempt::NotNow),
            }
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            if begun.elapsed() >= PATIENCE {
                return Ok(UndoAttempt::NotNow);
            }
            let nap = lanes::nap_sql(self.config.locks.poll, "waiting to undo what a lost session has left");
            self.channel.ask_one(&nap, &[]).await?;
        }
    }

    async fn drop_built_index(
        &mut self,
        phase: &Phase,
        how: UndoneAfter,
        built: Option<u32>,
    ) -> Result<Vec<String>, RunError> {
        let named = match &phase.undo {
            Some(Undo::DropBuiltIndex { oid, index, .. }) => Some((oid, index)),
            _ => None,
        };
        let mut leftovers = match built.filter(|_| how != UndoneAfter::Failed).zip(named) {
            Some((oid, (table, _))) => self.names(INDEX_SQL, &[&oid.to_string(), &table.to_string()]).await?,
            None => self.leftover_indexes(phase, UndoneAfter::Failed).await?,
        };
        leftovers.retain(|index| built.is_some() || named.is_none_or(|(_, named)| named == index));
        for index in &leftovers {
            self.drop_leftover(index).await?;
        }
        Ok(leftovers.iter().map(|index| format!("DROP INDEX {}", index.quoted())).collect())
    }
}

/// What the schema or the rows have become meanwhile is in the way: it would be tried again and again.
fn is_for_good(sqlstate: &str) -> bool {
    sqlstate.starts_with("42") || sqlstate.starts_with("23")
}

/// What `quote_ident` gave.
pub(super) fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}
