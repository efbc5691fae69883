//! The reading of facts: short questions, asked round by round. A question is not asked if its answer is known to be empty.
//!
//! One long question would cost the server 2.6 ms to plan, since it would name about 60 tables and views. The short
//! questions about an ordinary table cost a fifth of that together. A round is one round trip. The commonest statements
//! need one round, most statements need two.
//!
//! Invariants of the texts in `facts/`:
//!
//! - *One row, one text column.* All parameters are text, so that no type needs to be known.
//! - *They never wait for a relation.* `pg_relation_size`, `pg_get_indexdef` and, for CHECK and EXCLUDE,
//!   `pg_get_constraintdef` open the relation with ACCESS SHARE. They would queue behind an ACCESS EXCLUSIVE that another
//!   session holds or waits for. (`format_type`, and `pg_get_constraintdef` of keys, read the catalogue only.) So
//!   `pg_locks` is read first. If it shows such a lock of another backend, sizes come from `relpages` and definitions
//!   stay empty. The session's `lock_timeout` limits the wait for a lock that comes in
//!   the instant between.
//! - *They mean the same under any `search_path`.* Every table, function and type is qualified, and every operator is
//!   written `OPERATOR(pg_catalog.…)`. Nothing is used that looks an operator up by name behind the scenes (`IN`,
//!   `BETWEEN`, `CASE x WHEN`, `NULLIF`, `IS DISTINCT FROM`, `USING`). DISTINCT, UNION and ORDER BY go by operator class
//!   and are safe.
//! - *Names resolve as the server resolves them*: to the first schema of `current_schemas(true)` that has the name.
//!   Schemas that the role may not use are not in that list, and raise no error.
//! - *They run on servers 10 to 19.* A column that some of these versions lack is read through `to_jsonb(row) ->>
//!   'column'`.
//!
//! The `xmin` of a relation's oldest catalogue row tells whether the relation was created in this transaction: the row is visible
//! and its transaction (or subtransaction) is still running, so it is the session's own. This question and the question about the
//! session's locks are asked only of a session that holds locks.

mod answers;

use self::answers::{Answers, ToAsk};
use super::query::{may_change, parameters};
use super::{Facts, RelationFacts};
use crate::pg::{RelationKind, RelationName};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// One question. Its answer is one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub sql: Cow<'static, str>,
    pub parameters: Vec<String>,
}

impl Question {
    /// The text and its parameters.
    pub fn as_asked(&self) -> (&str, Vec<&str>) {
        (&self.sql, self.parameters.iter().map(String::as_str).collect())
    }
}

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Head,
    Owners,
    Columns,
    Constraints,
    References,
    Indexes,
    Family,
    Sizes,
    Reach,
    Vacuums,
    Related,
    Transaction,
    Lanes,
}

/// How many of the facts a plan needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FactsNeeded {
    /// A relation's own row.
    Itself,
    /// Also indexes, tables of indexes, parents and partitions, and the size of a tree.
    Indexes,
    /// Also columns, constraints, and foreign keys from elsewhere.
    Details,
    /// Also how far foreign keys reach ([`RelationFacts::reached_by`], [`RelationFacts::partitions_reference`]).
    Reach,
}

/// Which round is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextRound {
    Head,
    Owners,
    Details,
    Rest,
    Nothing,
}

/// Facts that are being read.
#[derive(Debug)]
pub struct Reading {
    names: Vec<RelationName>,
    needed: FactsNeeded,
    next: NextRound,
    topics: Vec<Topic>,
    answers: Answers,
}

const HEAD: &str =
    concat!(include_str!("facts/head.sql"), include_str!("facts/named.sql"), ")::pg_catalog.text FROM me");
/// The first question without names. With the part about relations, the server would spend half of the time to plan it, and would
/// find nothing.
const HEAD_ALONE: &str =
    concat!(include_str!("facts/head.sql"), "'relations', ARRAY[]::pg_catalog.int4[])::pg_catalog.text FROM me");

/// The question which backends vacuum.
const VACUUMS: &str = "/* pgsluice: facts, vacuums */ \
     SELECT COALESCE(pg_catalog.json_agg(v.pid), '[]')::pg_catalog.text FROM pg_catalog.pg_stat_progress_vacuum v";

