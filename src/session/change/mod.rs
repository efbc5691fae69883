//! Schema changes: one statement through facts, plan and run, to the client's reply.
//!
//! [`SchemaChanges`] owns a session's state from one schema change to the next: which optimistic tries missed, whether it may plan at all,
//! and who the client is, for the log. It keeps true: the stages of a statement are run in one order, by [`stages`]. They are run only while the
//! backend is idle and nothing is owed to the client. They do not know the client's frames.
//!
//! - `context`: the statement on its way, and the parts that each stage may use.
//! - `history`, `rights`, `log`: the state that is kept between statements, the counters and the log.
//! - `join`, `pending`, `turn`, `facts`, `record`, `gate`, `waits`, `held`, `window`, `place`, `plan`: the stages. `not_run`: how the gate ends a
//!   statement. `ended`: those who count and watch are told of an end. `told`: the webhook is told of what is held and approved.
//!   `run_holder`, `cut_over`: who may hold a run. `on_disconnect`: what becomes of a statement whose client leaves.
//! - `batch`: several statements of a string in one round trip. `explain`: a plan as text. `lock_table`: LOCK TABLE, which is no schema
//!   change.

mod batch;
mod conditions;
mod context;
mod cut_over;
mod ended;
mod explain;
mod facts;
mod gate;
mod held;
mod history;
mod join;
mod lock_table;
mod log;
mod nap;
mod not_run;
mod on_disconnect;
mod pending;
mod place;
mod plan;
mod record;
mod rights;
mod run_holder;
mod told;
mod turn;
mod waits;
mod window;

pub(super) use self::batch::BatchTryOutcome;
pub(super) use self::context::{Asked, Place, Request};

use self::context::StatementContext;
use self::ended::ended;
use self::facts::FactsReader;
use self::gate::GateOutcome;
use self::history::{OwnRecords, TryHistory};
use self::log::ChangeLog;
use self::plan::{PlannedRun, elided, make_plan, run_plan};
use self::record::FollowedRecord;
use self::rights::{PlanningRights, run_as_written};
use super::block::Block;
use super::reply::{tag_of, tags};
use super::run::run_context;
use super::shared::Shared;
use super::statement::shown;
use crate::backend::ServerChannel;
use crate::catalog::Facts;
use crate::config::Mode;
use crate::execute::ahead::AheadOfBlock;
use crate::execute::context::SizeGuess;
use crate::execute::optimistic::{OptimisticOutcome, optimistic_try, optimistic_try_in_pipeline};
use crate::execute::pending_undo::PendingUndo;
use crate::execute::run::Basis;
use crate::execute::turn::Turn;
use crate::execute::{Reply, RunError, Suspend, locks_first, take_turn};
use crate::pg::sqlstate;
use crate::plan::LockNeed;
use crate::plan::optimistic::OptimisticPlan;
use crate::registry::SessionEntry;
use crate::sql::{Class, Statement};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// How many plans are made for a table that other sessions keep changing, before a plan runs without a check of its basis.
const PLANS: usize = 50;

/// The schema changes of one session.
#[derive(Debug)]
pub(super) struct SchemaChanges {
    log: ChangeLog,
    history: TryHistory,
    rights: PlanningRights,
    own_records: OwnRecords,
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
    pub(super) fn new(shared: Arc<Shared>, session: Arc<SessionEntry>) -> Self {
        let log = ChangeLog::new(shared, session);
        Self {
            log,
            history: TryHistory::default(),
            rights: PlanningRights::default(),
            own_records: OwnRecords::default(),
        }
    }

    /// The session as the registry has it.
    pub(super) fn session(&self) -> &Arc<SessionEntry> {
        self.log.session()
    }

