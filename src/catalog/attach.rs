//! What a plan of ATTACH PARTITION depends on: the bounds of the partition, the default partition, missing indexes and foreign keys.
//!
//! This file owns [`AttachFacts`], plain data that [`super::inquiry::attach`] fills in.

use super::relation::RelationRef;
use crate::pg::RelationKind;
use serde::{Deserialize, Serialize};

/// The facts that a plan of ATTACH PARTITION needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttachFacts {
    /// The CHECK that proves the bounds. `None`: the server need not read any row of the partition.
    pub bounds: Option<String>,
    pub default: Option<DefaultPartition>,
    /// Indexes that the partition lacks.
    pub missing: Vec<MissingIndex>,
    pub foreign_keys: Vec<MissingForeignKey>,
    /// The plan cannot prepare the bounds or an index before the ATTACH.
    pub obstacle: bool,
    /// The obstacle, if it is that code of other roles would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultPartition {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    pub bytes: u64,
    pub owned: bool,
    /// The valid CHECKs of the default partition, as `pg_get_constraintdef` prints them.
    #[serde(default)]
    pub checks: Vec<String>,
    /// The CHECK that excludes the new bounds. `None`: the server need not read any row of the default partition.
    #[serde(default)]
    pub excludes: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingIndex {
    /// The definition of the parent's index, as `pg_get_indexdef` prints it.
    pub definition: String,
    pub columns: Vec<String>,
    /// The index can be built from its definition.
    pub plain: bool,
    /// `PRIMARY KEY` or `UNIQUE`, if the index belongs to a constraint.
    pub constraint: Option<String>,
    pub deferral: String,
    /// The name that PostgreSQL would choose for the index.
    #[serde(default)]
    pub name: Option<String>,
}

/// A foreign key of the parent that the partition lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingForeignKey {
    pub name: String,
    pub definition: String,
    /// The partition has another constraint of that name.
    pub taken: bool,
}
