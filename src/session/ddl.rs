//! One DDL statement through all its stages: facts, plan, execution, reply.
//!
//! Invariant: called only while the backend is idle and nothing is owed to the client.

use super::guarded::GuardOnly;
use super::statement::shown;
use super::turn::PlannedRun;
use super::{Session, Shared};
use crate::backend::BackendLost;
use crate::catalog::reading::{FactsNeeded, Question};
use crate::catalog::tree::ProbeRound;
use crate::catalog::{Facts, NamesUnknown, RelationRef, SessionFacts, building, query};
use crate::config::Mode;
use crate::execute::advisory::ClientCall;
use crate::execute::budget::SizeGuess;
use crate::execute::optimistic::OptimisticOutcome;
use crate::execute::pending_undo::{PendingUndo, RunState, UndoResult};
use crate::execute::record::Record;
use crate::execute::{Basis, Reply, Run, RunError};
use crate::lanes;
use crate::learn::{CatalogQueries, ProbeFailure, Rows, learn, learn_of_types, read};
use crate::pg::relation::quote_literal;
use crate::pg::{RelationName, sqlstate};
use crate::plan::optimistic::{self, OptimisticPlan};
use crate::plan::{self, Limits, Plan};
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::message::Batch;
use crate::wire::speech::Sayable;
use crate::wire::{error_response::ServerError, reply};
use std::time::{Duration, Instant};

/// Without an answer about its partitions a statement would have to run as it is: so it is asked for so many times.
const LOOKS: usize = 100;
const NAP: Duration = Duration::from_millis(100);
/// Parts or relations of a plan that is made in a few milliseconds. Each part may be looked at beside every other.
pub(super) const SURELY_QUICK: usize = 200;

impl Session {
    /// Runs a statement; the reply (notices and CommandComplete) is not on its way yet.
    /// `offset`: characters of the client's string before the statement.
    pub(super) async fn run_ddl(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        if let Class::AdvisoryLock(lock) = &statement.class {
            return self.advisory_lock(lock, ClientCall::Text(&statement.text), offset).await;
        }
        self.channel.forget_notices();
        match statement.class {
            Class::MayHideDdl { .. } => self.shared.metrics.texts_hiding_ddl.add(),
            _ => self.shared.metrics.ddl_seen.add(),
        }
        if matches!(statement.class, Class::Ddl(_)) && self.guard_only != GuardOnly::Yes {
            self.clear_leftovers(statement).await?;
        }
        self.look_at_block();
        let slow = self.is_slow(statement);
        let Some(first) = self.first(statement).filter(|_| !slow) else {
            return self.run_by_size(statement, offset, slow).await;
        };
        let session = self.unasked();
        let result = self.execution(&session, offset).optimistic_try(&first).await;
        match self.first_result(statement, &first, result)? {
            OptimisticOutcome::Done(reply) => Ok(reply),
            outcome => self.run_by_size(statement, offset, matches!(outcome, OptimisticOutcome::Slow)).await,
        }
    }

    /// How to try a statement behind what the client has sent of its pipeline; `None`: something is to be asked or
    /// done before.
    pub(super) fn optimistic_in_pipeline(&self, statement: &Statement) -> Option<OptimisticPlan> {
        let (database, role) = self.database_and_role();
        let leftovers = self.channel.status() == b'I' && self.shared.pending_undos().has_any(database, role);
        if leftovers { None } else { self.first(statement) }
    }

    /// Tries it, in place of the portal's Execute.
    pub(super) async fn first_try_behind(
        &mut self,
        statement: &Statement,
        offset: usize,
        first: &OptimisticPlan,
        portal: &str,
    ) -> Result<OptimisticOutcome, RunError> {
        self.channel.forget_notices();
        let session = self.unasked();
        let result = self.execution(&session, offset).optimistic_try_in_pipeline(first, portal).await;
        if !matches!(result, Ok(OptimisticOutcome::ClientFailed)) {
            self.shared.metrics.ddl_seen.add();
        }
        self.first_result(statement, first, result)
    }

