//! Following a record: the same statement goes on where a dead session was, or another one undoes what that has left.
//!
//! It promises: nobody follows a record whose session is alive; what has changed meanwhile, so that it would not come to what it was to be, is
//! found and told first.

use super::trust::{followed, kept_off, not_followed};
use crate::catalog::identity::BUILT_SQL;
use crate::catalog::{BackfillFacts, backfill};
use crate::execute::context::Context;
use crate::execute::objects::known;
use crate::execute::outcome::{RunError, UndoneAfter};
use crate::execute::record::{Record, RecordKey, table};
use crate::execute::state::RunState;
use crate::execute::undo;
use crate::lanes::nap_sql;
use crate::pg::relation::quote_identifier;
use crate::pg::sqlstate;
use crate::plan::{ObjectKind, Phase, Plan, Undo};
use crate::report::{Report, in_words};
use std::time::{Duration, Instant};

const FIRST_NOTICE: Duration = Duration::from_millis(250);
const NAP: Duration = Duration::from_millis(100);

/// The record that a statement would follow; its lock may be another's.
///
/// # Errors
/// It is cancelled, or the backend is gone.
pub async fn on_record(context: &mut Context<'_>, oid: u32, statement: &str) -> Result<Option<Record>, RunError> {
    let (_, found) = table::look_at_record(context, oid, false).await?;
    Ok(found.and_then(|found| followed(found, statement)).map(|(record, _)| record))
}

/// The record of a table, whatever statement it is of; its lock may be another's.
///
/// # Errors
/// It is cancelled, or the backend is gone.
pub async fn any_record(context: &mut Context<'_>, oid: u32) -> Result<Option<Record>, RunError> {
    let (_, found) = table::look_at_record(context, oid, false).await?;
    Ok(found.and_then(|found| Record::from_text(found.text.as_deref()?)))
}

/// What the same statement has left unfinished on this table. While another session is at work on it, this one waits.
///
/// # Errors
/// It has waited too long, it is cancelled, or the backend is gone.
pub async fn unfinished(context: &mut Context<'_>, oid: u32, statement: &str) -> Result<UnfinishedChange, RunError> {
    let (begun, limit) = (Instant::now(), context.wait_limit());
    let (mut told, mut waited) = (false, false);
    loop {
        let (_, found) = table::look_at_record(context, oid, false).await?;
        if let Some(report) = found.as_ref().and_then(|found| not_followed(found, statement)) {
            context.notify(&report);
        }
        let Some(holder) = found.and_then(|found| followed(found, statement).map(|(_, found)| found.holder)) else {
            return Ok(if waited { UnfinishedChange::Over } else { UnfinishedChange::Nothing });
        };
        let (locked, found) = table::look_at_record(context, oid, true).await?;
        if locked {
            let Some((record, found)) = found.and_then(|found| followed(found, statement)) else {
                table::release_record(context, oid).await?;
                return Ok(UnfinishedChange::Over);
            };
            return Ok(UnfinishedChange::Here(Box::new(record), found.quiet));
        }
        // Who has it is told once more: it may have been given back, or taken, just now.
        if holder.is_none()
            && let Some((record, _)) =
                found.filter(|found| found.holder.is_none()).and_then(|found| followed(found, statement))
        {
            context.notify(&kept_off(&record));
            return Ok(UnfinishedChange::Nothing);
        }
        waited = true;
        if let Some(stop) = context.interrupted() {
            return Err(stop);
        }
        let who = holder.map_or_else(|| "Another session".to_owned(), |pid| format!("The session of pid {pid}"));
        let detail = format!("{who} is still at work on it.");
        if begun.elapsed() >= limit {
            let waited = format!("Waited {} to continue this statement. {detail}", in_words(begun.elapsed()));
            let report = Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout");
            return Err(RunError::Report(report.detail(waited)));
        }
        if begun.elapsed() >= FIRST_NOTICE && !std::mem::replace(&mut told, true) && context.config().ddl.notices {
            let message = "waiting to continue what this statement has begun in another session";
            context.notify(&Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail));
        }
        let answer = context.channel_mut().ask_one(&nap_sql(NAP, "waiting to continue a schema change"), &[]).await?;
        context.cancelled_by(answer.error)?;
    }
}

/// Whether what is on record is still there to be continued, as the plan is told that has been made anew; if not, its
/// lock is given back.
///
/// # Errors
/// The backend is gone, or what is there could not be asked.
pub async fn can_resume(
    context: &mut Context<'_>,
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
    let message = format!("what this statement had begun at {} cannot be continued: {reason}", record.since);
    let made = record.things.iter().filter_map(|(thing, _)| known(thing));
    let made: Vec<String> = made.map(|(kind, _, name)| format!("{kind} {}", quote_identifier(name))).collect();
    let hint = format!("Drop what it has made, and run it again: {}.", made.join(", "));
    tracing::warn!("{message}");
    context.notify(&Report::warning(sqlstate::WARNING, message).hint(hint));
    Ok(false)
}

