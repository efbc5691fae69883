//! The partitions under a partitioned table that gets a foreign key, and the name of that key.
//!
//! PostgreSQL gives the key the same name on every partition, unless the partition already has a constraint of that name.
//! [`Leaves`] is plain data that [`super::inquiry::leaves`] asks for.

use super::relation::RelationRef;
use crate::pg::RelationKind;
use serde::{Deserialize, Serialize};

/// The facts that a plan of ADD FOREIGN KEY on a partitioned table needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leaves {
    /// The name that PostgreSQL would choose for the key, if the author gave none.
    #[serde(default)]
    pub name: Option<String>,
    /// All partitions under the table. Each one comes after the partition that it is part of.
    pub leaves: Vec<Leaf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    /// The session's role may act as the owner of the partition.
    pub owned: bool,
    /// The partition has no row, and no room for any.
    #[serde(default)]
    pub empty: bool,
    /// The names of the partition's constraints.
    #[serde(default)]
    pub constraints: Vec<String>,
    /// A foreign key of the partition's own points to the same table.
    #[serde(default)]
    pub points: bool,
}
