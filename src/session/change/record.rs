//! The record of a table: a change that a session which is gone has begun (`execute/record.rs`).
//!
//! It owns nothing: the record is in the database. It keeps true: a change is continued only with the same plan that was begun, on the same
//! table. Otherwise a WARNING says why not, and the statement gets the server's error.

use super::context::{Place, StatementContext};
use super::gate::{self, GateOutcome};
use super::plan::{PlannedRun, Resumed, run_plan};
use super::{held, turn, window};
use crate::catalog::{Facts, RelationRef};
use crate::config::InTransaction;
use crate::execute::record::{self, Record, UnfinishedChange};
use crate::execute::run::Run;
use crate::execute::take_turn::end_turn;
use crate::execute::turn::Turn;
use crate::execute::{Reply, RunError, Suspend};
use crate::gate::Verdict;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{self, Plan};
use crate::report::{Report, in_words};
use crate::session::statement::shown;
use crate::session::transaction::fail;
use crate::sql::{self, Class};
use std::collections::BTreeSet;
use std::time::Instant;

/// The result of an attempt to undo a change that another statement has left unfinished.
enum AbandonOutcome {
    /// There is nothing to undo.
    Nothing,
    Undone,
    /// Another session is in the way.
    NotNow,
}

/// The table whose record is to be read.
fn recorded_table(context: &StatementContext<'_>, facts: &Facts) -> Option<RelationRef> {
    let plans = context.makes_phases() && !facts.session.in_transaction;
    let table = record::table_of(facts).filter(|table| plans && table.recorded)?;
    matches!(context.statement.class, Class::Ddl(_)).then(|| table.id.clone())
}

/// What the record of a table has meant for a statement.
pub(super) enum FollowedRecord {
    /// There is none that matters.
    None,
    /// The statement has waited for another session. The facts are to be read again.
    Waited,
    /// A dead session had begun the statement, and it is done now.
    Continued(Reply),
}

/// Follows the record of the statement's table. Outside a transaction of the client's, the same statement continues it. The facts may be read anew.
pub(super) async fn follow(
    context: &mut StatementContext<'_>,
    facts: &mut Facts,
    names: &[RelationName],
    turn: &mut Turn,
) -> Result<FollowedRecord, RunError> {
    if context.runs() {
        if has_waited_for_another_block(context, facts, names, turn).await? {
            return Ok(FollowedRecord::Waited);
        }
        if let Some(reply) = continue_recorded(context, facts, turn).await? {
            return Ok(FollowedRecord::Continued(reply));
        }
    }
    look_from_the_block(context, facts).await?;
    Ok(match has_waited_for_the_end(context, facts, names).await? {
        true => FollowedRecord::Waited,
        false => FollowedRecord::None,
    })
}

/// Continues the statement, if a dead session had begun it. `None`: there is nothing to continue. The facts are then as before, or read anew if
/// that took long.
async fn continue_recorded(
    context: &mut StatementContext<'_>,
    facts: &mut Facts,
    turn: &mut Turn,
) -> Result<Option<Reply>, RunError> {
    let Some(table) = &recorded_table(context, facts) else { return Ok(None) };
    let (statement, limits, own) = (context.statement, context.limits(), context.own_records());
    let is_ahead = matches!(context.place(), Place::Ahead(_));
    let mut run = context.run(facts);
    let (record, quiet) = match record::unfinished(&mut run, table.oid, &statement.text, own).await? {
        UnfinishedChange::Nothing => return Ok(None),
        UnfinishedChange::Over => {
            *facts = context.facts().of(statement).await?;
            return Ok(None);
        }
        UnfinishedChange::Here(record, quiet) => (record, quiet),
    };
    if is_ahead && !record.is_ahead() {
        // The plan of such a record has no full undo. It is undone, and begins anew.
        record::release_record(&mut run, table.oid).await?;
        return Ok(None);
    }
    let then = record.facts(&facts.session);
    let mut plan = match record.plan_again(statement, &then, &limits) {
        Ok(plan) => plan,
        Err(refusal) => {
            record::release_record(&mut run, table.oid).await?;
            return Err(RunError::Report(refusal.report));
        }
    };
    if let Err(refused) = may_continue(context, facts, &plan).await {
        record::release_record(&mut context.run(facts), table.oid).await?;
        return Err(refused);
    }
    let same = record.is_of(&plan, facts);
    let mut run = context.run(facts);
    if !record::can_resume(&mut run, &record, table.oid, same, &mut plan).await? {
        return Ok(None);
    }
    let report = record.report(&plan);
    tracing::info!(detail = report.detail, "{}: {}", report.message, shown(statement));
    if !facts.session.hushed {
        context.channel.notify(&report);
    }
    context.log.planned(statement, &plan);
    let planned = PlannedRun::resumed(&plan, &then, Resumed { record: *record, table, quiet }, turn);
    Box::pin(run_plan(context, planned)).await.map(Some)
}

