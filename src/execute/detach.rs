//! DETACH PARTITION CONCURRENTLY, begun at a good moment and always brought to an end.
//!
//! In its second transaction the server queues for ACCESS EXCLUSIVE on the partition. So it begins when nobody is in the way
//! who has been there for long, and runs under a `lock_timeout`. Once its first transaction has committed, nothing takes
//! that back: whatever interrupts it then (that timeout, a cancel, the client's end), FINALIZE does the rest, tried as any
//! brief step is. It waits for every older snapshot of the database while it holds the partition; so tries are far apart.
//!
//! What it promises: when it is over, the partition is attached as before or detached. Otherwise (FINALIZE had no chance
//! for long, the server ended the session) a WARNING or the log tells how to finish it, and the next DETACH does.

use crate::catalog::naming;
use crate::execute::budget::AttemptMode;
use crate::execute::context::Context;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::{AttemptOutcome, Reply, RunError};
use crate::execute::state::RunState;
use crate::execute::timing::UNDO_PATIENCE;
use crate::execute::{attempt, undo, wait};
use crate::pg::{LockMode, sqlstate};
use crate::plan::{Detach, LockNeed, Phase, Undo};
use crate::report::Report;
use std::time::{Duration, Instant};

/// Is the partition `$1` of the table `$2` half detached? If so a row: the name, quoted, of the CHECK that came with that,
/// and its oid.
const HALF_WAY: &str = "SELECT k.name, k.oid FROM pg_catalog.pg_inherits i LEFT JOIN LATERAL ( \
      SELECT pg_catalog.quote_ident(k.conname), k.oid FROM pg_catalog.pg_constraint k \
      WHERE k.conrelid OPERATOR(pg_catalog.=) i.inhrelid AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c' \
        AND k.xmin::pg_catalog.text OPERATOR(pg_catalog.=) i.xmin::pg_catalog.text LIMIT 1) AS k(name, oid) ON true \
    WHERE i.inhrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
      AND i.inhparent OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.oid AND i.inhdetachpending";

/// Transactions that write from now on have this number or a later one.
const NOW: &str = "SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::pg_catalog.text";

/// The CHECKs of its own that the table `$1` has since transaction `$2`: as they are called, quoted, and their oids. Of a
/// transaction's number a row has the lower half, which goes round.
const NEW_CHECKS: &str = "SELECT k.conname, pg_catalog.quote_ident(k.conname), k.oid FROM pg_catalog.pg_constraint k \
    WHERE k.conrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
      AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c' AND k.convalidated AND k.conislocal \
      AND k.coninhcount OPERATOR(pg_catalog.=) 0 \
      AND ((k.xmin::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.-) $2::pg_catalog.text::pg_catalog.int8) \
           OPERATOR(pg_catalog.&) 4294967295::pg_catalog.int8) OPERATOR(pg_catalog.<) 2147483648::pg_catalog.int8";

/// A try to finish makes those wait who name the partition itself, for as long as `fallback_timeout`: so much longer they
/// have it to themselves.
const PAUSE: u32 = 10;

pub(super) async fn run(
    context: &mut Context<'_>,
    state: &mut RunState,
    phase: &Phase,
    what: &Detach,
    reply: &mut Reply,
) -> Result<(), RunError> {
    let mut waiting = wait::take_lanes(context, phase).await?;
    let result = detach_in_its_lane(context, state, phase, what, reply, &mut waiting).await;
    if !matches!(result, Err(RunError::Lost)) {
        waiting.release_lanes(context).await?;
    }
    result
}

