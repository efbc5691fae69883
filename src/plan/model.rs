//! The model of a plan: phases of steps, each with its locks, its waits and its undo.

use crate::catalog::RelationRef;
use crate::pg::{LockMode, RelationName};
use crate::report::{Report, Severity};
use crate::sql::form::{Cost, Form};
use serde::{Deserialize, Serialize};

/// What the proxy will do for one statement. Exactly one step of the plan (`visible`) gives the client its reply,
/// unless `answer` does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The client's text.
    pub statement: String,
    pub tag: String,
    pub forms: Vec<Form>,
    /// The strongest lock that the statement itself would take, run directly.
    pub lock: Option<LockMode>,
    pub cost: Cost,
    /// Told to the client before the first phase.
    pub notes: Vec<Report>,
    /// Set: nothing is to be done; the client gets these notices and the tag, and no lock is taken.
    pub answer: Option<Vec<Report>>,
    pub phases: Vec<Phase>,
    /// What others can see between two phases that the statement itself would never show: for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meanwhile: Vec<&'static str>,
}

/// One commit boundary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    pub kind: PhaseKind,
    /// Why this phase, for people: a fragment like "build without blocking writes".
    pub purpose: String,
    /// The steps run in a transaction block: the client's if one is open, else one of the proxy's own.
    pub in_transaction: bool,
    /// In the order of oids. Brief and Guarded: locked by name, all at once, before the steps (`LOCK TABLE …
    /// NOWAIT`). Long: what the steps lock themselves, for the lanes and for people; nothing is locked ahead.
    pub locks: Vec<LockNeed>,
    pub steps: Vec<Step>,
    /// Runs if this phase or a later one gives up.
    pub undo: Option<Undo>,
    /// Backfill: what its step says of all rows at once is done in batches of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// Detach: what becomes of its step if that is interrupted half-way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach: Option<Detach>,
    /// It only tidies up behind what is done and cannot be undone: if it fails, a WARNING says so, and that is all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tidies: bool,
}

/// A partition is taken off its table in two transactions of the server's own, of which the first cannot be taken back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detach {
    pub partition: RelationRef,
    /// The oid of its table.
    pub table: u32,
    /// [`NewConstraint::slot`] of the CHECK that the server gives it in place of its bounds, unless it has such a one: its
    /// name is learned, or stays empty.
    pub slot: usize,
    /// Does the second transaction's work, under lock attempts.
    pub finish: Box<Phase>,
}

/// Old rows get what new rows get already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backfill {
    /// With its descendants, as many as there are when the backfill begins.
    pub table: RelationName,
    pub oid: u32,
    pub columns: Vec<Filled>,
    /// Fire no triggers: a rewrite would fire none. The session may set `session_replication_role`.
    pub quiet: bool,
    /// Some of it belongs to others, whose code is not to run: it is looked at, under a lock, before each batch.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
}

/// A column of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Quoted.
    pub column: String,
    /// `DEFAULT`, or an expression of the row.
    pub value: String,
    /// True of the rows that still want it: `"c" IS NULL`.
    pub wanting: String,
}

impl Filled {
    /// As in an UPDATE.
    pub fn set(&self) -> String {
        format!("{} = {}", self.column, self.value)
    }
}

impl Backfill {
    /// All columns, as in an UPDATE.
    pub fn set(&self) -> String {
        self.columns.iter().map(Filled::set).collect::<Vec<_>>().join(", ")
    }

    /// True of the rows that still want any of its columns.
    pub fn wanting(&self) -> String {
        self.columns.iter().map(|filled| filled.wanting.as_str()).collect::<Vec<_>>().join(" OR ")
    }
}

