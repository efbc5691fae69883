//! The facts of a statement, asked on the client's own backend.
//!
//! [`FactsReader`] owns the limits that it reads for. `catalog` and `learn` choose the questions and read the answers. It keeps true: a question
//! leaves nothing behind in the session. It is asked in words that the session's encodings can carry. If a question fails, its answer is unknown,
//! and is never guessed.

use crate::backend::{Answer, ServerChannel};
use crate::catalog::ProbeRound;
use crate::catalog::reading::{FactsNeeded, Question};
use crate::catalog::{Facts, NamesUnknown, building, query, version};
use crate::execute::RunError;
use crate::execute::run::Basis;
use crate::lanes;
use crate::learn::{CatalogQueries, ProbeFailure, Rows, learn, learn_of_types, read};
use crate::pg::{RelationName, sqlstate};
use crate::plan::{self, Limits};
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use crate::wire::speech::Sayable;
use std::time::Duration;

/// How often the partitions of a table are asked for. Without an answer the statement must run as it is written.
const LOOKS: usize = 100;
const NAP: Duration = Duration::from_millis(100);

/// Reads the facts of a statement.
pub(super) struct FactsReader<'s> {
    channel: &'s mut ServerChannel,
    limits: Limits,
    /// Statements get phases. Otherwise they run guarded as they are written, which needs fewer facts.
    makes_phases: bool,
}

impl<'s> FactsReader<'s> {
    pub(super) fn new(channel: &'s mut ServerChannel, limits: Limits, makes_phases: bool) -> Self {
        Self { channel, limits, makes_phases }
    }

    /// Reads the facts of the relations that a statement names, and of the effect that the statement would have on them.
    pub(super) async fn of(&mut self, statement: &Statement) -> Result<Facts, RunError> {
        if matches!(&statement.class, Class::Ddl(ddl) if ddl.names_too_much()) {
            return self.without_names(NamesUnknown::TooMuch).await;
        }
        if self.channel.speech().is_in_private(&statement.text) {
            return self.without_names(NamesUnknown::Encoding).await;
        }
        self.channel.take_unsayable();
        match self.by_name(statement).await {
            Err(RunError::Server(error)) if self.is_of_encodings(&error) => {
                self.without_names(NamesUnknown::Encoding).await
            }
            Ok(facts) if self.channel.take_unsayable() || self.may_meet_unsayable(&facts) => {
                self.without_names(NamesUnknown::Encoding).await
            }
            facts => facts,
        }
    }

    /// Reads the facts that a statement in the client's transaction would have outside it. What a copy of its table would tell is known as far as
    /// the catalogue tells it.
    pub(super) async fn of_outside(&mut self, statement: &Statement) -> Result<Facts, RunError> {
        let mut facts = self.of(statement).await?.outside_the_transaction();
        let (Class::Ddl(ddl), true, None) = (&statement.class, self.makes_phases, facts.nameless) else {
            return Ok(facts);
        };
        if facts.session.may_probe {
            let table = ddl.targets.first().and_then(|name| facts.relation(name)).cloned();
            let limits = self.limits.clone();
            learn(&mut InTransaction(self), statement, table.as_ref(), &limits, &mut facts).await?;
            facts.distrust = None;
        }
        Ok(facts)
    }

    /// Reads the facts of the session itself.
    pub(super) async fn of_session(&mut self) -> Result<Facts, RunError> {
        self.of_names(&[], FactsNeeded::Itself).await
    }

    /// Reads the basis of the next plan: the present rows of the catalogue.
    pub(super) async fn basis(&mut self, facts: &Facts) -> Result<Basis, RunError> {
        if facts.session.in_transaction || !self.makes_phases {
            return Ok(Basis::Any);
        }
        let version = version::version_of(facts);
        let answer = self.channel.ask_one(&format!("SELECT {version}"), &[]).await?;
        Ok(match answer.value() {
            Some(text) => Basis::While(version::is_still(&version, text)),
            None => Basis::Any,
        })
    }

    /// A question failed: the server could not turn something into the client's encoding or into UTF-8, or the question was about a name
    /// that cannot be said.
    fn is_of_encodings(&self, error: &ServerError) -> bool {
        let untranslatable =
            matches!(error.sqlstate(), sqlstate::UNTRANSLATABLE_CHARACTER | sqlstate::CHARACTER_NOT_IN_REPERTOIRE);
        untranslatable || (self.channel.take_unsayable() && error.sqlstate() != sqlstate::QUERY_CANCELED)
    }

