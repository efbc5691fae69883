//! The extended protocol: a statement becomes DDL at Parse and acts at Execute.
//!
//! Parse, Bind and Describe go to the server as they are, so it checks and answers them itself. At
//! Execute the proxy asks the server what the portal would run (a Parse or Bind that was seen may have
//! failed, or been skipped), then closes the portal by a Sync of its own, whose ReadyForQuery the client
//! never sees; then the backend is idle and the plan runs. Where the client's pipeline is one
//! implicit transaction of several statements, the proxy first opens a transaction block, and
//! commits it at the client's Sync.

use super::prepared::{PreparedStatement, as_kept};
use super::simple::{StatementOutcome, TextVerdict};
use super::statement::{acts, characters, is_of, stands_alone};
use super::string::no_transaction;
use super::{FrameOutcome, Session};
use crate::backend::{BackendLost, SealOutcome};
use crate::execute::optimistic::OptimisticOutcome;
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::plan::block_locks::makes_relations;
use crate::plan::optimistic::OptimisticPlan;
use crate::relay::Event;
use crate::report::Report;
use crate::sql::{Class, Statement, TransactionControl, exactly_transaction};
use crate::wire::message::{self, put_frame};
use bytes::{BufMut, BytesMut};
use std::sync::Arc;

impl Session {
    pub(super) async fn parse(&mut self) -> FrameOutcome {
        let Some((_, body)) = self.channel.peek_frame() else { return FrameOutcome::End };
        let speech = self.channel.speech();
        let read = |(name, text): (&[u8], &[u8])| (name.to_vec(), speech.readable(text).into_owned());
        let Some((name, text)) = message::parse(body).map(read) else {
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        };
        // After an error the server skips it, and the name keeps its meaning.
        if self.channel.is_skipping() {
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        }
        self.interceptor.parsed_other(&name);
        if self.owns_block
            && let Some(control) = std::str::from_utf8(&text).ok().and_then(sole_control)
        {
            self.interceptor
                .prepare(&name, PreparedStatement { statement: control, offset: 0, types: Vec::new(), speech });
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        }
        self.look_at_block();
        let mut statements = match self.judge_text(&text).await {
            TextVerdict::Relay(statements) => {
                return self.parse_relayed(&name, statements).await;
            }
            TextVerdict::Act(statements) => statements,
            TextVerdict::Refuse(report) => return self.refuse_session(&report).await,
        };
        // More than one statement is the server's to refuse.
        if let (Some(statement), true) = (statements.pop(), statements.is_empty()) {
            if let Class::ExplainDdl(inner) = &statement.class {
                return self.parse_explain(inner).await;
            }
            if acts(&statement) {
                let offset = characters(&text[..statement.range.start]);
                let types = self.parameter_types(&statement);
                if !self.interceptor.prepare(&name, PreparedStatement { statement, offset, types, speech }) {
                    return self.refuse_session(&prepared_too_much()).await;
                }
            }
        }
        self.channel.pass_frame();
        FrameOutcome::Continue
    }

    /// A text that nobody acts on. What makes a table is looked for at its Execute, in a block: only then it is there.
    async fn parse_relayed(&mut self, name: &[u8], mut statements: Vec<Statement>) -> FrameOutcome {
        let makes = |statement: &Statement| matches!(&statement.class, Class::Ddl(ddl) if makes_relations(ddl));
        if let [statement] = statements.as_slice()
            && ((self.interceptor.block.is_some() && makes(statement)) || (self.owns_block && stands_alone(statement)))
        {
            let statement = statements.remove(0);
            let speech = self.channel.speech();
            if !self.interceptor.prepare(name, PreparedStatement { statement, offset: 0, types: Vec::new(), speech }) {
                return self.refuse_session(&prepared_too_much()).await;
            }
        } else {
            self.passed(&statements);
            if self.interceptor.block.as_mut().is_some_and(|block| !block.parsed(name)) {
                self.interceptor.block = None;
            }
        }
        self.channel.pass_frame();
        FrameOutcome::Continue
    }

