//! The journal of the client's transaction block: what the client has sent in it, so that the block can be run again.
//!
//! [`Journal`] owns the client's messages from its BEGIN on, copied into one buffer, and the statements that the proxy ran in the block.
//! [`JournalKeeper`] owns the journal of the block that is under way, and sees every message that goes to the server. It keeps true:
//!
//! - Outside a block nothing is copied. In a block each message costs one copy, and no message is parsed before the block is suspended.
//! - The journal holds every message of the block that has an effect, in order, or it says why it does not ([`Incomplete`]).
//! - The journal may outlive its block, if the block ends in a way that a look at the messages does not show. Then the log of answers
//!   ([`AnswerLog`]) shows that the server has left the block, and [`Journal::messages`] is an error.

mod assemble;
mod controls;
mod entry;
mod incomplete;
#[cfg(test)]
mod relayed {
    mod tests;
}
#[cfg(test)]
mod tests;

pub(super) use self::assemble::Message;
pub(super) use self::incomplete::Incomplete;

use self::controls::{ControlStatement, ControlStatements};
use self::entry::EntryKind;
use crate::plan::LockNeed;
use crate::relay::{AnswerLog, give_back, take_buffer};
use crate::sql::{Statement, TransactionControl, exactly_transaction};
use std::time::{Duration, Instant};

/// What the client has sent in its transaction block.
#[derive(Debug)]
pub(super) struct Journal {
    /// The entries ([`entry`]).
    buffer: Vec<u8>,
    /// The most bytes of entries, with those of `acted`.
    limit: usize,
    acted: Vec<(Statement, Vec<u8>)>,
    acted_bytes: usize,
    incomplete: Option<Incomplete>,
    begun: Instant,
    own_time: Duration,
    /// The locks that the block takes first when it is run again, each with the place of the statement that needs it.
    first: Vec<(usize, LockNeed)>,
    /// How many more writes of the block the proxy looks at, since the block may keep others from a table.
    writes: u8,
}

impl Journal {
    fn new(limit: u32) -> Self {
        Self {
            buffer: take_buffer(),
            limit: limit as usize,
            acted: Vec::new(),
            acted_bytes: 0,
            incomplete: None,
            begun: Instant::now(),
            own_time: Duration::ZERO,
            first: Vec::new(),
            writes: 0,
        }
    }

    /// The proxy has run a statement in place of the server.
    pub(super) fn acted(&mut self, statement: &Statement, tag: &[u8]) {
        let bytes = statement.text.len() + tag.len();
        if self.room() < entry::size(b"") + bytes {
            return self.stop(Incomplete::TooLarge);
        }
        self.push(EntryKind::Acted, b"");
        if self.incomplete.is_none() {
            self.acted_bytes += bytes;
            self.acted.push((statement.clone(), tag.to_vec()));
        }
    }

    /// From now on the block takes these locks first when it is run again. `place`: that of the statement which needs them. `false`: it has
    /// taken them first already.
    pub(super) fn lock_first(&mut self, place: usize, locks: &[LockNeed]) -> bool {
        let before = self.first.len();
        for lock in locks {
            let known = |(_, known): &(usize, LockNeed)| known.oid == lock.oid && known.mode.covers(lock.mode);
            if !self.first.iter().any(known) {
                self.first.push((place, lock.clone()));
            }
        }
        self.first.len() > before
    }

    /// The locks that the block takes first when it is run again, each with the place of the statement that needs it.
    pub(super) fn first(&self) -> &[(usize, LockNeed)] {
        &self.first
    }

    /// From now on the proxy looks at so many writes of the block.
    pub(super) fn looks_at_writes(&mut self, most: u8) {
        self.writes = most;
    }

    pub(super) fn looks_at_one_write_less(&mut self) {
        self.writes = self.writes.saturating_sub(1);
    }

    /// Notes that the proxy's own work has taken so long, which does not count as time of the block.
    pub(super) fn own_time(&mut self, spent: Duration) {
        self.own_time += spent;
    }

