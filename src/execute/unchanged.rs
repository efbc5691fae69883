//! The checks that a plan's relations, and the objects that it has made, are still the same. Between two phases nothing is locked: another
//! session may rename a table, put another table in its place, or drop an object of the plan and make another one of that name.
//!
//! This file owns no state. It keeps true that a later phase works only on the relations and columns of the plan, and that an undo works
//! only on objects that the plan has made, whatever the name of their table is now. Identities (`catalog/identity.rs`) are checked while
//! the locks are held, so that they cannot change afterwards.
//!
//! One case is not covered: a long phase takes its locks itself, so that it may begin on another table in the moment after the check. An
//! index that it builds there is dropped again. A constraint that it validates there was already a constraint of that table.

use crate::catalog::identity::{self, IDENTITY_SQL};
use crate::execute::context::ExecutionContext;
use crate::execute::objects::known;
use crate::execute::outcome::RunError;
use crate::execute::state::RunState;
use crate::pg::{LockMode, RelationName, sqlstate};
use crate::plan::{CreatedObject, LockNeed, ObjectKind, Phase, PhaseKind, Step};
use crate::report::Report;
use std::borrow::Cow;

/// The error that the client gets. The client may try again.
const CHANGED: &str = "the table has been renamed, replaced or changed meanwhile";

/// Returns the phase with an assertion as its first step: its relations and columns must be those of the plan.
pub(super) fn guarded<'p>(context: &ExecutionContext<'_>, state: &RunState, phase: &'p Phase) -> Cow<'p, Phase> {
    let held = phase.in_transaction && matches!(phase.kind, PhaseKind::Brief | PhaseKind::Guarded);
    match condition(context, state, &phase.locks).filter(|_| held) {
        Some(condition) => {
            let mut guarded = phase.clone();
            guarded.steps.insert(0, Step::assertion(&condition, CHANGED));
            Cow::Owned(guarded)
        }
        None => Cow::Borrowed(phase),
    }
}

/// Asks, before a phase that takes its locks itself, whether its relations and columns are those of the plan.
pub(super) async fn look_before(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    phase: &Phase,
) -> Result<(), RunError> {
    let Some(condition) = condition(context, state, &phase.locks) else { return Ok(()) };
    let answer = context.channel_mut().ask_one(&Step::assertion(&condition, CHANGED).sql, &[]).await?;
    match answer.error {
        None => Ok(()),
        Some(error) if error.sqlstate() == sqlstate::DIVISION_BY_ZERO => {
            Err(RunError::Report(Report::error(sqlstate::SERIALIZATION_FAILURE, CHANGED).hint("Try again.")))
        }
        Some(error) => Err(RunError::Server(error)),
    }
}

/// Returns the condition that all relations, and all columns that the plan has made, still have their names. `None` means that there is
/// nothing to check.
fn condition(context: &ExecutionContext<'_>, state: &RunState, locks: &[LockNeed]) -> Option<String> {
    let locks = locks.iter().filter(|lock| state.notes_created() && lock.oid != 0);
    let mut all: Vec<String> = locks.clone().map(|lock| identity::is_called(&lock.relation, lock.oid)).collect();
    // A statement that runs as it was written names a relation as its author did, perhaps without a schema. That name must find the
    // relation.
    let written = context.facts().relations.iter().filter(|asked| asked.name.schema.is_none());
    for (name, found) in written.filter_map(|asked| Some((&asked.name, asked.found.as_ref()?))) {
        let locked = locks.clone().any(|lock| lock.oid == found.id.oid);
        all.extend(locked.then(|| identity::is_called(name, found.id.oid)));
    }
    for lock in locks {
        all.extend(
            state
                .columns_of(lock.oid)
                .map(|(column, number)| identity::still("column", &lock.relation, lock.oid, column, number)),
        );
    }
    all.dedup();
    (!all.is_empty()).then(|| all.join(" AND "))
}

