//! The questions about ATTACH PARTITION: what the server would do under its locks, and which CHECKs would spare it.
//!
//! The server reads every row of the new partition, unless a valid CHECK implies its bounds. It reads every row of the default
//! partition, unless a valid CHECK excludes them. It builds the indexes and checks the foreign keys that the partition lacks.
//!
//! The server prints the bounds as an expression. For this the proxy makes an empty copy of the table and an empty partition of the
//! copy with the same bounds, and asks `pg_get_partition_constraintdef`. The proxy also tries on empty copies whether the server
//! takes the CHECKs for a proof: if an ATTACH is not spared its scan, the server counts one scan.
//!
//! Invariant: everything runs in a transaction that is rolled back.

use super::{Inquire, ProbeRound};
use crate::catalog::attach::{AttachFacts, DefaultPartition, MissingForeignKey, MissingIndex};
use crate::catalog::naming::{self, CANDIDATES};
use crate::catalog::{Facts, RelationFacts, RelationRef, query, trust};
use crate::pg::RelationKind;
use crate::sql::Statement;
use crate::sql::form::Form;
use serde::Deserialize;

/// `$1`, `$2`: the oids of the table and of the partition; `$3`: `siblings`, where the bounds of the other partitions matter.
pub const ATTACH_SQL: &str = include_str!("attach.sql");

/// The question about the constraint of the copy's partition.
pub const BOUNDS_SQL: &str = "SELECT pg_catalog.json_build_object(\
    'constraint', pg_catalog.pg_get_partition_constraintdef('pg_temp.pgsluice_bounds'::pg_catalog.regclass), \
    'copy', 'pg_temp.pgsluice_probe'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int8)::pg_catalog.text";

/// The question how often the copies were read in this transaction, if the server counts that.
pub const SCANS_SQL: &str = "SELECT pg_catalog.json_build_object(\
    'counted', pg_catalog.current_setting('track_counts') OPERATOR(pg_catalog.=) 'on', \
    'partition', pg_catalog.pg_stat_get_xact_numscans('pg_temp.pgsluice_new'::pg_catalog.regclass), \
    'default', pg_catalog.pg_stat_get_xact_numscans(\
      pg_catalog.to_regclass('pg_temp.pgsluice_rest')))::pg_catalog.text";

/// A query for the relations that are copied, as part of `attach.sql`.
const COPIED: &str = "SELECT q.parent FROM asked q UNION SELECT q.part FROM asked q UNION SELECT d.oid FROM defaults d";

/// The most partitions that are copied to learn the bounds of a default partition.
const MOST_SIBLINGS: usize = 500;

#[derive(Debug, Deserialize)]
struct Answer {
    key: String,
    parent: u32,
    constraint: Option<String>,
    code: String,
    siblings: Option<Vec<String>>,
    default: Option<DefaultPartition>,
    missing: Vec<MissingIndex>,
    foreign_keys: Vec<MissingForeignKey>,
}

#[derive(Debug, Deserialize)]
struct Bounds {
    constraint: Option<String>,
    copy: u32,
}

#[derive(Debug, Deserialize)]
struct Scans {
    counted: bool,
    partition: u64,
    default: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asks,
    Bounds,
    /// The rehearsal, without (`false`) or with (`true`) the CHECKs.
    Rehearses(bool),
    Names,
    Done,
}

/// The questions about ATTACH PARTITION, round by round, and what their answers say.
#[derive(Debug)]
pub struct AttachInquiry {
    stage: Stage,
    parent: RelationRef,
    /// `None`: the partition is new.
    partition: Option<RelationRef>,
    /// The valid CHECKs of the partition.
    checks: Vec<String>,
    /// `FOR VALUES …` or `DEFAULT`
    bound: String,
    answer: Option<Answer>,
    /// The bounds of the partition alone, as they are written for the copy and for the table.
    own: Option<(String, String)>,
    facts: AttachFacts,
}

