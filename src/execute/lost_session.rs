//! The undo of a plan whose session is lost, or that could not be undone at once: it is kept, and another session of the same role runs it.
//!
//! The undo would have run on the backend that is lost. So the undo is kept in memory, with the identity of each object
//! (`catalog/identity.rs`), and runs before the next schema change of the same role in the same database.
//!
//! This file owns the making and the running of such an undo. It keeps true that only objects are undone that are still those that the plan
//! made; that nothing is undone if the last phase has committed, whether or not the client got its answer; and that nothing is undone if it
//! cannot be told whether the last phase has committed. Then the log says which objects may be left.
//!
//! Limits: a pending undo is lost when the proxy ends. An index whose build was lost is identified by its table, its name and its
//! invalidity, because the server gives its oid only when a build is over.

use crate::catalog::identity::{self, IDENTITY_SQL, INDEX_SQL, TRANSACTION_SQL, VALID_SQL};
use crate::execute::context::ExecutionContext;
use crate::execute::invalid;
use crate::execute::objects::{known, made};
use crate::execute::outcome::{RunError, UndoOutcome, UndoneAfter};
use crate::execute::pending_undo::{Completed, PendingReason, PendingUndo, UndoItem};
use crate::execute::record::resume::{self, TakeRecordOutcome};
use crate::execute::state::RunState;
use crate::execute::unchanged;
use crate::execute::undo::{self, Undoer};
use crate::pg::sqlstate;
use crate::plan::{Detach, ObjectKind, Phase, PhaseKind, Plan, Step, Undo};
use crate::report::Report;

/// The result of running a pending undo.
#[derive(Debug)]
pub enum UndoResult {
    /// Nothing had to be undone, or the plan had completed, or the undo has failed for good, which a WARNING reports.
    Nothing,
    /// The undo has run these statements.
    Undone(Vec<String>),
    /// The undo is not possible now.
    Later,
}

/// Undoes the first `stopped` phases of a plan, from the last to the first. Returns false if the backend is lost. What could not be undone
/// is kept for another session.
pub(super) async fn undo_phases(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    plan: &Plan,
    stopped: usize,
) -> bool {
    for at in (0..stopped).rev() {
        match undo::undo_phase(context, state, &plan.phases[at], UndoneAfter::Done(at)).await {
            Ok(UndoOutcome::Undone | UndoOutcome::Reported) => {}
            // A blocker of this undo would block the undo of the other phases too.
            Ok(UndoOutcome::NotNow(reason)) if leave_for_later(context, state, plan, at, &reason).await => break,
            Ok(UndoOutcome::NotNow(reason)) => undo::warn_not_undone(context, state, &plan.phases[at], &reason),
            Err(_) => {
                keep_pending_undo(context, state, plan, at, true);
                return false;
            }
        }
    }
    true
}

/// Returns the undo of a complete plan that was run ahead of a block whose backend is lost. The record tells whether the block has committed.
/// Without a record the log says what may have to be undone.
pub(super) fn left_ahead(state: &RunState, plan: &Plan) -> Option<PendingUndo> {
    let left: Vec<UndoItem> =
        (0..plan.phases.len()).rev().filter_map(|at| state.undo_item_of(plan, at, true)).collect();
    if left.is_empty() {
        return None;
    }
    let pending = PendingUndo::new(&plan.tag, PendingReason::Lost, Completed::No, left, state.record().kept_key());
    if pending.key().is_some() {
        return Some(pending);
    }
    let remedy = pending.remedy();
    tracing::warn!(
        remedy,
        "a session with a schema change ahead of its transaction has ended: look whether the transaction has committed, and if not, undo the change by hand"
    );
    None
}

/// Keeps the undo of a plan whose backend is lost. `stopped` is the phase that was under way or, if the plan was `undoing`, the phase that
/// was to be undone next.
pub(super) fn keep_pending_undo(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    plan: &Plan,
    stopped: usize,
    undoing: bool,
) {
    let Some(under_way) = plan.phases.get(stopped) else { return };
    if let Some(detach) = under_way.detach.as_ref().filter(|_| !undoing) {
        log_half_way(detach);
    }
    if !state.notes_created() {
        return;
    }
    if !undoing && under_way.in_transaction && matches!(under_way.kind, PhaseKind::Brief | PhaseKind::Guarded) {
        state.forget_transaction();
        let rows = context.channel_mut().take_rows_before_loss();
        state.learn_names(under_way, rows);
    }
    let left: Vec<UndoItem> =
        (0..=stopped).rev().filter_map(|at| state.undo_item_of(plan, at, at < stopped || undoing)).collect();
    // A block that the plan was run ahead of has not begun yet.
    let completed = match stopped + 1 == plan.phases.len() && !undoing && !state.record().is_ahead() {
        true => completed(context, state, under_way),
        false => Some(Completed::No),
    };
    // An object that nothing distinguishes from another of its name is left to people.
    let known_things = |phase: &Phase| made(phase).any(|thing| state.identity(thing).is_some());
    for phase in plan.phases[..stopped].iter().filter(|phase| !known_things(phase)) {
        state.log_left(phase);
    }
    if left.is_empty() {
        return;
    }
    let known = completed.is_some();
    let completed = completed.unwrap_or(Completed::No);
    let pending = PendingUndo::new(&plan.tag, PendingReason::Lost, completed, left, state.record().key());
    let remedy = pending.remedy();
    if known {
        tracing::warn!(
            remedy,
            "the session of a schema change has ended; its phases are undone before the next schema change of its role"
        );
        state.set_pending_undo(pending);
    } else {
        tracing::warn!(
            remedy,
            "the session of a schema change has ended, perhaps after its last phase: look, and if the change is incomplete, undo it by hand"
        );
    }
}

