//! Plans that run ahead of the client's transaction block (*hoisted*): each gets an undo for all that it makes.
//!
//! The client's block may roll back after the last phase of such a plan has committed. The plans of other files undo a phase only if a
//! later phase may fail, so the last phase has no undo there. [`with_full_undo`] adds it.
//!
//! Invariants: if all phases with an undo are undone, from the last to the first, the schema is as it was before the statement. The undo
//! drops objects that the plan has made, and nothing else. A statement whose undo would need more than that is refused, with the reason.
//!
//! Limits: the undo does not bring back what the author did not write: an invalid index of an earlier build that the plan drops first, and
//! that a constraint was not valid before VALIDATE CONSTRAINT ([decision 54](../../docs/decisions/0054-plans-ahead-of-their-block.md)).

use super::context::PlanContext;
use super::elide::adds_column;
use super::locks;
use super::model::{CreatedObject, Limits, NewConstraint, ObjectKind, ObjectName, Phase, PhaseKind, Plan, Step, Undo};
use super::purpose;
use crate::catalog::identity::{is_created_here, lacks_column};
use crate::catalog::{ColumnFacts, Facts, RelationFacts, index_definition_tail};
use crate::pg::relation::quote_identifier;
use crate::pg::{RelationKind, RelationName};
use crate::sql::form::Form;
use crate::sql::{ClauseKind, Ddl, NewColumn, Part, Statement};

/// The settings do not matter here, since no choice of the planner's is made again.
const LIMITS: Limits = Limits { small_table: 0, rewrite: true, refuse_unsafe: false, refuse_exclude: false };

/// Whether statements of this kind can be undone after their last phase, as far as their forms tell.
///
/// # Errors
/// What cannot be undone, as a fragment such as "DROP COLUMN".
pub fn may_be_hoisted(ddl: &Ddl) -> Result<(), &'static str> {
    match ddl.parts.iter().find(|part| !is_additive(ddl, part.form)) {
        None if ddl.tag == "CREATE FOREIGN TABLE" => Err("CREATE FOREIGN TABLE"),
        None => Ok(()),
        Some(part) => Err(part.form.row().title),
    }
}

/// Whether the statement can be undone, as far as its form tells. The error is a fragment that says why not.
///
/// # Errors
/// The statement cannot be undone.
pub fn undoable(statement: &Statement) -> Result<(), String> {
    let ddl = statement.ddl().ok_or("it is no schema change")?;
    may_be_hoisted(ddl).map_err(str::to_owned)
}

/// Whether the form only adds.
fn is_additive(ddl: &Ddl, form: Form) -> bool {
    match form {
        Form::CreateObject => ddl.tag == "CREATE SEQUENCE",
        _ => only_adds(form),
    }
}

/// Whether statements of this form only add, so that they may go ahead of a transaction.
pub fn only_adds(form: Form) -> bool {
    adds_column(form)
        || matches!(
            form,
            Form::SetDefault
                | Form::DropDefault
                | Form::SetNotNull
                | Form::AddCheck
                | Form::AddCheckNotValid
                | Form::AddNotNullConstraint
                | Form::AddNotNullNotValid
                | Form::AddForeignKey
                | Form::AddForeignKeyNotValid
                | Form::AddUnique
                | Form::AddPrimaryKey
                | Form::AddExclude
                | Form::ValidateConstraint
                | Form::CreateIndex
                | Form::CreateTable
                | Form::CreateTableReferences
        )
}

/// The plan with an undo for all that it makes, so that it can be undone after its last phase, too. An answered plan makes nothing. A plan
/// that has such an undo stays as it is.
///
/// # Errors
/// What cannot be undone, as a fragment such as "DROP COLUMN".
pub fn with_full_undo(plan: Plan, statement: &Statement, facts: &Facts) -> Result<Plan, String> {
    let ddl = statement.ddl().ok_or("a statement that is not DDL")?;
    may_be_hoisted(ddl)?;
    if plan.answer.is_some() {
        return Ok(plan);
    }
    if facts.nameless.is_some() {
        return Err("a statement whose names are not known".to_owned());
    }
    if facts.session.in_transaction {
        return Err("a statement in a transaction block".to_owned());
    }
    if plan.phases.iter().any(|phase| phase.purpose == purpose::NOT_RUN) {
        return Err("a statement that the server refuses".to_owned());
    }
    let context = &PlanContext { statement, ddl, facts, limits: &LIMITS };
    match ddl.form() {
        Form::CreateTable | Form::CreateTableReferences | Form::CreateObject => relation(context, plan),
        _ if plan.phases.iter().any(|phase| phase.kind == PhaseKind::Relay) => {
            Err("a change of a table that only this session sees".to_owned())
        }
        Form::CreateIndex => index(context, plan),
        _ => alter_table(context, plan),
    }
}

