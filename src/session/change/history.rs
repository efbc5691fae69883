//! The history of a session's optimistic tries.
//!
//! It owns the relations whose optimistic tries miss, the statement that was slow in a batch, and the records that the session has written ahead of
//! transactions. It keeps true: a statement is not tried again
//! on a relation whose try has missed. Another try would miss, too, and leave an ERROR in the server's log.

use super::rights::PlanningRights;
use crate::backend::ServerChannel;
use crate::execute::record::RecordKey;
use crate::plan::Limits;
use crate::plan::optimistic::{self, FirstTryMiss, OptimisticPlan};
use crate::sql::{Class, Statement};

/// How many misses a session remembers.
const MOST_MISSES: usize = 64;

/// The most parts of a statement whose plan is surely made in a few milliseconds. The planner may compare each part with every other.
pub(super) const SURELY_QUICK: usize = 200;

/// The history is boxed, since few sessions make a try.
#[derive(Debug, Default)]
pub(super) struct TryHistory(Option<Box<Tries>>);

/// The records of the statements that were run ahead of the client's transactions, also of those that are over: an id is used once. They are
/// boxed, since few sessions have any.
#[derive(Debug, Default)]
pub(super) struct OwnRecords(Option<Box<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    keys: Vec<RecordKey>,
}

impl OwnRecords {
    pub(super) fn keys(&self) -> &[RecordKey] {
        self.0.as_ref().map_or(&[], |own| &own.keys)
    }

    pub(super) fn add(&mut self, key: RecordKey) {
        self.0.get_or_insert_default().keys.push(key);
    }
}

#[derive(Debug, Default)]
struct Tries {
    /// Relations whose schema changes need facts.
    misses: Vec<FirstTryMiss>,
    /// A statement that has exceeded its hold budget in a batch. It runs by itself next.
    slow_next: Option<String>,
}

impl TryHistory {
    /// The optimistic try of a statement. `None`: the statement goes through all stages.
    pub(super) fn optimistic_plan(
        &self,
        rights: &PlanningRights,
        channel: &ServerChannel,
        statement: &Statement,
        limits: &Limits,
    ) -> Option<OptimisticPlan> {
        if rights.are_missing() || channel.speech().is_in_private(&statement.text) {
            return None;
        }
        if matches!(&statement.class, Class::Ddl(ddl) if ddl.parts.len() > SURELY_QUICK) {
            return None;
        }
        let plan = optimistic::optimistic(statement, channel.status() != b'I', limits);
        plan.filter(|plan| !self.misses_again(plan))
    }

    /// The condition of an optimistic try did not hold.
    pub(super) fn remember_miss(&mut self, plan: &OptimisticPlan) {
        let tries = self.0.get_or_insert_default();
        if tries.misses.len() < MOST_MISSES {
            tries.misses.extend(plan.condition.miss());
        }
    }

    fn misses_again(&self, plan: &OptimisticPlan) -> bool {
        self.0.as_ref().is_some_and(|tries| plan.condition.missed_before(&tries.misses))
    }

    /// The statement has exceeded its hold budget in a batch.
    pub(super) fn remember_slow(&mut self, statement: &Statement) {
        self.0.get_or_insert_default().slow_next = Some(statement.text.clone());
    }

    /// Whether this statement is the slow one. It is then forgotten.
    pub(super) fn take_slow(&mut self, statement: &Statement) -> bool {
        let next = self.0.as_mut().map(|tries| &mut tries.slow_next);
        next.and_then(|next| next.take_if(|text| *text == statement.text)).is_some()
    }
}
