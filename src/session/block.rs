//! The client's transaction, as far as the proxy can tell from the client's messages.
//!
//! It owns the locks of the client's transaction block ([`BlockLocks`]), the known statements and portals of the current pipeline, the
//! transaction control that this pipeline has parsed, and whether the proxy itself has opened a block to keep an implicit transaction together.
//! It keeps true: the locks of a block count only for as long as the proxy understands every message of the client's. A message that it does
//! not understand may end the block, or call a function that does anything. The proxy then forgets the block, and the next schema change goes
//! through all its stages.
//!
//! [`Block`] sees every message of a block in its order, when it is sent and when it is done. So the keeper of the block's journal
//! ([`JournalKeeper`]) belongs to it, and so does the code that suspends and replays a block.

use super::ahead_statements::AheadStatements;
use super::journal::{Journal, JournalKeeper};
use super::statement::{acts, suffices};
use crate::backend::ServerChannel;
use crate::plan::Limits;
use crate::plan::block_locks::BlockLocks;
use crate::plan::optimistic::OptimisticPlan;
use crate::sql::{Class, Statement, TransactionControl};
use crate::wire::message;

/// The client's transaction.
#[derive(Debug)]
pub(super) struct Block {
    /// The transaction block of the client's own, if all of its messages are understood. It is boxed, since few sessions are in a block.
    clients: Option<Box<ClientsBlock>>,
    proxys: ProxysBlock,
    /// What was done ahead of the transaction.
    ahead: Option<Box<AheadStatements>>,
    /// The last transaction control that was parsed since the last Sync.
    control: Option<TransactionControl>,
    keeper: JournalKeeper,
}

/// A transaction block that the client has opened.
#[derive(Debug, Default)]
struct ClientsBlock {
    held: BlockLocks,
    /// The statements that this pipeline has parsed, and the portals that it has bound to them. The meaning of other names is not known.
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
    /// The client's own transaction control has ended the block, or has taken it over. The pipeline's Sync is still to come.
    Left,
}

// The journal.
impl Block {
    /// `journal_limit`: the most bytes of a journal. 0: no journal is kept.
    pub(super) fn new(journal_limit: u32) -> Self {
        Self {
            clients: None,
            proxys: ProxysBlock::None,
            ahead: None,
            control: None,
            keeper: JournalKeeper::new(journal_limit),
        }
    }

    /// The keeper of the journal, which sees every message that goes to the server.
    #[inline]
    pub(super) fn keeper(&self) -> &JournalKeeper {
        &self.keeper
    }

    #[inline]
    pub(super) fn keeper_mut(&mut self) -> &mut JournalKeeper {
        &mut self.keeper
    }

    /// The journal of the client's block. It begins at BEGIN, and it may outlive the block: whether the server is in the block is known by its
    /// status.
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.keeper.journal()
    }

    pub(super) fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.keeper.journal_mut()
    }
}

