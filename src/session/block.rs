//! The client's transaction, as far as the order of its messages tells.
//!
//! It owns what the client's transaction block holds ([`BlockLocks`]), which statements and portals of the current pipeline are known, the
//! transaction control that this pipeline has parsed, and whether the proxy itself has opened a block to keep an implicit transaction
//! together. It keeps true: what a block holds is believed only for as long as every message of the client's is understood. A message that
//! is not understood may end the block, or do what a function does. Then all is forgotten, which costs no more than the usual way of the
//! next schema change.
//!
//! [`Block`] sees every message of a block in its order, when it is sent and when it is done. So this is the place for a block's journal, and
//! for suspending and replaying it.

use super::statement::acts;
use crate::backend::ServerChannel;
use crate::plan::Limits;
use crate::plan::block_locks::BlockLocks;
use crate::plan::optimistic::OptimisticPlan;
use crate::sql::{Class, Statement, TransactionControl};
use crate::wire::message;

/// The client's transaction.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The transaction block of the client's own, where all of its messages are understood. Boxed, as few sessions are in one.
    clients: Option<Box<ClientsBlock>>,
    proxys: ProxysBlock,
    /// The last transaction control that was parsed since the last Sync.
    control: Option<TransactionControl>,
}

/// A transaction block that the client has opened.
#[derive(Debug, Default)]
struct ClientsBlock {
    held: BlockLocks,
    /// What this pipeline has parsed, and bound of that: the only names of which is known what they do.
    statements: Vec<Vec<u8>>,
    portals: Vec<Vec<u8>>,
}

/// The transaction block that the proxy opens to keep the implicit transaction of a pipeline together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ProxysBlock {
    #[default]
    None,
    /// The proxy ends it at the client's Sync.
    Open,
    /// The client's own control has ended it, or has taken it over. The pipeline's Sync is still to be seen.
    Left,
}

// What the relay sees.
impl Block {
    /// Whether the block believes in what it knows, so that each message must be seen.
    pub(super) fn is_followed(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether the Sync of this pipeline means something.
    pub(super) fn sees_sync(&self) -> bool {
        self.control.is_some() || self.is_followed()
    }

    /// Whether the proxy has opened a block in this pipeline, so that it attends to its Sync.
    pub(super) fn ends_at_sync(&self) -> bool {
        self.proxys != ProxysBlock::None
    }

    /// A Query; `stops`: the proxy looks at its statements.
    pub(super) fn saw_query(&mut self, text: &[u8], stops: bool) {
        self.observe(|block| stops || block.held.passes_text(text));
    }

    /// A Parse of a text that the proxy does not look at.
    pub(super) fn saw_parse(&mut self, name: &[u8], text: &[u8], control: Option<TransactionControl>) {
        self.observe(|block| remember(&mut block.statements, name) && block.held.passes_text(text));
        self.control = control.or(self.control);
    }

    /// A Parse of statements that were looked at, and noted by [`Block::passed`].
    pub(super) fn saw_parse_of_noted(&mut self, name: &[u8]) {
        self.observe(|block| remember(&mut block.statements, name));
    }

    /// A Bind; `is_prepared`: its statement is one that the proxy stops at.
    pub(super) fn saw_bind(&mut self, body: &[u8], is_prepared: impl FnOnce(&[u8]) -> bool) {
        self.observe(|block| {
            let Some((portal, statement)) = message::bind(body) else { return false };
            (block.statements.iter().any(|name| name == statement) || is_prepared(statement))
                && remember(&mut block.portals, portal)
        });
    }

    /// An Execute; `stops`: the proxy attends to it.
    pub(super) fn saw_execute(&mut self, body: &[u8], stops: bool) {
        self.observe(|block| {
            let known = |portal: &[u8]| block.portals.iter().any(|name| name == portal);
            stops || message::execute(body).is_some_and(known)
        });
    }

    /// A Sync, or a Query, which ends a pipeline too.
    pub(super) fn saw_end_of_pipeline(&mut self) {
        if let Some(block) = &mut self.clients {
            block.statements.clear();
            block.portals.clear();
        }
    }

    /// A message that is not understood.
    pub(super) fn forget(&mut self) {
        self.clients = None;
    }

    fn observe(&mut self, understood: impl FnOnce(&mut ClientsBlock) -> bool) {
        if self.clients.as_mut().is_some_and(|block| !understood(block)) {
            self.clients = None;
        }
    }
}

// The pipeline, and the proxy's own block.
impl Block {
    /// The last transaction control that this pipeline has parsed.
    pub(super) fn control(&self) -> Option<TransactionControl> {
        self.control
    }

