//! A partitioned table with its partitions, for a plan that makes an index on all of them.
//!
//! A [`Tree`] says for each table which of its indexes matches the wanted one, or which name PostgreSQL would choose for a new
//! index. It is plain data that [`super::inquiry::index`] fills in.
//!
//! Invariant: a table comes before its partitions.

use super::relation::RelationRef;
use crate::pg::RelationKind;
use serde::{Deserialize, Serialize};

/// A partitioned table with all tables under it, each table before its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// The names of the wanted index's columns.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The wanted index is unique.
    #[serde(default)]
    pub unique: bool,
    /// The columns of the table that the wanted index is ordered by; empty in place of an expression.
    #[serde(default)]
    pub keys: Vec<String>,
    pub members: Vec<Member>,
    /// Another relation has the wanted index's own name.
    #[serde(default)]
    pub name_taken: bool,
}

/// One table of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    /// The table that this table is a partition of. `None`: this is the topmost table.
    pub parent: Option<u32>,
    /// For a partitioned table, the columns of its partition key; `None` in place of an expression.
    #[serde(default)]
    pub key: Option<Vec<Option<String>>>,
    /// The session's role may act as the owner of the table.
    pub owned: bool,
    /// A backend is at work on the table with SHARE UPDATE EXCLUSIVE or a stronger lock.
    #[serde(default)]
    pub busy: bool,
    /// The invalid indexes of the table.
    #[serde(default)]
    pub invalid: Vec<u32>,
    /// The columns that the wanted index is ordered by and that are not NOT NULL in this table.
    #[serde(default)]
    pub nullable: Vec<String>,
    /// Such a column is NOT NULL by a constraint (18) that this table has only from its parent.
    #[serde(default)]
    pub inherits_not_null: bool,
    /// The matching index, which PostgreSQL would attach.
    pub equal: Option<MatchingIndex>,
    /// If no index matches, the name that PostgreSQL would choose for a new one.
    #[serde(default)]
    pub new_index: Option<String>,
}

/// An index that matches the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchingIndex {
    #[serde(flatten)]
    pub id: RelationRef,
    pub valid: bool,
}

impl Tree {
    /// The members where an index must exist or be built: all but those under a table that already has a matching index.
    pub fn open(&self) -> Vec<&Member> {
        let mut closed: Vec<u32> = Vec::new();
        let mut open = Vec::new();
        for member in &self.members {
            let under = member.parent.is_some_and(|parent| closed.contains(&parent));
            if under || member.equal.is_some() {
                closed.push(member.id.oid);
            }
            if !under {
                open.push(member);
            }
        }
        open
    }
}
