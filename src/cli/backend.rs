//! The server that `pgsluice plan` asks for facts. The command rolls back everything that it does on the server.

use super::failure::Failure;
use crate::catalog::Facts;
use crate::catalog::ProbeRound;
use crate::catalog::query::relations_of;
use crate::catalog::reach;
use crate::catalog::reading::Question;
use crate::config::{Address, BackendTls, BackendTlsMode};
use crate::learn::{CatalogQueries, ProbeFailure, Rows, learn, read};
use crate::net::{Keepalive, Target};
use crate::operator::{log_in, said};
use crate::pg::RelationName;
use crate::plan::{self, Limits};
use crate::sql::Statement;
use crate::tls;
use std::collections::BTreeSet;
use std::env::var;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Another session may hold the table. Then the plan does without the probe, so that the probe does not wait in the lock
/// queue.
const GUARD: &str = "BEGIN; SET LOCAL lock_timeout = '50ms'; SET LOCAL statement_timeout = '10s'";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Backend {
    runtime: Runtime,
    client: Client,
}

impl Backend {
    /// Connects as libpq does, from flags, the environment, and the defaults.
    pub(super) fn connect(address: &Address, user: Option<&str>, dbname: Option<&str>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(format!("could not start a runtime: {error}")))?;
        let user = self::user(user).ok_or_else(|| Failure("no user is set; use --user or PGUSER".to_owned()))?;
        let dbname = database(dbname, Some(&user)).unwrap_or_default();
        let mut config = tokio_postgres::Config::new();
        config.user(user).dbname(dbname).application_name("pgsluice plan");
        if let Ok(password) = var("PGPASSWORD") {
            config.password(password);
        }
        let target = target(address)?;
        let (client, connection) = runtime
            .block_on(log_in(&config, &target))
            .map_err(|error| Failure(format!("could not connect to {address}: {error}")))?;
        // The task ends with the runtime. Its error shows in the client's next call.
        runtime.spawn(async { drop(connection.await) });
        Ok(Self { runtime, client })
    }

    /// The facts of a statement, with the probes' answers.
    pub(super) fn facts(&self, statement: &Statement, limits: &Limits) -> Result<Facts, Failure> {
        self.runtime
            .block_on(self.ask(statement, limits))
            .map_err(|error| Failure(format!("could not read the facts: {}", said(&error))))?
            .map_err(Failure)
    }

    /// The oids of what each of the relations touches.
    pub(super) fn touched(&self, names: &[RelationName]) -> Result<Vec<BTreeSet<u32>>, Failure> {
        let read = |text: String| reach::touched(&text);
        self.answer(names, reach::question(names), read)
    }

    /// Whether any of the functions may do anything.
    pub(super) fn any_volatile(&self, names: &[RelationName]) -> Result<bool, Failure> {
        let volatile: Vec<bool> = self.answer(names, reach::volatile_question(names), |text| reach::volatile(&text))?;
        Ok(volatile.contains(&true))
    }

    /// The answer to a question about these names, if there are any.
    fn answer<T>(
        &self,
        names: &[RelationName],
        question: Question,
        read: impl FnOnce(String) -> Result<Vec<T>, serde_json::Error>,
    ) -> Result<Vec<T>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let answered = self.runtime.block_on((&mut &self.client).texts(&[question]));
        let text = answered.map_err(|error| Failure(format!("could not ask the server: {}", said(&error))))?.pop();
        read(text.unwrap_or_default()).map_err(|error| Failure(format!("could not read the server's answer: {error}")))
    }

    async fn ask(&self, statement: &Statement, limits: &Limits) -> Result<Result<Facts, String>, Error> {
        let names = relations_of(statement);
        let mut facts = match read(&mut &self.client, &names, plan::wants(statement)).await? {
            Ok(facts) => facts,
            Err(why) => return Ok(Err(why)),
        };
        let table = names.first().and_then(|name| facts.relation(name)).cloned();
        if facts.session.may_probe {
            learn(&mut &self.client, statement, table.as_ref(), limits, &mut facts).await?;
        }
        Ok(Ok(facts))
    }
}

/// The user of a connection, as libpq finds it.
pub(super) fn user(given: Option<&str>) -> Option<String> {
    given.map(str::to_owned).or_else(|| var("PGUSER").ok()).or_else(|| var("USER").ok())
}

/// The database of a connection, as libpq finds it.
pub(super) fn database(given: Option<&str>, user: Option<&str>) -> Option<String> {
    given.map(str::to_owned).or_else(|| var("PGDATABASE").ok()).or_else(|| user.map(str::to_owned))
}

impl CatalogQueries for &Client {
    type Error = Error;

    async fn rolled_back(&mut self, statements: &[&str]) -> Result<Result<Rows, ProbeFailure>, Error> {
        self.batch_execute(GUARD).await?;
        let mut rows = Ok(Rows::new());
        for (nth, sql) in statements.iter().enumerate() {
            let messages = match self.simple_query(sql).await {
                Ok(messages) => messages,
                Err(error) => {
                    let Some(state) = error.code().cloned() else { return Err(error) };
                    rows = Err(ProbeFailure { nth, sqlstate: state.code().to_owned() });
                    break;
                }
            };
            rows.iter_mut().for_each(|rows| rows.extend(messages.iter().filter_map(values)));
        }
        self.batch_execute("ROLLBACK").await?;
        Ok(rows)
    }

    async fn behind(&mut self, round: &ProbeRound) -> Result<Option<String>, Error> {
        self.batch_execute(GUARD).await?;
        let parameters: Vec<_> = round.parameters.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
        let answered = async {
            for sql in &round.first {
                self.batch_execute(sql).await?;
            }
            self.query_one(&*round.question, &parameters).await?.try_get(0)
        };
        let answered = answered.await;
        self.batch_execute("ROLLBACK").await?;
        match answered {
            Ok(text) => Ok(text),
            Err(error) if error.as_db_error().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn texts(&mut self, questions: &[Question]) -> Result<Vec<String>, Error> {
        let mut texts = Vec::new();
        for question in questions {
            let parameters: Vec<_> = question.parameters.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
            texts.push(self.query_one(&*question.sql, &parameters).await?.try_get(0)?);
        }
        Ok(texts)
    }

    async fn text(&mut self, sql: &str, parameters: &[&str]) -> Result<Option<String>, Error> {
        let parameters: Vec<_> = parameters.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
        self.query_opt(sql, &parameters).await?.map(|row| row.try_get(0)).transpose()
    }
}

fn values(message: &SimpleQueryMessage) -> Option<Vec<Option<String>>> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
}

/// The server's address, with the encryption that libpq would use (PGSSLMODE, PGSSLROOTCERT).
pub(super) fn target(address: &Address) -> Result<Target, Failure> {
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