    /// What most statements come to before anything is asked.
    pub(super) fn first(&self, statement: &Statement) -> Option<OptimisticPlan> {
        if self.guard_only == GuardOnly::Yes || self.channel.speech().is_in_private(&statement.text) {
            return None;
        }
        if matches!(&statement.class, Class::Ddl(ddl) if ddl.parts.len() > SURELY_QUICK) {
            return None;
        }
        let first = optimistic::optimistic(statement, self.channel.status() != b'I', &self.limits());
        first.filter(|first| !self.misses_again(first))
    }

    /// All that is known of the session without a question.
    pub(super) fn unasked(&self) -> Facts {
        let in_transaction = self.channel.status() != b'I';
        Facts { session: SessionFacts { in_transaction, ..SessionFacts::default() }, ..Facts::default() }
    }

    fn first_result(
        &mut self,
        statement: &Statement,
        first: &OptimisticPlan,
        result: Result<OptimisticOutcome, RunError>,
    ) -> Result<OptimisticOutcome, RunError> {
        match &result {
            Ok(OptimisticOutcome::Done(_)) => {
                self.shared.metrics.ddl_planned.add();
                self.log(statement, &first.plan);
                self.done(statement, Some(first));
            }
            Ok(OptimisticOutcome::NotSo | OptimisticOutcome::Slow) => self.remember_miss(first),
            Ok(_) => {}
            Err(stop) => self.not_done(&first.plan, stop),
        }
        result
    }

    pub(super) fn execution<'a>(&'a mut self, facts: &'a Facts, offset: usize) -> Run<'a> {
        let Shared { config, metrics, .. } = &*self.shared;
        let (begun, learned, memory) = (Instant::now(), Vec::new(), RunState::default());
        let pace = if self.nothing_is_small() { SizeGuess::Slow } else { SizeGuess::Any };
        let (turn, basis) = (None, Basis::Any);
        Run {
            channel: &mut self.channel,
            config,
            metrics,
            facts,
            offset,
            begun,
            learned_names: learned,
            state: memory,
            turn,
            basis,
            size_guess: pace,
        }
    }

    pub(super) fn not_done(&self, plan: &Plan, stop: &RunError) {
        self.shared.metrics.ddl_failed.add();
        tracing::info!(tag = plan.tag, reason = stop.reason(), "a schema change did not come to its end");
    }

    /// `unfinished`: what a dead session has done of it, with the table of its record, and whether that is written quietly.
    pub(super) async fn execute_plan(
        &mut self,
        run: PlannedRun<'_>,
        basis: Basis,
        unfinished: Option<(Record, &RelationRef, bool)>,
    ) -> Result<Reply, RunError> {
        let PlannedRun { plan, facts, offset, told, turn } = run;
        let small = self.limits().small_table > 0 && plan.phases.len() == 1;
        let mut execution = self.execution(facts, offset);
        (execution.turn, execution.basis) = (turn, basis);
        if small {
            execution.size_guess = SizeGuess::Small;
        }
        if let Some((record, table, quiet)) = unfinished {
            execution.resume(record, plan, table, quiet);
        }
        let result = execution.run(plan, told).await;
        if let Some(pending) = execution.state.pending_undo.take() {
            let (database, role) = self.database_and_role();
            self.shared.pending_undos().keep(database, role, pending);
        }
        match &result {
            // It is planned again.
            Err(RunError::Stale | RunError::Slow) => {}
            Err(stop) => {
                self.shared.metrics.ddl_planned.add();
                self.not_done(plan, stop);
            }
            Ok(_) => self.shared.metrics.ddl_planned.add(),
        }
        result
    }

    /// As libpq has it: the database of the role's name.
    pub(super) fn database_and_role(&self) -> (&str, &str) {
        let (database, role) = (self.parameters.database.as_str(), self.parameters.user.as_str());
        (if database.is_empty() { role } else { database }, role)
    }

