//! The partitions under a partitioned table that gets a foreign key, and how that is called.
//!
//! PostgreSQL gives it the same name on every partition, unless that has a constraint of the name already.

use super::naming::{self, CANDIDATES};
use super::tree::{ProbeRound, is_large};
use super::{Facts, RelationRef, query};
use crate::pg::RelationKind;
use crate::sql::form::Form;
use crate::sql::{Class, Statement};
use serde::{Deserialize, Serialize};

/// `$1`, `$2`: the oids of the table and of the one that it points to; `$3`: names, in the order in which they are tried.
pub const LEAVES_SQL: &str = include_str!("leaves.sql");

/// What the plan of ADD FOREIGN KEY on a partitioned table needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leaves {
    /// What PostgreSQL would call it, if its author does not.
    #[serde(default)]
    pub name: Option<String>,
    /// All that is under the table, each partition behind the one that it is part of.
    pub leaves: Vec<Leaf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    /// The session's role may act as its owner.
    pub owned: bool,
    /// It has no row, and no room for any.
    #[serde(default)]
    pub empty: bool,
    /// The names of its constraints.
    #[serde(default)]
    pub constraints: Vec<String>,
    /// A foreign key of its own points to the same table.
    #[serde(default)]
    pub points: bool,
}

/// The question, if the statement adds one foreign key to a large partitioned table.
pub fn round(statement: &Statement, facts: &Facts, small_table: u64) -> Option<ProbeRound> {
    let Class::Ddl(ddl) = &statement.class else { return None };
    let [part] = ddl.parts.as_slice() else { return None };
    let table = ddl.targets.first().and_then(|name| facts.relation(name))?;
    let to = part.others.first().and_then(|name| facts.relation(name))?;
    let asks = part.form == Form::AddForeignKey
        && table.kind == RelationKind::PartitionedTable
        && table.has_children
        && (120_000..180_000).contains(&facts.session.server_version)
        && is_large(table, small_table);
    let columns = part.foreign_key.as_ref().map(|key| key.columns.as_slice())?;
    let names: Vec<String> =
        (0..CANDIDATES).map(|n| naming::index_name(&table.id.name, Some(columns), "fkey", n)).collect();
    let names = query::array(names.iter().map(|name| Some(name.as_str())));
    let parameters = vec![table.id.oid.to_string(), to.id.oid.to_string(), names];
    asks.then(|| ProbeRound { first: Vec::new(), question: LEAVES_SQL.into(), parameters })
}