/// The constraint that a step has just made, with a name of the server's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NewConstraint {
    /// Which of the plan's learned names it is.
    pub slot: usize,
    /// The oid of its table.
    pub table: u32,
    /// `pg_constraint.contype`
    pub kind: char,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Takes no lock that others could wait for: sent as written.
    Relay,
    /// Lock attempts; once the lock is held it is over in milliseconds (hold budget).
    Brief,
    /// Lock attempts, but what follows may be long under the lock: no hold budget, a WARNING instead.
    Guarded,
    /// Outside any transaction, long, under a lock that blocks neither reads nor writes: no lock attempts.
    Long,
    /// As `Long`, in many short transactions, each of which locks a few rows for a moment.
    Backfill,
    /// DETACH PARTITION CONCURRENTLY, begun when no old transaction is in its way, and with a `lock_timeout`.
    Detach,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LockNeed {
    pub relation: RelationName,
    pub oid: u32,
    pub mode: LockMode,
    /// Not its descendants.
    pub only: bool,
    /// `LOCK TABLE` can name it; if not, only `lock_timeout` guards it.
    pub lockable: bool,
    /// The transaction holds a lock on it already. The server puts such a request ahead of those that wait for that lock, but
    /// NOWAIT fails for them, before 17.
    #[serde(skip)]
    pub held: bool,
    /// So many are locked below it: partitions and children.
    #[serde(skip)]
    pub below: u32,
}

impl LockNeed {
    /// Of a relation alone, which is locked by its name, and of which the transaction holds nothing.
    pub fn alone(relation: RelationName, oid: u32, mode: LockMode) -> Self {
        Self { relation, oid, mode, only: false, lockable: true, held: false, below: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub sql: String,
    /// Its reply is the client's reply.
    pub visible: bool,
    /// The words are the proxy's: an error's position in them means nothing to the client.
    #[serde(skip)]
    pub own: bool,
    /// Where `sql` differs from the client's text, so that an error's position can be given in the client's terms.
    #[serde(skip)]
    pub inserted: Option<Inserted>,
    /// It makes a constraint whose name the server chooses; later steps name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learns: Option<NewConstraint>,
    /// Where in `sql` the name goes, quoted, of a constraint that an earlier step made. If none was made, the step is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_at: Option<NameAt>,
    /// The check that this step validates stands for NOT NULL of this column: an error says so.
    #[serde(skip)]
    pub not_null: Option<String>,
    /// The step divides by zero unless something holds; if it does not, this is told instead.
    #[serde(skip)]
    pub must_hold: Option<&'static str>,
    /// What it works on has another name meanwhile than its author gave it: an error tells the author's.
    #[serde(skip)]
    pub renamed: Option<Renamed>,
    /// The check that this step validates stands for the bounds of a partition: an error says so.
    #[serde(skip)]
    pub bounds: Option<BoundsOf>,
    /// What it drops, if it undoes something; what it validates.
    #[serde(skip)]
    pub about: Option<CreatedObject>,
}

/// Something of a table that a plan makes, and that is told by more than its name: another one may get that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedObject {
    /// The table's oid.
    pub table: u32,
    pub kind: ObjectKind,
    pub name: ObjectName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    Column,
    /// A column's.
    Default,
    Constraint,
    /// A table that was a partition of the thing's table; its name is quoted, with its schema.
    Partition,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectName {
    Known(String),
    /// The server chose it: [`NewConstraint::slot`].
    Learned(usize),
}

/// Names of a constraint or its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Of the proxy's, such as nothing else has.
    pub from: String,
    pub to: String,
}

/// Which partition does not keep to its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundsOf {
    Partition,
    Default,
    /// As CREATE TABLE … PARTITION OF tells it.
    DefaultBesideNew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NameAt {
    /// Byte offset.
    pub at: usize,
    /// [`NewConstraint::slot`]
    pub slot: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// Byte offset in `sql`.
    pub at: usize,
    /// Characters put in there.
    pub len: usize,
    /// Characters of the client's text that they stand for.
    pub instead_of: usize,
}

/// How to bring back what a phase left.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Drop, concurrently, every invalid index of `table` that is not among `known` (oids).
    DropInvalidIndexes { table: RelationName, oid: u32, known: Vec<u32> },
    /// As `DropInvalidIndexes` if the build failed; if a later phase gave up, drop the index that was built.
    DropBuiltIndex { table: RelationName, oid: u32, known: Vec<u32>, index: RelationName },
    /// If a later phase gave up: run this one, under lock attempts.
    Run(Box<Phase>),
    /// An interrupted DROP INDEX CONCURRENTLY leaves the index invalid: it cannot be brought back, so finish the drop.
    FinishDrop { index: RelationName, oid: u32 },
}

