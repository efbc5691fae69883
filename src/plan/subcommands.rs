//! The phases of an ALTER TABLE, put together from the steps of its subcommands.
//!
//! [`super::alter_table`] reads the subcommands one by one. [`super::new_column`], [`super::constraint`] and [`super::replace`] add the
//! steps of each to a [`Subcommands`]. It owns the steps, and puts them into phases at the end:
//!
//! 1. *First* (brief): new columns, and their defaults for new rows.
//! 2. *Backfill*: old rows get the values that new rows get, all columns in one pass.
//! 3. *Then* (brief; one with the first if nothing is filled): constraints that hold for new rows from now on.
//! 4. *Checks* (long): old rows obey them too.
//! 5. *Builds* (long): indexes of keys.
//! 6. *Last* (brief): the other subcommands as they are written. Proved columns become NOT NULL, built indexes become keys, and the proxy's
//!    own CHECKs and sequences are dropped.
//!
//! Invariant: each phase but the last one can be taken back.

use super::context::PlanContext;
use super::locks;
use super::model::{Backfill, Filled, NewConstraint, Phase, PhaseKind, Plan, Step, Undo};
use super::purpose;
use super::replaced::Replaced;
use crate::catalog::RelationFacts;
use crate::pg::relation::quote_identifier;
use crate::report::Report;
use crate::sql::NewColumn;
use crate::sql::form::Form;

/// Steps that only add, and the steps that take them back.
#[derive(Default)]
struct Added {
    /// The purposes, for people.
    purposes: Vec<&'static str>,
    steps: Vec<Step>,
    /// The steps that take the others back, in the order of those. They run from the last to the first.
    back: Vec<Step>,
}

impl Added {
    fn add(
        &mut self,
        purpose: &'static str,
        steps: impl IntoIterator<Item = Step>,
        back: impl IntoIterator<Item = Step>,
    ) {
        self.purposes.push(purpose);
        self.steps.extend(steps);
        self.back.extend(back);
    }

    fn append(&mut self, other: Self) {
        self.purposes.extend(other.purposes);
        self.steps.extend(other.steps);
        self.back.extend(other.back);
    }
}

/// The proofs that columns are not null, for another file's plan.
pub(super) struct Proofs {
    pub(super) phases: Vec<Phase>,
    pub(super) after: Vec<Step>,
    pub(super) meanwhile: Vec<&'static str>,
}

/// The phases of an ALTER TABLE, as far as its subcommands have asked for them.
pub(super) struct Subcommands<'a> {
    context: &'a PlanContext<'a>,
    table: &'a RelationFacts,
    /// `ALTER TABLE … `
    alter: String,
    notes: Vec<Report>,
    /// If set, the statement is answered without any phase.
    answer: Option<Vec<Report>>,
    /// New columns, and whether each is NOT NULL, or about to be.
    columns: Vec<(String, bool)>,
    /// The steps that add before old rows are filled.
    first: Added,
    /// Columns whose old rows are filled.
    filled: Vec<Filled>,
    /// The steps that add once old rows are filled.
    then: Added,
    /// Checks of old rows.
    checks: Vec<Step>,
    /// Builds of indexes.
    builds: Vec<Phase>,
    /// Subcommands of the last phase, which become one ALTER TABLE.
    last: Vec<String>,
    /// Steps of the last phase that make an index a key.
    made_keys: Vec<Step>,
    /// The steps at the very end.
    after: Vec<Step>,
    /// The names and columns of new keys.
    keys: Vec<(String, Vec<String>)>,
    /// The names of new sequences.
    sequences: Vec<String>,
    /// Columns that become NOT NULL.
    proved: Vec<String>,
    replaced: Vec<Replaced>,
    /// Nothing is added, so the checks alone are worth a plan.
    only_checks: bool,
    /// The states that other sessions can see between the phases.
    meanwhile: Vec<&'static str>,
    /// Why there is a last phase, for people.
    last_purposes: Vec<&'static str>,
    /// How many names the server will choose.
    learned: usize,
}

