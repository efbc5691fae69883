//! The simple protocol: a Query of one statement or several.
//!
//! A string of several keeps the meaning of PostgreSQL's implicit transaction: the pieces run in one
//! transaction block that the proxy opens and commits, and the client gets one ReadyForQuery.

use super::statement::{acts, characters, shown};
use super::{FrameOutcome, Session};
use crate::backend::BackendLost;
use crate::config::{Fallback, Mode};
use crate::execute::RunError;
use crate::pg::sqlstate;
use crate::relay::Event;
use crate::report::{Report, Severity};
use crate::sql::{self, Class, Statement};
use crate::wire::message::{self, put_query};
use crate::wire::{reply, speech};
use bytes::BytesMut;
use std::sync::Arc;

/// What becomes of a text.
pub(super) enum TextVerdict {
    /// With its statements, where it could be parsed.
    Relay(Vec<Statement>),
    Refuse(Report),
    Act(Vec<Statement>),
}

/// How a piece of a string ended.
pub(super) enum StatementOutcome {
    Done,
    /// The client has the error; the rest of the string is skipped.
    Failed,
}

impl Session {
    pub(super) async fn query(&mut self) -> FrameOutcome {
        if self.interceptor.oversize {
            return self.refuse_oversize().await;
        }
        let Some((_, body)) = self.channel.peek_frame() else { return FrameOutcome::End };
        let speech = self.channel.speech();
        let text = message::query(body).map(|text| speech.readable(text).into_owned()).unwrap_or_default();
        // After an error in a pipeline the server skips even a Query.
        if self.channel.is_skipping() {
            return self.pass();
        }
        if self.owns_block {
            return match self.query_ends_pipeline(&text).await {
                Ok(flow) => flow,
                Err(BackendLost) => self.end(Event::BackendClosed).await,
            };
        }
        self.look_at_block();
        let statements = match self.judge_text(&text).await {
            TextVerdict::Act(statements) if self.interceptable() => statements,
            TextVerdict::Refuse(report) => return self.refuse_text(&report).await,
            TextVerdict::Act(_) => {
                self.shared.metrics.ddl_uninterceptable.add();
                self.interceptor.block = None;
                self.channel.pass_frame();
                return FrameOutcome::Continue;
            }
            TextVerdict::Relay(statements) => {
                self.passed(&statements);
                self.channel.pass_frame();
                return FrameOutcome::Continue;
            }
        };
        if self.is_held(&statements) {
            return self.pass();
        }
        match self.channel.settle(false).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        // The frame went to a copy that it made fail.
        if !self.channel.owed_is_certain() {
            return FrameOutcome::Continue;
        }
        // What came before it has changed how it is read.
        if self.channel.speech() != speech {
            return Box::pin(self.query()).await;
        }
        // In a failed block every statement is refused, by the server.
        if self.channel.status() == b'E' && !statements.iter().any(|s| matches!(s.class, Class::Transaction(_))) {
            return self.pass();
        }
        let result = match self.server_reads(&statements).await {
            Ok(true) => self.answer(&statements, &text).await,
            Ok(false) => return self.pass(),
            Err(lost) => Err(lost),
        };
        match result {
            Ok(()) => {
                self.send_ready();
                FrameOutcome::Continue
            }
            Err(BackendLost) => self.end(Event::BackendClosed).await,
        }
    }

    /// The frame goes to the server as it came.
    fn pass(&mut self) -> FrameOutcome {
        self.channel.pass_frame();
        FrameOutcome::Continue
    }

    /// Answers a Query in place of the server, but for ReadyForQuery.
    async fn answer(&mut self, statements: &[Statement], text: &[u8]) -> Result<(), BackendLost> {
        self.take_query();
        match statements {
            [only] => {
                let offset = characters(&text[..only.range.start]);
                self.act(only, offset).await?;
            }
            several => self.string(several, text, false).await?,
        }
        self.end_unnamed().await
    }

    /// Where nothing had to be asked for the Query, so that nothing of it has come to the server.
    async fn end_unnamed(&mut self) -> Result<(), BackendLost> {
        if self.channel.ends_unnamed() {
            self.channel.ask(message::Batch::new(), None).await?;
        }
        Ok(())
    }

