//! The condition of a window, asked on the client's own backend.
//!
//! It owns nothing. It keeps true: the question can change nothing and leaves nothing. Outside a transaction it is one that only reads. In the client's
//! transaction it stands in a savepoint that only reads, and its locks are given back. It does not take long, and the names in it mean the same in
//! every session, whatever its `search_path` is.

use super::context::ExecutionContext;
use super::outcome::RunError;
use super::timing::{SETTLE, set_local};
use crate::gate::ConditionAnswer;
use crate::pg::sqlstate;
use crate::wire::message::Batch;
use std::time::Duration;

/// The longest that a condition may take, with its waits for locks.
const TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Asks a condition.
///
/// # Errors
/// The client's statement was cancelled meanwhile, or the backend is lost. A condition that fails is an answer.
pub async fn ask_condition(context: &mut ExecutionContext<'_>, condition: &str) -> Result<ConditionAnswer, RunError> {
    let inside = context.in_transaction();
    let mut batch = Batch::new();
    if inside {
        batch.statement(SETTLE, &[]);
        batch.savepoint();
        batch.statement("SET LOCAL transaction_read_only = on", &[]);
        // In a transaction the statistics views show what they have shown before.
        batch.statement("SELECT pg_catalog.pg_stat_clear_snapshot()", &[]);
    } else {
        batch.statement("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", &[]);
    }
    batch.statement("SET LOCAL search_path = pg_catalog, pg_temp", &[]);
    batch.statement(&set_local("lock_timeout", LOCK_TIMEOUT), &[]);
    batch.statement(&set_local("statement_timeout", TIMEOUT), &[]);
    if context.facts().session.server_version < 110_000 {
        // Only the first statement after a change of the transaction's state starts the clock of the timeout.
        batch.statement("SAVEPOINT pgsluice_condition", &[]);
    }
    // The line break ends a comment at the end of the condition.
    let question =
        format!("/* pgsluice: the condition of a window */ SELECT CASE WHEN (\n{condition}\n) THEN 1 ELSE 0 END");
    batch.statement(&question, &[]);
    if inside {
        batch.undo_savepoint();
    } else {
        batch.statement("COMMIT", &[]);
    }
    let answer = context.channel_mut().ask(batch, None).await?;
    let error = match answer.ok() {
        Ok(answer) => {
            let is_true = answer.rows.last().and_then(|row| row.first()?.as_deref()) == Some("1");
            return Ok(if is_true { ConditionAnswer::True } else { ConditionAnswer::NotTrue });
        }
        Err(error) => error,
    };
    if context.channel().client_gone() {
        return Err(RunError::ClientGone);
    }
    context.rollback_attempt().await?;
    let is_cancel = error.sqlstate() == sqlstate::QUERY_CANCELED
        && (context.channel().take_cancelled() || error.message().contains("user request"));
    if is_cancel {
        return Err(context.give_up_block(RunError::Server(error)).await);
    }
    Ok(ConditionAnswer::Failed(match error.sqlstate() {
        sqlstate::LOCK_NOT_AVAILABLE => "it waits for a lock".to_owned(),
        sqlstate::QUERY_CANCELED => format!("it takes longer than {} s", TIMEOUT.as_secs()),
        _ => error.message().to_owned(),
    }))
}
