//! A string of several statements, some of which the proxy acts on.
//!
//! [`StringRun`] owns how far the string is, and whether the block that is under way is the proxy's. It keeps true: the string keeps the meaning
//! of PostgreSQL's implicit transaction. Its pieces run in one transaction block that the proxy opens and commits. A statement that the proxy
//! does not act on goes to the server as it is written. A statement that the server would refuse in the string, it refuses in the pieces.

use super::answer::Answerer;
use crate::backend::BackendLost;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::session::change::BatchTryOutcome;
use crate::session::outcome::StatementOutcome;
use crate::session::reply::send_error;
use crate::session::statement::{acts, characters, stands_alone};
use crate::session::transaction;
use crate::sql::{Class, Statement, TransactionControl};
use crate::wire::speech::Speech;

/// A string on its way.
pub(super) struct StringRun<'s> {
    answerer: Answerer<'s>,
    statements: &'s [Statement],
    text: &'s [u8],
    /// How the text was read.
    speech: Speech,
    /// The statement that comes next.
    at: usize,
    /// A statement that runs by itself, since a batch has failed because of it.
    alone: Option<usize>,
    /// The block that is under way is the proxy's.
    owned: bool,
}

impl<'s> StringRun<'s> {
    /// `owned`: a block that the proxy opened is under way.
    pub(super) fn new(answerer: Answerer<'s>, statements: &'s [Statement], text: &'s [u8], owned: bool) -> Self {
        let speech = answerer.channel.speech();
        Self { answerer, statements, text, speech, at: 0, alone: None, owned }
    }

    /// Runs the string to its end, or to its first error.
    pub(super) async fn run(mut self) -> Result<(), BackendLost> {
        while self.at < self.statements.len() {
            if matches!(self.next().await?, StatementOutcome::Failed) {
                break;
            }
        }
        if self.owned {
            self.answerer.ahead().end_proxys_block().await?;
        }
        self.refresh_block();
        Ok(())
    }

    fn refresh_block(&mut self) {
        self.answerer.block.refresh(self.answerer.channel);
    }

    /// Runs the next statement, and those that go with it.
    async fn next(&mut self) -> Result<StatementOutcome, BackendLost> {
        let run = &self.statements[self.at..];
        let Some(statement) = run.first() else { return Ok(StatementOutcome::Done) };
        if self.answerer.channel.speech() != self.speech && !self.text[statement.range.start..].is_ascii() {
            self.refuse_rest().await?;
            return Ok(StatementOutcome::Failed);
        }
        if let Class::Transaction(control) = statement.class {
            self.answerer.block.forget();
            let ahead = self.answerer.block.has_ahead();
            let count = if ahead { 1 } else { going_together(control, run, self.owned) };
            self.at += count;
            return self.control(control, statement, run[count - 1].range.end).await;
        }
        let last = run.len() == 1;
        // The last statement alone is a transaction of its own, unless the server refuses it behind others. Any statement before it keeps it in a
        // block.
        if self.answerer.channel.status() == b'I' && (!last || is_refused_in_blocks(statement)) {
            self.owned = self.answerer.begin_block().await?;
        }
        self.refresh_block();
        if let Some(outcome) = self.try_together().await? {
            return Ok(outcome);
        }
        let count = self.passing(run);
        if count == 0 {
            self.at += 1;
            return self.act(statement, last).await;
        }
        if self.answerer.block.sees_writes()
            && self.answerer.channel.status() == b'T'
            && let Some(text) = self.text.get(statement.range.start..run[count - 1].range.end)
            && let Ok(text) = std::str::from_utf8(text)
            && let Err(stop) = Box::pin(self.answerer.ahead().free_before(text)).await
        {
            send_error(self.answerer.channel, &stop)?;
            return Ok(StatementOutcome::Failed);
        }
        self.at += count;
        // Outside a block, statements behind this run must stay in one transaction with it.
        self.relay(statement.range.start, run[count - 1].range.end).await
    }

    /// Runs as many statements as possible in one round trip. `None`: the next one runs by itself.
    async fn try_together(&mut self) -> Result<Option<StatementOutcome>, BackendLost> {
        // The last statement of the proxy's block runs together with its COMMIT.
        let end = match self.alone {
            Some(alone) if alone == self.at => return Ok(None),
            Some(alone) if alone > self.at => alone,
            _ => self.statements.len() - usize::from(self.owned),
        };
        let Answerer { channel, block, changes, .. } = &mut self.answerer;
        match changes.run_together(channel, block, &self.statements[self.at..end]).await {
            Ok(BatchTryOutcome::Done(count, frames)) => {
                channel.send_to_client(&frames);
                self.at += count;
            }
            Ok(BatchTryOutcome::Alone(0) | BatchTryOutcome::No) => return Ok(None),
            Ok(BatchTryOutcome::Alone(count)) => self.alone = Some(self.at + count),
            Err(stop) => {
                send_error(channel, &stop)?;
                return Ok(Some(StatementOutcome::Failed));
            }
        }
        Ok(Some(StatementOutcome::Done))
    }

