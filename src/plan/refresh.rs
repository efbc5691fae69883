//! REFRESH MATERIALIZED VIEW: done concurrently, so that readers see the old rows until the new ones are there.
//!
//! Limit: the server needs a populated view with a unique index on plain columns. It then looks for the rows that differ,
//! which takes longer, and leaves the other rows where they are.

use super::context::PlanContext;
use super::locks;
use super::model::{Phase, PhaseKind, Plan, Step};
use crate::pg::{LockMode, RelationKind};
use crate::sql::form::Form;

/// The plan of REFRESH MATERIALIZED VIEW; `None`: the statement runs as it is written.
pub(super) fn plan(context: &PlanContext<'_>) -> Option<Plan> {
    let view = context.target()?;
    let suits = view.kind == RelationKind::MaterializedView && context.facts.refreshable;
    if !context.limits.rewrite || context.in_transaction() || context.is_small() || !suits {
        return None;
    }
    let step = Step::concurrently(&context.statement.text, context.ddl.concurrently_at?)?;
    let takes = |_: Form, _: i32| (Some(LockMode::Exclusive), None);
    let phase = context.phase(PhaseKind::Long, "replace the rows that differ, while the old rows can be read");
    Some(Plan {
        phases: vec![Phase { locks: locks::needs(context, takes), steps: vec![step], ..phase }],
        ..context.empty()
    })
}
