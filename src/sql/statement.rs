//! A parsed statement, as far as the proxy needs it.
//!
//! Every DDL statement has the same flat shape: the relations that it names, and one [`Part`] for each subcommand, each
//! with its [`Form`]. Plans read this shape, and never the parser's tree.

use super::form::Form;
use crate::pg::RelationName;
use crate::pg::relation::quote_identifier;
use std::ops::Range;

/// One statement of a string.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Bytes of the string it came from, without the semicolon and outer white space.
    pub range: Range<usize>,
    /// Exactly the text of `range`.
    pub text: String,
    /// What the log may have of it: its words without any string's. Of DDL alone; else empty.
    pub logged: String,
    pub class: Class,
}

/// What a statement is to the proxy.
#[derive(Debug, Clone, PartialEq)]
pub enum Class {
    /// DDL of interest.
    Ddl(Box<Ddl>),
    /// `EXPLAIN <ddl>`, which PostgreSQL's grammar rejects; the inner statement.
    ExplainDdl(Box<Statement>),
    /// DO, CALL: its text may carry DDL that is not seen. `names_ddl`: it names a DDL keyword.
    /// `swallows`: it could catch our lock timeout (OTHERS, lock_not_available, query_canceled) or
    /// commits half-way (COMMIT, ROLLBACK), so that a timeout of ours could change what it does.
    MayHideDdl { names_ddl: bool, swallows: bool },
    /// SELECT pg_advisory_lock(…) or one of its kind: it waits for a lock that a build's session may hold.
    AdvisoryLock(Box<AdvisoryLock>),
    /// DDL of a grammar that is newer than ours: what it does cannot be told.
    Newer,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT …
    Transaction(TransactionControl),
    /// Everything else: relayed.
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

/// A call that waits for an advisory lock, and what is asked in its place, each with the author's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvisoryLock {
    /// It is held until it is given back, not until the transaction ends.
    pub session: bool,
    /// Tries to get the lock for the session: `t` or `f`.
    pub try_of_session: String,
    /// The same for the transaction.
    pub try_of_transaction: String,
    /// Gives it back once, where it is the session's.
    pub unlock: String,
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
    /// Where in `Statement::text` a name ends (byte offset), so that what follows can stand behind another: of CREATE INDEX
    /// the table's, of ATTACH PARTITION the partition's.
    pub tail_at: Option<usize>,
    /// CREATE TABLE … PARTITION OF: where in `Statement::text` its FOR VALUES … stands (bytes).
    pub bounds: Option<Range<usize>>,
    /// CREATE TABLE … PARTITION OF without a list of columns.
    pub partition_of: Option<PartitionOf>,
    /// ALTER DOMAIN: the domain.
    pub domain: Option<RelationName>,
    /// One per subcommand; most statements have one.
    pub parts: Vec<Part>,
}

/// Where the words stand in `Statement::text` (bytes) that make a new table a partition.
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
    /// The column it works on.
    pub column: Option<String>,
    /// The constraint it names.
    pub constraint: Option<String>,
    /// `IF EXISTS` or `IF NOT EXISTS` on the subcommand.
    pub missing_ok: bool,
    /// `CASCADE` on the subcommand
    pub cascade: bool,
    /// Further relations it locks: the referenced table of a foreign key, a partition, a new parent …
    pub others: Vec<RelationName>,
    /// This subcommand alone, as an `ALTER TABLE pg_temp.pgsluice_probe …` statement, for the rewrite
    /// probe; only for forms whose cost depends on the server (`Form::needs_probe`). Of CREATE INDEX: the same
    /// index on that copy, so that the server can be asked for its definition.
    pub probe: Option<String>,
    /// The key that it adds: UNIQUE or PRIMARY KEY, of the table.
    pub key: Option<Box<NewKey>>,
    /// The foreign key that it adds, of the table.
    pub foreign_key: Option<Box<NewForeignKey>>,
    /// ADD COLUMN, taken apart.
    pub new_column: Option<Box<NewColumn>>,
    /// The type that the column gets, where that and the column's constraints, and perhaps a default that is a string, are all:
    /// of ALTER COLUMN TYPE, and of ADD COLUMN of a type that is not PostgreSQL's own.
    pub new_type: Option<Box<NewType>>,
    /// What the default calls of ADD COLUMN of a type of PostgreSQL's own, where that is all that may be volatile in it.
    pub default_calls: Option<Box<Calls>>,
    /// The subcommand of an ALTER TABLE, as its author wrote it.
    pub text: Option<String>,
    /// Of ADD CONSTRAINT what stands behind the name.
    pub element: Option<String>,
}

