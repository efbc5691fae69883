//! UNIQUE and PRIMARY KEY on a partitioned table: each partition gets its own first (its index built concurrently, then made
//! a constraint's), under the name that PostgreSQL would have chosen; then the statement itself runs, and attaches them.
//!
//! Limits: the columns of a primary key must be NOT NULL already, or every row would be read for that; no primary key since 18.

use super::ask::Ask;
use super::model::{LockNeed, Phase, PhaseKind, Plan, Step, ThingKind, Undo};
use super::partitioned_index::{as_written, build, buildable, holds_key, new_ones};
use crate::catalog::tree::Member;
use crate::pg::relation::quote_identifier;
use crate::pg::{LockMode, RelationKind, RelationName};
use crate::sql::NewKey;

/// `None`: it is not for this file.
pub(super) fn plan(ask: &Ask<'_>) -> Option<Plan> {
    let (table, tree) = (ask.target()?, ask.facts.tree.as_ref()?);
    let [part] = ask.ddl.parts.as_slice() else { return None };
    let key = part.key.as_deref()?;
    if !ask.limits.rewrite || ask.in_transaction() || table.kind != RelationKind::PartitionedTable || ask.is_small() {
        return None;
    }
    let second = key.primary && table.constraints.iter().any(|constraint| constraint.kind == 'p');
    let namesake = part.constraint.as_ref().is_some_and(|name| table.constraint(name).is_some());
    if tree.name_taken || namesake || second || tree.members.first().is_some_and(|root| !holds_key(tree, root)) {
        return Some(as_written(ask, "the server will not run it", &[]));
    }
    let nullable = |name: &String| table.column(name).is_none_or(|column| !column.not_null);
    // Since 18 a partition's own key would make its NOT NULL constraints its own too, for ever.
    let apart = !key.primary || (ask.version() < 180_000 && !key.columns.iter().any(nullable));
    if !buildable(tree) || !apart {
        return None;
    }
    let mut phases = Vec::new();
    let mut built = Vec::new();
    for leaf in new_ones(tree) {
        let name = leaf.new_index.as_ref()?;
        phases.push(build(ask, leaf, name, true, &key.index));
        phases.push(constraint(ask, leaf, name, key));
        built.push(RelationName::new(Some(&leaf.id.schema), name));
    }
    let meanwhile = match built.as_slice() {
        [] => Vec::new(),
        _ => vec!["each partition refuses duplicates before the whole table does"],
    };
    phases.extend(as_written(ask, "each partition has its key: they are attached", &built).phases);
    Some(Plan { phases, meanwhile, ..ask.empty() })
}

/// The index becomes a constraint's.
fn constraint(ask: &Ask<'_>, leaf: &Member, own_name: &str, key: &NewKey) -> Phase {
    let (alter, name) = (format!("ALTER TABLE {}", leaf.id.full_name().quoted()), quote_identifier(own_name));
    let kind = if key.primary { "PRIMARY KEY" } else { "UNIQUE" };
    let lock = LockNeed {
        relation: leaf.id.full_name(),
        oid: leaf.id.oid,
        mode: LockMode::AccessExclusive,
        only: false,
        lockable: true,
    };
    let brief =
        |purpose, step| Phase { locks: vec![lock.clone()], steps: vec![step], ..ask.phase(PhaseKind::Brief, purpose) };
    let drop = Step::hidden(format!("{alter} DROP CONSTRAINT {name}"));
    let back = brief("bring it back as it was", drop.about(leaf.id.oid, ThingKind::Constraint, own_name));
    let add = format!("{alter} ADD CONSTRAINT {name} {kind} USING INDEX {name}{}", key.deferral);
    Phase {
        undo: Some(Undo::Run(Box::new(back))),
        ..brief("the index becomes the partition's own key", Step::hidden(add))
    }
}
