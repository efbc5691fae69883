//! The extended protocol: a statement becomes DDL at Parse and acts at Execute.
//!
//! [`Extended`] owns nothing: it borrows the parts for one message. Parse, Bind and Describe go to the server as they are, so the server checks
//! and answers them. `execute` attends to Execute, and `refusal` words an error. It keeps true: if the client's pipeline is one implicit
//! transaction of several statements, the proxy opens a transaction block, and ends it at the client's Sync.

mod control;
mod execute;
mod refusal;

use self::execute::Execute;
use super::ahead::AheadRun;
use super::block::Block;
use super::change::SchemaChanges;
use super::interceptor::Interceptor;
use super::outcome::{FrameOutcome, SessionEnd, settle};
use super::prepared::PreparedStatement;
use super::reply::{send_error, send_ready};
use super::shared::Shared;
use super::statement::{acts, characters, stands_alone};
use super::text::{TextVerdict, judge};
use crate::backend::ServerChannel;
use crate::pg::sqlstate;
use crate::plan::block_locks::makes_relations;
use crate::relay::Event;
use crate::report::Report;
use crate::sql::{Class, Statement, exactly_transaction};
use crate::wire::message::{self, put_frame};
use bytes::{BufMut, BytesMut};

/// The parts of the session that a message of the extended protocol needs.
pub(super) struct Extended<'s> {
    channel: &'s mut ServerChannel,
    interceptor: &'s mut Interceptor,
    changes: &'s mut SchemaChanges,
    shared: &'s Shared,
}

impl<'s> Extended<'s> {
    pub(super) fn new(
        channel: &'s mut ServerChannel,
        interceptor: &'s mut Interceptor,
        changes: &'s mut SchemaChanges,
        shared: &'s Shared,
    ) -> Self {
        Self { channel, interceptor, changes, shared }
    }

    /// Attends to a Parse.
    pub(super) async fn parse(&mut self) -> Result<FrameOutcome, SessionEnd> {
        let speech = self.channel.speech();
        let body = self.channel.peek_frame().ok_or_else(SessionEnd::without_frame)?.1;
        let read = |(name, text): (&[u8], &[u8])| (name.to_vec(), speech.readable(text).into_owned());
        let Some((name, text)) = message::parse(body).map(read) else { return Ok(FrameOutcome::Pass) };
        // After an error the server skips the Parse, and the name keeps its meaning.
        if self.channel.is_skipping() {
            return Ok(FrameOutcome::Pass);
        }
        if self.block().sees_writes() && !self.free_before(&text).await? {
            return Ok(FrameOutcome::Handled);
        }
        self.interceptor.parsed_other(&name);
        if (self.block().is_proxys() || self.block().has_ahead())
            && let Some(control) = std::str::from_utf8(&text).ok().and_then(sole_control)
        {
            self.interceptor.prepare(&name, PreparedStatement::new(control, speech));
            return Ok(FrameOutcome::Pass);
        }
        self.interceptor.block_mut().refresh(self.channel);
        let mut statements = match judge(self.channel, self.shared, &text).await {
            TextVerdict::Relay(statements) => return self.parse_relayed(&name, statements),
            TextVerdict::Act(statements) => statements,
            TextVerdict::Refuse(report) => return Err(SessionEnd::refused(report)),
        };
        // The server refuses a Parse of more than one statement.
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else { return Ok(FrameOutcome::Pass) };
        if let Class::ExplainDdl(inner) = &statement.class {
            return self.parse_explain(inner).await;
        }
        if acts(&statement) {
            let offset = characters(&text[..statement.range.start]);
            let types = self.parameter_types(&statement);
            self.prepare(&name, PreparedStatement { offset, types, ..PreparedStatement::new(statement, speech) })?;
        }
        Ok(FrameOutcome::Pass)
    }

    /// Frees the tables that the client's transaction holds, if the statement writes and may take long. `false`: the Parse is answered,
    /// since the transaction has failed.
    async fn free_before(&mut self, text: &[u8]) -> Result<bool, SessionEnd> {
        let Ok(text) = std::str::from_utf8(text) else { return Ok(true) };
        let channel = &mut *self.channel;
        if !channel.owed_is_certain() || channel.is_unsynced() {
            return Ok(true);
        }
        if !settle(channel).await? {
            return Ok(false);
        }
        if channel.status() != b'T' {
            return Ok(true);
        }
        let (channel, block) = (&mut *self.channel, self.interceptor.block_mut());
        let mut parts = AheadRun { channel, block, changes: self.changes, shared: self.shared };
        let Err(stop) = Box::pin(parts.free_before(text)).await else { return Ok(true) };
        self.channel.take_frame();
        send_error(self.channel, &stop)?;
        self.channel.skip_to_sync().await?;
        Ok(false)
    }

