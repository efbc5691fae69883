//! The answers to the questions of [`super`], and how they become [`Facts`].

use crate::catalog::{
    ColumnFacts, ConstraintFacts, Facts, IndexFacts, NamedFacts, RelatedFacts, RelationFacts, RelationRef, SessionFacts,
};
use crate::pg::{LockMode, RelationKind};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// All answers so far.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) head: Option<Head>,
    pub(super) owners: Vec<Owner>,
    pub(super) columns: Vec<OfRelation<ColumnFacts>>,
    pub(super) constraints: Vec<Constraint>,
    pub(super) references: Vec<Reference>,
    pub(super) indexes: Vec<OfRelation<IndexFacts>>,
    pub(super) families: Vec<Family>,
    pub(super) sizes: Vec<Size>,
    pub(super) reaches: Vec<ForeignKeyReach>,
    /// The backends that vacuum.
    pub(super) vacuums: Vec<i32>,
    pub(super) related: Vec<RelatedFacts>,
    pub(super) transaction: Transaction,
    /// The lanes of backends whose role may change the relation.
    pub(super) lanes: Vec<Lane>,
}

/// Another backend that has a relation's lane.
#[derive(Debug, Deserialize)]
pub(super) struct Lane {
    oid: u32,
    pid: i32,
}

/// The answer to the first question.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) session: SessionFacts,
    /// This transaction itself holds locks on relations.
    pub(super) holds: bool,
    others: Vec<OthersLock>,
    pub(super) relations: Vec<NamedRelation>,
}

/// A lock of another backend: SHARE UPDATE EXCLUSIVE or stronger, or a lane.
#[derive(Debug, Deserialize)]
struct OthersLock {
    oid: u32,
    /// `None`: the lock belongs to a prepared transaction.
    pid: Option<i32>,
    mode: String,
    granted: bool,
    lane: bool,
}

