//! The texts about a wait: which lock is waited for, which sessions block it, and why a wait was given up.

use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::lanes::{Blocker, View};
use crate::pg::{LockMode, sqlstate};
use crate::plan::{LockNeed, Phase};
use crate::report::{Report, in_words};

/// The reason why a statement in a transaction block gives up early.
const IN_TRANSACTION: &str = " The transaction holds a lock that blocks other sessions, and they wait for as long \
    as this statement waits: it fails after in_transaction_wait ([locks] in proxy.toml).";

/// Returns the error of a wait that reached its limit.
pub(super) fn gave_up(context: &ExecutionContext<'_>, phase: &Phase, waiting: &LockWait) -> Report {
    let session = &context.facts().session;
    let ms = u64::try_from(waiting.limit().as_millis()).unwrap_or(u64::MAX);
    if ms == session.statement_timeout_ms {
        return Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout")
            .detail(who_was(phase, waiting.last()));
    }
    let why = match waiting.limit() < context.config().locks.deadline && ms != session.lock_timeout_ms {
        true => IN_TRANSACTION,
        false => "",
    };
    let report =
        Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout").detail(format!(
            "Waited {} {}. {}{why}",
            in_words(waiting.waited()),
            waiting_for_lock(&phase.locks),
            who_was(phase, waiting.last())
        ));
    if ms == session.lock_timeout_ms {
        return report;
    }
    if !why.is_empty() {
        return report.hint("Roll back and try again, or run this statement first or in a transaction of its own.");
    }
    report.hint("Try again when the blocker has ended, end the blocker, or raise deadline in [locks] of proxy.toml.")
}

/// Returns the error of a wait for a session that waits for this transaction.
pub(super) fn deadlock(phase: &Phase, waiting: &LockWait) -> Report {
    Report::error(sqlstate::DEADLOCK_DETECTED, "deadlock detected").detail(format!(
        "This transaction waits {}, and the session that blocks it waits for this transaction. {}",
        waiting_for_lock(&phase.locks),
        in_the_way(waiting.last())
    ))
}

/// Returns the locks in words, such as `for ACCESS EXCLUSIVE on public.orders`.
pub(super) fn waiting_for_lock(locks: &[LockNeed]) -> String {
    let names: Vec<String> = locks.iter().map(|lock| format!("{} on {}", lock.mode, lock.relation)).collect();
    if names.is_empty() { "for its locks".to_owned() } else { format!("for {}", names.join(" and ")) }
}

/// Returns the text of a nap's comment: the locks, and the first blocker or the session ahead in the lane.
pub(super) fn waiting_for(phase: &Phase, view: &View) -> String {
    let mut text = format!("waiting {}", waiting_for_lock(&phase.locks));
    if let Some(blocker) = view.blockers.first() {
        text.push_str(&format!(", blocked by {blocker}"));
    } else if let Some(pid) = view.lane_holder {
        text.push_str(&format!(", behind the DDL of pid {pid}"));
    }
    text
}

/// Returns the lock mode as SQL writes it.
fn mode(blocker: &Blocker) -> &str {
    match LockMode::from_pg_locks(&blocker.mode) {
        Some(mode) => mode.sql(),
        None => &blocker.mode,
    }
}

/// Returns which sessions blocked the statement to the end. Locks on rows are not visible in `pg_locks`.
fn who_was(phase: &Phase, view: &View) -> String {
    if phase.backfill.is_some() && view.blockers.is_empty() && view.lane_holder.is_none() {
        return "Other sessions have kept rows of the table locked, perhaps the oldest open transactions.".to_owned();
    }
    if phase.locks.is_empty() && view.blockers.is_empty() {
        return "It is not known which sessions hold conflicting locks.".to_owned();
    }
    in_the_way(view)
}

/// Returns a sentence about the sessions that block the statement.
pub(super) fn in_the_way(view: &View) -> String {
    if view.blockers.is_empty() {
        return match view.lane_holder {
            Some(pid) => format!("Another schema change on the relation is under way or ahead in its lane: pid {pid}."),
            None => "The sessions that hold the lock change from moment to moment.".to_owned(),
        };
    }
    let named: Vec<String> =
        view.blockers.iter().take(5).map(|b| format!("{b}, which holds {} on {}", mode(b), b.relation)).collect();
    let more = view.blockers.len().saturating_sub(named.len());
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("Blocked by {}{rest}.", named.join("; "))
}
