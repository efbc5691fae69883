//! What is on record of a table: a change that was begun by a session that is gone (`execute/record.rs`).
//!
//! It owns nothing: the record is in the database. It keeps true: what is continued is the very plan that was begun, on the very table. Else a
//! WARNING says why not, and the statement gets the server's error.

use super::context::StatementContext;
use super::plan::{PlannedRun, Resumed, run_plan};
use super::turn;
use crate::catalog::{Facts, RelationRef};
use crate::execute::record::{self, Record, UnfinishedChange};
use crate::execute::run::Run;
use crate::execute::{Reply, RunError};
use crate::pg::{RelationName, sqlstate};
use crate::plan::{self, Plan};
use crate::report::{Report, in_words};
use crate::session::statement::shown;
use crate::session::transaction::fail;
use crate::sql::{self, Class};
use std::time::Instant;

/// What became of a change that another statement has left unfinished.
enum AbandonOutcome {
    /// There is nothing that could be undone.
    Nothing,
    Undone,
    /// Somebody is in the way.
    NotNow,
}

/// The table whose record is to be looked at.
fn recorded_table(context: &StatementContext<'_>, facts: &Facts) -> Option<RelationRef> {
    let plans = context.makes_phases() && !facts.session.in_transaction;
    let table = record::table_of(facts).filter(|table| plans && table.recorded)?;
    matches!(context.statement.class, Class::Ddl(_)).then(|| table.id.clone())
}

/// Continues the statement, if a dead session had begun it. `None`: there is nothing to continue. Then the facts are as they were, or asked for
/// anew if that took a while.
pub(super) async fn continue_recorded(
    context: &mut StatementContext<'_>,
    facts: &mut Facts,
) -> Result<Option<Reply>, RunError> {
    let Some(table) = &recorded_table(context, facts) else { return Ok(None) };
    let (statement, limits) = (context.statement, context.limits());
    let mut run = context.run(facts);
    let (record, quiet) = match record::unfinished(&mut run, table.oid, &statement.text).await? {
        UnfinishedChange::Nothing => return Ok(None),
        UnfinishedChange::Over => {
            *facts = context.facts().of(statement).await?;
            return Ok(None);
        }
        UnfinishedChange::Here(record, quiet) => (record, quiet),
    };
    let then = record.facts(&facts.session);
    let mut plan = match plan::plan(statement, &then, &limits) {
        Ok(plan) => plan,
        Err(refusal) => {
            record::release_record(&mut run, table.oid).await?;
            return Err(RunError::Report(refusal.report));
        }
    };
    let same = record.is_of(&plan, facts);
    if !record::can_resume(&mut run, &record, table.oid, same, &mut plan).await? {
        return Ok(None);
    }
    let report = record.report(&plan);
    tracing::info!(detail = report.detail, "{}: {}", report.message, shown(statement));
    if !facts.session.hushed {
        context.channel.notify(&report);
    }
    context.log.planned(statement, &plan);
    let planned = PlannedRun::resumed(&plan, &then, Resumed { record: *record, table, quiet });
    run_plan(context, planned).await.map(Some)
}

/// In a transaction of the client's: whether what the statement names was half done, and somebody has finished or undone it meanwhile.
pub(super) async fn has_waited_for_the_end(
    context: &mut StatementContext<'_>,
    facts: &Facts,
    names: &[RelationName],
) -> Result<bool, RunError> {
    let Some(report) = refusal_as_unfinished(context, facts).await? else { return Ok(false) };
    if turn::has_waited(context, names).await? {
        return Ok(true);
    }
    fail(context.channel).await?;
    Err(RunError::Report(report))
}

