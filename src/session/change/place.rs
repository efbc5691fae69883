//! Where a statement is run if the client is in a transaction: in the transaction, or ahead of it.
//!
//! It owns nothing. It keeps true: a statement that would make the application wait in the transaction runs there only if it cannot be done
//! ahead, and a WARNING says why.

use super::context::{Place, StatementContext};
use crate::catalog::Facts;
use crate::config::InTransaction;
use crate::execute::{RunError, Suspend};
use crate::pg::sqlstate;
use crate::plan::ahead::NotAhead;
use crate::plan::{LockNeed, Phase, Plan, hoist};
use crate::report::Report;
use crate::session::transaction::fail;

/// Looks at the plan of a statement. A plan ahead of the client's transaction gets the undo of all that it makes.
pub(super) async fn look(context: &mut StatementContext<'_>, facts: &Facts, plan: &mut Plan) -> Result<(), RunError> {
    match context.place() {
        Place::Anywhere if facts.session.in_transaction && context.makes_phases() && plan.warns() => {
            match context.config().ddl.in_transaction {
                InTransaction::Hoist if facts.session.frozen_snapshot => {
                    context.metrics().ddl_not_ahead.add();
                    say_why(plan, &sees_an_old_state());
                    Ok(())
                }
                InTransaction::Hoist => Err(RunError::Suspend(Suspend::WouldStall)),
                InTransaction::Guard => Ok(()),
                InTransaction::Refuse => {
                    fail(context.channel).await?;
                    context.metrics().ddl_refused.add();
                    Err(RunError::Report(refusal(plan)))
                }
            }
        }
        Place::InBlock(Some(why)) => {
            say_why(plan, why);
            Ok(())
        }
        Place::Anywhere | Place::InBlock(None) => Ok(()),
        Place::LocksAlone => {
            plan.phases = vec![locks_of(plan)];
            Ok(())
        }
        Place::Ahead => {
            if plan.answer.is_none() {
                let complete = hoist::with_full_undo(plan.clone(), context.statement, facts);
                *plan = complete.map_err(|why| RunError::Report(not_ahead(&why)))?;
            }
            Ok(())
        }
    }
}

/// Adds to the WARNING why the statement was not done ahead.
fn say_why(plan: &mut Plan, why: &NotAhead) {
    for note in plan.notes.iter_mut().filter(|note| note.is_warning()) {
        let before = note.detail.take().map(|detail| detail + " ").unwrap_or_default();
        note.detail = Some(format!("{before}It was not done ahead of the transaction: {}", why.detail));
        note.hint = Some(why.hint.clone());
    }
}

/// A transaction that reads one old state of the database would read a newer one when it is run again. The level may come from a setting, so
/// that no statement tells it.
pub(super) fn sees_an_old_state() -> NotAhead {
    NotAhead {
        detail: "The transaction is REPEATABLE READ or SERIALIZABLE.".to_owned(),
        hint: "Use READ COMMITTED, or run the schema change in a transaction of its own.".to_owned(),
    }
}

/// A phase that takes the locks of the brief phases at once, and does nothing.
fn locks_of(plan: &Plan) -> Phase {
    let mut locks: Vec<LockNeed> = Vec::new();
    for lock in plan.phases.iter().filter(|phase| phase.in_transaction).flat_map(|phase| &phase.locks) {
        match locks.iter_mut().find(|known| known.oid == lock.oid) {
            Some(known) if known.mode.covers(lock.mode) => {}
            Some(known) => *known = lock.clone(),
            None => locks.push(lock.clone()),
        }
    }
    Phase::of_locks("wait until its locks can be had", locks)
}

/// A session that may not plan runs nothing ahead of the client's transaction.
pub(super) fn only_in_the_block(context: &StatementContext<'_>) -> Result<(), RunError> {
    match context.place() {
        Place::Ahead | Place::LocksAlone => {
            Err(RunError::Report(not_ahead("this session may not ask for what a plan needs")))
        }
        Place::Anywhere | Place::InBlock(_) => Ok(()),
    }
}

/// The error of a statement that could not be undone ahead of the transaction.
pub(super) fn not_ahead(why: &str) -> Report {
    Report::error(sqlstate::FEATURE_NOT_SUPPORTED, format!("cannot be done ahead of the transaction: {why}"))
}

/// The error of a statement that would make the application wait in the transaction, if the operator refuses such statements.
pub(super) fn refusal(plan: &Plan) -> Report {
    let warning = plan.notes.iter().find(|note| note.is_warning());
    let why = warning.map(|note| note.message.as_str()).unwrap_or_default();
    Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("{} is refused in a transaction", plan.tag))
        .detail(format!("{why}."))
        .hint("Send the statement outside a transaction, or set in_transaction = \"hoist\" in [ddl] of proxy.toml.")
}
