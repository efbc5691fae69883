//! What the rules depend on beside the statement: the time, and the conditions of windows.
//!
//! It owns nothing. It keeps true: the conditions are asked before the rules are. Those of windows whose hours are closed, or that no rule names, are not
//! asked.

use super::context::StatementContext;
use crate::catalog::Facts;
use crate::execute::RunError;
use crate::execute::condition::ask_condition;
use crate::gate::SeenCondition;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970. `None`: the clock of this machine is wrong.
pub(super) fn now() -> Option<i64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok())
}

/// Asks the server the conditions on which the rules depend now.
pub(super) async fn look(context: &mut StatementContext<'_>, facts: &Facts) -> Result<(), RunError> {
    let Some(rules) = context.log.shared().rules_to_ask() else { return Ok(()) };
    let mut seen = Vec::new();
    for window in now().map(|now| rules.windows_to_ask(now)).unwrap_or_default() {
        let Some(condition) = &window.condition else { continue };
        let answer = ask_condition(&mut context.side_run(facts), condition).await?;
        seen.push(SeenCondition { window: window.name.clone(), answer });
    }
    context.set_conditions(seen);
    Ok(())
}
