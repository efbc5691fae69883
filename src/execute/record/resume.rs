//! How a session follows a record: the same statement continues the plan of a session that is gone, or another statement undoes it.
//!
//! This file owns the checks before a record is followed. It keeps true that no session follows a record whose session is alive, and that a
//! change that would give the plan another result is found and reported first.

use super::trust::{followed, kept_off, not_followed};
use super::wait::RecordWait;
use crate::catalog::identity::BUILT_SQL;
use crate::catalog::{BackfillFacts, backfill};
use crate::execute::built_index::{self, NOBODYS};
use crate::execute::context::ExecutionContext;
use crate::execute::objects::known;
use crate::execute::outcome::{RunError, UndoneAfter};
use crate::execute::record::{Record, RecordKey, table};
use crate::execute::state::RunState;
use crate::execute::undo;
use crate::pg::relation::quote_identifier;
use crate::pg::sqlstate;
use crate::plan::{CreatedObject, ObjectKind, Phase, Plan, Undo};
use crate::report::Report;

/// Returns the record that a statement would follow. Another session may hold its lock.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn on_record(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    statement: &str,
) -> Result<Option<Record>, RunError> {
    let (_, found) = table::look_at_record(context, oid, false).await?;
    Ok(found.and_then(|found| followed(found, statement, &[])).map(|(record, _)| record))
}

/// Whether a table has the record of a statement that was done ahead of a block, and the session of the block is gone. `own`: the runs ahead
/// of this session's block. This session may have taken over a part of the records already.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn is_left_ahead(context: &mut ExecutionContext<'_>, oid: u32, own: &[RecordKey]) -> Result<bool, RunError> {
    let (_, found) = table::look_at_record(context, oid, false).await?;
    let me = context.facts().session.backend_pid;
    let left = found.filter(|found| found.trusted && found.may && found.holder.is_none_or(|holder| holder == me));
    let record = left.and_then(|found| Record::from_text(&found.text?));
    Ok(record.is_some_and(|record| record.is_ahead() && !record.is_one_of(own)))
}

/// Returns the record of a table, of any statement. Another session may hold its lock. The records of this session's own block do not
/// count.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn any_record(context: &mut ExecutionContext<'_>, oid: u32) -> Result<Option<Record>, RunError> {
    let (_, found) = table::look_at_record(context, oid, false).await?;
    let own = Some(context.facts().session.backend_pid);
    Ok(found.filter(|found| found.holder != own).and_then(|found| Record::from_text(found.text.as_deref()?)))
}

/// Returns what the same statement has left unfinished on this table. While another session runs the plan, this one waits. `own`: the runs
/// ahead of this session's block.
///
/// # Errors
/// The wait reached its limit or was cancelled, or the backend is lost.
pub async fn unfinished(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    statement: &str,
    own: &[RecordKey],
) -> Result<UnfinishedChange, RunError> {
    let (mut wait, mut waited) = (RecordWait::new(context), false);
    loop {
        let (_, found) = table::look_at_record(context, oid, false).await?;
        if let Some(report) = found.as_ref().and_then(|found| not_followed(found, statement)) {
            context.notify(&report);
        }
        let Some((record, found)) = found.and_then(|found| followed(found, statement, own)) else {
            return Ok(if waited { UnfinishedChange::Over } else { UnfinishedChange::Nothing });
        };
        let holder = found.holder;
        // This session has taken over an earlier statement of the same lost block. Each statement takes the lock once more.
        if holder == Some(context.facts().session.backend_pid) {
            table::lock_again(context, oid).await?;
            return Ok(UnfinishedChange::Here(Box::new(record), found.quiet));
        }
        let (locked, found) = table::look_at_record(context, oid, true).await?;
        if locked {
            let Some((record, found)) = found.and_then(|found| followed(found, statement, own)) else {
                table::release_record(context, oid).await?;
                return Ok(UnfinishedChange::Over);
            };
            return Ok(UnfinishedChange::Here(Box::new(record), found.quiet));
        }
        // The second look names the holder again, because the lock may have been given back or taken in between.
        if holder.is_none()
            && let Some((record, _)) =
                found.filter(|found| found.holder.is_none()).and_then(|found| followed(found, statement, own))
        {
            context.notify(&kept_off(&record));
            return Ok(UnfinishedChange::Nothing);
        }
        waited = true;
        wait.nap(context, holder).await?;
    }
}

