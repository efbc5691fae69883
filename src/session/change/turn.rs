//! The turn of a statement: the wait for the lanes of the relations that it names, before its facts are read.
//!
//! It owns nothing: the lanes are the [`Turn`]'s. It keeps true: a statement that has waited for a lane reads the facts again. A change that
//! another session has under way is never reported as done.

use super::context::StatementContext;
use crate::catalog::query;
use crate::execute::RunError;
use crate::execute::take_turn::{MOST, end_turn, try_turn, wait_for_turn};
use crate::execute::turn::Turn;
use crate::lanes::lanes_of;
use crate::pg::RelationName;
use crate::plan::Plan;
use std::collections::BTreeSet;
use std::time::Instant;

/// The names whose lanes the statement waits for.
pub(super) fn names_of(context: &StatementContext<'_>) -> Vec<RelationName> {
    let names = query::relations_of(context.statement);
    // Names that this session's encoding cannot carry are not asked for. For very many names the server would have to hold too many locks.
    let unasked = names.len() > MOST || context.channel.speech().is_in_private(&context.statement.text);
    if unasked { Vec::new() } else { names }
}

/// Waits for the turn. `more`: lanes besides those of the relations that the statement names.
pub(super) async fn take(
    context: &mut StatementContext<'_>,
    names: &[RelationName],
    more: &BTreeSet<u32>,
    turn: &mut Turn,
) -> Result<(), RunError> {
    if names.is_empty() {
        *turn = Turn::of_nothing();
        return Ok(());
    }
    let more: Vec<u32> = more.iter().copied().collect();
    let session = context.facts_without_questions();
    *turn = try_turn(&mut context.side_run(&session), names, &more).await?;
    if !turn.is_busy() {
        return Ok(());
    }
    // These facts are the session's timeouts, and the locks that its transaction holds.
    let facts = context.facts().of_session().await?;
    let inside = facts.session.in_transaction && facts.session.holds;
    let patience = inside.then_some(context.config().locks.stall_budget);
    let begun = Instant::now();
    let waited = wait_for_turn(&mut context.side_run(&facts), names, &more, patience).await;
    context.metrics().measures.waited_in_lane(begun.elapsed());
    *turn = waited?;
    Ok(())
}

/// Releases the lanes. If the backend is gone, the server has released them.
pub(super) async fn end<T>(
    context: &mut StatementContext<'_>,
    turn: &mut Turn,
    result: Result<T, RunError>,
) -> Result<T, RunError> {
    if !matches!(result, Err(RunError::Lost)) {
        let session = context.facts_without_questions();
        end_turn(&mut context.side_run(&session), turn).await?;
    }
    result
}

/// Whether another session was at work on the relations of a statement that would be reported as done already. In a transaction the session holds
/// no lane, and a transaction that holds locks has not waited for its turn. So it waits here, for as long as it would for any lock.
pub(super) async fn has_waited(context: &mut StatementContext<'_>, names: &[RelationName]) -> Result<bool, RunError> {
    let session = context.facts_without_questions();
    if names.is_empty() || !try_turn(&mut context.side_run(&session), names, &[]).await?.is_busy() {
        return Ok(false);
    }
    let facts = context.facts().of_session().await?;
    let turn = wait_for_turn(&mut context.side_run(&facts), names, &[], None).await?;
    Ok(turn.is_free())
}

/// The lanes of the relations that a plan locks and its statement does not name. The set is empty if there are too many to hold all of them.
pub(super) fn lanes_besides(plan: &Plan, turn: &Turn) -> BTreeSet<u32> {
    let lanes: BTreeSet<u32> = plan.phases.iter().flat_map(|phase| lanes_of(&phase.locks)).collect();
    let besides: BTreeSet<u32> = lanes.into_iter().filter(|oid| *oid != 0 && !turn.has(*oid)).collect();
    if besides.len() > MOST { BTreeSet::new() } else { besides }
}
