//! Which of the client's frames the relay opens, and which it stops at.
//!
//! [`Interceptor`] owns the client's prepared statements ([`PreparedStatements`]) and its transaction ([`Block`]), since both follow from the frames
//! that the relay sees. It keeps true: a message costs a look at its tag, and a Query or Parse a keyword search. Bind, Execute, Close and Sync
//! are opened only in a session that has prepared DDL or a BEGIN, or that is in a transaction block. The block's journal is shown each frame
//! once, when it is certain that the frame goes to the server.

use super::Shared;
use super::block::Block;
use super::journal::{Incomplete, JournalKeeper};
use super::prepared::{PreparedStatement, PreparedStatements};
use crate::config::{Fallback, InTransaction, Mode};
use crate::relay::{FrameAction, Inspect};
use crate::sql::{exactly_transaction, first_word, may_carry_ddl};
use crate::wire::message;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Interceptor {
    shared: Arc<Shared>,
    /// The interceptor stops no frame. So it is in `relay` mode, on a replication connection, which does not take the proxy's questions, and
    /// before the console.
    blind: bool,
    limit: u32,
    /// The prepared statements of the client that the proxy must act on at Execute.
    prepared: Option<Box<PreparedStatements>>,
    /// The client's transaction, which every frame is shown to.
    block: Block,
    /// A text too large to inspect has stopped the relay. The settings ask for that.
    oversize: bool,
}

impl Interceptor {
    /// `blind`: no frame is to be stopped.
    pub(super) fn new(shared: &Arc<Shared>, blind: bool) -> Self {
        let config = &shared.config;
        // Only a block that may be run again needs a journal.
        let by_rule = shared.rules_to_ask().is_some_and(|rules| rules.may_hoist());
        let hoists = by_rule || (config.proxy.mode == Mode::Plan && config.ddl.in_transaction == InTransaction::Hoist);
        let journal_limit = if hoists { config.ddl.journal_limit } else { 0 };
        Self {
            shared: Arc::clone(shared),
            blind: config.proxy.mode == Mode::Relay || blind,
            limit: u32::try_from(config.ddl.inspect_limit).unwrap_or(u32::MAX),
            prepared: None,
            block: Block::new(u32::try_from(journal_limit).unwrap_or(u32::MAX)),
            oversize: false,
        }
    }

    /// The client's transaction.
    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn block_mut(&mut self) -> &mut Block {
        &mut self.block
    }

    /// Whether a text too large to inspect has stopped the relay.
    pub(super) fn stopped_at_oversize(&self) -> bool {
        self.oversize
    }

    /// The client has parsed a statement that the proxy acts on. `false`: the client has prepared more than the settings allow.
    pub(super) fn prepare(&mut self, name: &[u8], bound: PreparedStatement) -> bool {
        self.prepared.get_or_insert_default().prepare(name, bound);
        self.within_limit()
    }

    /// Beyond `prepared_limit` the proxy no longer follows the statement that was prepared first, unless the settings refuse the client. It always
    /// follows the last one.
    fn within_limit(&mut self) -> bool {
        let Some(prepared) = &mut self.prepared else { return true };
        let ddl = &self.shared.config.ddl;
        while prepared.bytes() > ddl.prepared_limit && prepared.len() > 1 {
            if ddl.oversize == Fallback::Refuse {
                return false;
            }
            prepared.forget_oldest();
            self.shared.metrics.prepared_forgotten.add();
        }
        true
    }

    /// The client has parsed a statement that the proxy does not act on.
    #[inline]
    pub(super) fn parsed_other(&mut self, name: &[u8]) {
        if let Some(prepared) = &mut self.prepared {
            prepared.parsed_other(name);
            self.tidy();
        }
    }

