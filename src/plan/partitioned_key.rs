//! UNIQUE and PRIMARY KEY on a partitioned table.
//!
//! Each partition gets its own key first. Its index is built concurrently and becomes the index of a constraint, under the
//! name that PostgreSQL would have chosen. Then the statement itself runs and attaches these keys. Nullable columns of a
//! primary key are proved not null first (12 and later), as for SET NOT NULL. Then neither a partition's key nor the
//! table's key reads a row.
//!
//! Limit: since 18 NOT NULL is a constraint. If a partition has one from its parent, a key USING INDEX makes the constraint
//! the partition's own, too. The constraint would then stay when the parent's is dropped. So on 18 a partition is handled
//! this way only if its NOT NULL is its own already.

use super::constraint;
use super::context::PlanContext;
use super::model::{LockNeed, ObjectKind, Phase, PhaseKind, Plan, Step, Undo};
use super::partitioned_index::{as_written, build, buildable, holds_key, new_ones};
use super::purpose;
use super::subcommands::{Proofs, Subcommands};
use crate::catalog::tree::Member;
use crate::pg::relation::quote_identifier;
use crate::pg::{LockMode, RelationKind, RelationName};
use crate::sql::NewKey;

/// The plan of the key; `None`: this file has no plan for the statement.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let (table, tree) = (context.target()?, context.facts.tree.as_ref()?);
    let [part] = context.ddl.parts.as_slice() else { return None };
    let key = part.key.as_deref()?;
    if !context.limits.rewrite
        || context.in_transaction()
        || table.kind != RelationKind::PartitionedTable
        || context.is_small()
    {
        return None;
    }
    let second = key.primary && table.constraints.iter().any(|constraint| constraint.kind == 'p');
    let namesake = part.constraint.as_ref().is_some_and(|name| table.constraint(name).is_some());
    if tree.name_taken || namesake || second || tree.members.first().is_some_and(|root| !holds_key(tree, root)) {
        return Some(as_written(context, purpose::NOT_RUN, &[]));
    }
    let leaves_no_trace = |leaf: &Member| context.version() < 180_000 || is_its_own(leaf);
    if !buildable(tree) || (key.primary && !new_ones(tree).all(leaves_no_trace)) {
        return None;
    }
    let Proofs { mut phases, after, mut meanwhile } = proofs(context, key)?;
    let mut built = Vec::new();
    for leaf in new_ones(tree) {
        let name = leaf.new_index.as_ref()?;
        phases.push(build(context, leaf, name, true, &key.index));
        phases.push(constraint(context, leaf, name, key));
        built.push(RelationName::new(Some(&leaf.id.schema), name));
    }
    if !built.is_empty() {
        meanwhile.push("single partitions refuse duplicates before the whole table does");
    }
    let mut ending = as_written(context, "attach the keys of the partitions", &built).phases;
    ending.iter_mut().for_each(|phase| phase.steps.extend(after.iter().cloned()));
    phases.append(&mut ending);
    Some(Plan { phases, meanwhile, ..context.empty() })
}

/// Whether every column of the key has a NOT NULL that is this partition's own (18).
fn is_its_own(leaf: &Member) -> bool {
    leaf.nullable.is_empty() && !leaf.inherits_not_null
}

/// The proofs that a primary key's columns are not null, if the server would read rows for that; `None`: it cannot be proved.
fn proofs(context: &PlanContext<'_>, key: &NewKey) -> Option<Proofs> {
    let (table, tree) = (context.target()?, context.facts.tree.as_ref()?);
    let mut work = Subcommands::new(context, table, Vec::new());
    let reads = |column: &&String| {
        tree.members.iter().any(|member| member.kind == RelationKind::Table && member.nullable.contains(column))
    };
    for column in key.columns.iter().filter(|_| key.primary).filter(reads) {
        if !(120_000..180_000).contains(&context.version()) {
            return None;
        }
        constraint::not_null(&mut work, column, None)?;
    }
    Some(work.proofs())
}

/// The phase that makes the index a constraint.
fn constraint(context: &PlanContext<'_>, leaf: &Member, own_name: &str, key: &NewKey) -> Phase {
    let (alter, name) = (format!("ALTER TABLE {}", leaf.id.full_name().quoted()), quote_identifier(own_name));
    let kind = key.kind();
    let lock = LockNeed::alone(leaf.id.full_name(), leaf.id.oid, LockMode::AccessExclusive);
    let brief = |purpose, step| Phase {
        locks: vec![lock.clone()],
        steps: vec![step],
        ..context.phase(PhaseKind::Brief, purpose)
    };
    // A key makes its columns NOT NULL, and they stay NOT NULL when it is dropped.
    let nullable = if key.primary { leaf.nullable.as_slice() } else { &[] };
    let was_null = |column: &String| format!(", ALTER COLUMN {} DROP NOT NULL", quote_identifier(column));
    let as_before: String = nullable.iter().map(was_null).collect();
    let drop = Step::hidden(format!("{alter} DROP CONSTRAINT {name}{as_before}"));
    let back = brief(purpose::RESTORE, drop.about(leaf.id.oid, ObjectKind::Constraint, own_name));
    let add = format!("{alter} ADD CONSTRAINT {name} {kind} USING INDEX {name}{}", key.deferral);
    Phase {
        undo: Some(Undo::Run(Box::new(back))),
        ..brief("turn the index into the partition's own key", Step::hidden(add))
    }
}
