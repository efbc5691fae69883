//! A pipeline that the proxy keeps in a block of its own, where the server would see none: what it says of it then.

use super::Session;
use crate::backend::BackendLost;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;

/// Does nothing wherever it runs, and may not run in a block; newer servers refuse it amid a pipeline, too.
const REFUSED: &str = "DROP INDEX CONCURRENTLY IF EXISTS pg_temp.\"pgsluice: there is none\"";
const ITS_NAME: &str = "DROP INDEX CONCURRENTLY";

impl Session {
    /// The error that a statement may not run in a transaction block, in the server's own words for a pipeline, in its language
    /// and version. The block of ours has failed, and is ended.
    pub(super) async fn as_in_a_pipeline(&mut self, error: ServerError) -> Result<ServerError, BackendLost> {
        self.owns_block = false;
        self.eye.watch_sync = false;
        self.talk.ask_one("ROLLBACK", &[]).await?;
        let in_block = self.refusal_behind("BEGIN").await?;
        if self.talk.link.status != b'I' {
            self.talk.ask_one("ROLLBACK", &[]).await?;
        }
        let in_pipeline = self.refusal_behind("SELECT 1").await?;
        Ok(in_block.zip(in_pipeline).and_then(|words| reworded(&error, &words)).unwrap_or(error))
    }

    async fn refusal_behind(&mut self, before: &str) -> Result<Option<String>, BackendLost> {
        let mut batch = Batch::new();
        batch.statement(before, &[]);
        batch.statement(REFUSED, &[]);
        let answer = self.talk.ask(batch, None).await?;
        Ok(answer.error.map(|error| error.message().to_owned()))
    }
}

fn reworded(error: &ServerError, (in_block, in_pipeline): &(String, String)) -> Option<ServerError> {
    let (before, behind) = in_block.split_once(ITS_NAME)?;
    let name = error.message().strip_prefix(before)?.strip_suffix(behind)?;
    let message = in_pipeline.replacen(ITS_NAME, name, 1);
    Some(ServerError::new(error.restated(&[(b'M', message.as_str())], b"")))
}
