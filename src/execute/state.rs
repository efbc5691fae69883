//! The state of a run: the objects that its phases have made, the names that the server chose, and the record.
//!
//! This file owns all that an undo needs to know, in this session or, if this session is lost, in another. It keeps true that an object is
//! identified by its oid or its column number in the catalogue, never by its name alone.

use crate::catalog::RelationRef;
use crate::catalog::identity::{self, IDENTITY_SQL};
use crate::execute::objects::{known, made, unquoted};
use crate::execute::outcome::UndoneAfter;
use crate::execute::pending_undo::{PendingUndo, UndoItem};
use crate::execute::record::{Record, RunRecord};
use crate::pg::relation::quote_identifier;
use crate::plan::{CreatedObject, ObjectKind, ObjectName, Phase, Plan, Step, Undo};
use crate::wire::message::Batch;
use std::borrow::Cow;

/// The state of a run.
#[derive(Debug, Default)]
pub(super) struct RunState {
    /// The run notes the objects that its phases make. It does so if a phase of the plan has an undo and the client is not in a transaction
    /// block.
    notes_created: bool,
    /// The objects that the phases have made, each with its oid or column number.
    created: Vec<(CreatedObject, u32)>,
    /// The names of the constraints that steps have made, quoted, each at its slot.
    names: Vec<String>,
    /// The id of the newest transaction that was about to commit.
    transaction: Option<String>,
    /// The indexes that were built, each with the position of its phase.
    built: Vec<(usize, u32)>,
    /// The undo that another session must do.
    pending_undo: Option<PendingUndo>,
    record: RunRecord,
}

impl RunState {
    /// Returns the state of a run that continues a recorded plan.
    pub(super) fn resumed(record: Record, plan: &Plan, table: &RelationRef, quiet: bool) -> Self {
        let quoted = |name: &String| if name.is_empty() { String::new() } else { quote_identifier(name) };
        Self {
            notes_created: true,
            created: record.created().to_vec(),
            built: record.built().to_vec(),
            names: record.learned().iter().map(quoted).collect(),
            record: RunRecord::resumed(record, plan, table, quiet),
            ..Self::default()
        }
    }

    /// Whether the run notes the objects that its phases make.
    pub(super) fn notes_created(&self) -> bool {
        self.notes_created
    }

    /// Makes the run note the objects that its phases make from now on.
    pub(super) fn note_objects(&mut self) {
        self.notes_created = true;
    }

    /// Returns the names that the server chose, quoted, each at its slot.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the id of the newest transaction that was about to commit.
    pub(super) fn transaction(&self) -> Option<&String> {
        self.transaction.as_ref()
    }

    /// Forgets the id of the last transaction. It is read again from the rows that came before the backend was lost.
    pub(super) fn forget_transaction(&mut self) {
        self.transaction = None;
    }

    /// Returns the record of the plan.
    pub(super) fn record(&self) -> &RunRecord {
        &self.record
    }

    /// Returns the record of the plan, to change it.
    pub(super) fn record_mut(&mut self) -> &mut RunRecord {
        &mut self.record
    }

    /// Puts into the record that the phase under way is done. The record is not written yet.
    pub(super) fn advance_record(&mut self) {
        self.record.advance(&self.created, &self.built, &self.names);
    }

    /// Leaves an undo to another session.
    pub(super) fn set_pending_undo(&mut self, pending: PendingUndo) {
        self.pending_undo = Some(pending);
    }

    /// Whether the run has left an undo to another session.
    pub(super) fn has_pending_undo(&self) -> bool {
        self.pending_undo.is_some()
    }

    /// Takes the undo that the run has left to another session.
    pub(super) fn take_pending_undo(&mut self) -> Option<PendingUndo> {
        self.pending_undo.take()
    }

    /// Notes that a phase has built an index.
    pub(super) fn note_built(&mut self, at: usize, index: u32) {
        self.built.push((at, index));
    }

    /// Returns the columns that the plan has added to a table, with their numbers.
    pub(super) fn columns_of(&self, table: u32) -> impl Iterator<Item = (&str, u32)> {
        let columns =
            self.created.iter().filter(move |(thing, _)| thing.table == table && thing.kind == ObjectKind::Column);
        columns.filter_map(|(thing, number)| known(thing).map(|(_, _, name)| (name, *number)))
    }

    /// Returns the oid of the index that a phase has built.
    pub(super) fn built_at(&self, at: usize) -> Option<u32> {
        self.built.iter().find(|(phase, _)| *phase == at).map(|(_, oid)| *oid)
    }

    /// Keeps the names that the server chose. The answer has a row for each step that makes a constraint.
    pub(super) fn learn_names(&mut self, phase: &Phase, rows: Vec<Vec<Option<String>>>) {
        if self.notes_created {
            self.note_created(phase, &rows);
        }
        // Only these rows, and those of the identity question at the end, come from such a phase.
        let made = phase.steps.iter().filter_map(|step| step.learns);
        for (made, row) in made.zip(rows) {
            let mut values = row.into_iter();
            self.learned_at(made.slot, values.next().flatten());
            self.note_learned(made.table, made.object(), made.slot, values.next().flatten().as_deref());
        }
    }

    /// Keeps a name that the server chose, quoted. `None` means that the server made nothing.
    pub(super) fn learned_at(&mut self, slot: usize, name: Option<String>) {
        if self.names.len() <= slot {
            self.names.resize(slot + 1, String::new());
        }
        self.names[slot] = name.unwrap_or_default();
    }

    /// Returns the statements of a phase that undoes or finishes another, for people.
    pub(super) fn remedy(&self, phase: &Phase) -> String {
        let steps = phase.steps.iter().filter(|step| step.must_hold.is_none());
        steps.map(|step| step.named(&self.names)).collect::<Vec<_>>().join("; ")
    }

