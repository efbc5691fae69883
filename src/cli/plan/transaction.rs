//! The transaction in which a statement of a text stands.
//!
//! [`FileTransaction`] owns its statements. It keeps true: what is known of it is what the proxy would know if the client had sent the statements one
//! by one. A statement that ROLLBACK TO has taken back does not count any more.

use crate::catalog::Facts;
use crate::catalog::supposed;
use crate::pg::{LockMode, RelationName};
use crate::plan::ahead::{Earlier, NotAhead, choose, follow_savepoints};
use crate::plan::hoist::undoable;
use crate::sql::{Effect, Statement};
use std::collections::BTreeSet;

/// A statement of the transaction.
pub(super) struct Entry {
    pub(super) statement: Statement,
    pub(super) effect: Effect,
    /// The facts that the statement has ahead of the transaction.
    pub(super) facts: Facts,
    /// The oids of what the statement touches.
    pub(super) touches: BTreeSet<u32>,
    /// The statement calls a function that may do anything.
    pub(super) volatile: bool,
    /// The statement goes ahead of the transaction.
    pub(super) ahead: bool,
    /// The locks that the statement takes in the transaction.
    pub(super) locks: Vec<(RelationName, LockMode)>,
    /// Its number in the text, from 0.
    pub(super) nth: usize,
}

/// The transaction that is open.
#[derive(Default)]
pub(super) struct FileTransaction {
    entries: Vec<Entry>,
    /// AND CHAIN has begun it.
    chained: bool,
}

impl FileTransaction {
    /// A transaction that AND CHAIN has begun.
    pub(super) fn chained() -> Self {
        Self { entries: Vec::new(), chained: true }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn entry(&self, place: usize) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// The statements that count, with their places.
    fn counting(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let (back, _) = follow_savepoints(self.entries.iter().map(|entry| &entry.effect.kind));
        self.entries.iter().enumerate().zip(back).filter(|(_, back)| !back).map(|(entry, _)| entry)
    }

    /// The statements that count.
    pub(super) fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.counting().map(|(_, entry)| &entry.statement)
    }

    /// The statements that have committed with the transaction.
    pub(super) fn into_statements(self) -> Vec<Statement> {
        self.statements().cloned().collect()
    }

    /// Notes that these statements go ahead.
    pub(super) fn go_ahead(&mut self, places: &[usize]) {
        for place in places {
            if let Some(entry) = self.entries.get_mut(*place) {
                entry.ahead = true;
            }
        }
    }

    /// The facts of a statement as they are in the transaction.
    pub(super) fn facts_inside(&self, facts: &Facts) -> Facts {
        let mut facts = facts.clone();
        let inside = || self.counting().map(|(_, entry)| entry).filter(|entry| !entry.ahead);
        let held: Vec<&(RelationName, LockMode)> = inside().flat_map(|entry| &entry.locks).collect();
        facts.session.in_transaction = true;
        facts.session.holds = !held.is_empty();
        facts.session.strongest_lock = held.iter().map(|(_, mode)| *mode).max();
        for asked in &mut facts.relations {
            let Some(found) = &mut asked.found else { continue };
            found.created_here = inside().any(|entry| makes_relation(&entry.statement, &asked.name));
            let name = found.id.full_name();
            found.own_lock = held.iter().filter(|(relation, _)| *relation == name).map(|(_, mode)| *mode).max();
        }
        facts
    }

    /// The places of the statements that go ahead with a statement behind them.
    ///
    /// # Errors
    /// The statement cannot go ahead, and why.
    pub(super) fn with(&self, statement: &Statement, touches: &BTreeSet<u32>) -> Result<Vec<usize>, NotAhead> {
        if self.chained {
            return Err(NotAhead {
                detail: "The transaction cannot be run again, because AND CHAIN has begun it.".to_owned(),
                hint: "Begin the transaction by BEGIN as a statement of its own.".to_owned(),
            });
        }
        if statement.ddl().is_none() {
            return Err(Self::unknown());
        }
        undoable(statement).map_err(|what| NotAhead::cannot_be_undone(&what))?;
        let (places, earlier): (Vec<usize>, Vec<Earlier<'_>>) =
            self.counting().map(|(place, entry)| (place, as_earlier(entry))).unzip();
        let chosen = choose(&earlier, statement, touches)?;
        Ok(chosen.ahead.into_iter().filter_map(|at| places.get(at).copied()).collect())
    }

    /// Why a statement cannot go ahead that is no schema change.
    pub(super) fn unknown() -> NotAhead {
        NotAhead {
            detail: "It is not known what the statement does.".to_owned(),
            hint: "Send the statement outside a transaction.".to_owned(),
        }
    }
}

fn as_earlier(entry: &Entry) -> Earlier<'_> {
    Earlier {
        statement: &entry.statement,
        effect: &entry.effect,
        touches: entry.touches.clone(),
        hoisted: entry.ahead,
        undoable: undoable(&entry.statement),
        volatile: entry.volatile,
    }
}

/// Whether the statement makes a relation of this name.
pub(super) fn makes_relation(statement: &Statement, name: &RelationName) -> bool {
    statement.ddl().is_some_and(|ddl| supposed::creates(ddl) && ddl.targets.contains(name))
}

/// Whether the statement adds this column to the relation of this name.
pub(super) fn makes_column(statement: &Statement, relation: &RelationName, column: &str) -> bool {
    let adds = |ddl: &crate::sql::Ddl| {
        ddl.parts.iter().any(|part| part.new_column.is_some() && part.column.as_deref() == Some(column))
    };
    statement.ddl().is_some_and(|ddl| ddl.targets.contains(relation) && adds(ddl))
}
