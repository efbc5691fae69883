//! The plan of a statement, made from its facts, and a plan's run.
//!
//! It owns nothing. It keeps true: a plan that takes long to make does not make the worker's other sessions wait. The undo that a run could not
//! do is kept for the role's next statement.

use super::context::{Place, StatementContext};
use super::history::SURELY_QUICK;
use super::on_disconnect;
use super::pending;
use super::run_holder::RunHolder;
use crate::catalog::{Facts, RelationRef};
use crate::execute::context::SizeGuess;
use crate::execute::record::{Record, release_record};
use crate::execute::run::{Basis, Run};
use crate::execute::turn::Turn;
use crate::execute::{Reply, RunError};
use crate::plan::{self, Plan};
use crate::report::Report;
use crate::session::transaction::fail;
use crate::sql::Class;
use crate::wire::reply::{put_command_complete, put_report};

/// Makes the plan.
pub(super) async fn make_plan(context: &mut StatementContext<'_>, facts: &Facts) -> Result<Plan, RunError> {
    let (statement, limits) = (context.statement, context.limits());
    let parts = if let Class::Ddl(ddl) = &statement.class { ddl.parts.len() } else { 0 };
    let planned = if parts.max(facts.relations.len()) <= SURELY_QUICK {
        plan::plan(statement, facts, &limits)
    } else {
        // A long statement is planned on a thread of its own, since that takes long.
        let (statement, facts) = (statement.clone(), facts.clone());
        let work = move || plan::plan(&statement, &facts, &limits);
        context.log.shared().aside().work(context.channel, work).await.ok_or(RunError::ClientGone)?
    };
    match planned {
        Ok(plan) => Ok(plan),
        Err(refusal) => {
            context.metrics().ddl_refused.add();
            if context.channel.status() == b'T' {
                fail(context.channel).await?;
            }
            Err(RunError::Report(refusal.report))
        }
    }
}

/// A plan that is to be run.
pub(super) struct PlannedRun<'r> {
    plan: &'r Plan,
    facts: &'r Facts,
    told: &'r [Report],
    turn: &'r mut Turn,
    basis: Basis,
    resumed: Option<Resumed<'r>>,
}

impl<'r> PlannedRun<'r> {
    /// A run of a plan from its first phase on. `told`: the notes that the client has got. `basis`: the basis of the plan.
    pub(super) fn new(plan: &'r Plan, facts: &'r Facts, told: &'r [Report], turn: &'r mut Turn, basis: Basis) -> Self {
        Self { plan, facts, told, turn, basis, resumed: None }
    }

    /// A run of the rest of a plan. The client has got the plan's notes already.
    pub(super) fn resumed(plan: &'r Plan, facts: &'r Facts, resumed: Resumed<'r>, turn: &'r mut Turn) -> Self {
        Self { plan, facts, told: &[], turn, basis: Basis::Any, resumed: Some(resumed) }
    }
}

/// The part of a plan that a dead session has done.
pub(super) struct Resumed<'r> {
    pub(super) record: Record,
    /// The table of the record.
    pub(super) table: &'r RelationRef,
    /// The record is written quietly.
    pub(super) quiet: bool,
}

/// Runs the plan.
pub(super) async fn run_plan(context: &mut StatementContext<'_>, planned: PlannedRun<'_>) -> Result<Reply, RunError> {
    let PlannedRun { plan, facts, told, turn, basis, resumed } = planned;
    let place = context.place();
    let name = |oid: u32| {
        let mut found = facts.relations.iter().filter(|asked| asked.found.as_ref().is_some_and(|f| f.id.oid == oid));
        found.next().map(|asked| asked.name.to_string())
    };
    context.channel.change_holds(turn.lanes().iter().map(|oid| (*oid, name(*oid))));
    if let Err(stop) = on_disconnect::begin(context, plan).await {
        // Nothing is done, and the next session may take the record.
        if let Some(Resumed { table, .. }) = resumed {
            release_record(&mut context.run(facts), table.oid).await?;
        }
        return Err(stop);
    }
    let small = context.limits().small_table > 0 && plan.phases.len() == 1;
    let mut holder = match RunHolder::new(context, facts, plan, resumed.is_none()).await {
        Ok(holder) => holder,
        Err(stop) => {
            if let Some(resumed) = &resumed {
                release_record(&mut context.side_run(facts), resumed.table.oid).await?;
            }
            return Err(stop);
        }
    };
    let mut execution = context.run(facts).in_turn(Some(turn)).held_by(holder.as_mut().map(|holder| holder as _));
    if small {
        execution = execution.guessing(SizeGuess::Small);
    }
    let mut run = match resumed {
        Some(Resumed { record, table, quiet }) => Run::resumed(execution, record, plan, table, quiet),
        None => Run::new(execution, basis),
    };
    let mut ahead = None;
    let result = match place {
        Place::Ahead(_) => run.run_ahead(plan, told).await.map(|(reply, done)| {
            ahead = Some(done);
            reply
        }),
        Place::Anywhere | Place::InBlock(_) | Place::LocksAlone => run.run(plan, told).await,
    };
    let left = run.take_pending_undo();
    drop(run);
    holder.into_iter().filter_map(RunHolder::into_passage).for_each(|passage| context.keep_passage(passage));
    ahead.into_iter().for_each(|ahead| context.keep_ahead(ahead));
    left.into_iter().for_each(|left| pending::keep(context.log, left));
    match &result {
        // The statement is planned again.
        Err(RunError::Stale | RunError::Slow | RunError::Suspend(_)) => {}
        Err(stop) => {
            context.metrics().ddl_planned.add();
            context.log.failed(plan, stop);
        }
        Ok(_) => context.metrics().ddl_planned.add(),
    }
    result
}

/// The reply of a statement that would change nothing. `hushed`: the client wants no notices.
pub(super) fn elided(context: &StatementContext<'_>, plan: &Plan, hushed: bool) -> Option<Reply> {
    let reports = plan.answer.as_ref()?;
    context.metrics().ddl_elided.add();
    let mut reply = Reply::default();
    for report in reports.iter().filter(|_| !hushed) {
        put_report(&mut reply.frames, &context.channel.worded(report));
    }
    put_command_complete(&mut reply.frames, &plan.tag);
    Some(reply)
}
