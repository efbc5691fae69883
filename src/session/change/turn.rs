//! The turn of a statement: the lanes of what it names, waited for before its facts are read.
//!
//! It owns nothing: the lanes are the [`Turn`]'s. It keeps true: whoever has waited for a lane reads the facts again; what another session
//! has under way is never reported as done.

use super::context::StatementContext;
use crate::catalog::query;
use crate::execute::RunError;
use crate::execute::take_turn::{MOST, end_turn, try_turn, wait_for_turn};
use crate::execute::turn::Turn;
use crate::lanes::lanes_of;
use crate::pg::RelationName;
use crate::plan::Plan;
use std::collections::BTreeSet;

/// The names whose lanes the statement waits for.
pub(super) fn names_of(context: &StatementContext<'_>) -> Vec<RelationName> {
    let names = query::relations_of(context.statement);
    // What cannot be said in this session's encoding is not asked for; of very many names the server would have to keep too much.
    let unasked = names.len() > MOST || context.channel.speech().is_in_private(&context.statement.text);
    if unasked { Vec::new() } else { names }
}

/// Waits for the turn. `more`: lanes besides those of what the statement names.
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
    // What the session's timeouts are, and what its transaction holds.
    let facts = context.facts().of_session().await?;
    let inside = facts.session.in_transaction && facts.session.holds;
    let patience = inside.then_some(context.config().locks.stall_budget);
    *turn = wait_for_turn(&mut context.side_run(&facts), names, &more, patience).await?;
    Ok(())
}

/// Gives the lanes back. If the backend is gone, its lanes are gone too.
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

/// Whether somebody was at work on what would be told to be done already. In a transaction no lane is had, and a transaction that holds locks
/// has not waited for its turn: now it has, for as long as for any lock.
pub(super) async fn has_waited(context: &mut StatementContext<'_>, names: &[RelationName]) -> Result<bool, RunError> {
    let session = context.facts_without_questions();
    if names.is_empty() || !try_turn(&mut context.side_run(&session), names, &[]).await?.is_busy() {
        return Ok(false);
    }
    let facts = context.facts().of_session().await?;
    let turn = wait_for_turn(&mut context.side_run(&facts), names, &[], None).await?;
    Ok(turn.is_free())
}

/// The lanes of what a plan locks and its statement does not name. None, if there are too many to hold them all.
pub(super) fn lanes_besides(plan: &Plan, turn: &Turn) -> BTreeSet<u32> {
    let lanes: BTreeSet<u32> = plan.phases.iter().flat_map(|phase| lanes_of(&phase.locks)).collect();
    let besides: BTreeSet<u32> = lanes.into_iter().filter(|oid| *oid != 0 && !turn.has(*oid)).collect();
    if besides.len() > MOST { BTreeSet::new() } else { besides }
}