/// In a transaction of the client's an unfinished change can be neither continued nor undone. What the statement would find of it is not told
/// to be there either.
async fn refusal_as_unfinished(context: &mut StatementContext<'_>, facts: &Facts) -> Result<Option<Report>, RunError> {
    let plans = context.makes_phases() && facts.session.in_transaction;
    let Class::Ddl(ddl) = &context.statement.class else { return Ok(None) };
    let Some(table) = record::table_of(facts).filter(|table| plans && table.recorded) else { return Ok(None) };
    let record = record::any_record(&mut context.side_run(facts), table.id.oid).await?;
    // Any other statement fails by what it finds, or takes it away.
    let may_skip = ddl.if_exists || ddl.if_not_exists || ddl.parts.iter().any(|part| part.missing_ok);
    if !may_skip || !record.is_some_and(|record| record.touches(ddl)) {
        return Ok(None);
    }
    let message = format!("a schema change of {} is unfinished", table.id.full_name());
    Ok(Some(
        Report::error(sqlstate::OBJECT_IN_USE, message)
            .detail("The statement names a part of that change, which may still be undone.")
            .hint("Outside a transaction block, send this statement or the one that began the change. The proxy then finishes or undoes it."),
    ))
}

/// Undoes a change that was left unfinished: what its own session could not take back, in any case; what another statement has left,
/// where this one names the same things, or would do worse because of it. True: look again.
pub(super) async fn has_cleared_the_way(
    context: &mut StatementContext<'_>,
    facts: &Facts,
    plan: &Plan,
    begun: Instant,
) -> Result<bool, RunError> {
    let Some(table) = recorded_table(context, facts) else { return Ok(false) };
    let Class::Ddl(ddl) = &context.statement.class else { return Ok(false) };
    let warns = plan.notes.iter().any(Report::is_warning);
    // The same statement that could not be continued has said why, and the server says what is there.
    let text = &context.statement.text;
    let another = |record: &Record| record.statement() != text && (warns || record.touches(ddl));
    let wanted = |record: &Record| record.is_undoing() || another(record);
    match abandon(context, &table, facts, wanted).await? {
        AbandonOutcome::Nothing => Ok(false),
        AbandonOutcome::Undone => Ok(true),
        AbandonOutcome::NotNow if begun.elapsed() < context.config().locks.deadline => {
            // Undoing is not ended by a cancel: the statement that waits for it is.
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

/// Undoes what another statement has left unfinished on this table, or this one could not take back. The lanes are held, so that nobody is at
/// work on it. `wanted`: of which records.
async fn abandon(
    context: &mut StatementContext<'_>,
    table: &RelationRef,
    facts: &Facts,
    wanted: impl Fn(&Record) -> bool,
) -> Result<AbandonOutcome, RunError> {
    let limits = context.limits();
    let mut run = context.side_run(facts);
    let Some((record, quiet)) = record::take_record(&mut run, table.oid, wanted).await? else {
        return Ok(AbandonOutcome::Nothing);
    };
    let then = record.facts(&facts.session);
    let begun = sql::parse(record.statement()).ok().and_then(|statements| statements.into_iter().next());
    let plan = begun.and_then(|begun| plan::plan(&begun, &then, &limits).ok());
    let Some(plan) = plan.filter(|plan| record.is_plan(plan)) else {
        record::release_record(&mut run, table.oid).await?;
        return Ok(AbandonOutcome::Nothing);
    };
    let mut run = Run::resumed(context.side_run(&then), record, &plan, table, quiet);
    Ok(if run.abandon(&plan).await? { AbandonOutcome::Undone } else { AbandonOutcome::NotNow })
}

/// The plan that the statement would continue, and from where, for EXPLAIN.
pub(super) async fn explain_recorded(
    context: &mut StatementContext<'_>,
    facts: &Facts,
) -> Result<Option<String>, RunError> {
    let Some(table) = recorded_table(context, facts) else { return Ok(None) };
    let (statement, limits) = (context.statement, context.limits());
    let Some(record) = record::on_record(&mut context.side_run(facts), table.oid, &statement.text).await? else {
        return Ok(None);
    };
    let plan = plan::plan(statement, &record.facts(&facts.session), &limits).ok();
    let plan = plan.filter(|plan| record.is_of(plan, facts).is_ok());
    Ok(plan.map(|plan| {
        let report = record.report(&plan);
        format!("{}\n  {}\n{}", report.message, report.detail.unwrap_or_default(), plan::print::to_text(&plan))
    }))
}
