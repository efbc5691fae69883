//! The pending undos: earlier phases of failed or lost statements that another session must undo, by database and role, in the memory of
//! this proxy.
//!
//! This file owns the list. It keeps true that the list is bounded, and that each entry names the statements that undo it.
//! `lost_session.rs` makes the entries and runs them.

use crate::execute::outcome::UndoneAfter;
use crate::execute::record::RecordKey;
use crate::pg::sqlstate;
use crate::plan::{Phase, Undo};
use crate::report::Report;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

/// The most entries of one role in one database. So many statements must have lost their backends one after another.
const MOST: usize = 64;

/// The undo that one statement has left.
#[derive(Debug)]
pub struct PendingUndo {
    tag: String,
    reason: PendingReason,
    completed: Completed,
    /// The parts of the undo, in the order in which they run.
    items: Vec<UndoItem>,
    /// The record of the statement, if there is one. The same statement continues it.
    key: Option<RecordKey>,
}

/// Why the undo is pending.
#[derive(Debug, Clone, Copy)]
pub(super) enum PendingReason {
    Lost,
    /// The statement failed, and another session blocked its undo.
    Blocked,
}

/// Whether the plan has completed after all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Completed {
    No,
    /// It has completed if this transaction has committed.
    Transaction(String),
    /// It has completed if this constraint is valid.
    Valid(u32),
}

/// One part of a pending undo.
#[derive(Debug)]
pub(super) enum UndoItem {
    /// Steps that undo a phase, each with the oid or column number of the object that it drops.
    Steps { undo: Phase, things: Vec<u32> },
    /// The phase of an index build or an index drop.
    Index { phase: Phase, how: UndoneAfter, built: Option<u32> },
}

/// The pending undos by database and role.
#[derive(Debug, Default)]
pub struct PendingUndos(Mutex<HashMap<(String, String), VecDeque<PendingUndo>>>);

impl PendingUndos {
    /// Adds an entry. If the list of the role is full, the statements of the undo are logged instead.
    pub fn keep(&self, database: &str, role: &str, pending: PendingUndo) {
        let Ok(mut kept) = self.0.lock() else { return };
        let of_role = kept.entry((database.to_owned(), role.to_owned())).or_default();
        if of_role.len() < MOST {
            of_role.push_back(pending);
        } else {
            tracing::warn!(remedy = pending.remedy(), "too many undos are pending: run this one by hand");
        }
    }

    /// Whether a role has pending undos in a database.
    pub fn has_any(&self, database: &str, role: &str) -> bool {
        let key = (database.to_owned(), role.to_owned());
        self.0.lock().is_ok_and(|kept| kept.contains_key(&key))
    }

    /// Takes the oldest entry of a role in a database.
    pub fn take(&self, database: &str, role: &str) -> Option<PendingUndo> {
        let mut kept = self.0.lock().ok()?;
        let key = (database.to_owned(), role.to_owned());
        let of_role = kept.get_mut(&key)?;
        let first = of_role.pop_front();
        if of_role.is_empty() {
            kept.remove(&key);
        }
        first
    }
}

impl PendingUndo {
    /// Returns a pending undo. `tag` is the statement's command tag, `items` are in the order in which they run, `key` is that of the
    /// statement's record, if there is one.
    pub(super) fn new(
        tag: &str,
        reason: PendingReason,
        completed: Completed,
        items: Vec<UndoItem>,
        key: Option<RecordKey>,
    ) -> Self {
        Self { tag: tag.to_owned(), reason, completed, items, key }
    }

    /// Returns the key of the statement's record, if there is one. The same statement continues it.
    pub fn key(&self) -> Option<&RecordKey> {
        self.key.as_ref()
    }

    /// Returns how to find out whether the plan has completed.
    pub(super) fn completed(&self) -> &Completed {
        &self.completed
    }

    /// Returns the parts of the undo, in the order in which they run.
    pub(super) fn items(&self) -> &[UndoItem] {
        &self.items
    }

    /// Returns the statements of the undo, for people.
    pub fn remedy(&self) -> String {
        let words: Vec<String> = self.items.iter().flat_map(UndoItem::words).collect();
        words.join("; ")
    }

    /// Returns the NOTICE about an undo that has run. `done` are the statements that were run.
    pub fn report(&self, done: &[String]) -> Report {
        let message = match self.reason {
            PendingReason::Lost => format!("undid the unfinished {} of a session that was lost", self.tag),
            PendingReason::Blocked => format!("undid the unfinished {} of a statement that failed", self.tag),
        };
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(format!("Statements run: {}.", done.join("; ")))
    }
}

impl UndoItem {
    /// Returns the statements of this part, for people.
    fn words(&self) -> Vec<String> {
        match self {
            Self::Steps { undo, .. } => undo.steps.iter().map(|step| step.sql.clone()).collect(),
            Self::Index { phase, .. } => match &phase.undo {
                Some(Undo::DropBuiltIndex { index, .. } | Undo::FinishDrop { index, .. }) => {
                    vec![format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.quoted())]
                }
                Some(Undo::DropNewIndex { table, .. }) => vec![format!("-- drop the new index of {table}")],
                Some(Undo::DropInvalidIndexes { table, .. }) => vec![format!("-- drop the invalid indexes of {table}")],
                Some(Undo::Run(_)) | None => Vec::new(),
            },
        }
    }
}
