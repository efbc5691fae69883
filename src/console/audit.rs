//! The events of the console: who has done what, from where, and why.
//!
//! It owns nothing. It keeps true: every verb passes through [`audit`], whether it was done or refused. The ledger can take the events over here.

use super::host::Identity;
use crate::logging::AUDIT;

/// Leaves the event of a verb. The log gives the time. `what`: the verb with what it is for. `why`: the reason that the user has given.
pub(super) fn audit(who: &Identity, what: &str, why: Option<&str>, outcome: Result<(), &str>) {
    let from = who.from();
    let (user, role, why) = (who.user.as_str(), who.role.as_str(), why.unwrap_or_default());
    match outcome {
        Ok(()) => tracing::warn!(target: AUDIT, user, role, from, verb = what, why, "done on the console"),
        Err(error) => {
            tracing::warn!(target: AUDIT, user, role, from, verb = what, why, error, "refused on the console");
        }
    }
}
