//! The extended protocol: a statement becomes DDL at Parse and acts at Execute.
//!
//! Parse, Bind and Describe go to the server as they are, so it checks and answers them itself. At
//! Execute the proxy asks the server what the portal would run (a Parse or Bind that was seen may have
//! failed, or been skipped), then closes the portal by a Sync of its own, whose ReadyForQuery the client
//! never sees; then the backend is idle and the plan runs. Where the client's pipeline is one
//! implicit transaction of several statements, the proxy first opens a transaction block, and
//! commits it at the client's Sync.

use super::prepared::{Bound, as_kept};
use super::simple::{Piece, Understood, acts, characters, no_transaction};
use super::{Flow, Session};
use crate::backend::{BackendLost, data_row};
use crate::execute::first::Outcome;
use crate::execute::{Reply, Stop};
use crate::pg::sqlstate;
use crate::plan::first::First;
use crate::plan::held::makes_relations;
use crate::relay::Event;
use crate::report::Report;
use crate::sql::{Class, Statement, TransactionControl, exactly_transaction};
use crate::wire::error_response::ServerError;
use crate::wire::message::{self, Batch, FLUSH, put_frame};
use bytes::{BufMut, Bytes, BytesMut};

impl Session {
    pub(super) async fn parse(&mut self) -> Flow {
        let Some((_, body)) = self.talk.link.peek_frame() else { return Flow::End };
        let Some((name, text)) = message::parse(body).map(|(name, text)| (name.to_vec(), text.to_vec())) else {
            self.talk.link.pass_frame();
            return Flow::Continue;
        };
        // After an error the server skips it, and the name keeps its meaning.
        if self.talk.link.owed.skipping() {
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        self.eye.forget(&name);
        if self.owns_block
            && let Some(control) = std::str::from_utf8(&text).ok().and_then(sole_control)
        {
            self.eye.prepare(&name, Bound { statement: control, offset: 0 });
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        self.look_at_block();
        let mut statements = match self.understand(&text).await {
            Understood::Relay(statements) => {
                return self.parse_relayed(&name, statements).await;
            }
            Understood::Act(statements) => statements,
            Understood::Refuse(report) => return self.refuse_session(&report).await,
        };
        // More than one statement is the server's to refuse.
        if let (Some(statement), true) = (statements.pop(), statements.is_empty()) {
            if let Class::ExplainDdl(inner) = &statement.class {
                return self.parse_explain(inner).await;
            }
            if acts(&statement) {
                let offset = characters(&text[..statement.range.start]);
                if !self.eye.prepare(&name, Bound { statement, offset }) {
                    return self.refuse_session(&prepared_too_much()).await;
                }
            }
        }
        self.talk.link.pass_frame();
        Flow::Continue
    }

    /// A text that nobody acts on. What makes a table is looked for at its Execute, in a block: only then it is there.
    async fn parse_relayed(&mut self, name: &[u8], mut statements: Vec<Statement>) -> Flow {
        let makes = |statement: &Statement| matches!(&statement.class, Class::Ddl(ddl) if makes_relations(ddl));
        if let (Some(_), [statement]) = (&self.eye.block, statements.as_slice())
            && makes(statement)
        {
            let statement = statements.remove(0);
            if !self.eye.prepare(name, Bound { statement, offset: 0 }) {
                return self.refuse_session(&prepared_too_much()).await;
            }
        } else {
            self.passed(&statements);
            if self.eye.block.as_mut().is_some_and(|block| !block.parsed(name)) {
                self.eye.block = None;
            }
        }
        self.talk.link.pass_frame();
        Flow::Continue
    }

    /// EXPLAIN of DDL is prepared as a query that gives the plan's lines, so that the server answers
    /// Describe, Bind and Execute of it. Amid a pipeline it goes as it is, and the server refuses it.
    async fn parse_explain(&mut self, inner: &Statement) -> Flow {
        let link = &self.talk.link;
        if !link.owed.certain() || link.owed.unsynced() || link.status == b'E' {
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
        let Ok(sql) = self.explain(inner).await else { return self.end(Event::BackendClosed).await };
        let Some(frame) = self.talk.link.take_frame() else { return Flow::End };
        let name = message::parse(&frame[5..]).map(|(name, _)| name.to_vec()).unwrap_or_default();
        let mut parse = BytesMut::new();
        put_frame(&mut parse, b'P', |b| {
            b.put_slice(&name);
            b.put_u8(0);
            b.put_slice(sql.as_bytes());
            b.put_slice(&[0, 0, 0]);
        });
        self.talk.link.account(b'P');
        self.talk.link.tell_back(&parse);
        Flow::Continue
    }

    pub(super) async fn execute(&mut self) -> Flow {
        let portal = self.talk.link.peek_frame().and_then(|(_, body)| message::execute(body));
        let text = |name| Some(std::str::from_utf8(as_kept(name)).ok()?.to_owned());
        let portal = portal.and_then(|name| Some((text(name)?, self.eye.portal(name)?)));
        let Some((portal, bound)) = portal else {
            self.talk.link.pass_frame();
            return Flow::Continue;
        };
        // After an error the server skips it.
        if self.talk.link.owed.skipping() {
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        if self.passes_at_execute(&bound.statement, &portal) {
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        // In a failed block the server refuses it; unless the client may have ended that block in this pipeline.
        let failed = self.talk.link.status == b'E' && self.eye.pipeline_control.is_none();
        if !self.talk.link.owed.certain() || failed {
            self.shared.metrics.ddl_uninterceptable.add();
            self.talk.link.pass_frame();
            return Flow::Continue;
        }
        match self.execute_ddl(&bound, &portal).await {
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
        let fresh = self.eye.is_fresh(portal.as_bytes());
        let statement = std::slice::from_ref(statement);
        if acts(&statement[0]) {
            return fresh && self.is_held(statement);
        }
        // Without a Parse of this pipeline it may be another statement by now.
        self.passed(if fresh { statement } else { &[] });
        true
    }

    async fn execute_ddl(&mut self, bound: &Bound, portal: &str) -> Result<Flow, BackendLost> {
        let statement = &bound.statement;
        match self.talk.link.settle(false).await {
            Event::Settled => {}
            other => return Ok(self.end(other).await),
        }
        // The frame went to a copy that it made fail.
        if !self.talk.link.owed.certain() {
            return Ok(Flow::Continue);
        }
        // Where the server refuses it amid a pipeline, it is the server's to answer.
        let amid = self.talk.link.executes > 0 || self.eye.pipeline_control.is_some();
        if amid && stands_alone(statement) {
            self.talk.link.pass_frame();
            return Ok(Flow::Continue);
        }
        if !amid
            && self.eye.is_fresh(portal.as_bytes())
            && let Some(first) = self.first_behind(statement)
            && !self.needs_block().await
        {
            return self.execute_behind(bound, portal, &first).await;
        }
        // The portal is gone, or a Parse or Bind that failed would have changed what it is: the server knows best.
        if !self.would_run(statement, portal).await? {
            self.talk.link.pass_frame();
            return Ok(Flow::Continue);
        }
        let block = !stands_alone(statement) && self.needs_block().await;
        // COMMIT and its like still run from their portal.
        let done_with = (!matches!(statement.class, Class::Transaction(_))).then_some(portal);
        if !self.seal(done_with, block).await? {
            self.talk.link.pass_frame();
            self.skip_to_sync().await?;
            return Ok(Flow::Continue);
        }
        // The status is fresh now.
        self.eye.pipeline_control = None;
        if let Class::Transaction(control) = statement.class {
            return self.control_amid(control, statement).await;
        }
        self.talk.link.take_frame();
        self.eye.forget_portal(portal.as_bytes());
        self.talk.parsed_before = true;
        let result = self.run_ddl(statement, bound.offset).await;
        self.talk.parsed_before = false;
        self.executed(result).await
    }

    /// Most of what clients send: Parse, Bind, Execute and Sync, and nothing before them. Unless one of these fails the portal is
    /// what it seems to be, and the first try can follow them at once.
    async fn execute_behind(&mut self, bound: &Bound, portal: &str, first: &First) -> Result<Flow, BackendLost> {
        let (statement, offset) = (&bound.statement, bound.offset);
        self.talk.parsed_before = true;
        let tried = self.first_try_behind(statement, offset, first, portal).await;
        if matches!(tried, Ok(Outcome::ClientFailed)) {
            self.talk.parsed_before = false;
            self.talk.link.pass_frame();
            self.skip_to_sync().await?;
            return Ok(Flow::Continue);
        }
        self.talk.link.take_frame();
        self.eye.forget_portal(portal.as_bytes());
        let result = match tried {
            Ok(Outcome::Done(reply)) => Ok(reply),
            Ok(outcome) => self.at_its_pace(statement, offset, matches!(outcome, Outcome::Slow)).await,
            Err(stop) => Err(stop),
        };
        self.talk.parsed_before = false;
        self.executed(result).await
    }

    /// Gives the client what its Execute has come to.
    async fn executed(&mut self, result: Result<Reply, Stop>) -> Result<Flow, BackendLost> {
        match result {
            Ok(reply) => {
                self.talk.link.tell_front(&reply.frames);
                self.talk.link.executes = self.talk.link.executes.saturating_add(1);
                self.answer_sync();
            }
            Err(Stop::ClientGone | Stop::Slow | Stop::Lost) => return Err(BackendLost),
            Err(stop) => {
                self.tell_stop(stop)?;
                self.skip_to_sync().await?;
            }
        }
        Ok(Flow::Continue)
    }

    /// Whether this Execute is one of several in an implicit transaction, which must stay one.
    async fn needs_block(&mut self) -> bool {
        match self.eye.pipeline_control {
            _ if self.owns_block => false,
            Some(TransactionControl::Begin) => false,
            // Whether a block is open now only the server knows: its answer to BEGIN tells.
            Some(_) => true,
            None if self.talk.link.status != b'I' => false,
            None => self.talk.link.executes > 0 || self.talk.link.tag_after_next().await != Some(b'S'),
        }
    }

    /// COMMIT and its like in a pipeline that the proxy keeps in a block, where the server would see no block.
    async fn control_amid(&mut self, control: TransactionControl, statement: &Statement) -> Result<Flow, BackendLost> {
        if !std::mem::take(&mut self.owns_block) {
            self.talk.link.pass_frame();
            return Ok(Flow::Continue);
        }
        match control {
            TransactionControl::Commit { chain: false }
            | TransactionControl::Rollback { chain: false }
            | TransactionControl::Prepare => {
                self.talk.tell(&no_transaction());
                self.talk.link.pass_frame();
            }
            TransactionControl::Begin => {
                self.talk.link.take_frame();
                if matches!(self.hushed_begin(statement).await?, Piece::Failed) {
                    self.owns_block = true;
                    self.skip_to_sync().await?;
                }
            }
            TransactionControl::Savepoint | TransactionControl::Commit { .. } | TransactionControl::Rollback { .. } => {
                self.talk.link.take_frame();
                self.refuse_outside_block(control, statement).await?;
                self.skip_to_sync().await?;
            }
        }
        Ok(Flow::Continue)
    }

    /// Whether the client's portal is of this statement, and nothing before it in the pipeline has failed.
    async fn would_run(&mut self, statement: &Statement, portal: &str) -> Result<bool, BackendLost> {
        let text = self.portal_text(portal).await?.flatten();
        Ok(text.is_some_and(|text| text.get(statement.range.clone()) == Some(statement.text.as_str())))
    }

    /// Lets the server answer all that came in the pipeline without its Sync. False: the client has an error.
    pub(super) async fn catch_up(&mut self) -> Result<bool, BackendLost> {
        Ok(self.portal_text("").await?.is_some() && self.seal(None, false).await?)
    }

    /// Asks, amid the client's pipeline, for the text of its portal. A row of our own marks where the client's
    /// answers end. `None`: one of them is an error, and the server skips to the client's Sync.
    async fn portal_text(&mut self, portal: &str) -> Result<Option<Option<String>>, BackendLost> {
        const MARK: &str = "pgsluice mark";
        const SQL: &str = "SELECT (SELECT c.statement FROM pg_catalog.pg_cursors c \
             WHERE c.name OPERATOR(pg_catalog.=) $1), 'pgsluice mark'";
        let mut batch = Batch::new();
        batch.statement(SQL, &[portal]);
        self.talk.link.account(b'P');
        self.talk.link.tell_back(&batch.bytes);
        self.talk.link.tell_back(&FLUSH);
        let mut gone = self.talk.canceller();
        let mut held: Vec<Bytes> = Vec::new();
        let mut found = None;
        // After our row: CommandComplete and the answers to two Close.
        let mut left = 3;
        while left > 0 {
            let frame = self.talk.link.next_back_frame(&mut gone).await?;
            match frame.first().copied().unwrap_or_default() {
                b'S' | b'A' | b'N' => self.talk.link.tell_front(&frame),
                _ if found.is_some() => left -= 1,
                b'1' | b'2' | b'3' => held.push(frame),
                b'D' if frame.ends_with(MARK.as_bytes()) => {
                    // The last four are the answers to our Close, Close, Parse and Bind.
                    let clients = held.len().saturating_sub(4);
                    held.drain(..clients).for_each(|frame| self.talk.link.tell_front(&frame));
                    let row = data_row(&frame[5..]).unwrap_or_default();
                    found = Some(row.into_iter().next().flatten());
                }
                tag => {
                    held.drain(..).for_each(|frame| self.talk.link.tell_front(&frame));
                    self.talk.link.tell_front(&frame);
                    self.talk.link.owed.received(tag);
                    if tag == b'E' {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(found)
    }

    /// A Sync of our own, whose ReadyForQuery the client never sees. A portal that has had its run is
    /// closed. With `block` the pipeline's implicit transaction, with what was done in it, first becomes a
    /// block: BEGIN does just that, amid a pipeline. False: the client has an error.
    async fn seal(&mut self, portal: Option<&str>, block: bool) -> Result<bool, BackendLost> {
        let mut batch = Batch::new();
        if let Some(portal) = portal {
            batch.close_portal(portal);
        }
        if block {
            batch.statement("BEGIN", &[]);
        }
        let executes = self.talk.link.executes;
        self.talk.link.account(b'S');
        self.talk.link.executes = executes;
        self.talk.link.tell_back(&batch.sync().bytes);
        let mut gone = self.talk.canceller();
        let mut failed = false;
        let mut explicit = false;
        loop {
            let frame = self.talk.link.next_back_frame(&mut gone).await?;
            let tag = frame.first().copied().unwrap_or_default();
            self.talk.link.owed.received(tag);
            match tag {
                b'Z' => break,
                b'N' if block && ServerError::new(frame.clone()).sqlstate() == "25001" => explicit = true,
                b'S' | b'A' | b'N' => self.talk.link.tell_front(&frame),
                b'E' => {
                    failed = true;
                    self.talk.link.tell_front(&frame);
                }
                _ => {}
            }
        }
        if block && !failed {
            self.owns_block = !explicit;
            self.eye.watch_sync = self.owns_block;
        }
        Ok(!failed)
    }

    /// The server, not the proxy, skips the client's messages up to its Sync: a Bind to a statement that is
    /// not there makes it do so. Its error is ours.
    async fn skip_to_sync(&mut self) -> Result<(), BackendLost> {
        let mut bind = BytesMut::new();
        put_frame(&mut bind, b'B', |b| {
            b.put_slice(b"\0pgsluice: skipping to Sync after the error before\0");
            b.put_slice(&[0; 6]);
        });
        self.talk.link.account(b'B');
        self.talk.link.tell_back(&bind);
        let mut gone = self.talk.canceller();
        loop {
            let frame = self.talk.link.next_back_frame(&mut gone).await?;
            match frame.first() {
                Some(b'E') => {
                    let error = ServerError::new(frame);
                    if error.is_fatal() {
                        self.talk.link.tell_front(&error.frame);
                        return Err(BackendLost);
                    }
                    self.talk.link.owed.received(b'E');
                    return Ok(());
                }
                Some(b'S' | b'A' | b'N') => self.talk.link.tell_front(&frame),
                _ => {}
            }
        }
    }

    /// A Sync right behind what the proxy has done has nothing to end, and the server has just said how it stands: it needs no
    /// round trip of its own.
    fn answer_sync(&mut self) {
        let link = &mut self.talk.link;
        let next = link.peek_frame().is_some_and(|(header, body)| header.tag == b'S' && body.is_empty());
        if self.owns_block || !next || link.owed.owed() > 0 || link.owed.unsynced() {
            return;
        }
        link.take_frame();
        link.executes = 0;
        self.eye.synced();
        self.tell_ready();
    }

    /// The client's Sync ends the pipeline that the proxy keeps in a block.
    pub(super) async fn sync(&mut self) -> Flow {
        self.talk.link.pass_frame();
        self.eye.synced();
        match self.talk.link.settle(true).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        if std::mem::take(&mut self.owns_block) && self.close_block().await.is_err() {
            return self.end(Event::BackendClosed).await;
        }
        self.eye.watch_sync = false;
        self.look_at_block();
        self.tell_ready();
        Flow::Continue
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

/// Whether it may not stand in a transaction block, nor amid a pipeline.
fn stands_alone(statement: &Statement) -> bool {
    matches!(&statement.class, Class::Ddl(ddl) if ddl.parts.iter().any(|part| !part.form.row().in_transaction))
}
