//! An Execute of a portal that the proxy stops at.
//!
//! [`Execute`] owns the portal's name. It keeps true: the proxy acts on a portal only if the server would run it. A Parse or Bind that the proxy
//! has seen may have failed, or the server may have skipped it. So the proxy asks the server for the portal's text, unless the client's messages
//! make the portal certain. Then it closes the portal and ends the pipeline by a Sync of its own, whose ReadyForQuery the client never sees, and
//! the backend is idle. A portal that waits for an advisory lock would hold a snapshot. So it is closed as long as the wait lasts, and bound
//! again when the lock is free.

use super::control;
use super::refusal::in_words_for_a_pipeline;
use crate::backend::{BackendLost, ServerChannel};
use crate::execute::advisory::ClientCall;
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::plan;
use crate::plan::optimistic::OptimisticPlan;
use crate::session::advisory::wait_for_lock;
use crate::session::ahead::AheadRun;
use crate::session::block::Block;
use crate::session::change::{PipelineOutcome, Place, Request, SchemaChanges};
use crate::session::interceptor::Interceptor;
use crate::session::outcome::{FrameOutcome, SessionEnd, StatementOutcome, settle};
use crate::session::prepared::{PreparedStatement, as_kept};
use crate::session::reply::{send_error, send_ready};
use crate::session::shared::Shared;
use crate::session::statement::{acts, characters, is_of, stands_alone};
use crate::session::text::{TextVerdict, cannot_be_asked, judge, statements_of};
use crate::session::{pipeline, transaction};
use crate::sql::{AdvisoryLock, Class, Statement, TransactionControl};
use crate::wire::message;
use std::sync::Arc;

/// An Execute, and the parts of the session that it needs.
pub(super) struct Execute<'s> {
    channel: &'s mut ServerChannel,
    interceptor: &'s mut Interceptor,
    changes: &'s mut SchemaChanges,
    shared: &'s Shared,
    /// The portal's name.
    portal: String,
}

impl<'s> Execute<'s> {
    /// The client's next frame, if it is the Execute of a portal that the proxy stops at, and the statement that the portal was bound to.
    pub(super) fn of_next_frame(
        channel: &'s mut ServerChannel,
        interceptor: &'s mut Interceptor,
        changes: &'s mut SchemaChanges,
        shared: &'s Shared,
    ) -> Option<(Self, Arc<PreparedStatement>)> {
        let name = message::execute(channel.peek_frame()?.1)?;
        let portal = std::str::from_utf8(as_kept(name)).ok()?.to_owned();
        let bound = interceptor.portal(name)?;
        Some((Self { channel, interceptor, changes, shared, portal }, bound))
    }

    /// Attends to the Execute.
    pub(super) async fn attend(mut self, bound: Arc<PreparedStatement>) -> Result<FrameOutcome, SessionEnd> {
        // After an error the server skips the Execute.
        if self.channel.is_skipping() || self.passes(&bound.statement) {
            return Ok(FrameOutcome::Pass);
        }
        // In a failed block the server refuses the statement, unless the client has ended that block in this pipeline.
        let control = matches!(bound.statement.class, Class::Transaction(_));
        let failed = self.channel.status() == b'E' && self.block().control().is_none() && !control;
        if !self.channel.owed_is_certain() || failed {
            if bound.statement.gated && !failed {
                return Err(SessionEnd::refused(cannot_be_asked()));
            }
            self.shared.metrics.ddl_uninterceptable.add();
            return Ok(FrameOutcome::Pass);
        }
        if !settle(self.channel).await? {
            return Ok(FrameOutcome::Handled);
        }
        if self.interceptor.block().has_ahead()
            && let Class::Transaction(control) = bound.statement.class
        {
            let Self { channel, interceptor, changes, shared, .. } = self;
            return control::run(channel, interceptor, changes, shared, control, &bound.statement).await;
        }
        match &bound.statement.class {
            Class::AdvisoryLock(lock) => self.wait_for_lock(&bound.statement, lock, &bound.types).await,
            Class::Lock(_) => self.lock_table(&bound).await,
            _ => self.act(bound).await,
        }
    }

    fn block(&mut self) -> &mut Block {
        self.interceptor.block_mut()
    }

