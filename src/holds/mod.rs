//! The schema changes of this proxy that are held, and what operators hold by hand.
//!
//! [`Holds`] owns both, in memory: they end with the process. With a ledger ([`Keeper`]) it is what this proxy knows of it: the ledger decides, and the
//! rows here follow. It keeps true:
//!
//! - What becomes of a change is decided by [`crate::gate::change::transition`] alone. Every step leaves an event ([`event`]).
//! - The same change ([`Digest`]) is held once, however many clients send it. The same text with another plan takes the place of the one before,
//!   and needs every approval anew.
//! - An approval lets one statement run: the one that has taken its [`Passage`].
//! - The table has a bound. What is over is forgotten first, the oldest first.
//!
//! - A [`Passage`] and a [`Waiting`] end when they are dropped, so a session that ends in any way leaves nothing behind.
//!
//! - `entry`: one change. `table`: all of them. `verbs`: what operators do. `keeper`: what a ledger does.
//! - `scope`: HOLD ALL, HOLD DATABASE and HOLD RELATION.

mod actor;
mod entry;
mod event;
mod keeper;
mod scope;
mod table;
mod verbs;

pub use actor::{Actor, HoldVerb};
pub use entry::{Decided, Held, HoldRequest, Kept};
pub use keeper::{Elsewhere, EndedChange, Keeper, KeptJoin, LedgerState, Told};
pub use scope::{Scope, ScopeHold};

use crate::gate::change::{Event, State};
use crate::gate::digest::Digest;
use crate::report::Report;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;
use table::{Table, full};

/// The changes that are held, and what operators hold by hand.
#[derive(Debug, Default)]
pub struct Holds {
    table: Mutex<Table>,
    /// The ledger that decides, if there is one.
    keeper: OnceLock<Arc<dyn Keeper>>,
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
    /// The ledger cannot be asked, so that nothing is allowed that a rule holds.
    Lost,
}

impl Holds {
    /// Whatever becomes of changes is the ledger's to decide from now on.
    pub fn keep_in(&self, keeper: Arc<dyn Keeper>) {
        // There is one ledger for as long as the proxy runs.
        let _ = self.keeper.set(keeper);
    }

    /// The ledger, if there is one.
    pub fn keeper(&self) -> Option<&Arc<dyn Keeper>> {
        self.keeper.get()
    }

    /// A client has sent a statement that a rule holds. `passage`: what the statement has run under so far; its plan was made anew since.
    ///
    /// # Errors
    /// More changes are held than the table has room for.
    pub async fn join(self: &Arc<Self>, request: HoldRequest, passage: Option<Passage>) -> Result<Joined, Report> {
        let Some(keeper) = self.keeper.get() else { return self.join_here(request, passage, SystemTime::now()) };
        let own = passage.as_ref().map(Passage::number);
        let Some(joined) = keeper.join(&request, own).await else { return Ok(Joined::Lost) };
        if let Some(passage) = passage {
            if matches!(joined, KeptJoin::Go(_)) && joined.held().number == passage.number() {
                return Ok(Joined::Go(passage));
            }
            passage.give_up();
        }
        self.lock().put(joined.held().clone());
        Ok(match joined {
            KeptJoin::Go(held) => Joined::Go(Passage::new(self, held.number)),
            KeptJoin::Wait(held, is_new) => Joined::Wait(Waiting::new(self, &held, is_new)),
            KeptJoin::Rejected(held) => Joined::Rejected(held),
        })
    }

    /// A statement begins that was approved before its transaction was suspended, whatever its plan is there. `text`: its digest without the plan.
    pub async fn resume(self: &Arc<Self>, text: &Digest) -> Option<Passage> {
        let Some(keeper) = self.keeper.get() else { return self.resume_here(text) };
        keeper.resume(text).await.map(|number| Passage::new(self, number))
    }

