//! Statements that change nothing. They are answered from the catalogue with PostgreSQL's own NOTICEs, without a lock.
//!
//! Invariant: a statement is answered only if every part of it changes nothing and the server would have let this role
//! run it. Messages and SQLSTATEs are PostgreSQL's (10 to 19 agree). If its answer depends on more than the facts tell,
//! the statement goes to the server.

use super::context::PlanContext;
use crate::catalog::{ConstraintFacts, RelationFacts};
use crate::pg::{RelationKind, RelationName, sqlstate};
use crate::report::Report;
use crate::sql::Part;
use crate::sql::form::Form;

/// The NOTICEs that the client gets instead of a run of the statement; `None`: the statement must run.
pub(super) fn answer(context: &PlanContext<'_>) -> Option<Vec<Report>> {
    // An old snapshot does not show the present catalogue. Event triggers see no-ops, too. A read-only transaction refuses them.
    let session = &context.facts.session;
    if session.frozen_snapshot || session.event_triggers || session.read_only {
        return None;
    }
    if context.ddl.if_exists && context.targets().next().is_none() {
        return absent(context);
    }
    if context.ddl.if_not_exists {
        return match context.ddl.form() {
            Form::CreateIndex | Form::CreateIndexConcurrently => existing_index(context),
            Form::CreateTableReferences | Form::CreateTablePartitionOf | Form::CreateTableInherits => {
                existing_table(context)
            }
            _ => None,
        };
    }
    if context.ddl.tag != "ALTER TABLE" {
        return None;
    }
    let table = context.target().filter(|table| alterable(table))?;
    let notices: Option<Vec<Option<Report>>> =
        context.ddl.parts.iter().map(|part| no_op(context, table, part)).collect();
    notices.map(|notices| notices.into_iter().flatten().collect())
}

/// IF EXISTS if none of the relations exists.
fn absent(context: &PlanContext<'_>) -> Option<Vec<Report>> {
    let kind = match context.ddl.tag.as_str() {
        "ALTER TABLE"
        | "ALTER INDEX"
        | "ALTER VIEW"
        | "ALTER SEQUENCE"
        | "ALTER MATERIALIZED VIEW"
        | "ALTER FOREIGN TABLE" => "relation",
        "DROP TABLE" => "table",
        "DROP VIEW" => "view",
        "DROP MATERIALIZED VIEW" => "materialized view",
        "DROP SEQUENCE" => "sequence",
        "DROP INDEX" => "index",
        "DROP FOREIGN TABLE" => "foreign table",
        _ => return None,
    };
    if context.ddl.targets.is_empty() || context.must_leave_transaction() {
        return None;
    }
    context.ddl.targets.iter().map(|name| absent_notice(context, kind, name)).collect()
}

fn absent_notice(context: &PlanContext<'_>, kind: &str, name: &RelationName) -> Option<Report> {
    // If the schema is missing, the server's message is another one. If the role may not use the schema, the server raises an error.
    let usable = name.schema.is_none() || context.facts.asked(name)?.schema_usable;
    let message = format!("{kind} \"{}\" does not exist, skipping", name.name);
    usable.then(|| Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message))
}

/// CREATE TABLE IF NOT EXISTS where the name is taken, by a relation of any kind.
fn existing_table(context: &PlanContext<'_>) -> Option<Vec<Report>> {
    let [name] = context.ddl.targets.as_slice() else { return None };
    let asked = context.facts.asked(name).filter(|asked| asked.may_create)?;
    let found = asked.found.as_ref()?;
    // An unqualified name is created in the first schema of the search path, even if it exists in another one.
    let schema = name.schema.as_ref().or(context.facts.session.current_schema.as_ref())?;
    (found.id.schema == *schema && found.persistence != 't').then(|| vec![exists(&name.name)])
}

/// CREATE INDEX IF NOT EXISTS if this table has a valid index of that name.
fn existing_index(context: &PlanContext<'_>) -> Option<Vec<Report>> {
    let table = context.target().filter(|table| table.owned)?;
    let name = context.ddl.index_name.as_deref().filter(|_| !context.must_leave_transaction())?;
    table.indexes.iter().find(|index| index.id.name == name && index.valid).map(|_| vec![exists(name)])
}

