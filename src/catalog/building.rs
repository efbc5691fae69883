//! The facts of a CREATE INDEX CONCURRENTLY that the client has written itself.
//!
//! If the table is an ordinary one and no index has the new name, the plan of such a statement depends on few facts. One short
//! question reads them, at a quarter of the server's cost for the full facts.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

use super::query::relations_of;
use super::reading::Question;
use super::{Facts, IndexFacts, NamedFacts, RelationFacts, RelationRef, SessionFacts};
use crate::pg::RelationKind;
use crate::sql::Statement;
use crate::sql::form::Form;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Answer {
    session: SessionFacts,
    table: RelationRef,
    /// The invalid indexes of the table.
    invalid: Vec<u32>,
}

/// The short question. `None`: the statement needs all facts. It also needs them if the question gets no row or no answer.
pub fn question(statement: &Statement) -> Option<Question> {
    let ddl = statement.ddl()?;
    let [table] = ddl.targets.as_slice() else { return None };
    let name = ddl.index_name.as_deref().filter(|_| !ddl.if_not_exists && !ddl.only)?;
    let [part] = ddl.parts.as_slice() else { return None };
    (part.form == Form::CreateIndexConcurrently && relations_of(statement).len() == 1).then(|| Question {
        sql: include_str!("building.sql").into(),
        parameters: vec![table.quoted(), name.to_owned()],
    })
}

/// The facts that the answer gives for the one relation that the statement names.
pub fn facts(statement: &Statement, json: &str) -> Option<Facts> {
    let Answer { session, table, invalid } = serde_json::from_str(json).ok()?;
    let index =
        |oid: u32| IndexFacts::new(RelationRef { oid, schema: table.schema.clone(), name: String::new() }, false);
    let indexes = invalid.into_iter().map(index).collect();
    let found = Some(RelationFacts { indexes, ..RelationFacts::new(table, RelationKind::Table) });
    let name = relations_of(statement).into_iter().next()?;
    let relations = vec![NamedFacts { name, schema_usable: true, may_create: true, found }];
    Some(Facts { session, relations, ..Facts::default() })
}
