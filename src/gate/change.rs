//! A schema change that is held until somebody approves it: what may happen to it, as one pure function.
//!
//! [`transition`] takes a [`Change`] and an [`Event`] and gives the change as it is afterwards, or why the event cannot happen. It has no clock and
//! reads nothing. It keeps true, in whatever order events come:
//!
//! - A change runs only if as many people as its rule wants have approved it, or somebody has forced it, and it runs once for that.
//! - An approval by the author counts for nothing, and nobody counts twice.
//! - Another plan, other terms, and the end of its time void every approval.
//!
//! A change that its rule does not hold any more is [`State::Released`]: it runs as any other statement, and is nobody's decision.

use std::collections::BTreeSet;
use std::fmt;

/// Where a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It waits for approvals.
    Held,
    /// It may run once.
    Approved,
    Running,
    Done,
    /// It has run, and failed or was undone.
    Failed,
    Rejected,
    Cancelled,
    /// Nobody has decided or used the approval in time.
    Expired,
    /// No rule holds it any more.
    Released,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Approved => "approved",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Released => "released",
        }
    }

    /// The state of this name. `None`: there is none.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [
            Self::Held,
            Self::Approved,
            Self::Running,
            Self::Done,
            Self::Failed,
            Self::Rejected,
            Self::Cancelled,
            Self::Expired,
            Self::Released,
        ];
        all.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing more happens to the change by itself: it may be forgotten.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Rejected | Self::Cancelled | Self::Expired | Self::Released)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change, as far as decisions about it go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    state: State,
    /// The role that has sent the statement.
    author: String,
    /// How many people have to approve it.
    needs: u64,
    approvals: BTreeSet<String>,
    /// Somebody has forced it, whoever has approved it.
    forced: bool,
}

/// What happens to a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The statement was sent again.
    Sent,
    Approve {
        by: String,
    },
    Reject,
    Cancel,
    /// An operator asks for a decision anew.
    Retry,
    /// An operator lets it run without approvals.
    Force,
    /// An operator takes that back.
    Unforce,
    /// Its time is over. `waits`: a client waits for it.
    Expire {
        waits: bool,
    },
    /// Its plan has changed, or the rule that holds it. `needs`: how many people have to approve it from now on.
    Replace {
        needs: u64,
    },
    /// No rule holds it any more.
    Release,
    Start,
    /// It could not begin: it begins once more under the same approval.
    Suspend,
    Finish {
        done: bool,
    },
}

impl Event {
    /// The name of the event in the ledger.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Approve { .. } => "approve",
            Self::Reject => "reject",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Force => "force",
            Self::Unforce => "unforce",
            Self::Expire { .. } => "expire",
            Self::Replace { .. } => "replace",
            Self::Release => "release",
            Self::Start => "start",
            Self::Suspend => "suspend",
            Self::Finish { .. } => "finish",
        }
    }
}

/// Why an event cannot happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Impossible {
    /// The author approves the change.
    OwnChange,
    /// The same person approves it again.
    ApprovedBefore,
    /// The change is in a state in which the event means nothing.
    InState(State),
}

impl Change {
    /// A change that waits for its first approval. `needs`: how many people have to approve it; at least one.
    pub fn held(author: impl Into<String>, needs: u64) -> Self {
        let (author, needs) = (author.into(), needs.max(1));
        Self { state: State::Held, author, needs, approvals: BTreeSet::new(), forced: false }
    }

