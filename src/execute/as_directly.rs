//! The server's own error, where a statement done in phases is wrong in two ways and its phases met the other one first.
//!
//! The server looks at the catalogue before it looks at rows, and at rows in an order of its own. So a statement that has failed is run
//! once more as it was written, where what its phases left has been undone: under locks that are had at once, for no longer than others
//! may be made to wait, and rolled back whatever it comes to. Only what has failed pays for it. What the server has not told in that time
//! (it reads a large table) is told as the phases met it: `docs/forms/constraints.md` lists what that may be.

use crate::execute::context::Context;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::server_error::is_lock_failure;
use crate::execute::state::RunState;
use crate::execute::timing::set_local;
use crate::lanes::lock_sql;
use crate::plan::{Plan, Step};
use crate::sql::form::Form;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::Duration;

/// How often the locks are asked for.
const TRIES: usize = 5;

/// What the client is told in place of `stop`, perhaps.
pub(super) async fn error_of(
    context: &mut Context<'_>,
    state: &RunState,
    plan: &Plan,
    stop: RunError,
) -> Result<RunError, RunError> {
    let undone = !context.in_transaction() && !state.has_pending_undo();
    let asks = may_be_wrong_twice(plan) && undone;
    match &stop {
        RunError::Server(error) if asks && is_of_the_statement(error) && !context.channel().client_gone() => {}
        _ => return Ok(stop),
    }
    for _ in 0..TRIES {
        let Some(error) = once_more(context, plan).await? else { break };
        if is_lock_failure(&error) {
            context.nap_to_undo(context.config().locks.poll).await?;
            continue;
        }
        if is_of_the_statement(&error) {
            let reply = Reply::default();
            return Ok(context.failed(&Step::as_written(&plan.statement), error, &reply));
        }
        break;
    }
    Ok(stop)
}

async fn once_more(context: &mut Context<'_>, plan: &Plan) -> Result<Option<ServerError>, RunError> {
    let locks = &context.config().locks;
    let mut batch = Batch::new();
    batch.statement("BEGIN", &[]);
    batch.statement(&set_local("lock_timeout", locks.fallback_timeout), &[]);
    let own = Duration::from_millis(context.facts().session.statement_timeout_ms);
    let time = if own.is_zero() { locks.stall_budget } else { locks.stall_budget.min(own) };
    batch.statement(&set_local("statement_timeout", time), &[]);
    let locks_sql = plan.phases.last().map(|phase| lock_sql(&phase.locks, false)).unwrap_or_default();
    locks_sql.nowait.iter().chain(&locks_sql.queued).for_each(|sql| batch.statement(sql, &[]));
    batch.statement(&plan.statement, &[]);
    // With an error the locks are gone already; without one they go at once.
    batch.statement("ROLLBACK", &[]);
    let answer = context.channel_mut().ask(batch, None).await?;
    if answer.error.is_some() {
        context.channel_mut().ask_one("ROLLBACK", &[]).await?;
    }
    Ok(answer.error)
}

/// Whether there is more than one thing that its rows or the catalogue may refuse.
fn may_be_wrong_twice(plan: &Plan) -> bool {
    let in_phases = plan.tag == "ALTER TABLE" && plan.phases.len() > 1;
    let single = |form: &Form| {
        matches!(
            form,
            Form::AddCheck
                | Form::AddForeignKey
                | Form::AddNotNullConstraint
                | Form::AddUnique
                | Form::SetNotNull
                | Form::EnforceConstraint
                | Form::DetachPartition
        )
    };
    in_phases && (plan.forms.len() > 1 || !plan.forms.iter().all(single))
}

/// Not of the time, the load, or of who was in the way.
fn is_of_the_statement(error: &ServerError) -> bool {
    !["08", "25", "40", "53", "55", "57", "58", "XX"].iter().any(|class| error.sqlstate().starts_with(class))
}