    /// Whether the client's messages alone make the portal's statement certain, so that the server need not be asked.
    pub(super) fn is_sure(&self, portal: &[u8]) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| prepared.is_sure(portal))
    }

    /// The server has told the statement of a portal of `bound`.
    pub(super) fn correct(&mut self, bound: &Arc<PreparedStatement>, found: Option<&Arc<PreparedStatement>>) {
        if let Some(prepared) = &mut self.prepared {
            prepared.correct(bound, found);
            self.tidy();
        }
    }

    /// A statement is closed.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if let Some(prepared) = &mut self.prepared {
            prepared.forget_statement(name);
            self.tidy();
        }
    }

    /// A portal has been run, or is closed.
    pub(super) fn forget_portal(&mut self, name: &[u8]) {
        if let Some(prepared) = &mut self.prepared {
            prepared.forget_portal(name);
            self.tidy();
        }
    }

    /// The statement that a portal was bound to.
    pub(super) fn portal(&self, name: &[u8]) -> Option<Arc<PreparedStatement>> {
        self.prepared.as_ref()?.portal(name)
    }

    /// The body of the portal's Bind, if the portal is of a call that waits for an advisory lock.
    pub(super) fn bind_of(&self, portal: &[u8]) -> Option<Arc<[u8]>> {
        self.prepared.as_ref()?.bind_of(portal)
    }

    /// Whether the portal was parsed and bound since the last Sync or Query.
    pub(super) fn is_fresh(&self, portal: &[u8]) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| prepared.is_fresh(portal))
    }

    /// The client's Sync passes, or is answered.
    #[inline]
    pub(super) fn synced(&mut self) {
        self.block.forget_control();
        self.end_pipeline();
    }

    /// A Sync or a Query ends the pipeline.
    #[inline]
    fn end_pipeline(&mut self) {
        if let Some(prepared) = &mut self.prepared {
            prepared.next_pipeline();
        }
        self.block.saw_end_of_pipeline();
    }

    /// The client sends a Bind. `true`: the relay stops, since the client is to be refused.
    #[inline]
    fn bind(&mut self, body: &[u8]) -> bool {
        self.block.keeper_mut().passes_bind(body);
        let prepared = self.prepared.as_deref();
        self.block.saw_bind(body, |statement| prepared.is_some_and(|prepared| prepared.has(statement)));
        let Some(prepared) = &mut self.prepared else { return false };
        let Some((portal, name)) = message::bind(body) else { return false };
        prepared.bind(portal, name, body);
        !self.within_limit()
    }

    /// Whether Bind, Execute and Close are opened for the sake of DDL.
    #[inline]
    fn opens_extended(&self) -> bool {
        self.prepared.is_some() || self.block.is_followed()
    }

    #[inline]
    fn keeper(&self) -> &JournalKeeper {
        self.block.keeper()
    }

    fn close_named(&mut self, body: &[u8]) {
        let Some((kind, name)) = message::close(body) else { return };
        if kind == b'S' { self.forget(name) } else { self.forget_portal(name) }
    }

    fn tidy(&mut self) {
        if self.prepared.as_ref().is_some_and(|prepared| prepared.len() == 0) {
            self.prepared = None;
        }
    }

    #[inline]
    fn parse(&mut self, body: &[u8]) -> bool {
        let Some((name, text)) = message::parse(body) else {
            self.block.keeper_mut().passes_unread(b'P', Incomplete::NotUnderstood);
            return false;
        };
        if may_carry_ddl(text) {
            return true;
        }
        self.parsed_other(name);
        if self.block.sees_writes() && may_write(text) {
            return true;
        }
        let control = exactly_transaction(text);
        self.block.saw_parse(name, text, control);
        // In the proxy's block the server would give transaction control another meaning.
        if (self.block.ends_at_sync() || self.block.has_ahead()) && control.is_some() {
            return true;
        }
        self.block.keeper_mut().passes_parse(name, text, control, body);
        false
    }

    /// A Query of which `text` is the text, if it is one. `true`: the relay stops.
    #[inline]
    fn query(&mut self, text: Option<&[u8]>) -> bool {
        self.end_pipeline();
        let mut stops = self.block.ends_at_sync() || self.block.has_ahead();
        match text {
            Some(text) => {
                let carries_ddl = may_carry_ddl(text);
                self.block.saw_query(text, carries_ddl);
                stops |= carries_ddl || (self.block.sees_writes() && may_write(text));
                if !stops {
                    self.block.keeper_mut().passes_query(text);
                }
            }
            None if !stops => self.block.keeper_mut().passes_unread(b'Q', Incomplete::NotUnderstood),
            None => {}
        }
        stops
    }

    /// A frame that the relay has stopped at goes to the server as it came. `body`: `None` if the body is not here as a whole.
    pub(super) fn passes(&mut self, tag: u8, body: Option<&[u8]>) {
        let keeper = self.block.keeper_mut();
        match (tag, body) {
            (b'Q', Some(body)) if let Some(text) = message::query(body) => keeper.passes_query(text),
            (b'P', Some(body)) if let Some((name, text)) = message::parse(body) => {
                keeper.passes_parse(name, text, exactly_transaction(text), body);
            }
            (b'E', Some(body)) => keeper.passes_execute(body),
            (b'S', _) => {}
            (_, Some(_)) => keeper.passes_unread(tag, Incomplete::NotUnderstood),
            (_, None) => keeper.passes_unread(tag, Incomplete::TooLarge),
        }
    }
}

