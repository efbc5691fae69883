//! The facts a plan is made from: plain data, one JSON document as the server gives it.
//!
//! Invariant: reading facts takes no lock stronger than ACCESS SHARE on catalogue tables.

use crate::pg::{LockMode, RelationKind, RelationName};
use serde::{Deserialize, Serialize};

/// What is true of the session and of every relation asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub session: SessionFacts,
    /// In the order asked; a name that resolves to nothing has `found: None`.
    pub relations: Vec<Asked>,
    /// What the rewrite probe said, one per part of the statement; `None`: not asked or it could not run.
    #[serde(default)]
    pub probe: Vec<Option<ProbeAnswer>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// `server_version_num`, e.g. 150018
    pub server_version: i32,
    pub backend_pid: i32,
    /// Set by the session, not asked: an explicit or implicit transaction block is open.
    #[serde(default)]
    pub in_transaction: bool,
    /// Milliseconds; 0: none.
    pub lock_timeout_ms: u64,
    pub statement_timeout_ms: u64,
    pub deadlock_timeout_ms: u64,
    /// May create temporary tables, so the rewrite probe can run.
    pub may_probe: bool,
    /// The strongest relation lock that this transaction holds on a relation it did not create.
    #[serde(default)]
    pub strongest_lock: Option<LockMode>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub name: RelationName,
    pub found: Option<RelationFacts>,
}

/// A relation by its full name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRef {
    pub oid: u32,
    pub schema: String,
    pub name: String,
}

impl RelationRef {
    pub fn full_name(&self) -> RelationName {
        RelationName::new(Some(&self.schema), &self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelationFacts {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    /// `pg_class.relpersistence`: p, u, t
    pub persistence: char,
    /// Main fork plus TOAST, bytes; 0 where there is no storage. For a parent: its descendants' sum.
    pub bytes: u64,
    /// `reltuples`; negative: never analysed.
    pub rows: f64,
    /// Has partitions or inheritance children.
    pub has_children: bool,
    /// The parent, if this is a partition or inheritance child (the first).
    #[serde(default)]
    pub parent: Option<RelationRef>,
    /// An index: its table. A sequence: the table that owns it.
    #[serde(default)]
    pub table: Option<RelationRef>,
    /// An index: its own row of `pg_index`.
    #[serde(default)]
    pub index: Option<IndexFacts>,
    /// The strongest lock that this session holds on it now.
    #[serde(default)]
    pub own_lock: Option<LockMode>,
    /// Created in this very transaction: nobody else can see it.
    #[serde(default)]
    pub created_here: bool,
    /// Another backend that holds this relation's lane.
    #[serde(default)]
    pub lane_holder: Option<i32>,
    /// Is a system catalogue (or in `information_schema`).
    #[serde(default)]
    pub is_system: bool,
    /// Tables and views: not dropped, in order.
    #[serde(default)]
    pub columns: Vec<ColumnFacts>,
    #[serde(default)]
    pub constraints: Vec<ConstraintFacts>,
    /// Indexes of this table.
    #[serde(default)]
    pub indexes: Vec<IndexFacts>,
    /// Tables whose foreign keys point here (not itself).
    #[serde(default)]
    pub referenced_by: Vec<RelationRef>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnFacts {
    pub name: String,
    /// `format_type`
    pub type_name: String,
    pub not_null: bool,
    pub has_default: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConstraintFacts {
    pub name: String,
    /// `pg_constraint.contype`: c f n p t u x
    pub kind: char,
    pub validated: bool,
    /// A foreign key: the referenced table.
    #[serde(default)]
    pub references: Option<RelationRef>,
    /// `pg_get_constraintdef`
    pub definition: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexFacts {
    #[serde(flatten)]
    pub id: RelationRef,
    pub unique: bool,
    /// `indisvalid and indisready and indislive`
    pub valid: bool,
    /// Belongs to a constraint.
    pub of_constraint: bool,
    /// A backend is at work on it or on its table with SHARE UPDATE EXCLUSIVE or stronger.
    pub in_progress: bool,
    /// `pg_get_indexdef`
    pub definition: String,
}

/// What the empty copy said about one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    pub rewrites_table: bool,
    pub rebuilds_indexes: bool,
}

impl Facts {
    /// What is known of the relation that the statement calls `name`.
    pub fn relation(&self, name: &RelationName) -> Option<&RelationFacts> {
        self.relations.iter().find(|asked| asked.name == *name).and_then(|asked| asked.found.as_ref())
    }
}