/// The version since which a foreign key can be NOT ENFORCED. Before 18 every foreign key is enforced and has triggers on both
/// tables; on a partitioned table it has them only since 15.
const NOT_ENFORCED_FROM: i32 = 180_000;

impl Reading {
    /// Facts that are not needed are left out, as if there were none.
    pub fn new(names: &[RelationName], needed: FactsNeeded) -> Self {
        Self { names: names.to_vec(), needed, next: NextRound::Head, topics: Vec::new(), answers: Answers::default() }
    }

    /// The questions of the next round, to be sent in one round trip. `None`: there is no further round.
    pub fn round(&mut self) -> Option<Vec<Question>> {
        loop {
            let (topics, next) = match self.next {
                NextRound::Head => (vec![Topic::Head], NextRound::Owners),
                NextRound::Owners => (self.owners(), NextRound::Details),
                NextRound::Details => (self.details(), NextRound::Rest),
                NextRound::Rest => (self.rest(), NextRound::Nothing),
                NextRound::Nothing => return None,
            };
            self.next = next;
            if !topics.is_empty() {
                self.topics = topics;
                return Some(self.topics.iter().map(|topic| self.question(*topic)).collect());
            }
        }
    }

    /// Reads the answers to a round, in the order of its questions.
    ///
    /// # Errors
    /// The texts are not answers to the questions.
    pub fn answer(&mut self, texts: &[String]) -> Result<(), serde_json::Error> {
        for (at, topic) in std::mem::take(&mut self.topics).into_iter().enumerate() {
            let text = texts.get(at).map_or("", String::as_str);
            let into = &mut self.answers;
            match topic {
                Topic::Head => into.head = Some(serde_json::from_str(text)?),
                Topic::Owners => into.owners = serde_json::from_str(text)?,
                Topic::Columns => into.columns = serde_json::from_str(text)?,
                Topic::Constraints => into.constraints = serde_json::from_str(text)?,
                Topic::References => into.references = serde_json::from_str(text)?,
                Topic::Indexes => into.indexes = serde_json::from_str(text)?,
                Topic::Family => into.families = serde_json::from_str(text)?,
                Topic::Sizes => into.sizes = serde_json::from_str(text)?,
                Topic::Reach => into.reaches = serde_json::from_str(text)?,
                Topic::Vacuums => into.vacuums = serde_json::from_str(text)?,
                Topic::Related => into.related = serde_json::from_str(text)?,
                Topic::Transaction => into.transaction = serde_json::from_str(text)?,
                Topic::Lanes => into.lanes = serde_json::from_str(text)?,
            }
        }
        Ok(())
    }