    /// A Query behind a pipeline that has no Sync, whose implicit transaction the proxy keeps as a block: the
    /// string belongs to that transaction, and ends it.
    async fn query_ends_pipeline(&mut self, text: &[u8]) -> Result<FrameOutcome, BackendLost> {
        if !self.catch_up().await? {
            self.channel.pass_frame();
            return Ok(FrameOutcome::Continue);
        }
        self.take_query();
        self.owns_block = false;
        self.interceptor.watch_sync = false;
        let statements = self.parsed(text).await.unwrap_or_default();
        if statements.is_empty() {
            self.piece(text).await?;
            self.close_block().await?;
        } else {
            self.string(&statements, text, true).await?;
        }
        self.send_ready();
        Ok(FrameOutcome::Continue)
    }

    /// The Query is answered here, and ends what it would have ended on the server.
    fn take_query(&mut self) {
        self.channel.take_frame();
        self.channel.set_ends_unnamed(true);
        self.interceptor.forget(b"");
        self.interceptor.forget_portal(b"");
    }

    /// A text's statements, if it can be parsed. PostgreSQL's lexer needs quadratic time for some long texts
    /// (nested comments): those are read aside, so that the other sessions of this worker need not wait.
    pub(super) async fn parsed(&mut self, text: &[u8]) -> Option<Vec<Statement>> {
        const SURELY_QUICK: usize = 16 << 10;
        let speech = self.channel.speech();
        let options = sql::ParseOptions {
            standard_conforming_strings: speech.conforming(),
            newer: self.channel.server_major() > sql::GRAMMAR && self.shared.config.ddl.unparsable == Fallback::Relay,
        };
        let text = std::str::from_utf8(text).ok()?;
        let mut statements = if text.len() <= SURELY_QUICK {
            sql::parse_with(text, options).ok()?
        } else {
            let text = text.to_owned();
            self.aside(move || sql::parse_with(&text, options).ok()).await??
        };
        if speech.is_in_private(text) {
            for statement in &mut statements {
                statement.logged = speech::shown(&statement.logged);
                // Their texts are sent once more, in words of their own, which such a session may read otherwise.
                if matches!(statement.class, Class::AdvisoryLock(_) | Class::Newer) {
                    statement.class = Class::Other;
                }
            }
        }
        Some(self.as_wanted(statements))
    }