/// Keeps the undo of the phases up to this one for the next schema change of the role, because the present blockers will end. Returns false
/// if nothing distinguishes the objects from others of their names.
pub(super) async fn leave_for_later(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    plan: &Plan,
    at: usize,
    reason: &str,
) -> bool {
    let left: Vec<UndoItem> = (0..=at).rev().filter_map(|at| state.undo_item_of(plan, at, true)).collect();
    if !state.notes_created() || left.is_empty() {
        return false;
    }
    // The record says that the plan is to be undone, so that no other session takes its objects for complete.
    let key = state.record().kept_key();
    let key = if matches!(state.record_mut().keep_to_be_undone(context).await, Ok(true)) { key } else { None };
    let pending = PendingUndo::new(&plan.tag, PendingReason::Blocked, Completed::No, left, key);
    let remedy = pending.remedy();
    tracing::warn!(
        reason,
        remedy,
        "could not undo the earlier phases of a schema change; they are undone before the next schema change of its role"
    );
    let message = format!("could not undo the earlier phases of this statement yet: {reason}");
    let report = Report::warning(sqlstate::WARNING, message)
        .detail("They are undone before the next schema change of this role in this database that is not in a transaction block.")
        .hint(format!("To undo them now, run by hand: {remedy}"));
    context.notify(&report);
    state.set_pending_undo(pending);
    true
}

/// Logs that a partition may be half detached. No other session finishes the detach, because only its author knows whether the partition is
/// still to be detached.
fn log_half_way(detach: &Detach) {
    let remedy: Vec<&str> = detach.finish.steps.iter().map(|step| step.sql.as_str()).collect();
    tracing::warn!(
        partition = %detach.partition.full_name(),
        remedy = remedy.join("; "),
        "the session of a schema change has ended while it detached a partition, which may be half detached: no new query of \
         its table sees it then, and rows for it are refused"
    );
}

/// Returns how to find out whether the last phase has committed. `None` means that it cannot be found out.
fn completed(context: &ExecutionContext<'_>, state: &RunState, last: &Phase) -> Option<Completed> {
    match last.kind {
        PhaseKind::Brief | PhaseKind::Guarded if last.in_transaction => match state.transaction() {
            Some(id) => Some(Completed::Transaction(id.clone())),
            // The server has reported the end of the session, and had not reached the COMMIT.
            None => context.channel().server_has_ended().then_some(Completed::No),
        },
        PhaseKind::Long => match last.steps.last().and_then(|step| step.about.as_ref()) {
            Some(validated) => state.identity(validated).map(Completed::Valid),
            // The phase is an index build. A valid index is not touched.
            None => Some(Completed::No),
        },
        PhaseKind::Backfill => Some(Completed::No),
        PhaseKind::Brief | PhaseKind::Guarded | PhaseKind::Relay | PhaseKind::Detach => None,
    }
}

/// Runs the undo that another session has left.
///
/// # Errors
/// The statement of this session was cancelled, or its backend is lost too.
pub async fn undo_pending(context: &mut ExecutionContext<'_>, pending: &PendingUndo) -> Result<UndoResult, RunError> {
    let state = &mut RunState::default();
    let Some(key) = pending.key() else { return undo_items(context, state, pending).await };
    match resume::take_own_record(context, key).await? {
        TakeRecordOutcome::Gone => Ok(UndoResult::Nothing),
        TakeRecordOutcome::Busy => Ok(UndoResult::Later),
        TakeRecordOutcome::Ours { quiet } => {
            let cleared = undo_items(context, state, pending).await;
            let undone = matches!(cleared, Ok(UndoResult::Undone(_) | UndoResult::Nothing));
            if !matches!(cleared, Err(RunError::Lost)) {
                resume::end_own_record(context, key, quiet, undone).await?;
            }
            cleared
        }
    }
}

