//! The progress of a backfill that the client sees.
//!
//! This file owns the time of the last notice. It keeps true that the client gets at most one notice per `progress_interval`, and that the
//! first notice is due after a second at most.

use super::pace::Progress;
use super::throttle::Throttle;
use crate::execute::context::ExecutionContext;
use crate::pg::{RelationName, sqlstate};
use crate::report::Report;
use std::time::{Duration, Instant};

/// When the backfill began, and when the client was notified last.
#[derive(Debug)]
pub(super) struct ProgressNotices {
    begun: Instant,
    notified: Instant,
}

impl ProgressNotices {
    /// Returns the notices of a backfill that begins now.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { begun: now, notified: now }
    }

    /// Returns how long the backfill has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Notifies the client, if a notice is due.
    pub(super) fn tell(
        &mut self,
        context: &mut ExecutionContext<'_>,
        table: &RelationName,
        progress: &Progress,
        throttle: &Throttle,
    ) {
        let now = Instant::now();
        let interval = context.config().ddl.progress_interval;
        let first = self.notified == self.begun;
        if now - self.notified < if first { interval.min(Duration::from_secs(1)) } else { interval } {
            return;
        }
        self.notified = now;
        let words = progress.words(now - self.begun);
        let throttle = throttle.words(&context.config().backfill);
        let ordered = context.channel().change_throttled().map(|by| format!(", {by}")).unwrap_or_default();
        let message = format!("backfilling {table}: {words}; {throttle}{ordered}");
        tracing::info!("{message}");
        if context.config().ddl.notices {
            context.notify(&Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message));
        }
    }
}
