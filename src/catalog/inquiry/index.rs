//! The questions about an index on a partitioned table: which partitions have a matching index already, and what the new indexes
//! would be called.
//!
//! The wanted index is built on an empty copy of the table, in a transaction that is rolled back. So the server itself says which
//! columns the index has, and the catalogue says which index of a partition matches it: [`TREE_SQL`] compares what PostgreSQL compares
//! before it attaches an index. Names are chosen as PostgreSQL chooses them, a table before its partitions.
//!
//! Limit: PostgreSQL goes through partitions in the order of their bounds, this inquiry in the order of their oids. The order matters
//! only where names are so long that the names of two indexes would be cut to the same text.

use super::{Inquire, ProbeRound};
use crate::catalog::naming::{self, IndexNames};
use crate::catalog::tree::{Member, Tree};
use crate::catalog::{Facts, RelationFacts, probe, query};
use crate::pg::RelationKind;
use crate::sql::form::Form;
use crate::sql::{Ddl, Part, Statement};

/// The question about the partitions. `$1`: the table's oid, `$2`: `index`, or `constraint` where an index counts only if it
/// belongs to a constraint. The wanted index is the newest index of [`probe::PROBE_TABLE`].
pub const TREE_SQL: &str = include_str!("tree.sql");

/// The questions about an index on a partitioned table, round by round, and what their answers say.
#[derive(Debug)]
pub struct IndexInquiry {
    names: IndexNames,
    build: String,
    make: String,
    oid: u32,
    tree: Option<Tree>,
    /// How many times names were asked for.
    asked: usize,
    /// The names that are being asked for, each with its schema.
    candidates: Vec<(String, String)>,
    taken: Vec<TakenName>,
}

/// A name that an existing object has.
#[derive(Debug)]
struct TakenName {
    schema: String,
    name: String,
    /// A relation has the name, and not only a constraint.
    by_relation: bool,
}

impl IndexInquiry {
    /// `None`: the plan needs no facts about the partitions.
    pub fn new(statement: &Statement, facts: &Facts, small_table: u64) -> Option<Self> {
        let ddl = statement.ddl()?;
        let [part] = ddl.parts.as_slice() else { return None };
        let table = ddl.targets.first().and_then(|name| facts.relation(name))?;
        let asks = table.kind == RelationKind::PartitionedTable
            && table.has_children
            && !ddl.only
            && facts.session.server_version >= 110_000
            && table.is_large(small_table);
        let (build, names) = wanted(ddl, part, table).filter(|_| asks)?;
        Some(Self {
            names,
            build,
            make: probe::bare_copy(table),
            oid: table.id.oid,
            tree: None,
            asked: 0,
            candidates: Vec::new(),
            taken: Vec::new(),
        })
    }

    /// The names to ask for: at first one for each new index, then more for each index whose first name is taken or given to
    /// another index.
    fn next_candidates(&mut self) -> Vec<(String, String)> {
        let Some(tree) = &self.tree else { return Vec::new() };
        let range = match self.asked {
            0 => 0..1,
            1 => 1..naming::CANDIDATES,
            _ => return Vec::new(),
        };
        self.asked += 1;
        let mut candidates = Vec::new();
        for (member, _) in self.assign(tree, range.start).into_iter().filter(|(_, name)| name.is_none()) {
            let names = range.clone().filter_map(|n| self.names.nth(member, &tree.columns, n));
            candidates.extend(names.map(|name| (member.id.schema.clone(), name)));
        }
        candidates
    }

    /// The new indexes with their names, in order, as far as the first `known` candidates of each tell.
    fn assign<'t>(&self, tree: &'t Tree, known: usize) -> Vec<(&'t Member, Option<String>)> {
        let mut named: Vec<(&Member, Option<String>)> = Vec::new();
        let wants = |member: &&Member| member.equal.is_none() && member.kind != RelationKind::ForeignTable;
        for member in tree.open().into_iter().filter(wants) {
            let mut names = (0..known).filter_map(|n| self.names.nth(member, &tree.columns, n));
            let name = names.find(|name| self.is_free(&named, member, name));
            named.push((member, name));
        }
        named
    }

    fn is_free(&self, named: &[(&Member, Option<String>)], of: &Member, name: &str) -> bool {
        // A name that the author gave may be the name of another table's constraint.
        let constraints_count = self.names.of_constraint && !(of.id.oid == self.oid && self.names.given.is_some());
        let given = named.iter().any(|(other, n)| other.id.schema == of.id.schema && n.as_deref() == Some(name));
        let taken = |t: &TakenName| t.schema == of.id.schema && t.name == name && (t.by_relation || constraints_count);
        !given && !self.taken.iter().any(taken)
    }

    /// The tree, with the names of the new indexes.
    pub fn tree(self) -> Option<Tree> {
        let tree = self.tree.as_ref()?;
        let names: Vec<(u32, Option<String>)> =
            self.assign(tree, naming::CANDIDATES).into_iter().map(|(member, name)| (member.id.oid, name)).collect();
        let mut tree = tree.clone();
        for (oid, name) in names {
            tree.name_taken |= oid == self.oid && name.is_none();
            if let Some(member) = tree.members.iter_mut().find(|member| member.id.oid == oid) {
                member.new_index = name;
            }
        }
        Some(tree)
    }
}

impl Inquire for IndexInquiry {
    fn round(&mut self) -> Option<ProbeRound> {
        if self.tree.is_none() {
            let kind = if self.names.of_constraint { "constraint" } else { "index" };
            return Some(ProbeRound {
                first: vec![self.make.clone(), self.build.clone()],
                question: TREE_SQL.into(),
                parameters: vec![self.oid.to_string(), kind.to_owned()],
            });
        }
        self.candidates = self.next_candidates();
        let of = |names: &mut dyn Iterator<Item = &str>| query::array(names.map(Some));
        let schemas = of(&mut self.candidates.iter().map(|(schema, _)| schema.as_str()));
        let names = of(&mut self.candidates.iter().map(|(_, name)| name.as_str()));
        let round =
            ProbeRound { first: Vec::new(), question: naming::TAKEN_SQL.into(), parameters: vec![schemas, names] };
        (!self.candidates.is_empty()).then_some(round)
    }

    fn answer(&mut self, json: &str) -> Result<(), serde_json::Error> {
        if self.tree.is_none() {
            self.tree = Some(serde_json::from_str(json)?);
            return Ok(());
        }
        let places: Vec<(usize, bool)> = serde_json::from_str(json)?;
        let candidates = std::mem::take(&mut self.candidates);
        self.taken.extend(places.into_iter().filter_map(|(place, by_relation)| {
            let (schema, name) = candidates.get(place.checked_sub(1)?)?.clone();
            Some(TakenName { schema, name, by_relation })
        }));
        Ok(())
    }
}

/// The wanted index on the copy, and how it is named on each table.
fn wanted(ddl: &Ddl, part: &Part, table: &RelationFacts) -> Option<(String, IndexNames)> {
    let names = |label, of_constraint, given: &Option<String>| IndexNames {
        table: table.id.oid,
        label,
        of_constraint,
        given: given.clone(),
    };
    match (part.form, part.key.as_deref()) {
        (Form::CreateIndex, _) => Some((part.probe.clone()?, names("idx", false, &ddl.index_name))),
        (Form::AddUnique | Form::AddPrimaryKey, Some(key)) => {
            let build = format!("CREATE UNIQUE INDEX ON {}{}", probe::PROBE_TABLE, key.index);
            let label = if key.primary { "pkey" } else { "key" };
            Some((build, names(label, true, &part.constraint)))
        }
        _ => None,
    }
}
