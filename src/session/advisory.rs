//! A call of the client's that waits for an advisory lock. `execute/advisory.rs` waits in its place.
//!
//! It owns nothing. It keeps true: behind such a call the client's block is not followed any more. The name may be that of another function, which
//! may do anything.

use super::block::Block;
use super::reply::tag_of;
use super::run::{facts_without_questions, run_context};
use super::shared::{Shared, pid_of};
use crate::backend::ServerChannel;
use crate::execute::advisory::{self, ClientCall};
use crate::execute::context::SizeGuess;
use crate::execute::{Reply, RunError};
use crate::sql::{AdvisoryLock, Statement};

/// Waits for the lock. The reply is not on its way yet.
pub(super) async fn wait_for_lock(
    channel: &mut ServerChannel,
    block: &mut Block,
    shared: &Shared,
    (statement, lock, call): (&Statement, &AdvisoryLock, ClientCall<'_>),
    offset: usize,
) -> Result<Reply, RunError> {
    block.forget();
    let session = facts_without_questions(channel);
    let backend = pid_of(channel.backend_key());
    let context = &mut run_context(channel, shared, &session, offset, SizeGuess::Any);
    let reply = advisory::advisory_lock(context, lock, &call, backend).await?;
    block.acted(statement, tag_of(&reply));
    Ok(reply)
}
