//! The facts from which a plan is made: about the session, about the relations that the statement names, and about other objects
//! that the plan may need.
//!
//! [`Facts`] is plain data. [`super::reading`] puts it together, [`crate::learn`] completes it, and a test can write it
//! as one JSON document.
//!
//! Invariant: reading facts takes no lock stronger than ACCESS SHARE on catalogue tables.

use super::places::Places;
use super::relation::{NamedFacts, RelatedFacts, RelationFacts};
use crate::pg::{LockMode, RelationName};
use serde::{Deserialize, Serialize};

/// What is true of the session and of every relation asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub session: SessionFacts,
    /// Why the proxy asked nothing about the names. The statement then runs as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameless: Option<NamesUnknown>,
    /// The relations in the order in which they were asked for. A name that resolves to nothing has `found: None`.
    pub relations: Vec<NamedFacts>,
    /// The other relations that the facts name: parents, referenced tables, the table of an index.
    #[serde(default)]
    pub related: Vec<RelatedFacts>,
    /// The answers of the rewrite probe, one for each part of the statement; `None`: it was not asked, or could not run.
    #[serde(default)]
    pub probe: Vec<Option<ProbeAnswer>>,
    /// The definition that the index of CREATE INDEX would have, in the form of
    /// [`super::relation::IndexFacts::comparable_definition`]. The session asks for it only if a leftover index of the same name
    /// exists.
    #[serde(default)]
    pub wanted_index: Option<String>,
    /// Why the statement was not tried on a copy of the table: it says whose code would run, as a fragment that follows "because".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
    /// The names that PostgreSQL would choose for keys and sequences that the ALTER TABLE does not name; set by the session.
    #[serde(default)]
    pub free_names: Vec<FreeName>,
    /// The partitions under the statement's table, if the statement makes an index on all of them; set by the session.
    #[serde(default)]
    pub tree: Option<super::tree::Tree>,
    /// The materialized view can be refreshed concurrently; set by the session.
    #[serde(default)]
    pub refreshable: bool,
    /// What ATTACH PARTITION would do under its locks; set by the session.
    #[serde(default)]
    pub attach: Option<super::attach::AttachFacts>,
    /// The partitions under the statement's table, if the statement adds a foreign key to all of them; set by the session.
    #[serde(default)]
    pub leaves: Option<super::leaves::Leaves>,
    /// What DROP TABLE of a partition depends on; set by the session.
    #[serde(default)]
    pub detachable: Option<super::detachable::Detachable>,
    /// The tables that hold values of the domain which ALTER DOMAIN names; set by the session.
    #[serde(default)]
    pub domain_tables: Option<Vec<RelationFacts>>,
    /// Whether the rows of the statement's table can be updated unnoticed; set by the session if a plan may want that.
    #[serde(default)]
    pub backfill: Option<BackfillFacts>,
    #[serde(skip)]
    pub places: Places,
}

impl Facts {
    /// The facts as they would be outside the transaction that is open: it holds no lock, and what it has made is there for everybody.
    #[must_use]
    pub fn outside_the_transaction(mut self) -> Self {
        let session = &mut self.session;
        (session.in_transaction, session.holds, session.strongest_lock) = (false, false, None);
        session.frozen_snapshot = false;
        for found in self.relations.iter_mut().filter_map(|asked| asked.found.as_mut()) {
            (found.own_lock, found.created_here) = (None, false);
        }
        for related in &mut self.related {
            (related.own_lock, related.created_here) = (None, false);
        }
        self
    }
}

/// Why nothing is known of the relations that a statement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamesUnknown {
    /// The names cannot be written in the encodings of the session.
    Encoding,
    /// The statement names too many objects ([`crate::sql::Ddl::names_too_much`]).
    TooMuch,
}

/// A name that PostgreSQL would choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeName {
    /// The index of the part among the statement's parts.
    pub part: usize,
    pub label: NameSuffix,
    pub name: String,
}

/// The end of a name that PostgreSQL chooses: what the name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameSuffix {
    Pkey,
    Key,
    Seq,
}

impl NameSuffix {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pkey => "pkey",
            Self::Key => "key",
            Self::Seq => "seq",
        }
    }
}

