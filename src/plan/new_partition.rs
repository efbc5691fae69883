//! CREATE TABLE … PARTITION OF (12 and later) without ACCESS EXCLUSIVE on the table. The new table is made LIKE it and
//! attached, in one transaction. Nobody else sees the new table before, and it is empty, so no row is read.
//!
//! LIKE and ATTACH together give a partition everything that PARTITION OF gives, under the same names
//! (`tests/parity/new_partition.sql`). ATTACH itself brings indexes, keys, foreign keys, triggers and, since 17,
//! identity.
//!
//! Limits: the statement runs as it is written in these cases. It has a list of columns, whose constraints and defaults
//! follow rules of their own. The table has a tablespace or an access method, which LIKE does not copy. The table has a
//! constraint that is not valid, which LIKE would make valid. The table has a default partition, which is locked in
//! either way (`attach.rs` spares it its scan).

use super::context::PlanContext;
use super::locks;
use super::model::{Inserted, Phase, PhaseKind, Plan, Step};
use crate::catalog::RelationFacts;
use crate::pg::{RelationKind, RelationName};
use crate::sql::PartitionOf;

/// The plan of CREATE TABLE … PARTITION OF; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let [part] = context.ddl.parts.as_slice() else { return None };
    let [name] = context.ddl.targets.as_slice() else { return None };
    let table = part.others.first().and_then(|name| context.facts.relation(name))?;
    let of = context.ddl.partition_of.as_ref()?;
    let new = context.facts.relation(name).is_none() && context.ddl.tag == "CREATE TABLE";
    let locks = locks::needs(context, locks::as_attached);
    if !new
        || locks.is_empty()
        || !context.limits.rewrite
        || context.version() < 120_000
        || !is_like_its_partitions(table)
    {
        return None;
    }
    let steps = vec![create(context, of, table)?, attach(context, of, table, name)?];
    let purpose = "create the partition apart and attach it, which keeps nobody from the table";
    let phase = Phase { locks, steps, ..context.phase(PhaseKind::Brief, purpose) };
    Some(Plan { phases: vec![phase], ..context.empty() })
}

/// Whether LIKE gives a new table all that PARTITION OF would give it.
fn is_like_its_partitions(table: &RelationFacts) -> bool {
    table.kind == RelationKind::PartitionedTable
        && table.persistence == 'p'
        && table.owned
        && !table.is_system
        && !table.typed
        && !table.passes_storage
        && table.default_partition.is_none()
        && table.constraints.iter().all(|constraint| constraint.validated)
}

/// The author's own text, with LIKE in place of PARTITION OF.
fn create(context: &PlanContext<'_>, of: &PartitionOf, table: &RelationFacts) -> Option<Step> {
    let mut copied = vec!["DEFAULTS", "CONSTRAINTS", "GENERATED", "STORAGE"];
    if context.version() >= 140_000 {
        copied.push("COMPRESSION");
    }
    let copied: String = copied.iter().map(|what| format!(" INCLUDING {what}")).collect();
    let like = format!("(LIKE {}{copied})", table.id.full_name().quoted());
    let text = &context.statement.text;
    let (before, clause, behind) =
        (text.get(..of.clause.start)?, text.get(of.clause.clone())?, text.get(of.clause.end..)?);
    // IF NOT EXISTS is left out. If somebody else has created a table of that name since the facts were read, the step fails, and
    // that table is not attached.
    let mut before = before.to_owned();
    if let Some(unless) = &of.if_not_exists {
        before.replace_range(unless.clone(), &" ".repeat(unless.len()));
    }
    let inserted = Inserted { at: before.len(), len: like.chars().count(), instead_of: clause.chars().count() };
    let step = Step::hidden(format!("{before}{like}{behind}"));
    Some(Step { visible: true, own: false, inserted: Some(inserted), ..step })
}

/// The step that attaches the new table, with the author's own bounds.
fn attach(context: &PlanContext<'_>, of: &PartitionOf, table: &RelationFacts, name: &RelationName) -> Option<Step> {
    let text = &context.statement.text;
    let (before, bound) = (text.get(..of.bound.start)?, text.get(of.bound.clone())?);
    let alter = format!("ALTER TABLE {} ATTACH PARTITION {} ", table.id.full_name().quoted(), name.quoted());
    let inserted = Inserted { at: 0, len: alter.chars().count(), instead_of: before.chars().count() };
    Some(Step { own: false, inserted: Some(inserted), ..Step::hidden(format!("{alter}{bound}")) })
}