/// Whether the recorded plan can still be continued. `plan` is the plan as it was made again; it learns of invalid indexes that have been
/// added since. If it cannot be continued, a WARNING gives the reason, and the lock is given back.
///
/// # Errors
/// The backend is lost, or a question failed.
pub async fn can_resume(
    context: &mut ExecutionContext<'_>,
    record: &Record,
    oid: u32,
    same: Result<(), &'static str>,
    plan: &mut Plan,
) -> Result<bool, RunError> {
    let changed = match same {
        Err(reason) => Ok(Some(reason.to_owned())),
        Ok(()) => changed_meanwhile(context, record, oid, plan).await,
    };
    let reason = match changed {
        Ok(None) => return Ok(true),
        Ok(Some(reason)) => reason,
        Err(RunError::Lost) => return Err(RunError::Lost),
        Err(stop) => {
            table::release_record(context, oid).await?;
            return Err(stop);
        }
    };
    table::release_record(context, oid).await?;
    let message = format!("cannot continue this statement as begun at {}: {reason}", record.since);
    let made = record.things.iter().filter_map(|(thing, _)| known(thing));
    let made: Vec<String> = made.map(|(kind, _, name)| format!("{kind} {}", quote_identifier(name))).collect();
    let hint = format!("Drop the objects that it has made, then run it again: {}.", made.join(", "));
    tracing::warn!("{message}");
    context.notify(&Report::warning(sqlstate::WARNING, message).hint(hint));
    Ok(false)
}

/// Returns why a plan that is under way, and was held without its lanes, would no longer have the same result. Without a record the plan has kept its
/// lanes.
pub(in crate::execute) async fn has_changed(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    plan: &Plan,
) -> Result<Option<String>, RunError> {
    let Some((record, oid)) = state.record().current() else { return Ok(None) };
    let (record, mut now) = (record.clone(), plan.clone());
    if let Some(reason) = changed_meanwhile(context, &record, oid, &mut now).await? {
        return Ok(Some(reason));
    }
    let fills_as_before = plan.phases.iter().zip(&now.phases).skip(record.next).all(|(before, now)| {
        let quiet = |phase: &Phase| phase.backfill.as_ref().map(|backfill| backfill.quiet);
        quiet(before) == quiet(now)
    });
    Ok((!fills_as_before).then(|| "an UPDATE of its rows would fire a trigger now".to_owned()))
}

/// Returns why the plan would no longer have the same result. If it would, the plan learns of invalid indexes that have been added since
/// and do not matter.
async fn changed_meanwhile(
    context: &mut ExecutionContext<'_>,
    record: &Record,
    oid: u32,
    plan: &mut Plan,
) -> Result<Option<String>, RunError> {
    let is = |wanted: ObjectKind| move |thing: &CreatedObject| thing.kind == wanted;
    if table::objects_now(context, record, is(ObjectKind::Column)).await?.contains(&false) {
        return Ok(Some("its columns have been dropped or renamed".to_owned()));
    }
    // A phase that is done may have dropped a constraint that only proved something.
    let dropped: Vec<CreatedObject> = dropped_by(&plan.phases[..record.next.min(plan.phases.len())]).cloned().collect();
    let stays = |thing: &CreatedObject| thing.kind == ObjectKind::Constraint && !dropped.contains(thing);
    if table::objects_now(context, record, stays).await?.contains(&false) {
        return Ok(Some("its constraints have been dropped or renamed".to_owned()));
    }
    // An invalid index of another name, whose build has failed or is under way, was not left by this statement.
    let tables = context.facts().relations.iter().filter_map(|asked| asked.found.as_ref());
    let invalid: Vec<_> = tables.flat_map(|table| &table.indexes).filter(|index| !index.valid).collect();
    for phase in &mut plan.phases {
        if let Some(Undo::DropBuiltIndex { known, index: own, .. }) = &mut phase.undo {
            known.extend(invalid.iter().filter(|index| index.id.name != own.name).map(|index| index.id.oid));
        }
    }
    let to_fill = plan.phases.iter_mut().skip(record.next).find_map(|phase| phase.backfill.as_mut());
    let Some(to_fill) = to_fill else { return Ok(None) };
    // Old rows get the current default.
    if table::objects_now(context, record, is(ObjectKind::Default)).await?.contains(&false) {
        return Ok(Some("the default of its columns has been changed".to_owned()));
    }
    let question = backfill::question(context.facts().session.server_version);
    let answer =
        context.channel_mut().question(&question, &[&oid.to_string()]).await?.ok().map_err(RunError::Server)?;
    let now = answer.value().and_then(|json| serde_json::from_str::<BackfillFacts>(&context.channel().text(json)).ok());
    let Some(now) = now else {
        return Ok(Some("it is not known which triggers or constraints an UPDATE would meet now".to_owned()));
    };
    to_fill.quiet |= now.quiet;
    if now.watched && !to_fill.watched {
        return Ok(Some("some of its rows belong to another role now".to_owned()));
    }
    // A constraint that is not valid yet may be the plan's own. A row that violates it raises an error anyway.
    let obstacle = now.obstacle.filter(|obstacle| !obstacle.starts_with("its constraint "));
    Ok(obstacle.map(|obstacle| format!("old rows cannot be filled any more, because {obstacle}")))
}

