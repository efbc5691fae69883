//! The outcomes of a run: how a statement, a lock attempt or an undo ends.
//!
//! This file owns the types only. It keeps true that the text of a reason in the log holds no value of a row.

use crate::backend::BackendLost;
use crate::plan::LockNeed;
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::frame::{BACKEND_LIMIT, Header};
use bytes::BytesMut;

/// Why a statement did not complete.
#[derive(Debug)]
pub enum RunError {
    /// The server's own error, in the terms of the client's statement.
    Server(ServerError),
    /// An error that the proxy reports itself.
    Report(Report),
    /// The statement took too long as one brief step and was rolled back. It must be planned as if its table were large.
    Slow,
    /// The client closed its connection without a Terminate message.
    ClientGone,
    /// The connection to the backend is lost.
    Lost,
    /// Nothing was done: the client's transaction is to be suspended first.
    Suspend(Suspend),
    /// Nothing was done: the statement would have to wait, or a relation that it names has changed. Its plan must be made again.
    Stale,
}

/// Why the client's transaction is to be suspended before a statement can go on.
#[derive(Debug)]
pub enum Suspend {
    /// The statement would make the application wait in the transaction, and may be done ahead of it.
    WouldStall,
    /// The statement waits for a lock, and meanwhile others wait for the transaction.
    LockedOut,
    /// The statement waits for a session that waits for the transaction.
    Deadlock(Box<Deadlock>),
}

/// A statement waits for a session that waits for the client's transaction. The transaction has not failed yet.
#[derive(Debug)]
pub struct Deadlock {
    /// The error that the client gets if the transaction cannot be run again.
    pub report: Report,
    /// The locks that the statement needs.
    pub locks: Vec<LockNeed>,
}

impl RunError {
    /// Returns the reason for the log. Of a server error it holds the SQLSTATE only, because the message may hold a value of a row.
    pub fn reason(&self) -> String {
        match self {
            Self::Server(error) => format!("{} from the server", error.sqlstate()),
            Self::Report(report) => format!("{}: {}", report.sqlstate, report.message),
            Self::Suspend(Suspend::WouldStall) => {
                "it would make the application wait in the client's transaction".to_owned()
            }
            Self::Suspend(Suspend::LockedOut) => {
                "its lock is not to be had while the transaction holds locks of its own".to_owned()
            }
            Self::Suspend(Suspend::Deadlock(deadlock)) => format!("{}: a deadlock", deadlock.report.sqlstate),
            Self::Slow => "it took longer than hold_budget".to_owned(),
            Self::ClientGone => "the client left".to_owned(),
            Self::Lost => "the server closed the connection".to_owned(),
            Self::Stale => "its plan is out of date".to_owned(),
        }
    }
}

impl From<BackendLost> for RunError {
    fn from(_: BackendLost) -> Self {
        Self::Lost
    }
}

/// The frames that the client gets as the reply: notices, then CommandComplete.
#[derive(Debug, Default)]
pub struct Reply {
    pub frames: BytesMut,
}

impl Reply {
    /// Returns the frames without CommandComplete.
    pub fn notices(&self) -> BytesMut {
        let mut notices = BytesMut::new();
        let mut rest = &self.frames[..];
        while let Ok(Some(header)) = Header::read(rest, BACKEND_LIMIT)
            && let Some((frame, after)) = rest.split_at_checked(header.total())
        {
            if header.tag != b'C' {
                notices.extend_from_slice(frame);
            }
            rest = after;
        }
        notices
    }
}

/// How far a phase was when it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UndoneAfter {
    /// The phase itself failed.
    Failed,
    /// The phase at this position of the plan was done, and a later one failed.
    Done(usize),
}

/// How one attempt of a phase ended.
pub(super) enum AttemptOutcome {
    Done,
    /// A lock was not available.
    Locked,
    /// The server refused `LOCK TABLE` for another reason than a lock.
    Unlockable,
    /// The attempt took longer than its hold budget.
    Slow,
    Failed(RunError),
}

/// How an undo ended.
pub(super) enum UndoOutcome {
    Undone,
    /// The undo failed for good. A WARNING has reported it.
    Reported,
    /// The undo is not possible now, for this reason.
    NotNow(String),
}

/// The error of an assertion that [`super::run::Basis::While`] puts before a phase.
pub(super) const STALE: &str = "what the plan rests on has been changed";
