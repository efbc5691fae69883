//! Whether two statements of a transaction block may change places: one that stays in the block, and a later one that goes ahead of
//! the block.
//!
//! Plain functions over statements; the file owns no state.
//!
//! Invariant: two statements may change places only if the outcome is the same for every content of the tables. Where that is not
//! known, the answer is no.

use crate::catalog::query::relations_of;
use crate::pg::RelationName;
use crate::plan::block_locks::makes_relations;
use crate::plan::elide::adds_column;
use crate::sql::form::Form;
use crate::sql::{Ddl, Part, Statement, first_word, has_word};
use std::collections::BTreeSet;

/// A statement with what it names and touches.
pub(super) struct Subject<'a> {
    pub(super) statement: &'a Statement,
    pub(super) names: Vec<RelationName>,
    pub(super) touches: &'a BTreeSet<u32>,
}

impl<'a> Subject<'a> {
    /// `more`: names that the effect of the statement has beside those of its targets.
    pub(super) fn new(statement: &'a Statement, more: &[RelationName], touches: &'a BTreeSet<u32>) -> Self {
        let mut names = relations_of(statement);
        let index = statement.ddl().and_then(|ddl| ddl.index_name.as_deref());
        let keys = statement.ddl().into_iter().flat_map(|ddl| &ddl.parts).filter(|part| is_key(part.form));
        let made = index.into_iter().chain(keys.filter_map(|part| part.constraint.as_deref()));
        names.extend(made.map(|name| RelationName::new(None, name)));
        names.extend(more.iter().cloned());
        Self { statement, names, touches }
    }

    fn text(&self) -> &[u8] {
        self.statement.text.as_bytes()
    }
}

/// Whether the statements touch a common relation: by oid, or by a name that may mean the same.
pub(super) fn meet(one: &Subject<'_>, other: &Subject<'_>) -> bool {
    !one.touches.is_disjoint(other.touches) || names_meet(&one.names, &other.names)
}

pub(super) fn names_meet(some: &[RelationName], others: &[RelationName]) -> bool {
    some.iter().any(|one| others.iter().any(|other| may_be_same(one, other)))
}

fn may_be_same(one: &RelationName, other: &RelationName) -> bool {
    one.name == other.name && (one.schema.is_none() || other.schema.is_none() || one.schema == other.schema)
}

/// Whether a DDL statement `x` has to keep its place before `y`, a later statement that goes ahead.
pub(super) fn keeps_place(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    let Some(ddl) = x.statement.ddl() else { return meet(x, y) };
    if is_broad(ddl) || (is_implicit(&ddl.tag) && !is_plain(y.statement)) || takes_name(x, y) {
        return true;
    }
    if ddl.parts.iter().all(|part| part.form == Form::Grant) {
        // Rights on all tables of a schema, and default rights, are those of the tables that are there.
        return makes_something(y.statement) && ddl.targets.is_empty();
    }
    // The table of an index is unknown once the index is dropped.
    let drops_index = ddl.parts.iter().all(|part| part.form == Form::DropIndex);
    drops_index || meet(x, y) || is_used(x, ddl, y)
}

/// Whether `x` may make something under a name that the server would choose for `y`: with that name taken, the server chooses another one.
fn takes_name(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    /// The server makes a name of the table's, the columns' and one of these, and a number if there is such a name (`ChooseRelationName()`).
    const ENDS: [&str; 8] = ["_idx", "_key", "_pkey", "_fkey", "_check", "_excl", "_seq", "_not_null"];
    /// Bytes of the table's name that are certainly part of it. The server shortens long names.
    const BEGINNING: usize = 20;
    let Some(its) = y.statement.ddl() else { return false };
    if !chooses_name(its) {
        return false;
    }
    let of_table = |made: &str, table: &str| {
        let beginning = table.get(..BEGINNING).unwrap_or(table);
        let end = made.trim_end_matches(|c: char| c.is_ascii_digit());
        made.starts_with(beginning) && ENDS.iter().any(|known| end.ends_with(known))
    };
    x.names.iter().any(|made| its.targets.iter().any(|table| of_table(&made.name, &table.name)))
}