    fn question(&self, topic: Topic) -> Question {
        let with = |sql: &'static str, oids: Vec<u32>| Question { sql: sql.into(), parameters: vec![array(oids)] };
        let waiting = |sql: Cow<'static, str>, oids| Question {
            sql,
            parameters: vec![array(oids), array(self.answers.contended())],
        };
        match topic {
            Topic::Head => {
                let sql = if self.names.is_empty() { HEAD_ALONE } else { HEAD };
                Question { sql: sql.into(), parameters: parameters(&self.names).to_vec() }
            }
            Topic::Owners => with(include_str!("facts/owners.sql"), self.owned()),
            Topic::Columns => with(include_str!("facts/columns.sql"), self.with_columns()),
            Topic::Constraints => waiting(include_str!("facts/constraints.sql").into(), self.constrained()),
            Topic::References => with(include_str!("facts/references.sql"), self.referencing()),
            Topic::Indexes => waiting(include_str!("facts/indexes.sql").into(), self.indexed()),
            Topic::Family => with(include_str!("facts/family.sql"), self.in_families()),
            Topic::Sizes => waiting(sizes(self.has_trees()), self.unsized_yet()),
            Topic::Reach => with(include_str!("facts/reach.sql"), self.reaching()),
            Topic::Vacuums => Question { sql: VACUUMS.into(), parameters: Vec::new() },
            Topic::Related => with(include_str!("facts/related.sql"), self.unnamed()),
            Topic::Transaction => with(include_str!("facts/transaction.sql"), self.everything()),
            Topic::Lanes => Question { sql: lanes().into(), parameters: vec![array(self.oids_of(|_, _| true))] },
        }
    }

    /// The question about the table of each index or sequence.
    fn owners(&self) -> Vec<Topic> {
        if self.needed == FactsNeeded::Itself || self.owned().is_empty() { Vec::new() } else { vec![Topic::Owners] }
    }

    fn details(&self) -> Vec<Topic> {
        if self.needed == FactsNeeded::Itself {
            // The sizes also tell how many descendants are locked with a relation.
            return if self.found().any(|(relation, _)| relation.has_children) {
                vec![Topic::Sizes]
            } else {
                Vec::new()
            };
        }
        let details = self.needed >= FactsNeeded::Details;
        let asked = [
            (Topic::Columns, details && !self.with_columns().is_empty()),
            (Topic::Constraints, details && !self.constrained().is_empty()),
            (Topic::References, details && !self.referencing().is_empty()),
            (Topic::Indexes, !self.indexed().is_empty()),
            (Topic::Family, !self.in_families().is_empty()),
            (Topic::Sizes, !self.unsized_yet().is_empty()),
            (Topic::Reach, self.needed == FactsNeeded::Reach && !self.reaching().is_empty()),
            (Topic::Vacuums, !self.indexed().is_empty() && self.answers.busy().next().is_some()),
        ];
        asked.into_iter().filter(|(_, wanted)| *wanted).map(|(topic, _)| topic).collect()
    }

    fn rest(&self) -> Vec<Topic> {
        let holds = self.answers.head.as_ref().is_some_and(|head| head.holds);
        let lanes = self.answers.has_lanes();
        let asked = [(Topic::Related, !self.unnamed().is_empty()), (Topic::Transaction, holds), (Topic::Lanes, lanes)];
        asked.into_iter().filter(|(_, wanted)| *wanted).map(|(topic, _)| topic).collect()
    }

    /// The relations that were found, each once.
    fn found(&self) -> impl Iterator<Item = (&RelationFacts, &ToAsk)> {
        let mut seen = BTreeSet::new();
        let named = self.answers.head.iter().flat_map(|head| &head.relations);
        let found = named.filter_map(|named| Some((named.asked.found.as_ref()?, named.has.as_ref()?)));
        found.filter(move |(relation, _)| seen.insert(relation.id.oid))
    }

    fn oids_of(&self, wanted: impl Fn(&RelationFacts, &ToAsk) -> bool) -> Vec<u32> {
        self.found().filter(|(relation, has)| wanted(relation, has)).map(|(relation, _)| relation.id.oid).collect()
    }

    fn owned(&self) -> Vec<u32> {
        use RelationKind::{Index, PartitionedIndex, Sequence};
        self.oids_of(|relation, _| matches!(relation.kind, Index | PartitionedIndex | Sequence))
    }

    fn with_columns(&self) -> Vec<u32> {
        use RelationKind::{CompositeType, ForeignTable, MaterializedView, PartitionedTable, Table, View};
        let kinds = [Table, PartitionedTable, View, MaterializedView, ForeignTable, CompositeType];
        self.oids_of(|relation, _| kinds.contains(&relation.kind))
    }

    fn constrained(&self) -> Vec<u32> {
        use RelationKind::{ForeignTable, PartitionedTable, Table};
        self.oids_of(|relation, _| matches!(relation.kind, Table | PartitionedTable | ForeignTable))
    }

    fn referencing(&self) -> Vec<u32> {
        use RelationKind::{PartitionedTable, Table};
        let version = self.answers.head.as_ref().map_or(0, |head| head.session.server_version);
        self.oids_of(|relation, has| {
            let untold = version >= NOT_ENFORCED_FROM || (version < 150_000 && relation.kind == PartitionedTable);
            matches!(relation.kind, Table | PartitionedTable) && (has.triggers || untold)
        })
    }

    fn reaching(&self) -> Vec<u32> {
        use RelationKind::{PartitionedTable, Table};
        self.oids_of(|relation, _| matches!(relation.kind, Table | PartitionedTable))
    }

    /// The tables whose indexes are read. For an index, these are all indexes of its table.
    fn indexed(&self) -> Vec<u32> {
        let mut tables = self.oids_of(|_, has| has.indexes);
        tables.extend(self.answers.owners.iter().map(|owner| owner.related.relation.oid));
        tables
    }

    fn in_families(&self) -> Vec<u32> {
        self.oids_of(|relation, has| {
            has.parent || relation.has_children || relation.kind == RelationKind::PartitionedTable
        })
    }

    fn has_trees(&self) -> bool {
        !self.answers.owners.is_empty() || self.found().any(|(relation, _)| relation.has_children)
    }

    /// The relations whose size is not that of the relation alone, or whose opening might have had to wait.
    fn unsized_yet(&self) -> Vec<u32> {
        let index = |relation: &RelationFacts| relation.kind == RelationKind::PartitionedIndex;
        let mut oids = self.oids_of(|relation, has| has.waits || relation.has_children || index(relation));
        oids.extend(self.answers.owners.iter().map(|owner| owner.related.relation.oid));
        oids
    }

    /// The relations that the details name and of which nothing is known yet.
    fn unnamed(&self) -> Vec<u32> {
        let known: BTreeSet<u32> = self.oids_of(|_, _| true).into_iter().collect();
        let owners: BTreeSet<u32> = self.answers.owners.iter().map(|owner| owner.related.relation.oid).collect();
        self.answers
            .named()
            .filter(|oid| !known.contains(oid) && !owners.contains(oid))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn everything(&self) -> Vec<u32> {
        let mut oids = self.oids_of(|_, _| true);
        oids.extend(self.answers.owners.iter().map(|owner| owner.related.relation.oid));
        oids.extend(self.unnamed());
        oids
    }

    /// The facts that were read. `None`: nothing was answered.
    pub fn facts(self) -> Option<Facts> {
        self.answers.facts()
    }
}

