//! The simple protocol: a Query of one statement or several.
//!
//! A string of several keeps the meaning of PostgreSQL's implicit transaction: the pieces run in one
//! transaction block that the proxy opens and commits, and the client gets one ReadyForQuery.

use super::ddl::shown;
use super::together::Tried;
use super::{Flow, Session};
use crate::backend::BackendLost;
use crate::config::{Fallback, Mode};
use crate::execute::Stop;
use crate::pg::sqlstate;
use crate::plan;
use crate::relay::Event;
use crate::report::{Report, Severity};
use crate::sql::{self, Class, Statement, TransactionControl};
use crate::wire::message::{self, put_query};
use crate::wire::reply;
use bytes::BytesMut;

/// What becomes of a text.
pub(super) enum Understood {
    /// With its statements, where it could be parsed.
    Relay(Vec<Statement>),
    Refuse(Report),
    Act(Vec<Statement>),
}

/// How a piece of a string ended.
pub(super) enum Piece {
    Done,
    /// The client has the error; the rest of the string is skipped.
    Failed,
}

impl Session {
    pub(super) async fn query(&mut self) -> Flow {
        if self.eye.oversize {
            return self.refuse_oversize().await;
        }
        let Some((_, body)) = self.talk.link.peek_frame() else { return Flow::End };
        let text = message::query(body).map(<[u8]>::to_vec).unwrap_or_default();
        // After an error in a pipeline the server skips even a Query.
        if self.talk.link.owed.skipping() {
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        if self.owns_block {
            return match self.query_ends_pipeline(&text).await {
                Ok(flow) => flow,
                Err(BackendLost) => self.end(Event::BackendClosed).await,
            };
        }
        self.look_at_block();
        let statements = match self.understand(&text).await {
            Understood::Act(statements) if self.interceptable() => statements,
            Understood::Refuse(report) => return self.refuse_text(&report).await,
            Understood::Act(_) => {
                self.shared.metrics.ddl_uninterceptable.add();
                self.eye.block = None;
                self.talk.link.pass_frame();
                return Flow::Continue;
            }
            Understood::Relay(statements) => {
                self.passed(&statements);
                self.talk.link.pass_frame();
                return Flow::Continue;
            }
        };
        if self.is_held(&statements) {
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        match self.talk.link.settle(false).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        // The frame went to a copy that it made fail.
        if !self.talk.link.owed.certain() {
            return Flow::Continue;
        }
        // In a failed block every statement is refused, by the server.
        if self.talk.link.status == b'E' && !statements.iter().any(|s| matches!(s.class, Class::Transaction(_))) {
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        self.talk.link.take_frame();
        let result = match statements.as_slice() {
            [only] => self.one(only, &text).await,
            several => self.string(several, &text, false).await,
        };
        match result {
            Ok(()) => {
                self.tell_ready();
                Flow::Continue
            }
            Err(BackendLost) => self.end(Event::BackendClosed).await,
        }
    }

    /// A Query behind a pipeline that has no Sync, whose implicit transaction the proxy keeps as a block: the
    /// string belongs to that transaction, and ends it.
    async fn query_ends_pipeline(&mut self, text: &[u8]) -> Result<Flow, BackendLost> {
        if !self.catch_up().await? {
            self.talk.link.pass_frame();
            return Ok(Flow::Continue);
        }
        self.talk.link.take_frame();
        self.owns_block = false;
        self.eye.watch_sync = false;
        let statements = self.parsed(text).await.unwrap_or_default();
        if statements.is_empty() {
            self.piece(text).await?;
            self.close_block().await?;
        } else {
            self.string(&statements, text, true).await?;
        }
        self.tell_ready();
        Ok(Flow::Continue)
    }

    /// A text's statements, if it can be parsed. PostgreSQL's lexer needs quadratic time for some long texts
    /// (nested comments): those are read aside, so that the other sessions of this worker need not wait.
    async fn parsed(&self, text: &[u8]) -> Option<Vec<Statement>> {
        const SURELY_QUICK: usize = 16 << 10;
        let options = sql::ParseOptions { standard_conforming_strings: self.talk.link.conforming_strings };
        // Where the session's encoding is another, bytes that happen to be UTF-8 mean something else: in some a
        // backslash or a quote may be half a character.
        let text = std::str::from_utf8(text).ok().filter(|text| self.talk.link.utf8 || text.is_ascii())?;
        if text.len() <= SURELY_QUICK {
            return sql::parse_with(text, options).ok();
        }
        let text = text.to_owned();
        tokio::task::spawn_blocking(move || sql::parse_with(&text, options).ok()).await.ok()?
    }

    /// What becomes of a text with DDL keywords.
    pub(super) async fn understand(&self, text: &[u8]) -> Understood {
        let parsed = self.parsed(text).await;
        let ddl = &self.shared.config.ddl;
        let Some(statements) = parsed else {
            self.shared.metrics.texts_unparsable.add();
            tracing::debug!("a text with DDL keywords could not be parsed");
            return match ddl.unparsable {
                Fallback::Relay => Understood::Relay(Vec::new()),
                Fallback::Refuse => Understood::Refuse(
                    Report::error(
                        sqlstate::FEATURE_NOT_SUPPORTED,
                        "statement has DDL keywords and cannot be parsed by the proxy",
                    )
                    .hint("unparsable in [ddl] of proxy.toml is \"refuse\"; with \"relay\" the server would judge it."),
                ),
            };
        };
        if !statements.iter().any(acts) {
            return Understood::Relay(statements);
        }
        if statements.len() > ddl.statements_limit {
            self.shared.metrics.texts_oversize.add();
            return match ddl.oversize {
                Fallback::Relay => Understood::Relay(Vec::new()),
                Fallback::Refuse => Understood::Refuse(
                    Report::error(
                        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
                        "string has more statements than the proxy may inspect",
                    )
                    .hint("Send it in smaller pieces, or raise statements_limit in [ddl] of proxy.toml."),
                ),
            };
        }
        if self.shared.config.proxy.mode == Mode::Observe {
            for statement in statements.iter().filter(|s| acts(s)) {
                self.shared.metrics.ddl_seen.add();
                tracing::info!(lock = ?locks_of(statement), "would act on: {}", shown(statement));
            }
            return Understood::Relay(Vec::new());
        }
        Understood::Act(statements)
    }

    /// An error of the proxy's in place of the whole string.
    async fn refuse_text(&mut self, report: &Report) -> Flow {
        if !self.interceptable() {
            return self.refuse_session(report).await;
        }
        match self.talk.link.settle(false).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        // The frame went to a copy that it made fail.
        if !self.talk.link.owed.certain() {
            return Flow::Continue;
        }
        self.talk.link.take_frame();
        self.shared.metrics.ddl_refused.add();
        if self.talk.link.status == b'T' && self.fail_block().await.is_err() {
            return self.end(Event::BackendClosed).await;
        }
        self.talk.tell(report);
        self.tell_ready();
        Flow::Continue
    }

    /// Where an error could not be put in its place among the server's answers, the session ends with it.
    pub(super) async fn refuse_session(&mut self, report: &Report) -> Flow {
        self.shared.metrics.ddl_refused.add();
        self.last_word(&Report { severity: Severity::Fatal, ..report.clone() }).await;
        Flow::End
    }

    /// Fails the transaction block, as an error of the server's would have.
    pub(super) async fn fail_block(&mut self) -> Result<(), BackendLost> {
        self.talk.ask_one("ROLLBACK TO SAVEPOINT \"pgsluice: the statement before was refused\"", &[]).await?;
        Ok(())
    }

    /// ReadyForQuery, for a Query that the server did not see.
    pub(super) fn tell_ready(&mut self) {
        self.tell_notifications();
        let mut ready = BytesMut::new();
        reply::put_ready(&mut ready, self.talk.link.status);
        self.talk.link.tell_front(&ready);
    }

    fn interceptable(&self) -> bool {
        self.talk.link.owed.certain() && !self.talk.link.owed.unsynced()
    }

    async fn refuse_oversize(&mut self) -> Flow {
        self.refuse_session(
            &Report::fatal(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "statement text is larger than the proxy may inspect").hint(
                "Send it in smaller pieces, or raise inspect_limit in [ddl] of proxy.toml, or let such texts pass with oversize = \"relay\".",
            ),
        )
        .await
    }

    /// A string of one statement.
    async fn one(&mut self, statement: &Statement, text: &[u8]) -> Result<(), BackendLost> {
        match &statement.class {
            Class::ExplainDdl(inner) => {
                let sql = self.explain(inner).await?;
                self.piece(sql.as_bytes()).await?;
            }
            _ => {
                let offset = characters(&text[..statement.range.start]);
                self.act(statement, offset).await?;
            }
        }
        Ok(())
    }

    /// Acts on one statement and puts all that the client gets for it on its way, ReadyForQuery excepted.
    async fn act(&mut self, statement: &Statement, offset: usize) -> Result<Piece, BackendLost> {
        match self.run_ddl(statement, offset).await {
            Ok(reply) => {
                self.talk.link.tell_front(&reply.frames);
                Ok(Piece::Done)
            }
            Err(stop) => {
                self.tell_stop(stop)?;
                Ok(Piece::Failed)
            }
        }
    }

    /// Acts on the last statement of a string. The server commits before it says that this one is complete.
    async fn act_and_commit(&mut self, statement: &Statement, offset: usize) -> Result<Piece, BackendLost> {
        let reply = match self.run_ddl(statement, offset).await {
            Ok(reply) => reply,
            Err(stop) => {
                self.tell_stop(stop)?;
                self.close_block().await?;
                return Ok(Piece::Failed);
            }
        };
        let Some(error) = self.talk.ask_one("COMMIT", &[]).await?.error else {
            self.talk.link.tell_front(&reply.frames);
            return Ok(Piece::Done);
        };
        self.talk.link.tell_front(&reply.notices());
        self.talk.link.tell_front(&error.frame);
        Ok(Piece::Failed)
    }

    /// The client's ErrorResponse.
    pub(super) fn tell_stop(&mut self, stop: Stop) -> Result<(), BackendLost> {
        match stop {
            Stop::Server(error) => self.talk.link.tell_front(&error.frame),
            Stop::Report(report) => self.talk.tell(&report),
            Stop::ClientGone | Stop::Slow | Stop::Lost => return Err(BackendLost),
        }
        Ok(())
    }

    /// A piece of a string as a Query of its own; its ReadyForQuery is kept back.
    async fn piece(&mut self, sql: &[u8]) -> Result<Piece, BackendLost> {
        let mut query = BytesMut::with_capacity(sql.len() + 8);
        put_query(&mut query, sql);
        let before = self.talk.link.errors;
        self.talk.link.account(b'Q');
        self.talk.link.tell_back(&query);
        match self.talk.link.settle(true).await {
            Event::Settled => {}
            _ => return Err(BackendLost),
        }
        Ok(if self.talk.link.errors == before { Piece::Done } else { Piece::Failed })
    }

    /// A string of several statements. `owned`: a block that the proxy opened is under way.
    async fn string(&mut self, statements: &[Statement], text: &[u8], mut owned: bool) -> Result<(), BackendLost> {
        let mut at = 0;
        // One that is to go by itself, as others could not be tried together with it.
        let mut alone = None;
        while let Some(statement) = statements.get(at) {
            let run = &statements[at..];
            let last = run.len() == 1;
            let result = if let Class::Transaction(control) = statement.class {
                at += 1;
                self.eye.block = None;
                self.control(control, statement, &mut owned).await?
            } else {
                // The last statement alone is a transaction of its own; anything before it keeps it in a block.
                if self.talk.link.status == b'I' && !last {
                    owned = self.talk.ask_one("BEGIN", &[]).await?.error.is_none();
                }
                self.look_at_block();
                // The last statement of a block of ours is not done before its COMMIT.
                let end = match alone {
                    Some(alone) if alone > at => alone,
                    _ => statements.len() - usize::from(owned),
                };
                let tried = if alone == Some(at) { Tried::No } else { self.together(&statements[at..end]).await? };
                match tried {
                    Tried::Done(count) => {
                        at += count;
                        continue;
                    }
                    Tried::Alone(0) | Tried::No => {}
                    Tried::Alone(count) => {
                        alone = Some(at + count);
                        continue;
                    }
                    Tried::Failed => break,
                }
                let count = self.passing(run);
                if count == 0 {
                    at += 1;
                    let offset = characters(&text[..statement.range.start]);
                    match last && std::mem::take(&mut owned) {
                        true => self.act_and_commit(statement, offset).await?,
                        false => self.act(statement, offset).await?,
                    }
                } else {
                    let end = run[count - 1].range.end;
                    at += count;
                    // Outside a block, statements behind this run must stay in one transaction with it.
                    self.shifted_piece(text, statement.range.start, end).await?
                }
            };
            if matches!(result, Piece::Failed) {
                break;
            }
        }
        if owned {
            self.close_block().await?;
        }
        self.look_at_block();
        Ok(())
    }

    /// Ends the block that stands for an implicit transaction.
    pub(super) async fn close_block(&mut self) -> Result<(), BackendLost> {
        match self.talk.link.status {
            b'T' => {
                if let Some(error) = self.talk.ask_one("COMMIT", &[]).await?.error {
                    self.talk.link.tell_front(&error.frame);
                }
            }
            b'E' => {
                self.talk.ask_one("ROLLBACK", &[]).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A run of statements nobody acts on, error positions in the terms of the whole string.
    async fn shifted_piece(&mut self, text: &[u8], start: usize, end: usize) -> Result<Piece, BackendLost> {
        self.talk.link.shift_errors = characters(&text[..start]);
        let result = self.piece(&text[start..end]).await;
        self.talk.link.shift_errors = 0;
        result
    }

    /// BEGIN, COMMIT and their like inside a string.
    pub(super) async fn control(
        &mut self,
        control: TransactionControl,
        statement: &Statement,
        owned: &mut bool,
    ) -> Result<Piece, BackendLost> {
        if *owned && self.talk.link.status == b'T' {
            match control {
                // The implicit transaction becomes an explicit one, with what was done so far; options apply.
                TransactionControl::Begin => {
                    let piece = self.hushed_begin(statement).await?;
                    // With an error the implicit transaction ends, and its block with it.
                    *owned = matches!(piece, Piece::Failed);
                    return Ok(piece);
                }
                TransactionControl::Savepoint
                | TransactionControl::Commit { chain: true }
                | TransactionControl::Rollback { chain: true } => {
                    self.refuse_outside_block(control, statement).await?;
                    return Ok(Piece::Failed);
                }
                TransactionControl::Commit { .. }
                | TransactionControl::Rollback { .. }
                | TransactionControl::Prepare => {
                    self.talk.tell(&no_transaction());
                    *owned = false;
                }
            }
        }
        self.piece(statement.text.as_bytes()).await
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
        self.talk.tell(&Report::error(
            sqlstate::NO_ACTIVE_SQL_TRANSACTION,
            format!("{word} can only be used in transaction blocks"),
        ));
        self.talk.ask_one("ROLLBACK", &[]).await?;
        Ok(())
    }

    pub(super) async fn hushed_begin(&mut self, statement: &Statement) -> Result<Piece, BackendLost> {
        let mut batch = message::Batch::new();
        batch.statement(&statement.text, &[]);
        let answer = self.talk.ask(batch, Some(0)).await?;
        // Its only notice would be that a transaction is in progress already: ours.
        match answer.error {
            None => {
                self.talk.link.tell_front(&answer.completion);
                Ok(Piece::Done)
            }
            Some(error) => {
                self.talk.link.tell_front(&error.frame);
                Ok(Piece::Failed)
            }
        }
    }
}

/// What COMMIT and ROLLBACK outside a block are told.
pub(super) fn no_transaction() -> Report {
    Report::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress")
}

/// Whether the proxy has something to do for a statement. What takes no lock that others could wait for is let go.
pub(super) fn acts(statement: &Statement) -> bool {
    match &statement.class {
        Class::Ddl(ddl) => plan::needs_plan(ddl),
        Class::ExplainDdl(_) => true,
        Class::MayHideDdl { names_ddl, swallows } => *names_ddl && !*swallows,
        Class::Transaction(_) | Class::Other => false,
    }
}

/// PostgreSQL counts error positions in characters.
pub(super) fn characters(text: &[u8]) -> usize {
    String::from_utf8_lossy(text).chars().count()
}

/// The lock modes that a statement's forms take, for the log of `observe` mode, which asks the server nothing.
fn locks_of(statement: &Statement) -> Vec<&'static str> {
    let Class::Ddl(ddl) = &statement.class else { return Vec::new() };
    ddl.parts.iter().filter_map(|part| part.form.row().lock).map(crate::pg::LockMode::sql).collect()
}
