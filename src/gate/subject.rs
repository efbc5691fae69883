//! What the gate knows of one statement: its text, and its facts and plan if there are any.
//!
//! [`Subject`] owns nothing. It keeps true: the answer to a question does not depend on whether the facts are known, unless it is that the
//! answer is not known.

use super::family::{Family, destroys};
use super::truth::Truth;
use crate::catalog::{Facts, RelationFacts, RelationRef};
use crate::pg::{LockMode, RelationKind, RelationName};
use crate::plan::Plan;
use crate::sql::form::{Cost, ExecutionKind, Form};
use crate::sql::{Class, Ddl, Statement};

/// A statement that the gate is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    statement: &'a Statement,
    known: Option<(&'a Facts, &'a Plan)>,
}

/// A relation that a statement names.
pub(super) struct NamedRelation<'a> {
    name: &'a str,
    schema: Option<&'a str>,
    found: Option<&'a RelationFacts>,
    /// The name may be that of an index or a sequence, and its table is not known.
    has_unknown_table: bool,
}

/// The most that a table of a statement has of something, and its name.
pub(super) struct Largest {
    pub(super) name: String,
    pub(super) amount: f64,
}

impl<'a> Subject<'a> {
    /// A statement of which only the text is known.
    pub fn of_text(statement: &'a Statement) -> Self {
        Self { statement, known: None }
    }

    /// A statement with its facts and the plan that was made from them.
    pub fn planned(statement: &'a Statement, facts: &'a Facts, plan: &'a Plan) -> Self {
        Self { statement, known: Some((facts, plan)) }
    }

    /// Whether rules are about statements of this kind at all.
    pub fn is_schema_change(&self) -> bool {
        match self.statement.class {
            Class::Ddl(_) | Class::Newer => true,
            Class::MayHideDdl { names_ddl, .. } => names_ddl,
            _ => false,
        }
    }

