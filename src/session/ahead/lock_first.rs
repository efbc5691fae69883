//! A statement that waits for a session which waits for the client's transaction.
//!
//! Directly there would be no deadlock if an earlier statement of the transaction had locked the table, and that statement was done ahead. So the
//! transaction is run again, and takes the statement's locks before anything else.
//!
//! It owns nothing; the journal keeps which locks are taken first. It keeps true: a transaction is run again for each of its locks at most once, and
//! if that is not possible, the client gets the deadlock as an error.

use super::AheadRun;
use super::outlives::Suspended;
use super::suspend::Scope;
use crate::execute::{Deadlock, RunError};
use crate::plan::LockNeed;
use crate::plan::ahead::NotAhead;
use crate::report::Report;
use crate::session::sent::Sent;
use crate::sql::Statement;
use std::time::Instant;

impl AheadRun<'_> {
    /// Runs the transaction again before the statement, and takes the locks of the statement first.
    ///
    /// # Errors
    /// That was not possible. The transaction has failed, if there is one.
    pub(super) async fn lock_first(&mut self, deadlock: Deadlock, statement: &Statement) -> Result<(), RunError> {
        let begun = Instant::now();
        let case = match self.case_at_any_time(statement).await? {
            Ok(case) => case,
            Err(why) => return Err(self.fail(explained(deadlock.report, &why)).await?),
        };
        let told = match self.told(&case).await? {
            Ok(told) => told,
            Err(why) => return Err(self.fail(explained(deadlock.report, &why)).await?),
        };
        let noted = self.block.journal_mut().is_some_and(|journal| journal.lock_first(case.len(), &deadlock.locks));
        if !noted {
            return Err(self.fail(RunError::Report(deadlock.report)).await?);
        }
        let suspended = self.suspend(&case, told).await?;
        self.wake(&suspended).await?;
        self.shared.metrics.blocks_locked_first.add();
        Box::pin(self.replay(&case.sent, &suspended, case.len())).await?;
        if let Some(journal) = self.block.journal_mut() {
            journal.own_time(begun.elapsed());
        }
        Ok(())
    }

    /// Takes the locks that the transaction is to take first, if it is run again up to this place.
    pub(super) async fn take_first(
        &mut self,
        first: &[(usize, LockNeed)],
        sent: &[Sent],
        end: usize,
        suspended: &Suspended,
    ) -> Result<(), RunError> {
        let back = |place: usize| sent.get(place).is_some_and(|sent| sent.taken_back);
        let locks = first.iter().filter(|(place, _)| *place <= end && !back(*place)).map(|(_, lock)| lock.clone());
        let locks: Vec<LockNeed> = locks.collect();
        if locks.is_empty() {
            return Ok(());
        }
        // The wait is one of the client's transaction, with its timeouts. What runs again behind it sets them once more.
        self.set(&suspended.inside, Scope::Transaction).await?;
        // The client is told what it waits for.
        self.channel.set_muted(false);
        let result = Box::pin(self.changes.take_locks(self.channel, &locks)).await;
        self.channel.set_muted(true);
        result?;
        self.set(&suspended.settings, Scope::Transaction).await
    }
}

/// The error of a deadlock, and why the transaction is not run again.
fn explained(report: Report, why: &NotAhead) -> RunError {
    let detail = report.detail.clone().unwrap_or_default();
    RunError::Report(report.detail(format!("{detail} The transaction was not run again: {}", why.detail)))
}