/// Whether the text may be of a statement that writes rows.
#[cold]
fn may_write(text: &[u8]) -> bool {
    let words = [&b"insert"[..], b"update", b"delete", b"merge", b"with", b"copy"];
    // A string may begin with another statement.
    words.iter().any(|word| first_word(text).eq_ignore_ascii_case(word)) || text.contains(&b';')
}

impl Inspect for Interceptor {
    #[inline]
    fn action_for(&self, tag: u8) -> FrameAction {
        match tag {
            _ if self.blind => FrameAction::Pass,
            b'Q' | b'P' => FrameAction::Open,
            b'E' if self.block.has_ahead() => FrameAction::Open,
            b'X' if self.block.has_ahead() => FrameAction::Stop,
            b'B' | b'E' | b'C' if self.opens_extended() || self.keeper().sees_extended() => FrameAction::Open,
            b'S' if self.block.ends_at_sync() => FrameAction::Stop,
            b'S' if self.prepared.is_some() || self.block.sees_sync() => FrameAction::Open,
            b'F' if self.block.is_followed() || self.keeper().is_kept() => FrameAction::Open,
            _ => FrameAction::Pass,
        }
    }

    #[inline]
    fn stops_at(&mut self, tag: u8, body: &[u8]) -> bool {
        match tag {
            b'Q' => return self.query(message::query(body)),
            b'P' => return self.parse(body),
            b'E' => {
                let stops =
                    self.prepared.is_some() && message::execute(body).is_some_and(|name| self.portal(name).is_some());
                self.block.saw_execute(body, stops);
                let stops = stops || self.block.has_ahead();
                if !stops {
                    self.block.keeper_mut().passes_execute(body);
                }
                return stops;
            }
            b'B' => return self.bind(body),
            b'C' => {
                self.close_named(body);
                self.block.keeper_mut().passes_close(body);
            }
            b'S' => self.synced(),
            b'F' => {
                self.block.forget();
                self.block.keeper_mut().passes_unread(tag, Incomplete::FunctionCall);
            }
            _ => {}
        }
        false
    }

    fn oversize(&mut self, tag: u8, _: u32) -> bool {
        self.block.forget();
        self.block.keeper_mut().passes_unread(tag, Incomplete::TooLarge);
        // Bind may be as large as its parameters; only a text can carry DDL.
        if !matches!(tag, b'Q' | b'P') {
            return false;
        }
        self.shared.metrics.texts_oversize.add();
        self.oversize = self.shared.config.ddl.oversize == Fallback::Refuse;
        self.oversize
    }

    #[inline]
    fn limit(&self, tag: u8) -> u32 {
        // For the journal alone, no Bind is collected that has no room in it.
        if tag == b'B' && !self.opens_extended() { self.keeper().bind_limit().min(self.limit) } else { self.limit }
    }

    #[inline]
    fn answers_limit(&self) -> u32 {
        self.keeper().answers_limit()
    }

    fn block_has_ended(&mut self) {
        self.block.keeper_mut().end();
    }

    fn outlives_client(&self) -> bool {
        self.block.has_ahead()
    }
}
