//! An Execute of transaction control, while statements were done ahead of the client's transaction.
//!
//! It owns nothing. It keeps true: no COMMIT reaches the server before what is ahead is made ready for it. The portal may be of a statement that
//! was prepared long ago, so the server is asked for its text.

use crate::backend::ServerChannel;
use crate::execute::RunError;
use crate::session::ahead::AheadRun;
use crate::session::change::SchemaChanges;
use crate::session::interceptor::Interceptor;
use crate::session::outcome::{FrameOutcome, SessionEnd, StatementOutcome, settle};
use crate::session::prepared::as_kept;
use crate::session::reply::send_error;
use crate::session::shared::Shared;
use crate::session::text::statements_of;
use crate::session::{pipeline, transaction};
use crate::sql::{Class, Statement, TransactionControl};
use crate::wire::message;

/// Attends to an Execute of a portal that the proxy does not act on.
pub(super) async fn attend(
    channel: &mut ServerChannel,
    interceptor: &mut Interceptor,
    changes: &mut SchemaChanges,
    shared: &Shared,
) -> Result<FrameOutcome, SessionEnd> {
    let Some(portal) = channel.peek_frame().and_then(|(_, body)| message::execute(body)) else {
        return Ok(FrameOutcome::Pass);
    };
    let portal = String::from_utf8_lossy(as_kept(portal)).into_owned();
    if channel.is_skipping() || !channel.owed_is_certain() {
        return Ok(FrameOutcome::Pass);
    }
    if !settle(channel).await? {
        return Ok(FrameOutcome::Handled);
    }
    // In a failed transaction the server answers no question. Only ROLLBACK and COMMIT end it, and both roll it back.
    if channel.status() == b'E' {
        return in_failed(channel, interceptor, changes, shared).await;
    }
    let Some(text) = channel.portal_text(&portal).await?.flatten() else { return Ok(FrameOutcome::Pass) };
    let one = statements_of(channel, shared, text.as_bytes()).await.and_then(|mut statements| statements.pop());
    let Some(statement @ Statement { class: Class::Transaction(control), .. }) = &one else {
        return Ok(FrameOutcome::Pass);
    };
    run(channel, interceptor, changes, shared, *control, statement).await
}

/// Lets the server answer an Execute in a failed transaction.
async fn in_failed(
    channel: &mut ServerChannel,
    interceptor: &mut Interceptor,
    changes: &mut SchemaChanges,
    shared: &Shared,
) -> Result<FrameOutcome, SessionEnd> {
    channel.pass_frame();
    let block = interceptor.block_mut();
    if !pipeline::seal(channel, block, None, false).await? {
        channel.skip_to_sync().await?;
        return Ok(FrameOutcome::Handled);
    }
    if channel.status() == b'I' {
        AheadRun { channel, block, changes, shared }.ended(false).await?;
    }
    Ok(FrameOutcome::Handled)
}

/// Runs transaction control in place of its portal's Execute.
pub(super) async fn run(
    channel: &mut ServerChannel,
    interceptor: &mut Interceptor,
    changes: &mut SchemaChanges,
    shared: &Shared,
    control: TransactionControl,
    statement: &Statement,
) -> Result<FrameOutcome, SessionEnd> {
    let block = interceptor.block_mut();
    if !pipeline::seal(channel, block, None, false).await? {
        channel.pass_frame();
        channel.skip_to_sync().await?;
        return Ok(FrameOutcome::Handled);
    }
    let mut parts = AheadRun { channel, block, changes, shared };
    let before = match parts.before_control(control, statement).await {
        Ok(before) => before,
        Err(stop @ (RunError::Lost | RunError::ClientGone)) => {
            return Err(send_error(parts.channel, &stop)
                .err()
                .map_or_else(SessionEnd::without_frame, SessionEnd::from));
        }
        Err(stop) => {
            send_error(parts.channel, &stop)?;
            None
        }
    };
    let Some(before) = before else {
        channel.take_frame();
        channel.skip_to_sync().await?;
        return Ok(FrameOutcome::Handled);
    };
    let done = if before.rolled_back() {
        parts.channel.take_frame();
        transaction::run_alone(parts.channel, parts.block, statement).await?
    } else {
        if let Some((_, body)) = parts.channel.peek_frame() {
            parts.block.keeper_mut().passes_execute(body);
        }
        parts.channel.pass_frame();
        pipeline::seal(parts.channel, parts.block, None, false).await?
    };
    let outcome = if done { StatementOutcome::Done } else { StatementOutcome::Failed };
    parts.behind_control(before, outcome).await?;
    if !done {
        channel.skip_to_sync().await?;
    } else if channel.status() == b'I' {
        // What follows in the pipeline is another transaction.
        channel.set_executes(0);
    }
    Ok(FrameOutcome::Handled)
}
