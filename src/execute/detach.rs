//! DETACH PARTITION CONCURRENTLY: it begins when no old transaction blocks it, and it is always finished.
//!
//! In its second transaction the server waits in its lock queue for ACCESS EXCLUSIVE on the partition. So the statement begins when no
//! blocker has been there for long, and it runs under a `lock_timeout`. When its first transaction has committed, it can no longer be
//! undone. If it is interrupted after that (by the timeout, a cancel, the end of the client), FINALIZE does the rest, in attempts like
//! those of any brief step. FINALIZE waits for every older snapshot of the database while it holds the partition, so its attempts are far
//! apart.
//!
//! This file owns the phase and its FINALIZE. It keeps true that the partition is attached as before or detached when the phase is over.
//! Otherwise (FINALIZE did not succeed for long, or the server ended the session) a WARNING or the log says how to finish the detach, and
//! the next DETACH finishes it.

use crate::catalog::naming;
use crate::execute::budget::AttemptMode;
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::{AttemptOutcome, Reply, RunError};
use crate::execute::state::RunState;
use crate::execute::timing::UNDO_PATIENCE;
use crate::execute::{attempt, undo, wait};
use crate::pg::{LockMode, sqlstate};
use crate::plan::{Detach, LockNeed, Phase, Undo};
use crate::report::Report;
use std::time::{Duration, Instant};

/// A query for whether the partition `$1` of the table `$2` is half detached. If so, it gives a row with the name, quoted, and the oid of
/// the CHECK that the detach has made.
const HALF_WAY: &str = "SELECT k.name, k.oid FROM pg_catalog.pg_inherits i LEFT JOIN LATERAL ( \
      SELECT pg_catalog.quote_ident(k.conname), k.oid FROM pg_catalog.pg_constraint k \
      WHERE k.conrelid OPERATOR(pg_catalog.=) i.inhrelid AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c' \
        AND k.xmin::pg_catalog.text OPERATOR(pg_catalog.=) i.xmin::pg_catalog.text LIMIT 1) AS k(name, oid) ON true \
    WHERE i.inhrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
      AND i.inhparent OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.oid AND i.inhdetachpending";

/// A query for the id that the next transaction that writes gets. Later ones get later ids.
const NOW: &str = "SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::pg_catalog.text";

/// A query for the CHECKs of its own that the table `$1` has got since the transaction `$2`: their names, plain and quoted, and their oids.
/// A row holds the lower half of a transaction's id, which wraps around.
const NEW_CHECKS: &str = "SELECT k.conname, pg_catalog.quote_ident(k.conname), k.oid FROM pg_catalog.pg_constraint k \
    WHERE k.conrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
      AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'c' AND k.convalidated AND k.conislocal \
      AND k.coninhcount OPERATOR(pg_catalog.=) 0 \
      AND ((k.xmin::pg_catalog.text::pg_catalog.int8 OPERATOR(pg_catalog.-) $2::pg_catalog.text::pg_catalog.int8) \
           OPERATOR(pg_catalog.&) 4294967295::pg_catalog.int8) OPERATOR(pg_catalog.<) 2147483648::pg_catalog.int8";

/// The pause between two attempts to finish, as a multiple of `poll`. An attempt blocks the sessions that name the partition itself for up
/// to `fallback_timeout`.
const PAUSE: u32 = 10;

