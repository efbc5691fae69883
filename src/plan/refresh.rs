//! REFRESH MATERIALIZED VIEW: concurrently, so that readers see the old rows until the new ones are there.
//!
//! Only where the server can: a populated view with a unique index on plain columns. It finds the rows that differ, which takes
//! longer, and leaves those that do not where they are.

use super::ask::Ask;
use super::locks;
use super::model::{Phase, PhaseKind, Plan, Step};
use crate::pg::{LockMode, RelationKind};
use crate::sql::form::Form;

/// `None`: it runs as written.
pub(super) fn plan(ask: &Ask<'_>) -> Option<Plan> {
    let view = ask.target()?;
    let suits = view.kind == RelationKind::MaterializedView && ask.facts.refreshable;
    if !ask.limits.rewrite || ask.in_transaction() || ask.is_small() || !suits {
        return None;
    }
    let step = Step::concurrently(&ask.statement.text, ask.ddl.concurrently_at?)?;
    let takes = |_: Form, _: i32| (Some(LockMode::Exclusive), None);
    let phase = ask.phase(PhaseKind::Long, "exchange the rows that differ, while the old ones can be read");
    Some(Plan { phases: vec![Phase { locks: locks::needs(ask, takes), steps: vec![step], ..phase }], ..ask.empty() })
}