/// The table that the statement changes.
fn target<'a>(context: &PlanContext<'a>) -> Result<&'a RelationFacts, String> {
    let is_table = |table: &&RelationFacts| matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable);
    let table = context.target().filter(is_table).filter(|table| !table.is_system);
    table.ok_or_else(|| "a change of a relation that is no ordinary table".to_owned())
}

/// The undo that runs these steps under the locks that they need.
fn undo(context: &PlanContext<'_>, steps: Vec<Step>) -> Undo {
    let phase = context.phase(PhaseKind::Brief, purpose::RESTORE);
    Undo::Run(Box::new(Phase { locks: locks::needs(context, locks::undoes), steps, ..phase }))
}

/// A step that does nothing, so that a name can be learned behind it.
fn learning(made: NewConstraint) -> Step {
    Step { learns: Some(made), ..Step::hidden("SELECT WHERE false".to_owned()) }
}

/// The number of names that the plan learns already.
fn learned(plan: &Plan) -> usize {
    let steps = plan.phases.iter().flat_map(|phase| &phase.steps);
    steps.filter_map(|step| step.learns).map(|made| made.slot + 1).max().unwrap_or_default()
}

/// CREATE TABLE and CREATE SEQUENCE. The undo drops the relation of the oid that the phase has made.
fn relation(context: &PlanContext<'_>, mut plan: Plan) -> Result<Plan, String> {
    let ddl = context.ddl;
    let (kind, verb) = match ddl.form() {
        Form::CreateObject => (ObjectKind::Sequence, "DROP SEQUENCE"),
        _ => (ObjectKind::Table, "DROP TABLE"),
    };
    let [written] = ddl.targets.as_slice() else { return Err(format!("{} without a name", ddl.tag)) };
    let asked = context.facts.asked(written).ok_or_else(|| format!("{} of a name that was not asked for", ddl.tag))?;
    if asked.found.is_some() {
        return Err(format!("{} of a relation that exists", ddl.tag));
    }
    let schema = written.schema.as_ref().or(context.facts.session.current_schema.as_ref());
    let schema = schema.ok_or_else(|| format!("{} without a schema", ddl.tag))?;
    if schema.starts_with("pg_temp") {
        return Err("a change of a table that only this session sees".to_owned());
    }
    let name = RelationName::new(Some(schema), &written.name);
    let [phase] = plan.phases.as_mut_slice() else { return Err(format!("{} in phases", ddl.tag)) };
    if phase.undo.is_some() {
        return Ok(plan);
    }
    phase.kind = PhaseKind::Brief;
    phase.in_transaction = true;
    if ddl.if_not_exists {
        phase
            .steps
            .push(Step::assertion(&is_created_here(&name), "another session has created the relation meanwhile"));
    }
    let drop = Step::hidden(format!("{verb} {}", name.quoted())).about(0, kind, &name.quoted());
    phase.undo = Some(undo(context, vec![drop]));
    Ok(plan)
}

