//! The model of a plan: phases of steps, each with its locks, its waits and its undo.

use crate::catalog::RelationRef;
use crate::pg::{LockMode, RelationName};
use crate::report::{Report, Severity};
use crate::sql::form::{Cost, Form};
use serde::{Deserialize, Serialize};

/// The plan of one statement. Exactly one step (`visible`) gives the client its reply, unless `answer` does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The client's text.
    pub statement: String,
    pub tag: String,
    pub forms: Vec<Form>,
    /// The strongest lock that the statement would take if it ran directly.
    pub lock: Option<LockMode>,
    pub cost: Cost,
    /// The client gets these reports before the first phase.
    pub notes: Vec<Report>,
    /// If set, there is nothing to do. The client gets these notices and the tag, and no lock is taken.
    pub answer: Option<Vec<Report>>,
    pub phases: Vec<Phase>,
    /// The states that other sessions can see between two phases, but would never see if the statement ran directly. For people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meanwhile: Vec<&'static str>,
}

/// A part of a plan that commits by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    pub kind: PhaseKind,
    /// The purpose of the phase, for people: a fragment like "build the index without blocking reads or writes".
    pub purpose: String,
    /// The steps run in a transaction block: in the client's if one is open, otherwise in one of the proxy's own.
    pub in_transaction: bool,
    /// The locks of the phase, in the order of oids. A brief or guarded phase locks all of them by name, at once, before its steps
    /// (`LOCK TABLE … NOWAIT`). The steps of a long phase take these locks themselves; the list is for the lanes and for people.
    pub locks: Vec<LockNeed>,
    pub steps: Vec<Step>,
    /// The undo of the phase. It runs if this phase or a later one gives up.
    pub undo: Option<Undo>,
    /// For a backfill: its step names all rows at once, and this says how they are filled in batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,
    /// For a detach: how it is finished if its step is interrupted half-way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach: Option<Detach>,
    /// The phase only tidies up after phases that cannot be undone. If it fails, a WARNING says so and the statement succeeds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tidies: bool,
}

impl Phase {
    /// A phase that takes these locks at once, and does nothing. `purpose`: a fragment, for people.
    pub fn of_locks(purpose: &str, mut locks: Vec<LockNeed>) -> Self {
        locks.sort_by_key(|lock| lock.oid);
        Self {
            kind: PhaseKind::Brief,
            purpose: purpose.to_owned(),
            in_transaction: true,
            locks,
            steps: Vec::new(),
            undo: None,
            backfill: None,
            detach: None,
            tidies: false,
        }
    }
}

/// A DETACH PARTITION CONCURRENTLY. The server runs it in two transactions of its own, and cannot take the first one back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detach {
    pub partition: RelationRef,
    /// The oid of the partition's table.
    pub table: u32,
    /// [`NewConstraint::slot`] of the CHECK that the server gives the partition in place of its bounds. The name of the CHECK is
    /// learned. It stays empty if the partition has such a CHECK already.
    pub slot: usize,
    /// The phase that does the work of the second transaction, under lock attempts.
    pub finish: Box<Phase>,
}

/// A backfill: old rows get the values that new rows get already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backfill {
    /// The table. Its descendants are filled, too: those that exist when the backfill begins.
    pub table: RelationName,
    pub oid: u32,
    pub columns: Vec<Filled>,
    /// No triggers fire, as a rewrite would fire none. The session may set `session_replication_role` for that.
    pub quiet: bool,
    /// Some of the rows belong to other roles, whose code must not run. It is checked before each batch, under a lock.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
}

/// A column of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// The name of the column, quoted.
    pub column: String,
    /// `DEFAULT`, or an expression of the row.
    pub value: String,
    /// A condition that is true of the rows that still lack the value: `"c" IS NULL`.
    pub wanting: String,
}

impl Filled {
    /// The column and its value, as an UPDATE sets them.
    pub fn set(&self) -> String {
        format!("{} = {}", self.column, self.value)
    }
}

impl Backfill {
    /// All columns and their values, as an UPDATE sets them.
    pub fn set(&self) -> String {
        self.columns.iter().map(Filled::set).collect::<Vec<_>>().join(", ")
    }