    /// Runs a statement. The reply is not on its way yet.
    pub(super) async fn run(
        &mut self,
        channel: &mut ServerChannel,
        block: &mut Block,
        request: Request<'_>,
    ) -> Result<Reply, RunError> {
        let Self { log, history, rights, own_records } = self;
        channel.forget_notices();
        let _entered = log.enter(channel, shown(request.statement));
        if channel.client_gone() {
            return Err(RunError::ClientGone);
        }
        if let Class::Lock(lock) = &request.statement.class {
            block.refresh(channel);
            let context = &mut StatementContext::new(channel, log, request);
            let result = Box::pin(lock_table::run(context, lock, rights)).await;
            return finish(block, request, result.map(Done::from));
        }
        log.count(request.statement);
        let context = &mut StatementContext::new(channel, log, request).with_own_records(own_records.keys());
        if matches!(request.statement.class, Class::Ddl(_)) && !rights.are_missing() {
            pending::undo_pending(context).await?;
        }
        block.refresh(context.channel);
        let first = first_try(context, history, rights);
        finish(block, request, run_stages(context, history, rights, first).await)
    }

    /// Runs a statement of the client's transaction ahead of it, outside any transaction. It can be undone, unless it has changed nothing.
    pub(super) async fn run_ahead(
        &mut self,
        channel: &mut ServerChannel,
        statement: &Statement,
        offset: usize,
        asked: Asked,
    ) -> Result<(Reply, Option<AheadOfBlock>), RunError> {
        let Self { log, history, rights, own_records } = self;
        channel.forget_notices();
        let _entered = log.enter(channel, shown(statement));
        let request = Request { statement, offset, place: Place::Ahead(asked) };
        let context = &mut StatementContext::new(channel, log, request).with_own_records(own_records.keys());
        if history.take_slow(statement) {
            context.take_as_slow();
            history.remember_slow(statement);
        }
        let reply = run_stages(context, history, rights, FirstTry::None).await?.reply;
        let ahead = context.take_ahead();
        if let Some(key) = ahead.as_ref().and_then(AheadOfBlock::key) {
            own_records.add(key);
        }
        Ok((reply, ahead))
    }

    /// Waits until the locks of a statement can be had, and gives the `deadline` of the statement. Nothing is run.
    pub(super) async fn wait_for_locks(
        &mut self,
        channel: &mut ServerChannel,
        statement: &Statement,
    ) -> Result<Duration, RunError> {
        let Self { log, history, rights, own_records } = self;
        channel.forget_notices();
        let _entered = log.enter(channel, shown(statement));
        let request = Request { statement, offset: 0, place: Place::LocksAlone };
        let context = &mut StatementContext::new(channel, log, request).with_own_records(own_records.keys());
        run_stages(context, history, rights, FirstTry::None).await.map(|_| context.config().locks.deadline)
    }

    /// Takes these locks in the client's transaction, which holds nothing yet.
    pub(super) async fn take_locks(&self, channel: &mut ServerChannel, locks: &[LockNeed]) -> Result<(), RunError> {
        let facts = self.session_facts(channel).await?;
        locks_first::take(&mut run_context(channel, self.log.shared(), &facts, 0, SizeGuess::Any), locks).await
    }

    /// The optimistic try of a statement in the client's pipeline. `None`: something must be asked or done before it.
    pub(super) fn plan_in_pipeline(&self, channel: &ServerChannel, statement: &Statement) -> Option<OptimisticPlan> {
        if join::comes_first(&self.log, channel) {
            return None;
        }
        if !gate::lets_try(&self.log, channel, statement) {
            return None;
        }
        self.history.optimistic_plan(&self.rights, channel, statement, &self.log.shared().limits())
    }

    /// Whether the rules of the gate let the statement run, whatever its facts are.
    pub(super) fn lets_pass(&self, channel: &ServerChannel, statement: &Statement) -> bool {
        gate::lets_try(&self.log, channel, statement)
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
        let Self { log, history, rights, own_records } = self;
        channel.forget_notices();
        let _entered = log.enter(channel, shown(request.statement));
        let context = &mut StatementContext::new(channel, log, request).with_own_records(own_records.keys());
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
        let Self { log, history, rights, .. } = self;
        let Some(held) = block.held().cloned() else { return Ok(BatchTryOutcome::No) };
        let run = gate::triable(log, channel, run);
        let (tries, held) = batch::tries(history, rights, channel, run, held, &log.shared().limits());
        let _entered = log.enter(channel, &format!("{} statements of one string", run.len()));
        let outcome = batch::run_together(log, history, channel, &tries).await?;
        if let BatchTryOutcome::Done(_, frames) = &outcome {
            block.holds_now(held);
            run.iter().zip(tags(frames)).for_each(|(statement, tag)| {
                block.acted(statement, tag);
                block.holds_table(statement);
            });
        }
        Ok(outcome)
    }

