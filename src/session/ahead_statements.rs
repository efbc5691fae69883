//! The statements that were done ahead of the client's transaction.
//!
//! [`AheadStatements`] owns them, in the order in which they were done, and what the client had sent before the last of them. It keeps true:
//! a statement leaves the list only when it is final, undone, or left to another session. A transaction that has failed since can still be run
//! again up to a savepoint.

use super::sent::{Sent, begin_of, note_taken_back};
use crate::execute::ahead::AheadOfBlock;
use crate::sql::EffectKind;

/// What the client was told by a statement of the transaction: the number of its rows, and a digest of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct Told {
    /// The place of the statement in the transaction.
    place: usize,
    digest: Vec<Option<String>>,
}

impl Told {
    pub(in crate::session) fn new(place: usize, digest: Vec<Option<String>>) -> Self {
        Self { place, digest }
    }

    pub(in crate::session) fn place(&self) -> usize {
        self.place
    }
}

/// The statements ahead of a transaction.
#[derive(Debug, Default)]
pub(in crate::session) struct AheadStatements {
    /// Each with the place of its statement in the transaction. `None`: it has changed nothing.
    done: Vec<(usize, Option<AheadOfBlock>)>,
    /// What the client had sent before the last statement.
    sent: Vec<Sent>,
    /// The savepoints that the transaction has, the oldest first, each with its place in `sent`. `None`: it is younger than all statements ahead.
    savepoints: Vec<(String, Option<usize>)>,
    /// What the client knew of locked rows when the last statement was done ahead.
    told: Vec<Told>,
}

impl AheadStatements {
    /// Notes what the client had sent before the last statement, and what it knew of locked rows.
    pub(in crate::session) fn knows(&mut self, mut sent: Vec<Sent>, told: Vec<Told>) {
        self.told = told;
        let savepoints = note_taken_back(&mut sent);
        self.savepoints = savepoints.into_iter().map(|(name, place)| (name, Some(place))).collect();
        self.sent = sent;
    }

    /// The statement by which the client has begun the transaction.
    pub(in crate::session) fn begin(&self) -> &str {
        begin_of(&self.sent)
    }

    /// Takes what the client had sent before the last statement.
    pub(in crate::session) fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// Gives back what [`Self::take_sent`] took.
    pub(in crate::session) fn put_sent(&mut self, sent: Vec<Sent>) {
        self.sent = sent;
    }

    /// The place of a savepoint that is older than some statement ahead. `None`: the savepoint is younger, or there is none.
    pub(in crate::session) fn place_of(&self, savepoint: &str) -> Option<usize> {
        self.savepoints.iter().rfind(|(name, _)| name == savepoint)?.1
    }

    /// The server has done what the client wanted with a savepoint.
    pub(in crate::session) fn did(&mut self, control: &EffectKind) {
        match control {
            EffectKind::Savepoint(name) => self.savepoints.push((name.clone(), None)),
            EffectKind::Release(name) => self.keep_savepoints(name, 0),
            EffectKind::RollbackTo(name) => self.keep_savepoints(name, 1),
            _ => {}
        }
    }

    /// Keeps the savepoints before this one, and `more`.
    fn keep_savepoints(&mut self, savepoint: &str, more: usize) {
        if let Some(at) = self.savepoints.iter().rposition(|(name, _)| name == savepoint) {
            self.savepoints.truncate(at + more);
        }
    }

    /// What the client knew of locked rows before this place. A statement must have been done ahead behind it.
    pub(in crate::session) fn told_before(&self, place: usize) -> Vec<Told> {
        self.told.iter().filter(|told| told.place < place).cloned().collect()
    }

    /// The number of statements.
    pub(in crate::session) fn len(&self) -> usize {
        self.done.len()
    }

    /// Adds a statement. `place`: its place in the transaction.
    pub(in crate::session) fn push(&mut self, place: usize, ahead: Option<AheadOfBlock>) {
        self.done.push((place, ahead));
    }

    /// Takes the last statement, if there are more than `most`.
    pub(in crate::session) fn pop_down_to(&mut self, most: usize) -> Option<(usize, Option<AheadOfBlock>)> {
        if self.done.len() > most { self.done.pop() } else { None }
    }

    /// Takes all statements, the last one first.
    pub(in crate::session) fn take(self) -> impl Iterator<Item = AheadOfBlock> {
        self.done.into_iter().rev().filter_map(|(_, ahead)| ahead)
    }

    /// The statements, in the order in which they were done.
    pub(in crate::session) fn iter(&self) -> impl Iterator<Item = &AheadOfBlock> {
        self.done.iter().filter_map(|(_, ahead)| ahead.as_ref())
    }

    /// How many statements stand before this place of the transaction, if the others come last.
    pub(in crate::session) fn count_before(&self, place: usize) -> usize {
        self.done.iter().take_while(|(at, _)| *at < place).count()
    }

    /// Whether a statement behind the first `stay` stands before this place of the transaction.
    pub(in crate::session) fn has_before_behind(&self, stay: usize, place: usize) -> bool {
        self.done.iter().skip(stay).any(|(at, _)| *at < place)
    }

    /// Whether the statement at this place was done ahead.
    pub(in crate::session) fn is_done(&self, place: usize) -> bool {
        self.done.iter().any(|(at, _)| *at == place)
    }
}
