//! The block that the proxy opens on the server to keep an implicit transaction together, and the answers to transaction control inside it.
//!
//! It owns nothing: [`super::block::Block`] knows whose block is open. It keeps true: BEGIN, COMMIT and the like get the answers that the
//! server would give in an implicit transaction.

use super::block::Block;
use super::outcome::StatementOutcome;
use super::reply::tags;
use crate::backend::{BackendLost, ServerChannel};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::sql::{Statement, TransactionControl};
use crate::wire::message::Batch;

/// Opens the block. `false`: the server refuses it.
pub(super) async fn begin(channel: &mut ServerChannel) -> Result<bool, BackendLost> {
    Ok(channel.ask_one("BEGIN", &[]).await?.error.is_none())
}

/// Makes the transaction block fail, as an error of the server would.
pub(super) async fn fail(channel: &mut ServerChannel) -> Result<(), BackendLost> {
    channel.ask_one("ROLLBACK TO SAVEPOINT \"pgsluice: the statement before was refused\"", &[]).await?;
    Ok(())
}

/// The client's BEGIN in the proxy's block. The implicit transaction becomes an explicit one. BEGIN would give one notice only, that a
/// transaction is in progress already. That transaction is the proxy's, so the client does not get the notice.
pub(super) async fn begin_quietly(
    channel: &mut ServerChannel,
    statement: &Statement,
) -> Result<StatementOutcome, BackendLost> {
    let mut batch = Batch::new();
    batch.statement(&statement.text, &[]);
    let answer = channel.ask(batch, Some(0)).await?;
    match answer.error {
        None => {
            channel.send_to_client(&answer.completion);
            Ok(StatementOutcome::Done)
        }
        Some(error) => {
            channel.send_to_client(&error.frame);
            Ok(StatementOutcome::Failed)
        }
    }
}

/// Runs the client's transaction control in place of its portal, which is gone. `false`: it has failed, and the client has the error.
pub(super) async fn run_alone(
    channel: &mut ServerChannel,
    block: &mut Block,
    statement: &Statement,
) -> Result<bool, BackendLost> {
    let mut batch = Batch::new();
    batch.statement(&statement.text, &[]);
    let answer = channel.ask(batch, Some(0)).await?;
    if let Some(error) = answer.error {
        channel.send_to_client(&error.frame);
        return Ok(false);
    }
    block.acted(statement, tags(&answer.completion).pop().unwrap_or_default());
    channel.send_to_client(&answer.completion);
    Ok(true)
}

/// The error that savepoints and AND CHAIN get outside a block. It ends the implicit transaction, too.
pub(super) async fn refuse_outside_block(
    channel: &mut ServerChannel,
    control: TransactionControl,
    statement: &Statement,
) -> Result<(), BackendLost> {
    let word = statement.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let word = match (control, word.as_str()) {
        (TransactionControl::Commit { .. }, _) => "COMMIT AND CHAIN",
        (TransactionControl::Rollback { .. }, _) => "ROLLBACK AND CHAIN",
        (_, "RELEASE") => "RELEASE SAVEPOINT",
        (_, "ROLLBACK") => "ROLLBACK TO SAVEPOINT",
        _ => "SAVEPOINT",
    };
    channel.notify(&Report::error(
        sqlstate::NO_ACTIVE_SQL_TRANSACTION,
        format!("{word} can only be used in transaction blocks"),
    ));
    channel.ask_one("ROLLBACK", &[]).await?;
    Ok(())
}

/// The WARNING that COMMIT and ROLLBACK get outside a block.
pub(super) fn no_transaction() -> Report {
    Report::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress")
}
