//! The contents of a record, and how the record is written as a comment.
//!
//! This file owns the layout: a line for people, then JSON. It keeps true that a record holds the facts that its plan was made from, so
//! that the planner, which is pure, makes the same plan again; the phases that are done; the objects that they have made, with their
//! identities; and the position of the backfill. Nothing here asks the server.

use crate::catalog::{Facts, NamedFacts, RelationFacts, RelationRef, SessionFacts};
use crate::execute::objects::{known, made};
use crate::pg::{RelationKind, sqlstate};
use crate::plan::{self, CreatedObject, Limits, ObjectKind, Phase, PhaseKind, Plan, Refusal, Undo, hoist};
use crate::report::Report;
use crate::sql::{Ddl, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write;

/// The first line is for people. Its number is the version of the layout.
const HEADING: &str =
    "pgsluice 1: an unfinished schema change; the same statement, sent through pgsluice, continues it\n";

/// The most bytes of a record. A plan with a larger record is not recorded.
const MOST: usize = 256 * 1024;
/// The most bytes of a record times the number of phases, because the record is written after each phase.
pub(super) const MOST_OF_ALL: usize = 16 * 1024 * 1024;

/// A record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The id that distinguishes one run of a statement from another.
    pub(super) job: String,
    /// When the statement began, by the server's clock, for people.
    pub(super) since: String,
    pub(super) statement: String,
    /// The [`fingerprint`] of the plan.
    pub(super) plan: String,
    /// The first phase that is not done.
    pub(super) next: usize,
    pub(super) place: Option<BackfillPosition>,
    pub(super) things: Vec<(CreatedObject, u32)>,
    pub(super) built: Vec<(usize, u32)>,
    /// The names that the server chose, unquoted, each at its slot.
    pub(super) learned: Vec<String>,
    /// The indexes that the plan builds, built yet or not: the oid of the table, and the name.
    #[serde(default)]
    pub(super) builds: Vec<(u32, String)>,
    /// The plan has failed and could not be undone yet. It must be undone and not continued.
    #[serde(default)]
    pub(super) undoing: bool,
    /// The plan was run ahead of a transaction block of its client's, and has an undo for all that it makes. If all of its phases are done, the
    /// record says that the block has not committed.
    #[serde(default)]
    pub(super) ahead: bool,
    /// The record that the table had before: of an earlier statement of the same block.
    #[serde(default)]
    pub(super) before: Option<Box<Self>>,
    pub(super) facts: Facts,
}

/// The position of a backfill: all tables with a smaller oid are done, and all pages of this table before `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::execute) struct BackfillPosition {
    pub(in crate::execute) table: u32,
    /// The file of the table. If the table has another file, the pages are others.
    pub(in crate::execute) file: u32,
    pub(in crate::execute) page: u64,
    /// The end of the pages to fill. Rows behind it were added after the backfill began and have their values.
    pub(in crate::execute) end: u64,
    /// The number of rows that have got their value.
    pub(in crate::execute) rows: u64,
}

/// The run of a statement that a table's record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordKey {
    pub statement: String,
    pub table: u32,
    pub(super) id: String,
}

impl Record {
    /// Returns the text of the comment. It is ASCII, whatever the encoding of the session. `None` means that it is too long.
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

