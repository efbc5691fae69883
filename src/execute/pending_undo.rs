//! What is left of plans to be undone by another session: by database and role, in the memory of this proxy.
//!
//! It owns the list, which is bounded, and says in words what would undo an entry. `lost_session.rs` fills it and undoes it.

use crate::execute::outcome::UndoneAfter;
use crate::execute::record::RecordKey;
use crate::pg::sqlstate;
use crate::plan::{Phase, Undo};
use crate::report::Report;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

/// Of one role in one database: as many statements must have lost their backends one after another.
const MOST: usize = 64;

/// What one statement has left.
#[derive(Debug)]
pub struct PendingUndo {
    tag: String,
    reason: PendingReason,
    completed: Completed,
    /// In the order in which it is undone.
    items: Vec<UndoItem>,
    /// It is on record too: the same statement continues it.
    key: Option<RecordKey>,
}

/// Why it is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum PendingReason {
    Lost,
    /// Somebody was in the way when the statement had failed.
    Blocked,
}

/// Whether the plan came to its end all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Completed {
    No,
    /// If this transaction has committed.
    Transaction(String),
    /// If this constraint is valid.
    Valid(u32),
}

#[derive(Debug)]
pub(super) enum UndoItem {
    /// Steps that undo, each with what tells the thing that it drops.
    Steps { undo: Phase, things: Vec<u32> },
    /// The phase of a build or a drop.
    Index { phase: Phase, how: UndoneAfter, built: Option<u32> },
}

/// By database and role.
#[derive(Debug, Default)]
pub struct PendingUndos(Mutex<HashMap<(String, String), VecDeque<PendingUndo>>>);

impl PendingUndos {
    pub fn keep(&self, database: &str, role: &str, pending: PendingUndo) {
        let Ok(mut kept) = self.0.lock() else { return };
        let of_role = kept.entry((database.to_owned(), role.to_owned())).or_default();
        if of_role.len() < MOST {
            of_role.push_back(pending);
        } else {
            tracing::warn!(remedy = pending.remedy(), "too much is left to be undone; this has to be done by hand");
        }
    }

    pub fn has_any(&self, database: &str, role: &str) -> bool {
        let key = (database.to_owned(), role.to_owned());
        self.0.lock().is_ok_and(|kept| kept.contains_key(&key))
    }

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
    /// `tag`: of the statement. `items`: in the order in which they are undone. `key`: its record, if there is one.
    pub(super) fn new(
        tag: &str,
        reason: PendingReason,
        completed: Completed,
        items: Vec<UndoItem>,
        key: Option<RecordKey>,
    ) -> Self {
        Self { tag: tag.to_owned(), reason, completed, items, key }
    }

    /// The record of the statement that left it, if it is on record: the same statement continues it.
    pub fn key(&self) -> Option<&RecordKey> {
        self.key.as_ref()
    }

    pub(super) fn completed(&self) -> &Completed {
        &self.completed
    }

    pub(super) fn items(&self) -> &[UndoItem] {
        &self.items
    }

    /// The statements that undo it, for people.
    pub fn remedy(&self) -> String {
        let words: Vec<String> = self.items.iter().flat_map(UndoItem::words).collect();
        words.join("; ")
    }

    /// What was done about it.
    pub fn report(&self, done: &[String]) -> Report {
        let message = match self.reason {
            PendingReason::Lost => format!("undid what {} had begun before its session was lost", self.tag),
            PendingReason::Blocked => format!("undid what {} had begun before it failed", self.tag),
        };
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(format!("Done: {}.", done.join("; ")))
    }
}

impl UndoItem {
    fn words(&self) -> Vec<String> {
        match self {
            Self::Steps { undo, .. } => undo.steps.iter().map(|step| step.sql.clone()).collect(),
            Self::Index { phase, .. } => match &phase.undo {
                Some(Undo::DropBuiltIndex { index, .. } | Undo::FinishDrop { index, .. }) => {
                    vec![format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.quoted())]
                }
                Some(Undo::DropInvalidIndexes { table, .. }) => vec![format!("-- drop the invalid indexes of {table}")],
                Some(Undo::Run(_)) | None => Vec::new(),
            },
        }
    }
}
