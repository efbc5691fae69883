//! Which statements of a transaction block go ahead of it with a schema change, and whether the rest can be run again.
//!
//! The proxy rolls the block back, runs the chosen statements outside it, and runs the rest of the block again. So each statement that
//! stays changes places with each later one that goes ahead. `docs/decisions/0056-what-goes-ahead-of-its-block.md` has the reasons.
//!
//! Pure; the file owns no state. Invariant: what is chosen leaves the client, and everybody else after COMMIT, with the outcome of the
//! block as it was written. Where that is not known, nothing goes ahead.

mod earlier;
mod order;
#[cfg(test)]
mod tests;
mod told;

pub use self::earlier::Earlier;

use self::earlier::{APART, BEFORE, title};
use self::order::{
    Subject, checks_rows, holds_for_any_rows, keeps_place, may_stay, meet, names_in_expression, names_meet,
    stays_gladly,
};
pub use super::block_place::NotAhead;
use crate::pg::{LockMode, RelationName};
use crate::sql::form::Form;
use crate::sql::{Class, EffectKind, Statement, first_word, has_word};
use std::collections::BTreeSet;

/// The savepoints of a block: which statements a ROLLBACK TO has taken back (those behind its savepoint, and itself), and the savepoints that are
/// left, the oldest first, each with its place.
pub fn follow_savepoints<'a>(kinds: impl Iterator<Item = &'a EffectKind>) -> (Vec<bool>, Vec<(&'a str, usize)>) {
    let mut savepoints: Vec<(&str, usize)> = Vec::new();
    let mut back = Vec::new();
    for (place, kind) in kinds.enumerate() {
        back.push(false);
        let named = |name: &str| savepoints.iter().rposition(|(known, _)| *known == name);
        match kind {
            EffectKind::Savepoint(name) => savepoints.push((name, place)),
            EffectKind::Release(name) => {
                if let Some(at) = named(name) {
                    savepoints.truncate(at);
                }
            }
            EffectKind::RollbackTo(name) => {
                if let Some(at) = named(name) {
                    let behind = savepoints[at].1 + 1;
                    savepoints.truncate(at + 1);
                    back[behind..].fill(true);
                }
            }
            _ => {}
        }
    }
    (back, savepoints)
}

/// The settings of the transaction itself.
const MODES: [&str; 3] = ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];

/// What is to be done so that the last statement goes ahead: positions among `earlier`, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The statements that go ahead with it.
    pub ahead: Vec<usize>,
    /// The statements whose rows must be the same when the block has been run again.
    pub compared: Vec<usize>,
}

