//! The client's pipeline, up to the message that the proxy attends to.
//!
//! It owns nothing: the channel asks amid the pipeline, and [`Block`] knows which block is open. It keeps true: several statements of a
//! pipeline are one implicit transaction. If the proxy puts a Sync of its own between them, a transaction block keeps them together.

use super::block::Block;
use crate::backend::{BackendLost, SealOutcome, ServerChannel};
use crate::sql::TransactionControl;

/// Whether this Execute is one of several in an implicit transaction, which must stay one.
pub(super) async fn needs_block(channel: &mut ServerChannel, block: &Block) -> bool {
    match block.control() {
        _ if block.is_proxys() => false,
        Some(TransactionControl::Begin) => false,
        // Only the server knows whether a block is open now. Its answer to BEGIN tells.
        Some(_) => true,
        None if channel.status() != b'I' => false,
        None => channel.executes() > 0 || channel.tag_after_next().await != Some(b'S'),
    }
}

/// Ends the pipeline so far by a Sync of the proxy's ([`ServerChannel::seal`]). `begin`: a BEGIN goes before it. `false`: the client has an error.
pub(super) async fn seal(
    channel: &mut ServerChannel,
    block: &mut Block,
    portal: Option<&str>,
    begin: bool,
) -> Result<bool, BackendLost> {
    let outcome = channel.seal(portal, begin).await?;
    if outcome == SealOutcome::Failed {
        return Ok(false);
    }
    if begin {
        block.opened(outcome == SealOutcome::Sealed);
    }
    Ok(true)
}

/// Lets the server answer all messages that came in the pipeline without its Sync. `false`: the client has an error.
pub(super) async fn catch_up(channel: &mut ServerChannel, block: &mut Block) -> Result<bool, BackendLost> {
    Ok(channel.portal_text("").await?.is_some() && seal(channel, block, None, false).await?)
}