// The messages that the relay sees. These functions run for each frame that is opened, and are inlined: a call of each cost the extended
// protocol five percent of the processor time of a query.
impl Block {
    /// Whether the client's block is followed, so that each of its messages must be seen.
    #[inline]
    pub(super) fn is_followed(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether the Sync of this pipeline must be seen.
    #[inline]
    pub(super) fn sees_sync(&self) -> bool {
        self.control.is_some() || self.is_followed()
    }

    /// Whether the proxy has opened a block in this pipeline. Then it attends to the pipeline's Sync.
    #[inline]
    pub(super) fn ends_at_sync(&self) -> bool {
        self.proxys != ProxysBlock::None
    }

    /// The client sends a Query. `stops`: the proxy looks at its statements.
    #[inline]
    pub(super) fn saw_query(&mut self, text: &[u8], stops: bool) {
        self.observe(|block| stops || block.held.passes_text(text));
    }

    /// The client sends a Parse of a text that the proxy does not look at.
    #[inline]
    pub(super) fn saw_parse(&mut self, name: &[u8], text: &[u8], control: Option<TransactionControl>) {
        self.observe(|block| remember(&mut block.statements, name) && block.held.passes_text(text));
        self.control = control.or(self.control);
    }

    /// The client sends a Parse of statements that were looked at, and noted by [`Block::passed`].
    #[inline]
    pub(super) fn saw_parse_of_noted(&mut self, name: &[u8]) {
        self.observe(|block| remember(&mut block.statements, name));
    }

    /// The client sends a Bind. `is_prepared`: whether the proxy stops at a statement of this name.
    #[inline]
    pub(super) fn saw_bind(&mut self, body: &[u8], is_prepared: impl FnOnce(&[u8]) -> bool) {
        self.observe(|block| {
            let Some((portal, statement)) = message::bind(body) else { return false };
            (block.statements.iter().any(|name| name == statement) || is_prepared(statement))
                && remember(&mut block.portals, portal)
        });
    }

    /// The client sends an Execute. `stops`: the proxy attends to it.
    #[inline]
    pub(super) fn saw_execute(&mut self, body: &[u8], stops: bool) {
        self.observe(|block| {
            let known = |portal: &[u8]| block.portals.iter().any(|name| name == portal);
            stops || message::execute(body).is_some_and(known)
        });
    }

    /// A Sync or a Query ends the pipeline.
    #[inline]
    pub(super) fn saw_end_of_pipeline(&mut self) {
        if let Some(block) = &mut self.clients {
            block.statements.clear();
            block.portals.clear();
        }
    }

    /// The client sends a message that is not understood.
    pub(super) fn forget(&mut self) {
        self.clients = None;
    }

    #[inline]
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

    /// The server has reported its transaction status, so earlier messages of the pipeline do not matter any more.
    #[inline]
    pub(super) fn forget_control(&mut self) {
        self.control = None;
    }

    /// Whether the proxy has opened the block that is under way.
    pub(super) fn is_proxys(&self) -> bool {
        self.proxys == ProxysBlock::Open
    }

    /// The proxy has sent a BEGIN. `own`: the client was in no block of its own.
    pub(super) fn opened(&mut self, own: bool) {
        self.proxys = if own { ProxysBlock::Open } else { ProxysBlock::None };
    }

    /// The client's transaction control ends the proxy's block, or takes it over. True if there was one.
    pub(super) fn leave(&mut self) -> bool {
        let open = self.is_proxys();
        if open {
            self.proxys = ProxysBlock::Left;
        }
        open
    }

    /// The client's transaction control has failed, so the proxy is to end the block.
    pub(super) fn take_back(&mut self) {
        self.proxys = ProxysBlock::Open;
    }

    /// The pipeline is over. True if the proxy's block is still open, and is to be ended.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.proxys) == ProxysBlock::Open
    }
}

// The locks that the client's block holds.
impl Block {
    /// Notes whether the client is in a block of its own. It is called before a frame is attended to, and whenever nothing is owed to the client.
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

    /// The locks that the block holds, if they are known.
    pub(super) fn held(&self) -> Option<&BlockLocks> {
        self.clients.as_ref().map(|block| &block.held)
    }

    /// The proxy has run several statements, after which the block holds these locks.
    pub(super) fn holds_now(&mut self, held: BlockLocks) {
        if let Some(block) = &mut self.clients {
            block.held = held;
        }
    }

    /// Whether a string can be relayed, since the block holds the locks that it needs, or the string itself makes the relations. If so, its
    /// statements are noted. `idle`: the string begins a transaction.
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

    /// How many statements of a string in a block may be relayed together. They are noted.
    pub(super) fn passing(&mut self, run: &[Statement], limits: &Limits) -> usize {
        let mut count = 0;
        for statement in run.iter().take_while(|statement| !matches!(statement.class, Class::Transaction(_))) {
            if acts(statement) && !self.held().is_some_and(|held| suffices(held, statement, limits)) {
                break;
            }
            if let Some(block) = &mut self.clients {
                // The block continues in any case.
                let _ = block.held.passes(statement);
            }
            count += 1;
        }
        count
    }

    /// Statements pass without being acted on. An empty slice: it is not known which statement passes.
    pub(super) fn passed(&mut self, statements: &[Statement]) {
        self.observe(|block| !statements.is_empty() && statements.iter().all(|statement| block.held.passes(statement)));
    }

