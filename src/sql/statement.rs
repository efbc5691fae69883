//! A parsed statement, as far as the proxy needs it.
//!
//! Every DDL statement has the same flat shape: the relations that it names, and one [`Part`] for each subcommand, each
//! with its [`Form`]. Plans read this shape, and never the parser's tree.

use super::form::Form;
use crate::pg::relation::quote_identifier;
use crate::pg::{LockMode, RelationName};
use std::ops::Range;

/// One statement of a string.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Where the statement stands in its string (bytes), without the semicolon and outer white space.
    pub range: Range<usize>,
    /// The text of `range`.
    pub text: String,
    /// The text as the log may contain it, without any string. Empty unless the statement is DDL.
    pub logged: String,
    pub class: Class,
    /// The rules of the gate may concern the statement, so that it does not pass unasked. The session sets this; the parser knows no rules.
    pub gated: bool,
}

/// The kind of a statement, as far as the proxy needs it.
#[derive(Debug, Clone, PartialEq)]
pub enum Class {
    /// DDL of interest.
    Ddl(Box<Ddl>),
    /// `EXPLAIN <ddl>`, which PostgreSQL's grammar rejects. The inner statement is the DDL.
    ExplainDdl(Box<Statement>),
    /// DO or CALL. Its text may contain DDL that the proxy does not see. `names_ddl`: the text has a keyword of DDL. `swallows`:
    /// the text could catch a lock timeout of the proxy (OTHERS, lock_not_available, query_canceled) or commits half-way (COMMIT,
    /// ROLLBACK), so that such a timeout could change the effect of the text.
    MayHideDdl { names_ddl: bool, swallows: bool },
    /// SELECT pg_advisory_lock(…) or a similar call that waits for an advisory lock.
    AdvisoryLock(Box<AdvisoryLock>),
    /// LOCK TABLE.
    Lock(Box<LockTable>),
    /// DDL of a newer grammar than this one. The proxy does not know what the statement does.
    Newer,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT …
    Transaction(TransactionControl),
    /// Everything else. It is relayed.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionControl {
    /// BEGIN, START TRANSACTION
    Begin,
    /// COMMIT, END; `chain`: AND CHAIN
    Commit { chain: bool },
    /// ROLLBACK, ABORT
    Rollback { chain: bool },
    /// SAVEPOINT, RELEASE, ROLLBACK TO
    Savepoint,
    /// PREPARE TRANSACTION (COMMIT PREPARED and ROLLBACK PREPARED are `Class::Other`)
    Prepare,
}

/// A call that waits for an advisory lock, and the calls that the proxy makes in its place, with the author's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvisoryLock {
    /// The lock is held until it is released, and not until the transaction ends.
    pub session: bool,
    /// The call that tries to get the lock for the session. It answers `t` or `f`.
    pub try_of_session: String,
    /// The call that tries to get the lock for the transaction.
    pub try_of_transaction: String,
    /// The call that releases a lock of the session once.
    pub unlock: String,
}

/// A LOCK TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockTable {
    /// The relations, as written.
    pub relations: Vec<LockedName>,
    pub mode: LockMode,
    pub nowait: bool,
}

/// A relation of a LOCK TABLE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedName {
    pub name: RelationName,
    /// `ONLY`
    pub only: bool,
}

impl LockTable {
    /// Whether readers or writers queue behind the statement while it waits for its locks.
    pub fn makes_others_wait(&self) -> bool {
        !self.nowait && self.mode.blocks_application()
    }
}

/// A DDL statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddl {
    /// The command tag that PostgreSQL answers, e.g. `ALTER TABLE`.
    pub tag: String,
    /// The relations that are the object of the statement, as written. For CREATE INDEX the table;
    /// for DROP INDEX and REINDEX INDEX the indexes; for CREATE TABLE the new table.
    pub targets: Vec<RelationName>,
    /// `ONLY`
    pub only: bool,
    /// `IF EXISTS` on the object
    pub if_exists: bool,
    /// `IF NOT EXISTS` on the object
    pub if_not_exists: bool,
    pub cascade: bool,
    /// The author wrote CONCURRENTLY.
    pub concurrently: bool,
    /// CREATE INDEX: the name written, if any.
    pub index_name: Option<String>,
    /// Where in `Statement::text` the word CONCURRENTLY may be put (byte offset, just after INDEX, TABLE
    /// or SCHEMA); for CREATE INDEX, DROP INDEX, REINDEX without it.
    pub concurrently_at: Option<usize>,
    /// Where in `Statement::text` a name ends (byte offset): the table's in CREATE INDEX, the partition's in ATTACH PARTITION. The
    /// text from there on can stand behind another name.
    pub tail_at: Option<usize>,
    /// CREATE TABLE … PARTITION OF: where FOR VALUES … stands in `Statement::text` (bytes).
    pub bounds: Option<Range<usize>>,
    /// CREATE TABLE … PARTITION OF without a list of columns.
    pub partition_of: Option<PartitionOf>,
    /// ALTER DOMAIN: the domain.
    pub domain: Option<RelationName>,
    /// One per subcommand; most statements have one.
    pub parts: Vec<Part>,
}