impl<'a> Subcommands<'a> {
    /// `replaced`: the constraints that the statement drops, and makes anew under their names.
    pub(super) fn new(context: &'a PlanContext<'a>, table: &'a RelationFacts, replaced: Vec<Replaced>) -> Self {
        let only = if context.ddl.only { "ONLY " } else { "" };
        Self {
            context,
            table,
            alter: format!("ALTER TABLE {only}{} ", table.id.full_name().quoted()),
            notes: Vec::new(),
            answer: None,
            columns: Vec::new(),
            first: Added::default(),
            filled: Vec::new(),
            then: Added::default(),
            checks: Vec::new(),
            builds: Vec::new(),
            last: Vec::new(),
            made_keys: Vec::new(),
            after: Vec::new(),
            keys: Vec::new(),
            sequences: Vec::new(),
            proved: Vec::new(),
            replaced,
            only_checks: false,
            meanwhile: Vec::new(),
            last_purposes: Vec::new(),
            learned: 0,
        }
    }

    pub(super) fn context(&self) -> &'a PlanContext<'a> {
        self.context
    }

    pub(super) fn table(&self) -> &'a RelationFacts {
        self.table
    }

    /// `ALTER TABLE … `
    pub(super) fn alter(&self) -> &str {
        &self.alter
    }

    /// Adds a report that comes with the statement's answer.
    pub(super) fn note(&mut self, note: Report) {
        self.notes.push(note);
    }

    /// The statement is answered without any phase.
    pub(super) fn answer(&mut self, answer: Vec<Report>) {
        self.answer = Some(answer);
    }

    /// Adds to the table before old rows are filled. `back` takes it back.
    pub(super) fn first(
        &mut self,
        purpose: &'static str,
        steps: impl IntoIterator<Item = Step>,
        back: impl IntoIterator<Item = Step>,
    ) {
        self.first.add(purpose, steps, back);
    }

    /// Adds to the table once old rows are filled. `back` takes it back.
    pub(super) fn then(
        &mut self,
        purpose: &'static str,
        steps: impl IntoIterator<Item = Step>,
        back: impl IntoIterator<Item = Step>,
    ) {
        self.then.add(purpose, steps, back);
    }

    /// A new column. `not_null`: the column is NOT NULL, or about to be.
    pub(super) fn add_column(&mut self, name: &str, not_null: bool) {
        self.columns.push((name.to_owned(), not_null));
    }

    /// A new sequence; `false`: the statement makes another one of that name.
    pub(super) fn add_sequence(&mut self, name: &str) -> bool {
        let is_new = self.sequences.iter().all(|taken| taken != name);
        if is_new {
            self.sequences.push(name.to_owned());
        }
        is_new
    }

    /// A new key.
    pub(super) fn add_key(&mut self, name: String, columns: &[String]) {
        self.keys.push((name, columns.to_vec()));
    }

    /// Whether the statement makes another key of that name, or with these columns.
    pub(super) fn has_key(&self, name: &str, columns: &[String]) -> bool {
        self.keys.iter().any(|(taken, others)| taken == name || others == columns)
    }

    /// A column that is to be proved not null; `false`: it is on the list already.
    pub(super) fn prove(&mut self, column: &str) -> bool {
        let is_new = self.proved.iter().all(|proved| proved != column);
        if is_new {
            self.proved.push(column.to_owned());
        }
        is_new
    }

    /// How many columns are proved not null.
    pub(super) fn proofs_so_far(&self) -> usize {
        self.proved.len()
    }

    /// Between phases others can see something that the statement itself would never show.
    pub(super) fn meanwhile(&mut self, what: &'static str) {
        if !self.meanwhile.contains(&what) {
            self.meanwhile.push(what);
        }
    }

    /// The place of one more name that the server will choose.
    pub(super) fn learns(&mut self, kind: char) -> NewConstraint {
        self.learned += 1;
        NewConstraint { slot: self.learned - 1, table: self.table.id.oid, kind, nth: 0 }
    }

    /// A column whose old rows are filled. `value`: the value, as an UPDATE sets it.
    pub(super) fn fill(&mut self, new: &NewColumn, value: String) {
        self.meanwhile("for a time the new column is NULL in old rows, and others can see that");
        let column = quote_identifier(&new.name);
        // A row whose fields are all null is no NULL, but IS NULL.
        let test = if new.built_in { "IS NULL" } else { "IS NOT DISTINCT FROM NULL" };
        let wanting = format!("{column} {test}");
        self.filled.push(Filled { column, value, wanting });
    }

    /// A column that the statement adds.
    pub(super) fn added(&self, column: &str) -> Option<&'a NewColumn> {
        let context: &'a PlanContext<'a> = self.context;
        let mut added = context.ddl.parts.iter().filter_map(|part| part.new_column.as_deref());
        added.find(|new| new.name == column)
    }

    pub(super) fn check(&mut self, validate: Step) {
        self.checks.push(validate);
    }

    pub(super) fn build(&mut self, phase: Phase) {
        self.meanwhile("the unique index refuses duplicates before the constraint exists");
        self.builds.push(phase);
    }

    /// A subcommand for the last phase.
    pub(super) fn last(&mut self, subcommand: String) {
        self.last.push(subcommand);
    }

    /// A step that makes a built index a key. It comes behind all subcommands and ahead of the steps that `after` adds.
    pub(super) fn becomes_key(&mut self, step: Step) {
        self.last_purposes.push("turn the index into the constraint");
        self.made_keys.push(step);
    }

    /// The statement has nothing to add, only to check.
    pub(super) fn then_nothing(&mut self) {
        self.only_checks = true;
    }

    /// Whether a column, maybe a new one, is NOT NULL or about to be; `None`: there is no such column.
    pub(super) fn is_not_null(&self, column: &str) -> Option<bool> {
        let new = self.columns.iter().find(|(name, _)| name == column).map(|(_, not_null)| *not_null);
        new.or_else(|| self.table.column(column).map(|column| column.not_null))
    }

    /// The constraint of that name, if the same statement drops it.
    pub(super) fn replaced(&self, name: Option<&str>) -> Option<Replaced> {
        self.replaced.iter().find(|replaced| Some(replaced.name.as_str()) == name).cloned()
    }

    /// Adds steps behind all subcommands of the last phase.
    pub(super) fn after(&mut self, purpose: &'static str, steps: impl IntoIterator<Item = Step>) {
        self.last_purposes.push(purpose);
        self.after.extend(steps);
    }

    /// The phases that prove that columns are not null, and the steps that drop the proofs. The statement has other phases behind these,
    /// and makes the columns NOT NULL itself in the last one.
    pub(super) fn proofs(mut self) -> Proofs {
        let mut phases: Vec<Phase> = self.undoable(&self.then).into_iter().collect();
        if !self.checks.is_empty() {
            phases.push(self.validation());
        }
        Proofs { phases, after: self.after, meanwhile: self.meanwhile }
    }

    /// The plan; `None`: the statement runs as it is written.
    pub(super) fn plan(mut self) -> Option<Plan> {
        if let Some(answer) = self.answer.take() {
            return (self.context.ddl.parts.len() == 1).then(|| self.context.plan_of_answer(answer));
        }
        // New columns alone, a VALIDATE alone, and brief subcommands alone run as they are written.
        let checks =
            !self.checks.is_empty() && (self.only_checks || !self.first.steps.is_empty() || !self.last.is_empty());
        if self.then.steps.is_empty() && self.filled.is_empty() && self.builds.is_empty() && !checks {
            return None;
        }
        let notes = std::mem::take(&mut self.notes);
        let empty = self.context.empty();
        let meanwhile = std::mem::take(&mut self.meanwhile);
        let mut plan = Plan { notes, meanwhile, phases: self.phases(), ..empty };
        give_reply(&mut plan.phases)?;
        Some(plan)
    }

    fn phases(mut self) -> Vec<Phase> {
        let mut phases = Vec::new();
        if self.filled.is_empty() {
            let then = std::mem::take(&mut self.then);
            self.first.append(then);
        }
        phases.extend(self.undoable(&self.first));
        if !self.filled.is_empty() {
            phases.push(self.backfill());
        }
        phases.extend(self.undoable(&self.then));
        if !self.checks.is_empty() {
            phases.push(self.validation());
        }
        phases.append(&mut self.builds);
        phases.extend(self.ending());
        phases
    }

    /// A phase of steps that take milliseconds once the statement's locks are held.
    fn brief(&self, purpose: &str, steps: Vec<Step>) -> Phase {
        Phase {
            locks: locks::needs(self.context, locks::as_written),
            steps,
            ..self.context.phase(PhaseKind::Brief, purpose)
        }
    }

    fn undoable(&self, added: &Added) -> Option<Phase> {
        if added.steps.is_empty() {
            return None;
        }
        let undo = self.brief(purpose::RESTORE, added.back.iter().rev().cloned().collect());
        let undo = Phase { locks: locks::needs(self.context, locks::drops), ..undo };
        let phase = self.brief(&joined(&added.purposes), added.steps.clone());
        Some(Phase { undo: Some(Undo::Run(Box::new(undo))), ..phase })
    }

    /// The phase that gives old rows the columns' values.
    fn backfill(&self) -> Phase {
        let facts = self.context.facts.backfill.as_ref();
        let (quiet, watched) = facts.map_or((false, false), |facts| (facts.quiet, facts.watched));
        let table = self.table.id.full_name();
        let backfill = Backfill { table, oid: self.table.id.oid, columns: self.filled.clone(), quiet, watched };
        let (set, wanting) = (backfill.set(), backfill.wanting());
        let whole = Step::hidden(format!("UPDATE {} SET {set} WHERE {wanting}", backfill.table.quoted()));
        Phase {
            locks: locks::needs(self.context, if watched { locks::watched_backfill } else { locks::backfill }),
            steps: vec![whole],
            backfill: Some(backfill),
            ..self.context.phase(PhaseKind::Backfill, "fill the old rows in batches")
        }
    }

    /// A check of old rows.
    fn validation(&mut self) -> Phase {
        Phase {
            locks: locks::needs(self.context, locks::validation),
            steps: std::mem::take(&mut self.checks),
            ..self.context.phase(PhaseKind::Long, purpose::OLD_ROWS)
        }
    }

    fn ending(&mut self) -> Option<Phase> {
        let mut steps = Vec::new();
        if !self.last.is_empty() {
            let whole = self.last.len() == self.context.ddl.parts.len()
                && self.last.iter().zip(&self.context.ddl.parts).all(|(last, part)| Some(last) == part.text.as_ref());
            steps.push(match whole {
                true => Step::as_written(&self.context.statement.text),
                false => Step::hidden(format!("{}{}", self.alter, self.last.join(", "))),
            });
        }
        steps.append(&mut self.made_keys);
        steps.append(&mut self.after);
        let purpose = if self.last_purposes.is_empty() {
            purpose::CATALOGUE_ONLY.to_owned()
        } else {
            joined(&self.last_purposes)
        };
        let locks = match self.context.has_form(Form::EnforceConstraint) {
            true => locks::needs(self.context, locks::drops),
            false => locks::needs(self.context, locks::as_written),
        };
        (!steps.is_empty()).then(|| Phase { locks, ..self.brief(&purpose, steps) })
    }
}

