//! The locks that a transaction takes before its statements are run again.
//!
//! It owns nothing. It keeps true: the locks are taken by attempts, as those of any brief phase, and between two attempts the transaction holds
//! none of them.

use super::attempt;
use super::context::ExecutionContext;
use super::outcome::{Reply, RunError};
use super::state::RunState;
use crate::plan::{LockNeed, Phase};

/// Takes these locks in the client's transaction. A relation that does not exist any more, or not yet, is left out.
///
/// # Errors
/// The wait took too long, or was cancelled. The transaction has failed.
pub async fn take(context: &mut ExecutionContext<'_>, locks: &[LockNeed]) -> Result<(), RunError> {
    let oids: Vec<u32> = locks.iter().map(|lock| lock.oid).collect();
    let names = context.names_now(&oids).await?;
    let mut present: Vec<LockNeed> = Vec::new();
    for lock in locks {
        let Some((_, relation)) = names.iter().find(|(oid, _)| *oid == lock.oid) else { continue };
        match present.iter_mut().find(|known| known.oid == lock.oid && known.only == lock.only) {
            Some(known) if known.mode.covers(lock.mode) => {}
            Some(known) => known.mode = lock.mode,
            None => present.push(LockNeed { relation: relation.clone(), held: false, ..lock.clone() }),
        }
    }
    if present.is_empty() {
        return Ok(());
    }
    let phase = Phase::of_locks("take the locks that a later statement needs", present);
    attempt::until_done(context, &mut RunState::default(), true, &phase, &mut Reply::default()).await
}
