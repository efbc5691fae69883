//! What the client knows of rows, and whether it is still true when the block has been run again.
//!
//! The proxy rolls the block back, and then the rows that the block has locked are free for a while. A client that has read such rows relies on
//! them. So their statements are compared: each must give the same rows again at the end of the second run.
//!
//! Plain functions over statements; the file owns no state. Invariant: what the client knows of rows that the block has locked is compared, or
//! nothing goes ahead.

use super::earlier::{Earlier, because_of_an_earlier, title};
use super::order::{Subject, adds_constraint, is_index, meet};
use crate::pg::LockMode;
use crate::plan::block_locks::makes_relations;
use crate::plan::block_place::NotAhead;
use crate::sql::form::Form;
use crate::sql::{EffectKind, Part, first_word, has_word};

/// Functions and keywords that give the time, chance, or the transaction.
const CHANCE: [&str; 30] = [
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "random",
    "random_normal",
    "setseed",
    "tablesample",
    "gen_random_uuid",
    "gen_random_bytes",
    "uuidv4",
    "uuidv7",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "timeofday",
    "nextval",
    "array_sample",
    "array_shuffle",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_current_snapshot",
];

/// Columns that say where a row is, and who has written it.
const PLACES: [&str; 5] = ["ctid", "xmin", "xmax", "cmin", "cmax"];

/// What depends on the order of rows. A row that is written a second time stands somewhere else.
const ORDERS: [&str; 13] = [
    "limit",
    "offset",
    "fetch",
    "array_agg",
    "string_agg",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "xmlagg",
    "row_number",
    "first_value",
    "last_value",
];

