//! What the proxy's own questions on a session's backend tell of the schema change that they are for.
//!
//! It owns nothing: the change's entry is in the registry. It keeps true: a wait is shown with the words that stand in `pg_stat_activity`, since
//! both have them from the question itself.

use super::channel::ServerChannel;
use crate::registry::{BlockerSeen, ChangeEntry};
use std::sync::Arc;

impl ServerChannel {
    /// The questions from now on are for this schema change, or for none.
    pub fn set_change(&mut self, change: Option<Arc<ChangeEntry>>) {
        self.change = change;
    }

    /// The schema change enters one of its phases. `phase` counts from 1.
    pub fn change_enters(&self, phase: usize, phases: usize) {
        self.change.iter().for_each(|change| change.enters(phase, phases));
    }

    /// These sessions are in the way of the schema change.
    pub fn change_sees(&self, blockers: impl Iterator<Item = BlockerSeen>) {
        if let Some(change) = &self.change {
            change.sees(blockers.collect());
        }
    }

    /// The number of the schema change; 0: there is none.
    pub fn change_number(&self) -> u64 {
        self.change.as_ref().map_or(0, |change| change.number)
    }

    /// The schema change is one that is held under this number.
    pub fn change_joins(&self, number: u64) {
        self.change.iter().for_each(|change| change.joins(number));
    }

    /// Whether a rule holds or has held the schema change.
    pub fn change_is_held(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.progress().joined.is_some())
    }

    /// The schema change holds these lanes.
    pub fn change_holds(&self, lanes: impl Iterator<Item = (u32, Option<String>)>) {
        if let Some(change) = &self.change {
            change.holds(lanes.collect());
        }
    }

    /// A question of the proxy's own is sent for the schema change.
    pub(super) fn change_asks(&self, sql: &str) {
        self.change.iter().for_each(|change| change.asks(sql));
    }

    /// A batch is sent for the schema change, which waits for nothing then.
    pub(super) fn change_goes_on(&self) {
        self.change.iter().for_each(|change| change.goes_on());
    }
}
