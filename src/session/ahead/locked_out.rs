//! A lock that is not to be had while the client's transaction holds locks of its own.
//!
//! Others wait for the transaction for as long as it waits. So it is suspended, the proxy waits without any lock until the statement's locks can be
//! had, and the transaction is run again. It owns nothing. It keeps true: the statement has its place in the transaction, and the client waits
//! no longer than `deadline` and its own timeouts allow.

use super::AheadRun;
use crate::execute::{Reply, RunError, Suspend};
use crate::plan::ahead::NotAhead;
use crate::session::change::{Place, Request};
use crate::session::sent::Case;
use crate::sql::Statement;
use std::time::{Duration, Instant};

impl AheadRun<'_> {
    /// Runs a statement that has waited for its lock for the stall budget, while the transaction holds locks that make others wait.
    pub(super) async fn run_locked_out(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        let begun = Instant::now();
        loop {
            let case = match self.case_in_place(statement).await? {
                Ok(case) => case,
                Err(why) => return self.run_in_place(statement, offset, Some(&why)).await,
            };
            match Box::pin(self.wait_suspended(case, statement)).await? {
                Waited::ForLocks { deadline } => {
                    if begun.elapsed() >= self.longest_wait(deadline).await? {
                        return self.run_in_place(statement, offset, None).await;
                    }
                }
                Waited::NotAtAll(why) => return self.run_in_place(statement, offset, Some(&why)).await,
                Waited::Failed(stop) => return Err(self.fail(stop).await?),
            }
            let request = Request { statement, offset, place: Place::Anywhere };
            match Box::pin(self.changes.run(self.channel, self.block, request)).await {
                Err(RunError::Suspend(Suspend::LockedOut)) => {}
                Err(RunError::Suspend(why)) => return Box::pin(self.run_suspended(why, statement, offset)).await,
                result => return result,
            }
        }
    }

    /// Suspends the transaction, waits until the statement's locks can be had, and runs the transaction again.
    async fn wait_suspended(&mut self, case: Case, statement: &Statement) -> Result<Waited, RunError> {
        let begun = Instant::now();
        let told = match self.told(&case).await? {
            Ok(told) => told,
            Err(why) => return Ok(Waited::NotAtAll(why)),
        };
        let suspended = self.suspend(&case, told).await?;
        let waited = match Box::pin(self.changes.wait_for_locks(self.channel, statement)).await {
            Err(RunError::Lost) => {
                self.leave_behind();
                return Err(RunError::Lost);
            }
            waited => waited,
        };
        self.wake(&suspended).await?;
        self.shared.metrics.blocks_locked_out.add();
        Box::pin(self.replay(&case.sent, &suspended, case.len())).await?;
        if let Some(journal) = self.block.journal_mut() {
            journal.own_time(begun.elapsed());
        }
        Ok(match waited {
            Ok(deadline) => Waited::ForLocks { deadline },
            Err(stop) => Waited::Failed(stop),
        })
    }

    /// How long the client may wait. `deadline`: the statement's, by its rule.
    async fn longest_wait(&mut self, deadline: Duration) -> Result<Duration, RunError> {
        let session = self.changes.session_facts(self.channel).await?.session;
        let timeouts = [session.lock_timeout_ms, session.statement_timeout_ms];
        let timeouts = timeouts.into_iter().filter(|timeout| *timeout > 0).map(Duration::from_millis);
        Ok(timeouts.fold(deadline, Duration::min))
    }
}

/// How the wait has ended. The transaction has been run again, unless it could not be suspended.
enum Waited {
    ForLocks {
        /// The limit of the statement's waits, by the settings or by the rule that is about it.
        deadline: Duration,
    },
    /// It was not suspended, for this reason.
    NotAtAll(NotAhead),
    /// The client gave up, or the wait took too long. The transaction is to fail.
    Failed(RunError),
}
