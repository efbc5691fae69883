//! Schema changes: one statement through facts, plan and run, to the client's reply.
//!
//! [`SchemaChanges`] owns a session's state from one schema change to the next: which optimistic tries missed, whether it may plan at all,
//! and who the client is, for the log. It keeps true: the stages of a statement are run in one order, by [`stages`]. They are run only while the
//! backend is idle and nothing is owed to the client. They do not know the client's frames.
//!
//! - `context`: the statement on its way, and the parts that each stage may use.
//! - `history`, `rights`, `log`: the state that is kept between statements, the counters and the log.
//! - `pending`, `turn`, `facts`, `record`, `plan`: the stages.
//! - `batch`: several statements of a string in one round trip. `explain`: a plan as text.

mod batch;
mod context;
mod explain;
mod facts;
mod history;
mod log;
mod pending;
mod plan;
mod record;
mod rights;
mod turn;

pub(super) use self::batch::BatchTryOutcome;
pub(super) use self::context::Request;

use self::context::StatementContext;
use self::history::TryHistory;
use self::log::ChangeLog;
use self::plan::{PlannedRun, make_plan, run_plan};
use self::rights::{PlanningRights, run_as_written};
use super::block::Block;
use super::shared::Shared;
use crate::backend::{BackendLost, ServerChannel};
use crate::execute::optimistic::{OptimisticOutcome, optimistic_try, optimistic_try_in_pipeline};
use crate::execute::run::Basis;
use crate::execute::turn::Turn;
use crate::execute::{Reply, RunError, take_turn};
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::plan::optimistic::OptimisticPlan;
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::reply::{put_command_complete, put_report};
use crate::wire::startup::Parameters;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// How many plans are made for a table that other sessions keep changing, before a plan runs without a check of its basis.
const PLANS: usize = 50;

/// The schema changes of one session.
#[derive(Debug)]
pub(super) struct SchemaChanges {
    log: ChangeLog,
    history: TryHistory,
    rights: PlanningRights,
}

/// A statement that was done.
struct Done {
    reply: Reply,
    /// The optimistic try that has done it.
    by: Option<OptimisticPlan>,
}

/// The optimistic try with which the stages begin.
enum FirstTry {
    /// No try is made, since something must be asked first.
    None,
    Now(OptimisticPlan),
    /// The try was made in the client's pipeline.
    Made(OptimisticPlan, Result<OptimisticOutcome, RunError>),
}

/// How an optimistic try in the client's pipeline has ended.
pub(super) enum PipelineOutcome {
    /// The statement was run by this try, or after it.
    Ran(Result<Reply, RunError>),
    /// A message of the client's before it has failed, and the client has the error. Nothing was tried.
    ClientFailed,
}

impl SchemaChanges {
    pub(super) fn new(shared: Arc<Shared>, client: Parameters) -> Self {
        Self { log: ChangeLog::new(shared, client), history: TryHistory::default(), rights: PlanningRights::default() }
    }

    /// Runs a statement. The reply is not on its way yet.
    pub(super) async fn run(
        &mut self,
        channel: &mut ServerChannel,
        block: &mut Block,
        request: Request<'_>,
    ) -> Result<Reply, RunError> {
        let Self { log, history, rights } = self;
        channel.forget_notices();
        log.count(request.statement);
        let context = &mut StatementContext::new(channel, log, request);
        if matches!(request.statement.class, Class::Ddl(_)) && !rights.are_missing() {
            pending::undo_pending(context).await?;
        }
        block.refresh(context.channel);
        let first = first_try(context, history, rights);
        finish(block, request, run_stages(context, history, rights, first).await)
    }

    /// The optimistic try of a statement in the client's pipeline. `None`: something must be asked or done before it.
    pub(super) fn plan_in_pipeline(&self, channel: &ServerChannel, statement: &Statement) -> Option<OptimisticPlan> {
        if channel.status() == b'I' && pending::has_pending(&self.log) {
            return None;
        }
        self.history.optimistic_plan(&self.rights, channel, statement, &self.log.shared().limits())
    }

