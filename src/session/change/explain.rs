//! EXPLAIN of a statement: its plan as text. The plan is made from the same facts as for a run.
//!
//! It owns nothing. It keeps true: EXPLAIN leaves no change behind.

use super::context::StatementContext;
use super::record::explain_recorded;
use super::rights::PlanningRights;
use crate::backend::BackendLost;
use crate::execute::RunError;
use crate::pg::relation::quote_literal;
use crate::plan;

/// The query that gives the lines of the statement's plan.
pub(super) async fn explain(
    context: &mut StatementContext<'_>,
    rights: &mut PlanningRights,
) -> Result<String, BackendLost> {
    let lines = match plan_in_words(context, rights).await {
        Ok(lines) => lines,
        Err(RunError::Server(error)) => format!("{}: {}", error.sqlstate(), error.message()),
        Err(RunError::Report(report)) => report.to_string(),
        Err(RunError::ClientGone | RunError::Lost) => return Err(BackendLost),
        Err(stop @ (RunError::Stale | RunError::Slow)) => stop.reason(),
    };
    let rows: Vec<String> = lines.lines().map(|line| format!("({})", quote_literal(line))).collect();
    Ok(format!("SELECT line AS \"QUERY PLAN\" FROM (VALUES {}) AS plan(line)", rows.join(", ")))
}

/// The plan of the statement as text, or the reason why it has none.
async fn plan_in_words(context: &mut StatementContext<'_>, rights: &mut PlanningRights) -> Result<String, RunError> {
    if rights.look(context).await? {
        return Ok("as written, under lock attempts: this session may not ask for what a plan needs".to_owned());
    }
    let statement = context.statement;
    let facts = context.facts().of(statement).await?;
    if let Some(continued) = explain_recorded(context, &facts).await? {
        return Ok(continued);
    }
    Ok(match plan::plan(statement, &facts, &context.limits()) {
        Ok(plan) => plan::print::to_text(&plan),
        Err(refusal) => refusal.report.to_string(),
    })
}
