//! The schema changes of this proxy that are held, and what operators hold by hand.
//!
//! [`Holds`] owns both, in memory: they end with the process. It keeps true:
//!
//! - What becomes of a change is decided by [`crate::gate::change::transition`] alone. Every step leaves an event ([`event`]).
//! - The same change ([`Digest`]) is held once, however many clients send it. The same text with another plan takes the place of the one before,
//!   and needs every approval anew.
//! - An approval lets one statement run: the one that has taken its [`Passage`].
//! - The table has a bound. What is over is forgotten first, the oldest first.
//!
//! - A [`Passage`] and a [`Waiting`] end when they are dropped, so a session that ends in any way leaves nothing behind.
//!
//! - `entry`: one change. `table`: all of them. `verbs`: what operators do.
//! - `scope`: HOLD ALL, HOLD DATABASE and HOLD RELATION.

mod entry;
mod event;
mod scope;
mod table;
mod verbs;

pub use entry::{Decided, Held, HoldRequest};
pub use scope::{Scope, ScopeHold};
pub use verbs::{Actor, HoldVerb};

use crate::gate::change::{Event, State};
use crate::gate::digest::Digest;
use crate::report::Report;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use table::{Table, full};

/// The changes that are held, and what operators hold by hand.
#[derive(Debug, Default)]
pub struct Holds {
    table: Mutex<Table>,
}

/// What a client's statement may do.
#[derive(Debug)]
pub enum Joined {
    /// It is approved, and runs now.
    Go(Passage),
    /// It waits for a decision.
    Wait(Waiting),
    /// It was rejected.
    Rejected(Box<Held>),
}

impl Holds {
    /// A client has sent a statement that a rule holds. `passage`: what the statement has run under so far; its plan was made anew since.
    ///
    /// # Errors
    /// More changes are held than the table has room for.
    pub fn join(
        self: &Arc<Self>,
        request: HoldRequest,
        passage: Option<Passage>,
        now: SystemTime,
    ) -> Result<Joined, Report> {
        let mut table = self.lock();
        table.sweep_if_due(now);
        let own = passage.as_ref().map(Passage::number);
        if let Some(passage) = passage {
            let runs = table.changes.get(&passage.number()).is_some_and(|held| held.digest == request.digest);
            if runs {
                return Ok(Joined::Go(passage));
            }
            passage.give_up();
        }
        let number = table.enter(request, own, now)?;
        let Some(held) = table.changes.get(&number).cloned() else { return Err(full()) };
        Ok(match held.change.state() {
            State::Approved => {
                table.step(number, &Event::Start, None, now);
                Joined::Go(Passage::new(self, number))
            }
            State::Rejected => Joined::Rejected(Box::new(held)),
            _ => {
                if let Some(held) = table.changes.get_mut(&number) {
                    held.waiting += 1;
                }
                Joined::Wait(Waiting::new(self, &held))
            }
        })
    }

    /// A statement begins that was approved before its transaction was suspended, whatever its plan is there. `text`: its digest without the plan.
    pub fn resume(self: &Arc<Self>, text: &Digest) -> Option<Passage> {
        let mut table = self.lock();
        let number = table.by_text.get(text).copied()?;
        table.step(number, &Event::Start, None, SystemTime::now()).then(|| Passage::new(self, number))
    }

    /// The change that runs under this passage needs its approvals once more, before its last strong lock. `None`: it does not run any more.
    pub fn ask_again(self: &Arc<Self>, passage: Passage, now: SystemTime) -> Option<Waiting> {
        let mut table = self.lock();
        let number = passage.number();
        passage.give_up();
        let held = table.ask_again(number, now)?;
        Some(Waiting::new(self, &held))
    }

    /// The change of this digest, if it was rejected.
    pub fn rejected(&self, digest: &Digest) -> Option<Held> {
        let table = self.lock();
        let held = table.of_digest(digest)?;
        (held.change.state() == State::Rejected).then(|| held.clone())
    }

    /// A change, as it is now.
    pub fn get(&self, number: u64) -> Option<Held> {
        self.lock().changes.get(&number).cloned()
    }

    /// All changes, the oldest first.
    pub fn all(&self, now: SystemTime) -> Vec<Held> {
        let mut table = self.lock();
        table.sweep(now);
        table.changes.values().cloned().collect()
    }

    /// No rule holds the change any more.
    pub fn release(&self, number: u64, now: SystemTime) {
        self.lock().step(number, &Event::Release, None, now);
    }

    /// The client has cancelled its statement. The change is over, unless another client waits for it, too.
    pub fn withdraw(&self, number: u64, now: SystemTime) {
        let mut table = self.lock();
        if table.changes.get(&number).is_some_and(|held| held.waiting <= 1) {
            table.step(number, &Event::Cancel, None, now);
        }
    }

    /// What operators hold by hand.
    pub fn scopes(&self) -> Vec<ScopeHold> {
        self.lock().scopes.clone()
    }

    /// Holds what is in the scope. `false`: it is held already.
    pub fn hold(&self, hold: ScopeHold) -> bool {
        let mut table = self.lock();
        let is_new = !table.scopes.iter().any(|known| known.scope == hold.scope);
        if is_new {
            table.scopes.push(hold);
        }
        is_new
    }

    /// Holds what is in the scope no longer. `false`: it was not held.
    pub fn let_go(&self, scope: &Scope) -> bool {
        let mut table = self.lock();
        let before = table.scopes.len();
        table.scopes.retain(|known| known.scope != *scope);
        table.scopes.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of a statement to run once.
#[derive(Debug)]
pub struct Passage {
    holds: Arc<Holds>,
    number: u64,
    /// The event with which the change ends when the passage does.
    end: Option<Event>,
}

impl Passage {
    fn new(holds: &Arc<Holds>, number: u64) -> Self {
        // A client that leaves, or a backend that is lost.
        Self { holds: Arc::clone(holds), number, end: Some(Event::Finish { done: false }) }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether somebody has forced the change.
    pub fn is_forced(&self) -> bool {
        self.holds.get(self.number).is_some_and(|held| held.change.is_forced())
    }

    /// Whether the last strong lock of the change was approved.
    pub fn is_of_cut_over(&self) -> bool {
        self.holds.get(self.number).is_some_and(|held| held.cut_over)
    }

    /// The statement has run.
    pub fn finish(mut self, done: bool) {
        self.end = Some(Event::Finish { done });
    }

    /// The statement has not begun, and begins once more: the client's transaction is suspended first.
    pub fn suspend(mut self) {
        self.end = Some(Event::Suspend);
    }

    /// The change goes on without this passage. The caller holds the table.
    fn give_up(mut self) {
        self.end = None;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            self.holds.lock().step(self.number, &end, None, SystemTime::now());
        }
    }
}

/// A client that waits for a decision.
#[derive(Debug)]
pub struct Waiting {
    holds: Arc<Holds>,
    number: u64,
    digest: Digest,
}

impl Waiting {
    fn new(holds: &Arc<Holds>, held: &Held) -> Self {
        Self { holds: Arc::clone(holds), number: held.number, digest: held.digest }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// The change as it is now. `None`: it is forgotten.
    pub fn held(&self) -> Option<Held> {
        self.holds.get(self.number)
    }

    /// Whether this is what the client has sent: the same plan.
    pub fn is_of(&self, held: &Held) -> bool {
        held.digest == self.digest
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(held) = self.holds.lock().changes.get_mut(&self.number) {
            held.waiting = held.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
