//! Schema changes that are done ahead of the client's transaction, because they would make the application wait inside it.
//!
//! A transaction is suspended by a ROLLBACK on the client's own backend, the schema change is run by its usual plan outside any transaction, and
//! what the client has sent is run again. The client gets its reply inside its transaction and notices nothing.
//!
//! [`AheadRun`] owns nothing: it borrows the parts of the session for one statement. It keeps true: what was done ahead is final exactly if the
//! client's transaction is. Its record is removed inside the client's transaction, right before the COMMIT. If the transaction ends in another way,
//! what was done ahead is undone, last first, before the client gets ReadyForQuery.
//!
//! - `case`: what the client has sent, what each statement does, and which statements go ahead.
//! - `suspend`: ROLLBACK, and what outlives it: settings and advisory locks. `replay`: BEGIN, and the client's statements again.
//! - `free`: a table that the transaction keeps locked before a long write.
//! - `explain`: what would be done, as text.
//! - `told`: what the client knows of rows that are free meanwhile.
//! - `locked_out`: a wait for a lock that the transaction is suspended for. `lock_first`: a lock that the transaction takes first when it is run again.
//! - `settle`: COMMIT, ROLLBACK, ROLLBACK TO, and a client that leaves.

mod case;
mod locked_out;
mod outlives;
mod explain;
mod free;
mod lock_first;
mod replay;
mod settle;
mod suspend;
mod told;

use self::outlives::Suspended;
use super::ahead_statements::AheadStatements;
use super::block::Block;
use super::change::{Place, Request, SchemaChanges};
use super::reply::tag_of;
use super::sent::Case;
use super::shared::Shared;
use crate::backend::ServerChannel;
use crate::execute::{Reply, RunError, Suspend};
use crate::pg::sqlstate;
use crate::plan::ahead::NotAhead;
use crate::sql::Statement;
use std::time::Instant;

/// The parts of the session that a statement of a transaction needs.
pub(super) struct AheadRun<'s> {
    pub(super) channel: &'s mut ServerChannel,
    pub(super) block: &'s mut Block,
    pub(super) changes: &'s mut SchemaChanges,
    pub(super) shared: &'s Shared,
}

/// How an attempt to do a statement ahead has ended. The client's transaction has been run again.
enum Hoisted {
    Done(Reply),
    /// The statement has failed. The transaction is to fail.
    Failed(RunError),
    /// The statement is to run in the transaction, for this reason.
    NotAhead(NotAhead),
}