/// CREATE INDEX. A build drops its index without blocking anybody; an index that was made in a brief phase is dropped in one.
fn index(context: &PlanContext<'_>, mut plan: Plan) -> Result<Plan, String> {
    let table = target(context)?;
    owns_its_parts(context, table, "CREATE INDEX")?;
    let slot = learned(&plan);
    let Some(phase) = plan.phases.last_mut() else { return Ok(plan) };
    if phase.undo.as_ref().is_some_and(|undo| !matches!(undo, Undo::DropInvalidIndexes { .. })) {
        return Ok(plan);
    }
    if phase.in_transaction {
        let made = NewConstraint { slot, table: table.id.oid, kind: NewConstraint::INDEX, nth: 0 };
        phase.steps.push(learning(made));
        let drop = Step::with_learned_name(&format!("DROP INDEX {}.", quote_identifier(&table.id.schema)), slot);
        phase.undo = Some(undo(context, vec![about_learned(drop, made)]));
        return Ok(plan);
    }
    if let Some(Undo::DropInvalidIndexes { table: name, oid, known }) = phase.undo.take() {
        phase.undo = Some(match &context.ddl.index_name {
            Some(index) => Undo::DropBuiltIndex {
                table: name,
                oid,
                known,
                index: RelationName::new(Some(&table.id.schema), index),
            },
            None => Undo::DropNewIndex {
                table: name,
                oid,
                known,
                before: table.indexes.iter().map(|index| index.id.oid).collect(),
                definition: written_definition(context).unwrap_or_default(),
            },
        });
        return Ok(plan);
    }
    Err("CREATE INDEX of an unknown kind".to_owned())
}

/// Refuses an index, key or foreign key of a partitioned table if a partition may have a part of it already. The server attaches that part,
/// and the undo would drop it with the whole.
fn owns_its_parts(context: &PlanContext<'_>, table: &RelationFacts, what: &str) -> Result<(), String> {
    if table.kind != RelationKind::PartitionedTable || !table.has_children || context.ddl.only {
        return Ok(());
    }
    let mut own = context
        .facts
        .tree
        .as_ref()
        .map(|tree| tree.members.iter().all(|member| member.equal.as_ref().is_none_or(|equal| !equal.valid)));
    if let Some(leaves) = &context.facts.leaves {
        own = Some(leaves.leaves.iter().all(|leaf| !leaf.points));
    }
    match own {
        Some(true) => Ok(()),
        Some(false) => Err(format!("{what} on a partitioned table, since a partition has its part already")),
        None => Err(format!("{what} on a partitioned table, since a partition may have its part already")),
    }
}

fn about_learned(step: Step, made: NewConstraint) -> Step {
    let about = CreatedObject { table: made.table, kind: made.object(), name: ObjectName::Learned(made.slot) };
    Step { about: Some(about), ..step }
}

/// The definition of the index that CREATE INDEX asks for, in the author's words.
fn written_definition(context: &PlanContext<'_>) -> Option<String> {
    let text = &context.statement.text;
    let at = context.ddl.concurrently_at?;
    let unique = text.get(..at)?.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("unique"));
    let tail = text.get(context.ddl.tail_at?..)?;
    let method = tail.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("using"));
    Some(normal(unique, &if method { tail.to_owned() } else { format!(" USING btree{tail}") }))
}

/// The text that two definitions of an index share if they differ in the names of the index and its table, in case, quotes or white space.
/// `definition`: the result of `pg_get_indexdef`.
pub fn plain_definition(definition: &str) -> Option<String> {
    index_definition_tail(definition).map(|(unique, tail)| normal(unique, tail))
}

fn normal(unique: bool, tail: &str) -> String {
    let tail = tail.chars().filter(|c| !c.is_whitespace() && *c != '"').flat_map(char::to_lowercase);
    std::iter::once(if unique { 'u' } else { 'i' }).chain(tail).collect()
}

