//! The answer to one statement of a Query, ReadyForQuery excepted.
//!
//! [`Answerer`] owns nothing. It keeps true: the answer is on its way to the client when the statement is over. The client is not told that the
//! last statement of a string is complete before the transaction is committed.

use crate::backend::{BackendLost, ServerChannel};
use crate::execute::advisory::ClientCall;
use crate::execute::{Reply, RunError};
use crate::relay::Event;
use crate::session::advisory::wait_for_lock;
use crate::session::ahead::AheadRun;
use crate::session::block::Block;
use crate::session::change::SchemaChanges;
use crate::session::outcome::StatementOutcome;
use crate::session::reply::send_error;
use crate::session::shared::Shared;
use crate::session::transaction;
use crate::sql::{Class, Statement};
use crate::wire::message::put_query;
use bytes::BytesMut;

/// Answers one statement after another.
pub(super) struct Answerer<'s> {
    pub(super) channel: &'s mut ServerChannel,
    pub(super) block: &'s mut Block,
    pub(super) changes: &'s mut SchemaChanges,
    pub(super) shared: &'s Shared,
}

impl Answerer<'_> {
    /// Acts on a statement. `offset`: characters of the string before it.
    pub(super) async fn act(&mut self, statement: &Statement, offset: usize) -> Result<StatementOutcome, BackendLost> {
        if let Class::ExplainDdl(inner) = &statement.class {
            let sql = self.ahead().explain(inner).await?;
            // The journal keeps what the client has sent, which is shorter.
            return self.relay(&self.channel.said_or_in_words(&sql), statement.text.as_bytes()).await;
        }
        match self.run(statement, offset).await {
            Ok(reply) => {
                self.channel.send_to_client(&reply.frames);
                Ok(StatementOutcome::Done)
            }
            Err(stop) => {
                send_error(self.channel, &stop)?;
                Ok(StatementOutcome::Failed)
            }
        }
    }

    /// Acts on the last statement of a string, and commits. The server, too, commits before it says that the last statement is complete.
    pub(super) async fn act_and_commit(
        &mut self,
        statement: &Statement,
        offset: usize,
    ) -> Result<StatementOutcome, BackendLost> {
        let reply = match self.run(statement, offset).await {
            Ok(reply) => reply,
            Err(stop) => {
                send_error(self.channel, &stop)?;
                self.ahead().end_proxys_block().await?;
                return Ok(StatementOutcome::Failed);
            }
        };
        self.ahead().commit_behind(reply).await
    }

    async fn run(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        if let Class::AdvisoryLock(lock) = &statement.class {
            let call = (statement, &**lock, ClientCall::Text(&statement.text));
            return wait_for_lock(self.channel, self.block, self.shared, call, offset).await;
        }
        self.ahead().run(statement, offset).await
    }

    /// Opens a block of the proxy's. `false`: the server refuses it.
    pub(super) async fn begin_block(&mut self) -> Result<bool, BackendLost> {
        self.channel.log_answers(self.block.keeper().limit());
        let begun = transaction::begin(self.channel).await?;
        if begun {
            self.block.begin_journal();
        }
        Ok(begun)
    }

    /// What is done ahead of the client's transaction.
    pub(super) fn ahead(&mut self) -> AheadRun<'_> {
        AheadRun { channel: self.channel, block: self.block, changes: self.changes, shared: self.shared }
    }

    /// Relays a piece of a string as a Query of its own, whose ReadyForQuery is kept back.
    pub(super) async fn relay_piece(&mut self, sql: &[u8]) -> Result<StatementOutcome, BackendLost> {
        self.relay(sql, sql).await
    }

    /// `journaled`: the text for the journal.
    async fn relay(&mut self, sql: &[u8], journaled: &[u8]) -> Result<StatementOutcome, BackendLost> {
        let mut query = BytesMut::with_capacity(sql.len() + 8);
        let said = std::str::from_utf8(sql).ok().and_then(|sql| self.channel.speech().say(sql));
        put_query(&mut query, said.as_deref().unwrap_or(sql));
        let before = self.channel.errors_passed();
        self.channel.set_ends_unnamed(false);
        self.block.keeper_mut().passes_query(journaled);
        self.channel.log_answers(self.block.keeper().answers_limit());
        self.channel.account(b'Q');
        self.channel.send_to_server(&query);
        match self.channel.settle(true).await {
            Event::Settled => {}
            _ => return Err(BackendLost),
        }
        Ok(if self.channel.errors_passed() == before { StatementOutcome::Done } else { StatementOutcome::Failed })
    }
}