    /// Reads the text of a comment. `None` means that it is not a record.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix(HEADING)?).ok()
    }

    /// Returns the facts that the plan was made from, for the current session.
    pub fn facts(&self, session: &SessionFacts) -> Facts {
        let mut facts = Facts { session: session.clone(), ..self.facts.clone() };
        for found in facts.relations.iter_mut().filter_map(|asked| asked.found.as_mut()) {
            found.lane_holder = None;
        }
        facts
    }

    /// Returns the objects that the plan has made, each with its oid or column number.
    pub(in crate::execute) fn created(&self) -> &[(CreatedObject, u32)] {
        &self.things
    }

    /// Returns the indexes that were built, each with the position of its phase.
    pub(in crate::execute) fn built(&self) -> &[(usize, u32)] {
        &self.built
    }

    /// Returns the names that the server chose, unquoted, each at its slot.
    pub(in crate::execute) fn learned(&self) -> &[String] {
        &self.learned
    }

    /// Returns the text of the client's statement.
    pub fn statement(&self) -> &str {
        &self.statement
    }

    /// Whether the plan has failed and must be undone.
    pub fn is_undoing(&self) -> bool {
        self.undoing
    }

    /// Whether the plan was run ahead of a transaction block of its client's.
    pub fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// Makes the recorded plan again. `then`: the facts of [`Record::facts`].
    ///
    /// # Errors
    /// The settings refuse the statement now.
    pub fn plan_again(&self, statement: &Statement, then: &Facts, limits: &Limits) -> Result<Plan, Refusal> {
        let plan = plan::plan(statement, then, limits)?;
        if !self.ahead {
            return Ok(plan);
        }
        // A plan without a full undo is another plan than the recorded one.
        Ok(hoist::with_full_undo(plan.clone(), statement, then).unwrap_or(plan))
    }

    /// Whether this record, or one before it, is that of the run `job`.
    pub(super) fn has(&self, job: &str) -> bool {
        self.job == job || self.before.as_ref().is_some_and(|before| before.has(job))
    }

    /// Whether this is the record of one of these runs.
    pub(super) fn is_one_of(&self, own: &[RecordKey]) -> bool {
        own.iter().any(|key| key.id == self.job)
    }

    /// Whether each record before this one is that of one of these runs.
    pub(super) fn stands_on(&self, own: &[RecordKey]) -> bool {
        self.before.as_ref().is_none_or(|before| before.is_one_of(own) && before.stands_on(own))
    }

    /// Returns the first of this record and those before it that is wanted.
    pub(super) fn find(self, wanted: &impl Fn(&Self) -> bool) -> Option<Self> {
        if wanted(&self) { Some(self) } else { self.before?.find(wanted) }
    }

    /// Returns the records without that of the run `job`.
    pub(super) fn without(self, job: &str) -> Option<Self> {
        let before = self.before;
        if self.job == job {
            return before.map(|before| *before);
        }
        Some(Self { before: before.and_then(|before| before.without(job)).map(Box::new), ..self })
    }

    /// Returns the records with `record` in place of the earlier record of the same run.
    pub(super) fn with(self, record: &Self) -> Self {
        if self.job == record.job {
            return Self { before: self.before, ..record.clone() };
        }
        Self { before: self.before.map(|before| Box::new(before.with(record))), ..self }
    }

    /// Whether a statement names an object that the plan makes: a column, a constraint or an index.
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

    /// Whether this is the plan that was begun.
    pub fn is_plan(&self, plan: &Plan) -> bool {
        let most = if self.ahead { plan.phases.len() } else { plan.phases.len().saturating_sub(1) };
        self.plan == fingerprint(plan) && self.next <= most && !plan.phases.is_empty()
    }

    /// Checks that this is the plan that was begun, and that its names find the same relations as then. Otherwise it returns the reason.
    pub fn is_of(&self, plan: &Plan, now: &Facts) -> Result<(), &'static str> {
        let made_it = |oid: u32| self.things.iter().any(|(thing, made)| thing.kind.stands_alone() && *made == oid);
        let same = self.facts.relations.iter().all(|asked| {
            let now = now.asked(&asked.name).and_then(|now| now.found.as_ref());
            // The plan itself has made a relation that was not there.
            let now = now.filter(|now| asked.found.is_some() || !made_it(now.id.oid));
            asked.found.as_ref().map(|found| &found.id) == now.map(|now| &now.id)
        });
        if !same {
            return Err("a table that it names has been renamed or replaced");
        }
        if !self.is_plan(plan) {
            return Err("this pgsluice or its settings would make another plan");
        }
        let mut columns =
            plan.phases.iter().take(self.next).flat_map(made).filter(|thing| thing.kind == ObjectKind::Column);
        if columns.any(|column| !self.things.iter().any(|(thing, _)| thing == column)) {
            return Err("its record is damaged");
        }
        Ok(())
    }

    /// Returns the NOTICE that the plan is continued.
    pub fn report(&self, plan: &Plan) -> Report {
        let tag = &plan.tag;
        let message = format!("continuing this {tag}, begun at {}", self.since);
        let purpose = plan.phases.get(self.next).map_or("to its end", |phase| phase.purpose.as_str());
        let number = (self.next + 1).min(plan.phases.len());
        let mut detail = format!("Phase {number} of {}: {purpose}.", plan.phases.len());
        if let Some(place) = self.place {
            let _ = write!(detail, " {} rows have their value.", place.rows);
        }
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail)
    }
}

/// Returns the indexes that a plan builds: the oid of the table, and the name.
pub(super) fn builds(plan: &Plan) -> Vec<(u32, String)> {
    let built = |phase: &Phase| match &phase.undo {
        Some(Undo::DropBuiltIndex { oid, index, .. }) => Some((*oid, index.name.clone())),
        _ => None,
    };
    plan.phases.iter().filter_map(built).collect()
}

/// Returns the table that a plan makes. Its oid is 0, since it is not known yet.
pub(super) fn new_table(plan: &Plan, facts: &Facts) -> Option<RelationRef> {
    let thing = plan.phases.iter().flat_map(made).find(|thing| thing.kind == ObjectKind::Table)?;
    let (_, _, quoted) = known(thing)?;
    let named = |asked: &NamedFacts| {
        let schema = asked.name.schema.as_ref().or(facts.session.current_schema.as_ref())?;
        Some(RelationRef { oid: 0, schema: schema.clone(), name: asked.name.name.clone() })
    };
    facts.relations.iter().filter_map(named).find(|table| table.full_name().quoted() == quoted)
}