    /// What becomes of a text with DDL keywords.
    pub(super) async fn judge_text(&mut self, text: &[u8]) -> TextVerdict {
        let parsed = self.parsed(text).await;
        let shared = Arc::clone(&self.shared);
        let ddl = &shared.config.ddl;
        let Some(statements) = parsed else {
            self.shared.metrics.texts_unparsable.add();
            tracing::debug!("a text with DDL keywords could not be parsed");
            return match ddl.unparsable {
                Fallback::Relay => TextVerdict::Relay(Vec::new()),
                Fallback::Refuse => TextVerdict::Refuse(
                    Report::error(
                        sqlstate::FEATURE_NOT_SUPPORTED,
                        "statement has DDL keywords and cannot be parsed by the proxy",
                    )
                    .hint("unparsable in [ddl] of proxy.toml is \"refuse\"; with \"relay\" the server would judge it."),
                ),
            };
        };
        if !statements.iter().any(acts) {
            return TextVerdict::Relay(statements);
        }
        // The server reads the whole string before it runs any of it.
        if statements.len() > 1 && may_change_encoding(text) {
            return TextVerdict::Relay(Vec::new());
        }
        if statements.len() > ddl.statements_limit {
            self.shared.metrics.texts_oversize.add();
            return match ddl.oversize {
                Fallback::Relay => TextVerdict::Relay(Vec::new()),
                Fallback::Refuse => TextVerdict::Refuse(
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
            return TextVerdict::Relay(Vec::new());
        }
        TextVerdict::Act(statements)
    }

    /// An error of the proxy's in place of the whole string.
    async fn refuse_text(&mut self, report: &Report) -> FrameOutcome {
        if !self.interceptable() {
            return self.refuse_session(report).await;
        }
        match self.channel.settle(false).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        // The frame went to a copy that it made fail.
        if !self.channel.owed_is_certain() {
            return FrameOutcome::Continue;
        }
        self.take_query();
        self.shared.metrics.ddl_refused.add();
        let failed = self.channel.status() == b'T' && self.fail_block().await.is_err();
        if failed || self.end_unnamed().await.is_err() {
            return self.end(Event::BackendClosed).await;
        }
        self.channel.notify(report);
        self.send_ready();
        FrameOutcome::Continue
    }

    /// Where an error could not be put in its place among the server's answers, the session ends with it.
    pub(super) async fn refuse_session(&mut self, report: &Report) -> FrameOutcome {
        self.shared.metrics.ddl_refused.add();
        self.last_word(&Report { severity: Severity::Fatal, ..report.clone() }).await;
        FrameOutcome::End
    }

    /// Fails the transaction block, as an error of the server's would have.
    pub(super) async fn fail_block(&mut self) -> Result<(), BackendLost> {
        self.channel.ask_one("ROLLBACK TO SAVEPOINT \"pgsluice: the statement before was refused\"", &[]).await?;
        Ok(())
    }

    /// ReadyForQuery, for a Query that the server did not see.
    pub(super) fn send_ready(&mut self) {
        self.channel.send_notifications();
        let mut ready = BytesMut::new();
        reply::put_ready(&mut ready, self.channel.status());
        self.channel.send_to_client(&ready);
    }

    fn interceptable(&self) -> bool {
        self.channel.owed_is_certain() && !self.channel.is_unsynced()
    }

    async fn refuse_oversize(&mut self) -> FrameOutcome {
        self.refuse_session(
            &Report::fatal(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, "statement text is larger than the proxy may inspect").hint(
                "Send it in smaller pieces, or raise inspect_limit in [ddl] of proxy.toml, or let such texts pass with oversize = \"relay\".",
            ),
        )
        .await
    }

    /// Acts on one statement and puts all that the client gets for it on its way, ReadyForQuery excepted.
    pub(super) async fn act(&mut self, statement: &Statement, offset: usize) -> Result<StatementOutcome, BackendLost> {
        if let Class::ExplainDdl(inner) = &statement.class {
            let sql = self.explain(inner).await?;
            return self.piece(&self.channel.said_or_in_words(&sql)).await;
        }
        match self.run_ddl(statement, offset).await {
            Ok(reply) => {
                self.channel.send_to_client(&reply.frames);
                Ok(StatementOutcome::Done)
            }
            Err(stop) => {
                self.send_error(stop)?;
                Ok(StatementOutcome::Failed)
            }
        }
    }

    /// Acts on the last statement of a string. The server commits before it says that this one is complete.
    pub(super) async fn act_and_commit(
        &mut self,
        statement: &Statement,
        offset: usize,
    ) -> Result<StatementOutcome, BackendLost> {
        let reply = match self.run_ddl(statement, offset).await {
            Ok(reply) => reply,
            Err(stop) => {
                self.send_error(stop)?;
                self.close_block().await?;
                return Ok(StatementOutcome::Failed);
            }
        };
        let Some(error) = self.channel.ask_one("COMMIT", &[]).await?.error else {
            self.channel.send_to_client(&reply.frames);
            return Ok(StatementOutcome::Done);
        };
        self.channel.send_to_client(&reply.notices());
        self.channel.send_to_client(&error.frame);
        Ok(StatementOutcome::Failed)
    }

    /// The client's ErrorResponse.
    pub(super) fn send_error(&mut self, stop: RunError) -> Result<(), BackendLost> {
        match &stop {
            RunError::Server(error) => self.channel.send_to_client(&error.frame),
            RunError::Report(report) => self.channel.notify(report),
            RunError::Stale | RunError::Slow => {
                self.channel.notify(&Report::error(sqlstate::SERIALIZATION_FAILURE, stop.reason()).hint("Try again."));
            }
            RunError::ClientGone | RunError::Lost => return Err(BackendLost),
        }
        Ok(())
    }

    /// A piece of a string as a Query of its own; its ReadyForQuery is kept back.
    pub(super) async fn piece(&mut self, sql: &[u8]) -> Result<StatementOutcome, BackendLost> {
        let mut query = BytesMut::with_capacity(sql.len() + 8);
        let said = std::str::from_utf8(sql).ok().and_then(|sql| self.channel.speech().say(sql));
        put_query(&mut query, said.as_deref().unwrap_or(sql));
        let before = self.channel.errors_passed();
        self.channel.set_ends_unnamed(false);
        self.channel.account(b'Q');
        self.channel.send_to_server(&query);
        match self.channel.settle(true).await {
            Event::Settled => {}
            _ => return Err(BackendLost),
        }
        Ok(if self.channel.errors_passed() == before { StatementOutcome::Done } else { StatementOutcome::Failed })
    }
}

/// Whether a text that has characters beyond ASCII names the setting that says what they are.
fn may_change_encoding(text: &[u8]) -> bool {
    !text.is_ascii() && sql::has_word(text, &["client_encoding", "names"])
}

/// The lock modes that a statement's forms take, for the log of `observe` mode, which asks the server nothing.
fn locks_of(statement: &Statement) -> Vec<&'static str> {
    let Class::Ddl(ddl) = &statement.class else { return Vec::new() };
    ddl.parts.iter().filter_map(|part| part.form.row().lock).map(crate::pg::LockMode::sql).collect()
}