/// The clauses of CREATE TABLE that make the new table a partition: where they stand in `Statement::text` (bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOf {
    /// `PARTITION OF parent FOR VALUES …`
    pub clause: Range<usize>,
    /// `FOR VALUES …`, or `DEFAULT`
    pub bound: Range<usize>,
    /// `IF NOT EXISTS`
    pub if_not_exists: Option<Range<usize>>,
}

/// One subcommand of a DDL statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub form: Form,
    /// The column that the subcommand works on.
    pub column: Option<String>,
    /// The constraint that the subcommand names.
    pub constraint: Option<String>,
    /// `IF EXISTS` or `IF NOT EXISTS` on the subcommand.
    pub missing_ok: bool,
    /// `CASCADE` on the subcommand
    pub cascade: bool,
    /// The further relations that the subcommand locks: the referenced table of a foreign key, a partition, a new parent.
    pub others: Vec<RelationName>,
    /// This subcommand alone, as a statement on the copy of the rewrite probe (`ALTER TABLE pg_temp.pgsluice_probe …`). Only
    /// forms whose cost depends on the server have it (`Form::needs_probe`). For CREATE INDEX it is the same index on that copy,
    /// so that the server can be asked for its definition.
    pub probe: Option<String>,
    /// The UNIQUE or PRIMARY KEY of the table that the subcommand adds.
    pub key: Option<Box<NewKey>>,
    /// The foreign key of the table that the subcommand adds.
    pub foreign_key: Option<Box<NewForeignKey>>,
    /// ADD COLUMN, taken apart.
    pub new_column: Option<Box<NewColumn>>,
    /// The new type of the column. ALTER COLUMN TYPE has it, and ADD COLUMN of a type that is not PostgreSQL's own; but only if the
    /// definition has nothing else than constraints and perhaps a default that is a string.
    pub new_type: Option<Box<NewType>>,
    /// The functions and operators that the default of a new column calls. Only ADD COLUMN of a type of PostgreSQL's own has it, and
    /// only if nothing else in the default may be volatile.
    pub default_calls: Option<Box<Calls>>,
    /// The subcommand of an ALTER TABLE, as its author wrote it.
    pub text: Option<String>,
    /// ADD CONSTRAINT: the text after the name.
    pub element: Option<String>,
}

/// The name of a type as written, with its modifiers. The type is no array, and no modifier is an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewType {
    pub schema: Option<String>,
    pub name: String,
    pub modifiers: Vec<i64>,
}

/// The functions and operators of an expression, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    pub functions: Vec<RelationName>,
    pub operators: Vec<RelationName>,
}

/// A column that ALTER TABLE adds, in the author's words.
#[derive(Debug, Clone, PartialEq)]
pub struct NewColumn {
    pub name: String,
    pub type_text: String,
    /// For serial and the like, the type that it stands for.
    pub serial: Option<&'static str>,
    /// The type is one of PostgreSQL's own, so it is no domain.
    pub built_in: bool,
    /// The default is a constant, or the same for the whole transaction (`now()`). PostgreSQL 11 and later write no row for it.
    pub constant_default: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// The clauses after the type, in the order written.
    pub pieces: Vec<ColumnClause>,
}

/// One clause of a column's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnClause {
    pub kind: ClauseKind,
    /// The name of the constraint, if the author gave one.
    pub name: Option<String>,
    pub text: String,
    /// Where in `text` the constraint itself begins, after `CONSTRAINT name`.
    pub element_at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClauseKind {
    Collate,
    Null,
    /// `no_inherit`: NO INHERIT, which the server has since 18.
    NotNull {
        no_inherit: bool,
    },
    /// The text of the expression.
    Default {
        expression: String,
    },
    Check {
        enforced: bool,
    },
    References {
        enforced: bool,
    },
    /// UNIQUE, PRIMARY KEY
    Key(Box<NewKey>),
    /// The text in the parentheses after IDENTITY.
    Identity {
        options: String,
    },
    Generated {
        stored: bool,
    },
}

/// A key that ALTER TABLE adds, taken apart so that its index can be built first.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    pub primary: bool,
    pub columns: Vec<String>,
    /// The columns of INCLUDE. PostgreSQL counts them when it chooses the name.
    pub include: Vec<String>,
    /// The text after the table's name in CREATE UNIQUE INDEX: ` USING btree (a) …`.
    pub index: String,
    /// The text after the index's name in ADD CONSTRAINT … USING INDEX: ` DEFERRABLE INITIALLY DEFERRED`, or nothing.
    pub deferral: &'static str,
}