/// What goes ahead with the last statement.
///
/// # Errors
/// The statement cannot go ahead, and why.
pub fn choose(earlier: &[Earlier<'_>], last: &Statement, touches: &BTreeSet<u32>) -> Result<Chosen, NotAhead> {
    earlier.iter().try_for_each(can_be_replayed)?;
    told::values_stay(earlier)?;
    let new = new_tables(earlier);
    let mut going = vec![Subject::new(last, &[], touches)];
    let mut chosen = Vec::new();
    for (place, x) in earlier.iter().enumerate().rev().filter(|(_, x)| !x.hoisted) {
        let subject = Subject::new(x.statement, &x.effect.relations, &x.touches);
        match x.effect.kind {
            EffectKind::Ddl if goes(x, &subject, &going)? => {
                going.push(subject);
                chosen.push(place);
            }
            EffectKind::Write | EffectKind::LockRows | EffectKind::Lock | EffectKind::Again => {
                stays(x, &subject, &going, &new)?;
            }
            _ => {}
        }
    }
    chosen.reverse();
    let compared = told::compared(earlier, &Subject::new(last, &[], touches))?;
    Ok(Chosen { ahead: chosen, compared })
}

/// What is to be done so that the block can be run again before its last statement, which keeps its place.
///
/// # Errors
/// The block cannot be run again, and why.
pub fn run_again(earlier: &[Earlier<'_>], last: &Statement, touches: &BTreeSet<u32>) -> Result<Chosen, NotAhead> {
    earlier.iter().try_for_each(can_be_replayed)?;
    told::values_stay(earlier)?;
    let compared = told::compared(earlier, &Subject::new(last, &[], touches))?;
    Ok(Chosen { ahead: Vec::new(), compared })
}

/// What goes ahead so that the block keeps others from no table while its last statement, which keeps its place, takes long.
///
/// # Errors
/// A statement that keeps others from a table cannot go ahead, and why.
pub fn free(earlier: &[Earlier<'_>], last: &Statement, touches: &BTreeSet<u32>) -> Result<Chosen, NotAhead> {
    let new = new_tables(earlier);
    let holds = |x: &Earlier<'_>| !x.hoisted && keeps_others_away(x, &new);
    if !earlier.iter().any(holds) {
        return Ok(Chosen::default());
    }
    earlier.iter().try_for_each(can_be_replayed)?;
    told::values_stay(earlier)?;
    let mut going: Vec<Subject<'_>> = Vec::new();
    let mut chosen = Vec::new();
    for (place, x) in earlier.iter().enumerate().rev().filter(|(_, x)| !x.hoisted) {
        let subject = Subject::new(x.statement, &x.effect.relations, &x.touches);
        match x.effect.kind {
            EffectKind::Ddl if goes(x, &subject, &going)? || holds(x) => {
                if let Err(why) = &x.undoable {
                    return Err(cannot_go(x, why));
                }
                going.push(subject);
                chosen.push(place);
            }
            EffectKind::Lock if holds(x) => return Err(cannot_go(x, "it is to hold its lock")),
            EffectKind::Write | EffectKind::LockRows | EffectKind::Lock | EffectKind::Again => {
                stays(x, &subject, &going, &new)?;
            }
            _ => {}
        }
    }
    chosen.reverse();
    let compared = told::compared(earlier, &Subject::new(last, &[], touches))?;
    Ok(Chosen { ahead: chosen, compared })
}

/// Whether the statement makes others wait for a table until the block ends. `new`: the tables that the block has made.
fn keeps_others_away(x: &Earlier<'_>, new: &[RelationName]) -> bool {
    let blocks = |mode: Option<LockMode>| mode.is_some_and(LockMode::blocks_application);
    if let Class::Lock(lock) = &x.statement.class {
        return lock.mode.blocks_application();
    }
    let Some(ddl) = x.statement.ddl() else { return false };
    let is_new = |name: &RelationName| names_meet(std::slice::from_ref(name), new);
    let target = !ddl.targets.is_empty() && ddl.targets.iter().all(is_new);
    ddl.parts.iter().any(|part| {
        (!target && blocks(part.form.row().lock))
            || (blocks(part.form.row().other_lock) && !part.others.iter().all(is_new))
    })
}

/// Whether the statement can be run again, or need not be.
fn can_be_replayed(x: &Earlier<'_>) -> Result<(), NotAhead> {
    let text = x.statement.text.as_bytes();
    match &x.effect.kind {
        EffectKind::Once(why) => {
            Err(NotAhead { detail: format!("{} cannot be run again: {why}.", title(x)), hint: BEFORE.to_owned() })
        }
        EffectKind::Read | EffectKind::LockRows | EffectKind::Keep | EffectKind::AdvisoryXact if x.volatile => {
            Err(calls_unknown(x))
        }
        EffectKind::Begin => isolation(text).map_or(Ok(()), |level| Err(isolated(level))),
        EffectKind::Set(names) if names.is_empty() && has_word(text, &["transaction"]) => {
            isolation(text).map_or(Ok(()), |level| Err(isolated(level)))
        }
        EffectKind::Set(names) => match names.iter().find(|name| MODES.contains(&name.as_str())) {
            Some(name) => Err(NotAhead { detail: format!("The transaction sets {name}."), hint: APART.to_owned() }),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn calls_unknown(x: &Earlier<'_>) -> NotAhead {
    let detail = format!("{} calls a function that may do anything, and that cannot be done again.", title(x));
    NotAhead { detail, hint: BEFORE.to_owned() }
}

fn isolated(level: &str) -> NotAhead {
    let detail = format!("The transaction is {level}.");
    NotAhead { detail, hint: "Use READ COMMITTED, or run the schema change in a transaction of its own.".to_owned() }
}

/// The level or mode that the statement asks for, if a block of it is not run again.
fn isolation(text: &[u8]) -> Option<&'static str> {
    let modes = [("serializable", "SERIALIZABLE"), ("repeatable", "REPEATABLE READ"), ("only", "READ ONLY")];
    modes.into_iter().find(|(word, _)| has_word(text, &[word])).map(|(_, level)| level)
}

/// The tables that the block has made, without partitions and children of other tables.
fn new_tables(earlier: &[Earlier<'_>]) -> Vec<RelationName> {
    let ddls = earlier.iter().filter_map(|x| x.statement.ddl());
    let plain = |form| matches!(form, Form::CreateTable | Form::CreateTableReferences);
    ddls.filter(|ddl| !ddl.if_not_exists && ddl.parts.iter().all(|part| plain(part.form)))
        .flat_map(|ddl| ddl.targets.clone())
        .collect()
}

/// Whether a DDL statement goes ahead too.
fn goes(x: &Earlier<'_>, subject: &Subject<'_>, going: &[Subject<'_>]) -> Result<bool, NotAhead> {
    let before: Vec<&Subject<'_>> =
        going.iter().filter(|y| keeps_place(subject, y) && !stays_gladly(subject, y)).collect();
    if before.is_empty() {
        return Ok(false);
    }
    match &x.undoable {
        Ok(()) => Ok(true),
        Err(_) if before.iter().all(|y| may_stay(subject, y)) => Ok(false),
        Err(why) => Err(cannot_go(x, why)),
    }
}

/// Whether a statement that is run again may stay behind all that go ahead.
fn stays(x: &Earlier<'_>, subject: &Subject<'_>, going: &[Subject<'_>], new: &[RelationName]) -> Result<(), NotAhead> {
    let text = x.statement.text.as_bytes();
    let written = &x.effect.relations;
    let only_new =
        x.effect.kind == EffectKind::Write && written.iter().all(|name| names_meet(std::slice::from_ref(name), new));
    let in_the_way = |y: &&Subject<'_>| match x.effect.kind {
        // Statistics do not matter. A DO may have made a type.
        EffectKind::Again => first_word(text).eq_ignore_ascii_case(b"do") && names_in_expression(subject, y),
        // A function that may do anything may also write the rows that a constraint is about.
        _ if x.volatile && checks_rows(y.statement) => true,
        _ => meet(subject, y) && !(only_new && holds_for_any_rows(x.statement, y.statement, written, new)),
    };
    match going.iter().find(in_the_way) {
        Some(_) => Err(stands_before(x)),
        None => Ok(()),
    }
}

/// `why`: a fragment, or empty.
fn cannot_go(x: &Earlier<'_>, why: &str) -> NotAhead {
    if why.is_empty() {
        return stands_before(x);
    }
    let detail = format!("{} stands before it in this transaction and cannot go ahead: {why}.", title(x));
    NotAhead { detail, hint: BEFORE.to_owned() }
}

fn stands_before(x: &Earlier<'_>) -> NotAhead {
    NotAhead { detail: format!("{} stands before it in this transaction.", title(x)), hint: BEFORE.to_owned() }
}
