//! The question about the partitions under a table that gets a foreign key, and about the name of that key.

use super::ProbeRound;
use crate::catalog::naming::{self, CANDIDATES};
use crate::catalog::{Facts, query};
use crate::pg::RelationKind;
use crate::sql::Statement;
use crate::sql::form::Form;

/// `$1`, `$2`: the oids of the table and of the referenced table; `$3`: names, in the order in which PostgreSQL tries them.
pub const LEAVES_SQL: &str = include_str!("leaves.sql");

/// The question, if the statement adds one foreign key to a large partitioned table.
pub fn round(statement: &Statement, facts: &Facts, small_table: u64) -> Option<ProbeRound> {
    let ddl = statement.ddl()?;
    let [part] = ddl.parts.as_slice() else { return None };
    let table = ddl.targets.first().and_then(|name| facts.relation(name))?;
    let to = part.others.first().and_then(|name| facts.relation(name))?;
    let asks = part.form == Form::AddForeignKey
        && table.kind == RelationKind::PartitionedTable
        && table.has_children
        && (120_000..180_000).contains(&facts.session.server_version)
        && table.is_large(small_table);
    let columns = part.foreign_key.as_ref().map(|key| key.columns.as_slice())?;
    let names: Vec<String> =
        (0..CANDIDATES).map(|n| naming::index_name(&table.id.name, Some(columns), "fkey", n)).collect();
    let names = query::array(names.iter().map(|name| Some(name.as_str())));
    let parameters = vec![table.id.oid.to_string(), to.id.oid.to_string(), names];
    asks.then(|| ProbeRound { first: Vec::new(), question: LEAVES_SQL.into(), parameters })
}
