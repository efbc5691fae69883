//! The transaction block that the client is in, as far as the order of its messages tells.
//!
//! What the block holds ([`BlockLocks`]) is believed for as long as every message of the client's is understood. One that is not may
//! end the block, or do what a function does; then all is forgotten, which costs no more than the usual way of the next schema change.

use super::Session;
use super::statement::{acts, shown};
use crate::plan::Limits;
use crate::plan::block_locks::BlockLocks;
use crate::plan::optimistic::OptimisticPlan;
use crate::sql::{Class, Statement};
use crate::wire::message;

/// The client is in a block, whatever of its messages is still to be answered.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) held: BlockLocks,
    /// What this pipeline has parsed, and bound of that: the only names of which is known what they do.
    statements: Vec<Vec<u8>>,
    portals: Vec<Vec<u8>>,
}

impl Block {
    /// False: there are more than are followed.
    #[must_use]
    pub(super) fn parsed(&mut self, name: &[u8]) -> bool {
        remember(&mut self.statements, name)
    }

    /// A Bind; `known`: its statement is one that the proxy stops at. False: what its portal does is not known.
    #[must_use]
    pub(super) fn bound(&mut self, body: &[u8], known: impl FnOnce(&[u8]) -> bool) -> bool {
        let Some((portal, statement)) = message::bind(body) else { return false };
        (self.statements.iter().any(|name| name == statement) || known(statement))
            && remember(&mut self.portals, portal)
    }

    /// Whether what is executed is known.
    pub(super) fn knows(&self, execute: &[u8]) -> bool {
        message::execute(execute).is_some_and(|portal| self.portals.iter().any(|name| name == portal))
    }

    pub(super) fn synced(&mut self) {
        self.statements.clear();
        self.portals.clear();
    }
}

/// A pipeline may be of any length: a few names are enough to know.
fn remember(names: &mut Vec<Vec<u8>>, name: &[u8]) -> bool {
    const MOST: usize = 64;
    if !names.iter().any(|known| known == name) {
        names.push(name.to_vec());
    }
    names.len() <= MOST
}

impl Session {
    /// Before a frame is attended to, and whenever nothing is owed to the client: notes whether it is in a block of its own.
    pub(super) fn look_at_block(&mut self) {
        let channel = &self.channel;
        if channel.owes() > 0 || channel.is_unsynced() || !channel.owed_is_certain() {
            return;
        }
        match channel.status() {
            b'T' if !self.owns_block => {
                self.interceptor.block.get_or_insert_default();
            }
            _ => self.interceptor.block = None,
        }
    }

    /// Whether a string can be relayed, since what it changes is held, or made by itself. If so, all of it is noted and logged.
    pub(super) fn is_held(&mut self, statements: &[Statement]) -> bool {
        // Outside a block, several statements are one transaction.
        let held = match &self.interceptor.block {
            Some(block) => block.held.clone(),
            None if self.is_idle() && statements.len() > 1 => BlockLocks::default(),
            None => return false,
        };
        let limits = self.limits();
        let Some((held, understood)) = after_all(held, statements, &limits) else { return false };
        statements.iter().filter(|statement| acts(statement)).for_each(|statement| self.log_held(statement));
        match &mut self.interceptor.block {
            Some(block) if understood => block.held = held,
            block => *block = None,
        }
        true
    }

    /// How many statements of a string in a block pass together as they are. They are noted, and logged where the proxy would
    /// else have acted.
    pub(super) fn passing(&mut self, run: &[Statement]) -> usize {
        let limits = self.limits();
        let mut count = 0;
        for statement in run.iter().take_while(|statement| !matches!(statement.class, Class::Transaction(_))) {
            if acts(statement) {
                if !self.interceptor.block.as_ref().is_some_and(|block| block.held.suffices(statement, &limits)) {
                    break;
                }
                self.log_held(statement);
            }
            if let Some(block) = &mut self.interceptor.block {
                // The block goes on in any case.
                let _ = block.held.passes(statement);
            }
            count += 1;
        }
        count
    }

    /// What passes without being acted on.
    pub(super) fn passed(&mut self, statements: &[Statement]) {
        let Some(block) = &mut self.interceptor.block else { return };
        if statements.is_empty() || !statements.iter().all(|statement| block.held.passes(statement)) {
            self.interceptor.block = None;
        }
    }

    /// The proxy has acted on a statement; `first`: at the first try.
    pub(super) fn done(&mut self, statement: &Statement, first: Option<&OptimisticPlan>) {
        if self.interceptor.block.as_mut().is_some_and(|block| !block.held.done(statement, first)) {
            self.interceptor.block = None;
        }
    }

    pub(super) fn log_held(&self, statement: &Statement) {
        self.shared.metrics.ddl_seen.add();
        self.shared.metrics.ddl_relayed.add();
        let Class::Ddl(ddl) = &statement.class else { return };
        self.log_line(&ddl.tag, 0, false, shown(statement));
    }
}

/// What is held behind all of the statements, and whether all are understood; `None`: one needs more than is held.
fn after_all(mut held: BlockLocks, statements: &[Statement], limits: &Limits) -> Option<(BlockLocks, bool)> {
    let mut understood = true;
    for statement in statements {
        if acts(statement) && !held.suffices(statement, limits) {
            return None;
        }
        understood &= held.passes(statement);
    }
    Some((held, understood))
}