async fn detach_in_its_lane(
    context: &mut Context<'_>,
    state: &mut RunState,
    phase: &Phase,
    what: &Detach,
    reply: &mut Reply,
    waiting: &mut LockWait,
) -> Result<(), RunError> {
    if is_half_way(context, state, what).await? {
        if phase.undo.is_some() {
            return Err(RunError::Report(begun_by_another(what)));
        }
        return finish_and_stop(context, state, phase, what, None, reply).await;
    }
    let users = Phase { locks: users(phase, what), ..phase.clone() };
    waiting.begin_anew();
    loop {
        let how = waiting.wait_for_old_transactions(context, &users).await?;
        let answer = context.channel_mut().ask_one(NOW, &[]).await?;
        let since = answer.value().unwrap_or_default().to_owned();
        context.cancelled_by(answer.error)?;
        let interrupted = match attempt::once_alone(context, state, phase, how, reply).await? {
            AttemptOutcome::Done => {
                state.note_detached(phase, what.partition.oid);
                return learn_copy(context, state, what, &since).await;
            }
            AttemptOutcome::Failed(stop) => Some(stop),
            AttemptOutcome::Locked | AttemptOutcome::Unlockable | AttemptOutcome::Slow => None,
        };
        // A cancel that has not struck yet is still to be heard.
        if interrupted.is_some() {
            context.channel().take_cancelled();
        }
        if is_half_way(context, state, what).await? {
            tracing::info!(partition = %what.partition.full_name(), "a partition is half detached: finishing that");
            return finish_and_stop(context, state, phase, what, interrupted, reply).await;
        }
        if let Some(stop) = interrupted {
            return Err(stop);
        }
        context.metrics().lock_attempts_failed.add();
    }
}

/// What came when it was too late ends the statement if it goes on behind this phase; else the statement is done.
async fn finish_and_stop(
    context: &mut Context<'_>,
    state: &mut RunState,
    phase: &Phase,
    what: &Detach,
    interrupted: Option<RunError>,
    reply: &mut Reply,
) -> Result<(), RunError> {
    match (finish(context, state, what, interrupted, reply).await?, &phase.undo) {
        (None, _) => state.note_detached(phase, what.partition.oid),
        (Some(stop), Some(Undo::Run(back))) => {
            undo::by_phase_or_warn(context, state, back).await?;
            return Err(stop);
        }
        (Some(_), _) => context.notify(&too_late(what)),
    }
    Ok(())
}

/// FINALIZE, until it is done. `interrupted`: by what; then it may not take long. Gives what has interrupted it.
async fn finish(
    context: &mut Context<'_>,
    state: &mut RunState,
    what: &Detach,
    mut interrupted: Option<RunError>,
    reply: &mut Reply,
) -> Result<Option<RunError>, RunError> {
    let begun = Instant::now();
    let mut limit = if interrupted.is_some() { UNDO_PATIENCE } else { context.wait_limit() };
    let mut told = false;
    loop {
        if interrupted.is_none()
            && let Some(stop) = context.interrupted()
        {
            (limit, interrupted) = (begun.elapsed() + UNDO_PATIENCE, Some(stop));
        }
        match attempt::once(context, state, &what.finish, AttemptMode::Poll, reply).await? {
            AttemptOutcome::Done => return Ok(interrupted),
            AttemptOutcome::Failed(stop) if is_cancel(&stop) => {
                context.channel().take_cancelled();
                if interrupted.is_none() {
                    (limit, interrupted) = (begun.elapsed() + UNDO_PATIENCE, Some(stop));
                }
            }
            // The hold budget: too many were waited for, one after another.
            AttemptOutcome::Failed(RunError::Report(_))
            | AttemptOutcome::Locked
            | AttemptOutcome::Unlockable
            | AttemptOutcome::Slow => {}
            AttemptOutcome::Failed(stop) => {
                undo::warn_left(context, state, &what.finish, &stop.reason());
                return Err(stop);
            }
        }
        if begun.elapsed() >= limit {
            undo::warn_left(
                context,
                state,
                &what.finish,
                "transactions that may have seen the partition are still under way",
            );
            return Err(interrupted.unwrap_or_else(|| RunError::Report(still_in_use(what, begun.elapsed()))));
        }
        if !told && context.config().ddl.notices {
            told = true;
            context.notify(&waits(what));
        }
        if let Some(error) = context.nap_to_undo(context.config().locks.poll * PAUSE).await?.error {
            context.channel().take_cancelled();
            if interrupted.is_none() {
                (limit, interrupted) = (begun.elapsed() + UNDO_PATIENCE, Some(RunError::Server(error)));
            }
        }
    }
}