    /// How many statements of the run pass together as they are.
    fn passing(&mut self, run: &[Statement]) -> usize {
        let Answerer { block, changes, shared, .. } = &mut self.answerer;
        let count = block.passing(run, &shared.limits());
        run[..count].iter().filter(|statement| acts(statement)).for_each(|statement| changes.relayed(statement));
        count
    }

    /// Acts on one statement. The last one ends a block of the proxy's.
    async fn act(&mut self, statement: &Statement, last: bool) -> Result<StatementOutcome, BackendLost> {
        let offset = characters(&self.text[..statement.range.start]);
        let changes = !matches!(statement.class, Class::ExplainDdl(_));
        match last && changes && std::mem::take(&mut self.owned) {
            true => self.answerer.act_and_commit(statement, offset).await,
            false => self.answerer.act(statement, offset).await,
        }
    }

    /// Refuses the rest of the string. The server would have read the whole string in the encoding that was set when it came. In pieces, the rest
    /// would mean something else.
    async fn refuse_rest(&mut self) -> Result<(), BackendLost> {
        let report = Report::error(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "client_encoding has changed amid a string that goes on with characters beyond ASCII",
        );
        let channel = &mut *self.answerer.channel;
        channel.notify(&report.hint("Send the statement that changes client_encoding by itself."));
        if channel.status() == b'T' { transaction::fail(channel).await } else { Ok(()) }
    }

    /// Relays a run of statements that the proxy does not act on. Error positions count from the start of the string.
    async fn relay(&mut self, start: usize, end: usize) -> Result<StatementOutcome, BackendLost> {
        let before = u32::try_from(characters(&self.text[..start])).unwrap_or_default();
        self.answerer.channel.shift_errors(before);
        let result = self.answerer.relay_piece(&self.text[start..end]).await;
        self.answerer.channel.shift_errors(0);
        result
    }

    /// Runs BEGIN, COMMIT or the like. `end`: where in the text the statements end that go with it.
    async fn control(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
        end: usize,
    ) -> Result<StatementOutcome, BackendLost> {
        if self.owned
            && self.answerer.channel.status() == b'T'
            && let Some(outcome) = self.control_of_proxys(control, statement).await?
        {
            return Ok(outcome);
        }
        if !self.answerer.block.has_ahead() {
            return self.relay(statement.range.start, end).await;
        }
        let before = match self.answerer.ahead().before_control(control, statement).await {
            Ok(before) => before,
            Err(stop) => {
                send_error(self.answerer.channel, &stop)?;
                return Ok(StatementOutcome::Failed);
            }
        };
        let Some(before) = before else { return Ok(StatementOutcome::Failed) };
        let outcome = self.relay(statement.range.start, end).await?;
        self.answerer.ahead().behind_control(before, outcome).await?;
        Ok(outcome)
    }

    /// Answers transaction control in the proxy's block. `None`: the server answers it.
    async fn control_of_proxys(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
    ) -> Result<Option<StatementOutcome>, BackendLost> {
        let channel = &mut *self.answerer.channel;
        match control {
            // The implicit transaction becomes an explicit one, with all earlier statements. The options of BEGIN apply.
            TransactionControl::Begin => {
                let outcome = transaction::begin_quietly(channel, statement).await?;
                // An error ends the implicit transaction, and its block with it.
                self.owned = matches!(outcome, StatementOutcome::Failed);
                Ok(Some(outcome))
            }
            TransactionControl::Savepoint
            | TransactionControl::Commit { chain: true }
            | TransactionControl::Rollback { chain: true } => {
                transaction::refuse_outside_block(channel, control, statement).await?;
                self.answerer.ahead().ended(false).await?;
                Ok(Some(StatementOutcome::Failed))
            }
            TransactionControl::Commit { .. } | TransactionControl::Rollback { .. } | TransactionControl::Prepare => {
                channel.notify(&transaction::no_transaction());
                self.owned = false;
                Ok(None)
            }
        }
    }
}

/// How many statements go with a COMMIT or the like: all that follow, if the proxy acts on none of them, so that the server sees a string of
/// several statements.
fn going_together(control: TransactionControl, run: &[Statement], owned: bool) -> usize {
    let goes = match control {
        // In its own block the proxy itself answers these.
        _ if !owned => true,
        TransactionControl::Commit { chain } | TransactionControl::Rollback { chain } => !chain,
        TransactionControl::Begin | TransactionControl::Savepoint | TransactionControl::Prepare => false,
    };
    if goes && !run[1..].iter().any(acts) { run.len() } else { 1 }
}

/// Whether the server may refuse the statement in a string of several, since the statement commits by itself.
fn is_refused_in_blocks(statement: &Statement) -> bool {
    matches!(statement.class, Class::MayHideDdl { .. } | Class::Newer) || stands_alone(statement)
}