fn lanes() -> String {
    include_str!("facts/lanes.sql").replace("holder_counts", &may_change("a.usesysid"))
}

/// The question about sizes: of the relations with all relations under them, or of the relations alone.
fn sizes(trees: bool) -> Cow<'static, str> {
    const ALONE: &str = "WITH tree(root, oid) AS (
  SELECT f.oid, f.oid FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS f(oid)
)
";
    const WITH_THOSE_UNDER: &str = "WITH RECURSIVE tree(root, oid) AS (
  SELECT f.oid, f.oid FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.oid[]) AS f(oid)
  UNION
  SELECT t.root, i.inhrelid
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid
)
";
    let tree = if trees { WITH_THOSE_UNDER } else { ALONE };
    format!("{tree}{}", include_str!("facts/sizes.sql")).into()
}

/// The text form of an `oid[]`.
fn array(oids: Vec<u32>) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!("{{{}}}", oids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::query::LANE_CLASS;

    const TEXTS: [&str; 12] = [
        HEAD,
        HEAD_ALONE,
        include_str!("facts/owners.sql"),
        include_str!("facts/columns.sql"),
        include_str!("facts/constraints.sql"),
        include_str!("facts/references.sql"),
        include_str!("facts/indexes.sql"),
        include_str!("facts/family.sql"),
        include_str!("facts/sizes.sql"),
        include_str!("facts/reach.sql"),
        include_str!("facts/related.sql"),
        include_str!("facts/transaction.sql"),
    ];

    #[test]
    fn the_lane_class_is_the_same_in_both_places() {
        assert!(TEXTS[0].contains(&LANE_CLASS.to_string()) && lanes().contains(&LANE_CLASS.to_string()));
    }

    /// No text contains a construct that looks an operator up by the session's `search_path`.
    #[test]
    fn no_operator_is_left_to_the_search_path() {
        for sql in TEXTS.into_iter().map(str::to_owned).chain([VACUUMS.to_owned(), lanes(), sizes(true).into_owned()]) {
            let (comment, sql) = sql.split_once("*/").expect("a comment says whose it is");
            assert!(comment.contains("/* pgsluice: facts"), "{comment}");
            let text: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
            let bare: String = text.join("\n").split('\'').step_by(2).collect();
            for operator in [
                " = ", " < ", " > ", " <> ", " && ", " || ", " + ", " * ", " / ", " % ", " IN ", "BETWEEN", "NULLIF",
                "USING",
            ] {
                assert!(!bare.contains(operator), "{operator} is looked up by name");
            }
        }
    }
}
