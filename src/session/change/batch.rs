//! Several statements of a string in one round trip.
//!
//! A migration's string is often a dozen brief changes in one transaction. Each of them alone would need a savepoint, the timeouts and a round
//! trip. Together they share these. The file owns nothing. It keeps true: all of the statements are done, or none is. If none is, the statement
//! that failed then runs by itself, so that its error or its wait is the same as without a batch.

use super::ended::ended_at_once;
use super::history::TryHistory;
use super::log::ChangeLog;
use super::rights::PlanningRights;
use crate::backend::ServerChannel;
use crate::execute::RunError;
use crate::execute::context::SizeGuess;
use crate::execute::optimistic::{BatchOutcome, NotDoneReason, OptimisticTry, optimistic_tries};
use crate::plan::Limits;
use crate::plan::PhaseKind;
use crate::plan::block_locks::{BlockLocks, makes_relations};
use crate::plan::optimistic::OptimisticPlan;
use crate::session::run::{facts_without_questions, run_context};
use crate::session::statement::acts;
use crate::sql::{Class, Statement};
use bytes::BytesMut;

/// The most statements in a batch. The server's answers to all of them wait for the last one.
pub(super) const MOST: usize = 64;

/// The result of a try of the first statements of a run.
pub(in crate::session) enum BatchTryOutcome {
    /// So many statements are done. The client's messages for them are not on their way yet.
    Done(usize, BytesMut),
    /// No statement is done. The one at this place must run by itself.
    Alone(usize),
    /// There are not several statements for one try.
    No,
}

/// Does all of the statements at once, in the block that is under way. An error: the block has failed.
pub(super) async fn run_together(
    log: &ChangeLog,
    history: &mut TryHistory,
    channel: &mut ServerChannel,
    tries: &[OptimisticTry<'_>],
) -> Result<BatchTryOutcome, RunError> {
    if tries.len() < 2 || tries.iter().all(|one| one.optimistic.is_none()) {
        return Ok(BatchTryOutcome::No);
    }
    let session = facts_without_questions(channel);
    let context = &mut run_context(channel, log.shared(), &session, 0, SizeGuess::Any);
    match optimistic_tries(context, tries).await {
        Ok(BatchOutcome::Done(frames)) => {
            tries.iter().for_each(|one| note(log, one));
            Ok(BatchTryOutcome::Done(tries.len(), frames))
        }
        Ok(BatchOutcome::Failed { at, why }) => {
            let one = tries.get(at).and_then(|one| Some((one.statement, one.optimistic.as_ref()?)));
            match (why, one) {
                (NotDoneReason::ConditionFailed, Some((_, plan))) => history.remember_miss(plan),
                (NotDoneReason::Slow, Some((statement, _))) => history.remember_slow(statement),
                _ => {}
            }
            Ok(BatchTryOutcome::Alone(at))
        }
        Err(stop) => {
            if let Some(first) = tries.iter().find_map(|one| one.optimistic.as_ref()) {
                log.failed(&first.plan, &stop);
            }
            Err(stop)
        }
    }
}

/// The statements up to the first that needs more than an optimistic try, and the locks that the block holds after them. `held`: the locks
/// before them.
pub(super) fn tries<'s>(
    history: &TryHistory,
    rights: &PlanningRights,
    channel: &ServerChannel,
    run: &'s [Statement],
    mut held: BlockLocks,
    limits: &Limits,
) -> (Vec<OptimisticTry<'s>>, BlockLocks) {
    let mut tries = Vec::new();
    for statement in run.iter().take(MOST) {
        let Class::Ddl(ddl) = &statement.class else { break };
        let optimistic = match acts(statement) {
            false if !makes_relations(ddl) => break,
            true if !held.suffices(statement, limits) => {
                match history.optimistic_plan(rights, channel, statement, limits).filter(is_brief) {
                    Some(plan) => Some(plan),
                    None => break,
                }
            }
            true if !held.is_brief(statement) => break,
            _ => None,
        };
        // The block continues, whatever the statement changes. The condition of the next statement is checked after this statement.
        let _ = held.done(statement, optimistic.as_ref());
        tries.push(OptimisticTry { statement, optimistic });
    }
    (tries, held)
}

fn note(log: &ChangeLog, one: &OptimisticTry<'_>) {
    match &one.optimistic {
        Some(optimistic) => {
            log.count(one.statement);
            log.done_at_once(one.statement, &optimistic.plan);
            ended_at_once(log, one.statement);
        }
        None if acts(one.statement) => {
            log.relayed(one.statement);
            ended_at_once(log, one.statement);
        }
        None => {}
    }
}

/// Whether the statement is brief, so that the hold budget of the batch is also its own.
fn is_brief(optimistic: &OptimisticPlan) -> bool {
    optimistic.plan.phases.iter().all(|phase| phase.kind == PhaseKind::Brief)
}