    /// Whether the server may execute the statement at once: the client's block holds the locks that it needs, or the proxy stops at it only to
    /// note that it makes a table.
    fn passes(&mut self, statement: &Statement) -> bool {
        if !matches!(statement.class, Class::Ddl(_)) {
            return false;
        }
        let fresh = self.is_fresh();
        if acts(statement) && !self.is_let_pass(statement) {
            return fresh && self.may_pass(statement);
        }
        // The server must refuse the statement in the words for a pipeline, not for the proxy's block.
        if self.block().is_proxys() && stands_alone(statement) {
            return false;
        }
        // The name may mean a statement that the proxy acts on.
        if !fresh && !self.interceptor.is_sure(self.portal.as_bytes()) {
            return false;
        }
        // Without a Parse in this pipeline the name may mean another statement by now.
        self.block().passed(if fresh { std::slice::from_ref(statement) } else { &[] });
        true
    }

    /// Whether only the gate would be asked about the statement, and lets it run without a question. It may have parameters (CREATE TABLE AS),
    /// so that the server executes it.
    fn is_let_pass(&self, statement: &Statement) -> bool {
        let only_gated = statement.gated && matches!(&statement.class, Class::Ddl(ddl) if !plan::needs_plan(ddl));
        only_gated && self.changes.lets_pass(self.channel, statement)
    }

    /// Whether the client's block holds the locks that the statement needs.
    fn may_pass(&mut self, statement: &Statement) -> bool {
        let (limits, idle) = (self.shared.limits(), self.channel.is_idle());
        let passes = self.block().may_pass(std::slice::from_ref(statement), &limits, idle);
        if passes {
            self.changes.relayed(statement);
        }
        passes
    }

    fn is_fresh(&self) -> bool {
        self.interceptor.is_fresh(self.portal.as_bytes())
    }

    async fn act(&mut self, bound: Arc<PreparedStatement>) -> Result<FrameOutcome, SessionEnd> {
        let Some(bound) = self.as_the_server_has_it(bound).await? else { return Ok(FrameOutcome::Pass) };
        let statement = &bound.statement;
        // Amid a pipeline the server refuses the statement.
        let amid = self.channel.executes() > 0 || self.block().control().is_some();
        if amid && !self.block().is_proxys() && stands_alone(statement) {
            return Ok(FrameOutcome::Pass);
        }
        let misread = self.channel.speech() != bound.speech && !statement.text.is_ascii();
        if !amid
            && !misread
            && self.is_fresh()
            && let Some(plan) = self.changes.plan_in_pipeline(self.channel, statement)
            && !pipeline::needs_block(self.channel, self.interceptor.block()).await
        {
            return Ok(self.act_in_pipeline(&bound, plan).await?);
        }
        // If the portal is gone, or its text is another one, or the client's encoding has changed since its Parse, the server answers the Execute.
        if misread && statement.gated {
            return Err(SessionEnd::refused(cannot_be_asked()));
        }
        if misread || !self.would_run(statement).await? {
            return Ok(FrameOutcome::Pass);
        }
        let begin = !stands_alone(statement) && pipeline::needs_block(self.channel, self.interceptor.block()).await;
        // COMMIT and the like still run from their portal.
        let closes = !matches!(statement.class, Class::Transaction(_));
        if !self.seal(closes, begin).await? {
            return Ok(FrameOutcome::Handled);
        }
        if let Class::Transaction(control) = statement.class {
            return Ok(self.control(control, statement).await?);
        }
        Ok(self.run(&bound).await?)
    }

    /// The statement that the portal's name means to the server. The server may have refused its Parse or Bind, or they may have given a known name
    /// another meaning. `None`: there is nothing to act on.
    async fn as_the_server_has_it(
        &mut self,
        bound: Arc<PreparedStatement>,
    ) -> Result<Option<Arc<PreparedStatement>>, BackendLost> {
        if self.interceptor.is_sure(self.portal.as_bytes()) || self.is_fresh() {
            return Ok(Some(bound));
        }
        let Some(text) = self.channel.portal_text(&self.portal).await?.flatten() else { return Ok(None) };
        let found = if is_of(&bound.statement, &text) {
            Some(Arc::clone(&bound))
        } else if let TextVerdict::Act(mut statements) = judge(self.channel, self.shared, text.as_bytes()).await {
            let speech = self.channel.speech();
            let one = statements.pop().filter(|_| statements.is_empty());
            // The types of the call's parameters are not known, so the server runs it.
            let one = one.filter(|one| !matches!(one.class, Class::AdvisoryLock(_)));
            one.map(|statement| {
                let offset = characters(&text.as_bytes()[..statement.range.start]);
                Arc::new(PreparedStatement { offset, ..PreparedStatement::new(statement, speech) })
            })
        } else {
            None
        };
        self.interceptor.correct(&bound, found.as_ref());
        Ok(found.filter(|found| acts(&found.statement)))
    }