/// Whether the server chooses a name of something that the statement makes.
fn chooses_name(ddl: &Ddl) -> bool {
    ddl.parts.iter().any(|part| match part.form {
        form if is_index(form) => ddl.index_name.is_none(),
        Form::AddColumn | Form::AddColumnDefault | Form::AddColumnUserType => false,
        form if adds_column(form) => true,
        form if adds_constraint(form) => part.constraint.is_none(),
        Form::AddExclude => part.constraint.is_none(),
        form => matches!(form, Form::CreateTable | Form::CreateTableReferences),
    })
}

/// Statements that may concern any relation. For DROP INDEX, see [`keeps_place`].
fn is_broad(ddl: &Ddl) -> bool {
    let of = |form: Form| ddl.parts.iter().any(|part| part.form == form);
    let schema = ddl.tag == "ALTER SCHEMA";
    let role = ["GRANT ROLE", "REVOKE ROLE"].contains(&ddl.tag.as_str());
    let cascades = ddl.cascade || ddl.parts.iter().any(|part| part.cascade);
    let events = ddl.tag.ends_with("EVENT TRIGGER");
    schema || role || cascades || events || of(Form::DropOwned) || of(Form::ImportForeignSchema)
}

/// Objects that a later statement may use without naming them.
fn is_implicit(tag: &str) -> bool {
    let object = tag.split_once(' ').map_or("", |(_, object)| object);
    let objects = [
        "EXTENSION",
        "CAST",
        "OPERATOR",
        "OPERATOR CLASS",
        "OPERATOR FAMILY",
        "ACCESS METHOD",
        "TRANSFORM",
        "LANGUAGE",
    ];
    objects.contains(&object)
}

/// Whether the statement uses nothing but columns, their default operators, and types of PostgreSQL's own.
fn is_plain(statement: &Statement) -> bool {
    let text = statement.text.as_bytes();
    let plain = |part: &Part| match part.form {
        Form::CreateIndex | Form::CreateIndexConcurrently => is_plain_index(text),
        Form::AddColumn | Form::AddColumnReferences => true,
        Form::AddColumnDefault => part.new_column.as_ref().is_some_and(|new| new.constant_default && new.built_in),
        form => adds_constraint(form) && !matches!(form, Form::AddCheck | Form::AddCheckNotValid),
    };
    statement.ddl().is_some_and(|ddl| ddl.parts.iter().all(plain))
}

/// Whether the index is on columns alone, with the default operators.
fn is_plain_index(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut pieces = text.split(['(', ')']);
    let (Some(_), Some(columns), Some(""), None) = (pieces.next(), pieces.next(), pieces.next(), pieces.next()) else {
        return false;
    };
    let order =
        |word: &str| ["asc", "desc", "nulls", "first", "last"].iter().any(|known| word.eq_ignore_ascii_case(known));
    let plain = |column: &str| column.split_whitespace().skip(1).all(order);
    let by_method = has_word(text.as_bytes(), &["using"]) && !has_word(text.as_bytes(), &["btree"]);
    !by_method && columns.split(',').all(plain)
}

/// Forms that check rows, and change neither a column nor its default.
pub(super) fn adds_constraint(form: Form) -> bool {
    matches!(
        form,
        Form::SetNotNull
            | Form::AddCheck
            | Form::AddCheckNotValid
            | Form::AddNotNullConstraint
            | Form::AddNotNullNotValid
            | Form::AddForeignKey
            | Form::AddForeignKeyNotValid
            | Form::AddUnique
            | Form::AddPrimaryKey
            | Form::ValidateConstraint
    )
}

/// Whether the statement makes a relation or another object, on which rights are granted.
fn makes_something(statement: &Statement) -> bool {
    let Some(ddl) = statement.ddl() else { return true };
    let makes = |part: &Part| {
        let form = part.form;
        !(adds_constraint(form) || is_index(form) || form == Form::Comment)
            && (!adds_column(form) || matches!(form, Form::AddColumnSerial | Form::AddColumnIdentity))
    };
    ddl.parts.iter().any(makes)
}

fn is_key(form: Form) -> bool {
    matches!(form, Form::AddUnique | Form::AddPrimaryKey)
}

pub(super) fn is_index(form: Form) -> bool {
    matches!(form, Form::CreateIndex | Form::CreateIndexConcurrently)
}

