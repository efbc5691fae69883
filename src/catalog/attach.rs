//! What a plan of ATTACH PARTITION depends on: the bounds of the partition, the default partition, missing indexes and foreign keys.
//!
//! [`AttachFacts`] is plain data that [`super::inquiry::attach`] fills in.

use super::relation::RelationRef;
use crate::pg::RelationKind;
use serde::{Deserialize, Serialize};

/// What a plan of ATTACH PARTITION needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttachFacts {
    /// The CHECK to prove the bounds with; `None`: no row need be read.
    pub bounds: Option<String>,
    pub default: Option<DefaultPartition>,
    /// Indexes that the partition lacks.
    pub missing: Vec<MissingIndex>,
    pub foreign_keys: Vec<MissingForeignKey>,
    /// The bounds or an index cannot be made ready beforehand.
    pub obstacle: bool,
    /// The reason is whose code that would run.
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
    /// Its valid CHECKs, as `pg_get_constraintdef` has them.
    #[serde(default)]
    pub checks: Vec<String>,
    /// The CHECK that excludes the new bounds; `None`: no row need be read.
    #[serde(default)]
    pub excludes: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingIndex {
    /// Of the parent's, as `pg_get_indexdef` has it.
    pub definition: String,
    pub columns: Vec<String>,
    /// It can be built from its definition.
    pub plain: bool,
    /// `PRIMARY KEY` or `UNIQUE`, if it belongs to a constraint.
    pub constraint: Option<String>,
    pub deferral: String,
    /// What PostgreSQL would call it.
    #[serde(default)]
    pub name: Option<String>,
}

/// A foreign key of the parent that the partition has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingForeignKey {
    pub name: String,
    pub definition: String,
    /// The partition has another constraint of that name.
    pub taken: bool,
}
