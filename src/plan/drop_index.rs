//! DROP INDEX: done concurrently, so that the table is never locked. Each index is a phase.
//!
//! Limit: several indexes are not dropped all or nothing. Each of them is gone once its phase is done.

use super::context::{PlanContext, table_bytes};
use super::index::concurrent;
use super::model::{Phase, PhaseKind, Plan, Step, Undo};
use crate::catalog::RelationFacts;
use crate::pg::RelationKind;
use crate::sql::form::Form;

/// The plan of DROP INDEX; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let indexes: Vec<&RelationFacts> = context.targets().collect();
    if context.has_form(Form::DropIndexConcurrently) {
        // The server takes only one name. If there are more, it raises the error.
        let [index] = indexes.as_slice() else { return None };
        return Some(single(context, index, Step::as_written(&context.statement.text)));
    }
    let all_found = indexes.len() == context.ddl.targets.len();
    let reroutes = context.limits.rewrite
        && !context.in_transaction()
        && !context.ddl.cascade
        // DROP INDEX CONCURRENTLY fails if an event trigger has written something before it.
        && !context.facts.session.event_triggers
        && (all_found || context.ddl.if_exists)
        && indexes.iter().all(|index| droppable(index));
    if !reroutes || indexes.iter().all(|index| context.small(table_bytes(index))) {
        return None;
    }
    if let ([index], [_]) = (indexes.as_slice(), context.ddl.targets.as_slice()) {
        let step = Step::concurrently(&context.statement.text, context.ddl.concurrently_at?)?;
        return Some(single(context, index, step));
    }
    // If some of the indexes do not exist, the server gives NOTICEs, so the statement runs as it is written.
    all_found.then(|| several(context, &indexes))
}

/// Whether DROP INDEX CONCURRENTLY can drop the index.
fn droppable(index: &RelationFacts) -> bool {
    let free = index.index.as_ref().is_some_and(|facts| !facts.of_constraint);
    index.kind == RelationKind::Index && free && !index.is_system && !index.is_partition && index.persistence != 't'
}

fn single(context: &PlanContext<'_>, index: &RelationFacts, step: Step) -> Plan {
    Plan { phases: vec![phase(context, index, step)], ..context.empty() }
}

/// One phase for each index. The reply to the last one is the client's reply.
fn several(context: &PlanContext<'_>, indexes: &[&RelationFacts]) -> Plan {
    let last = indexes.len().saturating_sub(1);
    let phases = indexes.iter().enumerate().map(|(i, index)| {
        let sql = format!("DROP INDEX CONCURRENTLY {}", index.id.full_name().quoted());
        phase(context, index, Step { visible: i == last, ..Step::hidden(sql) })
    });
    Plan { phases: phases.collect(), ..context.empty() }
}

fn phase(context: &PlanContext<'_>, index: &RelationFacts, step: Step) -> Phase {
    let undo = Undo::FinishDrop { index: index.id.full_name(), oid: index.id.oid };
    Phase {
        kind: PhaseKind::Long,
        steps: vec![step],
        undo: Some(undo),
        ..concurrent(context, index, "drop the index without blocking reads or writes")
    }
}
