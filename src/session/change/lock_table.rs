//! LOCK TABLE of a client in its transaction block: the stages of a statement that is no schema change.
//!
//! It owns nothing. It keeps true: a LOCK TABLE has no turn, no record and no undo, and it is not counted as DDL. While its locks are free it
//! costs two round trips, and no query is run for it.

use super::context::StatementContext;
use super::rights::PlanningRights;
use crate::catalog::Facts;
use crate::execute::lock_table::{LockTableRun, unchanged};
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::plan::lock_table_phase;
use crate::sql::LockTable;
use std::time::Duration;

/// How long a LOCK TABLE waits before the proxy asks which sessions block it. Most waits are shorter, and the questions take snapshots.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// Runs a LOCK TABLE. The reply is not on its way yet.
pub(super) async fn run(
    context: &mut StatementContext<'_>,
    lock: &LockTable,
    rights: &PlanningRights,
) -> Result<Reply, RunError> {
    let statement = context.statement;
    let session = context.facts_without_questions();
    if !session.session.in_transaction {
        return unchanged(&mut context.run(&session), statement).await;
    }
    let run = LockTableRun::begin(&mut context.run(&session), statement).await?;
    let mut phase = lock_table_phase(statement, lock, &session);
    if let Some(reply) = run.try_at_once(&mut context.run(&session), &phase).await? {
        return Ok(reply);
    }
    context.metrics().lock_table_waits.add();
    let mut known = run.session(&mut context.run(&session)).await?;
    let mut until = (run.may_look() && !rights.are_missing()).then_some(FIRST_LOOK);
    loop {
        if let Some(reply) = run.by_attempts(&mut context.run(&known), &phase, until.take()).await? {
            return Ok(reply);
        }
        if let Some(facts) = facts(context).await? {
            phase = lock_table_phase(statement, lock, &facts);
            known = facts;
        }
    }
}

/// The facts of the relations. `None`: the role may not ask for them.
async fn facts(context: &mut StatementContext<'_>) -> Result<Option<Facts>, RunError> {
    let statement = context.statement;
    match context.facts().of(statement).await {
        Err(RunError::Server(error)) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE => {
            context.channel.roll_back_question().await?;
            Ok(None)
        }
        facts => facts.map(Some),
    }
}
