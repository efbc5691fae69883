//! LOCK TABLE of a client: one brief phase, whose step is the client's own text.
//!
//! The locks of the phase say what the statement waits for. The step takes them itself, by attempts, so the server checks names and
//! privileges, and it follows partitions, children and views.
//!
//! Limit: the relations under a view are not listed, so the sessions that hold locks on them are not named.

use super::model::{LockNeed, Phase, PhaseKind, Plan, Step};
use crate::catalog::Facts;
use crate::sql::form::Cost;
use crate::sql::{LockTable, Statement};
use std::collections::BTreeMap;

/// The one phase of a LOCK TABLE.
pub fn lock_table_phase(statement: &Statement, lock: &LockTable, facts: &Facts) -> Phase {
    let locks = needs(lock, facts);
    let (kind, purpose) = match locks.is_empty() {
        true => (PhaseKind::Relay, "the transaction has the locks already, or nothing is known of the relations"),
        false => (PhaseKind::Brief, "take the locks by attempts that make nobody wait"),
    };
    Phase {
        kind,
        purpose: purpose.to_owned(),
        in_transaction: true,
        locks,
        steps: vec![Step::as_written(&statement.text)],
        undo: None,
        backfill: None,
        detach: None,
        tidies: false,
    }
}

/// The plan of a LOCK TABLE.
pub(super) fn plan(statement: &Statement, lock: &LockTable, facts: &Facts) -> Plan {
    Plan {
        statement: statement.text.clone(),
        tag: "LOCK TABLE".to_owned(),
        forms: Vec::new(),
        lock: Some(lock.mode),
        cost: Cost::Brief,
        notes: Vec::new(),
        answer: None,
        phases: vec![lock_table_phase(statement, lock, facts)],
        meanwhile: Vec::new(),
    }
}

/// The locks for which the statement may wait, in the order of oids. There is no entry for a relation that only this transaction can see,
/// or that it has locked strongly enough already.
fn needs(lock: &LockTable, facts: &Facts) -> Vec<LockNeed> {
    let mut by_oid: BTreeMap<u32, LockNeed> = BTreeMap::new();
    for locked in &lock.relations {
        let Some(found) = facts.relation(&locked.name).map(|found| found.lock_facts()) else { continue };
        let oid = found.relation.oid;
        let held = found.own_lock;
        if found.persistence == 't' || found.created_here || held.is_some_and(|held| held.covers(lock.mode)) {
            continue;
        }
        let need = LockNeed {
            only: locked.only,
            held: held.is_some(),
            below: if locked.only { 0 } else { facts.below(oid) },
            ..LockNeed::alone(found.relation.full_name(), oid, lock.mode)
        };
        let have = by_oid.entry(oid).or_insert_with(|| need.clone());
        have.only &= need.only;
        have.below = have.below.max(need.below);
    }
    by_oid.into_values().collect()
}