    pub(super) fn ddl(&self) -> Option<&'a Ddl> {
        match &self.statement.class {
            Class::Ddl(ddl) => Some(ddl),
            _ => None,
        }
    }

    /// The statement is DDL of a grammar that the proxy does not know.
    fn is_newer(&self) -> bool {
        matches!(self.statement.class, Class::Newer)
    }

    fn facts(&self) -> Option<&'a Facts> {
        // Nothing was asked about the names.
        self.known.map(|(facts, _)| facts).filter(|facts| facts.nameless.is_none())
    }

    /// The forms of the statement, one for each part. The forms of a text that the proxy cannot read are not among them.
    pub(super) fn forms(&self) -> Vec<Form> {
        self.ddl().map(|ddl| ddl.parts.iter().map(|part| part.form).collect()).unwrap_or_default()
    }

    pub(super) fn families(&self) -> Vec<Family> {
        match self.statement.class {
            Class::MayHideDdl { .. } => vec![Family::Hidden],
            Class::Newer => vec![Family::Object],
            _ => self.forms().into_iter().map(Family::of).collect(),
        }
    }

    /// Whether the statement destroys data. What DO and CALL do is not seen.
    pub(super) fn is_destructive(&self) -> Truth {
        if self.is_newer() { Truth::Maybe } else { self.ddl().is_some_and(destroys).into() }
    }

    /// Whether the cost is one of these. `every`: the heaviest part has such a cost. Otherwise any part has.
    pub(super) fn costs(&self, wanted: &[Cost], every: bool) -> Truth {
        let Some(ddl) = self.ddl() else { return wanted.contains(&Cost::Unknown).into() };
        let rows = || ddl.parts.iter().map(|part| part.form.row());
        if let Some((_, plan)) = self.known {
            // A part that the plan has found to be lighter than its form is not counted by the cost of its form.
            let mut parts = rows().map(|row| row.cost).filter(|cost| cost.weight() <= plan.cost.weight());
            return (wanted.contains(&plan.cost) || (!every && parts.any(|cost| wanted.contains(&cost)))).into();
        }
        let surely = rows().all(|row| row.cost == Cost::Brief || !may_be_lighter(row.way));
        let possible = rows().flat_map(|row| [row.cost, if may_be_lighter(row.way) { Cost::Brief } else { row.cost }]);
        let heaviest = rows().map(|row| row.cost).max_by_key(|cost| cost.weight()).unwrap_or(Cost::Unknown);
        match (surely, every) {
            (true, true) => wanted.contains(&heaviest).into(),
            (true, false) => rows().any(|row| wanted.contains(&row.cost)).into(),
            (false, _) => {
                if possible.into_iter().any(|cost| wanted.contains(&cost)) {
                    Truth::Maybe
                } else {
                    Truth::No
                }
            }
        }
    }

    /// The cost for people, if it is known.
    pub(super) fn cost(&self) -> Option<Cost> {
        self.known.map(|(_, plan)| plan.cost)
    }

    /// Whether the strongest lock on the statement's targets is one of these.
    pub(super) fn locks(&self, wanted: &[LockMode]) -> Truth {
        if self.is_newer() {
            return Truth::Maybe;
        }
        if let Some((_, plan)) = self.known {
            return plan.lock.is_some_and(|lock| wanted.contains(&lock)).into();
        }
        // The locks of some forms depend on the server's version.
        let on = |version: i32| self.forms().into_iter().filter_map(|form| form.locks(version).0).max();
        let both = [on(OLDEST), on(NEWEST)].map(|lock| lock.is_some_and(|lock| wanted.contains(&lock)));
        if both[0] == both[1] { both[0].into() } else { Truth::Maybe }
    }

    /// The strongest lock on the statement's targets, if it is known.
    pub(super) fn lock(&self) -> Option<LockMode> {
        self.known.and_then(|(_, plan)| plan.lock)
    }

    /// The relations that the statement names, and those whose rows TRUNCATE … CASCADE deletes. `None`: it may be about any.
    pub(super) fn relations(&self) -> Option<Vec<NamedRelation<'a>>> {
        let Some(ddl) = self.ddl() else { return if self.is_newer() { None } else { Some(Vec::new()) } };
        if is_about_unnamed(ddl) {
            return None;
        }
        let cascades = ddl.cascade && ddl.form() == Form::Truncate;
        if cascades && self.facts().is_none() {
            return None;
        }
        let names = ddl.targets.iter().chain(ddl.parts.iter().flat_map(|part| &part.others));
        let mut relations: Vec<NamedRelation<'a>> = names.map(|name| self.relation(ddl, name)).collect();
        if cascades {
            let reached = |found: &'a RelationFacts| found.reached_by.iter().map(NamedRelation::reached);
            let reached: Vec<_> = relations.iter().filter_map(|relation| relation.found).flat_map(reached).collect();
            relations.extend(reached);
        }
        Some(relations)
    }

    fn relation(&self, ddl: &Ddl, name: &'a RelationName) -> NamedRelation<'a> {
        let facts = self.facts();
        let found = facts.and_then(|facts| facts.relation(name));
        let created = || facts.filter(|_| creates(ddl)).and_then(|facts| facts.session.current_schema.as_deref());
        let schema = found.map(|found| found.id.schema.as_str()).or(name.schema.as_deref()).or_else(created);
        let is_index =
            |found: &RelationFacts| matches!(found.kind, RelationKind::Index | RelationKind::PartitionedIndex);
        let has_unknown_table = match (facts, found) {
            (None, _) => ddl.parts.iter().any(|part| may_name_index(part.form)),
            (Some(_), Some(found)) => is_index(found) && found.table.is_none(),
            (Some(_), None) => false,
        };
        NamedRelation { name: &name.name, schema, found, has_unknown_table }
    }

    /// The largest table of the statement, by bytes or by rows. `Err`: it is not known.
    pub(super) fn largest(&self, amount: fn(&RelationFacts) -> Option<f64>) -> Result<Option<Largest>, ()> {
        let Some(ddl) = self.ddl() else { return if self.is_newer() { Err(()) } else { Ok(None) } };
        let relations = self.relations().ok_or(())?;
        if self.facts().is_none() {
            // A table that does not exist yet is empty.
            let is_new = ddl.parts.iter().all(|part| part.others.is_empty()) && creates(ddl);
            return if is_new || relations.is_empty() { Ok(None) } else { Err(()) };
        }
        let mut largest: Option<Largest> = None;
        for found in relations.iter().filter_map(|relation| relation.found) {
            let amount = amount(found).ok_or(())?;
            if largest.as_ref().is_none_or(|known| known.amount < amount) {
                largest = Some(Largest { name: found.id.full_name().to_string(), amount });
            }
        }
        Ok(largest)
    }
}