    /// The server has said how it stands: what the pipeline has parsed before is over.
    pub(super) fn forget_control(&mut self) {
        self.control = None;
    }

    /// Whether the proxy has opened the block that is under way.
    pub(super) fn is_proxys(&self) -> bool {
        self.proxys == ProxysBlock::Open
    }

    /// The proxy has asked for a block; `own`: BEGIN has not met one of the client's.
    pub(super) fn opened(&mut self, own: bool) {
        self.proxys = if own { ProxysBlock::Open } else { ProxysBlock::None };
    }

    /// The client's own control ends the proxy's block, or takes it over. True if there was one.
    pub(super) fn leave(&mut self) -> bool {
        let open = self.is_proxys();
        if open {
            self.proxys = ProxysBlock::Left;
        }
        open
    }

    /// The client's control has failed: the block is the proxy's to end.
    pub(super) fn take_back(&mut self) {
        self.proxys = ProxysBlock::Open;
    }

    /// The pipeline of the proxy's block is over. True if the block is still open, and to be ended.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.proxys) == ProxysBlock::Open
    }
}

// What the client's block holds.
impl Block {
    /// Before a frame is attended to, and whenever nothing is owed to the client: notes whether the client is in a block of its own.
    pub(super) fn refresh(&mut self, channel: &ServerChannel) {
        if channel.owes() > 0 || channel.is_unsynced() || !channel.owed_is_certain() {
            return;
        }
        match channel.status() {
            b'T' if !self.is_proxys() => {
                self.clients.get_or_insert_default();
            }
            _ => self.clients = None,
        }
    }

    /// What the block holds, where that is known.
    pub(super) fn held(&self) -> Option<&BlockLocks> {
        self.clients.as_ref().map(|block| &block.held)
    }

    /// The proxy has done several statements, behind which the block holds this.
    pub(super) fn holds_now(&mut self, held: BlockLocks) {
        if let Some(block) = &mut self.clients {
            block.held = held;
        }
    }

    /// Whether a string can be relayed, since what it changes is held, or made by itself. If so, all of it is noted. `idle`: the string
    /// begins a transaction.
    pub(super) fn may_pass(&mut self, statements: &[Statement], limits: &Limits, idle: bool) -> bool {
        // Outside a block, several statements are one transaction.
        let held = match &self.clients {
            Some(block) => block.held.clone(),
            None if idle && statements.len() > 1 => BlockLocks::default(),
            None => return false,
        };
        let Some((held, understood)) = after_all(held, statements, limits) else { return false };
        match &mut self.clients {
            Some(block) if understood => block.held = held,
            block => *block = None,
        }
        true
    }

    /// How many statements of a string in a block may pass together as they are. They are noted.
    pub(super) fn passing(&mut self, run: &[Statement], limits: &Limits) -> usize {
        let mut count = 0;
        for statement in run.iter().take_while(|statement| !matches!(statement.class, Class::Transaction(_))) {
            if acts(statement) && !self.held().is_some_and(|held| held.suffices(statement, limits)) {
                break;
            }
            if let Some(block) = &mut self.clients {
                // The block goes on in any case.
                let _ = block.held.passes(statement);
            }
            count += 1;
        }
        count
    }

    /// Statements pass without being acted on. None: it is not known what passes.
    pub(super) fn passed(&mut self, statements: &[Statement]) {
        self.observe(|block| !statements.is_empty() && statements.iter().all(|statement| block.held.passes(statement)));
    }

    /// The proxy has acted on a statement; `optimistic`: by this optimistic try.
    pub(super) fn done(&mut self, statement: &Statement, optimistic: Option<&OptimisticPlan>) {
        self.observe(|block| block.held.done(statement, optimistic));
    }
}

/// What is held behind all of the statements, and whether all are understood. `None`: one needs more than is held.
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

/// Adds a name. A pipeline may be of any length, and a few names are enough to know. False: there are more than are followed.
#[must_use]
fn remember(names: &mut Vec<Vec<u8>>, name: &[u8]) -> bool {
    const MOST: usize = 64;
    if !names.iter().any(|known| known == name) {
        names.push(name.to_vec());
    }
    names.len() <= MOST
}
