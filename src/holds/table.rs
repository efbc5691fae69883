//! The table of held changes, and what happens to its rows.
//!
//! [`Table`] owns the rows and finds them by number, by digest and by text. It keeps true: a row changes by [`transition`] alone, and every change of a
//! row leaves its event.

use super::entry::{Decided, Held, HoldRequest};
use super::event;
use super::keeper::Elsewhere;
use super::scope::ScopeHold;
use crate::gate::change::{Event, State, transition};
use crate::gate::digest::Digest;
use crate::pg::sqlstate;
use crate::report::Report;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

/// The most changes that are kept. One takes a few kB.
const MOST: usize = 10_000;
/// How often old changes are looked for while statements come.
const SWEEP: Duration = Duration::from_secs(1);
/// The most changes that are kept after they are over.
const MOST_OVER: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) changes: BTreeMap<u64, Held>,
    by_digest: HashMap<Digest, u64>,
    /// The change of a text, whatever its plan is.
    pub(super) by_text: HashMap<Digest, u64>,
    pub(super) scopes: Vec<ScopeHold>,
    /// What runs in other proxies, as the ledger says.
    pub(super) elsewhere: Vec<Elsewhere>,
    swept: Option<SystemTime>,
}

impl Table {
    /// Finds the change of a request, or enters it. `own`: the change under which the statement has run so far.
    pub(super) fn enter(&mut self, request: HoldRequest, own: Option<u64>, now: SystemTime) -> Result<u64, Report> {
        let open = |number: &u64| {
            let state = self.changes.get(number).map(|held| held.change.state());
            own == Some(*number) || matches!(state, Some(State::Held | State::Approved))
        };
        let same = self.by_digest.get(&request.digest).copied();
        let text = own.or_else(|| self.by_text.get(&request.text).copied()).filter(open);
        if let Some(own) = own.filter(|own| same.is_some_and(|same| same != *own)) {
            // What has run so far was rolled back, and goes on as another change.
            self.step(own, &Event::Finish { done: false }, None, now);
        }
        let Some(number) = same.or(text) else { return self.insert(request, now) };
        let Some(held) = self.changes.get_mut(&number) else { return self.insert(request, now) };
        let terms_differ = held.rule != request.rule || held.change.needs() != request.needs;
        let runs = held.change.state() == State::Running && own != Some(number);
        if same.is_none() || (terms_differ && !runs && held.change.state() != State::Rejected) {
            self.by_digest.remove(&held.digest);
            let before = held.change.state();
            held.replace(&request);
            self.by_digest.insert(request.digest, number);
            if before.is_over() {
                self.step(number, &Event::Sent, None, now);
            }
            self.step(number, &Event::Replace { needs: request.needs }, None, now);
            return Ok(number);
        }
        held.sent_by(&request);
        if held.change.state().is_over() && held.change.state() != State::Rejected {
            held.since = now;
            self.step(number, &Event::Sent, None, now);
        }
        Ok(number)
    }

    fn insert(&mut self, request: HoldRequest, now: SystemTime) -> Result<u64, Report> {
        if self.changes.len() >= MOST {
            return Err(full());
        }
        let held = Held::new(request, now);
        let number = held.number;
        self.by_digest.insert(held.digest, number);
        self.by_text.insert(held.text, number);
        event::note("held", &held, None);
        self.changes.insert(number, held);
        Ok(number)
    }

    /// Lets an event happen to a change. `decided`: who has done it, and why. `false`: it cannot happen.
    pub(super) fn step(&mut self, number: u64, event: &Event, decided: Option<Decided>, now: SystemTime) -> bool {
        let Some(held) = self.changes.get_mut(&number) else { return false };
        let Ok(change) = transition(&held.change, event) else { return false };
        held.change = change;
        held.changed = now;
        let what = match event {
            Event::Sent => "held",
            Event::Replace { .. } => "held anew, as its plan or its rule has changed",
            Event::Expire { .. } => "expired",
            Event::Release => "released",
            Event::Start => "started",
            Event::Suspend => "put back, to begin once more",
            Event::Finish { done: true } => "done",
            Event::Finish { done: false } => "failed",
            Event::Cancel if decided.is_none() => "withdrawn by its client",
            _ => "decided",
        };
        if decided.is_some() {
            held.decided = decided;
        }
        event::note(what, held, held.decided.as_ref().filter(|_| what != "held"));
        true
    }

    /// The ledger has this change. Its event is logged here, too, if it is new.
    pub(super) fn put(&mut self, held: Held) {
        let number = held.number;
        let state = held.change.state();
        let before = self.changes.get(&number);
        let decided = held.decided.as_ref();
        let same = before.is_some_and(|before| {
            before.change == held.change && before.digest == held.digest && before.decided == held.decided
        });
        if !same {
            let is_new = before.is_some_and(|before| before.decided != held.decided);
            let what = if is_new && decided.is_some() { "decided" } else { state.as_str() };
            event::note(what, &held, decided.filter(|_| state != State::Held || is_new));
        }
        if let Some(before) = before
            && before.digest != held.digest
            && self.by_digest.get(&before.digest) == Some(&number)
        {
            self.by_digest.remove(&before.digest);
        }
        self.by_digest.insert(held.digest, number);
        self.by_text.insert(held.text, number);
        self.changes.insert(number, held);
    }

    /// Sweeps once a second, and when there is no room.
    pub(super) fn sweep_if_due(&mut self, now: SystemTime) {
        let since = self.swept.map(|swept| now.duration_since(swept).unwrap_or_default());
        if since.is_none_or(|since| since >= SWEEP) || self.changes.len() >= MOST {
            self.sweep(now);
        }
    }

    /// Voids approvals that are too old, and forgets what is over.
    pub(super) fn sweep(&mut self, now: SystemTime) {
        self.swept = Some(now);
        let old = self.changes.values().filter(|held| held.is_old(now)).map(|held| (held.number, held.waiting > 0));
        let old: Vec<(u64, bool)> = old.collect();
        for (number, waits) in old {
            self.step(number, &Event::Expire { waits }, None, now);
        }
        self.forget();
    }

    /// Forgets what is over, the oldest first, beyond the bounds.
    pub(super) fn forget(&mut self) {
        let over: Vec<u64> = self.changes.values().filter(|held| held.may_go()).map(|held| held.number).collect();
        // There is to be room for one more.
        let keep = MOST_OVER.min((MOST - 1).saturating_sub(self.changes.len().saturating_sub(over.len())));
        for number in over.iter().take(over.len().saturating_sub(keep)) {
            let Some(held) = self.changes.remove(number) else { continue };
            for (numbers, key) in [(&mut self.by_digest, held.digest), (&mut self.by_text, held.text)] {
                if numbers.get(&key) == Some(number) {
                    numbers.remove(&key);
                }
            }
        }
    }
}

/// The error of a statement for which there is no room.
pub(super) fn full() -> Report {
    Report::error(sqlstate::CONFIGURATION_LIMIT_EXCEEDED, format!("more than {MOST} schema changes are held"))
        .hint("Operators decide about them on the console: SHOW CHANGES, APPROVE, REJECT.")
}
