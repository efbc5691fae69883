//! A statement that was taken for a brief one and is not: it goes another way, rather than fail for the time it takes.
//!
//! A table of a few rows is small, unless a function of the statement's takes its time for each. As one step under its lock such a statement
//! outlives the hold budget and is taken back; then it is planned as if the table were large. Where that gives it phases, nobody waits for
//! it; where there is no other way, it is guarded, with a WARNING, and takes as long as it takes directly.

use super::Session;
use crate::execute::{Reply, Stop};
use crate::sql::Statement;

impl Session {
    /// With all that its plan depends on; `slow`: it has outlived its hold budget before.
    pub(super) async fn at_its_pace(
        &mut self,
        statement: &Statement,
        offset: usize,
        slow: bool,
    ) -> Result<Reply, Stop> {
        self.nothing_is_small = slow;
        let mut result = self.run_fully(statement, offset).await;
        if matches!(result, Err(Stop::Slow)) {
            self.nothing_is_small = true;
            // Facts are asked for anew: more is worth asking now, and others have had the table meanwhile.
            result = self.run_fully(statement, offset).await;
        }
        self.nothing_is_small = false;
        result
    }

    /// A statement that was tried together with others.
    pub(super) fn remember_slow(&mut self, statement: &Statement) {
        self.slow = Some(statement.text.as_str().into());
    }

    pub(super) fn is_slow(&mut self, statement: &Statement) -> bool {
        self.slow.take().is_some_and(|text| *text == *statement.text)
    }
}