    /// Runs a statement in one pipeline with the client's messages before it, in place of its portal's Execute.
    pub(super) async fn run_in_pipeline(
        &mut self,
        channel: &mut ServerChannel,
        block: &mut Block,
        request: Request<'_>,
        plan: OptimisticPlan,
        portal: &str,
    ) -> PipelineOutcome {
        let Self { log, history, rights } = self;
        channel.forget_notices();
        let context = &mut StatementContext::new(channel, log, request);
        let session = context.facts_without_questions();
        let tried = optimistic_try_in_pipeline(&mut context.run(&session), &plan, portal).await;
        if matches!(tried, Ok(OptimisticOutcome::ClientFailed)) {
            return PipelineOutcome::ClientFailed;
        }
        context.metrics().ddl_seen.add();
        let done = run_stages(context, history, rights, FirstTry::Made(plan, tried)).await;
        PipelineOutcome::Ran(finish(block, request, done))
    }

    /// Does as many of the statements as can be done at once, in the block that is under way. An error: the block has failed.
    pub(super) async fn run_together(
        &mut self,
        channel: &mut ServerChannel,
        block: &mut Block,
        run: &[Statement],
    ) -> Result<BatchTryOutcome, RunError> {
        let Self { log, history, rights } = self;
        let Some(held) = block.held().cloned() else { return Ok(BatchTryOutcome::No) };
        let (tries, held) = batch::tries(history, rights, channel, run, held, &log.shared().limits());
        let outcome = batch::run_together(log, history, channel, &tries).await?;
        if matches!(outcome, BatchTryOutcome::Done(..)) {
            block.holds_now(held);
        }
        Ok(outcome)
    }

    /// The query that gives the lines of a statement's plan.
    pub(super) async fn explain(
        &mut self,
        channel: &mut ServerChannel,
        statement: &Statement,
    ) -> Result<String, BackendLost> {
        let mut context = StatementContext::new(channel, &self.log, Request { statement, offset: 0 });
        explain::explain(&mut context, &mut self.rights).await
    }

    /// A statement is relayed, since the client's block holds the locks that it needs.
    pub(super) fn relayed(&self, statement: &Statement) {
        self.log.relayed(statement);
    }
}

/// The optimistic try with which the stages of a statement begin.
fn first_try(context: &mut StatementContext<'_>, history: &mut TryHistory, rights: &PlanningRights) -> FirstTry {
    if history.take_slow(context.statement) {
        context.take_as_slow();
        return FirstTry::None;
    }
    let plan = history.optimistic_plan(rights, context.channel, context.statement, &context.limits());
    plan.map_or(FirstTry::None, FirstTry::Now)
}

/// Runs a statement through its stages, and once more if it has exceeded its hold budget.
///
/// A statement whose table has a few rows is taken for a brief one. If a function in the statement takes long for each row, the statement
/// exceeds the hold budget as one step under its lock, and is rolled back. Then it is planned as if the table were large. If that plan has
/// phases, nobody waits for the statement. If there is no other way, the statement runs guarded, with a WARNING, and takes as long as directly.
async fn run_stages(
    context: &mut StatementContext<'_>,
    history: &mut TryHistory,
    rights: &mut PlanningRights,
    first: FirstTry,
) -> Result<Done, RunError> {
    let mut turn = Turn::default();
    let result = stages(context, history, rights, first, &mut turn).await;
    let result = turn::end(context, &mut turn, result).await;
    if !matches!(result, Err(RunError::Slow)) {
        return result;
    }
    // The facts are asked anew: a large table needs more of them, and other sessions have had the table meanwhile.
    context.take_as_slow();
    let result = stages(context, history, rights, FirstTry::None, &mut turn).await;
    turn::end(context, &mut turn, result).await
}

