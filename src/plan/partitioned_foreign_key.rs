//! FOREIGN KEY on a partitioned table before 18, which has no NOT VALID there.
//!
//! Each partition gets its own foreign key first, NOT VALID and then validated, under the name that PostgreSQL would have
//! chosen. Then the statement itself runs and attaches these keys.
//!
//! The statement then reads no row. That was measured on 12, 15 and 17 (`pg_stat_get_xact_numscans`): PostgreSQL takes a
//! partition's foreign key for its part of the new one if it is the same and valid. If a partition with rows and without
//! such a key comes meanwhile, the last step exceeds its hold budget and everything is undone.

use super::context::PlanContext;
use super::locks;
use super::model::{LockNeed, ObjectKind, Phase, PhaseKind, Plan, Step, Undo};
use super::purpose;
use crate::catalog::RelationFacts;
use crate::catalog::leaves::Leaf;
use crate::pg::relation::{quote_identifier, quote_literal};
use crate::pg::{LockMode, RelationKind};
use crate::sql::NewForeignKey;

/// The plan of the foreign key; `None`: this file has no plan for the statement.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let (table, facts) = (context.target()?, context.facts.leaves.as_ref()?);
    let [part] = context.ddl.parts.as_slice() else { return None };
    let to = part.others.first().and_then(|name| context.facts.relation(name))?;
    let key = part.foreign_key.as_deref()?;
    let name = part.constraint.as_ref().or(facts.name.as_ref())?;
    if !context.limits.rewrite
        || context.in_transaction()
        || context.ddl.only
        || !table.owned
        || table.constraint(name).is_some()
    {
        return None;
    }
    // If both tables are partitioned, there is a key for every pair of partitions.
    let single = to.kind == RelationKind::Table && to.id.oid != table.id.oid;
    let ready = |leaf: &Leaf| {
        leaf.owned
            && !leaf.points
            && !leaf.constraints.contains(name)
            && matches!(leaf.kind, RelationKind::Table | RelationKind::PartitionedTable)
    };
    if !single || !facts.leaves.iter().all(ready) {
        return None;
    }
    let work = LeafKeys { context, to, name, definition: context.statement.text.get(key.at..)? };
    let filled = |leaf: &&Leaf| leaf.kind == RelationKind::Table && !leaf.empty;
    let leaves: Vec<&Leaf> = facts.leaves.iter().filter(filled).collect();
    let mut phases: Vec<Phase> = leaves.iter().flat_map(|leaf| work.leaf(leaf)).collect();
    phases.push(work.whole(key, &leaves)?);
    let meanwhile = match leaves.as_slice() {
        [] => Vec::new(),
        _ => vec!["the foreign key holds for single partitions before it holds for the whole table"],
    };
    Some(Plan { phases, meanwhile, ..context.empty() })
}

struct LeafKeys<'a> {
    context: &'a PlanContext<'a>,
    to: &'a RelationFacts,
    name: &'a str,
    /// `FOREIGN KEY …`
    definition: &'a str,
}

impl LeafKeys<'_> {
    /// The two phases of a partition's own key. New rows obey it at once. Then old rows are checked.
    fn leaf(&self, leaf: &Leaf) -> [Phase; 2] {
        let (alter, name) = (format!("ALTER TABLE {}", leaf.id.full_name().quoted()), quote_identifier(self.name));
        // NOT VALID has a line of its own, since the text may end with a comment.
        let add = format!("{alter} ADD CONSTRAINT {name} {}\nNOT VALID", self.definition);
        let phase = |kind, purpose, modes, sql| Phase {
            locks: self.both(leaf, modes),
            steps: vec![Step::hidden(sql).about(leaf.id.oid, ObjectKind::Constraint, self.name)],
            ..self.context.phase(kind, purpose)
        };
        let strong = [LockMode::AccessExclusive; 2];
        let drop = format!("{alter} DROP CONSTRAINT {name}");
        let back = phase(PhaseKind::Brief, purpose::RESTORE, strong, drop);
        let weak = [LockMode::ShareRowExclusive; 2];
        let added =
            phase(PhaseKind::Brief, "from now on new rows of the partition must satisfy the foreign key", weak, add);
        let modes = [LockMode::ShareUpdateExclusive, LockMode::RowShare];
        let validate = format!("{alter} VALIDATE CONSTRAINT {name}");
        let checked = phase(PhaseKind::Long, purpose::OLD_ROWS, modes, validate);
        [Phase { undo: Some(Undo::Run(Box::new(back))), ..added }, checked]
    }

    /// The locks of a partition, and of the table that it points to.
    fn both(&self, leaf: &Leaf, [own, other]: [LockMode; 2]) -> Vec<LockNeed> {
        let may_lock = self.context.facts.lock_facts(self.to.id.oid).is_some_and(|facts| facts.may_lock);
        let need = |table: &crate::catalog::RelationRef, mode, lockable| LockNeed {
            lockable,
            ..LockNeed::alone(table.full_name(), table.oid, mode)
        };
        let mut locks = vec![need(&leaf.id, own, true), need(&self.to.id, other, may_lock)];
        locks.sort_by_key(|need| need.oid);
        locks
    }

    /// The author's own statement with the name that the server would have chosen. The partitions' keys have that name by now.
    fn whole(&self, key: &NewForeignKey, leaves: &[&Leaf]) -> Option<Phase> {
        let text = &self.context.statement.text;
        let given = self.context.ddl.parts.first().is_some_and(|part| part.constraint.is_some());
        let words = format!("CONSTRAINT {} ", quote_identifier(self.name));
        let step = if given { Step::as_written(text) } else { Step::with_words(text, key.at, &words)? };
        let mut steps = vec![step];
        if !leaves.is_empty() {
            steps.push(self.attached(leaves));
        }
        let locks = locks::needs(self.context, locks::as_written);
        Some(Phase {
            locks,
            steps,
            ..self.context.phase(PhaseKind::Brief, "attach the foreign keys of the partitions")
        })
    }

    /// A step that fails unless the keys of all these partitions are attached to the key of the partitioned table.
    fn attached(&self, leaves: &[&Leaf]) -> Step {
        let oids: Vec<String> = leaves.iter().map(|leaf| leaf.id.oid.to_string()).collect();
        let count = format!(
            "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint k \
             WHERE k.conrelid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]) \
             AND k.conname OPERATOR(pg_catalog.=) {} AND k.conparentid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid) \
             OPERATOR(pg_catalog.=) {}",
            oids.join(","),
            quote_literal(self.name),
            leaves.len()
        );
        Step::assertion(&count, "the partitions, or their foreign keys, have been changed meanwhile")
    }
}
