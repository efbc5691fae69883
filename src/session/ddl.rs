//! One DDL statement through all its stages: facts, plan, execution, reply.
//!
//! Invariant: called only while the backend is idle and nothing is owed to the client.

use super::{Session, Shared};
use crate::backend::BackendLost;
use crate::catalog::reading::{Question, Wanted};
use crate::catalog::tree::Round;
use crate::catalog::{Facts, RelationRef, SessionFacts, building, query};
use crate::config::{Mode, Unsafe};
use crate::execute::budget::Pace;
use crate::execute::first::Outcome;
use crate::execute::leftover::{Cleared, Leftover, Memory};
use crate::execute::record::Record;
use crate::execute::{Execution, Reply, Stop};
use crate::lanes;
use crate::learn::{Asking, Failed, Rows, learn, read};
use crate::pg::relation::quote_literal;
use crate::pg::{RelationName, sqlstate};
use crate::plan::first::{self, First};
use crate::plan::{self, Limits, Plan};
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::message::Batch;
use crate::wire::{error_response::ServerError, reply};
use std::time::{Duration, Instant};

/// Without an answer about its partitions a statement would have to run as it is: so it is asked for so many times.
const LOOKS: usize = 100;
const NAP: Duration = Duration::from_millis(100);

impl Session {
    /// Runs a statement; the reply (notices and CommandComplete) is not on its way yet.
    /// `offset`: characters of the client's string before the statement.
    pub(super) async fn run_ddl(&mut self, statement: &Statement, offset: usize) -> Result<Reply, Stop> {
        match statement.class {
            Class::MayHideDdl { .. } => self.shared.metrics.texts_hiding_ddl.add(),
            _ => self.shared.metrics.ddl_seen.add(),
        }
        if matches!(statement.class, Class::Ddl(_)) {
            self.clear_leftovers(statement).await?;
        }
        self.look_at_block();
        let slow = self.is_slow(statement);
        let Some(first) = self.first(statement).filter(|_| !slow) else {
            return self.at_its_pace(statement, offset, slow).await;
        };
        let session = self.unasked();
        let result = self.execution(&session, offset).first_try(&first).await;
        match self.first_result(statement, &first, result)? {
            Outcome::Done(reply) => Ok(reply),
            outcome => self.at_its_pace(statement, offset, matches!(outcome, Outcome::Slow)).await,
        }
    }

    /// How to try a statement behind what the client has sent of its pipeline; `None`: something is to be asked or
    /// done before.
    pub(super) fn first_behind(&self, statement: &Statement) -> Option<First> {
        let (database, role) = self.database_and_role();
        let leftovers = self.talk.link.status == b'I' && self.shared.leftovers.has_any(database, role);
        if leftovers { None } else { self.first(statement) }
    }

    /// Tries it, in place of the portal's Execute.
    pub(super) async fn first_try_behind(
        &mut self,
        statement: &Statement,
        offset: usize,
        first: &First,
        portal: &str,
    ) -> Result<Outcome, Stop> {
        let session = self.unasked();
        let result = self.execution(&session, offset).first_try_behind(first, portal).await;
        if !matches!(result, Ok(Outcome::ClientFailed)) {
            self.shared.metrics.ddl_seen.add();
        }
        self.first_result(statement, first, result)
    }

