//! What the client has sent in its transaction, statement by statement.
//!
//! [`Sent`] owns a statement with its effect and the answer that the client got, and [`Case`] all of them before a statement for which the
//! transaction is suspended. The file keeps true: what a ROLLBACK TO has taken back is known,
//! and so are the savepoints that are left.

use crate::plan::ahead::follow_savepoints;
use crate::sql::{Class, Effect, EffectKind, Statement};
use std::collections::BTreeSet;

/// One statement that the client has sent in the transaction.
#[derive(Debug)]
pub(in crate::session) struct Sent {
    pub(in crate::session) statement: Statement,
    pub(in crate::session) effect: Effect,
    /// The tag that the client got.
    pub(in crate::session) tag: Vec<u8>,
    pub(in crate::session) how: How,
    /// A ROLLBACK TO has taken the statement back.
    pub(in crate::session) taken_back: bool,
}

/// How the client has sent a statement.
#[derive(Debug)]
pub(in crate::session) enum How {
    /// As a text, alone or with others.
    Text,
    /// By Parse, Bind and Execute. `types`: as in Parse behind the text. `parameters`: as in Bind.
    Bound { types: Vec<u8>, parameters: Vec<u8> },
    /// By Bind and Execute of a statement that was prepared before the transaction.
    Prepared { name: Vec<u8>, types: Vec<u8>, parameters: Vec<u8> },
}

/// The client's transaction before the statement that is to be done ahead.
#[derive(Debug)]
pub(in crate::session) struct Case {
    pub(in crate::session) sent: Vec<Sent>,
    /// The places of the statements that go ahead with the last one.
    pub(in crate::session) ahead: Vec<usize>,
    /// The places of the statements whose rows must be the same again.
    pub(in crate::session) compared: Vec<usize>,
}

impl Case {
    /// The number of statements before the last one, which is its place.
    pub(in crate::session) fn len(&self) -> usize {
        self.sent.len()
    }

    /// The statements that go ahead, in their order.
    pub(in crate::session) fn going_ahead(&self) -> impl Iterator<Item = (usize, &Statement)> {
        self.ahead.iter().filter_map(|place| Some((*place, &self.sent.get(*place)?.statement)))
    }

    /// The number that a person would give the statement at this place: the first behind BEGIN is 1, and EXPLAIN of DDL does not count.
    pub(in crate::session) fn number(&self, place: usize) -> usize {
        let counts = |sent: &&Sent| !matches!(sent.statement.class, Class::ExplainDdl(_));
        self.sent.iter().skip(1).take(place).filter(counts).count()
    }

    /// The settings that the transaction has changed.
    pub(in crate::session) fn settings(&self) -> BTreeSet<&str> {
        let names = self.sent.iter().filter_map(|sent| match &sent.effect.kind {
            EffectKind::Set(names) => Some(names),
            _ => None,
        });
        names.flatten().map(String::as_str).collect()
    }

    /// Whether the transaction has a savepoint that the client may go back to.
    pub(in crate::session) fn has_savepoints(&self) -> bool {
        !follow_savepoints(self.sent.iter().map(|sent| &sent.effect.kind)).1.is_empty()
    }

    /// Whether the transaction has taken advisory locks to its end.
    pub(in crate::session) fn takes_advisory_locks(&self) -> bool {
        takes_advisory_locks(&self.sent)
    }
}

/// The statement by which the transaction has begun.
pub(in crate::session) fn begin_of(sent: &[Sent]) -> &str {
    sent.first().map_or("BEGIN", |first| first.statement.text.as_str())
}

/// Whether the transaction has taken advisory locks to its end.
pub(in crate::session) fn takes_advisory_locks(sent: &[Sent]) -> bool {
    sent.iter().any(|sent| matches!(sent.effect.kind, EffectKind::AdvisoryXact))
}

/// Notes which statements a ROLLBACK TO has taken back. Returns the savepoints that are left, the oldest first, each with its place.
pub(in crate::session) fn note_taken_back(sent: &mut [Sent]) -> Vec<(String, usize)> {
    let (back, savepoints) = follow_savepoints(sent.iter().map(|sent| &sent.effect.kind));
    let savepoints = savepoints.into_iter().map(|(name, place)| (name.to_owned(), place)).collect();
    sent.iter_mut().zip(back).for_each(|(sent, back)| sent.taken_back = back);
    savepoints
}