/// Whether `y` may use what `x` makes or changes without touching it as a relation: as a type, in a default, in an expression.
/// The other way round, the body of a new function may depend on the columns of `y`.
fn is_used(x: &Subject<'_>, ddl: &Ddl, y: &Subject<'_>) -> bool {
    let has_body = ["CREATE FUNCTION", "CREATE PROCEDURE"].contains(&ddl.tag.as_str());
    names_in_expression(x, y) || (has_body && changes_columns(y.statement) && has_name(y, x))
}

/// Whether a name of `x` stands in the text of `y`, and `y` may use more than columns.
pub(super) fn names_in_expression(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    !is_plain(y.statement) && has_name(x, y)
}

fn changes_columns(statement: &Statement) -> bool {
    let leaves = |part: &Part| is_index(part.form) || adds_constraint(part.form);
    statement.ddl().is_none_or(|ddl| !ddl.parts.iter().all(leaves))
}

/// Whether a name of `x` stands in the text of `y` as a word.
fn has_name(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    x.names.iter().any(|name| has_word_of(y.text(), &name.name))
}

/// Whether a name stands in a text as a word, in any case.
fn has_word_of(text: &[u8], name: &str) -> bool {
    let (text, name) = (String::from_utf8_lossy(text).to_lowercase(), name.to_lowercase());
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: usize| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word);
    !name.is_empty() && text.match_indices(&name).any(|(at, _)| alone(at))
}

/// Whether a DDL statement `x` should stay in the block, although it may meet `y`: ahead of the block it would be seen too early (DROP
/// DEFAULT), or it would be one more change that may have to be undone.
pub(super) fn stays_gladly(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    let (Some(ddl), Some(its)) = (x.statement.ddl(), y.statement.ddl()) else { return false };
    if is_broad(ddl) {
        return false;
    }
    let of_column = |part: &Part| matches!(part.form, Form::SetDefault | Form::DropDefault | Form::SetColumnStatistics);
    let other_column = |part: &Part| {
        let leaves = is_index(part.form) || adds_constraint(part.form);
        leaves || (adds_column(part.form) && !ddl.parts.iter().any(|own| own.column == part.column))
    };
    ddl.parts.iter().all(|part| match part.form {
        Form::Comment | Form::SecurityLabel => true,
        Form::DropIndex => no_index_matters(x, y),
        Form::CreateIndex => ddl.index_name.is_some() && !is_unique(x.statement) && no_index_matters(x, y),
        _ => of_column(part) && its.parts.iter().all(other_column),
    })
}

/// Whether `y` does the same with and without the indexes that `x` names: it makes no relation whose name the server chooses, and it
/// needs no unique index (as a foreign key does).
fn no_index_matters(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    let Some(ddl) = y.statement.ddl() else { return false };
    let made: Vec<RelationName> = x.names.iter().filter(|name| !is_table_of(name, x.statement)).cloned().collect();
    let named = |part: &Part| match part.form {
        form if is_index(form) => ddl.index_name.is_some(),
        form if is_key(form) => part.constraint.is_some(),
        Form::AddForeignKey | Form::AddForeignKeyNotValid => false,
        Form::AddColumn | Form::AddColumnDefault | Form::AddColumnUserType => true,
        form => adds_constraint(form),
    };
    ddl.parts.iter().all(named) && !names_meet(&made, &y.names)
}

/// Whether the name is that of the table of CREATE INDEX.
fn is_table_of(name: &RelationName, statement: &Statement) -> bool {
    statement.ddl().is_some_and(|ddl| ddl.parts.iter().all(|part| is_index(part.form)) && ddl.targets.contains(name))
}

/// Whether a DDL statement `x` that meets `y` and cannot go ahead may stay in the block.
pub(super) fn may_stay(x: &Subject<'_>, y: &Subject<'_>) -> bool {
    let (Some(ddl), Some(its)) = (x.statement.ddl(), y.statement.ddl()) else { return false };
    !is_broad(ddl) && (refers_only(x.statement, ddl, y, its) || is_apart(ddl, y, its))
}

