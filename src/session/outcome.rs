//! The results of attending to a client's frame.
//!
//! It owns nothing. It keeps true: a part that attends to a frame does not end the session itself. It returns the reason for the end.

use crate::backend::{BackendLost, ServerChannel};
use crate::relay::Event;
use crate::report::Report;

/// The result for a frame that was attended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameOutcome {
    /// The frame goes to the server as it came.
    Pass,
    /// The frame was answered, or has been sent on already.
    Handled,
}

/// Why a session ends.
#[derive(Debug)]
pub(super) enum SessionEnd {
    Event(Event),
    /// A request of the client's is refused, and the error could not be put in its place among the server's answers.
    Refused(Box<Report>),
    /// The proxy stops, and the session is idle or is to end at once.
    Drained,
    /// An operator has ended the session.
    Killed,
    /// The proxy stops, and the session's work has not ended in time.
    TakesTooLong,
}

impl SessionEnd {
    pub(super) fn refused(report: Report) -> Self {
        Self::Refused(Box::new(report))
    }

    /// The frame to attend to is not there.
    pub(super) fn without_frame() -> Self {
        Self::Event(Event::FrontendGone)
    }
}

impl From<BackendLost> for SessionEnd {
    fn from(_: BackendLost) -> Self {
        Self::Event(Event::BackendClosed)
    }
}

/// How a statement of the client's has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementOutcome {
    Done,
    /// The client has the error; the rest of its string or pipeline is skipped.
    Failed,
}

/// Waits until the backend has given all answers that it owes. `false`: the frame to attend to is gone. It went to the server amid a COPY,
/// and made the COPY fail.
pub(super) async fn settle(channel: &mut ServerChannel) -> Result<bool, SessionEnd> {
    match channel.settle(false).await {
        Event::Settled => Ok(channel.owed_is_certain()),
        other => Err(SessionEnd::Event(other)),
    }
}
