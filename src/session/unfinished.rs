//! A statement that continues what it had begun in a session that is gone (`execute/record.rs`).
//!
//! It promises: what is
//! continued is the very plan that was begun, on the very table; else a WARNING says why not, and the server its error.

use super::Session;
use super::statement::shown;
use super::turn::PlannedRun;
use crate::catalog::{Facts, RelationRef};
use crate::config::Mode;
use crate::execute::record::{self, Record, UnfinishedChange};
use crate::execute::{Basis, Reply, RunError};
use crate::pg::sqlstate;
use crate::plan;
use crate::report::Report;
use crate::sql::{self, Class, Statement};

/// What became of what another statement has left unfinished.
pub(super) enum AbandonOutcome {
    /// There is nothing that could be undone.
    Nothing,
    Undone,
    /// Somebody is in the way.
    NotNow,
}

impl Session {
    /// The table whose record is to be looked at.
    pub(super) fn may_be_unfinished(&self, statement: &Statement, facts: &Facts) -> Option<RelationRef> {
        let plans = self.shared.config.proxy.mode == Mode::Plan && !facts.session.in_transaction;
        let table = record::table_of(facts).filter(|table| plans && table.recorded)?;
        matches!(statement.class, Class::Ddl(_)).then(|| table.id.clone())
    }

    /// If there is nothing to continue, the facts are as they were, or asked for anew if that took a while.
    pub(super) async fn continued(
        &mut self,
        statement: &Statement,
        table: &RelationRef,
        facts: Facts,
        offset: usize,
    ) -> Result<Result<Reply, Facts>, RunError> {
        let limits = self.limits();
        let mut execution = self.execution(&facts, offset);
        let (record, quiet) = match execution.unfinished(table.oid, &statement.text).await? {
            UnfinishedChange::Nothing => return Ok(Err(facts)),
            UnfinishedChange::Over => return self.facts(statement).await.map(Err),
            UnfinishedChange::Here(record, quiet) => (record, quiet),
        };
        let then = record.facts(&facts.session);
        let mut plan = match plan::plan(statement, &then, &limits) {
            Ok(plan) => plan,
            Err(refusal) => {
                execution.release_record(table.oid).await?;
                return Err(RunError::Report(refusal.report));
            }
        };
        let same = record.is_of(&plan, &facts);
        if !execution.can_resume(&record, table.oid, same, &mut plan).await? {
            return Ok(Err(facts));
        }
        let report = record.report(&plan);
        tracing::info!(detail = report.detail, "{}: {}", report.message, shown(statement));
        if !facts.session.hushed {
            self.channel.notify(&report);
        }
        self.log(statement, &plan);
        let run = PlannedRun { plan: &plan, facts: &then, offset, told: &[], turn: None };
        let reply = self.execute_plan(run, Basis::Any, Some((*record, table, quiet))).await?;
        self.done(statement, None);
        Ok(Ok(reply))
    }

    /// Undoes what another statement has left unfinished on this table, or this one could not take back: true if it was there and is
    /// gone. With the lanes held, so that nobody is at work on it.
    ///
    /// `wanted`: of which records.
    pub(super) async fn abandoned(
        &mut self,
        table: &RelationRef,
        facts: &Facts,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<AbandonOutcome, RunError> {
        let limits = self.limits();
        let mut execution = self.execution(facts, 0);
        let Some((record, quiet)) = execution.take_record(table.oid, wanted).await? else {
            return Ok(AbandonOutcome::Nothing);
        };
        let then = record.facts(&facts.session);
        let begun = sql::parse(record.statement()).ok().and_then(|statements| statements.into_iter().next());
        let plan = begun.and_then(|begun| plan::plan(&begun, &then, &limits).ok());
        let Some(plan) = plan.filter(|plan| record.is_plan(plan)) else {
            execution.release_record(table.oid).await?;
            return Ok(AbandonOutcome::Nothing);
        };
        let mut execution = self.execution(&then, 0);
        execution.resume(record, &plan, table, quiet);
        Ok(if execution.abandon(&plan).await? { AbandonOutcome::Undone } else { AbandonOutcome::NotNow })
    }

    /// In a transaction of the client's nothing of that can be done; what the statement would find there is not told to be there
    /// either.
    pub(super) async fn refused_as_unfinished(
        &mut self,
        statement: &Statement,
        facts: &Facts,
    ) -> Result<Option<Report>, RunError> {
        let plans = self.shared.config.proxy.mode == Mode::Plan && facts.session.in_transaction;
        let Class::Ddl(ddl) = &statement.class else { return Ok(None) };
        let Some(table) = record::table_of(facts).filter(|table| plans && table.recorded) else { return Ok(None) };
        let record = self.execution(facts, 0).any_record(table.id.oid).await?;
        // Any other statement fails by what it finds, or takes it away.
        let may_skip = ddl.if_exists || ddl.if_not_exists || ddl.parts.iter().any(|part| part.missing_ok);
        if !may_skip || !record.is_some_and(|record| record.touches(ddl)) {
            return Ok(None);
        }
        let message = format!("a schema change of {} is unfinished", table.id.full_name());
        Ok(Some(
            Report::error(sqlstate::OBJECT_IN_USE, message)
                .detail("What this statement names is part of it, and may be undone.")
                .hint("Send the statement that began it, or this one, outside a transaction block: it is finished, or undone."),
        ))
    }

    /// The plan that a statement would continue, and from where, for EXPLAIN.
    pub(super) async fn explained(&mut self, statement: &Statement, facts: &Facts) -> Result<Option<String>, RunError> {
        let Some(table) = self.may_be_unfinished(statement, facts) else { return Ok(None) };
        let limits = self.limits();
        let Some(record) = self.execution(facts, 0).on_record(table.oid, &statement.text).await? else {
            return Ok(None);
        };
        let plan = plan::plan(statement, &record.facts(&facts.session), &limits).ok();
        let plan = plan.filter(|plan| record.is_of(plan, facts).is_ok());
        Ok(plan.map(|plan| {
            let report = record.report(&plan);
            format!("{}\n  {}\n{}", report.message, report.detail.unwrap_or_default(), plan::print::to_text(&plan))
        }))
    }
}