/// Why the proxy will not run a statement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refusal {
    pub report: Report,
}

/// The limits a plan depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Tables not larger than this (bytes) are built on directly, in one brief step; 0: never.
    pub small_table: u64,
    /// Rewrite statements into safe ones (`plan` mode); otherwise lock attempts only (`guard` mode).
    pub rewrite: bool,
    /// Refuse what has no safe way, rather than run it guarded with a WARNING.
    pub refuse_unsafe: bool,
    /// The same for ADD EXCLUDE.
    pub refuse_exclude: bool,
}

impl Limits {
    /// Whether a table of this size is built on directly.
    pub fn is_small(&self, bytes: u64) -> bool {
        self.small_table > 0 && bytes <= self.small_table
    }
}

impl Step {
    /// The client's own text; its reply is the client's reply.
    pub fn as_written(text: &str) -> Self {
        Self { visible: true, own: false, ..Self::hidden(text.to_owned()) }
    }

    /// A statement of the proxy's own; the client sees nothing of it.
    pub fn hidden(sql: String) -> Self {
        Self {
            sql,
            visible: false,
            own: true,
            inserted: None,
            learns: None,
            name_at: None,
            not_null: None,
            must_hold: None,
            renamed: None,
            bounds: None,
            about: None,
        }
    }

    /// It drops this, or validates it.
    pub fn about(self, table: u32, kind: ObjectKind, name: &str) -> Self {
        let name = ObjectName::Known(name.to_owned());
        Self { about: Some(CreatedObject { table, kind, name }), ..self }
    }

    /// A hidden question, without rows as its answer; if the condition is not true, the client is told why, and may try again.
    pub fn assertion(condition: &str, otherwise: &'static str) -> Self {
        let sql = format!(
            "SELECT WHERE 1 OPERATOR(pg_catalog./) (CASE WHEN {condition} THEN 1 ELSE 0 END) OPERATOR(pg_catalog.=) 0"
        );
        Self { must_hold: Some(otherwise), ..Self::hidden(sql) }
    }

    /// A hidden statement with the learned name of a constraint between its halves.
    pub fn with_learned_name(before: &str, slot: usize) -> Self {
        Self { name_at: Some(NameAt { at: before.len(), slot }), ..Self::hidden(before.to_owned()) }
    }

    /// Its SQL, with the learned name in its place; one that is not known yet is shown as `…`.
    pub fn named(&self, names: &[String]) -> std::borrow::Cow<'_, str> {
        match self.name_at.and_then(|name| Some((self.sql.split_at_checked(name.at)?, name.slot))) {
            Some(((before, after), slot)) => {
                let name = names.get(slot).map_or("…", String::as_str);
                format!("{before}{name}{after}").into()
            }
            None => (&*self.sql).into(),
        }
    }

    /// The client's text with words put in at a byte offset.
    pub fn with_words(text: &str, at: usize, words: &str) -> Option<Self> {
        let (before, after) = text.split_at_checked(at)?;
        let inserted = Some(Inserted { at, len: words.chars().count(), instead_of: 0 });
        Some(Self { visible: true, own: false, inserted, ..Self::hidden(format!("{before}{words}{after}")) })
    }

    /// The client's text with ` CONCURRENTLY` put in at a byte offset.
    pub fn concurrently(text: &str, at: usize) -> Option<Self> {
        Self::with_words(text, at, " CONCURRENTLY")
    }
}

impl Plan {
    /// Whether it tells the client of something unsafe.
    pub fn warns(&self) -> bool {
        self.notes.iter().any(|note| note.severity == Severity::Warning)
    }
}