impl<'a> NamedRelation<'a> {
    /// A relation that the statement does not name itself.
    fn reached(relation: &'a RelationRef) -> Self {
        Self { name: &relation.name, schema: Some(&relation.schema), found: None, has_unknown_table: false }
    }

    /// The name for people, with its schema if that is known.
    pub(super) fn name(&self) -> String {
        RelationName::new(self.schema, self.name).to_string()
    }

    /// Whether a test holds of the relation, or of the table of the index or sequence that it is. The test gets the schema, if it is known,
    /// and the name.
    pub(super) fn is(&self, test: &dyn Fn(Option<&str>, &str) -> Truth) -> Truth {
        let own = test(self.schema, self.name);
        match self.found.and_then(|found| found.table.as_ref()) {
            Some(table) => own.max(test(Some(&table.schema), &table.name)),
            None if self.has_unknown_table => own.max(Truth::Maybe),
            None => own,
        }
    }
}

/// The servers that pgsluice is tested on.
const OLDEST: i32 = 100_000;
const NEWEST: i32 = 190_000;

/// Whether the facts may show that such a form costs less than its row says.
fn may_be_lighter(way: ExecutionKind) -> bool {
    !matches!(way, ExecutionKind::Relay | ExecutionKind::Run | ExecutionKind::Long)
}

/// Whether the statement's targets are made by it.
fn creates(ddl: &Ddl) -> bool {
    matches!(
        ddl.form(),
        Form::CreateTable
            | Form::CreateTableReferences
            | Form::CreateTablePartitionOf
            | Form::CreateTableInherits
            | Form::CreateTableAs
            | Form::CreateMaterializedView
            | Form::CreateView
            | Form::CreateObject
    )
}

/// Whether the statement may change relations that it does not name.
fn is_about_unnamed(ddl: &Ddl) -> bool {
    let of_all = |form: Form| match form {
        Form::DropSchema
        | Form::DropOwned
        | Form::ReindexMany
        | Form::Extension
        | Form::ImportForeignSchema
        | Form::AlterDomain
        | Form::ClusterWide
        | Form::Other => true,
        Form::Cluster
        | Form::Vacuum
        | Form::VacuumFull
        | Form::Reindex
        | Form::ReindexConcurrently
        | Form::SetTablespace => ddl.targets.is_empty(),
        Form::DropObject => ddl.cascade,
        _ => false,
    };
    ddl.parts.iter().any(|part| of_all(part.form))
}

/// Whether a statement of this form may name an index or a sequence in place of a table. PostgreSQL takes these in many an ALTER TABLE.
fn may_name_index(form: Form) -> bool {
    matches!(
        form,
        Form::DropIndex
            | Form::DropIndexConcurrently
            | Form::Reindex
            | Form::ReindexConcurrently
            | Form::AlterIndexRename
            | Form::AlterIndexSet
            | Form::AlterIndexAttach
            | Form::AlterIndexStatistics
            | Form::AlterSequence
            | Form::DropSequence
            | Form::RenameTable
            | Form::RenameColumn
            | Form::SetSchema
            | Form::OwnerTo
            | Form::SetTableOptions
            | Form::SetColumnStatistics
            | Form::SetTablespace
            | Form::SetLogged
            | Form::Cluster
            | Form::Comment
            | Form::SecurityLabel
            | Form::Grant
    )
}
