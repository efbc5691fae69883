//! Several statements of a string in one round trip.
//!
//! A migration's string is often a dozen brief changes in one transaction. Each by itself would take a savepoint, the timeouts and a round trip.
//! Together they share these. The file owns nothing. It keeps true: all statements of a batch are done, or none is. Then the statement that was
//! in the way runs by itself, with its usual error or wait.

use super::history::TryHistory;
use super::log::ChangeLog;
use super::rights::PlanningRights;
use crate::backend::ServerChannel;
use crate::execute::RunError;
use crate::execute::optimistic::{BatchOutcome, NotDoneReason, OptimisticTry};
use crate::plan::Limits;
use crate::plan::PhaseKind;
use crate::plan::block_locks::{BlockLocks, makes_relations};
use crate::plan::optimistic::OptimisticPlan;
use crate::session::run::{RunOptions, facts_without_questions, new_run};
use crate::session::statement::acts;
use crate::sql::{Class, Statement};
use bytes::BytesMut;

/// Statements of one batch. The answers to all of them wait for the last one.
const MOST: usize = 64;

/// How a batch of the first statements has ended.
pub(in crate::session) enum BatchTryOutcome {
    /// So many are done. These frames are the client's, and are not on their way yet.
    Done(usize, BytesMut),
    /// None is done. This one has failed.
    Alone(usize),
    /// There are not several statements for a batch.
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
    match new_run(channel, log.shared(), &session, RunOptions::default()).optimistic_tries(tries).await {
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

/// The statements up to the first that needs more than an optimistic try, and the locks that the block holds after them. `held`: the locks before
/// them.
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
        // Whatever the statement changes, the block goes on. The condition of the next one is asked behind it.
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
        }
        None if acts(one.statement) => log.relayed(one.statement),
        None => {}
    }
}

/// Whether the hold budget applies to it, as it does to the others.
fn is_brief(optimistic: &OptimisticPlan) -> bool {
    optimistic.plan.phases.iter().all(|phase| phase.kind == PhaseKind::Brief)
}
