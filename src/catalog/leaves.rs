//! The partitions under a partitioned table that gets a foreign key, and the name of that key.
//!
//! PostgreSQL gives the key the same name on every partition, unless the partition has a constraint of that name already. [`Leaves`] is
//! plain data that [`super::inquiry::leaves`] asks for.

use super::relation::RelationRef;
use crate::pg::RelationKind;
use serde::{Deserialize, Serialize};

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
