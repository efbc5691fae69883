//! The question about a partition that DROP TABLE names: whether it can be detached first.

use super::ProbeRound;
use crate::catalog::Facts;
use crate::sql::Statement;
use crate::sql::form::Form;

/// `$1`: the partition's oid. For servers since 14.
pub const DETACHABLE_SQL: &str = include_str!("detachable.sql");

/// The question, if the statement drops one partition.
pub fn round(statement: &Statement, facts: &Facts) -> Option<ProbeRound> {
    let ddl = statement.ddl()?;
    let [name] = ddl.targets.as_slice() else { return None };
    let table = facts.relation(name)?;
    let asks = ddl.form() == Form::DropTable && table.is_partition && facts.session.server_version >= 140_000;
    let parameters = vec![table.id.oid.to_string()];
    asks.then(|| ProbeRound { first: Vec::new(), question: DETACHABLE_SQL.into(), parameters })
}
