//! ALTER TABLE in phases: each subcommand gets its own safe way. [`Subcommands`] puts the phases together.
//!
//! Invariants: if a subcommand has no safe way, or another subcommand could disturb it, the whole statement runs as it is
//! written. If a phase fails, nothing is left behind. A step that cannot be taken back stands in the last phase.

use super::context::PlanContext;
use super::model::{ObjectKind, Plan, Step};
use super::subcommands::Subcommands;
use super::{constraint, direct, new_column, replace, replaced};
use crate::pg::RelationKind;
use crate::pg::relation::quote_identifier;
use crate::sql::Part;
use crate::sql::form::Form;

/// The plan in phases; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let table = context.target()?;
    let suits = matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable) && !table.is_system;
    if !context.limits.rewrite || context.in_transaction() || !suits || context.is_small() {
        return None;
    }
    // A constraint that the children inherit cannot prove what must hold for the parent alone.
    if context.ddl.only && table.has_children {
        return None;
    }
    let mut work = Subcommands::new(context, table, replaced::replaced(context, table)?);
    for (i, part) in context.ddl.parts.iter().enumerate() {
        add(&mut work, i, part)?;
    }
    work.plan()
}

/// Whether the plan of a statement depends on the facts of a backfill.
pub(super) fn wants_backfill(context: &PlanContext<'_>) -> bool {
    context.ddl.parts.iter().enumerate().any(|(i, part)| new_column::is_filled(context, i, part))
}

/// Adds the steps of a subcommand; `None`: the statement cannot be done in phases.
fn add(work: &mut Subcommands<'_>, i: usize, part: &Part) -> Option<()> {
    match part.form {
        Form::SetNotNull if !direct::proven_not_null(work.context(), part) => constraint::set_not_null(work, part),
        Form::AddCheck | Form::AddForeignKey | Form::AddNotNullConstraint => {
            let kind = constraint::kind(work, part)?;
            match work.replaced(part.constraint.as_deref()) {
                Some(replaced) => replace::add(work, part, &replaced),
                None => constraint::not_valid(work, kind, part),
            }
        }
        Form::AddUnique | Form::AddPrimaryKey => {
            constraint::key(work, i, part.key.as_deref()?, part.constraint.as_deref())
        }
        Form::AddCheckNotValid | Form::AddForeignKeyNotValid | Form::AddNotNullNotValid if validates(work, part) => {
            constraint::to_be_validated(work, part)
        }
        Form::ValidateConstraint => {
            let validate = Step::hidden(format!("{}{}", work.alter(), part.text.as_ref()?));
            let validate = match &part.constraint {
                Some(name) => validate.about(work.table().id.oid, ObjectKind::Constraint, name),
                None => validate,
            };
            work.check(validate);
            Some(())
        }
        Form::EnforceConstraint => replace::enforce(work, part),
        Form::SetDefault if guards_not_null(work, part) => default_first(work, part),
        _ if part.new_column.is_some() => new_column::add(work, i, part),
        // The change of type would be in the last phase, and it would repeat the checks of the phases before.
        Form::AlterColumnType => None,
        _ if direct::is_brief(work.context(), i, part) => {
            work.last(part.text.clone()?);
            Some(())
        }
        _ => None,
    }
}

/// Whether the statement also validates the constraint that this subcommand adds.
fn validates(work: &Subcommands<'_>, added: &Part) -> bool {
    let validates = |part: &Part| part.form == Form::ValidateConstraint && part.constraint == added.constraint;
    added.constraint.is_some() && work.context().ddl.parts.iter().any(validates)
}

/// Whether a default must be set first. Without it, the new constraint would refuse new rows that leave the column out.
fn guards_not_null(work: &Subcommands<'_>, part: &Part) -> bool {
    let same = |other: &Part| other.form == Form::SetNotNull && other.column == part.column;
    let column = part.column.as_ref().and_then(|name| work.table().column(name));
    work.context().ddl.parts.iter().any(same) && column.is_some_and(|column| !column.has_default && !column.identity)
}

fn default_first(work: &mut Subcommands<'_>, part: &Part) -> Option<()> {
    let column = part.column.as_ref()?;
    // The server drops a default before it sets one, in whatever order the statement has the two.
    let drops = |other: &Part| other.form == Form::DropDefault && other.column == part.column;
    if work.context().ddl.parts.iter().any(drops) {
        return None;
    }
    let set = Step::hidden(format!("{}{}", work.alter(), part.text.as_ref()?));
    let back = Step::hidden(format!("{}ALTER COLUMN {} DROP DEFAULT", work.alter(), quote_identifier(column)));
    let back = back.about(work.table().id.oid, ObjectKind::Default, column);
    work.first("set the default for new rows", [set], [back]);
    Some(())
}
