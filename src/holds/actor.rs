//! Who does something with a change that is held, and what: [`Actor`] and [`HoldVerb`].
//!
//! It is plain data.

use crate::gate::change::Event;

/// Who acts on a change, and why.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// The user of the console.
    pub user: &'a str,
    /// The address, for people.
    pub from: &'a str,
    /// The reason that the user has given.
    pub why: Option<&'a str>,
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldVerb {
    Approve,
    Reject,
    Cancel,
    Retry,
    Force,
    Unforce,
}

impl HoldVerb {
    pub fn tag(self) -> &'static str {
        match self {
            Self::Approve => "APPROVE",
            Self::Reject => "REJECT",
            Self::Cancel => "CANCEL",
            Self::Retry => "RETRY",
            Self::Force => "FORCE",
            Self::Unforce => "UNFORCE",
        }
    }

    /// The name of the verb's event in the ledger.
    pub fn word(self) -> &'static str {
        self.event("").word()
    }

    pub(super) fn event(self, by: &str) -> Event {
        match self {
            Self::Approve => Event::Approve { by: by.to_owned() },
            Self::Reject => Event::Reject,
            Self::Cancel => Event::Cancel,
            Self::Retry => Event::Retry,
            Self::Force => Event::Force,
            Self::Unforce => Event::Unforce,
        }
    }
}
