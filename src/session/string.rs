//! A string of several statements, of which some are acted on.
//!
//! It keeps the meaning of PostgreSQL's implicit transaction: the pieces run in one transaction block that the proxy opens and
//! commits. What nobody acts on goes to the server as it stands, and what the server would refuse in a string it is to refuse here.

use super::Session;
use super::simple::StatementOutcome;
use super::statement::{acts, characters, stands_alone};
use super::together::BatchTryOutcome;
use crate::backend::BackendLost;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::sql::{Class, Statement, TransactionControl};
use crate::wire::message;

impl Session {
    /// Whether the server can read all of a text, of which our grammar could not read all: else the whole text is its to refuse.
    pub(super) async fn server_reads(&mut self, statements: &[Statement]) -> Result<bool, BackendLost> {
        let newer = statements.iter().filter(|statement| matches!(statement.class, Class::Newer));
        if newer.clone().next().is_none() {
            return Ok(true);
        }
        let mut batch = message::Batch::new();
        newer.for_each(|statement| batch.parse(&statement.text));
        Ok(self.channel.ask(batch, None).await?.error.is_none())
    }

    /// A string of several statements. `owned`: a block that the proxy opened is under way.
    pub(super) async fn string(
        &mut self,
        statements: &[Statement],
        text: &[u8],
        mut owned: bool,
    ) -> Result<(), BackendLost> {
        let speech = self.channel.speech();
        let mut at = 0;
        // One that is to go by itself, as others could not be tried together with it.
        let mut alone = None;
        while let Some(statement) = statements.get(at) {
            let run = &statements[at..];
            let last = run.len() == 1;
            if self.channel.speech() != speech && !text[statement.range.start..].is_ascii() {
                self.refuse_rest().await?;
                break;
            }
            let result = if let Class::Transaction(control) = statement.class {
                self.interceptor.block = None;
                let count = going_together(control, run, owned);
                at += count;
                self.control(control, statement, &text[..run[count - 1].range.end], &mut owned).await?
            } else {
                // The last statement alone is a transaction of its own, unless it is one that the server refuses behind others;
                // anything before it keeps it in a block.
                if self.channel.status() == b'I' && (!last || is_refused_in_blocks(statement)) {
                    owned = self.channel.ask_one("BEGIN", &[]).await?.error.is_none();
                }
                self.look_at_block();
                // The last statement of a block of ours is not done before its COMMIT.
                let end = match alone {
                    Some(alone) if alone > at => alone,
                    _ => statements.len() - usize::from(owned),
                };
                let tried =
                    if alone == Some(at) { BatchTryOutcome::No } else { self.together(&statements[at..end]).await? };
                match tried {
                    BatchTryOutcome::Done(count) => {
                        at += count;
                        continue;
                    }
                    BatchTryOutcome::Alone(0) | BatchTryOutcome::No => {}
                    BatchTryOutcome::Alone(count) => {
                        alone = Some(at + count);
                        continue;
                    }
                    BatchTryOutcome::Failed => break,
                }
                let count = self.passing(run);
                if count == 0 {
                    at += 1;
                    let offset = characters(&text[..statement.range.start]);
                    self.act_within(statement, offset, last, &mut owned).await?
                } else {
                    let end = run[count - 1].range.end;
                    at += count;
                    // Outside a block, statements behind this run must stay in one transaction with it.
                    self.shifted_piece(text, statement.range.start, end).await?
                }
            };
            if matches!(result, StatementOutcome::Failed) {
                break;
            }
        }
        if owned {
            self.close_block().await?;
        }
        self.look_at_block();
        Ok(())
    }

    /// Acts on one of a string's statements; the last one ends a block of ours.
    async fn act_within(
        &mut self,
        statement: &Statement,
        offset: usize,
        last: bool,
        owned: &mut bool,
    ) -> Result<StatementOutcome, BackendLost> {
        let changes = !matches!(statement.class, Class::ExplainDdl(_));
        match last && changes && std::mem::take(owned) {
            true => self.act_and_commit(statement, offset).await,
            false => self.act(statement, offset).await,
        }
    }

    /// The server has read the whole string as its session did when it came; in pieces, the rest would mean something else.
    async fn refuse_rest(&mut self) -> Result<(), BackendLost> {
        let report = Report::error(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "client_encoding has changed amid a string that goes on with characters beyond ASCII",
        );
        self.channel.notify(&report.hint("Send what changes it by itself."));
        if self.channel.status() == b'T' { self.fail_block().await } else { Ok(()) }
    }

