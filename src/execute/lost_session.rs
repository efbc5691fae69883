//! What a plan has left whose session is lost, or that could not be undone at once: kept, and undone by another session of the same role.
//!
//! The undo would have run on that same backend. So what is to be undone is kept in memory, with what tells each object
//! (`catalog/identity.rs`), and done before the next schema change of the same role in the same database.
//!
//! It keeps true: only what still is what the plan made is undone; nothing is if the last phase has committed, whatever the
//! client heard of it; where that cannot be told, nothing is undone, and the log says what may be left.
//!
//! Limits: a proxy that ends forgets. An index whose build was lost is told by its table, its name and that it is
//! invalid: the server tells an oid only when a build is over.

use crate::backend::BackendLost;
use crate::catalog::identity::{self, IDENTITY_SQL, INDEX_SQL, TRANSACTION_SQL, VALID_SQL};
use crate::execute::context::Context;
use crate::execute::invalid;
use crate::execute::objects::{known, made};
use crate::execute::outcome::{RunError, UndoOutcome, UndoneAfter};
use crate::execute::pending_undo::{Completed, PendingReason, PendingUndo, UndoItem};
use crate::execute::record::resume::{self, TakeRecordOutcome};
use crate::execute::state::RunState;
use crate::execute::undo::{self, Undoer};
use crate::pg::sqlstate;
use crate::plan::{Detach, ObjectKind, Phase, PhaseKind, Plan, Step, Undo};
use crate::report::Report;

/// How an attempt to undo ended.
#[derive(Debug)]
pub enum UndoResult {
    /// Nothing was left, or the plan had come to its end, or it cannot be undone any more, which is told.
    Nothing,
    /// What was done.
    Undone(Vec<String>),
    /// Not now.
    Later,
}

/// Asks for the oid of an index that a phase has built, and that may have to be dropped.
pub(super) async fn note_built(
    context: &mut Context<'_>,
    state: &mut RunState,
    at: usize,
    phase: &Phase,
) -> Result<(), BackendLost> {
    let Some(Undo::DropBuiltIndex { oid, index, .. }) = &phase.undo else { return Ok(()) };
    let parameters = identity::parameters(std::iter::once(("index", *oid, index.name.as_str())));
    let answer = context.channel_mut().ask_one(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
    if let Some(oid) = answer.rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok()) {
        state.note_built(at, oid);
    }
    Ok(())
}

/// The backend is gone. `stopped`: the phase that was under way, or the last that was not undone yet.
pub(super) fn keep_pending_undo(
    context: &mut Context<'_>,
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
    let completed = match stopped + 1 == plan.phases.len() && !undoing {
        true => completed(context, state, under_way),
        false => Some(Completed::No),
    };
    // What nothing tells apart from another of its name is left to people.
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
            "the session of a schema change has ended; what it had begun is undone before the next one of its role"
        );
        state.set_pending_undo(pending);
    } else {
        tracing::warn!(
            remedy,
            "the session of a schema change has ended, perhaps at its very end: look, and undo by hand what it has not finished"
        );
    }
}

/// Whoever is in the way now will not always be: what the phases up to this one have made is undone before the next schema
/// change of the role. False: nothing tells these things from others of their names.
pub(super) async fn leave_for_later(
    context: &mut Context<'_>,
    state: &mut RunState,
    plan: &Plan,
    at: usize,
    reason: &str,
) -> bool {
    let left: Vec<UndoItem> = (0..=at).rev().filter_map(|at| state.undo_item_of(plan, at, true)).collect();
    if !state.notes_created() || left.is_empty() {
        return false;
    }
    // Whoever finds it there meanwhile is not to take it for done: the record says so.
    let key = state.record().kept_key();
    let key = if matches!(state.record_mut().keep_to_be_undone(context).await, Ok(true)) { key } else { None };
    let pending = PendingUndo::new(&plan.tag, PendingReason::Blocked, Completed::No, left, key);
    let remedy = pending.remedy();
    tracing::warn!(reason, remedy, "what a schema change had begun is undone before the next one of its role");
    let message = format!("what this statement had begun could not be brought back yet: {reason}");
    let report = Report::warning(sqlstate::WARNING, message)
        .detail("It is undone before the next schema change of this role in this database, if that is not in a transaction block.")
        .hint(format!("Or do it by hand: {remedy}"));
    context.notify(&report);
    state.set_pending_undo(pending);
    true
}

