//! REINDEX: done concurrently (12 and later). Invalid indexes that an earlier REINDEX left are dropped first.
//!
//! REINDEX TABLE CONCURRENTLY skips two kinds of index that the plain form would rebuild. Invalid indexes are rebuilt one
//! by one first. For indexes of exclusion constraints there is no concurrent way, and the statement runs as it is
//! written.

use super::context::{PlanContext, table_bytes};
use super::index::{concurrent, drop_invalid, drop_leftover};
use super::model::{Phase, Plan, Step};
use crate::catalog::{IndexFacts, RelationFacts};
use crate::pg::{RelationKind, sqlstate};
use crate::report::Report;
use crate::sql::form::Form;

/// The plan of REINDEX; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let written = context.has_form(Form::ReindexConcurrently);
    let reroutes = context.limits.rewrite && !context.in_transaction() && context.version() >= 120_000;
    if !written && !reroutes {
        return None;
    }
    if context.version() < 120_000 {
        return Some(context.relayed("the server does not know the statement"));
    }
    let step = match written {
        true => Step::as_written(&context.statement.text),
        false => Step::concurrently(&context.statement.text, context.ddl.concurrently_at?)?,
    };
    let Some(relation) = context.target() else { return schema(context, step) };
    if !written && (!rebuildable(context, relation) || context.small(table_bytes(relation))) {
        return None;
    }
    let mut notes = Vec::new();
    let mut phases = Vec::new();
    if reroutes {
        for index in relation.indexes.iter().filter(|index| is_leftover(index)) {
            let message = format!("invalid index {} of an earlier REINDEX is dropped first", index.id.full_name());
            notes.push(Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message));
            phases.push(drop_leftover(context, index, relation));
        }
    }
    if !written && relation.index.is_none() {
        for index in relation.indexes.iter().filter(|index| !index.valid && !index.in_progress && !is_leftover(index)) {
            phases.push(rebuild(context, relation, index, &phases));
        }
    }
    let undo = Some(undo(relation, &phases));
    phases.push(Phase {
        steps: vec![step],
        undo,
        ..concurrent(context, relation, "rebuild without blocking reads or writes")
    });
    Some(Plan { notes, phases, ..context.empty() })
}

/// The plan of REINDEX SCHEMA. It names no table, so nothing is known of leftovers. The server names the indexes that it leaves.
fn schema(context: &PlanContext<'_>, step: Step) -> Option<Plan> {
    let phase = context.phase(super::PhaseKind::Long, "rebuild without blocking reads or writes");
    context
        .ddl
        .targets
        .is_empty()
        .then(|| Plan { phases: vec![Phase { steps: vec![step], ..phase }], ..context.empty() })
}

fn rebuild(context: &PlanContext<'_>, table: &RelationFacts, index: &IndexFacts, dropped: &[Phase]) -> Phase {
    let sql = format!("REINDEX INDEX CONCURRENTLY {}", index.id.full_name().quoted());
    Phase {
        steps: vec![Step::hidden(sql)],
        undo: Some(undo(table, dropped)),
        ..concurrent(context, table, "rebuild an invalid index, which REINDEX TABLE CONCURRENTLY skips")
    }
}

fn undo(relation: &RelationFacts, dropped: &[Phase]) -> super::Undo {
    match &relation.table {
        Some(table) => {
            let table = RelationFacts { id: table.clone(), ..relation.clone() };
            drop_invalid(&table, dropped)
        }
        None => drop_invalid(relation, dropped),
    }
}

fn rebuildable(context: &PlanContext<'_>, relation: &RelationFacts) -> bool {
    let excluding = |index: &IndexFacts| {
        relation.constraints.iter().any(|c| c.kind == 'x' && c.name == index.id.name)
            || (index.of_constraint && index.definition.is_empty())
    };
    let parts = matches!(relation.kind, RelationKind::PartitionedTable | RelationKind::PartitionedIndex);
    let kind = matches!(relation.kind, RelationKind::Table | RelationKind::MaterializedView | RelationKind::Index);
    let excludes = match &relation.index {
        Some(index) => excluding(index),
        None => relation.indexes.iter().any(excluding),
    };
    (kind || (parts && context.version() >= 140_000)) && !relation.is_system && !excludes && relation.persistence != 't'
}

/// Whether an interrupted REINDEX CONCURRENTLY has left the index. Its name ends in `_ccnew` or `_ccold`, perhaps with a number.
fn is_leftover(index: &IndexFacts) -> bool {
    let stem = index.id.name.trim_end_matches(|c: char| c.is_ascii_digit());
    let named = stem.ends_with("_ccnew") || stem.ends_with("_ccold");
    named && !index.valid && !index.in_progress && !index.of_constraint
}