    /// EXPLAIN of DDL is prepared as a query that gives the plan's lines, so that the server answers
    /// Describe, Bind and Execute of it. Amid a pipeline it goes as it is, and the server refuses it.
    async fn parse_explain(&mut self, inner: &Statement) -> FrameOutcome {
        let channel = &self.channel;
        if !channel.owed_is_certain() || channel.is_unsynced() || channel.status() == b'E' {
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        }
        match self.channel.settle(false).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        // The frame went to a copy that it made fail.
        if !self.channel.owed_is_certain() {
            return FrameOutcome::Continue;
        }
        let Ok(sql) = self.explain(inner).await else { return self.end(Event::BackendClosed).await };
        let sql = self.channel.said_or_in_words(&sql);
        let Some(frame) = self.channel.take_frame() else { return FrameOutcome::End };
        let name = message::parse(&frame[5..]).map(|(name, _)| name.to_vec()).unwrap_or_default();
        let mut parse = BytesMut::new();
        put_frame(&mut parse, b'P', |b| {
            b.put_slice(&name);
            b.put_u8(0);
            b.put_slice(&sql);
            b.put_slice(&[0, 0, 0]);
        });
        self.channel.account(b'P');
        self.channel.send_to_server(&parse);
        FrameOutcome::Continue
    }

    pub(super) async fn execute(&mut self) -> FrameOutcome {
        let portal = self.channel.peek_frame().and_then(|(_, body)| message::execute(body));
        let text = |name| Some(std::str::from_utf8(as_kept(name)).ok()?.to_owned());
        let portal = portal.and_then(|name| Some((text(name)?, self.interceptor.portal(name)?)));
        let Some((portal, bound)) = portal else {
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        };
        // After an error the server skips it.
        if self.channel.is_skipping() {
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        }
        if self.passes_at_execute(&bound.statement, &portal) {
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        }
        // In a failed block the server refuses it; unless the client may have ended that block in this pipeline.
        let failed = self.channel.status() == b'E' && self.interceptor.pipeline_control.is_none();
        if !self.channel.owed_is_certain() || failed {
            self.shared.metrics.ddl_uninterceptable.add();
            self.channel.pass_frame();
            return FrameOutcome::Continue;
        }
        let done = match &bound.statement.class {
            Class::AdvisoryLock(lock) => self.execute_advisory_lock(lock, &bound.types, &portal).await,
            _ => self.execute_ddl(bound, &portal).await,
        };
        match done {
            Ok(flow) => flow,
            Err(BackendLost) => self.end(Event::BackendClosed).await,
        }
    }

    /// Whether the server may go on with it at once: it needs no more than the client's block holds, or is looked for since
    /// it makes a table.
    fn passes_at_execute(&mut self, statement: &Statement, portal: &str) -> bool {
        if !matches!(statement.class, Class::Ddl(_)) {
            return false;
        }
        let fresh = self.interceptor.is_fresh(portal.as_bytes());
        let statement = std::slice::from_ref(statement);
        if acts(&statement[0]) {
            return fresh && self.is_held(statement);
        }
        // It is to be refused as in a pipeline, not as in a block of ours.
        if self.owns_block && stands_alone(&statement[0]) {
            return false;
        }
        // Of that name there may be one to act on.
        if !fresh && !self.interceptor.is_sure(portal.as_bytes()) {
            return false;
        }
        // Without a Parse of this pipeline it may be another statement by now.
        self.passed(if fresh { statement } else { &[] });
        true
    }