/// The stages of a statement, in their order. A plan is never older than the wait before it. A statement that has waited for a lane, for a lock,
/// or for a record reads the facts again and is planned again.
async fn stages(
    context: &mut StatementContext<'_>,
    history: &mut TryHistory,
    rights: &mut PlanningRights,
    first: FirstTry,
    turn: &mut Turn,
) -> Result<Done, RunError> {
    if let Some(done) = try_optimistically(context, history, first).await? {
        return Ok(done);
    }
    if rights.look(context).await? {
        return run_as_written(context).await.map(Done::from);
    }
    let statement = context.statement;
    let names = turn::names_of(context);
    turn::take(context, &names, &BTreeSet::new(), turn).await?;
    let (mut basis, mut told, mut plans, begun) = (Basis::Fresh, Vec::new(), 0, Instant::now());
    loop {
        let mut facts = match context.facts().of(statement).await {
            Err(RunError::Server(error)) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE => {
                rights.refused(context, &error).await?;
                return run_as_written(context).await.map(Done::from);
            }
            facts => facts?,
        };
        if let Some(reply) = record::continue_recorded(context, &mut facts).await? {
            return Ok(reply.into());
        }
        let inside = facts.session.in_transaction;
        if record::has_waited_for_the_end(context, &facts, &names).await? {
            continue;
        }
        let plan = make_plan(context, &facts).await?;
        if record::has_cleared_the_way(context, &facts, &plan, begun).await? {
            continue;
        }
        if plan.answer.is_some() && inside && turn::has_waited(context, &names).await? {
            continue;
        }
        if plans == 0 {
            context.log.planned(statement, &plan);
        }
        // The gate will be here. It lets the plan run, refuses it, or makes it wait.
        if let Some(reports) = &plan.answer {
            return Ok(elided(context, &plan, if facts.session.hushed { &[] } else { reports }).into());
        }
        let besides = turn::lanes_besides(&plan, turn);
        take_turn::extend_turn(&mut context.side_run(&facts), turn, &besides).await?;
        if turn.is_busy() && !inside {
            turn::take(context, &names, &besides, turn).await?;
            basis = Basis::Fresh;
            continue;
        }
        let planned = PlannedRun::new(&plan, &facts, &told, turn, std::mem::take(&mut basis));
        match run_plan(context, planned).await {
            Err(RunError::Stale) => {}
            result => return result.map(Done::from),
        }
        told = plan.notes;
        plans += 1;
        // The table changes faster than its facts can be read, so the next plan is as good as any.
        basis = if plans < PLANS { context.facts().basis(&facts).await? } else { Basis::Any };
    }
}

/// Makes the optimistic try. `None`: the statement goes through all stages.
async fn try_optimistically(
    context: &mut StatementContext<'_>,
    history: &mut TryHistory,
    first: FirstTry,
) -> Result<Option<Done>, RunError> {
    let (plan, result) = match first {
        FirstTry::None => return Ok(None),
        FirstTry::Made(plan, result) => (plan, result),
        FirstTry::Now(plan) => {
            let session = context.facts_without_questions();
            let result = optimistic_try(&mut context.run(&session), &plan).await;
            (plan, result)
        }
    };
    match result {
        Ok(OptimisticOutcome::Done(reply)) => {
            context.log.done_at_once(context.statement, &plan.plan);
            return Ok(Some(Done { reply, by: Some(plan) }));
        }
        Ok(OptimisticOutcome::NotSo) => history.remember_miss(&plan),
        Ok(OptimisticOutcome::Slow) => {
            history.remember_miss(&plan);
            context.take_as_slow();
        }
        Ok(OptimisticOutcome::NotDone | OptimisticOutcome::ClientFailed) => {}
        Err(stop) => {
            context.log.failed(&plan.plan, &stop);
            return Err(stop);
        }
    }
    Ok(None)
}

/// The reply of a statement that would change nothing.
fn elided(context: &StatementContext<'_>, plan: &Plan, reports: &[Report]) -> Reply {
    context.metrics().ddl_elided.add();
    let mut reply = Reply::default();
    for report in reports {
        put_report(&mut reply.frames, &context.channel.worded(report));
    }
    put_command_complete(&mut reply.frames, &plan.tag);
    reply
}

/// Tells the client's block that the statement was done.
fn finish(block: &mut Block, request: Request<'_>, result: Result<Done, RunError>) -> Result<Reply, RunError> {
    let Done { reply, by } = result?;
    block.done(request.statement, by.as_ref());
    Ok(reply)
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        Self { reply, by: None }
    }
}
