//! How things end in a run: a whole statement, one lock attempt, one undo.
//!
//! It owns the types alone. It keeps true that a reason for the log holds no value of a row.

use crate::backend::BackendLost;
use crate::report::Report;
use crate::wire::error_response::ServerError;
use crate::wire::frame::{BACKEND_LIMIT, Header};
use bytes::BytesMut;

/// Why a statement did not come to its end.
#[derive(Debug)]
pub enum RunError {
    /// The server's own error, in the client's terms.
    Server(ServerError),
    /// The proxy's.
    Report(Report),
    /// As one brief step it takes too long, and was taken back: it is to be planned as if its table were large.
    Slow,
    /// The client left without a goodbye.
    ClientGone,
    /// The backend is gone.
    Lost,
    /// Nothing is done: it had to wait, or what it names has been changed, so that its plan is to be made anew.
    Stale,
}

impl RunError {
    /// For the log. Of the server's error the code alone: its message may hold a row's value.
    pub fn reason(&self) -> String {
        match self {
            Self::Server(error) => format!("{} from the server", error.sqlstate()),
            Self::Report(report) => format!("{}: {}", report.sqlstate, report.message),
            Self::Slow => "it outlived hold_budget".to_owned(),
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

/// What the client is to be sent: notices, then CommandComplete.
#[derive(Debug, Default)]
pub struct Reply {
    pub frames: BytesMut,
}

impl Reply {
    /// The frames without CommandComplete.
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

/// How far a phase was that is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UndoneAfter {
    /// It failed by itself.
    Failed,
    /// It was done, as the plan's phase of this place, and a later one failed.
    Done(usize),
}

/// How one try of a phase ended.
pub(super) enum AttemptOutcome {
    Done,
    /// The lock was not to be had.
    Locked,
    /// `LOCK TABLE` itself is refused, for another reason than a lock.
    Unlockable,
    /// It outlived its hold budget.
    Slow,
    Failed(RunError),
}

/// How it ended to bring something back.
pub(super) enum UndoOutcome {
    Undone,
    /// It never will be; a WARNING has said so.
    Reported,
    /// Not now; why.
    NotNow(String),
}

/// What [`super::run::Basis::While`] stops with.
pub(super) const STALE: &str = "what the plan rests on has been changed";
