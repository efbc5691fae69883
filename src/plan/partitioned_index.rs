//! An index on a partitioned table.
//!
//! The index of each partition is built concurrently, under the name that PostgreSQL would have chosen. Then the
//! statement itself runs, finds all of them there, attaches them and builds nothing. So the table is locked against
//! writes (SHARE) only while the catalogue is written.
//!
//! A partition that is created meanwhile gets its index in the last step, since it is empty. If a large table without an
//! index is attached meanwhile, the last step exceeds its hold budget and everything is undone.
//!
//! Invariants: a matching index that a partition has already is attached, as PostgreSQL does it, and no undo drops it.
//! Nothing is attached before the last step, so that all new indexes can be dropped.

use super::context::PlanContext;
use super::index::drop_leftover;
use super::locks;
use super::model::{LockNeed, Phase, PhaseKind, Plan, Step, Undo};
use super::purpose;
use crate::catalog::tree::{Member, Tree};
use crate::catalog::{IndexFacts, RelationFacts};
use crate::pg::relation::{quote_identifier, quote_literal};
use crate::pg::{LockMode, RelationKind, RelationName, sqlstate};
use crate::report::Report;

/// The plan of the index; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let (table, tree) = (context.target()?, context.facts.tree.as_ref()?);
    if !context.limits.rewrite
        || context.in_transaction()
        || table.kind != RelationKind::PartitionedTable
        || context.is_small()
    {
        return None;
    }
    if tree.name_taken || tree.members.first().is_some_and(|root| !holds_key(tree, root)) {
        return Some(as_written(context, purpose::NOT_RUN, &[]));
    }
    let body = context.statement.text.get(context.ddl.tail_at?..)?;
    if !buildable(tree) {
        return None;
    }
    let mut notes = Vec::new();
    let mut phases = Vec::new();
    let mut built = Vec::new();
    for leaf in new_ones(tree) {
        let leftover = leaf.equal.as_ref();
        if let Some(leftover) = leftover {
            let message = format!("invalid index {} of an earlier build is dropped first", leftover.id.full_name());
            notes.push(Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message));
            phases.push(drop_invalid(context, leaf)?);
        }
        let name = leftover.map(|leftover| &leftover.id.name).or(leaf.new_index.as_ref())?;
        phases.push(build(context, leaf, name, tree.unique, body));
        built.push(RelationName::new(Some(&leaf.id.schema), name));
    }
    phases.extend(as_written(context, "attach the indexes of the partitions", &built).phases);
    Some(Plan { notes, phases, ..context.empty() })
}

/// The plan with the client's own statement, which has nothing to build. The indexes that were built for it must be attached then.
pub(super) fn as_written(context: &PlanContext<'_>, purpose: &str, built: &[RelationName]) -> Plan {
    let mut steps = vec![Step::as_written(&context.statement.text)];
    if !built.is_empty() {
        steps.push(attached(built));
    }
    let locks = locks::needs(context, locks::as_written);
    let phase = Phase { locks, steps, ..context.phase(PhaseKind::Brief, purpose) };
    Plan { phases: vec![phase], ..context.empty() }
}

/// A step that fails unless every one of these indexes is attached to an index of the parent.
pub(super) fn attached(built: &[RelationName]) -> Step {
    let oids: Vec<String> = built
        .iter()
        .map(|name| format!("pg_catalog.to_regclass({})::pg_catalog.oid", quote_literal(&name.quoted())))
        .collect();
    let count = format!(
        "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits i \
         WHERE i.inhrelid OPERATOR(pg_catalog.=) ANY (ARRAY[{}])) OPERATOR(pg_catalog.=) {}",
        oids.join(", "),
        built.len()
    );
    Step::assertion(&count, "the partitions, or their indexes, have been changed meanwhile")
}

/// Whether an index like this can be built on each partition apart.
pub(super) fn buildable(tree: &Tree) -> bool {
    let open = tree.open();
    let fits = |member: &&Member| match member.kind {
        RelationKind::PartitionedTable => holds_key(tree, member),
        // The server makes no index on a foreign table, and refuses a unique one.
        RelationKind::ForeignTable => !tree.unique,
        RelationKind::Table => member.equal.as_ref().is_none_or(|equal| equal.valid || !member.busy),
        _ => false,
    };
    open.iter().all(|member| fits(member) && (member.owned || member.kind == RelationKind::ForeignTable))
}

/// Whether the index has every column that its table is partitioned by. The server refuses a unique index that does not.
pub(super) fn holds_key(tree: &Tree, member: &Member) -> bool {
    let held = |column: &Option<String>| column.as_ref().is_some_and(|column| tree.keys.contains(column));
    !tree.unique || member.key.as_ref().is_none_or(|key| key.iter().all(held))
}

/// The partitions whose index is to be built.
pub(super) fn new_ones(tree: &Tree) -> impl Iterator<Item = &Member> {
    let lacks = |leaf: &&Member| leaf.equal.as_ref().is_none_or(|equal| !equal.valid);
    tree.open().into_iter().filter(|member| member.kind == RelationKind::Table).filter(lacks)
}

/// The phase that drops an invalid index of the partition. The server would attach it, and the whole index would be invalid.
fn drop_invalid(context: &PlanContext<'_>, leaf: &Member) -> Option<Phase> {
    let equal = leaf.equal.as_ref()?;
    let index = IndexFacts {
        id: equal.id.clone(),
        unique: false,
        valid: false,
        of_constraint: false,
        in_progress: false,
        definition: String::new(),
    };
    let table = RelationFacts { id: leaf.id.clone(), ..context.target()?.clone() };
    Some(Phase { locks: takes(leaf), ..drop_leftover(context, &index, &table) })
}

/// The lock of a concurrent build: on the partition itself.
pub(super) fn takes(leaf: &Member) -> Vec<LockNeed> {
    let need = LockNeed::alone(leaf.id.full_name(), leaf.id.oid, LockMode::ShareUpdateExclusive);
    vec![LockNeed { only: true, ..need }]
}

/// The phase that builds the index of a partition. `body`: the text behind the table's name in CREATE INDEX.
pub(super) fn build(context: &PlanContext<'_>, leaf: &Member, name: &str, unique: bool, body: &str) -> Phase {
    let unique = if unique { "UNIQUE " } else { "" };
    let on = leaf.id.full_name();
    let sql = format!("CREATE {unique}INDEX CONCURRENTLY {} ON {}{body}", quote_identifier(name), on.quoted());
    let gone = leaf.equal.as_ref().map(|equal| equal.id.oid);
    Phase {
        steps: vec![Step::hidden(sql)],
        undo: Some(Undo::DropBuiltIndex {
            table: on,
            oid: leaf.id.oid,
            known: leaf.invalid.iter().copied().filter(|oid| Some(*oid) != gone).collect(),
            index: RelationName::new(Some(&leaf.id.schema), name),
        }),
        locks: takes(leaf),
        ..context.phase(PhaseKind::Long, "build the index of a partition without blocking reads or writes")
    }
}