fn exists(name: &str) -> Report {
    Report::notice(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists, skipping"))
}

/// Whether the table is an ordinary or partitioned one of the role's own. For other tables, and for a partition that is half
/// detached, the server would raise an error.
fn alterable(table: &RelationFacts) -> bool {
    matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable)
        && table.owned
        && !table.is_system
        && !table.typed
        && !table.detach_pending
}

/// `Some`: the part changes nothing. The value is the NOTICE that PostgreSQL gives, if it gives one.
#[allow(clippy::option_option)] // "runs", "says nothing", "says this" are three answers
fn no_op(context: &PlanContext<'_>, table: &RelationFacts, part: &Part) -> Option<Option<Report>> {
    match part.form {
        Form::DropColumn if part.missing_ok => gone(table, "column", part.column.as_deref()?, |name| {
            table.column(name).is_some() || is_system_column(name)
        }),
        Form::DropConstraint if part.missing_ok => {
            gone(table, "constraint", part.constraint.as_deref()?, |name| table.constraint(name).is_some())
        }
        form if part.missing_ok && adds_column(form) => added(context, table, part),
        // The children of a table may differ from it.
        _ if table.has_children => None,
        Form::SetNotNull => {
            let column = table.column(part.column.as_deref()?)?;
            // Since 18 NOT NULL is a constraint. SET NOT NULL validates it, and makes it the table's own if the table has it only from
            // its parent. The server refuses SET NOT NULL if the constraint is one that no child inherits.
            let is_all = |there: &ConstraintFacts| there.validated && there.local && !there.no_inherit;
            let stays = context.version() < 180_000 || table.not_null(&column.name).is_some_and(is_all);
            (column.not_null && stays).then_some(None)
        }
        Form::DropNotNull => {
            let column = table.column(part.column.as_deref()?)?;
            (!column.not_null && !column.identity).then_some(None)
        }
        Form::DropDefault => {
            let column = table.column(part.column.as_deref()?)?;
            (!column.has_default && !column.identity && !column.generated).then_some(None)
        }
        Form::ValidateConstraint => {
            let constraint = table.constraint(part.constraint.as_deref()?)?;
            ("cfn".contains(constraint.kind) && constraint.validated).then_some(None)
        }
        _ => None,
    }
}

/// The NOTICE `… does not exist, skipping` if the object does not exist.
#[allow(clippy::option_option)]
fn gone(table: &RelationFacts, what: &str, name: &str, there: impl Fn(&str) -> bool) -> Option<Option<Report>> {
    let message = format!("{what} \"{name}\" of relation \"{}\" does not exist, skipping", table.id.name);
    (!there(name)).then(|| Some(Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)))
}

#[allow(clippy::option_option)]
fn added(context: &PlanContext<'_>, table: &RelationFacts, part: &Part) -> Option<Option<Report>> {
    let name = part.column.as_deref()?;
    // Before 13 the server made the sequence, index or constraint of the column even if the column existed.
    let only_a_column = matches!(part.form, Form::AddColumn | Form::AddColumnDefault | Form::AddColumnUserType);
    let skips = (context.version() >= 130_000 || only_a_column) && !table.is_partition && table.column(name).is_some();
    let message = format!("column \"{name}\" of relation \"{}\" already exists, skipping", table.id.name);
    skips.then(|| Some(Report::notice(sqlstate::DUPLICATE_COLUMN, message)))
}

pub(super) fn adds_column(form: Form) -> bool {
    matches!(
        form,
        Form::AddColumn
            | Form::AddColumnDefault
            | Form::AddColumnSerial
            | Form::AddColumnIdentity
            | Form::AddColumnGenerated
            | Form::AddColumnUserType
            | Form::AddColumnCheck
            | Form::AddColumnUnique
            | Form::AddColumnReferences
            | Form::AddColumnReferencesDefault
    )
}

/// Whether it is a system column. The server raises an error if one of them is dropped.
fn is_system_column(name: &str) -> bool {
    matches!(name, "tableoid" | "ctid" | "xmin" | "xmax" | "cmin" | "cmax" | "oid")
}