/// Nobody finishes that for another session: only its author knows whether the partition is still to go.
fn log_half_way(detach: &Detach) {
    let remedy: Vec<&str> = detach.finish.steps.iter().map(|step| step.sql.as_str()).collect();
    tracing::warn!(
        partition = %detach.partition.full_name(),
        remedy = remedy.join("; "),
        "the session of a schema change has ended while it detached a partition, which may be half detached: no new query of \
         its table sees it then, and rows for it are refused"
    );
}

/// Whether the last phase may have committed; `None`: it cannot be told.
fn completed(context: &Context<'_>, state: &RunState, last: &Phase) -> Option<Completed> {
    match last.kind {
        PhaseKind::Brief | PhaseKind::Guarded if last.in_transaction => match state.transaction() {
            Some(id) => Some(Completed::Transaction(id.clone())),
            // The server has said that it ends the session, and not that it was about to commit.
            None => context.channel().server_has_ended().then_some(Completed::No),
        },
        PhaseKind::Long => match last.steps.last().and_then(|step| step.about.as_ref()) {
            Some(validated) => state.identity(validated).map(Completed::Valid),
            // A build: what is valid is not touched.
            None => Some(Completed::No),
        },
        PhaseKind::Backfill => Some(Completed::No),
        PhaseKind::Brief | PhaseKind::Guarded | PhaseKind::Relay | PhaseKind::Detach => None,
    }
}

/// Undoes what another session has left.
///
/// # Errors
/// This session's statement is cancelled, or its backend is gone too.
pub async fn undo_pending(context: &mut Context<'_>, pending: &PendingUndo) -> Result<UndoResult, RunError> {
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

async fn undo_items(
    context: &mut Context<'_>,
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

/// `None`: that is not decided yet.
async fn has_completed(context: &mut Context<'_>, completed: &Completed) -> Result<Option<bool>, RunError> {
    let (sql, parameter) = match completed {
        Completed::No => return Ok(Some(false)),
        Completed::Transaction(id) => (TRANSACTION_SQL, id.clone()),
        Completed::Valid(constraint) => (VALID_SQL, constraint.to_string()),
    };
    let answer = context.channel_mut().ask_one(sql, &[&parameter]).await?;
    Ok(match answer.value() {
        Some("committed" | "t") => Some(true),
        Some("in progress") => None,
        // Of a transaction of so long ago nothing is known: whatever it left has been lived with.
        None if matches!(completed, Completed::Transaction(_)) => Some(true),
        _ => Some(false),
    })
}

/// `None`: not now.
async fn undo_steps(
    context: &mut Context<'_>,
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
    // Without the CHECK that proves its bounds, attaching a partition again would read every row of it.
    if still.len() < undo.steps.len() && undo.steps.iter().any(is_attach) {
        return Ok(Some(Vec::new()));
    }
    let (mut steps, mut words) = (Vec::new(), Vec::new());
    for ((step, made), _) in still {
        let Some((kind, oid, name)) = step.about.as_ref().and_then(known) else { continue };
        let Some(table) = undo.locks.iter().find(|lock| lock.oid == oid) else { continue };
        // Once more when the table is locked: then nobody changes it any more.
        let condition = identity::still(kind, &table.relation, oid, name, *made);
        steps.push(Step::assertion(&condition, "what was to be undone has been changed meanwhile"));
        steps.push(step.clone());
        words.push(step.sql.clone());
    }
    if steps.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let phase = Phase { steps, ..undo.clone() };
    Ok(match undo::by_phase(context, state, &phase, Undoer::Another).await? {
        UndoOutcome::Undone => Some(words),
        UndoOutcome::Reported => Some(Vec::new()),
        UndoOutcome::NotNow(_) => None,
    })
}

async fn drop_built_index(
    context: &mut Context<'_>,
    state: &RunState,
    phase: &Phase,
    how: UndoneAfter,
    built: Option<u32>,
) -> Result<Vec<String>, RunError> {
    let named = match &phase.undo {
        Some(Undo::DropBuiltIndex { oid, index, .. }) => Some((oid, index)),
        _ => None,
    };
    let mut leftovers = match built.filter(|_| how != UndoneAfter::Failed).zip(named) {
        Some((oid, (table, _))) => context.names(INDEX_SQL, &[&oid.to_string(), &table.to_string()]).await?,
        None => undo::leftover_indexes(context, state, phase, UndoneAfter::Failed).await?,
    };
    leftovers.retain(|index| built.is_some() || named.is_none_or(|(_, named)| named == index));
    for index in &leftovers {
        invalid::drop_leftover(context, index).await?;
    }
    Ok(leftovers.iter().map(|index| format!("DROP INDEX {}", index.quoted())).collect())
}
