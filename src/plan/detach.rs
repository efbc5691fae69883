//! DETACH PARTITION (14 and later) without ACCESS EXCLUSIVE on the table: DETACH PARTITION … CONCURRENTLY.
//!
//! The server does it in two transactions of its own. The first one marks the partition: new queries of the table no
//! longer see it, and nothing can take the mark back. The second one detaches the partition once every session that may
//! have seen it is gone. If the statement ends before the first transaction commits, nothing has changed. If it ends
//! between the two, FINALIZE finishes it. So a session that finds a partition half detached finishes the detach.
//!
//! CONCURRENTLY leaves a CHECK on the partition in place of its bounds. The plain DETACH PARTITION does not. The last
//! phase drops that CHECK.
//!
//! DROP TABLE of a partition detaches it first, and then drops a table that stands alone. If the drop fails, the table is
//! attached again: the CHECK that the server left proves its bounds. Everything else for which the server would refuse
//! the drop is known before.
//!
//! Limits: the statement runs as it is written if there is a default partition or if another partition is half detached,
//! since the server refuses CONCURRENTLY then. It also runs as it is written if foreign keys point to the partition. Their
//! tables are read under its locks, and the hold budget guards that.

use super::context::PlanContext;
use super::locks;
use super::model::{CreatedObject, Detach, LockNeed, ObjectKind, ObjectName, Phase, PhaseKind, Plan, Step, Undo};
use super::purpose;
use crate::catalog::{RelationFacts, RelationRef};
use crate::pg::{LockMode, RelationKind, sqlstate};
use crate::report::Report;

/// The slot of the name of the CHECK that the server makes.
const COPY_OF_BOUNDS: usize = 0;

/// The plan of DETACH PARTITION; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let table = context.target()?;
    let [part] = context.ddl.parts.as_slice() else { return None };
    let partition = part.others.first().and_then(|name| context.facts.relation(name))?;
    if !can_go_concurrently(context, table, partition) {
        return None;
    }
    let text = &context.statement.text;
    // CONCURRENTLY has a line of its own, since the text may end with a comment.
    let step = Step::with_words(text, text.len(), "\nCONCURRENTLY")?;
    let detach = detach(context, &table.id, partition, step);
    let tidy = Phase {
        tidies: true,
        locks: own_locks(context, partition),
        steps: vec![drop_copy(partition)],
        ..context.phase(PhaseKind::Brief, "drop the CHECK that the server left in place of the bounds, if there is one")
    };
    let notes = if partition.detach_pending { vec![half_way(partition)] } else { Vec::new() };
    Some(Plan { notes, phases: vec![detach, tidy], ..context.empty() })
}

fn can_go_concurrently(context: &PlanContext<'_>, table: &RelationFacts, partition: &RelationFacts) -> bool {
    let kinds = table.kind == RelationKind::PartitionedTable
        && matches!(partition.kind, RelationKind::Table | RelationKind::PartitionedTable);
    let its_own = partition.is_partition && partition.parent.as_ref().is_some_and(|parent| parent.oid == table.id.oid);
    let to_itself =
        partition.constraints.iter().filter_map(|c| c.references.as_ref()).any(|to| to.oid == partition.id.oid);
    context.limits.rewrite
        && !context.in_transaction()
        && context.version() >= 140_000
        && (partition.detach_pending || !context.is_small())
        && kinds
        && its_own
        && table.owned
        && partition.owned
        && table.default_partition.is_none()
        && (partition.detach_pending || !table.detaching)
        && partition.referenced_by.is_empty()
        && !to_itself
}

