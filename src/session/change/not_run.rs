//! A statement that a rule of the gate does not let run.
//!
//! It owns nothing. It keeps true: the statement is counted and logged, and the client's transaction fails, as by an error of the server.

use super::context::StatementContext;
use crate::execute::RunError;
use crate::gate::Decision;
use crate::report::Report;
use crate::session::transaction::fail;

/// Ends the statement by an error. It is the error of the result; the other one says that the backend is lost.
pub(super) async fn not_run(
    context: &mut StatementContext<'_>,
    report: Report,
    decision: &Decision,
) -> Result<RunError, RunError> {
    context.metrics().ddl_refused.add();
    context.log.not_run(context.statement, decision);
    if context.channel.status() == b'T' {
        fail(context.channel).await?;
    }
    Ok(RunError::Report(report))
}
