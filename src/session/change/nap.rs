//! A nap of a statement that waits for people or for a window.
//!
//! It owns nothing. It keeps true: the wait is visible in `pg_stat_activity`, and a cancel and the end of the client end it.

use super::context::StatementContext;
use crate::execute::RunError;
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::session::transaction::fail;
use std::time::Duration;

/// Naps on the server. `why`: what the statement waits for, which the comment of the nap shows. An error: the statement is over. The client's
/// transaction has failed.
pub(super) async fn nap(context: &mut StatementContext<'_>, why: &str, time: Duration) -> Result<(), RunError> {
    let sql = nap_sql(time, &context.channel.words(why));
    let error = context.channel.nap(&sql).await?;
    if context.channel.client_gone() {
        return Err(RunError::ClientGone);
    }
    let cancelled = context.channel.take_cancelled();
    match error {
        Some(error) => Err(RunError::Server(error)),
        None if cancelled => {
            if context.channel.status() == b'T' {
                fail(context.channel).await?;
            }
            let what = "canceling statement due to user request";
            Err(RunError::Report(Report::error(sqlstate::QUERY_CANCELED, what)))
        }
        None => Ok(()),
    }
}