impl AttachInquiry {
    /// `None`: the plan needs none of these facts.
    pub fn new(statement: &Statement, facts: &Facts, small_table: u64) -> Option<Self> {
        let ddl = statement.ddl()?;
        let [part] = ddl.parts.as_slice() else { return None };
        if part.form == Form::CreateTablePartitionOf {
            return Self::of_new(statement, part.others.first().and_then(|name| facts.relation(name))?);
        }
        let parent = ddl.targets.first().and_then(|name| facts.relation(name))?;
        let new = part.others.first().and_then(|name| facts.relation(name))?;
        let large = |relation: &RelationFacts| relation.is_large(small_table);
        let asks = part.form == Form::AttachPartition
            && parent.kind == RelationKind::PartitionedTable
            && matches!(new.kind, RelationKind::Table | RelationKind::PartitionedTable)
            && (large(new) || parent.default_partition.is_some());
        let bound = statement.text.get(ddl.tail_at?..)?.trim().to_owned();
        let checks = new.constraints.iter().filter(|c| c.kind == 'c' && c.validated);
        asks.then(|| Self {
            stage: Stage::Asks,
            parent: parent.id.clone(),
            partition: Some(new.id.clone()),
            checks: checks.map(|check| check.definition.clone()).collect(),
            bound,
            answer: None,
            own: None,
            facts: AttachFacts::default(),
        })
    }

    /// A new partition has no row, but the server reads a default partition beside it.
    fn of_new(statement: &Statement, parent: &RelationFacts) -> Option<Self> {
        let ddl = statement.ddl()?;
        let bound = statement.text.get(ddl.bounds.clone()?)?.to_owned();
        parent.default_partition.is_some().then(|| Self {
            stage: Stage::Asks,
            parent: parent.id.clone(),
            partition: None,
            checks: Vec::new(),
            bound,
            answer: None,
            own: None,
            facts: AttachFacts::default(),
        })
    }

    /// The facts that were learned.
    pub fn facts(self) -> Option<AttachFacts> {
        (self.stage == Stage::Done).then_some(self.facts)
    }