/// Why it would not come to what it was to be; else the plan learns of what has come meanwhile and is in nobody's way.
async fn changed_meanwhile(
    context: &mut Context<'_>,
    record: &Record,
    oid: u32,
    plan: &mut Plan,
) -> Result<Option<String>, RunError> {
    if table::objects_now(context, record, |kind| kind == ObjectKind::Column).await?.contains(&false) {
        return Ok(Some("its columns have been dropped or renamed".to_owned()));
    }
    if table::objects_now(context, record, |kind| kind == ObjectKind::Constraint).await?.contains(&false) {
        return Ok(Some("its constraints have been dropped or renamed".to_owned()));
    }
    // Another's index that is invalid, since its build failed or is under way, is none that this statement has left.
    let tables = context.facts().relations.iter().filter_map(|asked| asked.found.as_ref());
    let invalid: Vec<_> = tables.flat_map(|table| &table.indexes).filter(|index| !index.valid).collect();
    for phase in &mut plan.phases {
        if let Some(Undo::DropBuiltIndex { known, index: own, .. }) = &mut phase.undo {
            known.extend(invalid.iter().filter(|index| index.id.name != own.name).map(|index| index.id.oid));
        }
    }
    let to_fill = plan.phases.iter_mut().skip(record.next).find_map(|phase| phase.backfill.as_mut());
    let Some(to_fill) = to_fill else { return Ok(None) };
    // Old rows get the default of now.
    if table::objects_now(context, record, |kind| kind == ObjectKind::Default).await?.contains(&false) {
        return Ok(Some("the default of its columns has been changed".to_owned()));
    }
    let question = backfill::question(context.facts().session.server_version);
    let answer =
        context.channel_mut().question(&question, &[&oid.to_string()]).await?.ok().map_err(RunError::Server)?;
    let now = answer.value().and_then(|json| serde_json::from_str::<BackfillFacts>(&context.channel().text(json)).ok());
    let Some(now) = now else { return Ok(Some("it cannot be told what an UPDATE would meet now".to_owned())) };
    to_fill.quiet |= now.quiet;
    if now.watched && !to_fill.watched {
        return Ok(Some("some of its rows belong to another role now".to_owned()));
    }
    // Constraints that are not valid yet may be its own; what breaks them fails by itself.
    let obstacle = now.obstacle.filter(|obstacle| !obstacle.starts_with("its constraint "));
    Ok(obstacle.map(|obstacle| format!("old rows cannot be filled any more, because {obstacle}")))
}

/// The phase that a dead session was in may have left its index half built, which is dropped, or have built it: then it is done.
/// The index had not been there when the plan was made.
pub(in crate::execute) async fn finish_interrupted_build(
    context: &mut Context<'_>,
    state: &mut RunState,
    at: usize,
    phase: &Phase,
) -> Result<bool, RunError> {
    if let Some(Undo::DropBuiltIndex { index, oid, .. }) = &phase.undo {
        let rows = context.surely(BUILT_SQL, &[&oid.to_string(), &index.name]).await?;
        let wants_unique = phase.steps.iter().any(|step| step.sql.starts_with("CREATE UNIQUE "));
        let found = rows.first().and_then(|row| valid_index(row));
        if let Some((built, unique)) = found.filter(|(_, unique)| *unique == wants_unique) {
            // A unique one of this name can only be ours: the name was chosen because it was free. Of another it is not certain, so it is
            // used if it fits, which the server says, and never dropped.
            state.note_built(at, if unique { built } else { NOBODYS });
            return Ok(true);
        }
    }
    undo::undo_phase(context, state, phase, UndoneAfter::Failed).await?;
    Ok(false)
}

/// Takes what a lost session has left, if nobody continues it meanwhile, to undo it. The lock is ours then.
pub(in crate::execute) async fn take_own_record(
    context: &mut Context<'_>,
    job: &RecordKey,
) -> Result<TakeRecordOutcome, RunError> {
    let (locked, found) = table::look_at_record(context, job.table, true).await?;
    if !locked {
        return Ok(TakeRecordOutcome::Busy);
    }
    let quiet = found.as_ref().is_some_and(|found| found.quiet);
    let record = found.and_then(|found| Record::from_text(&found.text?));
    if record.is_some_and(|record| record.job == job.id) {
        return Ok(TakeRecordOutcome::Ours { quiet });
    }
    table::release_record(context, job.table).await?;
    Ok(TakeRecordOutcome::Gone)
}

/// Its end: undone or not.
pub(in crate::execute) async fn end_own_record(
    context: &mut Context<'_>,
    job: &RecordKey,
    quiet: bool,
    undone: bool,
) -> Result<(), RunError> {
    if undone {
        table::forget(context, job.table, quiet).await?;
    }
    table::release_record(context, job.table).await
}

/// The oid of no index.
const NOBODYS: u32 = 0;

/// A row of [`BUILT_SQL`].
fn valid_index(row: &[Option<String>]) -> Option<(u32, bool)> {
    Some((row.first()?.as_deref()?.parse().ok()?, row.get(1)?.as_deref()? == "t"))
}

/// What there is to continue.
#[derive(Debug)]
pub enum UnfinishedChange {
    Nothing,
    /// Another session has come to its end with it meanwhile.
    Over,
    /// With its lock; and whether it is written quietly.
    Here(Box<Record>, bool),
}

/// What became of a lost session's record.
pub(in crate::execute) enum TakeRecordOutcome {
    Ours {
        quiet: bool,
    },
    /// Somebody is at work on it.
    Busy,
    /// Somebody has finished or undone it.
    Gone,
}
