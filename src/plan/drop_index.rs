//! DROP INDEX: concurrently, so that the table is never locked; one phase for each index.
//!
//! Limit: several indexes are not dropped all or nothing: each is gone once its phase is done.

use super::ask::{Ask, table_bytes};
use super::index::concurrent;
use super::model::{Phase, PhaseKind, Plan, Step, Undo};
use crate::catalog::RelationFacts;
use crate::pg::RelationKind;
use crate::sql::form::Form;

/// `None`: it runs as written.
pub(super) fn plan(ask: &Ask<'_>) -> Option<Plan> {
    let indexes: Vec<&RelationFacts> = ask.targets().collect();
    if ask.has_form(Form::DropIndexConcurrently) {
        // The server takes one name only; more are its error to raise.
        let [index] = indexes.as_slice() else { return None };
        return Some(single(ask, index, Step::as_written(&ask.statement.text)));
    }
    let all_found = indexes.len() == ask.ddl.targets.len();
    let reroutes = ask.limits.rewrite
        && !ask.in_transaction()
        && !ask.ddl.cascade
        // DROP INDEX CONCURRENTLY fails where one has written something before it.
        && !ask.facts.session.event_triggers
        && (all_found || ask.ddl.if_exists)
        && indexes.iter().all(|index| droppable(index));
    if !reroutes || indexes.iter().all(|index| ask.small(table_bytes(index))) {
        return None;
    }
    if let ([index], [_]) = (indexes.as_slice(), ask.ddl.targets.as_slice()) {
        let step = Step::concurrently(&ask.statement.text, ask.ddl.concurrently_at?)?;
        return Some(single(ask, index, step));
    }
    // With some of them absent the server has NOTICEs to give: as written, then.
    all_found.then(|| several(ask, &indexes))
}

/// What DROP INDEX CONCURRENTLY can drop.
fn droppable(index: &RelationFacts) -> bool {
    let free = index.index.as_ref().is_some_and(|facts| !facts.of_constraint);
    index.kind == RelationKind::Index && free && !index.is_system && !index.is_partition && index.persistence != 't'
}

fn single(ask: &Ask<'_>, index: &RelationFacts, step: Step) -> Plan {
    Plan { phases: vec![phase(ask, index, step)], ..ask.empty() }
}

/// The last one is the client's reply.
fn several(ask: &Ask<'_>, indexes: &[&RelationFacts]) -> Plan {
    let last = indexes.len().saturating_sub(1);
    let phases = indexes.iter().enumerate().map(|(i, index)| {
        let sql = format!("DROP INDEX CONCURRENTLY {}", index.id.full_name().quoted());
        phase(ask, index, Step { visible: i == last, ..Step::hidden(sql) })
    });
    Plan { phases: phases.collect(), ..ask.empty() }
}

fn phase(ask: &Ask<'_>, index: &RelationFacts, step: Step) -> Phase {
    let undo = Undo::FinishDrop { index: index.id.full_name(), oid: index.id.oid };
    Phase {
        kind: PhaseKind::Long,
        steps: vec![step],
        undo: Some(undo),
        ..concurrent(ask, index, "drop without blocking reads or writes")
    }
}
