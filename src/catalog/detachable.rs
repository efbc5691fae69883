//! Whether a partition that is to be dropped can be detached first, and how it would be attached again.

use super::tree::ProbeRound;
use super::{Facts, RelationRef};
use crate::sql::form::Form;
use crate::sql::{Class, Statement};
use serde::{Deserialize, Serialize};

/// `$1`: the partition's oid. For servers since 14.
pub const DETACHABLE_SQL: &str = include_str!("detachable.sql");

/// A partition that DROP TABLE names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detachable {
    pub parent: RelationRef,
    /// The session's role may act as the parent's owner.
    pub owned: bool,
    /// Of the parent with all its partitions, by the catalogue's own count of pages.
    pub bytes: u64,
    /// `FOR VALUES …`
    pub bound: String,
    /// Its bounds are of a hash, for which the server leaves no CHECK that would prove them.
    #[serde(default)]
    pub hash: bool,
    /// Another partition of the parent is half detached.
    #[serde(default)]
    pub another: bool,
    /// DROP TABLE would be refused: something else depends on it, or an extension does.
    #[serde(default)]
    pub needed: bool,
    /// Triggers that it has of its parent are enabled otherwise than there.
    #[serde(default)]
    pub own_triggers: bool,
}

/// The question, if the statement drops one partition.
pub fn round(statement: &Statement, facts: &Facts) -> Option<ProbeRound> {
    let Class::Ddl(ddl) = &statement.class else { return None };
    let [name] = ddl.targets.as_slice() else { return None };
    let table = facts.relation(name)?;
    let asks = ddl.form() == Form::DropTable && table.is_partition && facts.session.server_version >= 140_000;
    let parameters = vec![table.id.oid.to_string()];
    asks.then(|| ProbeRound { first: Vec::new(), question: DETACHABLE_SQL.into(), parameters })
}
