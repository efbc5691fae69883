//! LOCK TABLE.
//!
//! Invariant: a LOCK TABLE of which anything is not understood gives nothing, and is relayed.

use super::names::{range_var, relation};
use crate::pg::LockMode;
use crate::sql::{LockTable, LockedName};
use pg_query::protobuf::LockStmt;

pub(super) fn lock_table(stmt: &LockStmt) -> Option<LockTable> {
    // The grammar counts the modes from 1, the weakest.
    let mode = usize::try_from(stmt.mode).ok()?.checked_sub(1)?;
    let mode = LockMode::ALL.get(mode).copied()?;
    let names = stmt.relations.iter().map(|node| {
        let range = range_var(node)?;
        Some(LockedName { name: relation(Some(range))?, only: !range.inh })
    });
    Some(LockTable { relations: names.collect::<Option<_>>()?, mode, nowait: stmt.nowait })
}
