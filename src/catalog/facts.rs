//! The facts from which a plan is made: what is true of the session, of the relations that the statement names, and of
//! what the plan may need beside them.
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
    /// Why no name was asked for: then the statement goes as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameless: Option<NamesUnknown>,
    /// In the order asked; a name that resolves to nothing has `found: None`.
    pub relations: Vec<NamedFacts>,
    /// Every relation that the facts name beside those asked for: parents, referenced tables, an index's table …
    #[serde(default)]
    pub related: Vec<RelatedFacts>,
    /// What the rewrite probe said, one per part of the statement; `None`: not asked or it could not run.
    #[serde(default)]
    pub probe: Vec<Option<ProbeAnswer>>,
    /// The definition that the index which CREATE INDEX asks for would have, in the form of
    /// [`super::relation::IndexFacts::comparable_definition`]; set by the session if a leftover of the same name made it ask.
    #[serde(default)]
    pub wanted_index: Option<String>,
    /// Why the table was not copied to try the statement: whose code that would run, as a fragment that follows "because".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
    /// The names that PostgreSQL would choose for keys and sequences that ALTER TABLE makes without one; set by the session.
    #[serde(default)]
    pub free_names: Vec<FreeName>,
    /// The partitions under the statement's table, where it makes an index on all of them; set by the session.
    #[serde(default)]
    pub tree: Option<super::tree::Tree>,
    /// The materialized view can be refreshed concurrently; set by the session.
    #[serde(default)]
    pub refreshable: bool,
    /// What ATTACH PARTITION would do under its locks; set by the session.
    #[serde(default)]
    pub attach: Option<super::attach::AttachFacts>,
    /// The partitions under the statement's table, where it adds a foreign key to all of them; set by the session.
    #[serde(default)]
    pub leaves: Option<super::leaves::Leaves>,
    /// What DROP TABLE of a partition depends on; set by the session.
    #[serde(default)]
    pub detachable: Option<super::detachable::Detachable>,
    /// The tables that hold values of the domain which ALTER DOMAIN names; set by the session.
    #[serde(default)]
    pub domain_tables: Option<Vec<RelationFacts>>,
    /// Whether the rows of the statement's table can be updated unnoticed; set by the session where a plan may want that.
    #[serde(default)]
    pub backfill: Option<BackfillFacts>,
    #[serde(skip)]
    pub places: Places,
}

/// Why nothing is known of what a statement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamesUnknown {
    /// The encodings of the session leave no words for it.
    Encoding,
    /// It names too much ([`crate::sql::Ddl::names_too_much`]).
    TooMuch,
}

/// A name that PostgreSQL would choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeName {
    /// Of the statement's parts.
    pub part: usize,
    pub label: NameSuffix,
    pub name: String,
}

/// What a name is chosen for: how it ends.
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

/// What a backfill meets that a rewrite of the table would not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillFacts {
    /// Why an UPDATE of every row is not what a rewrite is, or is not allowed: a fragment that follows "because".
    pub obstacle: Option<String>,
    /// The obstacle is whose code would run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distrust: Option<String>,
    /// Some of the rows belong to others, who may make their code run while they are filled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
    /// Triggers would fire; the session may keep them from it.
    pub quiet: bool,
    /// The session's role, and the table's owner, quoted.
    pub role: String,
    pub owner: String,
    /// How a sequence is made as the server would make the one behind a serial column; `None`: it cannot be.
    pub sequences: Option<SequenceCreation>,
}

/// A serial column's sequence belongs to the table's owner, with the privileges that this one gives by default, and whether
/// he may create anything in the schema does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SequenceCreation {
    /// The session's role is the owner.
    Plain,
    /// The session's role may become the owner, who may create it.
    AsOwner,
    /// It is made, and given to the owner; neither of the two gives privileges by default.
    Given,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// The transaction holds a lock on some relation of the user's, however weak.
    #[serde(default)]
    pub holds: bool,
    /// The strongest relation lock that this transaction holds on a relation it did not create.
    #[serde(default)]
    pub strongest_lock: Option<LockMode>,
    /// The transaction sees an old state (REPEATABLE READ, SERIALIZABLE): what the facts say may be out of date.
    #[serde(default)]
    pub frozen_snapshot: bool,
    /// There are event triggers, which must see every statement, and may give a transaction its id before the statement.
    #[serde(default)]
    pub event_triggers: bool,
    /// The transaction, or the next one, may write nothing.
    #[serde(default)]
    pub read_only: bool,
    /// `client_min_messages` keeps NOTICEs from the client.
    #[serde(default)]
    pub hushed: bool,
    /// Where a relation without a schema is created.
    #[serde(default)]
    pub current_schema: Option<String>,
}

/// What the empty copy said about one part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    pub rewrites_table: bool,
    pub rebuilds_indexes: bool,
    /// A column whose type is not PostgreSQL's own: the column without any value would rewrite the table too.
    #[serde(default)]
    pub rewrites_bare: Option<bool>,
    /// The server refuses it.
    #[serde(default)]
    pub fails: bool,
}

impl Facts {
    /// What is known of the relation that the statement calls `name`.
    pub fn relation(&self, name: &RelationName) -> Option<&RelationFacts> {
        self.asked(name).and_then(|asked| asked.found.as_ref())
    }

    /// The name that PostgreSQL would choose for what a part makes.
    pub fn free_name(&self, part: usize, label: NameSuffix) -> Option<&str> {
        let mut names = self.free_names.iter();
        names.find(|free| free.part == part && free.label == label).map(|free| free.name.as_str())
    }

    /// The answer for a name, whether it was found or not; `None`: it was never asked for.
    pub fn asked(&self, name: &RelationName) -> Option<&NamedFacts> {
        self.places.named(&self.relations, name)
    }

    /// The relation with this oid, if it was asked for.
    pub fn asked_of(&self, oid: u32) -> Option<&NamedFacts> {
        self.places.of_oid(&self.relations, oid)
    }

    /// How many relations are locked with the one of this oid: its descendants, as far as they were counted.
    pub fn below(&self, oid: u32) -> u32 {
        self.asked_of(oid).and_then(|asked| asked.found.as_ref()).map_or(0, |found| found.below)
    }

    /// What matters for locking the relation with this oid.
    pub fn lock_facts(&self, oid: u32) -> Option<RelatedFacts> {
        match self.asked_of(oid).and_then(|asked| asked.found.as_ref()) {
            Some(found) => Some(found.lock_facts()),
            None => self.related.iter().find(|related| related.relation.oid == oid).cloned(),
        }
    }
}
