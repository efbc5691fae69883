//! One DDL statement through all its stages: facts, plan, execution, reply.
//!
//! Invariant: called only while the backend is idle and nothing is owed to the client.

use super::Session;
use crate::backend::BackendLost;
use crate::catalog::{self, Facts, probe};
use crate::config::Mode;
use crate::execute::{Execution, Reply, Stop};
use crate::plan::{self, Limits, Plan};
use crate::report::Report;
use crate::sql::{Class, Ddl, Statement};
use crate::wire::message::Batch;
use crate::wire::{error_response::ServerError, reply};

impl Session {
    /// Runs a statement; the reply (notices and CommandComplete) is not on its way yet.
    /// `offset`: characters of the client's string before the statement.
    pub(super) async fn run_ddl(&mut self, statement: &Statement, offset: usize) -> Result<Reply, Stop> {
        let Class::Ddl(ddl) = &statement.class else { return self.run_hiding(statement, offset).await };
        let metrics = &self.shared.metrics;
        metrics.ddl_seen.add();
        let facts = self.facts(ddl).await?;
        let plan = match plan::plan(statement, &facts, &self.limits()) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.shared.metrics.ddl_refused.add();
                return Err(Stop::Report(refusal.report));
            }
        };
        self.log(&plan);
        if let Some(reports) = &plan.answer {
            self.shared.metrics.ddl_elided.add();
            return Ok(elided(&plan, reports));
        }
        self.execute_plan(&plan, &facts, offset).await
    }

    async fn execute_plan(&mut self, plan: &Plan, facts: &Facts, offset: usize) -> Result<Reply, Stop> {
        let metrics = &self.shared.metrics;
        metrics.ddl_planned.add();
        let config = &self.shared.config;
        self.talk.take_cancelled();
        let mut execution = Execution { talk: &mut self.talk, config, metrics, facts, offset };
        let result = execution.run(plan).await;
        if let Err(stop) = &result {
            self.shared.metrics.ddl_failed.add();
            tracing::info!(tag = plan.tag, reason = stop.reason(), "a schema change did not come to its end");
        }
        result
    }

    /// DO and CALL, whose DDL cannot be seen: under a small `lock_timeout` and retried, if that cannot change what they do.
    async fn run_hiding(&mut self, statement: &Statement, offset: usize) -> Result<Reply, Stop> {
        self.shared.metrics.texts_hiding_ddl.add();
        let facts = self.facts_of(&[]).await?;
        let plan = plan::guard(statement);
        self.log(&plan);
        self.execute_plan(&plan, &facts, offset).await
    }

    fn log(&self, plan: &Plan) {
        let parameters = &self.parameters;
        tracing::info!(
            user = parameters.user,
            database = parameters.database,
            application = parameters.application_name,
            tag = plan.tag,
            phases = plan.phases.len(),
            answered = plan.answer.is_some(),
            "{}",
            plan.statement
        );
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            small_table: self.shared.config.ddl.small_table,
            rewrite: self.shared.config.proxy.mode == Mode::Plan,
        }
    }

    /// What is true of the relations that a statement names, and what it would do to them.
    pub(super) async fn facts(&mut self, ddl: &Ddl) -> Result<Facts, Stop> {
        let names = catalog::names_of(ddl);
        let mut facts = self.facts_of(&names).await?;
        if self.shared.config.proxy.mode == Mode::Plan && !facts.session.in_transaction && facts.session.may_probe {
            for question in probe::questions(ddl, &facts) {
                let answer = self.probe(&question).await?;
                question.read(answer.as_deref(), &mut facts);
            }
        }
        Ok(facts)
    }

    async fn facts_of(&mut self, names: &[crate::pg::RelationName]) -> Result<Facts, Stop> {
        let [schemas, relations] = catalog::parameters(names);
        let answer = self.talk.ask_one(catalog::FACTS_SQL, &[&schemas, &relations]).await?;
        let answer = match answer.ok() {
            Ok(answer) => answer,
            Err(error) => return Err(Stop::Server(ServerError::new(error.with_position(|_| None)))),
        };
        let mut facts = catalog::decode(answer.value().unwrap_or_default()).map_err(|error| {
            Stop::Report(Report::error("XX000", format!("cannot read the facts of this statement: {error}")))
        })?;
        facts.session.in_transaction = self.talk.link.status != b'I';
        Ok(facts)
    }

    /// Asks the server what a statement would do, on an empty copy, in a transaction that is rolled back.
    /// `None`: it could not be asked.
    async fn probe(&mut self, question: &probe::Question) -> Result<Option<Vec<String>>, BackendLost> {
        let mut batch = Batch::new();
        batch.statement("BEGIN", &[]);
        batch.statement("SET LOCAL lock_timeout = 50", &[]);
        for sql in &question.statements {
            batch.statement(sql, &[]);
        }
        let answer = self.talk.ask(batch, None).await?;
        self.talk.ask_one("ROLLBACK", &[]).await?;
        if let Some(error) = &answer.error {
            tracing::debug!(error = error.message(), "a rewrite probe was not answered");
            return Ok(None);
        }
        Ok(Some(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()))
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
