//! What a ledger does for the gate: [`Keeper`].
//!
//! It owns nothing. It keeps true: a question that the ledger cannot answer has the answer `None`, and whoever asks then allows nothing.

use super::actor::{Actor, HoldVerb};
use super::entry::{Held, HoldRequest};
use super::scope::{Scope, ScopeHold};
use crate::gate::change::Event;
use crate::gate::digest::Digest;
use crate::report::Report;
use async_trait::async_trait;
use std::fmt;
use std::time::SystemTime;

/// A ledger that several proxies share.
#[async_trait]
pub trait Keeper: fmt::Debug + Send + Sync {
    /// A client has sent a statement that a rule holds. `own`: the change under which it has run so far. `None`: the ledger cannot be asked.
    async fn join(&self, request: &HoldRequest, own: Option<u64>) -> Option<KeptJoin>;

    /// A statement begins that was approved before its transaction was suspended. `text`: its digest without the plan. The value is the change's number.
    async fn resume(&self, text: &Digest) -> Option<u64>;

    /// Does a verb. The value is what the ledger says of the change then.
    ///
    /// # Errors
    /// The verb cannot be done, or the ledger cannot be asked.
    async fn act(&self, number: u64, verb: HoldVerb, actor: &Actor<'_>) -> Result<String, Report>;

    /// Holds what is in the scope.
    ///
    /// # Errors
    /// It is held already, or the ledger cannot be asked.
    async fn hold(&self, hold: &ScopeHold) -> Result<(), Report>;

    /// Holds what is in the scope no longer.
    ///
    /// # Errors
    /// It was not held, or the ledger cannot be asked.
    async fn let_go(&self, scope: &Scope, actor: &Actor<'_>) -> Result<(), Report>;

    /// Reads what has changed since, so that what is shown is new.
    async fn refresh(&self);

    /// Takes something down, as soon as the ledger can be asked.
    fn tell(&self, told: Told);

    /// How the ledger does.
    fn state(&self) -> LedgerState;
}

/// What a statement may do that a rule holds.
#[derive(Debug)]
pub enum KeptJoin {
    Go(Box<Held>),
    /// It waits. The flag: it is held since now.
    Wait(Box<Held>, bool),
    Rejected(Box<Held>),
}

impl KeptJoin {
    /// The change.
    pub fn held(&self) -> &Held {
        match self {
            Self::Go(held) | Self::Wait(held, _) | Self::Rejected(held) => held,
        }
    }
}

/// What a proxy tells its ledger.
#[derive(Debug, Clone)]
pub enum Told {
    /// An event of a change: it has ended, is put back, or no rule holds it any more.
    Happens(u64, Event),
    /// A client waits for a change no longer.
    Left(u64),
    /// The client has cancelled its statement. It still counts as one that waits.
    Withdrawn(u64),
    /// A schema change has ended that no rule has held.
    Ended(Box<EndedChange>),
    /// Something that was done on the console, and is about no change.
    Verb { what: String, by: String, from: String, why: String },
}

/// A schema change that has ended.
#[derive(Debug, Clone)]
pub struct EndedChange {
    pub number: u64,
    pub author: String,
    pub database: String,
    pub client: String,
    /// The statement as the log shows it.
    pub statement: String,
    /// Why it has failed. `None`: it has not.
    pub failure: Option<String>,
}

/// A schema change that runs in another proxy, and that no rule has held.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    pub number: u64,
    pub author: String,
    pub database: String,
    pub statement: String,
    pub since: SystemTime,
    pub phase: Option<i32>,
    pub phases: Option<i32>,
    pub waiting: Option<String>,
}

/// How a ledger does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerState {
    /// It answers.
    Kept,
    /// It cannot be asked, since then and for this reason: nothing is allowed that a rule holds.
    Lost(SystemTime, String),
}