    /// The facts of the session.
    pub(super) async fn session_facts(&self, channel: &mut ServerChannel) -> Result<Facts, RunError> {
        let shared = self.log.shared();
        FactsReader::new(channel, shared.limits(), shared.config.proxy.mode == Mode::Plan).of_session().await
    }

    /// Leaves an undo to the next statement of the role.
    pub(super) fn keep_pending(&self, pending: PendingUndo) {
        pending::keep(&self.log, pending);
    }

    /// The plan of a statement as text. `place`: the place that the plan is made for.
    pub(super) async fn explain(
        &mut self,
        channel: &mut ServerChannel,
        statement: &Statement,
        place: Place<'_>,
    ) -> Result<String, RunError> {
        let mut context = StatementContext::new(channel, &self.log, Request { statement, offset: 0, place });
        explain::plan_in_words(&mut context, &mut self.rights).await
    }

    /// A statement is relayed, since the client's block holds the locks that it needs.
    pub(super) fn relayed(&self, statement: &Statement) {
        if !matches!(statement.class, Class::Lock(_)) {
            self.log.relayed(statement);
            ended::count_relayed(&self.log, statement);
        }
    }
}

/// The optimistic try with which the stages of a statement begin.
fn first_try(context: &mut StatementContext<'_>, history: &mut TryHistory, rights: &PlanningRights) -> FirstTry {
    if history.take_slow(context.statement) {
        context.take_as_slow();
        return FirstTry::None;
    }
    if join::may_join(context.log) || !gate::lets_try(context.log, context.channel, context.statement) {
        return FirstTry::None;
    }
    let plan = history.optimistic_plan(rights, context.channel, context.statement, &context.limits());
    plan.map_or(FirstTry::None, FirstTry::Now)
}

/// Runs a statement through its stages, and tells those who count and watch. The log has the numbers of the session and of the change.
async fn run_stages(
    context: &mut StatementContext<'_>,
    history: &mut TryHistory,
    rights: &mut PlanningRights,
    first: FirstTry,
) -> Result<Done, RunError> {
    let _running = context.metrics().measures.change();
    let (begun, span) = (Instant::now(), context.log.span(context.channel));
    if let Some(watch) = ended::watch(context) {
        context.watch(watch);
    }
    let result = run_in_turn(context, history, rights, first).instrument(span.clone()).await;
    span.in_scope(|| ended(context, begun.elapsed(), result.as_ref().map(|_| ())));
    result
}

