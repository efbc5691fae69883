//! A client's pipeline, where the server has to be asked what it makes of it.
//!
//! A pipeline that changes the schema and goes on is kept in a block of the proxy's own: what the server refuses in a pipeline is then to
//! be refused in the words for one. And a name that was given twice means what the server says.

use super::prepared::PreparedStatement;
use super::simple::TextVerdict;
use super::statement::{acts, characters, is_of};
use super::{FrameOutcome, Session};
use crate::backend::BackendLost;
use crate::relay::Event;
use crate::sql::Class;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::sync::Arc;

/// Does nothing wherever it runs, and may not run in a block; newer servers refuse it amid a pipeline, too.
const REFUSED: &str = "DROP INDEX CONCURRENTLY IF EXISTS pg_temp.\"pgsluice: there is none\"";
const ITS_NAME: &str = "DROP INDEX CONCURRENTLY";

impl Session {
    /// What a portal's name means where its Parse or Bind may have been refused, or may have given a known name another meaning.
    /// `None`: nothing to act on.
    pub(super) async fn as_the_server_has_it(
        &mut self,
        bound: Arc<PreparedStatement>,
        portal: &str,
    ) -> Result<Option<Arc<PreparedStatement>>, BackendLost> {
        let name = portal.as_bytes();
        if self.interceptor.is_sure(name) || self.interceptor.is_fresh(name) {
            return Ok(Some(bound));
        }
        let Some(text) = self.channel.portal_text(portal).await?.flatten() else { return Ok(None) };
        let found = if is_of(&bound.statement, &text) {
            Some(Arc::clone(&bound))
        } else if let TextVerdict::Act(mut statements) = self.judge_text(text.as_bytes()).await {
            let speech = self.channel.speech();
            let one = statements.pop().filter(|_| statements.is_empty());
            // The types of its parameters are not known: such a call is the server's to serve.
            let one = one.filter(|one| !matches!(one.class, Class::AdvisoryLock(_)));
            one.map(|statement| {
                let offset = characters(&text.as_bytes()[..statement.range.start]);
                Arc::new(PreparedStatement { statement, offset, types: Vec::new(), speech })
            })
        } else {
            None
        };
        self.interceptor.correct(&bound, found.as_ref());
        Ok(found.filter(|found| acts(&found.statement)))
    }

    /// The client's Sync ends the pipeline that the proxy keeps in a block.
    pub(super) async fn sync(&mut self) -> FrameOutcome {
        self.channel.pass_frame();
        self.interceptor.synced();
        match self.channel.settle(true).await {
            Event::Settled => {}
            other => return self.end(other).await,
        }
        if std::mem::take(&mut self.owns_block) && self.close_block().await.is_err() {
            return self.end(Event::BackendClosed).await;
        }
        self.interceptor.watch_sync = false;
        self.look_at_block();
        self.send_ready();
        FrameOutcome::Continue
    }

    /// The error that a statement may not run in a transaction block, in the server's own words for a pipeline, in its language
    /// and version. The block of ours has failed, and is ended.
    pub(super) async fn as_in_a_pipeline(&mut self, error: ServerError) -> Result<ServerError, BackendLost> {
        self.owns_block = false;
        self.interceptor.watch_sync = false;
        self.channel.ask_one("ROLLBACK", &[]).await?;
        let in_block = self.refusal_behind("BEGIN").await?;
        if self.channel.status() != b'I' {
            self.channel.ask_one("ROLLBACK", &[]).await?;
        }
        let in_pipeline = self.refusal_behind("SELECT 1").await?;
        Ok(in_block.zip(in_pipeline).and_then(|words| reworded(&error, &words)).unwrap_or(error))
    }

    async fn refusal_behind(&mut self, before: &str) -> Result<Option<String>, BackendLost> {
        let mut batch = Batch::new();
        batch.statement(before, &[]);
        batch.statement(REFUSED, &[]);
        let answer = self.channel.ask(batch, None).await?;
        Ok(answer.error.map(|error| error.message().to_owned()))
    }
}

fn reworded(error: &ServerError, (in_block, in_pipeline): &(String, String)) -> Option<ServerError> {
    let (before, behind) = in_block.split_once(ITS_NAME)?;
    let name = error.message().strip_prefix(before)?.strip_suffix(behind)?;
    let message = in_pipeline.replacen(ITS_NAME, name, 1);
    Some(ServerError::new(error.restated(&[(b'M', message.as_str())], b"")))
}
