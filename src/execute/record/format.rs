//! What a record says, and how it is written as a comment.
//!
//! It owns the layout: a line for people, then JSON. It keeps true that a record holds what its plan was made from, so that the planner,
//! which is pure, makes the same plan again; which phases are done; what they have made, with what tells it; and the position of the backfill.
//! Nothing here asks the server.

use crate::catalog::{Facts, RelationFacts, RelationRef, SessionFacts};
use crate::execute::objects::{known, made};
use crate::pg::{RelationKind, sqlstate};
use crate::plan::{CreatedObject, ObjectKind, Phase, PhaseKind, Plan, Undo};
use crate::report::Report;
use crate::sql::Ddl;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The first line is for people. The number is the layout's.
const HEADING: &str =
    "pgsluice 1: an unfinished schema change; the same statement, sent through pgsluice, continues it\n";

/// Bytes; what is larger is not recorded, nor what would come to more if it is written after each phase.
const MOST: usize = 256 * 1024;
pub(super) const MOST_OF_ALL: usize = 16 * 1024 * 1024;

/// What is on record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Tells one run of a statement from another.
    pub(super) job: String,
    /// The server's clock, for people.
    pub(super) since: String,
    pub(super) statement: String,
    /// Of the plan, as [`fingerprint`] has it.
    pub(super) plan: String,
    /// The first phase that is not done.
    pub(super) next: usize,
    pub(super) place: Option<BackfillPosition>,
    pub(super) things: Vec<(CreatedObject, u32)>,
    pub(super) built: Vec<(usize, u32)>,
    /// Unquoted.
    pub(super) learned: Vec<String>,
    /// The indexes that the plan builds, built yet or not: the oid of the table, and the name.
    #[serde(default)]
    pub(super) builds: Vec<(u32, String)>,
    /// It has failed, and could not be taken back yet: it is not to be continued, but undone.
    #[serde(default)]
    pub(super) undoing: bool,
    pub(super) facts: Facts,
}

/// How far the backfill is: all tables with a smaller oid are done, and of this one all pages before `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::execute) struct BackfillPosition {
    pub(in crate::execute) table: u32,
    /// Another file has other pages.
    pub(in crate::execute) file: u32,
    pub(in crate::execute) page: u64,
    /// What is behind this page has come since the backfill began, with its value.
    pub(in crate::execute) end: u64,
    /// That were given their value.
    pub(in crate::execute) rows: u64,
}

/// Which run of a statement a table's record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordKey {
    pub statement: String,
    pub table: u32,
    pub(super) id: String,
}