/// A foreign key that ALTER TABLE adds, taken apart so that it can be added to each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewForeignKey {
    pub columns: Vec<String>,
    /// Where in `Statement::text` FOREIGN KEY stands (byte offset).
    pub at: usize,
}

impl Statement {
    /// The statement as DDL of interest; `None`: it is not DDL of interest.
    pub fn ddl(&self) -> Option<&Ddl> {
        match &self.class {
            Class::Ddl(ddl) => Some(ddl),
            _ => None,
        }
    }

    /// The memory that the texts of the statement take (bytes).
    pub fn bytes(&self) -> usize {
        let parts = self.ddl().map_or(&[][..], |ddl| ddl.parts.as_slice());
        self.text.len() + self.logged.len() + parts.iter().map(Part::bytes).sum::<usize>()
    }
}

impl NewColumn {
    /// The definition of the column with some of its clauses, in the order written. In place of serial it has the type that serial
    /// stands for.
    pub fn with(&self, wanted: impl Fn(&ColumnClause) -> bool) -> String {
        let kind = self.serial.unwrap_or(&self.type_text);
        let mut text = format!("{} {kind}", quote_identifier(&self.name));
        for piece in self.pieces.iter().filter(|piece| wanted(piece)) {
            text.push(' ');
            text.push_str(&piece.text);
        }
        text
    }

    /// The clause that makes the column an identity.
    pub fn identity(&self) -> Option<&ColumnClause> {
        self.pieces.iter().find(|piece| matches!(piece.kind, ClauseKind::Identity { .. }))
    }

    /// The expression of the column's DEFAULT.
    pub fn default_expression(&self) -> Option<&str> {
        self.pieces.iter().find_map(|piece| match &piece.kind {
            ClauseKind::Default { expression } => Some(expression.as_str()),
            _ => None,
        })
    }

    /// The definition of the column with some of its clauses and without a default, so that the column can be added in a moment.
    /// Its value is NULL, also where the domain has a default.
    pub fn bare(&self, version: i32, wanted: impl Fn(&ColumnClause) -> bool) -> String {
        let column = self.with(wanted);
        // Before 11 even this would write the whole table anew.
        if self.built_in || version < 110_000 { column } else { format!("{column} DEFAULT NULL") }
    }
}

impl NewKey {
    /// The keywords of the constraint.
    pub fn kind(&self) -> &'static str {
        if self.primary { "PRIMARY KEY" } else { "UNIQUE" }
    }
}

impl Part {
    fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let piece = |piece: &ColumnClause| match &piece.kind {
            ClauseKind::Default { expression: more } | ClauseKind::Identity { options: more } => {
                piece.text.len() + more.len()
            }
            ClauseKind::Key(key) => piece.text.len() + key.index.len(),
            _ => piece.text.len(),
        };
        let column = self.new_column.as_ref().map_or(0, |new| new.pieces.iter().map(piece).sum());
        of(&self.text)
            + of(&self.element)
            + of(&self.probe)
            + self.key.as_ref().map_or(0, |key| key.index.len())
            + column
    }

    pub fn new(form: Form) -> Self {
        Self {
            form,
            column: None,
            constraint: None,
            missing_ok: false,
            cascade: false,
            others: Vec::new(),
            probe: None,
            key: None,
            foreign_key: None,
            new_column: None,
            new_type: None,
            default_calls: None,
            text: None,
            element: None,
        }
    }
}

/// The most subcommands of one statement that are planned. A table has no more columns (`MaxHeapAttributeNumber`). Two subcommands
/// may work on each other, so each has to be compared with all others.
pub const MOST_PARTS: usize = 1600;

/// The most relations of one statement that the proxy asks about, locks by name and reports. Cleaners of test suites name hundreds.
pub const MOST_NAMES: usize = 2000;

impl Ddl {
    /// Whether the statement names more than is planned. It then runs as it is written, guarded by `lock_timeout` alone.
    pub fn names_too_much(&self) -> bool {
        let names = self.targets.len() + self.parts.iter().map(|part| part.others.len()).sum::<usize>();
        self.parts.len() > MOST_PARTS || names > MOST_NAMES
    }

    /// A statement with one part that names nothing yet.
    pub fn new(tag: &str, form: Form) -> Self {
        Self {
            tag: tag.to_owned(),
            targets: Vec::new(),
            only: false,
            if_exists: false,
            if_not_exists: false,
            cascade: false,
            concurrently: false,
            index_name: None,
            concurrently_at: None,
            tail_at: None,
            bounds: None,
            partition_of: None,
            domain: None,
            parts: vec![Part::new(form)],
        }
    }

    /// The form of the statement. If it has several parts, the form with the strongest lock.
    pub fn form(&self) -> Form {
        self.parts.iter().map(|part| part.form).max_by_key(|form| form.row().lock).unwrap_or(Form::Other)
    }
}