    async fn execute_ddl(&mut self, bound: Arc<PreparedStatement>, portal: &str) -> Result<FrameOutcome, BackendLost> {
        match self.channel.settle(false).await {
            Event::Settled => {}
            other => return Ok(self.end(other).await),
        }
        // The frame went to a copy that it made fail.
        if !self.channel.owed_is_certain() {
            return Ok(FrameOutcome::Continue);
        }
        let Some(bound) = self.as_the_server_has_it(bound, portal).await? else {
            self.channel.pass_frame();
            return Ok(FrameOutcome::Continue);
        };
        let statement = &bound.statement;
        // Where the server refuses it amid a pipeline, it is the server's to answer.
        let amid = self.channel.executes() > 0 || self.interceptor.pipeline_control.is_some();
        if amid && !self.owns_block && stands_alone(statement) {
            self.channel.pass_frame();
            return Ok(FrameOutcome::Continue);
        }
        let misread = self.channel.speech() != bound.speech && !statement.text.is_ascii();
        if !amid
            && !misread
            && self.interceptor.is_fresh(portal.as_bytes())
            && let Some(first) = self.optimistic_in_pipeline(statement)
            && !self.needs_block().await
        {
            return self.execute_behind(&bound, portal, &first).await;
        }
        // The portal is gone, or a Parse or Bind that failed would have changed what it is: the server knows best. So it does where
        // the client's encoding has changed since its Parse.
        if misread || !self.would_run(statement, portal).await? {
            self.channel.pass_frame();
            return Ok(FrameOutcome::Continue);
        }
        let block = !stands_alone(statement) && self.needs_block().await;
        // COMMIT and its like still run from their portal.
        let done_with = (!matches!(statement.class, Class::Transaction(_))).then_some(portal);
        if !self.seal(done_with, block).await? {
            self.channel.pass_frame();
            self.channel.skip_to_sync().await?;
            return Ok(FrameOutcome::Continue);
        }
        // The status is fresh now.
        self.interceptor.pipeline_control = None;
        if let Class::Transaction(control) = statement.class {
            return self.control_amid(control, statement).await;
        }
        self.channel.take_frame();
        self.interceptor.forget_portal(portal.as_bytes());
        self.channel.set_client_has_parsed(true);
        // The pipeline itself may have changed the client's encoding: the server tells at its end.
        let again = self.read_again(&bound).await;
        let result = self.run_ddl(again.as_ref().unwrap_or(statement), bound.offset).await;
        self.channel.set_client_has_parsed(false);
        match result {
            Err(RunError::Server(error)) if self.owns_block && error.sqlstate() == sqlstate::ACTIVE_SQL_TRANSACTION => {
                let stop = RunError::Server(self.as_in_a_pipeline(error).await?);
                self.executed(Err(stop)).await
            }
            result => self.executed(result).await,
        }
    }

    /// The statement as it is read now, if that is another way than before.
    async fn read_again(&mut self, bound: &PreparedStatement) -> Option<Statement> {
        let (text, speech) = (&bound.statement.text, self.channel.speech());
        if text.is_ascii() || speech == bound.speech {
            return None;
        }
        let came = bound.speech.say(text)?;
        self.parsed(&speech.readable(&came)).await?.pop()
    }

    /// Most of what clients send: Parse, Bind, Execute and Sync, and nothing before them. Unless one of these fails the portal is
    /// what it seems to be, and the first try can follow them at once.
    async fn execute_behind(
        &mut self,
        bound: &PreparedStatement,
        portal: &str,
        first: &OptimisticPlan,
    ) -> Result<FrameOutcome, BackendLost> {
        let (statement, offset) = (&bound.statement, bound.offset);
        self.channel.set_client_has_parsed(true);
        let tried = self.first_try_behind(statement, offset, first, portal).await;
        if matches!(tried, Ok(OptimisticOutcome::ClientFailed)) {
            self.channel.set_client_has_parsed(false);
            self.channel.pass_frame();
            self.channel.skip_to_sync().await?;
            return Ok(FrameOutcome::Continue);
        }
        self.channel.take_frame();
        self.interceptor.forget_portal(portal.as_bytes());
        let result = match tried {
            Ok(OptimisticOutcome::Done(reply)) => Ok(reply),
            Ok(outcome) => self.run_by_size(statement, offset, matches!(outcome, OptimisticOutcome::Slow)).await,
            Err(stop) => Err(stop),
        };
        self.channel.set_client_has_parsed(false);
        self.executed(result).await
    }

    /// Gives the client what its Execute has come to.
    pub(super) async fn executed(&mut self, result: Result<Reply, RunError>) -> Result<FrameOutcome, BackendLost> {
        match result {
            Ok(reply) => {
                self.channel.send_to_client(&reply.frames);
                self.channel.set_executes(self.channel.executes().saturating_add(1));
                self.answer_sync();
            }
            Err(RunError::ClientGone | RunError::Slow | RunError::Lost) => return Err(BackendLost),
            Err(stop) => {
                self.send_error(stop)?;
                self.channel.skip_to_sync().await?;
            }
        }
        Ok(FrameOutcome::Continue)
    }