    /// The time since BEGIN, without the proxy's own work.
    pub(super) fn took(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.own_time)
    }

    /// What the client has sent, with what it was told. All answers must have come.
    ///
    /// # Errors
    /// Why the messages cannot be told.
    pub(super) fn messages(&self, answers: &AnswerLog) -> Result<Vec<Message>, Incomplete> {
        match self.incomplete {
            Some(incomplete) => Err(incomplete),
            None => assemble::assemble(entry::entries(&self.buffer), answers.answers()?, &self.acted),
        }
    }

    /// The bytes of the entries. They grow with each message, unless the journal is incomplete.
    fn length(&self) -> usize {
        self.buffer.len()
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.buffer.len() + self.acted_bytes)
    }

    #[inline]
    fn push(&mut self, kind: EntryKind, body: &[u8]) {
        if self.incomplete.is_some() {
            return;
        }
        if entry::size(body) > self.room() {
            return self.stop(Incomplete::TooLarge);
        }
        entry::put(&mut self.buffer, kind, body);
    }

    /// The journal is incomplete for good. The first reason counts.
    #[cold]
    fn stop(&mut self, why: Incomplete) {
        self.incomplete.get_or_insert(why);
        self.acted = Vec::new();
        give_back(std::mem::take(&mut self.buffer));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.buffer));
    }
}

/// The journal of the block that is under way, and what shows where a block begins and ends.
#[derive(Debug)]
pub(super) struct JournalKeeper {
    journal: Option<Box<Journal>>,
    /// The prepared statements that begin or end a transaction, if the client has any.
    controls: Option<Box<ControlStatements>>,
    /// The setting `journal_limit`; 0: no journal is kept.
    limit: u32,
}

/// The largest Bind that is opened outside a block, to see whether it is of a BEGIN. A BEGIN has no parameters.
const BIND_OF_BEGIN: u32 = 256;

// What the relay asks, for each frame.
impl JournalKeeper {
    pub(super) fn new(limit: u32) -> Self {
        Self { journal: None, controls: None, limit }
    }

    /// Whether Bind, Execute and Close must be seen.
    #[inline]
    pub(super) fn sees_extended(&self) -> bool {
        self.journal.is_some() || self.controls.is_some()
    }

    /// Whether function calls must be seen.
    #[inline]
    pub(super) fn is_kept(&self) -> bool {
        self.journal.is_some()
    }

    /// The most bytes of a journal; 0: none is kept.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// The largest body of a Bind that is worth opening.
    #[inline]
    pub(super) fn bind_limit(&self) -> u32 {
        match &self.journal {
            Some(journal) if journal.incomplete.is_none() => u32::try_from(journal.room()).unwrap_or(u32::MAX),
            _ => BIND_OF_BEGIN,
        }
    }

    /// The most bytes of answers that are to be logged.
    #[inline]
    pub(super) fn answers_limit(&self) -> u32 {
        if self.journal.is_some() { self.limit } else { 0 }
    }
}

// The messages that go to the server. These functions run for each frame that is opened, and are inlined.
impl JournalKeeper {
    /// A Query, or a piece of a string.
    #[inline]
    pub(super) fn passes_query(&mut self, text: &[u8]) {
        if self.limit == 0 {
            return;
        }
        match exactly_transaction(text) {
            None | Some(TransactionControl::Savepoint | TransactionControl::Prepare) => {
                if let Some(journal) = &mut self.journal {
                    journal.push(EntryKind::Query, text);
                }
            }
            Some(control) => self.controls(control, EntryKind::Query, text),
        }
    }

    /// A Parse. `body`: the whole message.
    #[inline]
    pub(super) fn passes_parse(&mut self, name: &[u8], text: &[u8], control: Option<TransactionControl>, body: &[u8]) {
        if control.is_some() || self.controls.is_some() {
            self.follow_parse(name, text, control);
        }
        if let Some(journal) = &mut self.journal {
            journal.push(EntryKind::Parse, body);
        }
    }

    #[inline]
    pub(super) fn passes_bind(&mut self, body: &[u8]) {
        if let Some(controls) = &mut self.controls {
            controls.bound(body);
        }
        if let Some(journal) = &mut self.journal {
            journal.push(EntryKind::Bind, body);
        }
    }

    #[inline]
    pub(super) fn passes_execute(&mut self, body: &[u8]) {
        if let Some(controls) = &mut self.controls
            && let Some(statement) = controls.executed(body)
        {
            return self.execute_control(&statement, body);
        }
        if let Some(journal) = &mut self.journal {
            journal.push(EntryKind::Execute, body);
        }
    }