    /// With all that its plan depends on.
    pub(super) async fn run_fully(&mut self, statement: &Statement, offset: usize) -> Result<Reply, Stop> {
        tracing::debug!("facts are asked for: {}", shown(statement));
        let mut facts = self.facts(statement).await?;
        if let Some(table) = self.may_be_unfinished(statement, &facts) {
            match self.continued(statement, &table, facts, offset).await? {
                Ok(reply) => return Ok(reply),
                Err(as_they_are) => facts = as_they_are,
            }
        }
        let plan = match plan::plan(statement, &facts, &self.limits()) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.shared.metrics.ddl_refused.add();
                if self.talk.link.status == b'T' {
                    self.fail_block().await?;
                }
                return Err(Stop::Report(refusal.report));
            }
        };
        self.log(statement, &plan);
        if let Some(reports) = &plan.answer {
            self.shared.metrics.ddl_elided.add();
            self.done(statement, None);
            let heard = if facts.session.hushed { &[] } else { reports.as_slice() };
            return Ok(elided(&plan, heard));
        }
        let reply = self.execute_plan(&plan, &facts, offset, None).await?;
        self.done(statement, None);
        Ok(reply)
    }

    /// What most statements come to before anything is asked.
    pub(super) fn first(&self, statement: &Statement) -> Option<First> {
        let first = first::first(statement, self.talk.link.status != b'I', &self.limits());
        first.filter(|first| !self.is_vain(first))
    }

    /// All that is known of the session without a question.
    pub(super) fn unasked(&self) -> Facts {
        let in_transaction = self.talk.link.status != b'I';
        Facts { session: SessionFacts { in_transaction, ..SessionFacts::default() }, ..Facts::default() }
    }

    fn first_result(
        &mut self,
        statement: &Statement,
        first: &First,
        result: Result<Outcome, Stop>,
    ) -> Result<Outcome, Stop> {
        match &result {
            Ok(Outcome::Done(_)) => {
                self.shared.metrics.ddl_planned.add();
                self.log(statement, &first.plan);
                self.done(statement, Some(first));
            }
            Ok(Outcome::NotSo | Outcome::Slow) => self.remember_vain(first),
            Ok(_) => {}
            Err(stop) => self.not_done(&first.plan, stop),
        }
        result
    }

    pub(super) fn execution<'a>(&'a mut self, facts: &'a Facts, offset: usize) -> Execution<'a> {
        let Shared { config, metrics, .. } = &*self.shared;
        let (begun, learned, memory) = (Instant::now(), Vec::new(), Memory::default());
        let pace = if self.nothing_is_small() { Pace::Slow } else { Pace::Any };
        Execution { talk: &mut self.talk, config, metrics, facts, offset, begun, learned, memory, pace }
    }

    pub(super) fn not_done(&self, plan: &Plan, stop: &Stop) {
        self.shared.metrics.ddl_failed.add();
        tracing::info!(tag = plan.tag, reason = stop.reason(), "a schema change did not come to its end");
    }

    /// `unfinished`: what a dead session has done of it, with the table of its record, and whether that is written quietly.
    pub(super) async fn execute_plan(
        &mut self,
        plan: &Plan,
        facts: &Facts,
        offset: usize,
        unfinished: Option<(Record, &RelationRef, bool)>,
    ) -> Result<Reply, Stop> {
        self.shared.metrics.ddl_planned.add();
        let small = self.limits().small_table > 0 && plan.phases.len() == 1;
        let mut execution = self.execution(facts, offset);
        if small {
            execution.pace = Pace::Small;
        }
        if let Some((record, table, quiet)) = unfinished {
            execution.resume(record, plan, table, quiet);
        }
        let result = execution.run(plan).await;
        if let Some(leftover) = execution.memory.left.take() {
            let (database, role) = self.database_and_role();
            self.shared.leftovers.keep(database, role, leftover);
        }
        if let Some(stop) = result.as_ref().err().filter(|stop| !matches!(stop, Stop::Slow)) {
            self.not_done(plan, stop);
        }
        result
    }

    /// As libpq has it: the database of the role's name.
    fn database_and_role(&self) -> (&str, &str) {
        let (database, role) = (self.parameters.database.as_str(), self.parameters.user.as_str());
        (if database.is_empty() { role } else { database }, role)
    }

    /// Undoes what sessions of this role have left that are gone. In a transaction of the client's it would have to be
    /// part of it: then it is left to the next statement.
    ///
    /// What `statement` may continue is not undone: its record tells whether it did (`execute/record.rs`).
    async fn clear_leftovers(&mut self, statement: &Statement) -> Result<(), Stop> {
        let mut continued = Vec::new();
        let result = self.clear_all_but(statement, &mut continued).await;
        let (database, role) = self.database_and_role();
        continued.into_iter().for_each(|leftover| self.shared.leftovers.keep(database, role, leftover));
        result
    }

    async fn clear_all_but(&mut self, statement: &Statement, continued: &mut Vec<Leftover>) -> Result<(), Stop> {
        while self.talk.link.status == b'I' {
            let (database, role) = self.database_and_role();
            let Some(leftover) = self.shared.leftovers.take(database, role) else { break };
            if leftover.job.as_ref().is_some_and(|job| job.statement == statement.text) {
                continued.push(leftover);
                continue;
            }
            let result = self.clear(&leftover).await;
            let (database, role) = self.database_and_role();
            match result {
                Ok(Cleared::Nothing) => {}
                Ok(Cleared::Undone(done)) => {
                    let report = leftover.report(&done);
                    tracing::info!(role, database, "{}: {}", report.message, done.join("; "));
                    self.talk.tell(&report);
                }
                Ok(Cleared::Later) => {
                    self.shared.leftovers.keep(database, role, leftover);
                    break;
                }
                Err(stop) => {
                    self.shared.leftovers.keep(database, role, leftover);
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    async fn clear(&mut self, leftover: &Leftover) -> Result<Cleared, Stop> {
        let facts = self.facts_of(&[], Wanted::Itself).await?;
        self.execution(&facts, 0).clear(leftover).await
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
        let ddl = &self.shared.config.ddl;
        Limits {
            small_table: if self.nothing_is_small() { 0 } else { ddl.small_table },
            rewrite: self.shared.config.proxy.mode == Mode::Plan,
            refuse_unsafe: ddl.unsafe_ddl == Unsafe::Refuse,
            refuse_exclude: ddl.exclude == Unsafe::Refuse,
        }
    }

    /// What is true of the relations that a statement names, and what it would do to them.
    pub(super) async fn facts(&mut self, statement: &Statement) -> Result<Facts, Stop> {
        if let Some(facts) = self.facts_of_a_build(statement).await? {
            return Ok(facts);
        }
        let mut facts = self.facts_of(&query::relations_of(statement), plan::wants(statement)).await?;
        let asks = self.shared.config.proxy.mode == Mode::Plan && facts.session.may_probe;
        if let (Class::Ddl(ddl), true, false) = (&statement.class, asks, facts.session.in_transaction) {
            let table = ddl.targets.first().and_then(|name| facts.relation(name)).cloned();
            let limits = self.limits();
            learn(self, statement, table.as_ref(), &limits, &mut facts).await?;
        }
        Ok(facts)
    }

    /// The few that most concurrent builds need.
    async fn facts_of_a_build(&mut self, statement: &Statement) -> Result<Option<Facts>, Stop> {
        let Some(question) = building::question(statement).filter(|_| self.talk.link.status == b'I') else {
            return Ok(None);
        };
        let (sql, parameters) = question.as_asked();
        let answer = self.text(sql, &parameters).await?;
        Ok(answer.and_then(|json| building::facts(statement, &json)))
    }

    async fn facts_of(&mut self, names: &[RelationName], wanted: Wanted) -> Result<Facts, Stop> {
        let mut facts = read(self, names, wanted)
            .await?
            .map_err(|why| Stop::Report(Report::error(sqlstate::INTERNAL_ERROR, why)))?;
        facts.session.in_transaction = self.talk.link.status != b'I';
        Ok(facts)
    }

    /// The plan of a statement, or why it has none.
    async fn plan_in_words(&mut self, statement: &Statement) -> Result<String, Stop> {
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
            Err(Stop::Server(error)) => format!("{}: {}", error.sqlstate(), error.message()),
            Err(Stop::Report(report)) => report.to_string(),
            Err(Stop::ClientGone | Stop::Slow | Stop::Lost) => return Err(BackendLost),
        };
        let rows: Vec<String> = lines.lines().map(|line| format!("({})", quote_literal(line))).collect();
        Ok(format!("SELECT line AS \"QUERY PLAN\" FROM (VALUES {}) AS plan(line)", rows.join(", ")))
    }
}

impl Asking for Session {
    type Stop = Stop;

    /// A cancel is the whole statement's.
    async fn rolled_back(&mut self, statements: &[&str]) -> Result<Result<Rows, Failed>, Stop> {
        let (batch, before) = guarded_batch(statements.iter().copied());
        let answer = self.answered_and_rolled_back(batch).await?;
        Ok(answer.map_err(|(done, error)| {
            // What fails ahead of them counts as the first.
            Failed { nth: done.saturating_sub(before), sqlstate: error.sqlstate().to_owned() }
        }))
    }

    /// A table that somebody else changes just now is looked at again.
    async fn behind(&mut self, round: &Round) -> Result<Option<String>, Stop> {
        let parameters: Vec<&str> = round.parameters.iter().map(String::as_str).collect();
        for _ in 0..LOOKS {
            let (mut batch, _) = guarded_batch(round.first.iter().map(String::as_str));
            self.talk.put_question(&mut batch, round.question, &parameters);
            match self.answered_and_rolled_back(batch).await? {
                Ok(rows) => {
                    let value = rows.into_iter().next_back().and_then(|row| row.into_iter().next()?);
                    return Ok(value.map(|text| self.talk.text(&text)));
                }
                Err((_, error)) if error.sqlstate() == sqlstate::LOCK_NOT_AVAILABLE => self.nap_before_a_look().await?,
                Err(_) => break,
            }
        }
        Ok(None)
    }

    async fn texts(&mut self, questions: &[Question]) -> Result<Vec<String>, Stop> {
        let asked: Vec<(&str, Vec<&str>)> = questions.iter().map(Question::as_asked).collect();
        let answer = match self.talk.questions(&asked).await?.ok() {
            Ok(answer) => answer,
            Err(error) => return Err(Stop::Server(ServerError::new(error.with_position(|_| None)))),
        };
        let values = answer.rows.iter().map(|row| row.first().and_then(Option::as_deref).unwrap_or_default());
        Ok(values.map(|value| self.talk.text(value)).collect())
    }

    async fn text(&mut self, sql: &str, parameters: &[&str]) -> Result<Option<String>, Stop> {
        let answer = self.talk.question(sql, parameters).await?;
        Ok(answer.value().map(|value| self.talk.text(value)))
    }
}

impl Session {
    /// The rows of a batch that begins a transaction, or its error behind so many statements.
    async fn answered_and_rolled_back(&mut self, batch: Batch) -> Result<Result<Rows, (usize, ServerError)>, Stop> {
        let answer = self.talk.ask(batch, None).await?;
        self.talk.ask_one("ROLLBACK", &[]).await?;
        let Some(error) = answer.error else { return Ok(Ok(answer.rows)) };
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            self.talk.take_cancelled();
            return Err(Stop::Server(ServerError::new(error.with_position(|_| None))));
        }
        tracing::debug!(sqlstate = error.sqlstate(), "what was asked on an empty copy was not answered");
        Ok(Err((answer.done, error)))
    }

    async fn nap_before_a_look(&mut self) -> Result<(), Stop> {
        if self.talk.link.front_gone() {
            return Err(Stop::ClientGone);
        }
        let nap = lanes::nap_sql(NAP, "waiting to look at a table that somebody else changes");
        let Some(error) = self.talk.ask_one(&nap, &[]).await?.error else { return Ok(()) };
        self.talk.take_cancelled();
        Err(Stop::Server(ServerError::new(error.with_position(|_| None))))
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

/// A statement for the log: the one place where a client's text gets there. What DO and CALL are given may be secret.
pub(super) fn shown(statement: &Statement) -> &str {
    match statement.class {
        Class::Ddl(_) | Class::ExplainDdl(_) => &statement.logged,
        _ => "(text not shown)",
    }
}

fn elided(plan: &Plan, reports: &[Report]) -> Reply {
    let mut done = Reply::default();
    for report in reports {
        reply::put_report(&mut done.frames, report);
    }
    reply::put_command_complete(&mut done.frames, &plan.tag);
    done
}