    /// A statement without a ledger is joined with its change.
    fn join_here(
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
                let is_new = held.change.state() == State::Held && held.changed >= now;
                Joined::Wait(Waiting::new(self, &held, is_new))
            }
        })
    }

    fn resume_here(self: &Arc<Self>, text: &Digest) -> Option<Passage> {
        let mut table = self.lock();
        let number = table.by_text.get(text).copied()?;
        table.step(number, &Event::Start, None, SystemTime::now()).then(|| Passage::new(self, number))
    }

    /// The change that runs under this passage needs its approvals once more, before its last strong lock. `None`: it does not run any more.
    pub async fn ask_again(self: &Arc<Self>, passage: Passage) -> Option<Waiting> {
        let number = passage.number();
        let held = match self.keeper.get() {
            Some(keeper) => {
                // Without an answer the passage ends, and the change has failed.
                let held = keeper.ask_again(number).await?;
                self.lock().put(held.clone());
                held
            }
            None => self.lock().ask_again(number, SystemTime::now())?,
        };
        passage.give_up();
        Some(Waiting::new(self, &held, true))
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
        // The ledger has its own clock.
        if self.keeper.get().is_none() {
            table.sweep(now);
        }
        table.changes.values().cloned().collect()
    }

    /// No rule holds the change any more.
    pub fn release(&self, number: u64, now: SystemTime) {
        self.happens(number, Event::Release, now);
    }

    /// The client has cancelled its statement. The change is over, unless another client waits for it, too.
    pub fn withdraw(&self, number: u64, now: SystemTime) {
        if let Some(keeper) = self.keeper.get() {
            return keeper.tell(Told::Withdrawn(number));
        }
        let mut table = self.lock();
        if table.changes.get(&number).is_some_and(|held| held.waiting <= 1) {
            table.step(number, &Event::Cancel, None, now);
        }
    }

    fn happens(&self, number: u64, event: Event, now: SystemTime) {
        match self.keeper.get() {
            Some(keeper) => keeper.tell(Told::Happens(number, event)),
            None => drop(self.lock().step(number, &event, None, now)),
        }
    }

    /// The ledger has these changes. They take the place of the rows of the same numbers.
    pub fn follow(&self, changes: Vec<Held>) {
        let mut table = self.lock();
        changes.into_iter().for_each(|held| table.put(held));
        table.forget();
    }

    /// The ledger has these scopes. `false`: they are the ones that were known.
    pub fn follow_scopes(&self, scopes: Vec<ScopeHold>) -> bool {
        let mut table = self.lock();
        let known = |new: &ScopeHold| table.scopes.iter().find(|old| old.scope == new.scope && old.since == new.since);
        let scopes: Vec<ScopeHold> = scopes.into_iter().map(|new| known(&new).cloned().unwrap_or(new)).collect();
        let differ = table.scopes != scopes;
        table.scopes = scopes;
        differ
    }

    /// The changes that run in other proxies and were never held.
    pub fn elsewhere(&self) -> Vec<Elsewhere> {
        self.lock().elsewhere.clone()
    }

    pub fn follow_elsewhere(&self, elsewhere: Vec<Elsewhere>) {
        self.lock().elsewhere = elsewhere;
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
            self.holds.happens(self.number, end, SystemTime::now());
        }
    }
}

/// A client that waits for a decision.
#[derive(Debug)]
pub struct Waiting {
    holds: Arc<Holds>,
    number: u64,
    digest: Digest,
    is_new: bool,
}

impl Waiting {
    fn new(holds: &Arc<Holds>, held: &Held, is_new: bool) -> Self {
        Self { holds: Arc::clone(holds), number: held.number, digest: held.digest, is_new }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// The change as it is now. `None`: it is forgotten.
    pub fn held(&self) -> Option<Held> {
        self.holds.get(self.number)
    }

    /// Whether the change is held since this client has sent it, and was not before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this is what the client has sent: the same plan.
    pub fn is_of(&self, held: &Held) -> bool {
        held.digest == self.digest
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(keeper) = self.holds.keeper.get() {
            return keeper.tell(Told::Left(self.number));
        }
        if let Some(held) = self.holds.lock().changes.get_mut(&self.number) {
            held.waiting = held.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
