//! Several statements of a string in one round trip.
//!
//! A migration's string is often a dozen brief changes, in one transaction. Each by itself would be a savepoint, the timeouts and a round
//! trip; together they share these. Invariant: all are done or none is; which one was in the way then goes by itself, so that its error, or
//! its wait, is what it always is.

use super::Session;
use super::statement::acts;
use crate::backend::BackendLost;
use crate::execute::RunError;
use crate::execute::optimistic::{BatchOutcome, NotDoneReason, OptimisticTry};
use crate::plan::PhaseKind;
use crate::plan::block_locks::{BlockLocks, makes_relations};
use crate::plan::optimistic::OptimisticPlan;
use crate::sql::{Class, Statement};

/// The server's answers to these wait for the last of them.
const MOST: usize = 64;

/// What became of the first statements of a run.
pub(super) enum BatchTryOutcome {
    /// So many are done, and the client has their answers on the way.
    Done(usize),
    /// None is; this one is in the way of the others.
    Alone(usize),
    /// There are not several.
    No,
    /// The client has an error, and the block has failed.
    Failed,
}

impl Session {
    /// Does as many of the statements as can be done at once, in the block that is under way.
    pub(super) async fn together(&mut self, run: &[Statement]) -> Result<BatchTryOutcome, BackendLost> {
        let Some(held) = self.interceptor.block.as_ref().map(|block| block.held.clone()) else {
            return Ok(BatchTryOutcome::No);
        };
        let (tries, held) = self.tries(run, held);
        if tries.len() < 2 || tries.iter().all(|one| one.optimistic.is_none()) {
            return Ok(BatchTryOutcome::No);
        }
        let session = self.unasked();
        match self.execution(&session, 0).optimistic_tries(&tries).await {
            Ok(BatchOutcome::Done(frames)) => {
                tries.iter().for_each(|one| self.note(one));
                if let Some(block) = &mut self.interceptor.block {
                    block.held = held;
                }
                self.channel.send_to_client(&frames);
                Ok(BatchTryOutcome::Done(tries.len()))
            }
            Ok(BatchOutcome::Failed { at, why }) => {
                let one = tries.get(at).filter(|one| one.optimistic.is_some());
                match (why, one.and_then(|one| one.optimistic.as_ref())) {
                    (NotDoneReason::ConditionFailed, Some(first)) => self.remember_miss(first),
                    (NotDoneReason::Slow, Some(_)) => one.into_iter().for_each(|one| self.remember_slow(one.statement)),
                    _ => {}
                }
                Ok(BatchTryOutcome::Alone(at))
            }
            Err(stop) => self.given_up(&tries, stop),
        }
    }

    fn given_up(&mut self, tries: &[OptimisticTry<'_>], stop: RunError) -> Result<BatchTryOutcome, BackendLost> {
        if let Some(first) = tries.iter().find_map(|one| one.optimistic.as_ref()) {
            self.not_done(&first.plan, &stop);
        }
        self.send_error(stop)?;
        Ok(BatchTryOutcome::Failed)
    }

    /// The statements up to the first that needs more than a first try, and what the block holds behind them.
    fn tries<'s>(&self, run: &'s [Statement], mut held: BlockLocks) -> (Vec<OptimisticTry<'s>>, BlockLocks) {
        let limits = self.limits();
        let mut tries = Vec::new();
        for statement in run.iter().take(MOST) {
            let Class::Ddl(ddl) = &statement.class else { break };
            let first = match acts(statement) {
                false if !makes_relations(ddl) => break,
                true if !held.suffices(statement, &limits) => match self.first(statement).filter(is_brief) {
                    Some(first) => Some(first),
                    None => break,
                },
                true if !held.is_brief(statement) => break,
                _ => None,
            };
            // Whatever it changes, the block goes on; what is asked for the next one is asked behind it.
            let _ = held.done(statement, first.as_ref());
            tries.push(OptimisticTry { statement, optimistic: first });
        }
        (tries, held)
    }

    fn note(&self, one: &OptimisticTry<'_>) {
        match &one.optimistic {
            Some(first) => {
                self.shared.metrics.ddl_seen.add();
                self.shared.metrics.ddl_planned.add();
                self.log(one.statement, &first.plan);
            }
            None if acts(one.statement) => self.log_held(one.statement),
            None => {}
        }
    }
}

/// Whether the hold budget is its own too, as it is the others'.
fn is_brief(first: &OptimisticPlan) -> bool {
    first.plan.phases.iter().all(|phase| phase.kind == PhaseKind::Brief)
}
