//! CREATE INDEX: built concurrently, after an invalid leftover of the same index is out of the way.
//!
//! A concurrent build that fails leaves an invalid index, which costs every write and serves no query, and which CREATE
//! INDEX … IF NOT EXISTS takes for the real one. So a leftover of the wanted name is dropped if its definition is the
//! wanted one, and is told of if it is not.

use super::ask::Ask;
use super::model::{Phase, PhaseKind, Plan, Step, Undo};
use crate::catalog::probe::leftover;
use crate::catalog::{IndexFacts, RelationFacts};
use crate::pg::{RelationKind, sqlstate};
use crate::report::Report;
use crate::sql::form::Form;

/// `None`: it runs as written.
pub(super) fn plan(ask: &Ask<'_>) -> Option<Plan> {
    let table = ask.target()?;
    let written = ask.has_form(Form::CreateIndexConcurrently);
    let reroutes = ask.limits.rewrite && !ask.in_transaction() && buildable(table);
    if !written && !reroutes {
        return None;
    }
    let mut notes = Vec::new();
    let mut phases = Vec::new();
    if reroutes && let Some(index) = named(ask, table).filter(|index| !index.valid) {
        match leftover(ask.ddl, table).filter(|index| is_wanted(ask, index)) {
            Some(index) => {
                notes.push(Report::notice(
                    sqlstate::SUCCESSFUL_COMPLETION,
                    format!("invalid index {} of an earlier build is dropped first", index.id.full_name()),
                ));
                phases.push(drop_leftover(ask, index, table));
            }
            None => notes.extend(invalid_namesake(ask, index)),
        }
    }
    phases.push(build(ask, table, &phases, written)?);
    Some(Plan { notes, phases, ..ask.empty() })
}

/// Whether the statement builds anything: not on the parent alone, nor on a parent without partitions.
pub(super) fn builds(ask: &Ask<'_>) -> bool {
    ask.target()
        .is_none_or(|table| table.kind != RelationKind::PartitionedTable || (table.has_children && !ask.ddl.only))
}

/// CONCURRENTLY works on ordinary tables and materialized views, not on catalogues.
fn buildable(table: &RelationFacts) -> bool {
    matches!(table.kind, RelationKind::Table | RelationKind::MaterializedView) && !table.is_system
}

fn named<'a>(ask: &Ask<'_>, table: &'a RelationFacts) -> Option<&'a IndexFacts> {
    let name = ask.ddl.index_name.as_deref()?;
    table.indexes.iter().find(|index| index.id.name == name)
}

fn is_wanted(ask: &Ask<'_>, index: &IndexFacts) -> bool {
    let definition = index.comparable_definition();
    definition.is_some() && definition == ask.facts.wanted_index
}

/// IF NOT EXISTS would take an invalid index for the real one; without it, the server's error says enough.
fn invalid_namesake(ask: &Ask<'_>, index: &IndexFacts) -> Option<Report> {
    let name = index.id.full_name();
    let (state, hint) = match index.in_progress {
        true => ("is still being built by another session", "Wait for that session, and look again.".to_owned()),
        false => (
            "is invalid: no query uses it, and if it is unique it does not hold",
            format!("DROP INDEX {}, then create it anew.", name.quoted()),
        ),
    };
    let message = format!("index {name} exists, but {state}");
    ask.ddl.if_not_exists.then(|| Report::warning(sqlstate::WARNING, message).hint(hint))
}

/// Drops an invalid index without blocking anybody.
pub(super) fn drop_leftover(ask: &Ask<'_>, index: &IndexFacts, table: &RelationFacts) -> Phase {
    let name = index.id.full_name();
    Phase {
        steps: vec![Step::hidden(format!("DROP INDEX CONCURRENTLY {}", name.quoted()))],
        undo: Some(Undo::FinishDrop { index: name, oid: index.id.oid }),
        ..concurrent(ask, table, "drop an invalid index of an earlier build")
    }
}

/// A long phase that locks the table with SHARE UPDATE EXCLUSIVE, with the client's text in it.
pub(super) fn concurrent(ask: &Ask<'_>, table: &RelationFacts, purpose: &str) -> Phase {
    Phase { locks: super::locks::concurrent(ask, table), ..ask.phase(PhaseKind::Long, purpose) }
}

/// Drops what an unfinished build leaves, but nothing that is invalid already.
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

fn build(ask: &Ask<'_>, table: &RelationFacts, dropped: &[Phase], written: bool) -> Option<Phase> {
    if !written && ask.small(table.bytes) {
        let locks = super::locks::needs(ask, super::locks::as_written);
        return Some(Phase { locks, ..ask.phase(PhaseKind::Brief, "the table is small") });
    }
    let step = match written {
        true => Step::as_written(&ask.statement.text),
        false => Step::concurrently(&ask.statement.text, ask.ddl.concurrently_at?)?,
    };
    Some(Phase {
        steps: vec![step],
        undo: Some(drop_invalid(table, dropped)),
        ..concurrent(ask, table, "build without blocking reads or writes")
    })
}