    /// Whether the client's portal is of this statement, and nothing before it in the pipeline has failed.
    async fn would_run(&mut self, statement: &Statement) -> Result<bool, BackendLost> {
        let text = self.channel.portal_text(&self.portal).await?.flatten();
        Ok(text.is_some_and(|text| is_of(statement, &text)))
    }

    /// Ends the pipeline so far by a Sync of the proxy's. `closes`: the portal is closed. `begin`: the implicit transaction becomes a block.
    /// `false`: the client has an error, and the server skips to the client's Sync.
    async fn seal(&mut self, closes: bool, begin: bool) -> Result<bool, BackendLost> {
        let portal = closes.then_some(self.portal.as_str());
        if !pipeline::seal(self.channel, self.interceptor.block_mut(), portal, begin).await? {
            self.channel.pass_frame();
            self.channel.skip_to_sync().await?;
            return Ok(false);
        }
        // The server has just reported its status.
        self.block().forget_control();
        Ok(true)
    }

    /// Runs the statement in place of the portal, which is closed.
    async fn run(&mut self, bound: &PreparedStatement) -> Result<FrameOutcome, BackendLost> {
        self.take_execute();
        self.channel.set_client_has_parsed(true);
        // The pipeline itself may have changed the client's encoding, which the server has reported by now.
        let again = self.read_again(bound).await;
        let statement = again.as_ref().unwrap_or(&bound.statement);
        let (channel, block) = (&mut *self.channel, self.interceptor.block_mut());
        let mut parts = AheadRun { channel, block, changes: self.changes, shared: self.shared };
        let result = parts.run(statement, bound.offset).await;
        self.channel.set_client_has_parsed(false);
        let result = match result {
            Err(RunError::Server(error))
                if self.block().is_proxys() && error.sqlstate() == sqlstate::ACTIVE_SQL_TRANSACTION =>
            {
                self.block().end();
                Err(RunError::Server(in_words_for_a_pipeline(self.channel, error).await?))
            }
            result => result,
        };
        self.answer(result).await
    }

    /// The statement as it is read in the present encoding, if that has changed since its Parse.
    async fn read_again(&mut self, bound: &PreparedStatement) -> Option<Statement> {
        let (text, speech) = (&bound.statement.text, self.channel.speech());
        if text.is_ascii() || speech == bound.speech {
            return None;
        }
        let came = bound.speech.say(text)?;
        statements_of(self.channel, self.shared, &speech.readable(&came)).await?.pop()
    }

    /// Runs the statement in one pipeline with its Parse and Bind. Most clients send these, Execute and Sync, and nothing before them. Unless one
    /// of them fails, the portal is of the statement that was parsed, so the optimistic try can follow them at once.
    async fn act_in_pipeline(
        &mut self,
        bound: &PreparedStatement,
        plan: OptimisticPlan,
    ) -> Result<FrameOutcome, BackendLost> {
        self.channel.set_client_has_parsed(true);
        let request = Request { statement: &bound.statement, offset: bound.offset, place: Place::Anywhere };
        let block = self.interceptor.block_mut();
        let outcome = self.changes.run_in_pipeline(self.channel, block, request, plan, &self.portal).await;
        let PipelineOutcome::Ran(mut result) = outcome else {
            self.channel.set_client_has_parsed(false);
            self.channel.pass_frame();
            self.channel.skip_to_sync().await?;
            return Ok(FrameOutcome::Handled);
        };
        self.take_execute();
        if let Err(RunError::Suspend(why)) = result {
            let (channel, block) = (&mut *self.channel, self.interceptor.block_mut());
            let mut parts = AheadRun { channel, block, changes: self.changes, shared: self.shared };
            result = Box::pin(parts.run_suspended(why, &bound.statement, bound.offset)).await;
        }
        self.channel.set_client_has_parsed(false);
        self.answer(result).await
    }

