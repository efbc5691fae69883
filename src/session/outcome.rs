//! What attending to a client's frame comes to.
//!
//! It owns nothing. It keeps true: a part that attends to a frame does not end the session itself, but says why the session ends.

use crate::backend::{BackendLost, ServerChannel};
use crate::relay::Event;
use crate::report::Report;

/// What becomes of a frame that was attended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameOutcome {
    /// It goes to the server as it came.
    Pass,
    /// It was answered, or has gone its way already.
    Handled,
}

/// Why a session ends.
#[derive(Debug)]
pub(super) enum SessionEnd {
    Event(Event),
    /// The client is refused something, and the error could not be put in its place among the server's answers.
    Refused(Box<Report>),
    /// The proxy goes away, and the session is at rest or is to end at once.
    Drained,
    /// The proxy stops, and the work at hand has not come to its end in time.
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

/// How a statement that the client has sent has ended for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementOutcome {
    Done,
    /// The client has the error; the rest of its string or pipeline is skipped.
    Failed,
}

/// Waits until the backend has answered all that it owes. False: the frame that is attended to is gone. It went into a copy, which it made
/// fail.
pub(super) async fn settle(channel: &mut ServerChannel) -> Result<bool, SessionEnd> {
    match channel.settle(false).await {
        Event::Settled => Ok(channel.owed_is_certain()),
        other => Err(SessionEnd::Event(other)),
    }
}