    /// Whether this Execute is one of several in an implicit transaction, which must stay one.
    pub(super) async fn needs_block(&mut self) -> bool {
        match self.interceptor.pipeline_control {
            _ if self.owns_block => false,
            Some(TransactionControl::Begin) => false,
            // Whether a block is open now only the server knows: its answer to BEGIN tells.
            Some(_) => true,
            None if self.channel.status() != b'I' => false,
            None => self.channel.executes() > 0 || self.channel.tag_after_next().await != Some(b'S'),
        }
    }

    /// COMMIT and its like in a pipeline that the proxy keeps in a block, where the server would see no block.
    async fn control_amid(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
    ) -> Result<FrameOutcome, BackendLost> {
        if !std::mem::take(&mut self.owns_block) {
            self.channel.pass_frame();
            return Ok(FrameOutcome::Continue);
        }
        match control {
            TransactionControl::Commit { chain: false }
            | TransactionControl::Rollback { chain: false }
            | TransactionControl::Prepare => {
                self.channel.notify(&no_transaction());
                self.channel.pass_frame();
            }
            TransactionControl::Begin => {
                self.channel.take_frame();
                if matches!(self.hushed_begin(statement).await?, StatementOutcome::Failed) {
                    self.owns_block = true;
                    self.channel.skip_to_sync().await?;
                }
            }
            TransactionControl::Savepoint | TransactionControl::Commit { .. } | TransactionControl::Rollback { .. } => {
                self.channel.take_frame();
                self.refuse_outside_block(control, statement).await?;
                self.channel.skip_to_sync().await?;
            }
        }
        Ok(FrameOutcome::Continue)
    }

    /// Whether the client's portal is of this statement, and nothing before it in the pipeline has failed.
    async fn would_run(&mut self, statement: &Statement, portal: &str) -> Result<bool, BackendLost> {
        let text = self.channel.portal_text(portal).await?.flatten();
        Ok(text.is_some_and(|text| is_of(statement, &text)))
    }

    /// Lets the server answer all that came in the pipeline without its Sync. False: the client has an error.
    pub(super) async fn catch_up(&mut self) -> Result<bool, BackendLost> {
        Ok(self.channel.portal_text("").await?.is_some() && self.seal(None, false).await?)
    }

    /// A Sync of the proxy's, with `block` behind a BEGIN ([`crate::backend::ServerChannel::seal`]). False: the client has an error.
    pub(super) async fn seal(&mut self, portal: Option<&str>, block: bool) -> Result<bool, BackendLost> {
        let outcome = self.channel.seal(portal, block).await?;
        if block && outcome != SealOutcome::Failed {
            self.owns_block = outcome == SealOutcome::Sealed;
            self.interceptor.watch_sync = self.owns_block;
        }
        Ok(outcome != SealOutcome::Failed)
    }

    /// A Sync right behind what the proxy has done has nothing to end, and the server has just said how it stands: it needs no
    /// round trip of its own.
    fn answer_sync(&mut self) {
        let channel = &mut self.channel;
        let next = channel.peek_frame().is_some_and(|(header, body)| header.tag == b'S' && body.is_empty());
        if self.owns_block || !next || channel.owes() > 0 || channel.is_unsynced() {
            return;
        }
        channel.take_frame();
        channel.set_executes(0);
        self.interceptor.synced();
        self.send_ready();
    }
}

/// Where the operator does not want the oldest to go unseen.
pub(super) fn prepared_too_much() -> Report {
    Report::error(
        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        "session has prepared more schema changes than the proxy may keep",
    )
    .hint("Close prepared statements and portals, or raise prepared_limit in [ddl] of proxy.toml.")
}

/// A text that is one COMMIT, BEGIN, SAVEPOINT or the like.
fn sole_control(text: &str) -> Option<Statement> {
    let control = exactly_transaction(text.as_bytes())?;
    let range = 0..text.len();
    Some(Statement { range, text: text.to_owned(), logged: String::new(), class: Class::Transaction(control) })
}