/// Returns the phase that undoes another, reduced to the objects that still exist, with their current names.
pub(super) async fn as_it_is_now(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    undo: &Phase,
) -> Result<Phase, RunError> {
    let about = |step: &Step| step.about.clone();
    let is_partition = |thing: CreatedObject| thing.kind == ObjectKind::Partition;
    // A partition has no such check: the server refuses to attach it if its place is taken.
    if !state.notes_created() || undo.steps.iter().filter_map(about).any(is_partition) {
        return Ok(undo.clone());
    }
    let locks = called_now(context, &undo.locks).await?;
    let steps = undo.steps.iter().map(|step| Step {
        sql: step.named(state.names()).into_owned(),
        name_at: None,
        about: step.about.as_ref().map(|thing| state.with_name(thing)),
        ..step.clone()
    });
    let steps: Vec<Step> = steps.collect();
    let there = there_now(context, &steps).await?;
    let mut now =
        Phase { locks: locks.iter().map(|(_, now)| now.clone()).collect(), steps: Vec::new(), ..undo.clone() };
    for ((step, there), planned) in steps.into_iter().zip(there).zip(&undo.steps) {
        let Some(thing) = &planned.about else {
            now.steps.push(step);
            continue;
        };
        if thing.kind.stands_alone() {
            let made = state.identity(thing).unwrap_or_default();
            if let Some((lock, steps)) = drop_alone(context, &step, made).await? {
                now.locks.push(lock);
                now.steps.extend(steps);
            }
            continue;
        }
        let Some((was, lock)) = locks.iter().find(|(_, lock)| lock.oid == thing.table) else { continue };
        match state.identity(thing) {
            Some(made) if there != Some(made) => continue,
            Some(made) => {
                let Some((kind, oid, name)) = step.about.as_ref().and_then(known) else {
                    continue;
                };
                let condition = identity::still(kind, &lock.relation, oid, name, made);
                now.steps.push(Step::assertion(&condition, CHANGED));
            }
            // What was not noted was not made.
            None if matches!(thing.kind, ObjectKind::NotNull | ObjectKind::Index) => continue,
            None => now.steps.push(Step::assertion(&identity::is_called(&lock.relation, lock.oid), CHANGED)),
        }
        let sql = step.sql.replacen(&was.quoted(), &lock.relation.quoted(), 1);
        now.steps.push(Step { sql, ..step });
    }
    now.locks.sort_by_key(|lock| lock.oid);
    Ok(now)
}

/// Returns the lock and the steps that drop a relation which belongs to no table, under its current name. `None` means that the relation of
/// the oid `made` is gone.
pub(super) async fn drop_alone(
    context: &mut ExecutionContext<'_>,
    step: &Step,
    made: u32,
) -> Result<Option<(LockNeed, [Step; 2])>, RunError> {
    let Some((_, name)) = context.names_now(&[made]).await?.pop() else { return Ok(None) };
    let Some((kind, _, was)) = step.about.as_ref().and_then(known) else { return Ok(None) };
    let condition = identity::still(kind, &name, made, was, made);
    let drop = Step { sql: step.sql.replacen(was, &name.quoted(), 1), ..step.clone() };
    // LOCK TABLE takes no sequence.
    let lock = LockNeed { lockable: kind == "table", ..LockNeed::alone(name, made, LockMode::AccessExclusive) };
    Ok(Some((lock, [Step::assertion(&condition, CHANGED), drop])))
}

/// Returns the locks on relations that still exist, with their current names, each beside its name in the plan.
async fn called_now(
    context: &mut ExecutionContext<'_>,
    locks: &[LockNeed],
) -> Result<Vec<(RelationName, LockNeed)>, RunError> {
    let oids: Vec<u32> = locks.iter().map(|lock| lock.oid).collect();
    let names = context.names_now(&oids).await?;
    let name = |lock: &LockNeed| names.iter().find(|(oid, _)| *oid == lock.oid).map(|(_, name)| name.clone());
    let now = |lock: &LockNeed| Some((lock.relation.clone(), LockNeed { relation: name(lock)?, ..lock.clone() }));
    Ok(locks.iter().filter_map(now).collect())
}

/// Returns for each step the oid or column number that the name of its object has now.
async fn there_now(context: &mut ExecutionContext<'_>, steps: &[Step]) -> Result<Vec<Option<u32>>, RunError> {
    let things: Vec<_> = steps.iter().map(|step| step.about.as_ref().and_then(known)).collect();
    let parameters = identity::parameters(things.iter().flatten().copied());
    let rows = context.surely(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
    let mut now = rows.iter().map(|row| row.get(1).and_then(|value| value.as_deref()?.parse().ok()));
    Ok(things.iter().map(|thing| thing.and_then(|_| now.next().flatten())).collect())
}
