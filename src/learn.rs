//! The questions that are asked of the server beside the facts, before a plan is made. The proxy and `pgsluice plan`
//! share them.
//!
//! This file chooses the questions and reads the answers. The owner of a connection sends the questions
//! ([`CatalogQueries`]).
//!
//! Invariant: a question leaves no change behind.

use crate::catalog::reading::{FactsNeeded, Question, Reading};
use crate::catalog::trust::{self, CopyExtent};
use crate::catalog::{
    Facts, FreeName, Inquire, ProbeAnswer, ProbeRound, RelationFacts, backfill, coercion, domain, inquiry, matview,
    naming, probe, query, volatility,
};
use crate::pg::RelationName;
use crate::plan::{self, Limits};
use crate::sql::form::Form;
use crate::sql::{Class, Statement};

/// The values of rows, as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A statement that failed on an empty copy.
#[derive(Debug)]
pub struct ProbeFailure {
    /// The place of the statement among those of the question, from 0.
    pub nth: usize,
    pub sqlstate: String,
}

/// The owner of a connection to the server, who can send questions.
pub trait CatalogQueries {
    /// Why no further question can be sent.
    type Error;

    /// Runs statements in a transaction that is rolled back. Gives their rows, or the statement that failed.
    fn rolled_back(
        &mut self,
        statements: &[&str],
    ) -> impl Future<Output = Result<Result<Rows, ProbeFailure>, Self::Error>> + Send;

    /// Runs statements that are rolled back, with a question behind them. Gives the answer, which is one text; `None`: one of them failed.
    fn behind(&mut self, round: &ProbeRound) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Sends all questions at once. Gives the answer to each, which is one text.
    fn texts(&mut self, questions: &[Question]) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send;