    /// Whether the run may come to names that were not read yet, those of partitions and children.
    fn may_meet_unsayable(&self, facts: &Facts) -> bool {
        let mut found = facts.relations.iter().filter_map(|asked| asked.found.as_ref());
        self.channel.speech().sayable() == Sayable::Ascii && found.any(|relation| relation.has_children)
    }

    /// The facts that can be known if nothing can be asked about the names in the statement.
    async fn without_names(&mut self, why: NamesUnknown) -> Result<Facts, RunError> {
        tracing::debug!(?why, "nothing is asked about what a statement names");
        self.channel.roll_back_question().await?;
        let facts = self.of_session().await?;
        Ok(Facts { nameless: Some(why), ..facts })
    }

    async fn by_name(&mut self, statement: &Statement) -> Result<Facts, RunError> {
        if let Some(facts) = self.of_a_build(statement).await? {
            return Ok(facts);
        }
        let mut facts = self.of_names(&query::relations_of(statement), plan::wants(statement)).await?;
        if let Class::Ddl(ddl) = &statement.class
            && self.makes_phases
        {
            let table = ddl.targets.first().and_then(|name| facts.relation(name)).cloned();
            let limits = self.limits.clone();
            match facts.session.may_probe && !facts.session.in_transaction {
                true => learn(self, statement, table.as_ref(), &limits, &mut facts).await?,
                false => learn_of_types(self, statement, table.as_ref(), &limits, &mut facts).await?,
            }
        }
        Ok(facts)
    }

    /// The few facts that most concurrent builds need. Rules may need more.
    async fn of_a_build(&mut self, statement: &Statement) -> Result<Option<Facts>, RunError> {
        let Some(question) =
            building::question(statement).filter(|_| self.channel.status() == b'I' && !statement.gated)
        else {
            return Ok(None);
        };
        let (sql, parameters) = question.as_asked();
        let answer = self.text(sql, &parameters).await?;
        Ok(answer.and_then(|json| building::facts(statement, &json)))
    }

    async fn of_names(&mut self, names: &[RelationName], needed: FactsNeeded) -> Result<Facts, RunError> {
        let mut facts = read(self, names, needed)
            .await?
            .map_err(|why| RunError::Report(Report::error(sqlstate::INTERNAL_ERROR, why)))?;
        facts.session.in_transaction = self.channel.status() != b'I';
        Ok(facts)
    }

    /// Asks a batch that begins a transaction, and rolls back. Gives its rows, or its error and how many statements were done before it.
    async fn answered_and_rolled_back(&mut self, batch: Batch) -> Result<Result<Rows, (usize, ServerError)>, RunError> {
        let answer = self.channel.ask(batch, None).await?;
        self.channel.ask_one("ROLLBACK", &[]).await?;
        let Some(error) = answer.error else { return Ok(Ok(answer.rows)) };
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            return Err(self.cancelled(&error));
        }
        tracing::debug!(sqlstate = error.sqlstate(), "what was asked on an empty copy was not answered");
        Ok(Err((answer.done, error)))
    }

    async fn nap_before_a_look(&mut self) -> Result<(), RunError> {
        if self.channel.client_gone() {
            return Err(RunError::ClientGone);
        }
        let nap = lanes::nap_sql(NAP, "waiting to look at a table that somebody else changes");
        match self.channel.ask_one(&nap, &[]).await?.error {
            Some(error) => Err(self.cancelled(&error)),
            None => Ok(()),
        }
    }

    /// A cancel of a question cancels the whole statement.
    fn cancelled(&self, error: &ServerError) -> RunError {
        self.channel.take_cancelled();
        without_position(error)
    }
}

impl CatalogQueries for FactsReader<'_> {
    type Error = RunError;

    async fn rolled_back(&mut self, statements: &[&str]) -> Result<Result<Rows, ProbeFailure>, RunError> {
        let (batch, before) = guarded_batch(statements.iter().copied());
        let answer = self.answered_and_rolled_back(batch).await?;
        Ok(answer.map_err(|(done, error)| {
            // If a statement ahead of these fails, that counts as a failure of the first one.
            ProbeFailure { nth: done.saturating_sub(before), sqlstate: error.sqlstate().to_owned() }
        }))
    }

    /// Asks a question behind statements that are rolled back. If another session is changing the table, the question is asked again.
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
        let answer = self.channel.questions(&asked).await?.ok().map_err(|error| without_position(&error))?;
        let values = answer.rows.iter().map(|row| row.first().and_then(Option::as_deref).unwrap_or_default());
        Ok(values.map(|value| self.channel.text(value)).collect())
    }

    async fn text(&mut self, sql: &str, parameters: &[&str]) -> Result<Option<String>, RunError> {
        let answer = self.channel.question(sql, parameters).await?;
        Ok(answer.value().map(|value| self.channel.text(value)))
    }
}