/// The purposes in one line, each of them once.
fn joined(purposes: &[&str]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for purpose in purposes {
        if !all.contains(purpose) {
            all.push(purpose);
        }
    }
    all.join("; ")
}

/// Makes the reply to one step the client's reply: the step with the client's own text if there is one, otherwise the first ALTER TABLE
/// of the last phase that has one.
fn give_reply(phases: &mut [Phase]) -> Option<()> {
    let steps = || {
        phases
            .iter()
            .enumerate()
            .flat_map(|(p, phase)| phase.steps.iter().enumerate().map(move |(s, step)| (p, s, step)))
    };
    let written = steps().find(|(_, _, step)| !step.own);
    let last_phase = steps().filter(|(_, _, step)| step.sql.starts_with("ALTER TABLE")).map(|(p, ..)| p).max();
    let (p, s) = match written {
        Some((p, s, _)) => (p, s),
        None => {
            let mut first =
                steps().filter(|(p, _, step)| Some(*p) == last_phase && step.sql.starts_with("ALTER TABLE"));
            first.next().map(|(p, s, _)| (p, s))?
        }
    };
    for (at, phase) in phases.iter_mut().enumerate() {
        for (nth, step) in phase.steps.iter_mut().enumerate() {
            step.visible = (at, nth) == (p, s);
        }
    }
    Some(())
}