/// A type's name as written, and its modifiers: no array, and nothing of it is computed.
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
    /// serial and its kin: the type that it stands for.
    pub serial: Option<&'static str>,
    /// The type is one of PostgreSQL's own: no domain.
    pub built_in: bool,
    /// A default is a constant, or one for the whole transaction (`now()`): from PostgreSQL 11 on no row is written for it.
    pub constant_default: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// What stands behind the type, in the order written.
    pub pieces: Vec<ColumnClause>,
}

/// One of the things that a column's definition carries.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnClause {
    pub kind: ClauseKind,
    /// Of its constraint, if the author gave one.
    pub name: Option<String>,
    pub text: String,
    /// Where in `text` the constraint itself begins, behind `CONSTRAINT name`.
    pub element_at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClauseKind {
    Collate,
    Null,
    /// `no_inherit`: the server knows it since 18.
    NotNull {
        no_inherit: bool,
    },
    /// The expression's text.
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
    /// What stands in the parentheses behind IDENTITY.
    Identity {
        options: String,
    },
    Generated {
        stored: bool,
    },
}

/// A key that ALTER TABLE adds, so that its index can be built apart.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    pub primary: bool,
    pub columns: Vec<String>,
    /// The columns of INCLUDE; they count for the name that PostgreSQL chooses.
    pub include: Vec<String>,
    /// What follows the table's name in CREATE UNIQUE INDEX: ` USING btree (a) …`.
    pub index: String,
    /// What follows the index's name in ADD CONSTRAINT … USING INDEX: ` DEFERRABLE INITIALLY DEFERRED`, or nothing.
    pub deferral: &'static str,
}

/// A foreign key that ALTER TABLE adds, so that it can be added to each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewForeignKey {
    pub columns: Vec<String>,
    /// Where in `Statement::text` FOREIGN KEY stands (byte offset).
    pub at: usize,
}

impl Statement {
    /// The statement as DDL of interest, if it is that.
    pub fn ddl(&self) -> Option<&Ddl> {
        match &self.class {
            Class::Ddl(ddl) => Some(ddl),
            _ => None,
        }
    }

    /// What its texts take in memory.
    pub fn bytes(&self) -> usize {
        let parts = self.ddl().map_or(&[][..], |ddl| ddl.parts.as_slice());
        self.text.len() + self.logged.len() + parts.iter().map(Part::bytes).sum::<usize>()
    }
}

impl NewColumn {
    /// Its definition with some of its pieces, in the order written; in place of serial the type that it stands for.
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

    /// The column with some of its pieces, none of them a default, as it can be added in a moment: with NULL in place of
    /// its value, also of the one that a domain has by itself.
    pub fn bare(&self, version: i32, wanted: impl Fn(&ColumnClause) -> bool) -> String {
        let column = self.with(wanted);
        // Before 11 even this would write the whole table anew.
        if self.built_in || version < 110_000 { column } else { format!("{column} DEFAULT NULL") }
    }
}

impl NewKey {
    /// The words of the constraint.
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

/// Subcommands of one statement that are planned. A table has no more columns (`MaxHeapAttributeNumber`), and of two that work on one
/// another each has to be looked at beside all others.
pub const MOST_PARTS: usize = 1600;

/// Relations of one statement that are asked about, locked by name and told of. Cleaners of test suites name hundreds.
pub const MOST_NAMES: usize = 2000;

impl Ddl {
    /// More than is planned: it goes as it is written, guarded by `lock_timeout` alone.
    pub fn names_too_much(&self) -> bool {
        let names = self.targets.len() + self.parts.iter().map(|part| part.others.len()).sum::<usize>();
        self.parts.len() > MOST_PARTS || names > MOST_NAMES
    }

    /// A statement of one part that names nothing yet.
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

    /// The form, where the statement has one part; of several the one with the strongest lock.
    pub fn form(&self) -> Form {
        self.parts.iter().map(|part| part.form).max_by_key(|form| form.row().lock).unwrap_or(Form::Other)
    }
}
