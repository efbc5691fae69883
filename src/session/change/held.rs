//! A statement that a rule of the gate holds until somebody approves it.
//!
//! It owns nothing. Approvals do not exist yet, so a held statement fails at once, with the rule and its reason. It keeps true: a held statement
//! has changed nothing.

use super::context::StatementContext;
use super::not_run::not_run;
use crate::execute::RunError;
use crate::gate::{Decision, answer};

/// Waits until the statement may run. `decision`: that of the rule which holds the statement; `None`: no rule holds it. `tag`: what the statement
/// is called in the error.
///
/// # Errors
/// The statement may not run. The client's transaction has failed.
pub(super) async fn wait(
    context: &mut StatementContext<'_>,
    decision: Option<&Decision>,
    tag: &str,
) -> Result<(), RunError> {
    let Some(decision) = decision else { return Ok(()) };
    Err(not_run(context, answer::held(decision, tag), decision).await?)
}
