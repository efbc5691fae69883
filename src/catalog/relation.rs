//! What the catalogue says of one relation: its columns, constraints and indexes, its size, and the relations around it.
//!
//! This file owns [`RelationFacts`], plain data that [`super::reading`] fills in. It owns no connection and asks nothing.

use crate::pg::{LockMode, RelationKind, RelationName};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedFacts {
    pub name: RelationName,
    /// The schema of the name (or the schema to create in) exists, and the role may use it.
    #[serde(default)]
    pub schema_usable: bool,
    /// The role may create relations in that schema.
    #[serde(default)]
    pub may_create: bool,
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

/// The facts that locking a relation depends on, for a relation that the statement does not name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelatedFacts {
    pub relation: RelationRef,
    pub kind: RelationKind,
    pub persistence: char,
    pub may_lock: bool,
    #[serde(default)]
    pub own_lock: Option<LockMode>,
    #[serde(default)]
    pub created_here: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelationFacts {
    #[serde(flatten)]
    pub id: RelationRef,
    pub kind: RelationKind,
    /// `pg_class.relpersistence`: p, u, t
    pub persistence: char,
    /// The size of the main fork and of TOAST (bytes); 0 without storage. For a parent, the sum over its descendants.
    pub bytes: u64,
    /// For an index or a sequence, the `bytes` of its table.
    #[serde(default)]
    pub table_bytes: u64,
    /// `reltuples`. A negative number means that the table was never analysed.
    pub rows: f64,
    /// The relation has partitions or inheritance children.
    pub has_children: bool,
    /// How many descendants the relation has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub below: u32,
    /// The columns that inheritance children have and the relation lacks. A new column of such a name is merged with theirs.
    #[serde(default)]
    pub child_columns: Vec<String>,
    /// The relation is a partition, and not merely an inheritance child.
    #[serde(default)]
    pub is_partition: bool,
    /// The relation is a partition whose DETACH CONCURRENTLY was interrupted (14 and later).
    #[serde(default)]
    pub detach_pending: bool,
    /// The relation has such a partition.
    #[serde(default)]
    pub detaching: bool,
    /// The relation is a partitioned table with a tablespace or an access method, which its partitions get.
    #[serde(default)]
    pub passes_storage: bool,
    /// `CREATE TABLE … OF type`
    #[serde(default)]
    pub typed: bool,
    /// The session's role may act as the owner of the relation.
    #[serde(default)]
    pub owned: bool,
    /// The session's role has a privilege that `LOCK TABLE` asks for.
    #[serde(default)]
    pub may_lock: bool,
    /// The parent, if this is a partition or inheritance child (the first).
    #[serde(default)]
    pub parent: Option<RelationRef>,
    /// For a partitioned table, its default partition. For a partition, the default partition of its parent.
    #[serde(default)]
    pub default_partition: Option<RelationRef>,
    /// For an index, its table. For a sequence, the table that owns it.
    #[serde(default)]
    pub table: Option<RelationRef>,
    /// For an index, its own row of `pg_index`.
    #[serde(default)]
    pub index: Option<IndexFacts>,
    /// The strongest lock that this session holds on the relation now.
    #[serde(default)]
    pub own_lock: Option<LockMode>,
    /// The relation was created in this very transaction, so nobody else can see it.
    #[serde(default)]
    pub created_here: bool,
    /// Another backend that holds this relation's lane.
    #[serde(default)]
    pub lane_holder: Option<i32>,
    /// A plan for the relation is on record (`execute/record.rs`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recorded: bool,
    /// The relation is a system catalogue, or in `information_schema`.
    #[serde(default)]
    pub is_system: bool,
    /// The columns of a table or view that are not dropped, in order.
    #[serde(default)]
    pub columns: Vec<ColumnFacts>,
    #[serde(default)]
    pub constraints: Vec<ConstraintFacts>,
    /// The indexes of a table. For an index, all indexes of its table.
    #[serde(default)]
    pub indexes: Vec<IndexFacts>,
    /// The other tables whose foreign keys point to this table.
    #[serde(default)]
    pub referenced_by: Vec<RelationRef>,
    /// The tables of `referenced_by`, the tables whose foreign keys point to these, and so on.
    #[serde(default)]
    pub reached_by: Vec<RelationRef>,
    /// The tables to which foreign keys of the partitions point that the table itself does not have.
    #[serde(default)]
    pub partitions_reference: Vec<RelationRef>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnFacts {
    pub name: String,
    /// `format_type`
    pub type_name: String,
    pub not_null: bool,
    pub has_default: bool,
    #[serde(default)]
    pub identity: bool,
    /// Stored or virtual.
    #[serde(default)]
    pub generated: bool,
    /// Generated, and virtual (18).
    #[serde(default)]
    pub computed: bool,
    /// The column has a row type, or a domain, which may be over a row type. A value of it can be neither NULL nor NOT NULL.
    #[serde(default)]
    pub row_type: bool,
    /// The column has another collation than its type.
    #[serde(default)]
    pub custom_collation: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConstraintFacts {
    pub name: String,
    /// `pg_constraint.contype`: c f n p t u x
    pub kind: char,
    pub validated: bool,
    /// The constraint is the partition's part of a constraint of its parent.
    #[serde(default)]
    pub of_parent: bool,
    /// `conislocal`: the table's own, not only its parents'.
    pub local: bool,
    /// `connoinherit`
    pub no_inherit: bool,
    #[serde(default)]
    pub columns: Vec<String>,
    /// For a foreign key, the referenced table.
    #[serde(default)]
    pub references: Option<RelationRef>,
    /// The constraint has a comment, which is dropped with it.
    #[serde(default)]
    pub commented: bool,
    /// `pg_get_constraintdef`. Empty if the question would have had to wait for a lock.
    pub definition: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexFacts {
    #[serde(flatten)]
    pub id: RelationRef,
    pub unique: bool,
    /// `indisvalid and indisready and indislive`
    pub valid: bool,
    /// The index belongs to a constraint.
    pub of_constraint: bool,
    /// A backend is at work on the index or on its table with SHARE UPDATE EXCLUSIVE or a stronger lock.
    pub in_progress: bool,
    /// `pg_get_indexdef`. Empty if the question would have had to wait for a lock.
    pub definition: String,
}

impl IndexFacts {
    /// An index of which nothing else is known.
    pub fn new(id: RelationRef, valid: bool) -> Self {
        let (unique, of_constraint, in_progress) = (false, false, false);
        Self { id, unique, valid, of_constraint, in_progress, definition: String::new() }
    }

    /// The text that two indexes of one table share if only their names differ. `None`: the definition is not known.
    pub fn comparable_definition(&self) -> Option<String> {
        comparable_index_definition(&self.definition)
    }
}

/// The text of `pg_get_indexdef` without the names of the index and the table: the uniqueness, and the text from USING on.
pub fn comparable_index_definition(definition: &str) -> Option<String> {
    let (unique, tail) = index_definition_tail(definition)?;
    Some(format!("{}{tail}", if unique { "UNIQUE" } else { "INDEX" }))
}

/// Whether an index is unique, and the text of `pg_get_indexdef` from ` USING` on.
pub fn index_definition_tail(definition: &str) -> Option<(bool, &str)> {
    let unique = definition.strip_prefix("CREATE ")?.starts_with("UNIQUE ");
    // A quoted name may hold anything, so text between quotes is skipped.
    let mut quoted = false;
    let using = definition.char_indices().find_map(|(i, c)| {
        quoted ^= c == '"';
        (!quoted && definition[i..].starts_with(" USING ")).then_some(i)
    })?;
    Some((unique, &definition[using..]))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "so serde asks")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl RelationFacts {
    /// The bytes that a scan, a build or a rewrite goes through. Each relation counts as one page at least, since empty partitions
    /// take time, too: 128 of them take a tenth of a second, and count as 1 MB here.
    pub fn weight(&self) -> u64 {
        const PAGE: u64 = 8 << 10;
        self.bytes.max(self.table_bytes).max(u64::from(self.below) * PAGE)
    }

    /// Whether the plan for the relation may differ from the plan for a small table. It does not if only this session sees the
    /// table.
    pub fn is_large(&self, small_table: u64) -> bool {
        (small_table == 0 || self.weight() > small_table) && self.persistence != 't' && !self.created_here
    }

    /// An empty, permanent relation of which nothing else is known, and which may be locked.
    pub fn new(id: RelationRef, kind: RelationKind) -> Self {
        Self {
            id,
            kind,
            persistence: 'p',
            bytes: 0,
            table_bytes: 0,
            rows: 0.0,
            has_children: false,
            below: 0,
            child_columns: Vec::new(),
            is_partition: false,
            detach_pending: false,
            detaching: false,
            passes_storage: false,
            typed: false,
            owned: false,
            may_lock: true,
            parent: None,
            default_partition: None,
            table: None,
            index: None,
            own_lock: None,
            created_here: false,
            lane_holder: None,
            recorded: false,
            is_system: false,
            columns: Vec::new(),
            constraints: Vec::new(),
            indexes: Vec::new(),
            referenced_by: Vec::new(),
            reached_by: Vec::new(),
            partitions_reference: Vec::new(),
        }
    }

    pub fn column(&self, name: &str) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn constraint(&self, name: &str) -> Option<&ConstraintFacts> {
        self.constraints.iter().find(|constraint| constraint.name == name)
    }

    /// The NOT NULL constraint of a column (18).
    pub fn not_null(&self, column: &str) -> Option<&ConstraintFacts> {
        self.constraints.iter().find(|constraint| constraint.kind == 'n' && constraint.columns == [column])
    }

    pub fn lock_facts(&self) -> RelatedFacts {
        RelatedFacts {
            relation: self.id.clone(),
            kind: self.kind,
            persistence: self.persistence,
            may_lock: self.may_lock,
            own_lock: self.own_lock,
            created_here: self.created_here,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_definitions_are_compared_without_names() {
        let of = comparable_index_definition;
        assert_eq!(of("CREATE INDEX i ON public.t USING btree (a)"), of("CREATE INDEX j ON s.u USING btree (a)"));
        assert_ne!(of("CREATE UNIQUE INDEX i ON t USING btree (a)"), of("CREATE INDEX i ON t USING btree (a)"));
        assert_eq!(of(r#"CREATE INDEX " USING x" ON t USING gin (a)"#).as_deref(), Some("INDEX USING gin (a)"));
        assert_eq!(of(""), None);
    }
}
