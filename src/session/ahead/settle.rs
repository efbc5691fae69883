//! The end of a transaction that has statements ahead of it.
//!
//! It owns nothing. It keeps true: before a COMMIT the records of these statements are removed inside the transaction. A transaction that has not
//! committed leaves none of them, unless a WARNING says so. If the backend is lost, the undo is left to the next statement of the role.

use super::AheadRun;
use super::outlives::Suspended;
use super::replay::conflict;
use super::suspend::TRIES;
use crate::backend::BackendLost;
use crate::catalog::Facts;
use crate::execute::context::SizeGuess;
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::plan::ahead::NotAhead;
use crate::report::Report;
use crate::session::ahead_statements::AheadStatements;
use crate::session::outcome::StatementOutcome;
use crate::session::reply::send_error;
use crate::session::run::{facts_without_questions, run_context};
use crate::session::sent::takes_advisory_locks;
use crate::session::transaction::fail;
use crate::sql::{EffectKind, ParseOptions, Statement, TransactionControl, effects};
use crate::wire::message::Batch;

/// The client's transaction control, and the status of the transaction before it.
#[derive(Debug)]
pub(in crate::session) struct Before {
    control: TransactionControl,
    /// What is done with a savepoint.
    savepoint: Option<EffectKind>,
    status: u8,
    /// The transaction was rolled back, so the client's portals are gone.
    rolled_back: bool,
}

impl Before {
    /// Whether the client's portals are gone, because the transaction was rolled back.
    pub(in crate::session) fn rolled_back(&self) -> bool {
        self.rolled_back
    }
}

/// What a ROLLBACK TO a savepoint has meant for what was done ahead.
enum RolledBackTo {
    /// Nothing ahead is younger than the savepoint.
    Not,
    /// The transaction was run again up to the savepoint.
    RunAgain,
    /// That was not possible. The transaction has failed, and the client has the error.
    Failed,
}

