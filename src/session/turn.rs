//! One schema change in its turn: lanes first, then facts, then the plan, then the run.
//!
//! It promises: a plan is never older than the wait before it. Whoever has waited for a lane, for a lock, or for a record reads the facts
//! again and plans again; what another session has under way is never told as done.

use super::Session;
use super::ddl::{SURELY_QUICK, elided};
use super::unfinished::AbandonOutcome;
use crate::catalog::reading::FactsNeeded;
use crate::catalog::{Facts, query, version};
use crate::config::Mode;
use crate::execute::record::Record;
use crate::execute::run::Basis;
use crate::execute::take_turn::{self, MOST};
use crate::execute::turn::Turn;
use crate::execute::{Reply, RunError};
use crate::lanes::lanes_of;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{self, Plan};
use crate::report::{Report, in_words};
use crate::sql::{Class, Statement};
use std::collections::BTreeSet;
use std::time::Instant;

/// A table that somebody changes all the time is not looked at for ever.
const PLANS: usize = 50;

impl Session {
    /// With all that its plan depends on.
    pub(super) async fn run_fully(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        if self.only_guards().await? {
            return self.guard_only(statement, offset).await;
        }
        let mut names = query::relations_of(statement);
        // What cannot be said in this session's encoding is not asked for; of very many the server would have to keep too much.
        if names.len() > MOST || self.channel.speech().is_in_private(&statement.text) {
            names.clear();
        }
        let mut turn = Turn::default();
        let result = match self.take_turn(&names, &BTreeSet::new(), &mut turn).await {
            Ok(()) => self.in_turn(statement, offset, &names, &mut turn).await,
            Err(stop) => Err(stop),
        };
        if !matches!(result, Err(RunError::Lost)) {
            let session = self.unasked();
            take_turn::end_turn(&mut self.context(&session, 0), &mut turn).await?;
        }
        result
    }

    /// `more`: lanes besides those of what the statement names.
    async fn take_turn(
        &mut self,
        names: &[RelationName],
        more: &BTreeSet<u32>,
        turn: &mut Turn,
    ) -> Result<(), RunError> {
        if names.is_empty() {
            *turn = Turn::of_nothing();
            return Ok(());
        }
        let more: Vec<u32> = more.iter().copied().collect();
        let session = self.unasked();
        *turn = take_turn::try_turn(&mut self.context(&session, 0), names, &more).await?;
        if !turn.is_busy() {
            return Ok(());
        }
        // What the session's timeouts are, and what its transaction holds.
        let facts = self.facts_of(&[], FactsNeeded::Itself).await?;
        let inside = facts.session.in_transaction && facts.session.holds;
        let patience = inside.then_some(self.shared.config.locks.stall_budget);
        *turn = take_turn::wait_for_turn(&mut self.context(&facts, 0), names, &more, patience).await?;
        Ok(())
    }

    async fn in_turn(
        &mut self,
        statement: &Statement,
        offset: usize,
        names: &[RelationName],
        turn: &mut Turn,
    ) -> Result<Reply, RunError> {
        let mut told: Vec<Report> = Vec::new();
        let mut basis = Basis::Fresh;
        let begun = Instant::now();
        let mut plans = 0;
        loop {
            let mut facts = match self.facts(statement).await {
                Err(RunError::Server(error)) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE => {
                    self.refused(&error).await?;
                    return self.guard_only(statement, offset).await;
                }
                facts => facts?,
            };
            if let Some(table) = self.may_be_unfinished(statement, &facts) {
                match self.continued(statement, &table, facts, offset).await? {
                    Ok(reply) => return Ok(reply),
                    Err(as_they_are) => facts = as_they_are,
                }
            }
            if self.has_waited_for_the_end(statement, &facts, names).await? {
                continue;
            }
            let plan = self.planned(statement, &facts).await?;
            if self.has_cleared_the_way(statement, &facts, &plan, begun).await? {
                continue;
            }
            if plan.answer.is_some() && facts.session.in_transaction && self.has_to_wait(names).await? {
                continue;
            }
            if plans == 0 {
                self.log(statement, &plan);
            }
            if let Some(reports) = &plan.answer {
                self.shared.metrics.ddl_elided.add();
                self.done(statement, None);
                let heard = if facts.session.hushed { &[] } else { reports.as_slice() };
                return Ok(elided(&plan, heard.iter().map(|report| self.channel.worded(report))));
            }
            let wanted = lanes_besides(&plan, turn);
            take_turn::extend_turn(&mut self.context(&facts, 0), turn, &wanted).await?;
            if turn.is_busy() && !facts.session.in_transaction {
                self.take_turn(names, &wanted, turn).await?;
                basis = Basis::Fresh;
                continue;
            }
            let run = PlannedRun { plan: &plan, facts: &facts, offset, told: &told, turn: Some(&*turn) };
            match self.execute_plan(run, std::mem::take(&mut basis), None).await {
                Err(RunError::Stale) => {}
                Err(stop) => return Err(stop),
                Ok(reply) => {
                    self.done(statement, None);
                    return Ok(reply);
                }
            }
            told = plan.notes;
            plans += 1;
            // What is changed as fast as it is looked at: the next plan is as good as any.
            basis = if plans < PLANS { self.basis(&facts).await? } else { Basis::Any };
        }
    }

