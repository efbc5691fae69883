//! The simple protocol: how a Query comes in, and how its answer goes out.
//!
//! [`Simple`] owns nothing: it borrows the parts for one Query. It keeps true: the server's answers and the proxy's come in the order of the
//! client's messages, and each Query gets one ReadyForQuery. A string of several statements keeps the meaning of PostgreSQL's implicit
//! transaction (`string`).

mod answer;
mod string;

use self::answer::Answerer;
use self::string::StringRun;
use super::block::Block;
use super::change::SchemaChanges;
use super::interceptor::Interceptor;
use super::outcome::{FrameOutcome, SessionEnd, settle};
use super::reply::{send_error, send_ready};
use super::shared::Shared;
use super::statement::{acts, characters};
use super::text::{TextVerdict, cannot_be_asked, judge, statements_of, too_large};
use super::{pipeline, transaction};
use crate::backend::{BackendLost, ServerChannel};
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::message::{Batch, query};

/// The parts of the session that a Query needs.
pub(super) struct Simple<'s> {
    channel: &'s mut ServerChannel,
    interceptor: &'s mut Interceptor,
    changes: &'s mut SchemaChanges,
    shared: &'s Shared,
}

impl<'s> Simple<'s> {
    pub(super) fn new(
        channel: &'s mut ServerChannel,
        interceptor: &'s mut Interceptor,
        changes: &'s mut SchemaChanges,
        shared: &'s Shared,
    ) -> Self {
        Self { channel, interceptor, changes, shared }
    }

    /// Attends to a Query.
    pub(super) async fn query(&mut self) -> Result<FrameOutcome, SessionEnd> {
        if self.interceptor.stopped_at_oversize() {
            return Err(SessionEnd::refused(too_large()));
        }
        loop {
            let speech = self.channel.speech();
            let body = self.channel.peek_frame().ok_or_else(SessionEnd::without_frame)?.1;
            let text = query(body).map(|text| speech.readable(text).into_owned()).unwrap_or_default();
            // After an error in a pipeline the server skips even a Query.
            if self.channel.is_skipping() {
                return Ok(FrameOutcome::Pass);
            }
            if self.block().is_proxys() {
                return self.end_pipeline(&text).await;
            }
            if self.block().has_ahead()
                && let Some(outcome) = self.end_of_block(&text).await?
            {
                return Ok(outcome);
            }
            if self.block().sees_writes() && !self.free_before(&text).await? {
                return Ok(FrameOutcome::Handled);
            }
            self.interceptor.block_mut().refresh(self.channel);
            let statements = match judge(self.channel, self.shared, &text).await {
                TextVerdict::Act(statements) => statements,
                TextVerdict::Refuse(report) => return self.refuse(report).await,
                TextVerdict::Relay(statements) => {
                    self.block().passed(&statements);
                    return Ok(FrameOutcome::Pass);
                }
            };
            if !self.can_answer() {
                if statements.iter().any(|statement| statement.gated) {
                    return Err(SessionEnd::refused(cannot_be_asked()));
                }
                self.shared.metrics.ddl_uninterceptable.add();
                self.block().forget();
                return Ok(FrameOutcome::Pass);
            }
            if self.may_pass(&statements) {
                return Ok(FrameOutcome::Pass);
            }
            if !settle(self.channel).await? {
                return Ok(FrameOutcome::Handled);
            }
            // An earlier message has changed the encoding, so the text is read again.
            if self.channel.speech() != speech {
                continue;
            }
            // In a failed block the server refuses every statement.
            if self.channel.status() == b'E' && !statements.iter().any(|s| matches!(s.class, Class::Transaction(_))) {
                return Ok(FrameOutcome::Pass);
            }
            if !self.server_reads(&statements).await? {
                return Ok(FrameOutcome::Pass);
            }
            self.answer(&statements, &text).await?;
            return Ok(FrameOutcome::Handled);
        }
    }

    /// Answers a string that may end the client's transaction, or a part of it, if statements were done ahead of it. `None`: the string has no
    /// transaction control.
    async fn end_of_block(&mut self, text: &[u8]) -> Result<Option<FrameOutcome>, SessionEnd> {
        let Some(statements) = statements_of(self.channel, self.shared, text).await else { return Ok(None) };
        if !statements.iter().any(|statement| matches!(statement.class, Class::Transaction(_))) {
            return Ok(None);
        }
        if !self.can_answer() {
            return Ok(None);
        }
        if !settle(self.channel).await? {
            return Ok(Some(FrameOutcome::Handled));
        }
        self.take_query();
        StringRun::new(self.answerer(), &statements, text, false).run().await?;
        self.end_unnamed().await?;
        send_ready(self.channel);
        Ok(Some(FrameOutcome::Handled))
    }

