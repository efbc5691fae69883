//! What the client is told of a backfill's progress.
//!
//! It owns when the client was told last. It keeps true that the client is told at most once per `progress_interval`, but once soon.

use super::pace::Progress;
use super::throttle::Throttle;
use crate::execute::context::Context;
use crate::pg::{RelationName, sqlstate};
use crate::report::Report;
use std::time::{Duration, Instant};

/// When the backfill began, and when the client was told last.
#[derive(Debug)]
pub(super) struct ProgressNotices {
    begun: Instant,
    told: Instant,
}

impl ProgressNotices {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { begun: now, told: now }
    }

    /// How long the backfill has taken.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Tells the client, if that is due.
    pub(super) fn tell(
        &mut self,
        context: &mut Context<'_>,
        table: &RelationName,
        progress: &Progress,
        throttle: &Throttle,
    ) {
        let now = Instant::now();
        let interval = context.config().ddl.progress_interval;
        let first = self.told == self.begun;
        if now - self.told < if first { interval.min(Duration::from_secs(1)) } else { interval } {
            return;
        }
        self.told = now;
        let words = progress.words(now - self.begun);
        let throttle = throttle.words(&context.config().backfill);
        let message = format!("backfilling {table}: {words}; {throttle}");
        tracing::info!("{message}");
        if context.config().ddl.notices {
            context.notify(&Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message));
        }
    }
}
