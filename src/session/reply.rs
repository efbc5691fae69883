//! The messages that the proxy sends the client in place of the server.
//!
//! It owns nothing. It keeps true: notifications that waited for the end of a statement go before ReadyForQuery.

use crate::backend::{BackendLost, ServerChannel};
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::frame::{BACKEND_LIMIT, HEADER_LEN, Header};
use crate::wire::reply::put_ready;
use bytes::BytesMut;

/// ReadyForQuery, for a Query or Sync that the server did not see.
pub(super) fn send_ready(channel: &mut ServerChannel) {
    channel.send_notifications();
    let mut ready = BytesMut::new();
    put_ready(&mut ready, channel.status());
    channel.send_to_client(&ready);
}

/// The tags of the CommandComplete messages among the frames. EmptyQueryResponse has an empty tag.
pub(super) fn tags(mut frames: &[u8]) -> Vec<&[u8]> {
    let mut tags = Vec::new();
    while let Ok(Some(header)) = Header::read(frames, BACKEND_LIMIT)
        && let Some((frame, rest)) = frames.split_at_checked(header.total())
    {
        match header.tag {
            b'C' => tags.push(frame[HEADER_LEN..].strip_suffix(b"\0").unwrap_or_default()),
            b'I' => tags.push(&b""[..]),
            _ => {}
        }
        frames = rest;
    }
    tags
}

/// The tag of a reply.
pub(super) fn tag_of(reply: &Reply) -> &[u8] {
    tags(&reply.frames).pop().unwrap_or_default()
}

/// The client's ErrorResponse.
pub(super) fn send_error(channel: &mut ServerChannel, stop: &RunError) -> Result<(), BackendLost> {
    match stop {
        RunError::Server(error) => channel.send_to_client(&error.frame),
        RunError::Report(report) => channel.notify(report),
        RunError::Stale | RunError::Slow | RunError::Suspend(_) => {
            channel.notify(&Report::error(sqlstate::SERIALIZATION_FAILURE, stop.reason()).hint("Try again."));
        }
        RunError::ClientGone | RunError::Lost => return Err(BackendLost),
    }
    Ok(())
}