impl AheadRun<'_> {
    /// Runs a schema change. If it would make the application wait in the client's transaction, it is done ahead of it, where that is possible.
    pub(super) async fn run(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        let request = Request { statement, offset, place: Place::Anywhere };
        match Box::pin(self.changes.run(self.channel, self.block, request)).await {
            Err(RunError::Suspend(why)) => {
                // It is rare, and its future is large.
                Box::pin(self.run_suspended(why, statement, offset)).await
            }
            result => result,
        }
    }

    /// Runs a schema change for which the client's transaction is to be suspended, for this reason.
    pub(super) async fn run_suspended(
        &mut self,
        why: Suspend,
        statement: &Statement,
        offset: usize,
    ) -> Result<Reply, RunError> {
        match why {
            Suspend::WouldStall => self.run_stalling(statement, offset).await,
            Suspend::LockedOut => self.run_locked_out(statement, offset).await,
            Suspend::Deadlock(deadlock) => {
                self.lock_first(*deadlock, statement).await?;
                self.run_in_place(statement, offset, None).await
            }
        }
    }

    /// Runs a schema change that would make the application wait in the client's transaction.
    async fn run_stalling(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        let why = match self.case(statement).await? {
            Err(why) => why,
            Ok(case) => match Box::pin(self.do_ahead(case, Some((statement, offset)))).await? {
                Hoisted::Done(reply) => return Ok(reply),
                Hoisted::Failed(stop) => return Err(self.fail(stop).await?),
                Hoisted::NotAhead(why) => why,
            },
        };
        self.shared.metrics.ddl_not_ahead.add();
        self.run_in_place(statement, offset, Some(&why)).await
    }

    /// Runs the statement in the transaction, where it may make others wait. A WARNING says why.
    async fn run_in_place(
        &mut self,
        statement: &Statement,
        offset: usize,
        why: Option<&NotAhead>,
    ) -> Result<Reply, RunError> {
        loop {
            let request = Request { statement, offset, place: Place::InBlock(why) };
            match Box::pin(self.changes.run(self.channel, self.block, request)).await {
                Err(RunError::Suspend(Suspend::Deadlock(deadlock))) => {
                    Box::pin(self.lock_first(*deadlock, statement)).await?;
                }
                result => return result,
            }
        }
    }

    /// Suspends the transaction, does the statements ahead, and runs the transaction again. `last`: the statement that the client waits for, if
    /// it goes ahead, and the characters of the client's string before it.
    async fn do_ahead(&mut self, case: Case, last: Option<(&Statement, usize)>) -> Result<Hoisted, RunError> {
        let begun = Instant::now();
        let told = match self.told(&case).await? {
            Ok(told) => told,
            Err(why) => return Ok(Hoisted::NotAhead(why)),
        };
        let suspended = self.suspend(&case, told).await?;
        let hoisted = match self.hoist(&case, last).await {
            Err(RunError::Lost) => {
                self.leave_behind();
                return Err(RunError::Lost);
            }
            hoisted => hoisted,
        };
        self.wake(&suspended).await?;
        let hoisted = match hoisted {
            Err(stop) if is_of_the_statement(&stop) && !case.has_savepoints() => {
                self.begin_failed(&case.sent, &suspended).await?;
                return Ok(Hoisted::Failed(stop));
            }
            hoisted => hoisted,
        };
        self.come_back(case, suspended, hoisted.is_ok()).await?;
        if let (Ok(reply), Some((statement, _))) = (&hoisted, last) {
            self.block.acted(statement, tag_of(reply));
        }
        if let Some(journal) = self.block.journal_mut() {
            journal.own_time(begun.elapsed());
        }
        Ok(match hoisted {
            Ok(reply) => Hoisted::Done(reply),
            Err(stop) if is_of_the_statement(&stop) => Hoisted::Failed(stop),
            Err(stop) => Hoisted::NotAhead(not_done(&stop)),
        })
    }

    /// Runs the transaction again. `done`: statements were done ahead.
    async fn come_back(&mut self, case: Case, suspended: Suspended, done: bool) -> Result<(), RunError> {
        let end = case.len();
        if !done {
            return Box::pin(self.replay(&case.sent, &suspended, end)).await;
        }
        // If the second run fails, a ROLLBACK TO may still take the statement back.
        self.block.ahead_mut().knows(case.sent, suspended.told.clone());
        let sent = self.block.ahead_mut().take_sent();
        let result = Box::pin(self.replay(&sent, &suspended, end)).await;
        self.block.ahead_mut().put_sent(sent);
        result
    }

    /// Runs the statements ahead, in their order, and the last one. If one fails, those before it are undone.
    async fn hoist(&mut self, case: &Case, last: Option<(&Statement, usize)>) -> Result<Reply, RunError> {
        let before = self.block.ahead().map_or(0, AheadStatements::len);
        let result = self.run_all(case, last).await;
        if result.is_err() && !matches!(result, Err(RunError::Lost)) {
            self.undo_down_to(before).await?;
        }
        result
    }

    async fn run_all(&mut self, case: &Case, last: Option<(&Statement, usize)>) -> Result<Reply, RunError> {
        for (place, earlier) in case.going_ahead() {
            let (_, ahead) = Box::pin(self.changes.run_ahead(self.channel, earlier, None)).await?;
            self.block.ahead_mut().push(place, ahead);
        }
        self.shared.metrics.ddl_ahead.add();
        let Some((statement, offset)) = last else { return Ok(Reply::default()) };
        let (reply, ahead) = Box::pin(self.changes.run_ahead(self.channel, statement, Some(offset))).await?;
        self.block.ahead_mut().push(case.len(), ahead);
        Ok(reply)
    }

    /// Makes the client's transaction fail, as an error of the server would.
    async fn fail(&mut self, stop: RunError) -> Result<RunError, RunError> {
        if self.channel.status() == b'T' {
            super::transaction::fail(self.channel).await?;
        }
        Ok(stop)
    }
}

/// Why a statement that was tried ahead of the transaction is to run in it.
fn not_done(stop: &RunError) -> NotAhead {
    NotAhead {
        detail: format!("That failed with {}.", stop.reason()),
        hint: "Send the statement outside a transaction.".to_owned(),
    }
}

/// Whether the error is the statement's own, and not due to its place ahead of the transaction: the rows do not allow the change, or the client
/// has cancelled it, or its time is over.
fn is_of_the_statement(stop: &RunError) -> bool {
    match stop {
        RunError::Server(error) => is_final(error.sqlstate()),
        // What the gate holds or refuses is not run in the transaction either.
        RunError::Report(report) => {
            is_final(report.sqlstate) || report.sqlstate == sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE
        }
        RunError::ClientGone => true,
        RunError::Slow | RunError::Suspend(_) | RunError::Lost | RunError::Stale => false,
    }
}

fn is_final(state: &str) -> bool {
    let states = [sqlstate::QUERY_CANCELED, sqlstate::LOCK_NOT_AVAILABLE, sqlstate::DEADLOCK_DETECTED];
    state.starts_with("23") || states.contains(&state)
}