    fn is_default(&self) -> bool {
        self.bound.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("DEFAULT"))
    }

    /// The command that makes an empty copy of the table with the same partition key.
    fn copy(&self) -> Vec<String> {
        let key = self.answer.as_ref().map_or("", |answer| &answer.key);
        let like = self.parent.full_name().quoted();
        vec![format!("CREATE TEMP TABLE pgsluice_probe (LIKE {like}) PARTITION BY {key} ON COMMIT DROP")]
    }

    /// The commands that make a partition of the copy with the bounds of the new one. For a default partition, they also make the
    /// other partitions with their bounds.
    fn bounds(&self) -> Vec<String> {
        let of =
            |name: &str, bound: &str| format!("CREATE TEMP TABLE {name} PARTITION OF pg_temp.pgsluice_probe {bound}");
        let siblings = self.answer.as_ref().and_then(|answer| answer.siblings.as_ref());
        let siblings = siblings.into_iter().flatten().enumerate();
        let mut first = self.copy();
        first.extend(siblings.map(|(i, bound)| of(&format!("pgsluice_bounds_{i}"), bound)));
        first.push(of("pgsluice_bounds", &self.bound));
        first
    }

    /// The commands that try the ATTACH on empty copies. The copies have the valid CHECKs of the real tables and, if `proven`, the
    /// CHECKs that are to be added.
    fn rehearsal(&self, proven: bool) -> Vec<String> {
        let table = |name: &str, like: &RelationRef, checks: &[String], proof: Option<String>| {
            let checks: String = checks.iter().chain(&proof).map(|check| format!(", {check}")).collect();
            let like = like.full_name().quoted();
            format!("CREATE TEMP TABLE {name} (LIKE {like}{checks}) ON COMMIT DROP")
        };
        // The copy has another oid each time.
        let own = self.own.as_ref().filter(|_| proven).map(|(copy, _)| copy.as_str());
        let mut first = self.copy();
        if let Some(default) = self.answer.as_ref().and_then(|answer| answer.default.as_ref()) {
            let proof = own.map(|own| format!("CHECK (NOT ({own}))"));
            first.push(table("pgsluice_rest", &default.id, &default.checks, proof));
            first.push("ALTER TABLE pg_temp.pgsluice_probe ATTACH PARTITION pg_temp.pgsluice_rest DEFAULT".to_owned());
        }
        if self.is_default() {
            let siblings = self.answer.as_ref().and_then(|answer| answer.siblings.as_ref());
            let of = |(i, bound): (usize, &String)| {
                format!("CREATE TEMP TABLE pgsluice_bounds_{i} PARTITION OF pg_temp.pgsluice_probe {bound}")
            };
            first.extend(siblings.into_iter().flatten().enumerate().map(of));
        }
        let bound = &self.bound;
        match &self.partition {
            Some(partition) => {
                let proof = own.map(|own| format!("CHECK ({own})"));
                first.push(table("pgsluice_new", partition, &self.checks, proof));
                first.push(format!("ALTER TABLE pg_temp.pgsluice_probe ATTACH PARTITION pg_temp.pgsluice_new {bound}"));
            }
            None => first.push(format!("CREATE TEMP TABLE pgsluice_new PARTITION OF pg_temp.pgsluice_probe {bound}")),
        }
        first
    }

    fn read(&mut self, json: &str) -> Result<Stage, serde_json::Error> {
        Ok(match self.stage {
            Stage::Asks => {
                let answer: Answer = serde_json::from_str(json)?;
                self.facts.default = answer.default.clone();
                if self.partition.is_some() {
                    self.facts.missing = answer.missing.clone();
                    self.facts.foreign_keys = answer.foreign_keys.clone();
                }
                let siblings = answer.siblings.as_ref().is_some_and(|all| all.len() > MOST_SIBLINGS);
                self.facts.distrust = Some(answer.code.clone()).filter(|code| !trust::may_run(code));
                self.facts.obstacle = siblings || self.facts.distrust.is_some();
                self.answer = Some(answer);
                if self.facts.obstacle { Stage::Done } else { Stage::Bounds }
            }
            Stage::Bounds => {
                self.own = self.own(&serde_json::from_str(json)?);
                Stage::Rehearses(false)
            }
            Stage::Rehearses(proven) => self.rehearsed(proven, &serde_json::from_str(json)?),
            Stage::Names => {
                let taken: Vec<(usize, bool)> = serde_json::from_str(json)?;
                self.name(&taken);
                Stage::Done
            }
            Stage::Done => Stage::Done,
        })
    }

    /// Hash bounds name the table by its oid. The copy's oid is looked up, and the table's oid is put in.
    fn own(&self, bounds: &Bounds) -> Option<(String, String)> {
        let of_copy = format!("satisfies_hash_partition('{}'::oid,", bounds.copy);
        let text = bounds.constraint.clone()?;
        let Some(hash) = text.strip_prefix(&of_copy) else { return Some((text.clone(), text)) };
        let parent = self.answer.as_ref()?.parent;
        let with = |oid: &str| format!("satisfies_hash_partition({oid},{hash}");
        let looked_up = "'pg_temp.pgsluice_probe'::pg_catalog.regclass::pg_catalog.oid";
        Some((with(looked_up), with(&format!("'{parent}'::pg_catalog.oid"))))
    }

    fn rehearsed(&mut self, proven: bool, scans: &Scans) -> Stage {
        let rest = scans.default.unwrap_or_default();
        let above = self.answer.as_ref().and_then(|answer| answer.constraint.clone());
        let spared = scans.counted && scans.partition == 0 && rest == 0;
        if !proven {
            // The rehearsal has no constraint from above the parent. If there is such a constraint, the proof is always made.
            if spared && above.is_none() {
                return Stage::Names;
            }
            let read = |scans: u64| scans > 0;
            // For a new partition, only the default partition of its parent matters.
            let above = above.filter(|_| self.partition.is_some());
            let Some((_, own)) = self.own.clone() else {
                self.facts.obstacle = true;
                return Stage::Done;
            };
            let whole = above.map_or_else(|| own.clone(), |above| format!("({own}) AND ({above})"));
            self.facts.bounds = (read(scans.partition) || whole != own).then_some(whole);
            if let Some(default) = self.facts.default.as_mut().filter(|_| read(rest)) {
                default.excludes = Some(format!("NOT ({own})"));
            }
            return Stage::Rehearses(true);
        }
        self.facts.obstacle = !spared;
        Stage::Names
    }

    fn candidates(&self) -> Vec<String> {
        let Some(partition) = &self.partition else { return Vec::new() };
        let of =
            |index: &MissingIndex| (0..CANDIDATES).map(|n| nth_name(index, &partition.name, n)).collect::<Vec<_>>();
        self.facts.missing.iter().flat_map(of).collect()
    }

    fn name(&mut self, taken: &[(usize, bool)]) {
        let candidates = self.candidates();
        let mut given: Vec<String> = Vec::new();
        for (i, index) in self.facts.missing.iter_mut().enumerate() {
            let constraint = index.constraint.is_some();
            let free = |place: &usize| {
                let is_taken = taken.iter().any(|(at, by_relation)| at == &(place + 1) && (*by_relation || constraint));
                !is_taken && candidates.get(*place).is_some_and(|name| !given.contains(name))
            };
            let place = (i * CANDIDATES..(i + 1) * CANDIDATES).find(free);
            index.name = place.and_then(|place| candidates.get(place).cloned());
            given.extend(index.name.clone());
        }
    }
}