    /// A change as the ledger has it.
    pub fn known(state: State, author: String, needs: u64, approvals: BTreeSet<String>, forced: bool) -> Self {
        Self { state, author, needs, approvals, forced }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn author(&self) -> &str {
        &self.author
    }

    pub fn needs(&self) -> u64 {
        self.needs
    }

    /// The people whose approvals count.
    pub fn approvals(&self) -> &BTreeSet<String> {
        &self.approvals
    }

    pub fn is_forced(&self) -> bool {
        self.forced
    }

    fn in_state(&self, state: State) -> Self {
        Self { state, ..self.clone() }
    }

    /// It waits for its first approval again.
    fn anew(&self, state: State, needs: u64) -> Self {
        Self { state, needs: needs.max(1), approvals: BTreeSet::new(), forced: false, ..self.clone() }
    }
}

/// What becomes of a change by an event.
///
/// # Errors
/// The event cannot happen to the change. The change stays as it is.
pub fn transition(change: &Change, event: &Event) -> Result<Change, Impossible> {
    let impossible = Err(Impossible::InState(change.state));
    Ok(match (change.state, event) {
        (State::Held, Event::Approve { by }) => approved(change, by)?,
        // An operator may change their mind until it runs.
        (State::Held | State::Approved, Event::Reject) => change.anew(State::Rejected, change.needs),
        (State::Held | State::Approved, Event::Cancel) => change.anew(State::Cancelled, change.needs),
        (State::Held | State::Rejected | State::Cancelled | State::Expired | State::Failed, Event::Force) => {
            Change { forced: true, ..change.anew(State::Approved, change.needs) }
        }
        (State::Approved, Event::Unforce) if change.forced => change.anew(State::Held, change.needs),
        (State::Rejected | State::Cancelled | State::Expired | State::Failed, Event::Retry) => {
            change.anew(State::Held, change.needs)
        }
        // A rejection holds for the same statement until somebody takes it back, or it expires.
        (State::Cancelled | State::Expired | State::Failed | State::Done | State::Released, Event::Sent) => {
            change.anew(State::Held, change.needs)
        }
        (State::Held | State::Approved | State::Running | State::Rejected, Event::Sent) => change.clone(),
        (State::Held | State::Approved, Event::Expire { waits: true }) => change.anew(State::Held, change.needs),
        (State::Held | State::Approved | State::Rejected, Event::Expire { .. }) => {
            change.anew(State::Expired, change.needs)
        }
        (State::Held | State::Approved | State::Running, Event::Replace { needs }) => change.anew(State::Held, *needs),
        (State::Held | State::Approved, Event::Release) => change.anew(State::Released, change.needs),
        (State::Approved, Event::Start) => change.in_state(State::Running),
        (State::Running, Event::Suspend) => change.in_state(State::Approved),
        (State::Running, Event::Finish { done: true }) => change.in_state(State::Done),
        (State::Running, Event::Finish { done: false }) => change.in_state(State::Failed),
        _ => return impossible,
    })
}

fn approved(change: &Change, by: &str) -> Result<Change, Impossible> {
    if by == change.author {
        return Err(Impossible::OwnChange);
    }
    let mut next = change.clone();
    if !next.approvals.insert(by.to_owned()) {
        return Err(Impossible::ApprovedBefore);
    }
    if u64::try_from(next.approvals.len()).is_ok_and(|count| count >= next.needs) {
        next.state = State::Approved;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const AUTHOR: &str = "author";

    fn events() -> Vec<Event> {
        let people = [AUTHOR, "ann", "bob"].map(|by| Event::Approve { by: by.to_owned() });
        let others = [
            Event::Sent,
            Event::Reject,
            Event::Cancel,
            Event::Retry,
            Event::Force,
            Event::Unforce,
            Event::Expire { waits: true },
            Event::Expire { waits: false },
            Event::Replace { needs: 1 },
            Event::Replace { needs: 2 },
            Event::Release,
            Event::Start,
            Event::Suspend,
            Event::Finish { done: true },
            Event::Finish { done: false },
        ];
        people.into_iter().chain(others).collect()
    }

    /// What a history has led to, told by the events alone: the people who have approved since the last void, and whether it was forced since.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Told {
        approved: BTreeSet<String>,
        forced: bool,
        /// What was approved was begun, and has neither been put back nor ended.
        begun: bool,
        needs: u64,
    }

    impl Told {
        fn after(&self, event: &Event, from: State) -> Self {
            let none = Self { approved: BTreeSet::new(), forced: false, begun: false, needs: self.needs };
            match event {
                Event::Approve { by } if by != AUTHOR => {
                    Self { approved: self.approved.iter().chain([by]).cloned().collect(), ..self.clone() }
                }
                Event::Force => Self { forced: true, ..none },
                Event::Replace { needs } => Self { needs: *needs, ..none },
                Event::Start => Self { begun: true, ..self.clone() },
                Event::Suspend => Self { begun: false, ..self.clone() },
                Event::Finish { .. } => self.clone(),
                Event::Sent if !from.is_over() || from == State::Rejected => self.clone(),
                Event::Approve { .. } => self.clone(),
                _ => none,
            }
        }

        fn lets_run(&self) -> bool {
            self.forced || u64::try_from(self.approved.len()).unwrap() >= self.needs
        }
    }

    /// Every history of twelve events, by the states that they lead to.
    #[test]
    fn explored_to_depth_twelve() {
        let mut seen = HashSet::new();
        let mut states = HashSet::new();
        let begin = |needs| {
            let told = Told { approved: BTreeSet::new(), forced: false, begun: false, needs };
            (Change::held(AUTHOR, needs), told)
        };
        let mut layer: Vec<(Change, Told)> = vec![begin(1), begin(2)];
        for _ in 0..12 {
            let mut next = Vec::new();
            for (change, told) in layer.drain(..) {
                for event in events() {
                    let Ok(after) = transition(&change, &event) else { continue };
                    let known = told.after(&event, change.state());
                    check(&change, &event, &after, &told, &known);
                    states.insert(after.state());
                    if seen.insert((after.clone(), known.clone())) {
                        next.push((after, known));
                    }
                }
            }
            layer = next;
        }
        assert!(layer.is_empty(), "twelve events reach everything there is");
        assert_eq!(states.len(), 9, "{states:?}");
        assert!(seen.len() > 30, "{}", seen.len());
    }

    fn check(change: &Change, event: &Event, after: &Change, told: &Told, known: &Told) {
        let context = format!("{change:?} by {event:?} is {after:?}");
        if *event == Event::Start {
            assert!(told.lets_run(), "it runs unapproved: {context}");
            assert!(!told.begun, "it runs twice for one approval: {context}");
        }
        if after.state() == State::Approved {
            assert!(known.lets_run() && !known.begun, "{context}");
        }
        if matches!(after.state(), State::Running) {
            assert!(matches!(event, Event::Start | Event::Sent), "{context}");
        }
        assert!(!after.approvals().contains(AUTHOR), "{context}");
        if matches!(event, Event::Replace { .. } | Event::Expire { .. } | Event::Retry) {
            assert!(after.approvals().is_empty() && !after.is_forced(), "{context}");
            assert!(!matches!(after.state(), State::Approved | State::Running), "{context}");
        }
    }

    #[test]
    fn who_may_approve() {
        let change = Change::held(AUTHOR, 2);
        let by = |by: &str| Event::Approve { by: by.to_owned() };
        assert_eq!(transition(&change, &by(AUTHOR)), Err(Impossible::OwnChange));
        let once = transition(&change, &by("ann")).unwrap();
        assert_eq!(once.state(), State::Held);
        assert_eq!(transition(&once, &by("ann")), Err(Impossible::ApprovedBefore));
        assert_eq!(transition(&once, &Event::Start), Err(Impossible::InState(State::Held)));
        let twice = transition(&once, &by("bob")).unwrap();
        assert_eq!(twice.state(), State::Approved);
        // The author may break the glass, and everybody sees who it was.
        assert!(transition(&once, &Event::Force).unwrap().is_forced());
    }
}
