//! CREATE INDEX: the index is built concurrently. An invalid index of the same name is dropped first.
//!
//! A concurrent build that fails leaves an invalid index. Every write pays for such an index, no query uses it, and
//! CREATE INDEX … IF NOT EXISTS takes it for the real one. So an invalid index of the wanted name is dropped if its
//! definition is the wanted one. If its definition is another one, the client is told of it.

use super::context::PlanContext;
use super::model::{Phase, PhaseKind, Plan, Step, Undo};
use super::purpose;
use crate::catalog::probe::leftover;
use crate::catalog::{IndexFacts, RelationFacts};
use crate::pg::{RelationKind, sqlstate};
use crate::report::Report;
use crate::sql::form::Form;

/// The plan of CREATE INDEX; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let table = context.target()?;
    let written = context.has_form(Form::CreateIndexConcurrently);
    let reroutes = context.limits.rewrite && !context.in_transaction() && buildable(table);
    if !written && !reroutes {
        return None;
    }
    let mut notes = Vec::new();
    let mut phases = Vec::new();
    if reroutes && let Some(index) = named(context, table).filter(|index| !index.valid) {
        match leftover(context.ddl, table).filter(|index| is_wanted(context, index)) {
            Some(index) => {
                notes.push(Report::notice(
                    sqlstate::SUCCESSFUL_COMPLETION,
                    format!("invalid index {} of an earlier build is dropped first", index.id.full_name()),
                ));
                phases.push(drop_leftover(context, index, table));
            }
            None => notes.extend(invalid_namesake(context, index)),
        }
    }
    phases.push(build(context, table, &phases, written)?);
    Some(Plan { notes, phases, ..context.empty() })
}

/// Whether the statement builds an index. It does not on a partitioned table alone (ONLY), or on one without partitions.
pub(super) fn builds(context: &PlanContext<'_>) -> bool {
    context
        .target()
        .is_none_or(|table| table.kind != RelationKind::PartitionedTable || (table.has_children && !context.ddl.only))
}

/// Whether CONCURRENTLY works on the table. It works on ordinary tables and materialized views, but not on system catalogues.
fn buildable(table: &RelationFacts) -> bool {
    matches!(table.kind, RelationKind::Table | RelationKind::MaterializedView) && !table.is_system
}

fn named<'a>(context: &PlanContext<'_>, table: &'a RelationFacts) -> Option<&'a IndexFacts> {
    let name = context.ddl.index_name.as_deref()?;
    table.indexes.iter().find(|index| index.id.name == name)
}

fn is_wanted(context: &PlanContext<'_>, index: &IndexFacts) -> bool {
    let definition = index.comparable_definition();
    definition.is_some() && definition == context.facts.wanted_index
}

/// A report of an invalid index of the same name. IF NOT EXISTS would take it for the real one. Without IF NOT EXISTS, the server's
/// error says enough.
fn invalid_namesake(context: &PlanContext<'_>, index: &IndexFacts) -> Option<Report> {
    let name = index.id.full_name();
    let (state, hint) = match index.in_progress {
        true => {
            ("is still being built by another session", "Wait until that session is done, then look again.".to_owned())
        }
        false => (
            "is invalid: no query uses it, and it does not guarantee uniqueness",
            format!("DROP INDEX {}, then create it anew.", name.quoted()),
        ),
    };
    let message = format!("index {name} exists, but {state}");
    context.ddl.if_not_exists.then(|| Report::warning(sqlstate::WARNING, message).hint(hint))
}

/// A phase that drops an invalid index without blocking anybody.
pub(super) fn drop_leftover(context: &PlanContext<'_>, index: &IndexFacts, table: &RelationFacts) -> Phase {
    let name = index.id.full_name();
    Phase {
        steps: vec![Step::hidden(format!("DROP INDEX CONCURRENTLY {}", name.quoted()))],
        undo: Some(Undo::FinishDrop { index: name, oid: index.id.oid }),
        ..concurrent(context, table, "drop an invalid index of an earlier build")
    }
}

/// A long phase that locks the table with SHARE UPDATE EXCLUSIVE, with the client's text in it.
pub(super) fn concurrent(context: &PlanContext<'_>, table: &RelationFacts, purpose: &str) -> Phase {
    Phase { locks: super::locks::concurrent(context, table), ..context.phase(PhaseKind::Long, purpose) }
}

/// The undo that drops the index that an unfinished build leaves, but no index that was invalid before.
pub(super) fn drop_invalid(table: &RelationFacts, dropped: &[Phase]) -> Undo {
    let gone = |oid: u32| {
        dropped
            .iter()
            .any(|phase| matches!(&phase.undo, Some(Undo::FinishDrop { oid: dropped, .. }) if *dropped == oid))
    };
    let invalid = table.indexes.iter().filter(|index| !index.valid).map(|index| index.id.oid);
    Undo::DropInvalidIndexes {
        table: table.id.full_name(),
        oid: table.id.oid,
        known: invalid.filter(|oid| !gone(*oid)).collect(),
    }
}

fn build(context: &PlanContext<'_>, table: &RelationFacts, dropped: &[Phase], written: bool) -> Option<Phase> {
    if !written && context.small(table.bytes) {
        let locks = super::locks::needs(context, super::locks::as_written);
        return Some(Phase { locks, ..context.phase(PhaseKind::Brief, purpose::SMALL_TABLE) });
    }
    let step = match written {
        true => Step::as_written(&context.statement.text),
        false => Step::concurrently(&context.statement.text, context.ddl.concurrently_at?)?,
    };
    Some(Phase {
        steps: vec![step],
        undo: Some(drop_invalid(table, dropped)),
        ..concurrent(context, table, "build the index without blocking reads or writes")
    })
}