    /// Waits for an advisory lock in place of the portal's statement.
    async fn wait_for_lock(
        &mut self,
        statement: &Statement,
        lock: &AdvisoryLock,
        types: &[u8],
    ) -> Result<FrameOutcome, SessionEnd> {
        let bind = self.interceptor.bind_of(self.portal.as_bytes());
        let Some(bind) = bind.filter(|_| !self.suspends()) else { return Ok(FrameOutcome::Pass) };
        let begin = pipeline::needs_block(self.channel, self.interceptor.block()).await;
        if !self.seal(true, begin).await? {
            return Ok(FrameOutcome::Handled);
        }
        let execute = self.take_execute().ok_or_else(SessionEnd::without_frame)?;
        let call = (statement, lock, ClientCall::Bound { types, bind: &bind, execute: &execute });
        let result = wait_for_lock(self.channel, self.interceptor.block_mut(), self.shared, call, 0).await;
        Ok(self.answer(result).await?)
    }

    /// Runs a LOCK TABLE in place of its portal. A question about the portal would take the snapshot of the transaction, so a portal that is not
    /// certain is left to the server.
    async fn lock_table(&mut self, bound: &PreparedStatement) -> Result<FrameOutcome, SessionEnd> {
        let certain = self.is_fresh() || self.interceptor.is_sure(self.portal.as_bytes());
        let misread = self.channel.speech() != bound.speech && !bound.statement.text.is_ascii();
        // Outside a block the server refuses the statement, or the implicit transaction of the pipeline has the lock.
        let in_block = match self.block().control() {
            None => self.channel.status() == b'T',
            Some(TransactionControl::Begin) => true,
            Some(TransactionControl::Savepoint) => self.channel.status() == b'T',
            Some(_) => false,
        };
        if !certain || misread || !in_block {
            self.block().forget();
            return Ok(FrameOutcome::Pass);
        }
        if !self.seal(true, false).await? {
            return Ok(FrameOutcome::Handled);
        }
        Ok(self.run(bound).await?)
    }

    /// Whether the Execute asks for one row only. Then the server would keep the portal for the next row.
    fn suspends(&self) -> bool {
        self.channel.peek_frame().is_some_and(|(_, body)| body.ends_with(&[0, 0, 0, 1]))
    }

    /// Takes the Execute, which the proxy answers, and notes that its portal has been run.
    fn take_execute(&mut self) -> Option<bytes::Bytes> {
        self.interceptor.forget_portal(self.portal.as_bytes());
        self.channel.take_frame()
    }

    /// Runs COMMIT or the like in a pipeline that the proxy keeps in a block. Without the proxy the server would see no block.
    async fn control(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
    ) -> Result<FrameOutcome, BackendLost> {
        if !self.block().leave() {
            return Ok(FrameOutcome::Pass);
        }
        match control {
            TransactionControl::Commit { chain: false }
            | TransactionControl::Rollback { chain: false }
            | TransactionControl::Prepare => {
                self.channel.notify(&transaction::no_transaction());
                return Ok(FrameOutcome::Pass);
            }
            TransactionControl::Begin => {
                self.channel.take_frame();
                if transaction::begin_quietly(self.channel, statement).await? == StatementOutcome::Failed {
                    self.block().take_back();
                    self.channel.skip_to_sync().await?;
                }
            }
            TransactionControl::Savepoint | TransactionControl::Commit { .. } | TransactionControl::Rollback { .. } => {
                self.channel.take_frame();
                transaction::refuse_outside_block(self.channel, control, statement).await?;
                self.channel.skip_to_sync().await?;
            }
        }
        Ok(FrameOutcome::Handled)
    }

    /// Sends the client the answer to its Execute.
    async fn answer(&mut self, result: Result<Reply, RunError>) -> Result<FrameOutcome, BackendLost> {
        match result {
            Ok(reply) => {
                self.channel.send_to_client(&reply.frames);
                self.channel.set_executes(self.channel.executes().saturating_add(1));
                self.answer_sync();
            }
            Err(RunError::ClientGone | RunError::Slow | RunError::Suspend(_) | RunError::Lost) => {
                return Err(BackendLost);
            }
            Err(stop) => {
                send_error(self.channel, &stop)?;
                self.channel.skip_to_sync().await?;
            }
        }
        Ok(FrameOutcome::Handled)
    }

    /// Answers a Sync right behind the Execute. Such a Sync has nothing to end, and the server has just reported its status, so no round trip is
    /// needed.
    fn answer_sync(&mut self) {
        let next = self.channel.peek_frame().is_some_and(|(header, body)| header.tag == b'S' && body.is_empty());
        if self.block().is_proxys() || !next || self.channel.owes() > 0 || self.channel.is_unsynced() {
            return;
        }
        self.channel.take_frame();
        self.channel.set_executes(0);
        self.interceptor.synced();
        send_ready(self.channel);
    }
}