/// ALTER TABLE. The undo of the last phase drops all that this phase makes; the other phases have their undo already.
fn alter_table(context: &PlanContext<'_>, mut plan: Plan) -> Result<Plan, String> {
    let table = target(context)?;
    let phased = plan.phases.len() > 1;
    let mut made = MadeAtLast::new(context, table, phased);
    for part in &context.ddl.parts {
        made.part(part)?;
    }
    let first_slot = learned(&plan);
    let Some(phase) = plan.phases.last_mut() else { return Ok(plan) };
    // A plan without a brief phase at its end makes nothing there, and each of its earlier phases has an undo.
    if !phase.in_transaction || phase.undo.is_some() {
        return Ok(plan);
    }
    let validates = context.has_form(Form::ValidateConstraint) && !phased;
    if validates && !made.constraints.is_empty() {
        return Err("VALIDATE CONSTRAINT beside a new constraint".to_owned());
    }
    let MadeAtLast { alter, constraints, rest, lacking, .. } = made;
    let mut steps = Vec::new();
    for (at, kind) in constraints.iter().enumerate() {
        let nth = constraints[..at].iter().filter(|other| *other == kind).count();
        let made = NewConstraint { slot: first_slot + at, table: table.id.oid, kind: *kind, nth };
        phase.steps.push(learning(made));
        steps.push(about_learned(Step::with_learned_name(&format!("{alter}DROP CONSTRAINT "), made.slot), made));
    }
    steps.extend(rest);
    for column in lacking {
        let held = lacks_column(table.id.oid, &column);
        phase.steps.insert(0, Step::assertion(&held, "another session has added the column meanwhile"));
    }
    if !steps.is_empty() {
        phase.undo = Some(undo(context, steps));
    }
    Ok(plan)
}

/// What the last phase of an ALTER TABLE makes.
struct MadeAtLast<'a> {
    context: &'a PlanContext<'a>,
    table: &'a RelationFacts,
    /// `ALTER TABLE … `
    alter: String,
    /// The plan has other phases. Columns and checked constraints are made there.
    phased: bool,
    /// The kinds of the new constraints. Their names are learned.
    constraints: Vec<char>,
    /// The steps that take back what is no constraint. Columns come last.
    rest: Vec<Step>,
    /// The columns that the statement adds unless they exist.
    lacking: Vec<String>,
}

impl<'a> MadeAtLast<'a> {
    fn new(context: &'a PlanContext<'a>, table: &'a RelationFacts, phased: bool) -> Self {
        let only = if context.ddl.only { "ONLY " } else { "" };
        let alter = format!("ALTER TABLE {only}{} ", table.id.full_name().quoted());
        Self { context, table, alter, phased, constraints: Vec::new(), rest: Vec::new(), lacking: Vec::new() }
    }

    /// Adds what a subcommand makes.
    fn part(&mut self, part: &Part) -> Result<(), String> {
        let exists = |name: &String| part.form != Form::ValidateConstraint && self.table.constraint(name).is_some();
        if part.constraint.as_ref().is_some_and(exists) {
            return Err("a constraint that exists".to_owned());
        }
        match part.form {
            Form::ValidateConstraint => Ok(()),
            Form::SetDefault | Form::DropDefault => self.default(part),
            Form::SetNotNull => self.not_null(part.column.as_deref(), "SET NOT NULL"),
            Form::AddNotNullConstraint if self.phased => Ok(()),
            Form::AddNotNullConstraint | Form::AddNotNullNotValid => {
                self.not_null(part.column.as_deref(), "a NOT NULL constraint")
            }
            Form::AddCheck if self.phased => Ok(()),
            Form::AddCheck | Form::AddCheckNotValid => self.constraint('c'),
            Form::AddForeignKey | Form::AddForeignKeyNotValid => {
                owns_its_parts(self.context, self.table, "a foreign key")?;
                // On a partitioned table before 18 the last phase makes the key of the whole table.
                let earlier = self.phased && self.context.facts.leaves.is_none();
                if earlier && part.form == Form::AddForeignKey { Ok(()) } else { self.constraint('f') }
            }
            Form::AddExclude => self.constraint('x'),
            Form::AddUnique | Form::AddPrimaryKey => self.key(part),
            _ => self.column(part),
        }
    }

    fn constraint(&mut self, kind: char) -> Result<(), String> {
        self.constraints.push(kind);
        Ok(())
    }

    fn key(&mut self, part: &Part) -> Result<(), String> {
        owns_its_parts(self.context, self.table, "a key")?;
        let primary = part.form == Form::AddPrimaryKey;
        self.constraints.push(if primary { 'p' } else { 'u' });
        // The columns of a primary key become NOT NULL, and stay NOT NULL when the key is dropped.
        let columns = part.key.as_deref().filter(|_| primary).map_or(&[][..], |key| key.columns.as_slice());
        if primary && part.key.is_none() {
            return Err("PRIMARY KEY of columns that are not known".to_owned());
        }
        for column in columns {
            self.not_null(Some(column), "PRIMARY KEY of nullable columns")?;
        }
        Ok(())
    }

