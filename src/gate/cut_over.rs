//! Where the gate is asked for the second time: before the last phase of a plan that takes a strong lock.
//!
//! It is pure and owns nothing. It keeps true: a plan whose only strong lock is in its first phase is asked about before that phase, and so only once.

use crate::plan::{Phase, Plan};

/// The position of the last phase that takes a lock for which the application has to wait. `None`: it is the first phase, or there is none. What only
/// tidies up behind the others does not count.
pub fn phase_of(plan: &Plan) -> Option<usize> {
    let is_strong = |phase: &Phase| phase.locks.iter().any(|lock| lock.mode.blocks_application());
    let counts = |phase: &Phase| !phase.tidies && !phase.steps.is_empty() && is_strong(phase);
    plan.phases.iter().rposition(counts).filter(|at| *at > 0)
}
