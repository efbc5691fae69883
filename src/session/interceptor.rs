//! The session's eye on its client's frames: which to open, which to stop at.
//!
//! Costs nothing per message beyond a look at the tag, and a keyword search of each Query and Parse.
//! Only once a session has prepared DDL are Bind, Execute and Close opened too.

use super::Shared;
use super::block::Block;
use super::prepared::{PreparedStatement, PreparedStatements};
use crate::config::{Fallback, Mode};
use crate::relay::{FrameAction, Inspect};
use crate::sql::{TransactionControl, exactly_transaction, may_carry_ddl};
use crate::wire::message;
use crate::wire::startup::Parameters;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Interceptor {
    shared: Arc<Shared>,
    /// Intercepts nothing: `relay` mode, or a replication connection, where our questions could not be asked.
    blind: bool,
    limit: u32,
    /// What the client has prepared and the proxy must act on when it is executed.
    prepared: Option<Box<PreparedStatements>>,
    /// The block that the client is in, where that is known.
    pub(super) block: Option<Box<Block>>,
    /// The proxy opened a transaction block for the client's pipeline: its Sync must be seen.
    pub(super) watch_sync: bool,
    /// The last transaction control that was parsed since the last Sync.
    pub(super) pipeline_control: Option<TransactionControl>,
    /// A text too large to inspect stopped the relay, as the operator wants.
    pub(super) oversize: bool,
}

impl Interceptor {
    pub(super) fn new(shared: &Arc<Shared>, parameters: &Parameters) -> Self {
        let config = &shared.config;
        Self {
            shared: Arc::clone(shared),
            blind: config.proxy.mode == Mode::Relay || parameters.replication,
            limit: u32::try_from(config.ddl.inspect_limit).unwrap_or(u32::MAX),
            prepared: None,
            block: None,
            watch_sync: false,
            pipeline_control: None,
            oversize: false,
        }
    }

    /// The client parsed a statement to act on. False: it has prepared more than the operator lets it.
    pub(super) fn prepare(&mut self, name: &[u8], bound: PreparedStatement) -> bool {
        self.prepared.get_or_insert_default().prepare(name, bound);
        self.within_limit()
    }

    /// Beyond `prepared_limit` what was prepared first is followed no more, unless the client is to be refused. What
    /// came last is always followed.
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

    /// A Parse of what nobody acts on.
    pub(super) fn parsed_other(&mut self, name: &[u8]) {
        if let Some(prepared) = &mut self.prepared {
            prepared.parsed_other(name);
            self.tidy();
        }
    }

    /// Whether what the portal is was told by the order of the client's messages alone, and needs not be asked for.
    pub(super) fn is_sure(&self, portal: &[u8]) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| prepared.is_sure(portal))
    }

    /// The server has told what a portal of `bound` is.
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

    /// A portal has had its run, or is closed.
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

    /// The body of the portal's Bind, if it is of a call that waits for an advisory lock.
    pub(super) fn bind_of(&self, portal: &[u8]) -> Option<Arc<[u8]>> {
        self.prepared.as_ref()?.bind_of(portal)
    }

    /// Whether the portal was parsed and bound since the last Sync or Query.
    pub(super) fn is_fresh(&self, portal: &[u8]) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| prepared.is_fresh(portal))
    }

    /// A Sync of the client's passes, or is answered.
    pub(super) fn synced(&mut self) {
        self.pipeline_control = None;
        self.end_pipeline();
    }

    /// A Sync, or a Query.
    fn end_pipeline(&mut self) {
        if let Some(prepared) = &mut self.prepared {
            prepared.next_pipeline();
        }
        if let Some(block) = &mut self.block {
            block.synced();
        }
    }

    /// Only a block all of whose messages are understood is believed in.
    fn in_block(&mut self, understood: impl FnOnce(&mut Block, Option<&PreparedStatements>) -> bool) {
        let prepared = self.prepared.as_deref();
        if self.block.as_mut().is_some_and(|block| !understood(block, prepared)) {
            self.block = None;
        }
    }

    /// Whether to stop there, since the client is to be refused.
    fn bind(&mut self, body: &[u8]) -> bool {
        self.in_block(|block, prepared| {
            block.bound(body, |statement| prepared.is_some_and(|prepared| prepared.has(statement)))
        });
        let (Some(prepared), Some((portal, name))) = (&mut self.prepared, message::bind(body)) else { return false };
        prepared.bind(portal, name, body);
        !self.within_limit()
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

    fn parse(&mut self, body: &[u8]) -> bool {
        let Some((name, text)) = message::parse(body) else { return false };
        if may_carry_ddl(text) {
            return true;
        }
        self.parsed_other(name);
        self.in_block(|block, _| block.parsed(name) && block.held.passes_text(text));
        let control = exactly_transaction(text);
        self.pipeline_control = control.or(self.pipeline_control);
        // In a block of the proxy's it does not mean what the server would make of it.
        self.watch_sync && control.is_some()
    }
}

impl Inspect for Interceptor {
    fn action_for(&self, tag: u8) -> FrameAction {
        match tag {
            _ if self.blind => FrameAction::Pass,
            b'Q' | b'P' => FrameAction::Open,
            b'B' | b'E' | b'C' if self.prepared.is_some() || self.block.is_some() => FrameAction::Open,
            b'S' if self.watch_sync => FrameAction::Stop,
            b'S' if self.pipeline_control.is_some() || self.prepared.is_some() || self.block.is_some() => {
                FrameAction::Open
            }
            b'F' if self.block.is_some() => FrameAction::Open,
            _ => FrameAction::Pass,
        }
    }

    fn stops_at(&mut self, tag: u8, body: &[u8]) -> bool {
        match tag {
            b'Q' => {
                self.end_pipeline();
                let Some(text) = message::query(body) else { return self.watch_sync };
                let ddl = may_carry_ddl(text);
                self.in_block(|block, _| ddl || block.held.passes_text(text));
                return self.watch_sync || ddl;
            }
            b'P' => return self.parse(body),
            b'E' => {
                let stops = message::execute(body).is_some_and(|name| self.portal(name).is_some());
                self.in_block(|block, _| stops || block.knows(body));
                return stops;
            }
            b'B' => return self.bind(body),
            b'C' => self.close_named(body),
            b'S' => self.synced(),
            b'F' => self.block = None,
            _ => {}
        }
        false
    }

    fn oversize(&mut self, tag: u8, _: u32) -> bool {
        self.block = None;
        // Bind may be as large as its parameters; only a text can carry DDL.
        if !matches!(tag, b'Q' | b'P') {
            return false;
        }
        self.shared.metrics.texts_oversize.add();
        self.oversize = self.shared.config.ddl.oversize == Fallback::Refuse;
        self.oversize
    }

    fn limit(&self) -> u32 {
        self.limit
    }
}
