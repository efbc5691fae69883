//! Backfills: old rows get the values that new rows get already, in short transactions of one batch each.
//!
//! A batch is one round trip on a range of places in one table. The backfill walks the table in physical order, so that it reads no page
//! twice. It keeps true:
//!
//! - A writer waits for the backfill no longer than a batch takes. The size of a batch follows `batch_time`, and its `statement_timeout` is
//!   the stall budget.
//! - A batch waits for a writer no longer than its `lock_timeout`, which is less than `deadlock_timeout`.
//! - The session's role, `search_path` and own timeouts apply.
//! - The backend is always busy, if only with a nap, so that a cancel from anywhere takes effect. The pause after a batch is sent together
//!   with the batch.
//!
//! The sweep (`backfill/sweep.rs`) fills rows that the application has moved, and rows that need only some of several columns. The plan
//! makes sure that new rows have their values.
//!
//! - `short`: short transactions and naps. `tables`: the list of tables. `range`, `pace`: which pages are next, and how many.
//! - `filling`: the state of one backfill. `throttle`: the reasons to pause. `slowed`: what an operator wants besides. `watch`: the check of whose code an UPDATE would run.
//! - `walk`: batch by batch. `notices`: the progress that the client sees. `fault`: the row that failed. `sweep`: the work after the last
//!   page.

mod fault;
mod filling;
mod notices;
mod pace;
mod range;
mod short;
mod slowed;
mod sweep;
mod tables;
mod throttle;
mod walk;
mod watch;

use self::filling::{BackfillRun, BatchKind};
use self::notices::ProgressNotices;
use self::pace::{BatchSize, Progress};
use self::range::{PageLayout, Walk};
use self::throttle::Throttle;
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::execute::state::RunState;
use crate::plan::{Backfill, Phase};

/// Fills all rows that need a value. The caller holds the lanes.
pub(super) async fn fill(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    what: &Backfill,
    waiting: &mut LockWait,
) -> Result<(), RunError> {
    let listing = tables::listing(context, what, phase, waiting).await?;
    let places = PageLayout::new(listing.block_size, context.facts().session.server_version);
    let of_rows: Option<f64> = listing.leaves.iter().map(|leaf| leaf.rows).sum();
    let of_pages = listing.leaves.iter().map(|leaf| leaf.pages as f64).sum();
    let mut filling = BackfillRun {
        what,
        phase,
        waiting,
        leaves: listing.leaves,
        places,
        pace: BatchSize::new(places.lines, places.most(), context.config().backfill.batch_time),
        longest: walk::longest(context),
        progress: Progress { of_rows, of_pages, ..Progress::default() },
        throttle: Throttle::default(),
        notices: ProgressNotices::new(),
        slowed: false,
        at: None,
        still: 0,
    };
    for (leaf, left) in filling.go_on(state.record().position()).into_iter().enumerate() {
        let mut walk = Walk::new(left.start * places.lines..left.end * places.lines);
        filling.walk(context, state, leaf, &what.columns, &mut walk, BatchKind::Plain).await?;
        filling.at = Some((leaf, walk.at()));
    }
    filling.sweep(context, state).await?;
    filling.analyze(context).await?;
    let BackfillRun { progress, notices, .. } = filling;
    tracing::info!(rows = progress.rows, seconds = notices.elapsed().as_secs_f64(), table = %what.table, "backfilled");
    Ok(())
}