    /// Undoes what sessions of this role have left that are gone. In a transaction of the client's it would have to be
    /// part of it: then it is left to the next statement.
    ///
    /// What `statement` may continue is not undone: its record tells whether it did (`execute/record.rs`).
    async fn clear_leftovers(&mut self, statement: &Statement) -> Result<(), RunError> {
        let mut continued = Vec::new();
        let result = self.clear_all_but(statement, &mut continued).await;
        let (database, role) = self.database_and_role();
        continued.into_iter().for_each(|pending| self.shared.pending_undos().keep(database, role, pending));
        result
    }

    async fn clear_all_but(&mut self, statement: &Statement, continued: &mut Vec<PendingUndo>) -> Result<(), RunError> {
        // Where only ASCII can be said, it is left to another session of the role's.
        while self.channel.status() == b'I' && self.channel.speech().sayable() != Sayable::Ascii {
            let (database, role) = self.database_and_role();
            let Some(pending) = self.shared.pending_undos().take(database, role) else { break };
            if pending.job.as_ref().is_some_and(|job| job.statement == statement.text) {
                continued.push(pending);
                continue;
            }
            let result = self.clear(&pending).await;
            let (database, role) = self.database_and_role();
            match result {
                Ok(UndoResult::Nothing) => {}
                Ok(UndoResult::Undone(done)) => {
                    let report = pending.report(&done);
                    tracing::info!(role, database, "{}: {}", report.message, done.join("; "));
                    self.channel.notify(&report);
                }
                Ok(UndoResult::Later) => {
                    self.shared.pending_undos().keep(database, role, pending);
                    break;
                }
                Err(stop) => {
                    self.shared.pending_undos().keep(database, role, pending);
                    if matches!(&stop, RunError::Server(error) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE)
                    {
                        break;
                    }
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    async fn clear(&mut self, pending: &PendingUndo) -> Result<UndoResult, RunError> {
        let facts = self.facts_of(&[], FactsNeeded::Itself).await?;
        self.execution(&facts, 0).undo_pending(pending).await
    }

    pub(super) fn log(&self, statement: &Statement, plan: &Plan) {
        self.log_line(&plan.tag, plan.phases.len(), plan.answer.is_some(), shown(statement));
    }

    pub(super) fn log_line(&self, tag: &str, phases: usize, answered: bool, shown: &str) {
        let parameters = &self.parameters;
        tracing::info!(
            user = parameters.user,
            database = parameters.database,
            application = parameters.application_name,
            tag,
            phases,
            answered,
            "{shown}"
        );
    }

    pub(super) fn limits(&self) -> Limits {
        let limits = self.shared.limits();
        if self.nothing_is_small() { Limits { small_table: 0, ..limits } } else { limits }
    }

    /// What is true of the relations that a statement names, and what it would do to them.
    pub(super) async fn facts(&mut self, statement: &Statement) -> Result<Facts, RunError> {
        if matches!(&statement.class, Class::Ddl(ddl) if ddl.names_too_much()) {
            return self.facts_without_names(NamesUnknown::TooMuch).await;
        }
        if self.channel.speech().is_in_private(&statement.text) {
            return self.facts_without_names(NamesUnknown::Encoding).await;
        }
        self.channel.take_unsayable();
        match self.facts_by_name(statement).await {
            Err(RunError::Server(error)) if self.is_of_encodings(&error) => {
                self.facts_without_names(NamesUnknown::Encoding).await
            }
            Ok(facts) if self.channel.take_unsayable() || self.may_meet_unsayable(&facts) => {
                self.facts_without_names(NamesUnknown::Encoding).await
            }
            facts => facts,
        }
    }

    /// A question failed: the server could not turn something into the client's encoding or into UTF-8, or it was about a name
    /// that cannot be said.
    fn is_of_encodings(&self, error: &ServerError) -> bool {
        let untranslatable =
            matches!(error.sqlstate(), sqlstate::UNTRANSLATABLE_CHARACTER | sqlstate::CHARACTER_NOT_IN_REPERTOIRE);
        untranslatable || (self.channel.take_unsayable() && error.sqlstate() != sqlstate::QUERY_CANCELED)
    }

    /// Whether what runs will come upon names that were not read yet: those of partitions and children.
    fn may_meet_unsayable(&self, facts: &Facts) -> bool {
        let mut found = facts.relations.iter().filter_map(|asked| asked.found.as_ref());
        self.channel.speech().sayable() == Sayable::Ascii && found.any(|relation| relation.has_children)
    }

    /// What is known where nothing can be asked about what the statement names.
    async fn facts_without_names(&mut self, why: NamesUnknown) -> Result<Facts, RunError> {
        tracing::debug!(?why, "nothing is asked about what a statement names");
        if self.channel.status() == b'E' {
            let mut batch = Batch::new();
            batch.statement("ROLLBACK TO SAVEPOINT pgsluice", &[]);
            batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
            self.channel.ask(batch, None).await?;
        }
        let facts = self.facts_of(&[], FactsNeeded::Itself).await?;
        Ok(Facts { nameless: Some(why), ..facts })
    }

    async fn facts_by_name(&mut self, statement: &Statement) -> Result<Facts, RunError> {
        if let Some(facts) = self.facts_of_a_build(statement).await? {
            return Ok(facts);
        }
        let mut facts = self.facts_of(&query::relations_of(statement), plan::wants(statement)).await?;
        if let (Class::Ddl(ddl), Mode::Plan) = (&statement.class, self.shared.config.proxy.mode) {
            let table = ddl.targets.first().and_then(|name| facts.relation(name)).cloned();
            let limits = self.limits();
            match facts.session.may_probe && !facts.session.in_transaction {
                true => learn(self, statement, table.as_ref(), &limits, &mut facts).await?,
                false => learn_of_types(self, statement, table.as_ref(), &limits, &mut facts).await?,
            }
        }
        Ok(facts)
    }

    /// The few that most concurrent builds need.
    async fn facts_of_a_build(&mut self, statement: &Statement) -> Result<Option<Facts>, RunError> {
        let Some(question) = building::question(statement).filter(|_| self.channel.status() == b'I') else {
            return Ok(None);
        };
        let (sql, parameters) = question.as_asked();
        let answer = self.text(sql, &parameters).await?;
        Ok(answer.and_then(|json| building::facts(statement, &json)))
    }

    pub(super) async fn facts_of(&mut self, names: &[RelationName], wanted: FactsNeeded) -> Result<Facts, RunError> {
        let mut facts = read(self, names, wanted)
            .await?
            .map_err(|why| RunError::Report(Report::error(sqlstate::INTERNAL_ERROR, why)))?;
        facts.session.in_transaction = self.channel.status() != b'I';
        Ok(facts)
    }

    /// The plan of a statement, or why it has none.
    async fn plan_in_words(&mut self, statement: &Statement) -> Result<String, RunError> {
        if self.only_guards().await? {
            return Ok("as written, under lock attempts: this session may not ask for what a plan needs".to_owned());
        }
        let facts = self.facts(statement).await?;
        if let Some(continued) = self.explained(statement, &facts).await? {
            return Ok(continued);
        }
        Ok(match plan::plan(statement, &facts, &self.limits()) {
            Ok(plan) => plan::print::to_text(&plan),
            Err(refusal) => refusal.report.to_string(),
        })
    }

    /// The plan of a statement as the query that gives its lines.
    pub(super) async fn explain(&mut self, statement: &Statement) -> Result<String, BackendLost> {
        let lines = match self.plan_in_words(statement).await {
            Ok(lines) => lines,
            Err(RunError::Server(error)) => format!("{}: {}", error.sqlstate(), error.message()),
            Err(RunError::Report(report)) => report.to_string(),
            Err(RunError::ClientGone | RunError::Lost) => return Err(BackendLost),
            Err(stop @ (RunError::Stale | RunError::Slow)) => stop.reason(),
        };
        let rows: Vec<String> = lines.lines().map(|line| format!("({})", quote_literal(line))).collect();
        Ok(format!("SELECT line AS \"QUERY PLAN\" FROM (VALUES {}) AS plan(line)", rows.join(", ")))
    }
}

impl CatalogQueries for Session {
    type Error = RunError;

    /// A cancel is the whole statement's.
    async fn rolled_back(&mut self, statements: &[&str]) -> Result<Result<Rows, ProbeFailure>, RunError> {
        let (batch, before) = guarded_batch(statements.iter().copied());
        let answer = self.answered_and_rolled_back(batch).await?;
        Ok(answer.map_err(|(done, error)| {
            // What fails ahead of them counts as the first.
            ProbeFailure { nth: done.saturating_sub(before), sqlstate: error.sqlstate().to_owned() }
        }))
    }

    /// A table that somebody else changes just now is looked at again.
    async fn behind(&mut self, round: &ProbeRound) -> Result<Option<String>, RunError> {
        let parameters: Vec<&str> = round.parameters.iter().map(String::as_str).collect();
        for _ in 0..LOOKS {
            let (mut batch, _) = guarded_batch(round.first.iter().map(String::as_str));
            self.channel.put_question(&mut batch, &round.question, &parameters);
            match self.answered_and_rolled_back(batch).await? {
                Ok(rows) => {
                    let value = rows.into_iter().next_back().and_then(|row| row.into_iter().next()?);
                    return Ok(value.map(|text| self.channel.text(&text)));
                }
                Err((_, error)) if error.sqlstate() == sqlstate::LOCK_NOT_AVAILABLE => self.nap_before_a_look().await?,
                Err(_) => break,
            }
        }
        Ok(None)
    }

    async fn texts(&mut self, questions: &[Question]) -> Result<Vec<String>, RunError> {
        let asked: Vec<(&str, Vec<&str>)> = questions.iter().map(Question::as_asked).collect();
        let answer = match self.channel.questions(&asked).await?.ok() {
            Ok(answer) => answer,
            Err(error) => return Err(RunError::Server(ServerError::new(error.with_position(|_| None)))),
        };
        let values = answer.rows.iter().map(|row| row.first().and_then(Option::as_deref).unwrap_or_default());
        Ok(values.map(|value| self.channel.text(value)).collect())
    }

    async fn text(&mut self, sql: &str, parameters: &[&str]) -> Result<Option<String>, RunError> {
        let answer = self.channel.question(sql, parameters).await?;
        Ok(answer.value().map(|value| self.channel.text(value)))
    }
}

impl Session {
    /// The rows of a batch that begins a transaction, or its error behind so many statements.
    async fn answered_and_rolled_back(&mut self, batch: Batch) -> Result<Result<Rows, (usize, ServerError)>, RunError> {
        let answer = self.channel.ask(batch, None).await?;
        self.channel.ask_one("ROLLBACK", &[]).await?;
        let Some(error) = answer.error else { return Ok(Ok(answer.rows)) };
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            self.channel.take_cancelled();
            return Err(RunError::Server(ServerError::new(error.with_position(|_| None))));
        }
        tracing::debug!(sqlstate = error.sqlstate(), "what was asked on an empty copy was not answered");
        Ok(Err((answer.done, error)))
    }

    async fn nap_before_a_look(&mut self) -> Result<(), RunError> {
        if self.channel.client_gone() {
            return Err(RunError::ClientGone);
        }
        let nap = lanes::nap_sql(NAP, "waiting to look at a table that somebody else changes");
        let Some(error) = self.channel.ask_one(&nap, &[]).await?.error else { return Ok(()) };
        self.channel.take_cancelled();
        Err(RunError::Server(ServerError::new(error.with_position(|_| None))))
    }
}

/// A transaction of these statements, none of which waits long for a lock; and how many stand before them.
fn guarded_batch<'a>(statements: impl Iterator<Item = &'a str>) -> (Batch, usize) {
    let mut batch = Batch::new();
    batch.statement("BEGIN", &[]);
    batch.statement("SET LOCAL lock_timeout = 50", &[]);
    let before = batch.statements;
    statements.for_each(|sql| batch.statement(sql, &[]));
    (batch, before)
}

pub(super) fn elided(plan: &Plan, reports: impl Iterator<Item = Report>) -> Reply {
    let mut done = Reply::default();
    for report in reports {
        reply::put_report(&mut done.frames, &report);
    }
    reply::put_command_complete(&mut done.frames, &plan.tag);
    done
}