impl Record {
    /// As the comment has it: ASCII, whatever encoding the session has.
    pub(super) fn to_text(&self) -> Option<String> {
        let json = serde_json::to_string(self).ok()?;
        let mut text = String::with_capacity(HEADING.len() + json.len());
        text.push_str(HEADING);
        for c in json.chars() {
            if c.is_ascii() {
                text.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        (text.len() <= MOST).then_some(text)
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix(HEADING)?).ok()
    }

    /// The facts that its plan was made from, in a session of now.
    pub fn facts(&self, session: &SessionFacts) -> Facts {
        let mut facts = Facts { session: session.clone(), ..self.facts.clone() };
        for found in facts.relations.iter_mut().filter_map(|asked| asked.found.as_mut()) {
            found.lane_holder = None;
        }
        facts
    }

    /// What the plan has made, each with what tells it.
    pub(in crate::execute) fn created(&self) -> &[(CreatedObject, u32)] {
        &self.things
    }

    /// The indexes that were built, with their phases.
    pub(in crate::execute) fn built(&self) -> &[(usize, u32)] {
        &self.built
    }

    /// The names that the server chose, unquoted, each in its slot.
    pub(in crate::execute) fn learned(&self) -> &[String] {
        &self.learned
    }

    /// The client's text.
    pub fn statement(&self) -> &str {
        &self.statement
    }

    /// It has failed, and is to be undone, not continued.
    pub fn is_undoing(&self) -> bool {
        self.undoing
    }

    /// Whether the statement names what the plan makes: a column, a constraint, an index.
    pub fn touches(&self, ddl: &Ddl) -> bool {
        let things = self.things.iter().filter_map(|(thing, _)| known(thing)).map(|(_, _, name)| name);
        let learned = self.learned.iter().map(String::as_str);
        let builds = self.builds.iter().map(|(_, name)| name.as_str());
        let mut made = things.chain(learned).chain(builds).filter(|name| !name.is_empty());
        let parts = ddl.parts.iter().flat_map(|part| part.column.iter().chain(&part.constraint));
        let targets = ddl.targets.iter().map(|target| &target.name);
        let named: Vec<&String> = parts.chain(&ddl.index_name).chain(targets).collect();
        made.any(|name| named.iter().any(|named| *named == name))
    }

    /// Whether the plan is the one that was begun.
    pub fn is_plan(&self, plan: &Plan) -> bool {
        self.plan == fingerprint(plan) && self.next < plan.phases.len()
    }

    /// Whether the plan made from them is the one that was begun, and what it names what it named; if not, why not.
    pub fn is_of(&self, plan: &Plan, now: &Facts) -> Result<(), &'static str> {
        let same = self.facts.relations.iter().all(|asked| {
            let now = now.asked(&asked.name).and_then(|now| now.found.as_ref());
            asked.found.as_ref().map(|found| &found.id) == now.map(|now| &now.id)
        });
        if !same {
            return Err("a table that it names has been renamed or replaced");
        }
        if !self.is_plan(plan) {
            return Err("this pgsluice, or its settings, would do it otherwise");
        }
        let mut columns =
            plan.phases.iter().take(self.next).flat_map(made).filter(|thing| thing.kind == ObjectKind::Column);
        if columns.any(|column| !self.things.iter().any(|(thing, _)| thing == column)) {
            return Err("its record is damaged");
        }
        Ok(())
    }

    /// For people.
    pub fn report(&self, plan: &Plan) -> Report {
        let tag = &plan.tag;
        let message = format!("continuing what this {tag} had begun at {}", self.since);
        let purpose = plan.phases.get(self.next).map_or("to its end", |phase| phase.purpose.as_str());
        let mut detail = format!("Phase {} of {}: {purpose}.", self.next + 1, plan.phases.len());
        if let Some(place) = self.place {
            let _ = write!(detail, " {} rows have their value.", place.rows);
        }
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail)
    }
}

pub(super) fn builds(plan: &Plan) -> Vec<(u32, String)> {
    let built = |phase: &Phase| match &phase.undo {
        Some(Undo::DropBuiltIndex { oid, index, .. }) => Some((*oid, index.name.clone())),
        _ => None,
    };
    plan.phases.iter().filter_map(built).collect()
}

/// The table whose row type has the record of a plan that is recorded: it has several phases, of which none is the server's own to
/// finish.
pub(super) fn is_recorded<'f>(plan: &Plan, facts: &'f Facts) -> Option<&'f RelationRef> {
    let undone = plan.phases.iter().any(|phase| phase.undo.is_some());
    let detaches = plan.phases.iter().any(|phase| phase.kind == PhaseKind::Detach);
    table_of(facts).filter(|_| plan.phases.len() > 1 && undone && !detaches).map(|table| &table.id)
}

/// The table that a statement's record is about: the first that it names.
pub fn table_of(facts: &Facts) -> Option<&RelationFacts> {
    let mut found = facts.relations.iter().filter_map(|asked| asked.found.as_ref());
    found.find(|table| matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable))
}

/// FNV-1a of all that a plan does: the same in every build, and no secret.
pub(super) fn fingerprint(plan: &Plan) -> String {
    let json = serde_json::to_string(plan).unwrap_or_default();
    let hash = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3) //
    });
    format!("{hash:016x}")
}