/// The differences between a backfill and a rewrite of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillFacts {
    /// Why an UPDATE of every row would do something else than a rewrite, or is not allowed: a fragment that follows "because".
    pub obstacle: Option<String>,
    /// The obstacle, if it is that code of other roles would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
    /// Some of the rows belong to other roles. These roles may make their code run while the backfill fills the rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
    /// Triggers would fire, and the session may prevent that.
    pub quiet: bool,
    /// The session's role, quoted.
    pub role: String,
    /// The table's owner, quoted.
    pub owner: String,
    /// How to create a sequence as the server would create it for a serial column. `None`: it cannot be created so.
    pub sequences: Option<SequenceCreation>,
}

/// How to create the sequence of a serial column. It belongs to the table's owner and has the owner's default privileges, and the
/// owner needs no CREATE privilege on the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SequenceCreation {
    /// The session's role is the owner.
    Plain,
    /// The session's role may become the owner, and the owner may create the sequence.
    AsOwner,
    /// The session's role creates the sequence and gives it to the owner. Neither of the two has default privileges.
    Given,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// `server_version_num`, e.g. 150018
    pub server_version: i32,
    pub backend_pid: i32,
    /// An explicit or implicit transaction block is open. The session sets this; it is not asked.
    #[serde(default)]
    pub in_transaction: bool,
    /// `lock_timeout` (milliseconds); 0: none.
    pub lock_timeout_ms: u64,
    pub statement_timeout_ms: u64,
    pub deadlock_timeout_ms: u64,
    /// The role may create temporary tables, so the rewrite probe can run.
    pub may_probe: bool,
    /// The transaction holds a lock, however weak, on some user relation.
    #[serde(default)]
    pub holds: bool,
    /// The strongest relation lock that this transaction holds on a relation it did not create.
    #[serde(default)]
    pub strongest_lock: Option<LockMode>,
    /// The transaction sees an old state (REPEATABLE READ, SERIALIZABLE), so the facts may be out of date.
    #[serde(default)]
    pub frozen_snapshot: bool,
    /// There are event triggers. They must see every statement, and they may give a transaction its id before the statement.
    #[serde(default)]
    pub event_triggers: bool,
    /// The transaction, or the next one, is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// `client_min_messages` keeps NOTICEs from the client.
    #[serde(default)]
    pub hushed: bool,
    /// The schema in which a relation without a schema is created.
    #[serde(default)]
    pub current_schema: Option<String>,
}

/// The answer of the rewrite probe about one part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    pub rewrites_table: bool,
    pub rebuilds_indexes: bool,
    /// For a column whose type is not PostgreSQL's own: the column would rewrite the table even without a value.
    #[serde(default)]
    pub rewrites_bare: Option<bool>,
    /// The server refuses the part.
    #[serde(default)]
    pub fails: bool,
}

impl Facts {
    /// The facts of the relation that the statement calls `name`.
    pub fn relation(&self, name: &RelationName) -> Option<&RelationFacts> {
        self.asked(name).and_then(|asked| asked.found.as_ref())
    }

    /// The name that PostgreSQL would choose for the object that a part makes.
    pub fn free_name(&self, part: usize, label: NameSuffix) -> Option<&str> {
        let mut names = self.free_names.iter();
        names.find(|free| free.part == part && free.label == label).map(|free| free.name.as_str())
    }

    /// The answer for a name, whether the relation was found or not; `None`: the name was never asked for.
    pub fn asked(&self, name: &RelationName) -> Option<&NamedFacts> {
        self.places.named(&self.relations, name)
    }

    /// The relation with this oid, if it was asked for.
    pub fn asked_of(&self, oid: u32) -> Option<&NamedFacts> {
        self.places.of_oid(&self.relations, oid)
    }

    /// How many descendants are locked together with the relation of this oid, as far as they were counted.
    pub fn below(&self, oid: u32) -> u32 {
        self.asked_of(oid).and_then(|asked| asked.found.as_ref()).map_or(0, |found| found.below)
    }

    /// The facts that locking the relation with this oid depends on.
    pub fn lock_facts(&self, oid: u32) -> Option<RelatedFacts> {
        match self.asked_of(oid).and_then(|asked| asked.found.as_ref()) {
            Some(found) => Some(found.lock_facts()),
            None => self.related.iter().find(|related| related.relation.oid == oid).cloned(),
        }
    }
}