/// Asks the gate about a change that a dead session has begun.
async fn may_continue(context: &mut StatementContext<'_>, facts: &Facts, plan: &Plan) -> Result<(), RunError> {
    match gate::ask(context, facts, plan).await? {
        // It is continued as it was begun.
        GateOutcome::Run | GateOutcome::PlanAgain => Ok(()),
        GateOutcome::Hold(decision) if matches!(decision.verdict, Verdict::Closed { .. }) => {
            Err(window::at_once(context, &decision, &plan.tag).await?)
        }
        GateOutcome::Hold(decision) => held::at_once(context, &decision, Some((facts, plan)), &plan.tag).await,
    }
}

/// Whether the block of another session had something done ahead on this table, and is over now. The statement gives its lanes back while it
/// waits, because that block's next statement needs them.
async fn has_waited_for_another_block(
    context: &mut StatementContext<'_>,
    facts: &Facts,
    names: &[RelationName],
    turn: &mut Turn,
) -> Result<bool, RunError> {
    let Some(table) = recorded_table(context, facts) else { return Ok(false) };
    if !record::is_of_another_block(&mut context.side_run(facts), table.oid).await? {
        return Ok(false);
    }
    end_turn(&mut context.side_run(facts), turn).await?;
    record::wait_for_block(&mut context.run(facts), table.oid).await?;
    turn::take(context, names, &BTreeSet::new(), turn).await?;
    Ok(true)
}

/// The table whose record matters to a statement in a transaction of the client's.
fn table_in_transaction(context: &StatementContext<'_>, facts: &Facts) -> Option<RelationRef> {
    let plans = context.makes_phases() && facts.session.in_transaction;
    let table = record::table_of(facts).filter(|table| plans && table.recorded)?;
    matches!(context.statement.class, Class::Ddl(_)).then(|| table.id.clone())
}

/// What a lost session has done ahead of its transaction can neither be continued nor undone in a transaction of the client's. So the statement
/// is done ahead of it, if that is possible.
async fn look_from_the_block(context: &mut StatementContext<'_>, facts: &Facts) -> Result<(), RunError> {
    let suspends = matches!(context.place(), Place::Anywhere) && facts.session.in_transaction && context.may_hoist();
    let Some(table) = record::table_of(facts).filter(|table| suspends && table.recorded) else { return Ok(()) };
    if !matches!(context.statement.class, Class::Ddl(_)) {
        return Ok(());
    }
    let own = context.own_records();
    match record::is_left_ahead(&mut context.side_run(facts), table.id.oid, own).await? {
        true => Err(RunError::Suspend(Suspend::WouldStall)),
        false => Ok(()),
    }
}

/// Whether the relations of the statement had an unfinished change, and another session has finished or undone it meanwhile. It is for a
/// transaction of the client's.
async fn has_waited_for_the_end(
    context: &mut StatementContext<'_>,
    facts: &Facts,
    names: &[RelationName],
) -> Result<bool, RunError> {
    let Some(report) = refusal_as_unfinished(context, facts).await? else { return Ok(false) };
    if let Some(table) = table_in_transaction(context, facts)
        && record::is_of_another_block(&mut context.side_run(facts), table.oid).await?
    {
        // A builder waits for the snapshots of a transaction. So the statement waits outside its transaction, where that is possible.
        if matches!(context.place(), Place::Anywhere) && context.config().ddl.in_transaction == InTransaction::Hoist {
            return Err(RunError::Suspend(Suspend::WouldStall));
        }
        record::wait_for_block(&mut context.run(facts), table.oid).await?;
        return Ok(true);
    }
    if turn::has_waited(context, names).await? {
        return Ok(true);
    }
    fail(context.channel).await?;
    Err(RunError::Report(report))
}

/// The error for a statement on a table with an unfinished change, in a transaction of the client's. There the change can neither be continued
/// nor undone, and its objects must not be reported as existing.
async fn refusal_as_unfinished(context: &mut StatementContext<'_>, facts: &Facts) -> Result<Option<Report>, RunError> {
    let Class::Ddl(ddl) = &context.statement.class else { return Ok(None) };
    let Some(table) = table_in_transaction(context, facts) else { return Ok(None) };
    let record = record::any_record(&mut context.side_run(facts), table.oid).await?;
    // Any other statement fails because of the objects that it finds, or removes them.
    let may_skip = ddl.if_exists || ddl.if_not_exists || ddl.parts.iter().any(|part| part.missing_ok);
    if !may_skip || !record.is_some_and(|record| record.touches(ddl)) {
        return Ok(None);
    }
    let message = format!("a schema change of {} is unfinished", table.full_name());
    Ok(Some(
        Report::error(sqlstate::OBJECT_IN_USE, message)
            .detail("The statement names a part of that change, which may still be undone.")
            .hint("Outside a transaction block, send this statement or the one that began the change. The proxy then finishes or undoes it."),
    ))
}