/// Asks in the client's transaction, and leaves it as it was.
///
/// A copy of a table gives the transaction an id, and a transaction that has made one cannot be prepared any more (PREPARE TRANSACTION). So a
/// copy is made only for the indexes of partitions, which nothing else tells, and only if the server allows no prepared transactions.
struct InTransaction<'r, 's>(&'r mut FactsReader<'s>);

impl InTransaction<'_, '_> {
    /// Asks a question behind statements in a savepoint, which is rolled back.
    async fn in_savepoint(&mut self, round: &ProbeRound) -> Result<Answer, RunError> {
        let channel = &mut *self.0.channel;
        let parameters: Vec<&str> = round.parameters.iter().map(String::as_str).collect();
        let mut batch = Batch::new();
        batch.statement("SAVEPOINT \"pgsluice: a copy\"", &[]);
        batch.statement(NONE_IS_PREPARED, &[]);
        batch.statement("SET LOCAL lock_timeout = 50", &[]);
        round.first.iter().for_each(|sql| batch.statement(sql, &[]));
        channel.put_question(&mut batch, &round.question, &parameters);
        let answer = channel.ask(batch, None).await?;
        let mut batch = Batch::new();
        batch.statement("ROLLBACK TO SAVEPOINT \"pgsluice: a copy\"", &[]);
        batch.statement("RELEASE SAVEPOINT \"pgsluice: a copy\"", &[]);
        channel.ask(batch, None).await?;
        Ok(answer)
    }
}

/// Fails if the server allows prepared transactions. It gives no row.
const NONE_IS_PREPARED: &str = "SELECT WHERE pg_catalog.int4div(1, CASE WHEN pg_catalog.current_setting('max_prepared_transactions') \
     OPERATOR(pg_catalog.=) '0' THEN 1 ELSE 0 END) IS NULL";

impl CatalogQueries for InTransaction<'_, '_> {
    type Error = RunError;

    async fn rolled_back(&mut self, _: &[&str]) -> Result<Result<Rows, ProbeFailure>, RunError> {
        Ok(Err(ProbeFailure { nth: 0, sqlstate: String::new() }))
    }

    async fn behind(&mut self, round: &ProbeRound) -> Result<Option<String>, RunError> {
        if round.first.is_empty() {
            let parameters: Vec<&str> = round.parameters.iter().map(String::as_str).collect();
            return self.text(&round.question, &parameters).await;
        }
        let answer = self.in_savepoint(round).await?;
        match answer.error {
            Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => Err(self.0.cancelled(&error)),
            Some(_) => Ok(None),
            None => {
                let value = answer.rows.into_iter().next_back().and_then(|row| row.into_iter().next()?);
                Ok(value.map(|text| self.0.channel.text(&text)))
            }
        }
    }

    async fn texts(&mut self, questions: &[Question]) -> Result<Vec<String>, RunError> {
        self.0.texts(questions).await
    }

    async fn text(&mut self, sql: &str, parameters: &[&str]) -> Result<Option<String>, RunError> {
        let answer = self.0.text(sql, parameters).await;
        self.0.channel.roll_back_question().await?;
        answer
    }
}

/// The error of a question of the proxy's. Its position is in a text that the client has not sent.
fn without_position(error: &ServerError) -> RunError {
    RunError::Server(ServerError::new(error.with_position(|_| None)))
}

/// A transaction of these statements, none of which waits long for a lock. The number says how many statements stand before them.
fn guarded_batch<'a>(statements: impl Iterator<Item = &'a str>) -> (Batch, usize) {
    let mut batch = Batch::new();
    batch.statement("BEGIN", &[]);
    batch.statement("SET LOCAL lock_timeout = 50", &[]);
    let before = batch.statements;
    statements.for_each(|sql| batch.statement(sql, &[]));
    (batch, before)
}
