//! The server's own error for a statement that is wrong in two ways, if its phases met the other error first.
//!
//! The server checks the catalogue before it checks rows, and it reads rows in an order of its own. So a statement that has failed, and
//! whose phases have been undone, runs once more as it was written. This run takes its locks without a wait, takes no longer than the stall
//! budget, and is always rolled back. Only failed statements pay for it. If the server finds no error in that time, because it reads a
//! large table, the client gets the error of the phases: `docs/forms/constraints.md` lists these cases.
//!
//! This file owns no state. It keeps true that the extra run changes nothing.

use crate::execute::context::ExecutionContext;
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

/// How many times the extra run tries to get its locks.
const TRIES: usize = 5;

/// Returns the error that the client gets: the server's own if it differs from `stop`, otherwise `stop`.
pub(super) async fn error_of(
    context: &mut ExecutionContext<'_>,
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

/// Runs the statement as it was written and rolls it back. Returns its error, if there is one.
async fn once_more(context: &mut ExecutionContext<'_>, plan: &Plan) -> Result<Option<ServerError>, RunError> {
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
    // An error has released the locks already. Without an error this ROLLBACK releases them at once.
    batch.statement("ROLLBACK", &[]);
    let answer = context.channel_mut().ask(batch, None).await?;
    if answer.error.is_some() {
        context.channel_mut().ask_one("ROLLBACK", &[]).await?;
    }
    Ok(answer.error)
}

/// Whether the statement was run in phases and has more than one check that rows or the catalogue may fail.
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

/// Whether the error is about the statement itself, and not about a timeout, the load or a blocker.
fn is_of_the_statement(error: &ServerError) -> bool {
    !["08", "25", "40", "53", "55", "57", "58", "XX"].iter().any(|class| error.sqlstate().starts_with(class))
}