/// Takes the lanes of the phase, detaches the partition, and gives the lanes back.
pub(super) async fn run(
    context: &mut ExecutionContext<'_>,
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

/// Detaches the partition, or finishes a detach that was begun before. The caller holds the lanes.
async fn detach_in_its_lane(
    context: &mut ExecutionContext<'_>,
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
        // Without an interruption the mark of a cancel stays, because that cancel has not taken effect yet.
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

/// Finishes a detach that is half done. If it was interrupted and the statement has later phases, the detach is undone and the statement
/// ends. If there are none, the statement is done.
async fn finish_and_stop(
    context: &mut ExecutionContext<'_>,
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

/// Tries FINALIZE until it is done. `interrupted` is what has interrupted the statement, after which FINALIZE may not take long. Returns
/// what has interrupted it.
async fn finish(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    what: &Detach,
    mut interrupted: Option<RunError>,
    reply: &mut Reply,
) -> Result<Option<RunError>, RunError> {
    let begun = Instant::now();
    let mut limit = if interrupted.is_some() { UNDO_PATIENCE } else { context.wait_limit() };
    let mut notified = false;
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
            // FINALIZE took longer than its hold budget, because it waited for several transactions, one after another.
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
        if !notified && context.config().ddl.notices {
            notified = true;
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

/// Whether the first transaction has committed and the second has not. If so, it notes the name of the CHECK.
async fn is_half_way(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    what: &Detach,
) -> Result<bool, RunError> {
    let [partition, table] = [what.partition.oid, what.table].map(|oid| oid.to_string());
    let rows = context.surely(HALF_WAY, &[&partition, &table]).await?;
    let Some(row) = rows.into_iter().next() else { return Ok(false) };
    let mut row = row.into_iter();
    state.learned_at(what.slot, row.next().flatten());
    state.note_named(what.partition.oid, what.slot, row.next().flatten().as_deref());
    Ok(true)
}

/// Notes the CHECK that the server has made: a new one, with a name of the kind that the server chooses. If there are several, it is not
/// known which one it is: a WARNING names all of them, and none is noted.
async fn learn_copy(
    context: &mut ExecutionContext<'_>,
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

/// Returns the locks that show all blockers of both transactions: the first takes the locks, the second waits for the users of the table.
fn users(phase: &Phase, what: &Detach) -> Vec<LockNeed> {
    let strongest = |lock: &LockNeed| match lock.oid == what.table {
        true => LockNeed { mode: LockMode::AccessExclusive, ..lock.clone() },
        false => lock.clone(),
    };
    phase.locks.iter().map(strongest).collect()
}

/// Whether a cancel or the end of the client has ended an attempt.
fn is_cancel(stop: &RunError) -> bool {
    match stop {
        RunError::Server(error) => error.sqlstate() == sqlstate::QUERY_CANCELED,
        RunError::ClientGone => true,
        RunError::Report(_) | RunError::Slow | RunError::Suspend(_) | RunError::Lost | RunError::Stale => false,
    }
}

/// Returns the NOTICE that an interrupt came too late to undo the detach.
fn too_late(what: &Detach) -> Report {
    let message = format!("partition {} has been detached nevertheless", what.partition.full_name());
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail("The statement was interrupted when the detach could no longer be undone, so the detach was finished.")
}

/// Returns the WARNING that the CHECK that the server has made cannot be told from others.
fn which_copy(what: &Detach, copies: impl Iterator<Item = String>) -> Report {
    let copies: Vec<String> = copies.collect();
    let message = format!("a CHECK is left on table {}", what.partition.full_name());
    Report::warning(sqlstate::WARNING, message)
        .detail("PostgreSQL has made a CHECK in place of the bounds, but other CHECKs were made at the same time.")
        .hint(format!("One of them can be dropped: {}.", copies.join(", ")))
}

/// Returns the error that another session has begun the detach. This statement must not undo it.
fn begun_by_another(what: &Detach) -> Report {
    let message = format!("partition {} has been half detached by another session", what.partition.full_name());
    Report::error(sqlstate::SERIALIZATION_FAILURE, message).hint("Try again.")
}

/// Returns the NOTICE of a wait for FINALIZE.
fn waits(what: &Detach) -> Report {
    let message = format!("waiting to finish the detach of partition {}", what.partition.full_name());
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail("Transactions that may have seen the table as a partition are still under way.")
        .hint("Nobody else waits meanwhile. The partition is not part of its table any more.")
}

/// Returns the error that FINALIZE did not succeed within the limit.
fn still_in_use(what: &Detach, waited: Duration) -> Report {
    let message = format!("partition {} is half detached", what.partition.full_name());
    let waited = crate::report::in_words(waited);
    Report::error(sqlstate::LOCK_NOT_AVAILABLE, message)
        .detail(format!("Waited {waited} for transactions that may have seen the table as a partition."))
        .hint("Run the statement again when these transactions have ended: it finishes the detach.")
}