/// A name, the relation that it resolves to, and what there is to ask about that relation.
#[derive(Debug, Deserialize)]
pub(super) struct NamedRelation {
    #[serde(flatten)]
    pub(super) asked: NamedFacts,
    pub(super) has: Option<ToAsk>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToAsk {
    pub(super) indexes: bool,
    pub(super) triggers: bool,
    pub(super) parent: bool,
    /// Opening the relation could wait, so its size is not read.
    pub(super) waits: bool,
}

/// One fact, and the relation that it is about.
#[derive(Debug, Deserialize)]
pub(super) struct OfRelation<T> {
    of: u32,
    #[serde(flatten)]
    what: T,
}

/// The table of an index or a sequence.
#[derive(Debug, Deserialize)]
pub(super) struct Owner {
    of: u32,
    #[serde(flatten)]
    pub(super) related: RelatedFacts,
}

#[derive(Debug, Deserialize)]
pub(super) struct Constraint {
    of: u32,
    /// The referenced table; 0: none.
    to: u32,
    #[serde(flatten)]
    what: ConstraintFacts,
}

/// A foreign key.
#[derive(Debug, Deserialize)]
pub(super) struct Reference {
    from: u32,
    to: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Family {
    of: u32,
    parent: Option<u32>,
    has_children: bool,
    detach_pending: bool,
    detaching: bool,
    child_columns: Vec<String>,
    /// The default partition of the relation, then that of its parent; 0: none.
    defaults: Vec<Option<u32>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Size {
    of: u32,
    relations: u32,
    bytes: u64,
    tuples: f64,
}

/// How far the foreign keys of a relation, and of its partitions, reach.
#[derive(Debug, Deserialize)]
pub(super) struct ForeignKeyReach {
    of: u32,
    reached: Vec<u32>,
    pointed: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Transaction {
    held: Vec<HeldLock>,
    strongest: Option<LockMode>,
}

/// The strongest lock that this transaction holds on a relation.
#[derive(Debug, Deserialize)]
struct HeldLock {
    oid: u32,
    mode: LockMode,
    /// The relation was created in this transaction.
    created: bool,
}

impl OthersLock {
    fn is_exclusive(&self) -> bool {
        !self.lane && self.mode == LockMode::AccessExclusive.pg_locks()
    }
}

impl Answers {
    fn others(&self) -> impl Iterator<Item = &OthersLock> {
        self.head.iter().flat_map(|head| &head.others)
    }

    /// The relations that could make an opener wait, even with ACCESS SHARE.
    pub(super) fn contended(&self) -> Vec<u32> {
        self.others().filter(|lock| lock.is_exclusive()).map(|lock| lock.oid).collect()
    }

    /// Whether any backend holds a lane, whatever its role is.
    pub(super) fn has_lanes(&self) -> bool {
        self.others().any(|lock| lock.lane)
    }

    /// The relations that another backend is at work on with SHARE UPDATE EXCLUSIVE or stronger. A vacuum is left out, since it
    /// builds nothing.
    pub(super) fn busy(&self) -> impl Iterator<Item = u32> {
        let vacuums = |lock: &&OthersLock| lock.pid.is_some_and(|pid| self.vacuums.contains(&pid));
        self.others().filter(|lock| lock.granted && !lock.lane).filter(move |lock| !vacuums(lock)).map(|lock| lock.oid)
    }

    /// The relations that the answers about other relations name.
    pub(super) fn named(&self) -> impl Iterator<Item = u32> {
        let families =
            self.families.iter().flat_map(|family| family.parent.into_iter().chain(family.default_partition()));
        let constraints = self.constraints.iter().map(|constraint| constraint.to);
        let references = self.references.iter().flat_map(|key| [key.from, key.to]);
        let reaches = self.reaches.iter().flat_map(|reach| reach.reached.iter().chain(&reach.pointed).copied());
        families.chain(constraints).chain(references).chain(reaches).filter(|oid| *oid > 0)
    }

    pub(super) fn facts(mut self) -> Option<Facts> {
        let busy: BTreeSet<u32> = self.busy().collect();
        let head = self.head.take()?;
        let held: BTreeMap<u32, &HeldLock> = self.transaction.held.iter().map(|held| (held.oid, held)).collect();
        let mut refs: BTreeMap<u32, RelatedFacts> = BTreeMap::new();
        let found = head.relations.iter().filter_map(|named| named.asked.found.as_ref());
        let known = found.map(RelationFacts::lock_facts);
        let others = self.owners.iter().map(|owner| &owner.related).chain(&self.related).cloned();
        for mut related in known.chain(others) {
            own(&held, related.relation.oid, &mut related.own_lock, &mut related.created_here);
            refs.insert(related.relation.oid, related);
        }
        let mut about: BTreeSet<u32> = self.named().collect();
        about.extend(self.owners.iter().map(|owner| owner.related.relation.oid));
        let completing = Completing { answers: &self, busy: &busy, held: &held, refs: &refs };
        let relations = head.relations.iter().map(|named| completing.complete(named)).collect();
        Some(Facts {
            session: SessionFacts {
                holds: head.holds,
                strongest_lock: self.transaction.strongest,
                ..head.session.clone()
            },
            relations,
            related: about.iter().filter_map(|oid| refs.get(oid).cloned()).collect(),
            ..Facts::default()
        })
    }
}

impl Family {
    fn default_partition(&self) -> Option<u32> {
        self.defaults.iter().copied().flatten().find(|oid| *oid > 0)
    }
}

fn own(held: &BTreeMap<u32, &HeldLock>, oid: u32, lock: &mut Option<LockMode>, created: &mut bool) {
    if let Some(held) = held.get(&oid) {
        (*lock, *created) = (Some(held.mode), held.created);
    }
}

/// Completes the facts of each relation that was asked for, from the answers.
struct Completing<'a> {
    answers: &'a Answers,
    busy: &'a BTreeSet<u32>,
    held: &'a BTreeMap<u32, &'a HeldLock>,
    refs: &'a BTreeMap<u32, RelatedFacts>,
}

impl Completing<'_> {
    fn complete(&self, named: &NamedRelation) -> NamedFacts {
        let mut asked = named.asked.clone();
        if let Some(found) = &mut asked.found {
            self.relation(found);
        }
        asked
    }

    fn relation(&self, found: &mut RelationFacts) {
        let oid = found.id.oid;
        own(self.held, oid, &mut found.own_lock, &mut found.created_here);
        let lanes = self.answers.lanes.iter().filter(|lane| lane.oid == oid);
        found.lane_holder = lanes.map(|lane| lane.pid).min();
        let owner = self.answers.owners.iter().find(|owner| owner.of == oid);
        found.table = owner.map(|owner| owner.related.relation.clone());
        self.family(found);
        self.sizes(found);
        found.columns = of(&self.answers.columns, oid);
        found.constraints = self.constraints(oid);
        found.indexes = self.indexes(found.table.as_ref().unwrap_or(&found.id));
        found.index = match found.kind {
            RelationKind::Index | RelationKind::PartitionedIndex => {
                found.indexes.iter().find(|index| index.id.oid == oid).cloned()
            }
            _ => None,
        };
        let incoming = self.answers.references.iter().filter(|key| key.to == oid && key.from != oid);
        let incoming: BTreeSet<u32> = incoming.map(|key| key.from).collect();
        found.referenced_by = incoming.into_iter().filter_map(|oid| self.named(oid)).collect();
        if let Some(reach) = self.answers.reaches.iter().find(|reach| reach.of == oid) {
            found.reached_by = reach.reached.iter().filter_map(|oid| self.named(*oid)).collect();
            found.partitions_reference = reach.pointed.iter().filter_map(|oid| self.named(*oid)).collect();
        }
    }

    fn named(&self, oid: u32) -> Option<RelationRef> {
        self.refs.get(&oid).map(|related| related.relation.clone())
    }

    fn family(&self, found: &mut RelationFacts) {
        let Some(family) = self.answers.families.iter().find(|family| family.of == found.id.oid) else { return };
        found.parent = family.parent.and_then(|oid| self.named(oid));
        found.has_children = family.has_children;
        found.detach_pending = family.detach_pending;
        found.detaching = family.detaching;
        found.child_columns.clone_from(&family.child_columns);
        found.default_partition = family.default_partition().and_then(|oid| self.named(oid));
    }

    /// The size of a parent is the sum over its descendants. An index or a sequence also gets the size of its table.
    fn sizes(&self, found: &mut RelationFacts) {
        let size = |oid: u32| self.answers.sizes.iter().find(|size| size.of == oid);
        if let Some(own) = size(found.id.oid) {
            found.bytes = own.bytes;
            found.below = own.relations.saturating_sub(1);
            if found.has_children {
                found.rows = own.tuples;
            }
        }
        if let Some(table) = found.table.as_ref().and_then(|table| size(table.oid)) {
            found.table_bytes = table.bytes;
        }
    }

    fn constraints(&self, oid: u32) -> Vec<ConstraintFacts> {
        let own = self.answers.constraints.iter().filter(|constraint| constraint.of == oid);
        own.map(|own| ConstraintFacts { references: self.named(own.to), ..own.what.clone() }).collect()
    }

    /// An index is in the schema of its table.
    fn indexes(&self, table: &RelationRef) -> Vec<IndexFacts> {
        let mut indexes = of(&self.answers.indexes, table.oid);
        for index in &mut indexes {
            index.id.schema.clone_from(&table.schema);
            index.in_progress = self.busy.contains(&table.oid) || self.busy.contains(&index.id.oid);
        }
        indexes
    }
}

fn of<T: Clone>(all: &[OfRelation<T>], oid: u32) -> Vec<T> {
    all.iter().filter(|one| one.of == oid).map(|one| one.what.clone()).collect()
}