    /// A condition that is true of the rows that still lack the value of any column.
    pub fn wanting(&self) -> String {
        self.columns.iter().map(|filled| filled.wanting.as_str()).collect::<Vec<_>>().join(" OR ")
    }
}

/// A constraint or index that a step makes, and whose name the server chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NewConstraint {
    /// The number of its name among the plan's learned names.
    pub slot: usize,
    /// The oid of its table.
    pub table: u32,
    /// `pg_constraint.contype`, or [`NewConstraint::INDEX`].
    pub kind: char,
    /// How many newer ones of this kind the transaction has made on the table.
    #[serde(skip_serializing_if = "is_zero")]
    pub nth: usize,
}

impl NewConstraint {
    /// The kind of an index. No constraint has it.
    pub const INDEX: char = 'i';

    /// The kind of the object.
    pub fn object(&self) -> ObjectKind {
        if self.kind == Self::INDEX { ObjectKind::Index } else { ObjectKind::Constraint }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "so serde asks")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// The step takes no lock that others could wait for. It is sent as written.
    Relay,
    /// The locks are taken by lock attempts. Then the phase is over in milliseconds (hold budget).
    Brief,
    /// The locks are taken by lock attempts, but the phase may then be long. It has a WARNING and no hold budget.
    Guarded,
    /// The phase is long, outside any transaction, under a lock that blocks neither reads nor writes. It needs no lock attempts.
    Long,
    /// As `Long`, but in many short transactions, each of which locks a few rows for a moment.
    Backfill,
    /// DETACH PARTITION CONCURRENTLY. It begins when no old transaction is in its way, and has a `lock_timeout`.
    Detach,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LockNeed {
    pub relation: RelationName,
    pub oid: u32,
    pub mode: LockMode,
    /// The descendants of the relation are not locked.
    pub only: bool,
    /// `LOCK TABLE` can name the relation. If it cannot, only `lock_timeout` guards the lock.
    pub lockable: bool,
    /// The transaction holds a lock on the relation already. The server puts its request ahead of the requests that wait for that
    /// lock, but before 17 NOWAIT fails because of them.
    #[serde(skip)]
    pub held: bool,
    /// How many partitions and children are locked with the relation.
    #[serde(skip)]
    pub below: u32,
}

impl LockNeed {
    /// The lock of one relation without its descendants, by name. The transaction holds no lock on it yet.
    pub fn alone(relation: RelationName, oid: u32, mode: LockMode) -> Self {
        Self { relation, oid, mode, only: false, lockable: true, held: false, below: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub sql: String,
    /// The reply to the step is the client's reply.
    pub visible: bool,
    /// The SQL is the proxy's own. The position of an error in it means nothing to the client.
    #[serde(skip)]
    pub own: bool,
    /// Where `sql` differs from the client's text, so that an error's position can be given in the client's terms.
    #[serde(skip)]
    pub inserted: Option<Inserted>,
    /// The step makes a constraint whose name the server chooses, and later steps name that constraint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learns: Option<NewConstraint>,
    /// The place in `sql` for the quoted name of a constraint that an earlier step made. If no constraint was made, the step is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_at: Option<NameAt>,
    /// The CHECK that this step validates stands for NOT NULL of this column. An error of the step names the column.
    #[serde(skip)]
    pub not_null: Option<String>,
    /// The step divides by zero unless a condition holds. If it does not hold, the client gets this text as the reason.
    #[serde(skip)]
    pub must_hold: Option<&'static str>,
    /// The object of the step has a name of the proxy's for a time. An error of the step gives the author's name.
    #[serde(skip)]
    pub renamed: Option<Renamed>,
    /// The CHECK that this step validates stands for the bounds of a partition. An error of the step names the partition.
    #[serde(skip)]
    pub bounds: Option<BoundsOf>,
    /// The object that the step drops, if it undoes something, or that it validates.
    #[serde(skip)]
    pub about: Option<CreatedObject>,
}

/// An object of a table that a plan makes. It is known by more than its name, since another object may get that name.
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
    /// The default of a column.
    Default,
    Constraint,
    /// The NOT NULL of a column. Its name is that of the column.
    NotNull,
    /// An index that is not the index of a constraint.
    Index,
    /// A table that was a partition of the object's table. Its name is quoted, with its schema.
    Partition,
    /// A new table. It belongs to no other table, so the oid of its table is 0. Its name is quoted, with its schema.
    Table,
    /// A new sequence that belongs to no column. As for a table, the oid is 0 and the name is quoted.
    Sequence,
}

impl ObjectKind {
    /// Whether the object is a relation of its own, and no part of a table.
    pub fn stands_alone(self) -> bool {
        matches!(self, Self::Table | Self::Sequence)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectName {
    Known(String),
    /// The server chose the name: [`NewConstraint::slot`].
    Learned(usize),
}

/// The two names of a constraint or of its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The proxy's name, which nothing else has.
    pub from: String,
    pub to: String,
}

/// The partition whose rows are not within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundsOf {
    Partition,
    Default,
    /// The default partition, in the words of CREATE TABLE … PARTITION OF.
    DefaultBesideNew,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NameAt {
    /// The byte offset.
    pub at: usize,
    /// [`NewConstraint::slot`]
    pub slot: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The byte offset in `sql`.
    pub at: usize,
    /// The number of characters that were put in there.
    pub len: usize,
    /// The number of characters of the client's text that they replace.
    pub instead_of: usize,
}

/// The undo of a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Drop, concurrently, every invalid index of `table` that is not among `known` (oids).
    DropInvalidIndexes { table: RelationName, oid: u32, known: Vec<u32> },
    /// As `DropInvalidIndexes` if the build failed; if a later phase gave up, drop the index that was built.
    DropBuiltIndex { table: RelationName, oid: u32, known: Vec<u32>, index: RelationName },
    /// As `DropInvalidIndexes` if the build failed; if a later phase gave up, drop the index that was built. The server chose its name.
    /// `before`: the indexes that the table had (oids). `definition`: the definition in the author's words, as
    /// [`plain_definition`](super::hoist::plain_definition) gives it. It tells the index from others that came meanwhile.
    DropNewIndex { table: RelationName, oid: u32, known: Vec<u32>, before: Vec<u32>, definition: String },
    /// If a later phase gave up, run this phase under lock attempts.
    Run(Box<Phase>),
    /// Finish the drop. An interrupted DROP INDEX CONCURRENTLY leaves the index invalid, and nothing can bring it back.
    FinishDrop { index: RelationName, oid: u32 },
}

/// Why the proxy will not run a statement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refusal {
    pub report: Report,
}

/// The settings that a plan depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// A table that is not larger than this (bytes) is changed directly, in one brief step; 0: no table is.
    pub small_table: u64,
    /// Statements are planned (`plan` mode). Otherwise they only get lock attempts (`guard` mode).
    pub rewrite: bool,
    /// A statement without a safe way is refused. Otherwise it runs guarded, with a WARNING.
    pub refuse_unsafe: bool,
    /// ADD EXCLUDE is refused.
    pub refuse_exclude: bool,
}

impl Limits {
    /// Whether a table of this size is changed directly.
    pub fn is_small(&self, bytes: u64) -> bool {
        self.small_table > 0 && bytes <= self.small_table
    }
}

impl Step {
    /// The client's own text. The reply to it is the client's reply.
    pub fn as_written(text: &str) -> Self {
        Self { visible: true, own: false, ..Self::hidden(text.to_owned()) }
    }

    /// A statement of the proxy's own. The client sees nothing of it.
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

    /// Says which object the step drops or validates.
    pub fn about(self, table: u32, kind: ObjectKind, name: &str) -> Self {
        let name = ObjectName::Known(name.to_owned());
        Self { about: Some(CreatedObject { table, kind, name }), ..self }
    }

    /// A hidden step that fails unless the condition holds. The client then gets `otherwise` as the reason, and may try again.
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

    /// The SQL of the step, with the learned name in its place. A name that is not known yet is shown as `…`.
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
    /// Whether the plan has a WARNING.
    pub fn warns(&self) -> bool {
        self.notes.iter().any(|note| note.severity == Severity::Warning)
    }
}