/// Whether the first transaction has committed and the second has not. Then the CHECK's name is known.
async fn is_half_way(context: &mut Context<'_>, state: &mut RunState, what: &Detach) -> Result<bool, RunError> {
    let [partition, table] = [what.partition.oid, what.table].map(|oid| oid.to_string());
    let rows = context.surely(HALF_WAY, &[&partition, &table]).await?;
    let Some(row) = rows.into_iter().next() else { return Ok(false) };
    let mut row = row.into_iter();
    state.learned_at(what.slot, row.next().flatten());
    state.note_named(what.partition.oid, what.slot, row.next().flatten().as_deref());
    Ok(true)
}

/// The CHECK that the server made: a new one, with a name as it chooses them. Of two nobody can tell.
async fn learn_copy(
    context: &mut Context<'_>,
    state: &mut RunState,
    what: &Detach,
    since: &str,
) -> Result<(), RunError> {
    let rows = context.surely(NEW_CHECKS, &[&what.partition.oid.to_string(), since]).await?;
    let chosen = |row: &Vec<Option<String>>| {
        row.first().and_then(Option::as_deref).is_some_and(|name| naming::is_of_check(name, &what.partition.name))
    };
    let named = |row: Vec<Option<String>>| {
        let mut values = row.into_iter().skip(1);
        Some((values.next()??, values.next().flatten()))
    };
    let mut copies: Vec<_> = rows.into_iter().filter(chosen).filter_map(named).collect();
    if copies.len() > 1 {
        context.notify(&which_copy(what, copies.drain(..).map(|(name, _)| name)));
    }
    let (name, oid) = copies.pop().unzip();
    state.learned_at(what.slot, name);
    state.note_named(what.partition.oid, what.slot, oid.flatten().as_deref());
    Ok(())
}

/// All that may be in the way of either transaction: the first takes the locks, the second waits for the table's users.
fn users(phase: &Phase, what: &Detach) -> Vec<LockNeed> {
    let strongest = |lock: &LockNeed| match lock.oid == what.table {
        true => LockNeed { mode: LockMode::AccessExclusive, ..lock.clone() },
        false => lock.clone(),
    };
    phase.locks.iter().map(strongest).collect()
}

fn is_cancel(stop: &RunError) -> bool {
    match stop {
        RunError::Server(error) => error.sqlstate() == sqlstate::QUERY_CANCELED,
        RunError::ClientGone => true,
        RunError::Report(_) | RunError::Slow | RunError::Lost | RunError::Stale => false,
    }
}

fn too_late(what: &Detach) -> Report {
    let message = format!("partition {} has been detached nevertheless", what.partition.full_name());
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail("What ended the statement came when it could not be taken back any more, so it was finished.")
}

fn which_copy(what: &Detach, copies: impl Iterator<Item = String>) -> Report {
    let copies: Vec<String> = copies.collect();
    let message = format!("a CHECK is left on table {}", what.partition.full_name());
    Report::warning(sqlstate::WARNING, message)
        .detail("PostgreSQL made it in place of the bounds, but others were made at the same time.")
        .hint(format!("One of them can be dropped: {}.", copies.join(", ")))
}

/// What would be undone is not ours.
fn begun_by_another(what: &Detach) -> Report {
    let message = format!("partition {} has been half detached meanwhile", what.partition.full_name());
    Report::error(sqlstate::SERIALIZATION_FAILURE, message).hint("Try again.")
}

fn waits(what: &Detach) -> Report {
    let message = format!("waiting to finish the detach of partition {}", what.partition.full_name());
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail("Transactions that may have seen it as a partition are still under way.")
        .hint("Nobody else waits meanwhile. The partition is not part of its table any more.")
}

fn still_in_use(what: &Detach, waited: Duration) -> Report {
    let message = format!("partition {} is half detached", what.partition.full_name());
    let waited = crate::report::in_words(waited);
    Report::error(sqlstate::LOCK_NOT_AVAILABLE, message)
        .detail(format!("Waited {waited} for transactions that may have seen it as a partition."))
        .hint("Run the statement again when they have ended: it will be finished.")
}