/// Undoes a change that was left unfinished. If its own session could not undo it, it is undone in any case. If another statement has left it, it
/// is undone if this statement names the same objects, or would get a worse plan because of it. `true`: the facts must be read again.
pub(super) async fn has_cleared_the_way(
    context: &mut StatementContext<'_>,
    facts: &Facts,
    plan: &Plan,
    begun: Instant,
) -> Result<bool, RunError> {
    let Some(table) = recorded_table(context, facts) else { return Ok(false) };
    let Class::Ddl(ddl) = &context.statement.class else { return Ok(false) };
    let warns = plan.notes.iter().any(Report::is_warning);
    // If the same statement could not be continued, a WARNING has said why, and the server's error says what exists.
    let text = &context.statement.text;
    let another = |record: &Record| record.statement() != text && (warns || record.touches(ddl));
    // The block that a change was made for is over with its session.
    let is_ahead = matches!(context.place(), Place::Ahead(_));
    let begins_anew = |record: &Record| is_ahead && record.statement() == text;
    let wanted = |record: &Record| record.is_undoing() || record.is_ahead() || begins_anew(record) || another(record);
    match abandon(context, &table, facts, wanted).await? {
        AbandonOutcome::Nothing => Ok(false),
        AbandonOutcome::Undone => Ok(true),
        AbandonOutcome::NotNow if begun.elapsed() < context.config().locks.deadline => {
            // A cancel does not end the undo. It ends the statement that waits for the undo.
            context.side_run(facts).interrupted().map_or(Ok(true), Err)
        }
        AbandonOutcome::NotNow => Err(RunError::Report(
            Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
                .detail(format!(
                    "A schema change of {} is unfinished, and the proxy could not undo it in {}.",
                    table.full_name(),
                    in_words(begun.elapsed())
                ))
                .hint("Try again when no session uses the table for long."),
        )),
    }
}

/// Undoes a change that another statement has left unfinished on this table, or that its own session could not undo. The lanes are held, so nobody
/// is at work on the table. `wanted`: the records to undo.
async fn abandon(
    context: &mut StatementContext<'_>,
    table: &RelationRef,
    facts: &Facts,
    wanted: impl Fn(&Record) -> bool,
) -> Result<AbandonOutcome, RunError> {
    let (limits, own) = (context.limits(), context.own_records());
    let mut run = context.side_run(facts);
    let Some((record, quiet)) = record::take_record(&mut run, table.oid, own, wanted).await? else {
        return Ok(AbandonOutcome::Nothing);
    };
    let then = record.facts(&facts.session);
    let begun = sql::parse(record.statement()).ok().and_then(|statements| statements.into_iter().next());
    let plan = begun.and_then(|begun| record.plan_again(&begun, &then, &limits).ok());
    let Some(plan) = plan.filter(|plan| record.is_plan(plan)) else {
        record::release_record(&mut run, table.oid).await?;
        return Ok(AbandonOutcome::Nothing);
    };
    let mut run = Run::resumed(context.side_run(&then), record, &plan, table, quiet);
    Ok(if run.abandon(&plan).await? { AbandonOutcome::Undone } else { AbandonOutcome::NotNow })
}

/// The plan that the statement would continue, and the phase from which it would, for EXPLAIN.
pub(super) async fn explain_recorded(
    context: &mut StatementContext<'_>,
    facts: &Facts,
) -> Result<Option<String>, RunError> {
    let Some(table) = recorded_table(context, facts) else { return Ok(None) };
    let (statement, limits) = (context.statement, context.limits());
    let Some(record) = record::on_record(&mut context.side_run(facts), table.oid, &statement.text).await? else {
        return Ok(None);
    };
    let plan = record.plan_again(statement, &record.facts(&facts.session), &limits).ok();
    let plan = plan.filter(|plan| record.is_of(plan, facts).is_ok());
    Ok(plan.map(|plan| {
        let report = record.report(&plan);
        format!("{}\n  {}\n{}", report.message, report.detail.unwrap_or_default(), plan::print::to_text(&plan))
    }))
}
