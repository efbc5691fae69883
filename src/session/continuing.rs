//! The schema changes that go on if their clients leave, so that the same statement of another session can join them.
//!
//! [`Continuing`] owns the table of them. It keeps true: a change is in the table exactly as long as its [`ContinuingPlace`] lives. Whoever has joined a
//! change gets one outcome, also if the session of the change ends in another way than by its own code.

use crate::execute::{Reply, RunError};
use crate::gate::digest::Digest;
use crate::registry::ChangeEntry;
use crate::report::Report;
use crate::session::reply::tag_of;
use crate::wire::error_response::ServerError;
use crate::wire::speech::Speech;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What tells one statement from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatementIdentity {
    pub(super) digest: Digest,
    /// The encodings of the session. An error has the words of one session's encoding.
    pub(super) speech: Speech,
}

/// How a change has ended, for those who have joined it.
#[derive(Debug, Clone)]
pub(super) enum RunOutcome {
    /// It is done; the tag.
    Done(Vec<u8>),
    Server(ServerError),
    Report(Report),
    /// Its session has ended before it was over.
    Unknown,
}

impl RunOutcome {
    /// The outcome of a run.
    pub(super) fn of(result: Result<&Reply, &RunError>) -> Self {
        match result {
            Ok(reply) => Self::Done(tag_of(reply).to_vec()),
            Err(RunError::Server(error)) => Self::Server(error.clone()),
            Err(RunError::Report(report)) => Self::Report(report.clone()),
            Err(_) => Self::Unknown,
        }
    }
}

/// A change that goes on if its client leaves.
#[derive(Debug)]
pub(super) struct ContinuingRun {
    identity: StatementIdentity,
    role: String,
    database: String,
    text: String,
    /// Characters of the client's string before the statement, for error positions.
    offset: usize,
    change: Arc<ChangeEntry>,
    outcome: OnceLock<RunOutcome>,
}

impl ContinuingRun {
    /// `offset`: characters of the client's string before the statement.
    pub(super) fn new(
        identity: StatementIdentity,
        (role, database): (&str, &str),
        (text, offset): (&str, usize),
        change: Arc<ChangeEntry>,
    ) -> Self {
        let (role, database, text) = (role.to_owned(), database.to_owned(), text.to_owned());
        Self { identity, role, database, text, offset, change, outcome: OnceLock::new() }
    }

    /// The change as the registry has it.
    pub(super) fn change(&self) -> &ChangeEntry {
        &self.change
    }

    /// How the change has ended, for the same statement at this place of its client's string. `None`: it goes on.
    pub(super) fn outcome_for(&self, text: &str, offset: usize) -> Option<RunOutcome> {
        Some(match self.outcome.get()? {
            // Comments and blanks are no part of the identity, so the position may be another one.
            RunOutcome::Server(error) => {
                let place = |position: usize| Some((position + offset).saturating_sub(self.offset));
                let place = |position| place(position).filter(|_| text == self.text);
                RunOutcome::Server(ServerError::new(error.with_position(place)))
            }
            outcome => outcome.clone(),
        })
    }
}

/// The changes of a proxy that go on if their clients leave.
#[derive(Debug, Default)]
pub(super) struct Continuing {
    /// There are few: each has a backend of its own at work.
    runs: Mutex<Vec<Arc<ContinuingRun>>>,
}

impl Continuing {
    /// Enters a change.
    pub(super) fn enter(self: &Arc<Self>, run: ContinuingRun) -> ContinuingPlace {
        let run = Arc::new(run);
        self.runs().push(Arc::clone(&run));
        ContinuingPlace { table: Arc::clone(self), run }
    }

    /// Whether a client of this role and database has left a change that goes on.
    pub(super) fn has_left(&self, role: &str, database: &str) -> bool {
        let runs = self.runs();
        runs.iter().any(|run| run.change.client_has_left() && run.role == role && run.database == database)
    }

    /// The change of this identity whose client has left.
    pub(super) fn left(&self, identity: &StatementIdentity) -> Option<Arc<ContinuingRun>> {
        let runs = self.runs();
        runs.iter().find(|run| run.change.client_has_left() && run.identity == *identity).map(Arc::clone)
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Arc<ContinuingRun>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a change in the table, until it is dropped.
#[derive(Debug)]
pub(super) struct ContinuingPlace {
    table: Arc<Continuing>,
    run: Arc<ContinuingRun>,
}

impl ContinuingPlace {
    /// The change is over. Returns whether its client has left.
    pub(super) fn end(self, outcome: RunOutcome) -> bool {
        let _ = self.run.outcome.set(outcome);
        self.run.change.client_has_left()
    }
}

impl Drop for ContinuingPlace {
    fn drop(&mut self) {
        let _ = self.run.outcome.set(RunOutcome::Unknown);
        self.table.runs().retain(|run| !Arc::ptr_eq(run, &self.run));
    }
}
