//! One DDL statement through all its stages: facts, plan, execution, reply.
//!
//! Invariant: called only while the backend is idle and nothing is owed to the client.

use super::Session;
use crate::backend::BackendLost;
use crate::catalog::{Facts, FreeName, RelationFacts, backfill, naming, probe, query};
use crate::config::Mode;
use crate::execute::{Execution, Reply, Stop};
use crate::pg::relation::quote_literal;
use crate::pg::sqlstate;
use crate::plan::{self, Limits, Plan};
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::message::Batch;
use crate::wire::{error_response::ServerError, reply};

/// Values as text.
pub(super) type Rows = Vec<Vec<Option<String>>>;

impl Session {
    /// Runs a statement; the reply (notices and CommandComplete) is not on its way yet.
    /// `offset`: characters of the client's string before the statement.
    pub(super) async fn run_ddl(&mut self, statement: &Statement, offset: usize) -> Result<Reply, Stop> {
        match statement.class {
            Class::MayHideDdl { .. } => self.shared.metrics.texts_hiding_ddl.add(),
            _ => self.shared.metrics.ddl_seen.add(),
        }
        let facts = self.facts(statement).await?;
        let plan = match plan::plan(statement, &facts, &self.limits()) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.shared.metrics.ddl_refused.add();
                return Err(Stop::Report(refusal.report));
            }
        };
        self.log(statement, &plan);
        if let Some(reports) = &plan.answer {
            self.shared.metrics.ddl_elided.add();
            let heard = if facts.session.hushed { &[] } else { reports.as_slice() };
            return Ok(elided(&plan, heard));
        }
        self.execute_plan(&plan, &facts, offset).await
    }

    async fn execute_plan(&mut self, plan: &Plan, facts: &Facts, offset: usize) -> Result<Reply, Stop> {
        let metrics = &self.shared.metrics;
        metrics.ddl_planned.add();
        let config = &self.shared.config;
        let mut execution = Execution { talk: &mut self.talk, config, metrics, facts, offset, learned: Vec::new() };
        let result = execution.run(plan).await;
        if let Err(stop) = &result {
            self.shared.metrics.ddl_failed.add();
            tracing::info!(tag = plan.tag, reason = stop.reason(), "a schema change did not come to its end");
        }
        result
    }

    fn log(&self, statement: &Statement, plan: &Plan) {
        let parameters = &self.parameters;
        tracing::info!(
            user = parameters.user,
            database = parameters.database,
            application = parameters.application_name,
            tag = plan.tag,
            phases = plan.phases.len(),
            answered = plan.answer.is_some(),
            "{}",
            shown(statement)
        );
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { small_table: self.shared.config.ddl.small_table, rewrite: self.shared.config.proxy.mode == Mode::Plan }
    }

    /// What is true of the relations that a statement names, and what it would do to them.
    pub(super) async fn facts(&mut self, statement: &Statement) -> Result<Facts, Stop> {
        let mut facts = self.facts_of(&query::relations_of(statement)).await?;
        let asks = self.shared.config.proxy.mode == Mode::Plan && facts.session.may_probe;
        if let (Class::Ddl(ddl), true, false) = (&statement.class, asks, facts.session.in_transaction) {
            let table = ddl.targets.first().and_then(|name| facts.relation(name)).cloned();
            if let Some(table) = table {
                self.probe(statement, &table, &mut facts).await?;
            }
            self.partitions(statement, &mut facts).await?;
        }
        Ok(facts)
    }

    async fn facts_of(&mut self, names: &[crate::pg::RelationName]) -> Result<Facts, Stop> {
        let [schemas, relations] = query::parameters(names);
        let answer = self.talk.question(query::FACTS_SQL, &[&schemas, &relations]).await?;
        let answer = match answer.ok() {
            Ok(answer) => answer,
            Err(error) => return Err(Stop::Server(ServerError::new(error.with_position(|_| None)))),
        };
        let mut facts = query::decode(&self.talk.text(answer.value().unwrap_or_default())).map_err(|error| {
            Stop::Report(Report::error("XX000", format!("cannot read the facts of this statement: {error}")))
        })?;
        facts.session.in_transaction = self.talk.link.status != b'I';
        Ok(facts)
    }

    /// Asks the server what a statement would do, on an empty copy of its table.
    async fn probe(&mut self, statement: &Statement, table: &RelationFacts, facts: &mut Facts) -> Result<(), Stop> {
        if probe::worth_asking(table, self.limits().small_table) {
            let probes = probe::probes(statement, table);
            if let Class::Ddl(ddl) = &statement.class {
                facts.probe.resize(ddl.parts.len(), None);
            }
            for question in probes {
                // An empty row parts what was before from what is after.
                let statements = [&question.make, question.files, "SELECT '', ''", &question.statement, question.files];
                let Some(rows) = self.rolled_back(&statements).await? else { continue };
                let files: probe::Files = rows
                    .into_iter()
                    .filter_map(|row| {
                        let mut values = row.into_iter().flatten();
                        Some((values.next()?, values.next()?))
                    })
                    .collect();
                let mut halves = files.split(|(name, _)| name.is_empty());
                let (Some(first), Some(second)) = (halves.next(), halves.next()) else { continue };
                if let Some(slot) = facts.probe.get_mut(question.part) {
                    *slot = Some(probe::answer(&first.to_vec(), &second.to_vec()));
                }
            }
        }
        // On a small table the server chooses the name itself.
        if !self.limits().is_small(table.bytes) {
            for wanted in naming::wanted(statement, table) {
                let names = query::array(wanted.candidates.iter().map(|name| Some(name.as_str())));
                let answer = self.talk.question(naming::FREE_NAME_SQL, &[&names, &table.id.schema]).await?;
                if let Some(name) = answer.value().map(|name| self.talk.text(name)) {
                    facts.free_names.push(FreeName { part: wanted.part, label: wanted.label, name });
                }
            }
        }
        if plan::may_backfill(statement, facts, &self.limits()) {
            let question = backfill::question(facts.session.server_version);
            let answer = self.talk.question(&question, &[&table.id.oid.to_string()]).await?;
            facts.backfill = answer.value().and_then(|json| serde_json::from_str(&self.talk.text(json)).ok());
        }
        if let Some(question) = probe::index_probe(statement, table) {
            let rows = self.rolled_back(&[&question.make, &question.build, &question.definition]).await?;
            let definition = rows.and_then(|rows| rows.into_iter().next()?.into_iter().next()?);
            facts.wanted_index = definition.as_deref().and_then(probe::wanted_index);
        }
        Ok(())
    }

    /// The rows of statements run in a transaction that is rolled back; `None`: one of them failed. A cancel is the whole
    /// statement's.
    async fn rolled_back(&mut self, statements: &[&str]) -> Result<Option<Rows>, Stop> {
        let mut batch = Batch::new();
        batch.statement("BEGIN", &[]);
        batch.statement("SET LOCAL lock_timeout = 50", &[]);
        for sql in statements {
            batch.statement(sql, &[]);
        }
        match self.answered_and_rolled_back(batch).await? {
            Ok(rows) => Ok(Some(rows)),
            Err(error) => {
                tracing::debug!(sqlstate = error.sqlstate(), "a rewrite probe was not answered");
                Ok(None)
            }
        }
    }

    /// The rows of a batch that begins a transaction, which is rolled back then; or its error, unless that is a cancel.
    pub(super) async fn answered_and_rolled_back(&mut self, batch: Batch) -> Result<Result<Rows, ServerError>, Stop> {
        let answer = self.talk.ask(batch, None).await?;
        self.talk.ask_one("ROLLBACK", &[]).await?;
        let Some(error) = answer.error else { return Ok(Ok(answer.rows)) };
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            self.talk.take_cancelled();
            return Err(Stop::Server(ServerError::new(error.with_position(|_| None))));
        }
        Ok(Err(error))
    }

    /// The plan of a statement as the query that gives its lines.
    pub(super) async fn explain(&mut self, statement: &Statement) -> Result<String, BackendLost> {
        let lines = match self.facts(statement).await {
            Ok(facts) => match plan::plan(statement, &facts, &self.limits()) {
                Ok(plan) => plan::print::to_text(&plan),
                Err(refusal) => refusal.report.to_string(),
            },
            Err(Stop::Server(error)) => format!("{}: {}", error.sqlstate(), error.message()),
            Err(Stop::Report(report)) => report.to_string(),
            Err(Stop::ClientGone | Stop::Lost) => return Err(BackendLost),
        };
        let rows: Vec<String> = lines.lines().map(|line| format!("({})", quote_literal(line))).collect();
        Ok(format!("SELECT line AS \"QUERY PLAN\" FROM (VALUES {}) AS plan(line)", rows.join(", ")))
    }
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
