//! The error of a statement that may not run in a transaction block, in the server's words for a pipeline.
//!
//! It owns nothing. It keeps true: the words are the server's own, in its language and version. The proxy keeps a pipeline that changes the
//! schema and continues in a block of its own. There the server would refuse the statement in the words for a block.

use crate::backend::{BackendLost, ServerChannel};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;

/// A statement that does nothing. It may not run in a block, and newer servers refuse it amid a pipeline, too.
const REFUSED: &str = "DROP INDEX CONCURRENTLY IF EXISTS pg_temp.\"pgsluice: there is none\"";
const ITS_NAME: &str = "DROP INDEX CONCURRENTLY";

/// The error in the words for a pipeline. The proxy's block has failed, and is ended.
pub(super) async fn in_words_for_a_pipeline(
    channel: &mut ServerChannel,
    error: ServerError,
) -> Result<ServerError, BackendLost> {
    channel.ask_one("ROLLBACK", &[]).await?;
    let in_block = refusal_behind(channel, "BEGIN").await?;
    if channel.status() != b'I' {
        channel.ask_one("ROLLBACK", &[]).await?;
    }
    let in_pipeline = refusal_behind(channel, "SELECT 1").await?;
    Ok(in_block.zip(in_pipeline).and_then(|words| reworded(&error, &words)).unwrap_or(error))
}

async fn refusal_behind(channel: &mut ServerChannel, before: &str) -> Result<Option<String>, BackendLost> {
    let mut batch = Batch::new();
    batch.statement(before, &[]);
    batch.statement(REFUSED, &[]);
    let answer = channel.ask(batch, None).await?;
    Ok(answer.error.map(|error| error.message().to_owned()))
}

fn reworded(error: &ServerError, (in_block, in_pipeline): &(String, String)) -> Option<ServerError> {
    let (before, behind) = in_block.split_once(ITS_NAME)?;
    let name = error.message().strip_prefix(before)?.strip_suffix(behind)?;
    let message = in_pipeline.replacen(ITS_NAME, name, 1);
    Some(ServerError::new(error.restated(&[(b'M', message.as_str())], b"")))
}
