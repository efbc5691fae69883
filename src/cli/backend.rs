//! The server that `pgsluice plan` asks for facts. Everything it does there is rolled back.

use super::Failure;
use crate::catalog::probe::{Files, answer, index_probe, probes, wanted_index};
use crate::catalog::query::{FACTS_SQL, array, decode, relations_of};
use crate::catalog::tree::Inquire;
use crate::catalog::{Facts, FreeName, ProbeAnswer};
use crate::catalog::{attach, backfill, naming, tree};
use crate::config::{Address, BackendTls, BackendTlsMode};
use crate::net::{Keepalive, Target};
use crate::operator::{log_in, said};
use crate::plan::{self, Limits};
use crate::sql::Statement;
use crate::tls;
use std::env::var;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Somebody may hold the table: then the probe does without, rather than wait in its lock queue.
const GUARD: &str = "BEGIN; SET LOCAL lock_timeout = '50ms'; SET LOCAL statement_timeout = '10s'";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Backend {
    runtime: Runtime,
    client: Client,
}

impl Backend {
    /// As libpq would, from flags, the environment, and the defaults.
    pub(super) fn connect(address: &Address, user: Option<&str>, dbname: Option<&str>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(format!("could not start a runtime: {error}")))?;
        let user = user.map(str::to_owned).or_else(|| var("PGUSER").ok()).or_else(|| var("USER").ok());
        let user = user.ok_or_else(|| Failure("no user; expected --user or PGUSER".to_owned()))?;
        let dbname = dbname.map(str::to_owned).or_else(|| var("PGDATABASE").ok()).unwrap_or_else(|| user.clone());
        let mut config = tokio_postgres::Config::new();
        config.user(user).dbname(dbname).application_name("pgsluice plan");
        if let Ok(password) = var("PGPASSWORD") {
            config.password(password);
        }
        let target = target(address)?;
        let (client, connection) = runtime
            .block_on(log_in(&config, &target))
            .map_err(|error| Failure(format!("could not connect to {address}: {error}")))?;
        // Ends with the runtime; its error shows in the client's next call.
        runtime.spawn(async { drop(connection.await) });
        Ok(Self { runtime, client })
    }

    /// The facts of a statement, with the probes' answers.
    pub(super) fn facts(&self, statement: &Statement, limits: &Limits) -> Result<Facts, Failure> {
        self.runtime
            .block_on(self.ask(statement, limits))
            .map_err(|error| Failure(format!("could not read the facts: {}", said(&error))))?
            .map_err(|error| Failure(format!("could not read the facts: {error}")))
    }

    async fn ask(&self, statement: &Statement, limits: &Limits) -> Result<Result<Facts, serde_json::Error>, Error> {
        let names = relations_of(statement);
        let schemas: Vec<Option<&str>> = names.iter().map(|name| name.schema.as_deref()).collect();
        let relations: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
        let row = self.client.query_one(FACTS_SQL, &[&schemas, &relations]).await?;
        let mut facts = match decode(row.get(0)) {
            Ok(facts) => facts,
            Err(error) => return Ok(Err(error)),
        };
        if facts.session.may_probe {
            self.partitions(statement, &mut facts).await;
        }
        let table = names.first().and_then(|name| facts.relation(name)).cloned();
        if let Some(table) = table.filter(|_| facts.session.may_probe) {
            for probe in probes(statement, &table) {
                let answered = self.rolled_back(async || {
                    self.client.batch_execute(&probe.make).await?;
                    let before = self.files(probe.files).await?;
                    self.client.batch_execute(&probe.statement).await?;
                    Ok(answer(&before, &self.files(probe.files).await?))
                });
                let answered: Option<ProbeAnswer> = answered.await;
                facts.probe.resize(facts.probe.len().max(probe.part + 1), None);
                facts.probe[probe.part] = answered;
            }
            for wanted in naming::wanted(statement, &table) {
                let names = array(wanted.candidates.iter().map(|name| Some(name.as_str())));
                if let Some(row) = self.client.query_opt(naming::FREE_NAME_SQL, &[&names, &table.id.schema]).await? {
                    facts.free_names.push(FreeName { part: wanted.part, label: wanted.label, name: row.get(0) });
                }
            }
            if plan::may_backfill(statement, &facts, limits) {
                let question = backfill::question(facts.session.server_version);
                let row = self.client.query_one(&question, &[&table.id.oid.to_string()]).await?;
                facts.backfill = serde_json::from_str(row.get(0)).ok();
            }
            if let Some(probe) = index_probe(statement, &table) {
                let definition = self.rolled_back(async || {
                    self.client.batch_execute(&probe.make).await?;
                    self.client.batch_execute(&probe.build).await?;
                    let row = self.client.query_one(&probe.definition, &[]).await?;
                    row.try_get::<_, String>(0)
                });
                facts.wanted_index = definition.await.and_then(|definition| wanted_index(&definition));
            }
        }
        Ok(Ok(facts))
    }

    /// What a plan for partitions needs; nothing is learned where it cannot be told.
    async fn partitions(&self, statement: &Statement, facts: &mut Facts) {
        if let Some(mut inquiry) = tree::Inquiry::new(statement, facts, 0) {
            facts.tree = self.inquire(&mut inquiry).await.and_then(|()| inquiry.tree());
        }
        if let Some(mut inquiry) = attach::Inquiry::new(statement, facts, 0) {
            facts.attach = self.inquire(&mut inquiry).await.and_then(|()| inquiry.facts());
        }
    }

    async fn inquire(&self, inquiry: &mut (dyn Inquire + Send)) -> Option<()> {
        while let Some(round) = inquiry.round() {
            let answered = self.rolled_back(async || {
                for sql in &round.first {
                    self.client.batch_execute(sql).await?;
                }
                let parameters: Vec<&(dyn ToSql + Sync)> = round.parameters.iter().map(|text| text as _).collect();
                self.client.query_one(round.question, &parameters).await?.try_get::<_, String>(0)
            });
            inquiry.answer(&answered.await?).ok()?;
        }
        Some(())
    }

    /// Runs questions in a transaction that is rolled back; `None`: they failed, so there is no answer.
    async fn rolled_back<T>(&self, questions: impl AsyncFnOnce() -> Result<T, Error>) -> Option<T> {
        self.client.batch_execute(GUARD).await.ok()?;
        let answered = questions().await;
        self.client.batch_execute("ROLLBACK").await.ok()?;
        answered.ok()
    }

    async fn files(&self, question: &str) -> Result<Files, Error> {
        let messages = self.client.simple_query(question).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)?.to_owned())),
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// Encrypted as libpq would: PGSSLMODE, PGSSLROOTCERT.
fn target(address: &Address) -> Result<Target, Failure> {
    let mode = match var("PGSSLMODE") {
        Ok(word) if word == "allow" => BackendTlsMode::Prefer,
        Ok(word) => BackendTlsMode::from_word(&word).ok_or_else(|| {
            let allowed = BackendTlsMode::WORDS.join(", ");
            Failure(format!("PGSSLMODE: \"{word}\" is not allowed; expected one of allow, {allowed}"))
        })?,
        Err(_) => BackendTlsMode::Prefer,
    };
    let root = var("PGSSLROOTCERT").ok().filter(|path| path != "system").map(PathBuf::from);
    let tls = tls::Back::new(BackendTls { mode, root, ..BackendTls::default() }).map_err(Failure)?;
    Ok(Target {
        address: address.clone(),
        timeout: CONNECT_TIMEOUT,
        keepalive: Keepalive::default(),
        tls: Arc::new(tls),
    })
}