impl Inquire for AttachInquiry {
    fn round(&mut self) -> Option<ProbeRound> {
        let round = |first: Vec<String>, question: &'static str| ProbeRound {
            first,
            question: question.into(),
            parameters: Vec::new(),
        };
        match self.stage {
            Stage::Asks => {
                let siblings = if self.is_default() { "siblings" } else { "" };
                let parent = self.parent.oid.to_string();
                let new = self.partition.as_ref().map_or(0, |partition| partition.oid).to_string();
                let question = ATTACH_SQL.replace("the_code", &trust::code_of(COPIED)).into();
                Some(ProbeRound { first: Vec::new(), question, parameters: vec![parent, new, siblings.to_owned()] })
            }
            Stage::Bounds => Some(round(self.bounds(), BOUNDS_SQL)),
            Stage::Rehearses(proven) => Some(round(self.rehearsal(proven), SCANS_SQL)),
            Stage::Names => {
                let names = self.candidates();
                if names.is_empty() {
                    self.stage = Stage::Done;
                    return None;
                }
                let schema = self.partition.as_ref().map_or("", |partition| &partition.schema);
                let schemas = query::array(names.iter().map(|_| Some(schema)));
                let names = query::array(names.iter().map(|name| Some(name.as_str())));
                Some(ProbeRound { parameters: vec![schemas, names], ..round(Vec::new(), naming::TAKEN_SQL) })
            }
            Stage::Done => None,
        }
    }

    fn answer(&mut self, json: &str) -> Result<(), serde_json::Error> {
        self.stage = self.read(json)?;
        Ok(())
    }
}

/// The name that PostgreSQL would try as its `n`th (from 0) for an index that the partition lacks.
fn nth_name(index: &MissingIndex, table: &str, n: usize) -> String {
    match index.constraint.as_deref() {
        Some("PRIMARY KEY") => naming::index_name(table, None, "pkey", n),
        Some(_) => naming::index_name(table, Some(&index.columns), "key", n),
        None => naming::index_name(table, Some(&index.columns), "idx", n),
    }
}