impl AheadRun<'_> {
    /// Makes the transaction ready for its COMMIT. `false`: that was not possible. It was rolled back, and the client has the
    /// error.
    pub(in crate::session) async fn before_commit(&mut self) -> Result<bool, BackendLost> {
        if self.channel.status() != b'T' || !self.block.has_ahead() {
            return Ok(true);
        }
        match self.confirm().await {
            Ok(()) => Ok(true),
            Err(stop) => {
                send_error(self.channel, &stop)?;
                self.channel.ask_one("ROLLBACK", &[]).await?;
                self.ended(false).await?;
                Ok(false)
            }
        }
    }

    /// A prepared transaction outlives its session, which holds what is ahead. So what is ahead is undone, and the transaction is run again with
    /// all of its statements in their places. `false`: that was not possible, and the client has the error.
    async fn before_prepare(&mut self, statement: &Statement) -> Result<bool, RunError> {
        if self.channel.status() != b'T' || !self.block.has_ahead() {
            return Ok(true);
        }
        let found = match self.case_at_any_time(statement).await? {
            Ok(case) => self.told(&case).await?.map(|told| (case, told)),
            Err(why) => Err(why),
        };
        let (case, told) = match found {
            Ok(found) => found,
            Err(why) => return self.cannot_prepare(&why).await,
        };
        let suspended = self.suspend(&case, told).await?;
        self.wake(&suspended).await?;
        self.undo_down_to(0).await?;
        self.channel.notify(&keeps_all_in_place());
        match Box::pin(self.replay(&case.sent, &suspended, case.len())).await {
            Ok(()) => Ok(true),
            Err(RunError::Lost) => Err(RunError::Lost),
            Err(stop) => {
                send_error(self.channel, &stop)?;
                Ok(false)
            }
        }
    }

    /// The transaction is rolled back, as one that the server cannot prepare.
    async fn cannot_prepare(&mut self, why: &NotAhead) -> Result<bool, RunError> {
        let message = "cannot PREPARE a transaction that has schema changes done ahead of it";
        let report = Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message)
            .detail(format!("The transaction cannot be run again. {}", why.detail))
            .hint("Use COMMIT, or set in_transaction = \"guard\" in [ddl] of proxy.toml.");
        self.channel.notify(&report);
        self.channel.ask_one("ROLLBACK", &[]).await?;
        self.ended(false).await?;
        Ok(false)
    }

    async fn confirm(&mut self) -> Result<(), RunError> {
        let facts = self.changes.session_facts(self.channel).await?;
        let context = &mut run_context(self.channel, self.shared, &facts, 0, SizeGuess::Any);
        for ahead in self.block.ahead().into_iter().flat_map(AheadStatements::iter) {
            ahead.confirm(context).await?;
        }
        Ok(())
    }

    /// The transaction has ended. If it has not committed, the statements ahead of it are undone.
    pub(in crate::session) async fn ended(&mut self, committed: bool) -> Result<(), BackendLost> {
        self.block.keeper_mut().end();
        self.channel.log_answers(0);
        if !self.block.has_ahead() {
            return Ok(());
        }
        let result = if committed { self.committed().await } else { self.undo_down_to(0).await };
        match result {
            Err(RunError::Lost) => {
                self.leave_behind();
                Err(BackendLost)
            }
            Err(stop) => {
                tracing::warn!(reason = stop.reason(), "could not end what was done ahead of a transaction");
                // Nothing of it belongs to the next transaction.
                self.leave_behind();
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn committed(&mut self) -> Result<(), RunError> {
        // A question could be cancelled, and what has been committed must not be taken for something to be undone.
        let facts = facts_without_questions(self.channel);
        let context = &mut run_context(self.channel, self.shared, &facts, 0, SizeGuess::Any);
        for ahead in self.block.take_ahead().into_iter().flat_map(|ahead| ahead.take()) {
            ahead.committed(context).await?;
        }
        Ok(())
    }

    /// The facts of the session, asked again if a cancel hits the question.
    async fn facts_surely(&mut self) -> Result<Facts, RunError> {
        for _ in 0..TRIES {
            self.channel.cancel_settled().await;
            match self.changes.session_facts(self.channel).await {
                Err(RunError::Server(error)) if error.sqlstate() == sqlstate::QUERY_CANCELED => {}
                facts => return facts,
            }
        }
        self.changes.session_facts(self.channel).await
    }

    /// Undoes the statements ahead, the last one first, until so many are left.
    pub(super) async fn undo_down_to(&mut self, most: usize) -> Result<(), RunError> {
        if self.block.ahead().is_none_or(|ahead| ahead.len() <= most) {
            return Ok(());
        }
        let facts = self.facts_surely().await?;
        while let Some((_, ahead)) = self.block.ahead_mut().pop_down_to(most) {
            let Some(ahead) = ahead else { continue };
            let context = &mut run_context(self.channel, self.shared, &facts, 0, SizeGuess::Any);
            let pending = Box::pin(ahead.undo(context)).await?;
            pending.into_iter().for_each(|pending| self.changes.keep_pending(pending));
        }
        if most == 0 {
            self.block.take_ahead();
        }
        Ok(())
    }

    /// The backend is gone. What is ahead is undone by the next statement of the role.
    pub(in crate::session) fn leave_behind(&mut self) {
        for ahead in self.block.take_ahead().into_iter().flat_map(|ahead| ahead.take()) {
            ahead.left_behind().into_iter().for_each(|pending| self.changes.keep_pending(pending));
        }
    }

    /// Makes the transaction ready for the client's transaction control. `None`: it has failed, and the client has the error.
    pub(in crate::session) async fn before_control(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
    ) -> Result<Option<Before>, RunError> {
        let savepoint = (control == TransactionControl::Savepoint).then(|| of_savepoint(statement)).flatten();
        let mut before = Before { control, savepoint, status: self.channel.status(), rolled_back: false };
        let goes = match control {
            TransactionControl::Commit { .. } => self.before_commit().await?,
            TransactionControl::Prepare => {
                before.rolled_back = self.block.has_ahead() && self.channel.status() == b'T';
                self.before_prepare(statement).await?
            }
            TransactionControl::Savepoint => match &before.savepoint {
                Some(EffectKind::RollbackTo(savepoint)) => match self.before_rollback_to(savepoint, statement).await? {
                    RolledBackTo::Not => true,
                    RolledBackTo::RunAgain => {
                        before.rolled_back = true;
                        true
                    }
                    RolledBackTo::Failed => false,
                },
                _ => true,
            },
            TransactionControl::Begin | TransactionControl::Rollback { .. } => true,
        };
        let undone = match control {
            TransactionControl::Rollback { chain } => chain && before.status != b'I',
            TransactionControl::Commit { chain } => chain && before.status == b'E',
            _ => false,
        };
        if undone && self.block.has_ahead() {
            before.rolled_back = true;
            self.undo_before_chain().await?;
        }
        Ok(goes.then_some(before))
    }

    /// The client rolls the transaction back and begins another one at once, in which nothing could be undone. So the proxy rolls the transaction
    /// back, undoes what is ahead, and begins a like one, which the client's statement then ends.
    async fn undo_before_chain(&mut self) -> Result<(), RunError> {
        let Some(ahead) = self.block.ahead() else { return Ok(()) };
        let (begin, failed) = (ahead.begin().to_owned(), self.channel.status() == b'E');
        self.channel.ask_one("ROLLBACK", &[]).await?;
        self.undo_down_to(0).await?;
        self.channel.ask_one(&begin, &[]).await?;
        if failed {
            fail(self.channel).await?;
        }
        Ok(())
    }

    /// The server has answered the client's transaction control.
    pub(in crate::session) async fn behind_control(
        &mut self,
        before: Before,
        outcome: StatementOutcome,
    ) -> Result<(), BackendLost> {
        let (commits, chain) = match before.control {
            TransactionControl::Commit { chain } => (true, chain),
            TransactionControl::Prepare => (true, false),
            TransactionControl::Rollback { chain } => (false, chain),
            TransactionControl::Begin => return Ok(()),
            TransactionControl::Savepoint => {
                if outcome == StatementOutcome::Done && self.block.has_ahead() {
                    before.savepoint.iter().for_each(|control| self.block.ahead_mut().did(control));
                }
                return Ok(());
            }
        };
        let done = outcome == StatementOutcome::Done;
        // An error of ROLLBACK leaves the transaction as it was.
        if self.channel.status() != b'I' && !(chain && done) {
            return Ok(());
        }
        let committed = commits && done && before.status == b'T';
        if !committed && self.channel.status() == b'T' {
            // AND CHAIN has begun another transaction, in which nothing can be undone.
            self.leave_behind();
            return Ok(());
        }
        self.ended(committed).await
    }

    /// Ends the proxy's block, which stands for an implicit transaction of the client's. The client gets an error of COMMIT. `true`: it has
    /// committed.
    pub(in crate::session) async fn end_proxys_block(&mut self) -> Result<bool, BackendLost> {
        let error = match self.channel.status() {
            b'T' if self.before_commit().await? => self.channel.ask_one("COMMIT", &[]).await?.error,
            b'T' => return Ok(false),
            b'E' => {
                self.channel.ask_one("ROLLBACK", &[]).await?;
                self.ended(false).await?;
                return Ok(false);
            }
            _ => return Ok(false),
        };
        if let Some(error) = &error {
            self.channel.send_to_client(&error.frame);
        }
        self.ended(error.is_none()).await?;
        Ok(error.is_none())
    }

    /// Commits the proxy's block. The client then gets the reply of the last statement, or the notices of that and the error of COMMIT.
    pub(in crate::session) async fn commit_behind(&mut self, reply: Reply) -> Result<StatementOutcome, BackendLost> {
        if !self.before_commit().await? {
            return Ok(StatementOutcome::Failed);
        }
        let error = self.channel.ask_one("COMMIT", &[]).await?.error;
        match &error {
            None => self.channel.send_to_client(&reply.frames),
            Some(error) => {
                self.channel.send_to_client(&reply.notices());
                self.channel.send_to_client(&error.frame);
            }
        }
        self.ended(error.is_none()).await?;
        Ok(if error.is_none() { StatementOutcome::Done } else { StatementOutcome::Failed })
    }

    /// The client leaves, or the proxy stops. The transaction is rolled back, and what is ahead of it is undone.
    pub(in crate::session) async fn leave(&mut self) -> Result<(), BackendLost> {
        self.answer_all().await?;
        if self.channel.status() != b'I' {
            self.channel.ask_one("ROLLBACK", &[]).await?;
        }
        self.ended(false).await
    }

    /// Reads the answers that the backend owes the client, which has left. What the backend is doing is cancelled.
    async fn answer_all(&mut self) -> Result<(), BackendLost> {
        if self.channel.is_unsynced() {
            self.channel.account(b'S');
            self.channel.send_to_server(&Batch::default().sync().bytes);
        }
        if self.channel.owes() > 0 {
            let key = self.channel.backend_key().clone();
            self.channel.cancels().cancel_work(&key);
        }
        while self.channel.owes() > 0 {
            let frame = self.channel.next_server_frame().await?;
            self.channel.received(frame.first().copied().unwrap_or_default());
        }
        self.channel.cancel_settled().await;
        Ok(())
    }

    /// ROLLBACK TO a savepoint. If a statement behind the savepoint was done ahead, it is undone, and the transaction is run again up to the
    /// savepoint.
    async fn before_rollback_to(&mut self, savepoint: &str, statement: &Statement) -> Result<RolledBackTo, RunError> {
        let Some(ahead) = self.block.ahead() else { return Ok(RolledBackTo::Not) };
        // The server refuses a ROLLBACK TO a savepoint that does not exist.
        let Some(place) = ahead.place_of(savepoint) else { return Ok(RolledBackTo::Not) };
        let stay = ahead.count_before(place);
        if stay == ahead.len() {
            return Ok(RolledBackTo::Not);
        }
        if ahead.has_before_behind(stay, place) {
            return self
                .give_up(conflict("Its savepoint stands between statements that were done ahead.".to_owned()))
                .await;
        }
        let told = ahead.told_before(place);
        let sent = self.block.ahead_mut().take_sent();
        // In a failed transaction the server answers no question about its locks.
        self.channel.ask_one(&statement.text, &[]).await?;
        let locks = self.roll_back(takes_advisory_locks(&sent)).await?;
        self.undo_down_to(stay).await?;
        let suspended = Suspended::knowing(locks, told);
        let result = Box::pin(self.replay(&sent, &suspended, place + 1)).await;
        if self.block.has_ahead() {
            self.block.ahead_mut().put_sent(sent);
        }
        match result {
            Ok(()) => Ok(RolledBackTo::RunAgain),
            Err(RunError::Lost) => Err(RunError::Lost),
            Err(stop) => {
                send_error(self.channel, &stop)?;
                Ok(RolledBackTo::Failed)
            }
        }
    }

    /// Undoes all that is ahead. The client's transaction is one that has failed.
    async fn give_up(&mut self, report: Report) -> Result<RolledBackTo, RunError> {
        self.channel.ask_one("ROLLBACK", &[]).await?;
        self.undo_down_to(0).await?;
        self.channel.notify(&report);
        self.channel.ask_one("BEGIN", &[]).await?;
        fail(self.channel).await?;
        Ok(RolledBackTo::Failed)
    }
}

/// The WARNING of a transaction whose statements are run in their places after all.
fn keeps_all_in_place() -> Report {
    Report::warning(
        sqlstate::WARNING,
        "the transaction is run again, and makes others wait while its schema changes run",
    )
    .detail("A prepared transaction outlives its session, so nothing can be done ahead of it.")
    .hint("Use COMMIT, so that the schema changes are done ahead of the transaction.")
}

/// What a statement does with a savepoint.
fn of_savepoint(statement: &Statement) -> Option<EffectKind> {
    Some(effects(&statement.text, ParseOptions::default()).ok()?.pop()?.1.kind)
}