/// Returns the table whose row type holds the record of a plan. `None` means that the plan is not recorded: it has one phase (unless it runs
/// `ahead` of a block), nothing to undo, or a detach, which the server finishes itself.
pub(super) fn is_recorded<'f>(plan: &Plan, facts: &'f Facts, ahead: bool) -> Option<&'f RelationRef> {
    let undone = plan.phases.iter().any(|phase| phase.undo.is_some());
    let detaches = plan.phases.iter().any(|phase| phase.kind == PhaseKind::Detach);
    table_of(facts).filter(|_| (ahead || plan.phases.len() > 1) && undone && !detaches).map(|table| &table.id)
}

/// Returns the table that the record of a statement is about: the first table that the statement names.
pub fn table_of(facts: &Facts) -> Option<&RelationFacts> {
    let mut found = facts.relations.iter().filter_map(|asked| asked.found.as_ref());
    found.find(|table| matches!(table.kind, RelationKind::Table | RelationKind::PartitionedTable))
}

/// What a plan says to people, and not to the server.
const WORDS: [&str; 4] = ["meanwhile", "must_hold", "notes", "purpose"];

/// Returns FNV-1a of what a plan does: the same in every build, whatever words it has for people, and no secret.
pub(super) fn fingerprint(plan: &Plan) -> String {
    let mut json = serde_json::to_value(plan).unwrap_or_default();
    remove_words(&mut json);
    let json = json.to_string();
    let hash = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3) //
    });
    format!("{hash:016x}")
}

fn remove_words(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|name, _| !WORDS.contains(&name.as_str()));
            fields.values_mut().for_each(remove_words);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_words),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::supposed::{self, SupposedSize};
    use crate::plan::{Limits, plan};
    use crate::sql::parse;

    fn planned(sql: &str) -> Plan {
        let limits = Limits { small_table: 0, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
        let statement = parse(sql).unwrap().remove(0);
        plan(&statement, &supposed::facts(&statement, SupposedSize::Large), &limits).unwrap()
    }

    #[test]
    fn a_fingerprint_is_of_what_is_done_and_not_of_its_words() {
        let plan = planned("ALTER TABLE orders ALTER note SET NOT NULL");
        let mut reworded = plan.clone();
        reworded.meanwhile.clear();
        for phase in &mut reworded.phases {
            phase.purpose = "in other words".to_owned();
            let Some(Undo::Run(undo)) = &mut phase.undo else { continue };
            undo.purpose = "in other words".to_owned();
            undo.steps.iter_mut().for_each(|step| step.must_hold = step.must_hold.map(|_| "in other words"));
        }
        assert_ne!(plan, reworded);
        assert_eq!(fingerprint(&plan), fingerprint(&reworded));
        let mut other = plan.clone();
        other.phases[0].steps[0].sql.push(' ');
        assert_ne!(fingerprint(&plan), fingerprint(&other));
        assert_ne!(fingerprint(&plan), fingerprint(&planned("ALTER TABLE orders ALTER other SET NOT NULL")));
    }

    /// A record of a run, with the records before it.
    fn record(job: &str, before: Option<Record>) -> Record {
        let json = format!(
            r#"{{"job":"{job}","since":"","statement":"{job}","plan":"","next":0,"place":null,"things":[],"built":[],"learned":[],
                "facts":{{"session":{{"server_version":150000,"backend_pid":1,"lock_timeout_ms":0,"statement_timeout_ms":0,
                "deadlock_timeout_ms":0,"may_probe":true}},"relations":[]}}}}"#
        );
        let record: Record = serde_json::from_str(&json).unwrap();
        Record { ahead: true, before: before.map(Box::new), ..record }
    }

    #[test]
    fn each_run_ends_its_own_record() {
        let chain = || record("c", Some(record("b", Some(record("a", None)))));
        let jobs = |record: Option<Record>| {
            let mut jobs = Vec::new();
            let mut next = record;
            while let Some(record) = next {
                jobs.push(record.job);
                next = record.before.map(|before| *before);
            }
            jobs.join(" ")
        };
        assert_eq!(jobs(Record::from_text(&chain().to_text().unwrap())), "c b a");
        assert_eq!(["a", "b", "c", "d"].map(|job| jobs(chain().without(job))), ["c b", "c a", "b a", "c b a"]);
        assert_eq!(jobs(record("a", None).without("a")), "");
        assert!(chain().has("a") && !chain().has("d"));
        assert_eq!(chain().find(&|record| record.statement == "b").unwrap().job, "b");
        let undoing = chain().with(&Record { undoing: true, ..record("b", None) });
        assert_eq!(undoing.before.as_ref().map(|before| before.undoing), Some(true));
        assert_eq!(jobs(Some(undoing)), "c b a");
    }
}