    #[inline]
    pub(super) fn passes_close(&mut self, body: &[u8]) {
        if let Some(controls) = &mut self.controls {
            controls.closed(body);
            self.tidy();
        }
        if let Some(journal) = &mut self.journal {
            journal.push(EntryKind::Close, body);
        }
    }

    /// A message that is too large to be seen whole, or that is not understood.
    pub(super) fn passes_unread(&mut self, tag: u8, why: Incomplete) {
        if let Some(controls) = &mut self.controls {
            match tag {
                b'P' => controls.parsed_other(b""),
                b'B' => controls.bound_unread(),
                _ => {}
            }
            self.tidy();
        }
        self.stop(why);
    }
}

// The journal of the block.
impl JournalKeeper {
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref()
    }

    pub(super) fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut()
    }

    /// The proxy opens a block.
    pub(super) fn begin(&mut self) {
        if self.limit > 0 {
            self.journal = Some(Box::new(Journal::new(self.limit)));
        }
    }

    /// Takes the journal, as long as the proxy runs the block again.
    pub(super) fn take(&mut self) -> Option<Box<Journal>> {
        self.journal.take()
    }

    /// Puts the journal back.
    pub(super) fn put(&mut self, journal: Option<Box<Journal>>) {
        self.journal = journal;
    }

    /// Whether the proxy looks at what the block writes.
    #[inline]
    pub(super) fn sees_writes(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.writes > 0)
    }

    /// The block has ended.
    pub(super) fn end(&mut self) {
        self.journal = None;
        self.tidy();
    }

    /// The journal cannot be complete any more.
    pub(super) fn stop(&mut self, why: Incomplete) {
        if let Some(journal) = &mut self.journal {
            journal.stop(why);
        }
    }

    /// The proxy has answered a message in place of the server. What it has run for the message must stand in the journal, which held
    /// `before` bytes. `failed`: the block has failed.
    pub(super) fn handled(&mut self, tag: u8, before: usize, failed: bool) {
        if failed {
            self.stop(Incomplete::Failed);
        } else if tag != b'S' && self.length() <= before {
            self.stop(Incomplete::NotUnderstood);
        }
    }

    /// How much the journal holds.
    pub(super) fn length(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.length())
    }

    /// A text, or an Execute, that begins or ends a transaction.
    #[cold]
    fn controls(&mut self, control: TransactionControl, kind: EntryKind, body: &[u8]) {
        match control {
            TransactionControl::Begin => {
                let limit = self.limit;
                // In a block, BEGIN begins none. If the block has ended unseen, the log of answers shows that.
                self.journal.get_or_insert_with(|| Box::new(Journal::new(limit))).push(kind, body);
            }
            TransactionControl::Commit { chain: false } | TransactionControl::Rollback { chain: false } => self.end(),
            TransactionControl::Commit { chain: true } | TransactionControl::Rollback { chain: true } => {
                self.stop(Incomplete::Chained);
            }
            TransactionControl::Savepoint | TransactionControl::Prepare => {}
        }
    }

    #[cold]
    fn follow_parse(&mut self, name: &[u8], text: &[u8], control: Option<TransactionControl>) {
        match control.filter(|control| !matches!(control, TransactionControl::Savepoint)) {
            Some(_) if self.limit == 0 => {}
            Some(control) => self.controls.get_or_insert_default().parsed(name, text, control),
            None => {
                if let Some(controls) = &mut self.controls {
                    controls.parsed_other(name);
                }
                self.tidy();
            }
        }
    }

    #[cold]
    fn execute_control(&mut self, statement: &ControlStatement, body: &[u8]) {
        if let (Some(text), None) = (&statement.begin, &self.journal) {
            let begin = [&statement.name[..], b"\0", text].concat();
            self.controls(statement.control, EntryKind::Begin, &begin);
        } else {
            self.controls(statement.control, EntryKind::Execute, body);
        }
    }

    /// Frees the controls if there are none. In a block they stay, since its COMMIT is likely to follow.
    fn tidy(&mut self) {
        if self.journal.is_none() && self.controls.as_ref().is_some_and(|controls| controls.is_empty()) {
            self.controls = None;
        }
    }
}