/// The plan of DROP TABLE of a partition; `None`: this file has no plan for it.
pub(super) fn plan_drop(context: &PlanContext<'_>) -> Option<Plan> {
    let (partition, facts) = (context.target()?, context.facts.detachable.as_ref()?);
    let [_] = context.ddl.targets.as_slice() else { return None };
    let bytes = facts.bytes.max(partition.bytes);
    let droppable = context.limits.rewrite
        && !context.in_transaction()
        && !context.ddl.cascade
        && matches!(partition.kind, RelationKind::Table | RelationKind::PartitionedTable)
        && partition.owned
        // An undo must not attach a partition that somebody else has left half detached. PostgreSQL drops it as it is.
        && !partition.detach_pending
        && partition.default_partition.is_none()
        // Foreign keys of a standalone table make DROP TABLE lock the tables they point to. A partition's foreign keys are its parent's.
        && partition.constraints.iter().all(|constraint| constraint.kind != 'f')
        && partition.referenced_by.is_empty();
    let detachable = facts.owned && !facts.hash && !facts.another && !facts.needed && !facts.own_triggers;
    if !droppable || !detachable || context.small(bytes) {
        return None;
    }
    let [of, name] = [&facts.parent, &partition.id].map(|relation| relation.full_name().quoted());
    let step = Step::hidden(format!("ALTER TABLE {of} DETACH PARTITION {name} CONCURRENTLY"));
    let attach = Step::hidden(format!("ALTER TABLE {of} ATTACH PARTITION {name} {}", facts.bound));
    let attach = attach.about(facts.parent.oid, ObjectKind::Partition, &name);
    let back = Phase {
        locks: locks::finalize(context, &facts.parent, partition),
        steps: vec![attach, drop_copy(partition)],
        ..context.phase(PhaseKind::Brief, purpose::RESTORE)
    };
    let detach = Phase { undo: Some(Undo::Run(Box::new(back))), ..detach(context, &facts.parent, partition, step) };
    let drop = Phase {
        locks: own_locks(context, partition),
        ..context.phase(PhaseKind::Brief, "drop the table, which is no partition any more")
    };
    let meanwhile = vec!["for a moment the partition is a table of its own, before it is dropped"];
    Some(Plan { phases: vec![detach, drop], meanwhile, ..context.empty() })
}

/// The phase that detaches the partition. `step`: DETACH PARTITION … CONCURRENTLY.
fn detach(context: &PlanContext<'_>, table: &RelationRef, partition: &RelationFacts, step: Step) -> Phase {
    let [of, name] = [table, &partition.id].map(|relation| relation.full_name().quoted());
    let finalize = Step::hidden(format!("ALTER TABLE {of} DETACH PARTITION {name} FINALIZE"));
    let locks = locks::finalize(context, table, partition);
    let finish = Phase {
        locks: locks.clone(),
        steps: vec![Step { visible: step.visible, ..finalize }],
        ..context.phase(PhaseKind::Brief, "finish the DETACH")
    };
    let purpose = match partition.detach_pending {
        true => "finish an earlier DETACH … CONCURRENTLY that was interrupted",
        false => "detach the partition without blocking reads or writes of the table",
    };
    Phase {
        locks,
        steps: vec![step],
        detach: Some(Detach {
            partition: partition.id.clone(),
            table: table.oid,
            slot: COPY_OF_BOUNDS,
            finish: Box::new(finish),
        }),
        ..context.phase(PhaseKind::Detach, purpose)
    }
}

fn drop_copy(partition: &RelationFacts) -> Step {
    let drop = format!("ALTER TABLE {} DROP CONSTRAINT ", partition.id.full_name().quoted());
    let about = CreatedObject {
        table: partition.id.oid,
        kind: ObjectKind::Constraint,
        name: ObjectName::Learned(COPY_OF_BOUNDS),
    };
    Step { about: Some(about), ..Step::with_learned_name(&drop, COPY_OF_BOUNDS) }
}

/// The lock of the partition alone, which is a standalone table by then.
fn own_locks(context: &PlanContext<'_>, partition: &RelationFacts) -> Vec<LockNeed> {
    let lockable = context.facts.lock_facts(partition.id.oid).is_some_and(|facts| facts.may_lock);
    vec![LockNeed {
        lockable,
        ..LockNeed::alone(partition.id.full_name(), partition.id.oid, LockMode::AccessExclusive)
    }]
}

fn half_way(partition: &RelationFacts) -> Report {
    let message =
        format!("partition {} is half detached already, and is now detached completely", partition.id.full_name());
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail("An earlier DETACH PARTITION … CONCURRENTLY was interrupted, and the server cannot take it back.")
}
