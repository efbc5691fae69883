//! A partitioned table with its partitions, as a plan for an index on all of them sees it.
//!
//! A [`Tree`] says of each table which index of it matches the wanted one, or what PostgreSQL would call a new one. It is plain data
//! that [`super::inquiry::index`] fills in.
//!
//! Invariant: a table stands before its partitions.

use super::relation::RelationRef;
use crate::pg::RelationKind;
use serde::{Deserialize, Serialize};

/// A partitioned table with all that is under it, each table before its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// The names of the wanted index's columns.
    #[serde(default)]
    pub columns: Vec<String>,
    /// It is unique.
    #[serde(default)]
    pub unique: bool,
    /// The columns of its table that it is ordered by; empty in place of an expression.
    #[serde(default)]
    pub keys: Vec<String>,
    pub members: Vec<Member>,
    /// The wanted index's own name is another relation's.
    #[serde(default)]
    pub name_taken: bool,
}

/// One table of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    /// The table that it is a partition of; `None`: the first.
    pub parent: Option<u32>,
    /// Of a partitioned table: the columns of its key; `None` in place of an expression.
    #[serde(default)]
    pub key: Option<Vec<Option<String>>>,
    /// The session's role may act as its owner.
    pub owned: bool,
    /// A backend is at work on it with SHARE UPDATE EXCLUSIVE or stronger.
    #[serde(default)]
    pub busy: bool,
    /// Its invalid indexes.
    #[serde(default)]
    pub invalid: Vec<u32>,
    /// Columns that the wanted index is ordered by, and that are not NOT NULL in this table.
    #[serde(default)]
    pub nullable: Vec<String>,
    /// Such a column is NOT NULL by a constraint (18) that this table has from its parent alone.
    #[serde(default)]
    pub inherits_not_null: bool,
    /// The index that PostgreSQL would attach.
    pub equal: Option<MatchingIndex>,
    /// Else the name that PostgreSQL would choose for a new one.
    #[serde(default)]
    pub new_index: Option<String>,
}

/// An index that is the same as the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchingIndex {
    #[serde(flatten)]
    pub id: RelationRef,
    pub valid: bool,
}

impl Tree {
    /// Where an index is to be there or to be built: every member but those under a table that has the same one already.
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