    /// Sends one question. Gives the answer, which is one text; `None`: the question failed.
    fn text(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;
}

/// Reads the facts of the relations with these names, before anything is tried on copies. The inner error says why they cannot be told.
///
/// # Errors
/// No further question can be sent.
pub async fn read<A: CatalogQueries>(
    asking: &mut A,
    names: &[RelationName],
    wanted: FactsNeeded,
) -> Result<Result<Facts, String>, A::Error> {
    let mut reading = Reading::new(names, wanted);
    while let Some(questions) = reading.round() {
        let texts = asking.texts(&questions).await?;
        if let Err(error) = reading.answer(&texts) {
            return Ok(Err(format!("could not read the facts of this statement: {error}")));
        }
    }
    Ok(reading.facts().ok_or_else(|| "there are no facts of this statement".to_owned()))
}

/// Completes the facts of a statement on `table` (if that exists) by those that the plan may need: its partitions, the effect of
/// the statement on an empty copy, the names that PostgreSQL would choose, the obstacles to a backfill.
///
/// # Errors
/// No further question can be sent.
pub async fn learn<A: CatalogQueries>(
    asking: &mut A,
    statement: &Statement,
    table: Option<&RelationFacts>,
    limits: &Limits,
    facts: &mut Facts,
) -> Result<(), A::Error> {
    ask_partitions(asking, statement, facts, limits).await?;
    ask_domain(asking, statement, facts).await?;
    let Some(table) = table else { return Ok(()) };
    if probe::worth_asking(table, limits.small_table) {
        ask_probes(asking, statement, table, facts).await?;
    }
    // On a small table the server chooses the name itself.
    if !limits.is_small(table.weight()) {
        for wanted in naming::wanted(statement, table) {
            let names = query::array(wanted.candidates.iter().map(|name| Some(name.as_str())));
            let also_constraints = wanted.avoids_constraints(facts.session.server_version).to_string();
            let parameters = [names.as_str(), &table.id.schema, &also_constraints];
            if let Some(name) = asking.text(naming::FREE_NAME_SQL, &parameters).await? {
                facts.free_names.push(FreeName { part: wanted.part, label: wanted.label, name });
            }
        }
    }
    let refreshes = matches!(&statement.class, Class::Ddl(ddl) if ddl.form() == Form::RefreshMaterializedView);
    if refreshes && !limits.is_small(table.weight()) {
        let answer = asking.text(matview::REFRESHABLE_SQL, &[&table.id.oid.to_string()]).await?;
        facts.refreshable = answer.is_some_and(|answer| answer.starts_with('t'));
    }
    if plan::may_backfill(statement, facts, limits) {
        let question = backfill::question(facts.session.server_version);
        let answer = asking.text(&question, &[&table.id.oid.to_string()]).await?;
        facts.backfill = answer.and_then(|json| serde_json::from_str(&json).ok());
    }
    if let Some(question) = probe::index_probe(statement, table) {
        let rows = asking.rolled_back(&[&question.make, &question.build, &question.definition]).await?;
        let definition = rows.ok().and_then(|rows| rows.into_iter().next()?.into_iter().next()?);
        facts.wanted_index = definition.as_deref().and_then(probe::wanted_index);
    }
    Ok(())
}

/// Completes the facts of a statement if no copy of its table can be tried, as in a transaction block. The catalogue alone tells about
/// the types of columns and about defaults.
///
/// # Errors
/// No further question can be sent.
pub async fn learn_of_types<A: CatalogQueries>(
    asking: &mut A,
    statement: &Statement,
    table: Option<&RelationFacts>,
    limits: &Limits,
    facts: &mut Facts,
) -> Result<(), A::Error> {
    let (Class::Ddl(ddl), Some(table)) = (&statement.class, table) else { return Ok(()) };
    if !probe::worth_asking(table, limits.small_table) {
        return Ok(());
    }
    facts.probe.resize(ddl.parts.len(), None);
    let version = facts.session.server_version;
    for (part, slot) in ddl.parts.iter().zip(&mut facts.probe) {
        if let Some((sql, parameters)) = coercion::question(part, table, version) {
            let parameters = parameters.each_ref().map(String::as_str);
            *slot = asking.text(sql, &parameters).await?.and_then(|json| coercion::answer(part, &json));
        } else if let Some((sql, parameters)) = volatility::question(part, version) {
            let parameters = parameters.each_ref().map(String::as_str);
            *slot = asking.text(sql, &parameters).await?.and_then(|text| volatility::answer(&text));
        }
    }
    Ok(())
}

/// Asks for the tables that ALTER DOMAIN would read.
async fn ask_domain<A: CatalogQueries>(
    asking: &mut A,
    statement: &Statement,
    facts: &mut Facts,
) -> Result<(), A::Error> {
    let Some(ddl) = statement.ddl() else { return Ok(()) };
    let (Some(name), Form::AlterDomain) = (&ddl.domain, ddl.form()) else { return Ok(()) };
    let Some(json) = asking.text(domain::TABLES_SQL, &[&name.quoted()]).await? else { return Ok(()) };
    let Some(names) = domain::tables(&json) else { return Ok(()) };
    let Ok(found) = read(asking, &names, FactsNeeded::Details).await? else { return Ok(()) };
    let tables: Vec<RelationFacts> = found.relations.into_iter().filter_map(|asked| asked.found).collect();
    facts.related.extend(tables.iter().map(RelationFacts::lock_facts));
    facts.domain_tables = Some(tables);
    Ok(())
}

/// Asks for the facts that a plan for partitions needs. The facts stay empty if they cannot be told.
async fn ask_partitions<A: CatalogQueries>(
    asking: &mut A,
    statement: &Statement,
    facts: &mut Facts,
    limits: &Limits,
) -> Result<(), A::Error> {
    if let Some(mut inquiry) = inquiry::index::IndexInquiry::new(statement, facts, limits.small_table) {
        facts.tree = if inquire(asking, &mut inquiry).await? { inquiry.tree() } else { None };
    }
    if let Some(mut inquiry) = inquiry::attach::AttachInquiry::new(statement, facts, limits.small_table) {
        facts.attach = if inquire(asking, &mut inquiry).await? { inquiry.facts() } else { None };
    }
    if let Some(round) = inquiry::leaves::round(statement, facts, limits.small_table) {
        facts.leaves = asking.behind(&round).await?.and_then(|json| serde_json::from_str(&json).ok());
    }
    if let Some(round) = inquiry::detachable::round(statement, facts) {
        facts.detachable = asking.behind(&round).await?.and_then(|json| serde_json::from_str(&json).ok());
    }
    Ok(())
}

/// Asks the rounds of an inquiry. `false`: a question was not answered.
async fn inquire<A: CatalogQueries>(asking: &mut A, inquiry: &mut (dyn Inquire + Send)) -> Result<bool, A::Error> {
    while let Some(round) = inquiry.round() {
        let Some(text) = asking.behind(&round).await? else { return Ok(false) };
        if let Err(error) = inquiry.answer(&text) {
            tracing::warn!(%error, "could not read the answer to a question about partitions");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks what the statement would do, on an empty copy of its table.
async fn ask_probes<A: CatalogQueries>(
    asking: &mut A,
    statement: &Statement,
    table: &RelationFacts,
    facts: &mut Facts,
) -> Result<(), A::Error> {
    if let Class::Ddl(ddl) = &statement.class {
        facts.probe.resize(ddl.parts.len(), None);
    }
    let copied = if probe::wants_indexes(statement) {
        let answer = asking.behind(&trust::round(table.id.oid)).await?;
        trust::copied(answer.as_deref())
    } else {
        CopyExtent::All
    };
    for question in probe::probes(statement, table, &copied) {
        let Some(mut answer) = ask_probe(asking, &question).await? else { continue };
        let version = facts.session.server_version;
        if answer.rewrites_table
            && let Some(bare) = probe::bare(statement, table, question.part, version)
        {
            answer.rewrites_bare = ask_probe(asking, &bare).await?.map(|answer| answer.rewrites_table);
        }
        if let Some(slot) = facts.probe.get_mut(question.part) {
            *slot = Some(answer);
        }
    }
    if let CopyExtent::Nothing(reason) = copied {
        facts.distrust = Some(reason);
    }
    Ok(())
}

async fn ask_probe<A: CatalogQueries>(
    asking: &mut A,
    question: &probe::Probe,
) -> Result<Option<ProbeAnswer>, A::Error> {
    // A row of empty texts separates the files before the statement from the files after it.
    let mut statements: Vec<&str> = question.make.iter().map(String::as_str).collect();
    statements.extend([question.files, "SELECT '', ''", &question.statement, question.files]);
    let rows = match asking.rolled_back(&statements).await? {
        Ok(rows) => rows,
        Err(failed) => return Ok(probe::failed(failed.nth == question.make.len() + 2, &failed.sqlstate)),
    };
    let files: probe::Files = rows
        .into_iter()
        .filter_map(|row| {
            let mut values = row.into_iter().flatten();
            Some((values.next()?, values.next()?))
        })
        .collect();
    let mut halves = files.split(|(name, _)| name.is_empty());
    let halves = halves.next().zip(halves.next());
    Ok(halves.map(|(first, second)| probe::answer(&first.to_vec(), &second.to_vec())))
}
