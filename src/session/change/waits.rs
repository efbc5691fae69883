//! The wait of a statement behind its gate: for people, or for a window.
//!
//! It owns nothing. It keeps true: a statement that has waited has its lanes again, and is planned again.

use super::context::StatementContext;
use super::held::HeldOutcome;
use super::{held, turn, window};
use crate::catalog::Facts;
use crate::execute::RunError;
use crate::execute::turn::Turn;
use crate::gate::{Decision, Verdict};
use crate::pg::RelationName;
use crate::plan::Plan;
use std::collections::BTreeSet;

/// Whether a rule has let the statement wait. It has its lanes again, and its facts are out of date.
pub(super) async fn has_been_held(
    context: &mut StatementContext<'_>,
    decision: Option<&Decision>,
    known: (&Facts, &Plan),
    (names, turn): (&[RelationName], &mut Turn),
) -> Result<bool, RunError> {
    let outcome = match decision.filter(|decision| matches!(decision.verdict, Verdict::Closed { .. })) {
        Some(closed) => window::wait(context, closed, known, turn).await?,
        None => held::wait(context, decision, known, turn).await?,
    };
    let waited = outcome == HeldOutcome::PlanAgain;
    if waited {
        turn::take(context, names, &BTreeSet::new(), turn).await?;
    }
    Ok(waited)
}
