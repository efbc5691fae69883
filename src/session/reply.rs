//! The messages that the proxy sends the client in place of the server.
//!
//! It owns nothing. It keeps true: notifications that waited for the end of a statement go before ReadyForQuery.

use crate::backend::{BackendLost, ServerChannel};
use crate::execute::RunError;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::reply::put_ready;
use bytes::BytesMut;

/// ReadyForQuery, for a Query or Sync that the server did not see.
pub(super) fn send_ready(channel: &mut ServerChannel) {
    channel.send_notifications();
    let mut ready = BytesMut::new();
    put_ready(&mut ready, channel.status());
    channel.send_to_client(&ready);
}

/// The client's ErrorResponse.
pub(super) fn send_error(channel: &mut ServerChannel, stop: &RunError) -> Result<(), BackendLost> {
    match stop {
        RunError::Server(error) => channel.send_to_client(&error.frame),
        RunError::Report(report) => channel.notify(report),
        RunError::Stale | RunError::Slow => {
            channel.notify(&Report::error(sqlstate::SERIALIZATION_FAILURE, stop.reason()).hint("Try again."));
        }
        RunError::ClientGone | RunError::Lost => return Err(BackendLost),
    }
    Ok(())
}