    /// Logs that a phase is not undone because the server has ended the session.
    pub(super) fn log_left(&self, phase: &Phase) {
        if let Some(Undo::Run(undo)) = &phase.undo {
            let remedy = self.remedy(&self.with_names(undo));
            tracing::warn!(remedy, "the session of a schema change has ended; an earlier phase is not undone");
        }
    }

    /// Returns the phase without the steps about a constraint that was not made.
    pub(super) fn with_names<'p>(&self, phase: &'p Phase) -> Cow<'p, Phase> {
        let unmade = |step: &Step| {
            let name = step.name_at.and_then(|name| self.names.get(name.slot));
            name.is_some_and(String::is_empty)
        };
        if !phase.steps.iter().any(unmade) {
            return Cow::Borrowed(phase);
        }
        let mut made = phase.clone();
        made.steps.retain(|step| !unmade(step));
        Cow::Owned(made)
    }

    /// Adds the identity question for the objects that a phase made, after its steps and before its COMMIT. The server sends the answer
    /// before the transaction commits.
    pub(super) fn put_identity_question(&self, phase: &Phase, batch: Batch) -> Batch {
        let mut batch = batch;
        let marked = self.created_by(phase);
        let parameters = identity::parameters(marked.iter().filter_map(known));
        batch.statement(IDENTITY_SQL, &parameters.each_ref().map(String::as_str));
        batch.flush()
    }

    /// Returns the objects that a phase has made and whose names are known. If there is a record, they include the defaults of new columns,
    /// because a session that continues the plan gives these defaults to old rows.
    fn created_by(&self, phase: &Phase) -> Vec<CreatedObject> {
        let mut things: Vec<CreatedObject> = made(phase).filter(|thing| known(thing).is_some()).cloned().collect();
        if self.record.is_kept() {
            let columns = things.iter().filter(|thing| thing.kind == ObjectKind::Column);
            let defaults: Vec<CreatedObject> =
                columns.map(|column| CreatedObject { kind: ObjectKind::Default, ..column.clone() }).collect();
            things.extend(defaults);
        }
        things
    }

    /// Notes the objects in the answer to the identity question, and the id of the transaction.
    pub(super) fn note_created(&mut self, phase: &Phase, rows: &[Vec<Option<String>>]) {
        let things = self.created_by(phase);
        let rows: Vec<_> = rows.iter().filter(|row| row.len() == 3).collect();
        self.transaction = rows.first().and_then(|row| row.first()?.clone());
        for (thing, row) in things.into_iter().zip(rows) {
            if let Some(identity) = row.get(1).and_then(|value| value.as_deref()?.parse().ok()) {
                self.created.push((thing, identity));
            }
        }
    }

    /// Notes the oid of a constraint whose name the server chose.
    pub(super) fn note_named(&mut self, table: u32, slot: usize, oid: Option<&str>) {
        self.note_learned(table, ObjectKind::Constraint, slot, oid);
    }

    /// Notes the oid of an object whose name the server chose.
    fn note_learned(&mut self, table: u32, kind: ObjectKind, slot: usize, oid: Option<&str>) {
        let thing = CreatedObject { table, kind, name: ObjectName::Learned(slot) };
        if let Some(oid) = oid.and_then(|oid| oid.parse().ok()) {
            self.created.push((thing, oid));
        }
    }

    /// Notes that a phase has detached a partition. The undo attaches it again.
    pub(super) fn note_detached(&mut self, phase: &Phase, partition: u32) {
        let attached = made(phase).find(|thing| thing.kind == ObjectKind::Partition);
        self.created.extend(attached.map(|thing| (thing.clone(), partition)));
    }

    /// Returns what undoes the phase at this position, in a form that another session can run. `None` means that there is nothing to undo,
    /// or that no noted object is left.
    pub(super) fn undo_item_of(&self, plan: &Plan, at: usize, done: bool) -> Option<UndoItem> {
        let phase = plan.phases.get(at)?;
        let Some(Undo::Run(undo)) = &phase.undo else {
            phase.undo.as_ref()?;
            let how = if done { UndoneAfter::Done(at) } else { UndoneAfter::Failed };
            let built = self.built_at(at);
            return Some(UndoItem::Index { phase: phase.clone(), how, built });
        };
        let mut things = Vec::new();
        let mut steps = Vec::new();
        for step in &undo.steps {
            let Some(identity) = step.about.as_ref().and_then(|about| self.identity(about)) else { continue };
            // The object gets its name here, because another session has learned none.
            let about = step.about.as_ref().map(|about| self.with_name(about));
            steps.push(Step { sql: step.named(&self.names).into_owned(), name_at: None, about, ..step.clone() });
            things.push(identity);
        }
        (!steps.is_empty()).then(|| UndoItem::Steps { undo: Phase { steps, ..(**undo).clone() }, things })
    }

    /// Returns the oid or column number of an object that the run has made.
    pub(super) fn identity(&self, thing: &CreatedObject) -> Option<u32> {
        self.created.iter().rev().find(|(made, _)| made == thing).map(|(_, identity)| *identity)
    }

    /// Returns the object with the name that the server chose for it.
    pub(super) fn with_name(&self, thing: &CreatedObject) -> CreatedObject {
        let name = match &thing.name {
            ObjectName::Known(name) => name.clone(),
            ObjectName::Learned(slot) => unquoted(self.names.get(*slot).map_or("", String::as_str)),
        };
        CreatedObject { name: ObjectName::Known(name), ..thing.clone() }
    }
}