/// Runs a statement through its stages, and once more if it has exceeded its hold budget.
///
/// A statement whose table has a few rows is taken for a brief one. If a function in the statement takes long for each row, the statement
/// exceeds the hold budget as one step under its lock, and is rolled back. Then it is planned as if the table were large. If that plan has
/// phases, nobody waits for the statement. If there is no other way, the statement runs guarded, with a WARNING, and takes as long as directly.
async fn run_in_turn(
    context: &mut StatementContext<'_>,
    history: &mut TryHistory,
    rights: &mut PlanningRights,
    first: FirstTry,
) -> Result<Done, RunError> {
    let mut turn = Turn::default();
    let result = stages(context, history, rights, first, &mut turn).await;
    let mut result = turn::end(context, &mut turn, result).await;
    if matches!(result, Err(RunError::Slow)) {
        // The facts are asked anew: a large table needs more of them, and other sessions have had the table meanwhile.
        context.take_as_slow();
        let again = stages(context, history, rights, FirstTry::None, &mut turn).await;
        result = turn::end(context, &mut turn, again).await;
    }
    on_disconnect::end(context, result.as_ref().map(|done| &done.reply));
    if let Some(passage) = context.take_passage() {
        match &result {
            Err(RunError::Suspend(_)) => passage.suspend(),
            result => passage.finish(result.is_ok()),
        }
    }
    // Ahead of the transaction, or in its place there, the statement is not tried as a brief one once more.
    if matches!(result, Err(RunError::Suspend(Suspend::WouldStall))) && context.is_slow() {
        history.remember_slow(context.statement);
    }
    result
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
        return without_facts(context).await;
    }
    let statement = context.statement;
    let names = turn::names_of(context);
    turn::take(context, &names, &BTreeSet::new(), turn).await?;
    let (mut basis, mut told, mut plans, begun) = (Basis::Fresh, Vec::new(), 0, Instant::now());
    loop {
        let mut facts = match context.facts().of(statement).await {
            Err(RunError::Server(error)) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE => {
                rights.refused(context, &error).await?;
                return without_facts(context).await;
            }
            facts => facts?,
        };
        match record::follow(context, &mut facts, &names, turn).await? {
            FollowedRecord::None => {}
            FollowedRecord::Waited => continue,
            FollowedRecord::Continued(reply) => return Ok(reply.into()),
        }
        let inside = facts.session.in_transaction;
        let mut plan = make_plan(context, &facts).await?;
        let held = match gate::ask(context, &facts, &plan).await? {
            GateOutcome::Run => None,
            GateOutcome::PlanAgain => continue,
            GateOutcome::Hold(decision) => Some(decision),
        };
        place::look(context, &facts, &mut plan).await?;
        if record::has_cleared_the_way(context, &facts, &plan, begun).await?
            || (plan.answer.is_some() && inside && turn::has_waited(context, &names).await?)
        {
            continue;
        }
        if waits::has_been_held(context, held.as_ref(), (&facts, &plan), (&names, turn)).await? {
            basis = Basis::Fresh;
            continue;
        }
        if plans == 0 {
            context.log.planned(statement, &plan);
        }
        if let Some(reply) = elided(context, &plan, facts.session.hushed) {
            return Ok(reply.into());
        }
        let besides = turn::lanes_besides(&plan, turn);
        take_turn::extend_turn(&mut context.side_run(&facts), turn, &besides).await?;
        if turn.is_busy() && !inside {
            turn::take(context, &names, &besides, turn).await?;
            basis = Basis::Fresh;
            continue;
        }
        let planned = PlannedRun::new(&plan, &facts, &told, turn, std::mem::take(&mut basis));
        match Box::pin(run_plan(context, planned)).await {
            Err(RunError::Stale) => {}
            result => return result.map(Done::from),
        }
        (told, plans) = (plan.notes, plans + 1);
        // The table changes faster than its facts can be read, so the next plan is as good as any.
        basis = if plans < PLANS { context.facts().basis(&facts).await? } else { Basis::Any };
    }
}

/// Runs a statement as it is written, in a session that may not ask for facts.
async fn without_facts(context: &mut StatementContext<'_>) -> Result<Done, RunError> {
    place::only_in_the_block(context)?;
    if let Some(decision) = gate::ask_by_text(context).await? {
        held::at_once(context, &decision, None, gate::tag_of(context.statement)).await?;
    }
    run_as_written(context).await.map(Done::from)
}

/// Makes the optimistic try. `None`: the statement goes through all stages.
async fn try_optimistically(
    context: &mut StatementContext<'_>,
    history: &mut TryHistory,
    first: FirstTry,
) -> Result<Option<Done>, RunError> {
    let (plan, result) = match first {
        FirstTry::None => return Ok(join::look(context).await?.map(Done::from)),
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

/// Tells the client's block that the statement was done.
fn finish(block: &mut Block, request: Request<'_>, result: Result<Done, RunError>) -> Result<Reply, RunError> {
    let Done { reply, by } = result?;
    block.done(request.statement, by.as_ref());
    block.acted(request.statement, tag_of(&reply));
    block.holds_table(request.statement);
    Ok(reply)
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        Self { reply, by: None }
    }
}