    /// The proxy has run a statement. `optimistic`: the optimistic try that has done it.
    pub(super) fn done(&mut self, statement: &Statement, optimistic: Option<&OptimisticPlan>) {
        self.observe(|block| block.held.done(statement, optimistic));
    }
}

// What was done ahead of the transaction.
impl Block {
    /// Whether anything was done ahead of the transaction. Then the proxy attends to whatever may end it.
    #[inline]
    pub(super) fn has_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    pub(super) fn ahead(&self) -> Option<&AheadStatements> {
        self.ahead.as_deref()
    }

    pub(super) fn ahead_mut(&mut self) -> &mut AheadStatements {
        self.ahead.get_or_insert_default()
    }

    /// Takes all that was done ahead. The transaction is over.
    pub(super) fn take_ahead(&mut self) -> Option<AheadStatements> {
        self.ahead.take().map(|ahead| *ahead)
    }

    /// The proxy has run a statement, in the transaction or ahead of it. `tag`: the tag that the client gets.
    pub(super) fn acted(&mut self, statement: &Statement, tag: &[u8]) {
        if let Some(journal) = self.journal_mut() {
            journal.acted(statement, tag);
        }
    }

    /// The proxy has run a statement in the transaction. If it was a schema change, the transaction may keep others from a table from now on.
    pub(super) fn holds_table(&mut self, statement: &Statement) {
        if let Some(journal) = self.journal_mut()
            && statement.ddl().is_some()
        {
            journal.looks_at_writes(WRITES);
        }
    }

    /// Whether the proxy looks at what the transaction writes, since the transaction may keep others from a table.
    #[inline]
    pub(super) fn sees_writes(&self) -> bool {
        self.keeper.sees_writes()
    }

    /// The proxy looks at a statement that writes.
    pub(super) fn looks_at_write(&mut self) {
        if let Some(journal) = self.journal_mut() {
            journal.looks_at_one_write_less();
        }
    }

    /// The transaction keeps others from no table any more, or nothing can be done about it.
    pub(super) fn frees(&mut self) {
        if let Some(journal) = self.journal_mut() {
            journal.looks_at_writes(0);
        }
    }

    /// The proxy has opened a block of its own. It gets a journal, as a block of the client's.
    pub(super) fn begin_journal(&mut self) {
        self.keeper.begin();
        self.acted(&begin(), b"BEGIN");
    }

    /// Nothing of what is run is the client's, until [`Block::resume_journal`].
    pub(super) fn suspend_journal(&mut self) -> Option<Box<Journal>> {
        self.keeper.take()
    }

    pub(super) fn resume_journal(&mut self, journal: Option<Box<Journal>>) {
        self.keeper.put(journal);
    }

    /// The transaction was rolled back, and is run again. It holds no lock yet.
    pub(super) fn replayed(&mut self) {
        if let Some(block) = &mut self.clients {
            block.held = BlockLocks::default();
        }
    }
}

/// How many writes of small tables the proxy looks at behind a schema change. A transaction of more of them takes long because of its client.
const WRITES: u8 = 16;

/// The proxy's own BEGIN.
fn begin() -> Statement {
    let class = Class::Transaction(TransactionControl::Begin);
    Statement { range: 0..5, text: "BEGIN".to_owned(), logged: String::new(), class, gated: false }
}

/// The locks that are held after all of the statements, and whether all statements are understood. `None`: a statement needs a lock that is not
/// held.
fn after_all(mut held: BlockLocks, statements: &[Statement], limits: &Limits) -> Option<(BlockLocks, bool)> {
    let mut understood = true;
    for statement in statements {
        if acts(statement) && !suffices(&held, statement, limits) {
            return None;
        }
        understood &= held.passes(statement);
    }
    Some((held, understood))
}

/// Adds a name. A pipeline may be of any length, and it is enough to know a few names. `false`: there are more names than are followed.
#[must_use]
fn remember(names: &mut Vec<Vec<u8>>, name: &[u8]) -> bool {
    const MOST: usize = 64;
    if !names.iter().any(|known| known == name) {
        names.push(name.to_vec());
    }
    names.len() <= MOST
}
