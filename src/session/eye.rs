//! The session's eye on its client's frames: which to open, which to stop at.
//!
//! Costs nothing per message beyond a look at the tag, and a keyword search of each Query and Parse.
//! Only once a session has prepared DDL are Bind, Execute and Close opened too.

use super::Shared;
use crate::config::{Fallback, Mode};
use crate::relay::{Inspect, Want};
use crate::sql::{Statement, TransactionControl, exactly_transaction, may_carry_ddl};
use crate::wire::message;
use crate::wire::startup::Parameters;
use std::collections::HashMap;
use std::sync::Arc;

/// A prepared statement, and how many characters of the client's text stand before it, for error positions.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) statement: Statement,
    pub(super) offset: usize,
}

/// What the client has prepared and the proxy must act on when it is executed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: HashMap<Vec<u8>, Arc<Bound>>,
    portals: HashMap<Vec<u8>, Arc<Bound>>,
}

#[derive(Debug)]
pub(super) struct Eye {
    shared: Arc<Shared>,
    /// Intercepts nothing: `relay` mode, or a replication connection, where our questions could not be asked.
    blind: bool,
    limit: u32,
    prepared: Option<Box<Prepared>>,
    /// The proxy opened a transaction block for the client's pipeline: its Sync must be seen.
    pub(super) watch_sync: bool,
    /// The last transaction control that was parsed since the last Sync.
    pub(super) pipeline_control: Option<TransactionControl>,
    /// A text too large to inspect stopped the relay, as the operator wants.
    pub(super) oversize: bool,
}

impl Eye {
    pub(super) fn new(shared: &Arc<Shared>, parameters: &Parameters) -> Self {
        let config = &shared.config;
        Self {
            shared: Arc::clone(shared),
            blind: config.proxy.mode == Mode::Relay || parameters.replication,
            limit: u32::try_from(config.ddl.inspect_limit).unwrap_or(u32::MAX),
            prepared: None,
            watch_sync: false,
            pipeline_control: None,
            oversize: false,
        }
    }

    /// The client parsed a statement to act on.
    pub(super) fn prepare(&mut self, name: &[u8], bound: Bound) {
        self.prepared.get_or_insert_default().statements.insert(name.to_vec(), Arc::new(bound));
    }

    /// A name means another statement now.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if let Some(prepared) = &mut self.prepared {
            prepared.statements.remove(name);
            self.tidy();
        }
    }

    /// The statement that a portal was bound to.
    pub(super) fn portal(&self, name: &[u8]) -> Option<Arc<Bound>> {
        self.prepared.as_ref()?.portals.get(name).cloned()
    }

    fn bind(&mut self, body: &[u8]) {
        let (Some(prepared), Some((portal, name))) = (&mut self.prepared, message::bind(body)) else { return };
        match prepared.statements.get(name) {
            Some(statement) => {
                let statement = Arc::clone(statement);
                prepared.portals.insert(portal.to_vec(), statement);
            }
            None => {
                prepared.portals.remove(portal);
            }
        }
    }

    fn close_named(&mut self, body: &[u8]) {
        let (Some(prepared), Some((kind, name))) = (&mut self.prepared, message::close(body)) else { return };
        if kind == b'S' {
            prepared.statements.remove(name);
        } else {
            prepared.portals.remove(name);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.prepared.as_ref().is_some_and(|p| p.statements.is_empty() && p.portals.is_empty()) {
            self.prepared = None;
        }
    }

    fn parse(&mut self, body: &[u8]) -> bool {
        let Some((name, text)) = message::parse(body) else { return false };
        if may_carry_ddl(text) {
            return true;
        }
        self.forget(name);
        let control = exactly_transaction(text);
        self.pipeline_control = control.or(self.pipeline_control);
        // In a block of the proxy's it does not mean what the server would make of it.
        self.watch_sync && control.is_some()
    }
}

impl Inspect for Eye {
    fn want(&self, tag: u8) -> Want {
        match tag {
            _ if self.blind => Want::Pass,
            b'Q' | b'P' => Want::Open,
            b'B' | b'E' | b'C' if self.prepared.is_some() => Want::Open,
            b'S' if self.watch_sync => Want::Stop,
            b'S' if self.pipeline_control.is_some() => Want::Open,
            _ => Want::Pass,
        }
    }

    fn hit(&mut self, tag: u8, body: &[u8]) -> bool {
        match tag {
            b'Q' => return self.watch_sync || message::query(body).is_some_and(may_carry_ddl),
            b'P' => return self.parse(body),
            b'E' => return message::execute(body).is_some_and(|name| self.portal(name).is_some()),
            b'B' => self.bind(body),
            b'C' => self.close_named(body),
            b'S' => self.pipeline_control = None,
            _ => {}
        }
        false
    }

    fn oversize(&mut self, tag: u8, _: u32) -> bool {
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