    /// The column of that name, unless this statement adds it. A new column is dropped as a whole.
    fn old_column(&self, name: Option<&str>, what: &str) -> Result<Option<&'a ColumnFacts>, String> {
        let added = |part: &Part| part.new_column.is_some() && part.column.as_deref() == name;
        match name.and_then(|name| self.table.column(name)) {
            None if self.context.ddl.parts.iter().any(added) => Ok(None),
            None => Err(format!("{what} of a column that is not known")),
            column => Ok(column),
        }
    }

    /// A column of the table becomes NOT NULL. A new column is dropped as a whole.
    fn not_null(&mut self, column: Option<&str>, what: &str) -> Result<(), String> {
        let Some(column) = self.old_column(column, what)? else { return Ok(()) };
        // On 10 and 11 the plan in phases adds a CHECK instead.
        let by_check = self.phased && self.context.version() < 120_000;
        if column.not_null || by_check {
            return Ok(());
        }
        // Before 18 DROP NOT NULL would also reach the children whose column was NOT NULL before.
        if self.table.has_children && !self.context.ddl.only {
            return Err(format!("{what} of a table with partitions or children"));
        }
        let drop = format!("{}ALTER COLUMN {} DROP NOT NULL", self.alter, quote_identifier(&column.name));
        let drop = Step::hidden(drop).about(self.table.id.oid, ObjectKind::NotNull, &column.name);
        let is_new = !self.rest.contains(&drop);
        self.rest.extend(is_new.then_some(drop));
        Ok(())
    }

    fn default(&mut self, part: &Part) -> Result<(), String> {
        let Some(column) = self.old_column(part.column.as_deref(), part.form.row().title)? else { return Ok(()) };
        if column.has_default || column.identity || column.generated {
            return Err(format!("{} of a column that has a default", part.form.row().title));
        }
        if self.table.has_children && !self.context.ddl.only {
            return Err(format!("{} of a table with partitions or children", part.form.row().title));
        }
        if part.form == Form::SetDefault {
            let drop = format!("{}ALTER COLUMN {} DROP DEFAULT", self.alter, quote_identifier(&column.name));
            let drop = Step::hidden(drop).about(self.table.id.oid, ObjectKind::Default, &column.name);
            self.rest.insert(0, drop);
        }
        Ok(())
    }

    /// A new column. In a plan of several phases, the first phase makes it and undoes it.
    fn column(&mut self, part: &Part) -> Result<(), String> {
        let name = part.column.as_deref().ok_or_else(|| part.form.row().title.to_owned())?;
        if self.phased || (part.missing_ok && self.table.column(name).is_some()) {
            return Ok(());
        }
        if part.missing_ok {
            self.lacking.push(name.to_owned());
        }
        // Constraints that come with the column are counted, so that each constraint of the transaction has a name.
        let kinds = part.new_column.as_deref().map(inline).unwrap_or_default();
        let beside = |kind: &char| {
            let form = |form: Form| match form {
                Form::AddCheck | Form::AddCheckNotValid => 'c',
                Form::AddForeignKey | Form::AddForeignKeyNotValid => 'f',
                Form::AddUnique => 'u',
                _ => ' ',
            };
            self.context.ddl.parts.iter().any(|part| form(part.form) == *kind)
        };
        self.constraints.extend(kinds.into_iter().filter(beside));
        let drop = format!("{}DROP COLUMN {}", self.alter, quote_identifier(name));
        self.rest.push(Step::hidden(drop).about(self.table.id.oid, ObjectKind::Column, name));
        Ok(())
    }
}

/// The kinds of the constraints that come with a column.
fn inline(new: &NewColumn) -> Vec<char> {
    let kind = |kind: &ClauseKind| match kind {
        ClauseKind::Check { .. } => Some('c'),
        ClauseKind::References { .. } => Some('f'),
        ClauseKind::Key(key) if !key.primary => Some('u'),
        _ => None,
    };
    new.pieces.iter().filter_map(|piece| kind(&piece.kind)).collect()
}