/// Returns the constraints that phases drop, and not only their undo.
fn dropped_by(phases: &[Phase]) -> impl Iterator<Item = &CreatedObject> {
    let steps = phases.iter().flat_map(|phase| &phase.steps);
    steps.filter(|step| step.sql.contains(" DROP CONSTRAINT ")).filter_map(|step| step.about.as_ref())
}

/// Finishes the build of a session that is gone. If the index is valid, the phase is done, and the result is true. If it is half built, it
/// is dropped. The index did not exist when the plan was made.
pub(in crate::execute) async fn finish_interrupted_build(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    at: usize,
    phase: &Phase,
) -> Result<bool, RunError> {
    if let Some(built) = built_index::of_lost_session(context, phase).await? {
        state.note_built(at, built);
        return Ok(true);
    }
    if let Some(Undo::DropBuiltIndex { index, oid, .. }) = &phase.undo {
        let rows = context.surely(BUILT_SQL, &[&oid.to_string(), &index.name]).await?;
        let wants_unique = phase.steps.iter().any(|step| builds_unique(&step.sql));
        let found = rows.first().and_then(|row| valid_index(row));
        if let Some((built, unique)) = found.filter(|(_, unique)| *unique == wants_unique) {
            // A unique index of this name is the plan's own, because the name was chosen as a free one. For an index that is not unique
            // this is not certain: the plan uses it if the server accepts it, and never drops it. A plan ahead of a block had no such index
            // either when it began, and must not leave its own behind.
            let own = unique || state.record().is_of_ahead();
            state.note_built(at, if own { built } else { NOBODYS });
            return Ok(true);
        }
    }
    undo::undo_phase(context, state, phase, UndoneAfter::Failed).await?;
    Ok(false)
}

/// Takes over the record of a lost session to undo its plan, unless another session has continued the plan. This session then holds the
/// record's lock.
pub(in crate::execute) async fn take_own_record(
    context: &mut ExecutionContext<'_>,
    job: &RecordKey,
) -> Result<TakeRecordOutcome, RunError> {
    let (locked, found) = table::look_at_record(context, job.table, true).await?;
    if !locked {
        return Ok(TakeRecordOutcome::Busy);
    }
    let quiet = found.as_ref().is_some_and(|found| found.quiet);
    let record = found.and_then(|found| Record::from_text(&found.text?));
    if record.is_some_and(|record| record.has(&job.id)) {
        return Ok(TakeRecordOutcome::Ours { quiet });
    }
    table::release_record(context, job.table).await?;
    Ok(TakeRecordOutcome::Gone)
}

/// Ends the work on a record that was taken over: removes it if the plan is undone, and gives its lock back.
pub(in crate::execute) async fn end_own_record(
    context: &mut ExecutionContext<'_>,
    job: &RecordKey,
    quiet: bool,
    undone: bool,
) -> Result<(), RunError> {
    if undone {
        table::forget_run(context, job.table, quiet, &job.id).await?;
    }
    table::release_record(context, job.table).await
}

/// Whether CREATE INDEX, in the words of its author or of the proxy, builds a unique index.
fn builds_unique(sql: &str) -> bool {
    let words = sql.split_ascii_whitespace().take_while(|word| !word.eq_ignore_ascii_case("index"));
    words.last().is_some_and(|word| word.eq_ignore_ascii_case("unique"))
}

/// Reads a row of [`BUILT_SQL`].
fn valid_index(row: &[Option<String>]) -> Option<(u32, bool)> {
    Some((row.first()?.as_deref()?.parse().ok()?, row.get(1)?.as_deref()? == "t"))
}

/// The unfinished schema change of a statement.
#[derive(Debug)]
pub enum UnfinishedChange {
    /// There is nothing to continue.
    Nothing,
    /// Another session has completed the change meanwhile.
    Over,
    /// The record, whose lock this session holds, and whether it is written under `session_replication_role = replica`.
    Here(Box<Record>, bool),
}

/// The state of a lost session's record.
pub(in crate::execute) enum TakeRecordOutcome {
    Ours {
        quiet: bool,
    },
    /// Another session is running the plan.
    Busy,
    /// Another session has completed or undone the plan.
    Gone,
}
