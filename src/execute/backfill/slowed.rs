//! The rest that an operator wants between two batches (THROTTLE on the console), on top of the pause that the backfill makes by itself.
//!
//! This file owns no state: the ratio is the change's, and may be another one at each look. It keeps true that a new ratio counts within a moment,
//! because a long rest consists of short naps, each with the reason in its comment.

use super::filling::BackfillRun;
use super::short::{nap, time_left};
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use std::time::Duration;

/// The longest nap before the next look at the ratio.
const LONGEST_NAP: Duration = Duration::from_millis(250);
/// A shorter rest is left out: it would cost more than it spares.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// Returns the rest behind a batch with its own pause, so that both together take the share `1 - ratio` of the time.
fn rest_behind(busy: Duration, ratio: f64) -> Duration {
    busy.mul_f64(ratio / (1.0 - ratio.min(0.999)))
}

impl BackfillRun<'_> {
    /// Rests for as long as an operator wants, behind the last batch.
    pub(super) async fn rest_as_ordered(&mut self, context: &mut ExecutionContext<'_>) -> Result<(), RunError> {
        let (busy, mut rested) = (self.pace.last + self.own_pause(context), Duration::ZERO);
        loop {
            let Some(throttled) = context.channel().change_throttled() else {
                self.slowed = false;
                return Ok(());
            };
            if !std::mem::replace(&mut self.slowed, true) {
                context.metrics().measures.backfill_pauses("operator");
            }
            let left = rest_behind(busy, throttled.ratio.share()).saturating_sub(rested);
            if left < SHORTEST_REST {
                return Ok(());
            }
            if let Some(stop) = context.interrupted() {
                return Err(stop);
            }
            time_left(context)?;
            let time = left.min(LONGEST_NAP);
            nap(context, time, &format!("backfill of {}, paused: {throttled}", self.what.table)).await?;
            rested += time;
            let Self { throttle, notices, progress, what, .. } = self;
            notices.tell(context, &what.table, progress, throttle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backfill_works_for_its_share_of_the_time() {
        let rest = |ms: u64, ratio: f64| rest_behind(Duration::from_millis(ms), ratio).as_secs_f64();
        assert!((rest(100, 0.5) - 0.1).abs() < 1e-6);
        assert!((rest(100, 0.9) - 0.9).abs() < 1e-6);
        assert!((rest(100, 0.99) - 9.9).abs() < 1e-6);
        assert_eq!(rest_behind(Duration::from_secs(1), 0.0), Duration::ZERO);
    }
}
