//! A statement that was taken for a brief one and is not: it goes another way, rather than fail for the time it takes.
//!
//! A table of a few rows is small, unless a function of the statement's takes its time for each. As one step under its lock such a statement
//! outlives the hold budget and is taken back; then it is planned as if the table were large. Where that gives it phases, nobody waits for
//! it; where there is no other way, it is guarded, with a WARNING, and takes as long as it takes directly.

use super::Session;
use crate::execute::{Reply, RunError};
use crate::plan::optimistic::{FirstTryMiss, OptimisticPlan};
use crate::sql::Statement;

/// What the first tries of a session have shown.
#[derive(Debug, Default)]
pub(super) struct TryHistory {
    /// Relations whose schema changes need facts: another try would be as vain, and an ERROR in the server's log.
    misses: Vec<FirstTryMiss>,
    /// The statement at hand has outlived its hold budget: it is planned as if its table were large.
    slow: bool,
    /// One that has done so among others, and goes by itself soon.
    slow_next: Option<String>,
}

/// Relations that a session remembers to need facts.
const VAIN: usize = 64;

impl Session {
    /// With all that its plan depends on; `slow`: it has outlived its hold budget before.
    pub(super) async fn run_by_size(
        &mut self,
        statement: &Statement,
        offset: usize,
        slow: bool,
    ) -> Result<Reply, RunError> {
        self.plan_as_slow(slow);
        let mut result = self.run_fully(statement, offset).await;
        if matches!(result, Err(RunError::Slow)) {
            self.plan_as_slow(true);
            // Facts are asked for anew: more is worth asking now, and others have had the table meanwhile.
            result = self.run_fully(statement, offset).await;
        }
        self.plan_as_slow(false);
        result
    }

    fn plan_as_slow(&mut self, slow: bool) {
        if slow || self.nothing_is_small() {
            self.try_history.get_or_insert_default().slow = slow;
        }
    }

    /// Whether the statement at hand is planned so.
    pub(super) fn nothing_is_small(&self) -> bool {
        self.try_history.as_ref().is_some_and(|lessons| lessons.slow)
    }

    /// A statement that was tried together with others.
    pub(super) fn remember_slow(&mut self, statement: &Statement) {
        self.try_history.get_or_insert_default().slow_next = Some(statement.text.clone());
    }

    /// Whether it was this one.
    pub(super) fn is_slow(&mut self, statement: &Statement) -> bool {
        let next = self.try_history.as_mut().map(|lessons| &mut lessons.slow_next);
        next.and_then(|next| next.take_if(|text| *text == statement.text)).is_some()
    }

    /// The condition of a first try did not hold.
    pub(super) fn remember_miss(&mut self, first: &OptimisticPlan) {
        let lessons = self.try_history.get_or_insert_default();
        if lessons.misses.len() < VAIN {
            lessons.misses.extend(first.condition.miss());
        }
    }

    pub(super) fn misses_again(&self, first: &OptimisticPlan) -> bool {
        self.try_history.as_ref().is_some_and(|lessons| first.condition.missed_before(&lessons.misses))
    }
}
