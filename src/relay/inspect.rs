//! What the relay asks about the client's frames.
//!
//! The file owns the trait [`Inspect`], and the answers for a relay that passes nothing but the data of a COPY. Invariant: the relay shows each frame at most once to it, in the order of the client.

/// The relay's action for a frontend's frame, chosen by the frame's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameAction {
    /// The frame passes.
    Pass,
    /// The whole frame is shown to [`Inspect::stops_at`].
    Open,
    /// The relay stops before the frame.
    Stop,
}

/// Which of the frontend's frames are opened, and which stop the relay.
pub trait Inspect {
    fn action_for(&self, tag: u8) -> FrameAction;
    /// Whether the relay stops at this frame.
    fn stops_at(&mut self, tag: u8, body: &[u8]) -> bool;
    /// Whether the relay stops at a frame that should be opened but is larger than [`Inspect::limit`]. Otherwise the frame
    /// passes unopened.
    fn oversize(&mut self, tag: u8, body: u32) -> bool;
    /// The largest body (bytes) of a frame of this tag that is collected in order to be opened.
    fn limit(&self, tag: u8) -> u32;
    /// The most bytes of answers that are logged in an [`super::AnswerLog`]. 0: none is logged. The relay asks after each opened frame that
    /// passes, before the frame goes to the server.
    fn answers_limit(&self) -> u32 {
        0
    }
    /// The server has reported that no transaction block is open, and nothing is on its way in either direction. So the log ends.
    fn block_has_ended(&mut self) {}
    /// Whether the backend is still needed when the client has left. The pump then stops with [`super::Event::FrontendGone`].
    fn outlives_client(&self) -> bool {
        false
    }
}

/// Passes the client's data while a COPY runs; any other message waits.
pub(super) struct CopyOnly {
    /// The server waits for data. If the client leaves then, the server must be told.
    pub(super) copying: bool,
}

impl Inspect for CopyOnly {
    fn action_for(&self, tag: u8) -> FrameAction {
        if matches!(tag, b'd' | b'c' | b'f') { FrameAction::Pass } else { FrameAction::Stop }
    }

    fn stops_at(&mut self, _: u8, _: &[u8]) -> bool {
        true
    }

    fn oversize(&mut self, _: u8, _: u32) -> bool {
        true
    }

    fn limit(&self, _: u8) -> u32 {
        0
    }

    fn outlives_client(&self) -> bool {
        !self.copying
    }
}
