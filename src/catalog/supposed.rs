//! Supposed facts, for plans that are made without a server.
//!
//! Every relation that a statement names is supposed to exist, and the role is supposed to have every privilege that it needs.

use super::naming::{self, NameNeeded};
use super::query::relations_of;
use super::{
    BackfillFacts, ColumnFacts, Facts, IndexFacts, NamedFacts, RelationFacts, RelationRef, SequenceCreation,
    SessionFacts,
};
use crate::pg::{RelationKind, RelationName};
use crate::sql::form::Form;
use crate::sql::{Class, Ddl, Statement};
use std::collections::HashSet;

/// How large every relation is supposed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupposedSize {
    /// As small as possible.
    Small,
    /// Far above any limit for small tables.
    Large,
}

impl SupposedSize {
    fn bytes(self) -> u64 {
        if self == Self::Large { 100 << 30 } else { 0 }
    }

    fn rows(self) -> f64 {
        if self == Self::Large { 1e9 } else { 0.0 }
    }
}

/// The oldest version that PostgreSQL still maintains. It does what later versions do, and seldom more.
const VERSION: i32 = 140_000;

/// Facts that let nothing be answered from the catalogue. Everything takes as long as the size says.
pub fn facts(statement: &Statement, size: SupposedSize) -> Facts {
    let session = SessionFacts {
        server_version: VERSION,
        deadlock_timeout_ms: 1_000,
        current_schema: Some("public".to_owned()),
        ..SessionFacts::default()
    };
    let ddl = ddl(statement);
    // `REINDEX INDEX` or `REINDEX TABLE`: the word before the place where CONCURRENTLY would go.
    let of_index = ddl.is_some_and(|ddl| {
        let before = ddl.concurrently_at.and_then(|at| statement.text.get(..at)).unwrap_or_default();
        ddl.tag == "REINDEX" && before.trim_end().to_ascii_uppercase().ends_with("INDEX")
    });
    let targets: HashSet<&RelationName> = ddl.iter().flat_map(|ddl| &ddl.targets).collect();
    let suppose = |(number, name): (usize, RelationName)| {
        let oid = 16_384 + u32::try_from(number).unwrap_or_default();
        let target = targets.contains(&name);
        let new = target && ddl.is_some_and(creates);
        let kind = match ddl.filter(|_| target) {
            Some(_) if of_index => RelationKind::Index,
            Some(ddl) => kind(ddl),
            None => RelationKind::Table,
        };
        let columns = ddl.filter(|_| target).map(columns).unwrap_or_default();
        let found = (!new).then(|| RelationFacts { columns, ..relation(&name, oid, kind, size) });
        NamedFacts { name, schema_usable: true, may_create: true, found }
    };
    let relations: Vec<NamedFacts> = relations_of(statement).into_iter().enumerate().map(suppose).collect();
    let table = relations.first().and_then(|asked| asked.found.as_ref());
    let wanted = table.map(|table| naming::wanted(statement, table)).unwrap_or_default();
    let free_names = wanted.into_iter().filter_map(NameNeeded::first).collect();
    let backfill = Some(BackfillFacts {
        obstacle: None,
        distrust: None,
        watched: false,
        quiet: false,
        role: "CURRENT_USER".to_owned(),
        owner: "CURRENT_USER".to_owned(),
        sequences: Some(SequenceCreation::Plain),
    });
    Facts { session, relations, free_names, backfill, ..Facts::default() }
}

/// The columns that the statement must find in the table. Nothing else is known of them.
pub fn columns(ddl: &Ddl) -> Vec<ColumnFacts> {
    let keys = ddl.parts.iter().filter_map(|part| part.key.as_ref()).flat_map(|key| &key.columns);
    let named = ddl.parts.iter().filter(|part| part.form == Form::SetNotNull).filter_map(|part| part.column.as_ref());
    let column = |name: &String| ColumnFacts {
        name: name.clone(),
        type_name: String::new(),
        not_null: false,
        has_default: false,
        identity: false,
        generated: false,
        computed: false,
        row_type: false,
        custom_collation: false,
    };
    keys.chain(named).map(column).collect()
}

/// A table that an earlier statement of the same text has created.
pub fn empty_table(name: &RelationName, created_here: bool) -> RelationFacts {
    let table = relation(name, 0, RelationKind::Table, SupposedSize::Small);
    RelationFacts { created_here, owned: true, ..table }
}

/// Whether the statement creates its targets.
pub fn creates(ddl: &Ddl) -> bool {
    let on_a_table = matches!(
        ddl.form(),
        Form::CreateIndex
            | Form::CreateIndexConcurrently
            | Form::CreateStatistics
            | Form::CreateTrigger
            | Form::CreateRule
            | Form::CreatePolicy
            | Form::ReplaceView
    );
    ddl.tag == "SELECT" || (ddl.tag.starts_with("CREATE ") && !on_a_table)
}

fn ddl(statement: &Statement) -> Option<&Ddl> {
    match &statement.class {
        Class::Ddl(ddl) => Some(ddl),
        Class::ExplainDdl(inner) => ddl(inner),
        Class::MayHideDdl { .. }
        | Class::Newer
        | Class::AdvisoryLock(_)
        | Class::Lock(_)
        | Class::Transaction(_)
        | Class::Other => None,
    }
}

/// The kind of the statement's targets, by its command tag.
fn kind(ddl: &Ddl) -> RelationKind {
    match ddl.tag.as_str() {
        "DROP INDEX" | "ALTER INDEX" => RelationKind::Index,
        tag if tag.ends_with(" MATERIALIZED VIEW") => RelationKind::MaterializedView,
        tag if tag.ends_with(" VIEW") => RelationKind::View,
        tag if tag.ends_with(" SEQUENCE") => RelationKind::Sequence,
        tag if tag.ends_with(" FOREIGN TABLE") => RelationKind::ForeignTable,
        _ => RelationKind::Table,
    }
}

fn relation(name: &RelationName, oid: u32, kind: RelationKind, size: SupposedSize) -> RelationFacts {
    let schema = name.schema.clone().unwrap_or_else(|| "public".to_owned());
    let table = RelationRef { oid: 1, schema: schema.clone(), name: format!("(the table of {name})") };
    let id = RelationRef { oid, schema, name: name.name.clone() };
    let index = IndexFacts::new(id.clone(), true);
    let is_index = kind == RelationKind::Index;
    RelationFacts {
        bytes: size.bytes(),
        table_bytes: size.bytes(),
        rows: size.rows(),
        table: is_index.then_some(table),
        index: is_index.then_some(index),
        ..RelationFacts::new(id, kind)
    }
}
