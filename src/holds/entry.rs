//! One change that is held, with what is shown to whoever decides about it.
//!
//! It is plain data. It keeps true: the texts of a change are what the log may show: no string of the client's is in them.

use crate::gate::change::{Change, State};
use crate::gate::digest::Digest;
use crate::pg::sqlstate;
use crate::report::Report;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A statement that a rule holds.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// The number of the change, if it is a new one.
    pub number: u64,
    pub digest: Digest,
    /// The digest without the plan.
    pub text: Digest,
    /// The role that has logged in (`session_user`).
    pub author: String,
    pub database: String,
    pub application: String,
    /// The address of the client, for people.
    pub client: String,
    pub session: u64,
    pub tag: String,
    /// The statement as the log shows it.
    pub statement: String,
    /// The plan, without strings of the client's.
    pub plan: String,
    pub rule: String,
    /// Why the rule matches.
    pub because: String,
    /// How many people have to approve the change.
    pub needs: u64,
    /// How long an approval, and the wait for it, count.
    pub expires: Duration,
}

/// Who has decided last, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub verb: &'static str,
    pub by: String,
    pub from: String,
    pub why: String,
    pub at: SystemTime,
}

/// A change that is or was held.
#[derive(Debug, Clone)]
pub struct Held {
    pub number: u64,
    pub digest: Digest,
    pub(super) text: Digest,
    pub change: Change,
    pub database: String,
    pub application: String,
    pub client: String,
    /// The session that has sent it last.
    pub session: u64,
    pub tag: String,
    pub statement: Arc<str>,
    pub plan: Arc<str>,
    /// How the plan differs from the one that was asked about before.
    pub difference: Option<Arc<str>>,
    pub rule: String,
    pub because: String,
    pub expires: Duration,
    /// When it was held first.
    pub since: SystemTime,
    /// When something happened to it last.
    pub changed: SystemTime,
    /// How many clients wait for it.
    pub waiting: usize,
    pub decided: Option<Decided>,
}

/// What becomes of a request, as the ledger has it.
#[derive(Debug)]
pub struct Kept {
    pub change: Change,
    pub difference: Option<String>,
    pub since: SystemTime,
    pub changed: SystemTime,
    pub waiting: usize,
    pub decided: Option<Decided>,
}

impl Held {
    /// A change as the ledger has it.
    pub fn kept(request: HoldRequest, kept: Kept) -> Self {
        let Kept { change, difference, since, changed, waiting, decided } = kept;
        let difference = difference.map(Arc::from);
        Self { change, difference, changed, waiting, decided, ..Self::new(request, since) }
    }

    pub(super) fn new(request: HoldRequest, now: SystemTime) -> Self {
        Self {
            number: request.number,
            digest: request.digest,
            text: request.text,
            change: Change::held(request.author, request.needs),
            database: request.database,
            application: request.application,
            client: request.client,
            session: request.session,
            tag: request.tag,
            statement: request.statement.into(),
            plan: request.plan.into(),
            difference: None,
            rule: request.rule,
            because: request.because,
            expires: request.expires,
            since: now,
            changed: now,
            waiting: 0,
            decided: None,
        }
    }

    /// The same text has another plan, or another rule holds it.
    pub(super) fn replace(&mut self, request: &HoldRequest) {
        if *self.plan != *request.plan {
            self.difference = Some(difference(&self.plan, &request.plan).into());
            self.plan = request.plan.as_str().into();
        }
        self.digest = request.digest;
        self.rule.clone_from(&request.rule);
        self.because.clone_from(&request.because);
        self.expires = request.expires;
        self.decided = None;
        self.sent_by(request);
    }

    /// A client has sent it.
    pub(super) fn sent_by(&mut self, request: &HoldRequest) {
        self.session = request.session;
        self.client.clone_from(&request.client);
        self.application.clone_from(&request.application);
    }

    /// When it expires. `None`: it does not.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let counts = matches!(self.change.state(), State::Held | State::Approved | State::Rejected);
        self.changed.checked_add(self.expires).filter(|_| counts)
    }

    /// Whether its time is over. A change without approvals for which a client waits has time.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        let voids = self.waiting == 0 || !self.change.approvals().is_empty() || self.change.is_forced();
        voids && self.expires_at().is_some_and(|at| at <= now)
    }

    /// Whether it may be forgotten.
    pub(super) fn may_go(&self) -> bool {
        self.change.state().is_over() && self.change.state() != State::Rejected && self.waiting == 0
    }

    /// What programs read in the DETAIL of an error: `change=12 digest=… state=held`.
    pub fn ticket(&self) -> String {
        format!("change={} digest={} state={}", self.number, self.digest, self.change.state())
    }

    /// How many approvals it has and needs, for people.
    pub fn approvals(&self) -> String {
        let names: Vec<&str> = self.change.approvals().iter().map(String::as_str).collect();
        let of = format!("{} of {}", names.len(), self.change.needs());
        if names.is_empty() { of } else { format!("{of}: {}", names.join(", ")) }
    }

    /// The error of a statement that an operator has rejected or cancelled.
    pub fn ended(&self) -> Report {
        let tag = if self.tag.is_empty() { "this statement" } else { &self.tag };
        let decided = self.decided.as_ref();
        let by = decided.map_or_else(|| "an operator".to_owned(), |decided| decided.by.clone());
        let why = decided.map(|decided| decided.why.as_str()).filter(|why| !why.is_empty());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        match self.change.state() {
            State::Cancelled => Report::error(sqlstate::QUERY_CANCELED, format!("{tag} was cancelled by {by}{why}"))
                .detail(self.ticket()),
            _ => Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("{tag} was rejected by {by}{why}"))
                .detail(self.ticket())
                .hint(format!("RETRY {} on the console of pgsluice asks for a decision anew.", self.number)),
        }
    }
}

/// The lines of a plan that are new (`+`) or gone (`-`), in their order.
fn difference(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}