    async fn planned(&mut self, statement: &Statement, facts: &Facts) -> Result<Plan, RunError> {
        let limits = self.limits();
        let parts = if let Class::Ddl(ddl) = &statement.class { ddl.parts.len() } else { 0 };
        let planned = if parts.max(facts.relations.len()) <= SURELY_QUICK {
            plan::plan(statement, facts, &limits)
        } else {
            // Apart, as there is much to look at.
            let (statement, facts) = (statement.clone(), facts.clone());
            self.aside(move || plan::plan(&statement, &facts, &limits)).await.ok_or(RunError::ClientGone)?
        };
        match planned {
            Ok(plan) => Ok(plan),
            Err(refusal) => {
                self.shared.metrics.ddl_refused.add();
                if self.channel.status() == b'T' {
                    self.fail_block().await?;
                }
                Err(RunError::Report(refusal.report))
            }
        }
    }

    /// What a plan that is made next rests on: the catalogue's rows of now.
    async fn basis(&mut self, facts: &Facts) -> Result<Basis, RunError> {
        if facts.session.in_transaction || self.shared.config.proxy.mode != Mode::Plan {
            return Ok(Basis::Any);
        }
        let version = version::version_of(facts);
        let answer = self.channel.ask_one(&format!("SELECT {version}"), &[]).await?;
        Ok(match answer.value() {
            Some(text) => Basis::While(version::is_still(&version, text)),
            None => Basis::Any,
        })
    }

    /// In a transaction: whether what the statement names was half done, and somebody has finished or undone it meanwhile.
    async fn has_waited_for_the_end(
        &mut self,
        statement: &Statement,
        facts: &Facts,
        names: &[RelationName],
    ) -> Result<bool, RunError> {
        let Some(report) = self.refused_as_unfinished(statement, facts).await? else { return Ok(false) };
        if self.has_to_wait(names).await? {
            return Ok(true);
        }
        self.fail_block().await?;
        Err(RunError::Report(report))
    }

    /// Whether somebody was at work on what would be told to be done already. In a transaction no lane is had, and one that holds locks has not
    /// waited for its turn: now it has, for as long as for any lock.
    async fn has_to_wait(&mut self, names: &[RelationName]) -> Result<bool, RunError> {
        let session = self.unasked();
        if names.is_empty() || !take_turn::try_turn(&mut self.context(&session, 0), names, &[]).await?.is_busy() {
            return Ok(false);
        }
        let facts = self.facts_of(&[], FactsNeeded::Itself).await?;
        let turn = take_turn::wait_for_turn(&mut self.context(&facts, 0), names, &[], None).await?;
        Ok(turn.is_free())
    }

    /// Undoes a change that was left unfinished: what its own session could not take back, in any case; what another statement has left,
    /// where this one names the same things, or would do worse because of it. True: look again.
    async fn has_cleared_the_way(
        &mut self,
        statement: &Statement,
        facts: &Facts,
        plan: &Plan,
        begun: Instant,
    ) -> Result<bool, RunError> {
        let Some(table) = self.may_be_unfinished(statement, facts) else { return Ok(false) };
        let Class::Ddl(ddl) = &statement.class else { return Ok(false) };
        let warns = plan.notes.iter().any(Report::is_warning);
        // The same statement that could not be continued has said why, and the server says what is there.
        let another = |record: &Record| record.statement() != statement.text && (warns || record.touches(ddl));
        let wanted = |record: &Record| record.is_undoing() || another(record);
        match self.abandoned(&table, facts, wanted).await? {
            AbandonOutcome::Nothing => Ok(false),
            AbandonOutcome::Undone => Ok(true),
            AbandonOutcome::NotNow if begun.elapsed() < self.shared.config.locks.deadline => {
                // Undoing is not ended by a cancel: what is to come of it is.
                self.context(facts, 0).interrupted().map_or(Ok(true), Err)
            }
            AbandonOutcome::NotNow => Err(RunError::Report(
                Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
                    .detail(format!(
                        "A schema change of {} is unfinished, and could not be undone in {}.",
                        table.full_name(),
                        in_words(begun.elapsed())
                    ))
                    .hint("Try again when nobody uses the table for long."),
            )),
        }
    }
}

/// A plan that is to be run.
pub(super) struct PlannedRun<'r> {
    pub(super) plan: &'r Plan,
    pub(super) facts: &'r Facts,
    pub(super) offset: usize,
    /// Notes that the client has had.
    pub(super) told: &'r [Report],
    pub(super) turn: Option<&'r Turn>,
}

/// The lanes of what a plan locks and its statement does not name; none if there are too many to hold them all.
fn lanes_besides(plan: &Plan, turn: &Turn) -> BTreeSet<u32> {
    let lanes: BTreeSet<u32> = plan.phases.iter().flat_map(|phase| lanes_of(&phase.locks)).collect();
    let besides: BTreeSet<u32> = lanes.into_iter().filter(|oid| *oid != 0 && !turn.has(*oid)).collect();
    if besides.len() > MOST { BTreeSet::new() } else { besides }
}