/// `y` adds an index or a constraint to a relation that the new relation `x` only refers to. (LIKE would copy them.)
fn refers_only(x: &Statement, ddl: &Ddl, y: &Subject<'_>, its: &Ddl) -> bool {
    let refers = |part: &Part| matches!(part.form, Form::CreateView | Form::CreateTable | Form::CreateTableReferences);
    let adds = |part: &Part| is_index(part.form) || adds_constraint(part.form);
    let copies = has_word(x.text.as_bytes(), &["like"]);
    !copies && ddl.parts.iter().all(refers) && its.parts.iter().all(adds) && !names_meet(&ddl.targets, &y.names)
}

/// `x` changes or drops a column or a constraint that `y` does not name, and `y` adds something with a name of its own. What the
/// server would find or choose for `y` (a primary key, a name, NOT NULL of a dropped constraint) must not depend on `x`.
fn is_apart(ddl: &Ddl, y: &Subject<'_>, its: &Ddl) -> bool {
    let of_column = |form| {
        use Form::{AlterColumnType, DropColumn, DropDefault, DropNotNull, SetDefault, SetNotNull, SetStorage};
        matches!(form, DropColumn | AlterColumnType | DropNotNull | SetNotNull | SetDefault | DropDefault | SetStorage)
    };
    let unnamed = |part: &Part| match (&part.column, &part.constraint) {
        (Some(name), _) if of_column(part.form) => !has_word_of(y.text(), name),
        (_, Some(name)) if part.form == Form::DropConstraint => !has_word_of(y.text(), name),
        _ => false,
    };
    let drops = ddl.parts.iter().any(|part| matches!(part.form, Form::DropColumn | Form::DropConstraint));
    let drops_constraint = ddl.parts.iter().any(|part| part.form == Form::DropConstraint);
    let adds = |part: &Part| match part.form {
        // An expression may be about the whole row.
        Form::CreateIndex => its.index_name.is_some() && is_plain_index(y.text()),
        Form::AddUnique => part.constraint.is_some(),
        Form::AddPrimaryKey => part.constraint.is_some() && !drops,
        Form::SetNotNull => !drops_constraint,
        Form::AddForeignKey | Form::AddForeignKeyNotValid => {
            part.constraint.is_some() && !names_meet(&part.others, &ddl.targets)
        }
        Form::AddColumn | Form::AddColumnDefault => true,
        _ => false,
    };
    ddl.parts.iter().all(unnamed) && its.parts.iter().all(adds)
}

/// Whether a statement `x` that writes rows of the new tables `written`, and touches nothing else, may stay: `y` holds for any rows,
/// or refuses in the block what it would refuse ahead of it. `new`: all new tables of the block.
pub(super) fn holds_for_any_rows(x: &Statement, y: &Statement, written: &[RelationName], new: &[RelationName]) -> bool {
    let Some(ddl) = y.ddl() else { return false };
    let changes = names_meet(&ddl.targets, written);
    if makes_relations(ddl) && !changes {
        // A new table that references a written one has no rows yet.
        return ddl.parts.iter().all(|part| matches!(part.form, Form::CreateTable | Form::CreateTableReferences));
    }
    let counts_columns = x.text.contains('*') || first_word(x.text.as_bytes()).eq_ignore_ascii_case(b"copy");
    ddl.parts.iter().all(|part| match part.form {
        Form::CreateIndex if changes => !is_unique(y),
        Form::AddColumn if changes => !counts_columns,
        Form::AddColumnDefault if changes => {
            !counts_columns && part.new_column.as_ref().is_some_and(|new| new.constant_default)
        }
        // Each row is checked against an old table when it is written, and not later.
        Form::AddForeignKey if changes => !names_meet(&part.others, new),
        // The new column is NULL in each row.
        Form::AddColumnReferences => !changes,
        _ => false,
    })
}

fn is_unique(statement: &Statement) -> bool {
    has_word(statement.text.as_bytes(), &["unique"])
}

/// Whether the statement may fail because of rows that are there.
pub(super) fn checks_rows(statement: &Statement) -> bool {
    let checks = |part: &Part| adds_constraint(part.form) || (is_index(part.form) && is_unique(statement));
    statement.ddl().is_none_or(|ddl| ddl.parts.iter().any(checks))
}