/// The statements whose rows must be the same again: positions among `earlier`, in order. `last`: the statement that is to go ahead.
///
/// # Errors
/// The rows of a statement cannot be compared, and why.
pub(super) fn compared(earlier: &[Earlier<'_>], last: &Subject<'_>) -> Result<Vec<usize>, NotAhead> {
    let subjects = subjects(earlier);
    let mut compared = Vec::new();
    for (place, x) in earlier.iter().enumerate() {
        let known = x.effect.kind == EffectKind::LockRows
            || (gives_rows(x)
                && (0..place).any(|at| keeps_others_away(&earlier[at]) && meet(&subjects[at], &subjects[place])));
        if !known {
            continue;
        }
        if let Some(why) = not_repeatable(x.statement.text.as_bytes()) {
            let detail = format!("{} has read rows that this transaction has locked, and {why}.", title(x));
            return Err(because_of_an_earlier(detail));
        }
        let mut behind = earlier.iter().zip(&subjects).skip(place + 1).filter(|(y, _)| !y.hoisted);
        let changes = |y: &Earlier<'_>, its: &Subject<'_>| match y.effect.kind {
            // What a function writes is not known.
            EffectKind::Write => y.volatile || meet(&subjects[place], its),
            EffectKind::Ddl => changes_answers(its) && meet(&subjects[place], its),
            _ => false,
        };
        if let Some((y, _)) = behind.find(|(y, its)| changes(y, its)) {
            let detail = format!(
                "{} has read rows that this transaction has locked, and {} behind it may have changed them.",
                title(x),
                title(y)
            );
            return Err(because_of_an_earlier(detail));
        }
        if changes_answers(last) && meet(&subjects[place], last) {
            let detail = format!("{} has read the table that the statement changes, and has locked rows.", title(x));
            return Err(because_of_an_earlier(detail));
        }
        compared.push(place);
    }
    Ok(compared)
}

fn subjects<'a>(earlier: &'a [Earlier<'_>]) -> Vec<Subject<'a>> {
    earlier.iter().map(|x| Subject::new(x.statement, &x.effect.relations, &x.touches)).collect()
}

/// Whether the statement is a query.
fn gives_rows(x: &Earlier<'_>) -> bool {
    let first = first_word(x.statement.text.as_bytes());
    x.effect.kind == EffectKind::Read && ![&b"show"[..], b"explain"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Whether the block has, since the statement, rows or relations that nobody else may write.
fn keeps_others_away(x: &Earlier<'_>) -> bool {
    match x.effect.kind {
        _ if x.hoisted => false,
        EffectKind::Write | EffectKind::LockRows => true,
        EffectKind::Lock => !is_weak_lock(x.statement.text.as_bytes()),
        // Nobody else sees a new relation.
        EffectKind::Ddl => {
            x.statement.ddl().is_some_and(|ddl| !makes_relations(ddl) && ddl.parts.iter().any(stops_writers))
        }
        _ => false,
    }
}

/// Whether a LOCK TABLE takes a lock that does not conflict with itself.
fn is_weak_lock(text: &[u8]) -> bool {
    let has = |word: &str| has_word(text, &[word]);
    let weak = (has("access") && has("share")) || (has("row") && (has("share") || has("exclusive")));
    let strong = (has("access") && has("exclusive")) || (has("share") && has("exclusive"));
    weak && !strong
}

fn stops_writers(part: &Part) -> bool {
    // The locks of the newest server. They differ for renames of indexes and for partitions.
    let (target, others) = part.form.locks(i32::MAX);
    [target, others].into_iter().flatten().any(|lock| lock.conflicts_with(LockMode::RowExclusive))
}

/// Why a query may give something else although the rows are the same. A fragment.
fn not_repeatable(text: &[u8]) -> Option<&'static str> {
    if has_word(text, &CHANCE) {
        return Some("its answer depends on the time or on chance");
    }
    if has_word(text, &PLACES) {
        return Some("its answer says where the rows stand");
    }
    let orders = has_word(text, &ORDERS) && !has_word(text, &["order"]);
    orders.then_some("its answer depends on the order of the rows")
}

/// Whether a DDL statement may change what a query of its relation gives.
fn changes_answers(y: &Subject<'_>) -> bool {
    let leaves = |part: &Part| match part.form {
        Form::Comment | Form::SecurityLabel | Form::Grant | Form::SetDefault | Form::DropDefault => true,
        Form::SetColumnStatistics | Form::DropIndex | Form::CreateTable | Form::CreateTableReferences => true,
        form => is_index(form) || adds_constraint(form),
    };
    y.statement.ddl().is_none_or(|ddl| !ddl.parts.iter().all(leaves))
}

/// Whether the client knows no value that would be another one when the block is run again: a value that an earlier write has given
/// a row, or the position of a sequence that the block has made.
pub(super) fn values_stay(earlier: &[Earlier<'_>]) -> Result<(), NotAhead> {
    let subjects = subjects(earlier);
    for (place, x) in earlier.iter().enumerate() {
        let text = x.statement.text.as_bytes();
        let mut before = earlier.iter().zip(&subjects).take(place).filter(|(other, _)| !other.hoisted);
        let reads = matches!(x.effect.kind, EffectKind::Read | EffectKind::LockRows);
        if reads && let Some((other, _)) = before.find(|(other, its)| may_choose(other) && meet(its, &subjects[place]))
        {
            let detail = format!(
                "{} has read rows that {} wrote before it, and a second run may write other values.",
                title(x),
                title(other)
            );
            return Err(because_of_an_earlier(detail));
        }
        let moves = x.effect.kind == EffectKind::Keep && has_word(text, &["nextval", "setval"]);
        if moves && before.any(|(other, _)| makes_sequence(other)) {
            let detail = format!("{} may use a sequence that this transaction has made.", title(x));
            return Err(because_of_an_earlier(detail));
        }
    }
    Ok(())
}

/// Whether the server may choose values of the rows that the statement writes: defaults, times, chance.
fn may_choose(x: &Earlier<'_>) -> bool {
    let text = x.statement.text.as_bytes();
    let first = first_word(text);
    let keeps_rows = [&b"update"[..], b"delete"].iter().any(|word| first.eq_ignore_ascii_case(word));
    let numbers = |form| matches!(form, Form::AddColumnSerial | Form::AddColumnIdentity);
    let chance = x.volatile || has_word(text, &CHANCE);
    let defaults = has_word(text, &["default"]);
    match x.effect.kind {
        EffectKind::Write => !keeps_rows || chance || defaults,
        EffectKind::Ddl => match x.statement.ddl() {
            Some(ddl) => ddl.parts.iter().any(|part| numbers(part.form) || (fills_rows(part.form) && chance)),
            None => chance,
        },
        _ => false,
    }
}

/// Forms that write rows, perhaps with values that the server chooses.
fn fills_rows(form: Form) -> bool {
    matches!(
        form,
        Form::AddColumnDefault
            | Form::AddColumnUserType
            | Form::AddColumnReferencesDefault
            | Form::AlterColumnType
            | Form::CreateTableAs
            | Form::CreateMaterializedView
            | Form::RefreshMaterializedView
            | Form::RefreshConcurrently
    )
}

fn makes_sequence(x: &Earlier<'_>) -> bool {
    let makes = |form| matches!(form, Form::AddColumnSerial | Form::AddColumnIdentity | Form::Extension);
    x.statement.ddl().is_some_and(|ddl| {
        makes_relations(ddl) || ddl.tag == "CREATE SCHEMA" || ddl.parts.iter().any(|part| makes(part.form))
    })
}