    /// Attends to an Execute.
    pub(super) async fn execute(&mut self) -> Result<FrameOutcome, SessionEnd> {
        let ahead = self.block().has_ahead();
        match Execute::of_next_frame(self.channel, self.interceptor, self.changes, self.shared) {
            Some((execute, bound)) => return execute.attend(bound).await,
            None if !ahead => return Ok(FrameOutcome::Pass),
            None => {}
        }
        control::attend(self.channel, self.interceptor, self.changes, self.shared).await
    }

    /// Attends to a Sync: it ends the pipeline that the proxy keeps in a block.
    pub(super) async fn sync(&mut self) -> Result<FrameOutcome, SessionEnd> {
        self.channel.pass_frame();
        self.interceptor.synced();
        match self.channel.settle(true).await {
            Event::Settled => {}
            other => return Err(SessionEnd::Event(other)),
        }
        let block = self.interceptor.block_mut();
        if block.end() {
            let (channel, changes) = (&mut *self.channel, &mut *self.changes);
            AheadRun { channel, block, changes, shared: self.shared }.end_proxys_block().await?;
        }
        self.interceptor.block_mut().refresh(self.channel);
        send_ready(self.channel);
        Ok(FrameOutcome::Handled)
    }

    fn block(&self) -> &Block {
        self.interceptor.block()
    }

    /// Remembers a statement that the proxy stops at.
    fn prepare(&mut self, name: &[u8], statement: PreparedStatement) -> Result<(), SessionEnd> {
        if self.interceptor.prepare(name, statement) { Ok(()) } else { Err(SessionEnd::refused(prepared_too_much())) }
    }

    /// Notes a text that the proxy does not act on. In a block, a statement that makes a table is prepared, since its table exists only after its
    /// Execute.
    fn parse_relayed(&mut self, name: &[u8], mut statements: Vec<Statement>) -> Result<FrameOutcome, SessionEnd> {
        let makes = |statement: &Statement| matches!(&statement.class, Class::Ddl(ddl) if makes_relations(ddl));
        let block = self.block();
        let followed = |statement: &Statement| {
            (block.is_followed() && makes(statement)) || (block.is_proxys() && stands_alone(statement))
        };
        if let [statement] = statements.as_slice()
            && followed(statement)
        {
            let statement = statements.remove(0);
            self.prepare(name, PreparedStatement::new(statement, self.channel.speech()))?;
        } else {
            let block = self.interceptor.block_mut();
            block.passed(&statements);
            block.saw_parse_of_noted(name);
        }
        Ok(FrameOutcome::Pass)
    }

    /// Prepares EXPLAIN of DDL as a query that gives the plan's lines, so that the server answers its Describe, Bind and Execute. Amid a pipeline
    /// EXPLAIN goes to the server as it is, and the server refuses it.
    async fn parse_explain(&mut self, inner: &Statement) -> Result<FrameOutcome, SessionEnd> {
        let channel = &mut *self.channel;
        if !channel.owed_is_certain() || channel.is_unsynced() || channel.status() == b'E' {
            return Ok(FrameOutcome::Pass);
        }
        if !settle(channel).await? {
            return Ok(FrameOutcome::Handled);
        }
        let (channel, block) = (&mut *self.channel, self.interceptor.block_mut());
        let mut parts = AheadRun { channel, block, changes: self.changes, shared: self.shared };
        let sql = parts.explain(inner).await?;
        let (channel, block) = (&mut *self.channel, self.interceptor.block_mut());
        let sql = channel.said_or_in_words(&sql);
        let frame = channel.take_frame().ok_or_else(SessionEnd::without_frame)?;
        let (name, text) = message::parse(&frame[5..]).unwrap_or_default();
        // In the journal it is a read, as the client has sent it.
        block.saw_parse_of_noted(name);
        block.keeper_mut().passes_parse(name, text, None, &frame[5..]);
        let mut parse = BytesMut::new();
        put_frame(&mut parse, b'P', |b| {
            b.put_slice(name);
            b.put_u8(0);
            b.put_slice(&sql);
            b.put_slice(&[0, 0, 0]);
        });
        channel.account(b'P');
        channel.send_to_server(&parse);
        Ok(FrameOutcome::Handled)
    }

    /// The types of the parameters in the client's Parse. They are kept only for a call that waits for an advisory lock.
    fn parameter_types(&self, statement: &Statement) -> Vec<u8> {
        let waits = matches!(statement.class, Class::AdvisoryLock(_));
        let types = self.channel.peek_frame().filter(|_| waits);
        types.and_then(|(_, body)| message::parameter_types(body)).map(<[u8]>::to_vec).unwrap_or_default()
    }
}

/// The error beyond `prepared_limit`, if the operator has chosen to refuse rather than to forget the oldest statement.
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
    Some(Statement {
        range,
        text: text.to_owned(),
        logged: String::new(),
        class: Class::Transaction(control),
        gated: false,
    })
}
