//! The walk through the pages of one table, batch by batch.
//!
//! This file owns the reaction to each outcome of a batch. It keeps true that a writer waits for a batch no longer than the batch takes,
//! whose size follows `batch_time` and whose `statement_timeout` is the stall budget; that a batch that fails changes nothing; and that a
//! row that cannot be filled is found by halving the batch, and named in the error.

use super::fault;
use super::filling::{BackfillRun, BatchKind};
use super::range::Walk;
use super::short::{BatchOutcome, COVER, nap, short, time_left};
use super::tables::listing;
use crate::catalog::trust;
use crate::execute::checkpoint;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use crate::execute::state::RunState;
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::plan::Filled;
use crate::wire::error_response::ServerError;
use std::time::Duration;

/// The least pause after a batch, as a share of that batch. Without a pause the backend could be idle before the next batch comes, because
/// on a busy machine the proxy may be slow too.
const LEAST_PAUSE: f64 = 0.05;

/// A batch that has met locks this many times leaves the locked rows to the sweep.
const SKIP_AFTER: u32 = 3;

impl BackfillRun<'_> {
    /// Fills a range of one table, batch by batch, to its end. With `Counting` it stops at the first lock that is not available.
    pub(super) async fn walk(
        &mut self,
        context: &mut ExecutionContext<'_>,
        state: &mut RunState,
        leaf: usize,
        columns: &[Filled],
        walk: &mut Walk,
        how: BatchKind,
    ) -> Result<(), RunError> {
        while let Some(batch) = walk.next(self.pace.size()) {
            if !self.progress.sweeping {
                self.at = Some((leaf, batch.start));
            }
            self.between(context, state).await?;
            let skips = how == BatchKind::Plain && walk.locked >= SKIP_AFTER;
            let sql = self.update(leaf, &batch, if skips { BatchKind::Skipping } else { how }, columns);
            let places = batch.end - batch.start;
            let ended = match self.look_whose_code(context, leaf).await? {
                Some(ended) => ended,
                None => self.batch(context, leaf, &sql).await?,
            };
            match ended {
                BatchOutcome::Done(answer) => {
                    let rows = self.done(places, &answer);
                    context.metrics().backfill_rows.add_many(rows);
                    self.longest = longest(context);
                    walk.done(&batch);
                    if !self.progress.sweeping {
                        self.progress.pages += places as f64 / self.places.lines as f64;
                    }
                }
                BatchOutcome::Locked => {
                    walk.locked += 1;
                    self.pace.too_much(places);
                    if how == BatchKind::Counting {
                        return Ok(());
                    }
                    self.locked(context, walk.locked).await?;
                }
                BatchOutcome::TooLong if self.pace.is_least() => self.longest *= 2,
                BatchOutcome::TooLong => self.pace.too_much(places),
                BatchOutcome::Refused(error) if self.what.watched && trust::untrue(error.message()).is_some() => {
                    self.leaves.iter_mut().for_each(|leaf| leaf.known = None);
                }
                BatchOutcome::Refused(error) | BatchOutcome::Moved(error) if is_elsewhere(&error) => {
                    if !self.still_there(context, leaf, error).await? {
                        walk.leave();
                    }
                }
                BatchOutcome::Refused(error) | BatchOutcome::Moved(error) => {
                    if !fault::is_of_a_row(error.sqlstate()) || !walk.narrow(&batch) {
                        return Err(self.at_fault(context, leaf, &batch, error).await?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the pause after a batch that the backfill makes by itself.
    pub(super) fn own_pause(&self, context: &ExecutionContext<'_>) -> Duration {
        let ratio = self.throttle.ratio(&context.config().backfill).max(LEAST_PAUSE);
        self.pace.last.mul_f64(ratio)
    }

    /// Runs one batch and its pause.
    pub(super) async fn batch(
        &self,
        context: &mut ExecutionContext<'_>,
        leaf: usize,
        sql: &str,
    ) -> Result<BatchOutcome, RunError> {
        context.metrics().backfill_batches.add();
        let pause = self.own_pause(context);
        let pause = time_left(context)?.map_or(pause, |left| pause.min(left)).max(COVER);
        let nap =
            nap_sql(pause, &context.channel().words(&format!("backfill of {}, between two batches", self.what.table)));
        let mut batch = self.open_batch(context, leaf)?;
        batch.statement(sql, &[]);
        batch.statement("COMMIT", &[]);
        let ended = short(context, batch, &nap, Some(self.longest)).await?;
        if !matches!(ended, BatchOutcome::Done(_)) {
            context.metrics().backfill_batches_failed.add();
        }
        Ok(ended)
    }
}

impl BackfillRun<'_> {
    /// Checks, between two batches, for an interruption, the record, the throttle and the next notice.
    pub(super) async fn between(
        &mut self,
        context: &mut ExecutionContext<'_>,
        state: &mut RunState,
    ) -> Result<(), RunError> {
        if let Some(stop) = context.interrupted() {
            return Err(stop);
        }
        state.record_mut().note_position(context, || self.reached()).await?;
        if checkpoint::between_batches(context, state, self.phase, self.waiting).await? {
            // Whose code an UPDATE would run is asked again.
            self.leaves.iter_mut().for_each(|leaf| leaf.known = None);
        }
        let Self { throttle, notices, progress, what, .. } = self;
        throttle
            .pause(context, &what.table, |throttle, context| notices.tell(context, &what.table, progress, throttle))
            .await?;
        notices.tell(context, &what.table, progress, throttle);
        self.rest_as_ordered(context).await
    }

    /// Waits after a lock was not available, for the `times`th time at this place.
    pub(super) async fn locked(&mut self, context: &mut ExecutionContext<'_>, times: u32) -> Result<(), RunError> {
        if times == 1 {
            self.waiting.begin_anew();
        }
        // If rows are locked, `pg_locks` does not show who has locked them, so that the pauses grow instead.
        if let Some(more) = times.checked_sub(SKIP_AFTER).filter(|more| *more > 0) {
            let pause = (context.config().locks.poll * more).min(Duration::from_secs(1));
            let why = format!("backfill of {}, waiting for rows that others have locked", self.what.table);
            nap(context, pause, &why).await?;
        }
        self.waiting.wait(context, self.phase).await.map(|_| ())
    }
}

impl BackfillRun<'_> {
    /// Whether a table that its name does not find is still one of the tables. If so, its new name is kept.
    pub(super) async fn still_there(
        &mut self,
        context: &mut ExecutionContext<'_>,
        leaf: usize,
        error: ServerError,
    ) -> Result<bool, RunError> {
        let listing = listing(context, self.what, self.phase, self.waiting).await?;
        let Some(old) = self.leaves.get_mut(leaf) else { return Ok(false) };
        let Some(now) = listing.leaves.into_iter().find(|now| now.oid == old.oid) else { return Ok(false) };
        if now.name == old.name {
            return Err(RunError::Server(ServerError::new(error.with_position(|_| None))));
        }
        old.name = now.name;
        Ok(true)
    }
}

/// Whether the error says that the name of a table finds none or another one.
fn is_elsewhere(error: &ServerError) -> bool {
    error.sqlstate() == sqlstate::UNDEFINED_TABLE || trust::untrue(error.message()).is_some()
}

/// Returns the longest that a batch may take, if it has more than one row.
pub(super) fn longest(context: &ExecutionContext<'_>) -> Duration {
    context.config().locks.stall_budget.max(context.config().backfill.batch_time * 2)
}