    /// Ends the block that stands for an implicit transaction.
    pub(super) async fn close_block(&mut self) -> Result<(), BackendLost> {
        match self.channel.status() {
            b'T' => {
                if let Some(error) = self.channel.ask_one("COMMIT", &[]).await?.error {
                    self.channel.send_to_client(&error.frame);
                }
            }
            b'E' => {
                self.channel.ask_one("ROLLBACK", &[]).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A run of statements nobody acts on, error positions in the terms of the whole string.
    async fn shifted_piece(&mut self, text: &[u8], start: usize, end: usize) -> Result<StatementOutcome, BackendLost> {
        self.channel.shift_errors(u32::try_from(characters(&text[..start])).unwrap_or_default());
        let result = self.piece(&text[start..end]).await;
        self.channel.shift_errors(0);
        result
    }

    /// BEGIN, COMMIT and their like inside a string. `text` ends with it, or with what goes on with it.
    pub(super) async fn control(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
        text: &[u8],
        owned: &mut bool,
    ) -> Result<StatementOutcome, BackendLost> {
        if *owned && self.channel.status() == b'T' {
            match control {
                // The implicit transaction becomes an explicit one, with what was done so far; options apply.
                TransactionControl::Begin => {
                    let piece = self.hushed_begin(statement).await?;
                    // With an error the implicit transaction ends, and its block with it.
                    *owned = matches!(piece, StatementOutcome::Failed);
                    return Ok(piece);
                }
                TransactionControl::Savepoint
                | TransactionControl::Commit { chain: true }
                | TransactionControl::Rollback { chain: true } => {
                    self.refuse_outside_block(control, statement).await?;
                    return Ok(StatementOutcome::Failed);
                }
                TransactionControl::Commit { .. }
                | TransactionControl::Rollback { .. }
                | TransactionControl::Prepare => {
                    self.channel.notify(&no_transaction());
                    *owned = false;
                }
            }
        }
        self.shifted_piece(text, statement.range.start, text.len()).await
    }

    /// The error that savepoints and AND CHAIN get outside a block; it takes the implicit transaction with it.
    pub(super) async fn refuse_outside_block(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
    ) -> Result<(), BackendLost> {
        let word = statement.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let word = match (control, word.as_str()) {
            (TransactionControl::Commit { .. }, _) => "COMMIT AND CHAIN",
            (TransactionControl::Rollback { .. }, _) => "ROLLBACK AND CHAIN",
            (_, "RELEASE") => "RELEASE SAVEPOINT",
            (_, "ROLLBACK") => "ROLLBACK TO SAVEPOINT",
            _ => "SAVEPOINT",
        };
        self.channel.notify(&Report::error(
            sqlstate::NO_ACTIVE_SQL_TRANSACTION,
            format!("{word} can only be used in transaction blocks"),
        ));
        self.channel.ask_one("ROLLBACK", &[]).await?;
        Ok(())
    }

    pub(super) async fn hushed_begin(&mut self, statement: &Statement) -> Result<StatementOutcome, BackendLost> {
        let mut batch = message::Batch::new();
        batch.statement(&statement.text, &[]);
        let answer = self.channel.ask(batch, Some(0)).await?;
        // Its only notice would be that a transaction is in progress already: ours.
        match answer.error {
            None => {
                self.channel.send_to_client(&answer.completion);
                Ok(StatementOutcome::Done)
            }
            Some(error) => {
                self.channel.send_to_client(&error.frame);
                Ok(StatementOutcome::Failed)
            }
        }
    }
}

/// What COMMIT and ROLLBACK outside a block are told.
pub(super) fn no_transaction() -> Report {
    Report::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress")
}

/// How many statements go on with a COMMIT or its like: all that follow, if nobody acts on any, so that the server sees what it is
/// to see, a string of several.
fn going_together(control: TransactionControl, run: &[Statement], owned: bool) -> usize {
    let goes = match control {
        // In a block of ours others than the server answer these.
        _ if !owned => true,
        TransactionControl::Commit { chain } | TransactionControl::Rollback { chain } => !chain,
        TransactionControl::Begin | TransactionControl::Savepoint | TransactionControl::Prepare => false,
    };
    if goes && !run[1..].iter().any(acts) { run.len() } else { 1 }
}

/// Whether the server may refuse it in a string of several, whose statements are one transaction: what commits by itself.
fn is_refused_in_blocks(statement: &Statement) -> bool {
    matches!(statement.class, Class::MayHideDdl { .. } | Class::Newer) || stands_alone(statement)
}