/// Undoes the parts of a pending undo, unless the plan has completed.
async fn undo_items(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    pending: &PendingUndo,
) -> Result<UndoResult, RunError> {
    match has_completed(context, pending.completed()).await? {
        Some(true) => return Ok(UndoResult::Nothing),
        Some(false) => {}
        None => return Ok(UndoResult::Later),
    }
    let mut done = Vec::new();
    for left in pending.items() {
        let undone = match left {
            UndoItem::Steps { undo, things } => undo_steps(context, state, undo, things).await?,
            UndoItem::Index { phase, how, built } => Some(drop_built_index(context, state, phase, *how, *built).await?),
        };
        match undone {
            Some(words) => done.extend(words),
            None => return Ok(UndoResult::Later),
        }
    }
    Ok(if done.is_empty() { UndoResult::Nothing } else { UndoResult::Undone(done) })
}

/// Whether the plan has completed. `None` means that its transaction is still in progress.
async fn has_completed(context: &mut ExecutionContext<'_>, completed: &Completed) -> Result<Option<bool>, RunError> {
    let (sql, parameter) = match completed {
        Completed::No => return Ok(Some(false)),
        Completed::Transaction(id) => (TRANSACTION_SQL, id.clone()),
        Completed::Valid(constraint) => (VALID_SQL, constraint.to_string()),
    };
    let answer = context.channel_mut().ask_one(sql, &[&parameter]).await?;
    Ok(match answer.value() {
        Some("committed" | "t") => Some(true),
        Some("in progress") => None,
        // The server no longer knows the state of such an old transaction. Its objects have been in use since then and stay.
        None if matches!(completed, Completed::Transaction(_)) => Some(true),
        _ => Some(false),
    })
}

/// Runs the steps whose objects are still those that the plan made. `None` means that the undo is not possible now.
async fn undo_steps(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    undo: &Phase,
    things: &[u32],
) -> Result<Option<Vec<String>>, RunError> {
    let asked = undo.steps.iter().filter_map(|step| step.about.as_ref().and_then(known));
    let parameters = identity::parameters(asked);
    let answer = context.channel_mut().ask_one(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
    let now = answer.rows.iter().map(|row| row.get(1).and_then(|value| value.as_deref()?.parse::<u32>().ok()));
    let still: Vec<_> =
        undo.steps.iter().zip(things).zip(now).filter(|((_, made), now)| Some(**made) == *now).collect();
    let is_attach = |step: &Step| step.about.as_ref().is_some_and(|about| about.kind == ObjectKind::Partition);
    // Without the CHECK that proves its bounds, attaching a partition again would read all of its rows.
    if still.len() < undo.steps.len() && undo.steps.iter().any(is_attach) {
        return Ok(Some(Vec::new()));
    }
    let (mut steps, mut words) = (Vec::new(), Vec::new());
    let mut locks = undo.locks.clone();
    for ((step, made), _) in still {
        if step.about.as_ref().is_some_and(|about| about.kind.stands_alone()) {
            if let Some((lock, [assertion, drop])) = unchanged::drop_alone(context, step, *made).await? {
                locks.push(lock);
                words.push(drop.sql.clone());
                steps.extend([assertion, drop]);
            }
            continue;
        }
        let Some((kind, oid, name)) = step.about.as_ref().and_then(known) else { continue };
        let Some(table) = undo.locks.iter().find(|lock| lock.oid == oid) else { continue };
        // The identity is checked once more while the table is locked, when no other session can change it.
        let condition = identity::still(kind, &table.relation, oid, name, *made);
        steps.push(Step::assertion(&condition, "the object to be undone has been changed meanwhile"));
        steps.push(step.clone());
        words.push(step.sql.clone());
    }
    if steps.is_empty() {
        return Ok(Some(Vec::new()));
    }
    locks.sort_by_key(|lock| lock.oid);
    let phase = Phase { steps, locks, ..undo.clone() };
    Ok(match undo::by_phase(context, state, &phase, Undoer::Another).await? {
        UndoOutcome::Undone => Some(words),
        UndoOutcome::Reported => Some(Vec::new()),
        UndoOutcome::NotNow(_) => None,
    })
}

/// Drops the index that a phase has built or left invalid. Returns the statements for the NOTICE.
async fn drop_built_index(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    phase: &Phase,
    how: UndoneAfter,
    built: Option<u32>,
) -> Result<Vec<String>, RunError> {
    let (table, name) = match &phase.undo {
        Some(Undo::DropBuiltIndex { oid, index, .. }) => (Some(oid), Some(index)),
        Some(Undo::DropNewIndex { oid, .. }) => (Some(oid), None),
        _ => (None, None),
    };
    let mut leftovers = match built.filter(|_| how != UndoneAfter::Failed).zip(table) {
        Some((oid, table)) => context.names(INDEX_SQL, &[&oid.to_string(), &table.to_string()]).await?,
        None => undo::leftover_indexes(context, state, phase, UndoneAfter::Failed).await?,
    };
    leftovers.retain(|index| built.is_some() || name.is_none_or(|name| name == index));
    for index in &leftovers {
        invalid::drop_leftover(context, index).await?;
    }
    Ok(leftovers.iter().map(|index| format!("DROP INDEX {}", index.quoted())).collect())
}