    /// Frees the tables that the client's transaction holds, if the string writes and may take long. `false`: the Query is answered,
    /// since the transaction has failed.
    async fn free_before(&mut self, text: &[u8]) -> Result<bool, SessionEnd> {
        let Ok(text) = std::str::from_utf8(text) else { return Ok(true) };
        if !self.can_answer() {
            return Ok(true);
        }
        if !settle(self.channel).await? {
            return Ok(false);
        }
        if self.channel.status() != b'T' {
            return Ok(true);
        }
        let Err(stop) = Box::pin(self.answerer().ahead().free_before(text)).await else { return Ok(true) };
        self.take_query();
        send_error(self.channel, &stop)?;
        self.end_unnamed().await?;
        send_ready(self.channel);
        Ok(false)
    }

    fn block(&mut self) -> &mut Block {
        self.interceptor.block_mut()
    }

    fn answerer(&mut self) -> Answerer<'_> {
        Answerer {
            channel: self.channel,
            block: self.interceptor.block_mut(),
            changes: self.changes,
            shared: self.shared,
        }
    }

    /// Whether the proxy knows the place of its answer among the server's.
    fn can_answer(&self) -> bool {
        self.channel.owed_is_certain() && !self.channel.is_unsynced()
    }

    /// Whether the client's block holds the locks that the string needs.
    fn may_pass(&mut self, statements: &[Statement]) -> bool {
        let (limits, idle) = (self.shared.limits(), self.channel.is_idle());
        let passes = self.block().may_pass(statements, &limits, idle);
        if passes {
            statements.iter().filter(|statement| acts(statement)).for_each(|statement| self.changes.relayed(statement));
        }
        passes
    }

    /// Whether the server can parse the statements that are newer than the proxy's grammar. If it cannot, the server refuses the whole text.
    async fn server_reads(&mut self, statements: &[Statement]) -> Result<bool, BackendLost> {
        if !statements.iter().any(|statement| matches!(statement.class, Class::Newer)) {
            return Ok(true);
        }
        let mut batch = Batch::new();
        let newer = statements.iter().filter(|statement| matches!(statement.class, Class::Newer));
        newer.for_each(|statement| batch.parse(&statement.text));
        Ok(self.channel.ask(batch, None).await?.error.is_none())
    }

    /// Answers the Query in place of the server.
    async fn answer(&mut self, statements: &[Statement], text: &[u8]) -> Result<(), BackendLost> {
        self.take_query();
        match statements {
            [only] => {
                let offset = characters(&text[..only.range.start]);
                self.answerer().act(only, offset).await?;
            }
            several => StringRun::new(self.answerer(), several, text, false).run().await?,
        }
        self.end_unnamed().await?;
        send_ready(self.channel);
        Ok(())
    }

    /// Ends the unnamed statement and portal, as the server does at a Query. If the Query needed a question, the question has done so already.
    async fn end_unnamed(&mut self) -> Result<(), BackendLost> {
        if self.channel.ends_unnamed() {
            self.channel.ask(Batch::new(), None).await?;
        }
        Ok(())
    }

    /// Answers a Query behind a pipeline without Sync, whose implicit transaction the proxy keeps as a block. The string belongs to that
    /// transaction, and ends it.
    async fn end_pipeline(&mut self, text: &[u8]) -> Result<FrameOutcome, SessionEnd> {
        if !pipeline::catch_up(self.channel, self.interceptor.block_mut()).await? {
            return Ok(FrameOutcome::Pass);
        }
        self.take_query();
        self.block().end();
        let statements = statements_of(self.channel, self.shared, text).await.unwrap_or_default();
        if statements.is_empty() {
            self.answerer().relay_piece(text).await?;
            self.answerer().ahead().end_proxys_block().await?;
        } else {
            StringRun::new(self.answerer(), &statements, text, true).run().await?;
        }
        send_ready(self.channel);
        Ok(FrameOutcome::Handled)
    }

    /// Takes the Query, which the proxy answers. It ends the unnamed statement and portal, as it would on the server.
    fn take_query(&mut self) {
        self.channel.take_frame();
        self.channel.set_ends_unnamed(true);
        self.interceptor.forget(b"");
        self.interceptor.forget_portal(b"");
    }

    /// Answers the whole string by an error of the proxy's.
    async fn refuse(&mut self, report: Report) -> Result<FrameOutcome, SessionEnd> {
        if !self.can_answer() {
            return Err(SessionEnd::refused(report));
        }
        if !settle(self.channel).await? {
            return Ok(FrameOutcome::Handled);
        }
        self.take_query();
        self.shared.metrics.ddl_refused.add();
        if self.channel.status() == b'T' {
            transaction::fail(self.channel).await?;
        }
        self.end_unnamed().await?;
        self.channel.notify(&report);
        send_ready(self.channel);
        Ok(FrameOutcome::Handled)
    }
}
