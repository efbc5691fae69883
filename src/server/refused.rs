//! Clients that the system did not let in, most likely because the process is out of descriptors, so that other clients
//! must leave first.
//!
//! The acceptor tries again soon, since the kernel keeps the client in its queue. A failure that lasts is tried and
//! logged rarely.

use std::io::Error;
use std::time::{Duration, Instant};

pub(super) struct Refused {
    pause: Duration,
    /// When it was logged, and how often it was so since.
    logged: Option<Instant>,
    since: u64,
}

impl Default for Refused {
    fn default() -> Self {
        Self { pause: Self::FIRST, logged: None, since: 0 }
    }
}

impl Refused {
    /// A short pause is no loss to who waits.
    const FIRST: Duration = Duration::from_millis(10);
    /// Soon enough after somebody has left.
    const MOST: Duration = Duration::from_millis(500);
    /// Often enough to be seen to last, and too rare to fill a disk.
    const LOGGED_EACH: Duration = Duration::from_secs(60);

    /// How long to wait before the next try.
    pub(super) fn again(&mut self, error: &Error, now: Instant) -> Duration {
        self.since += 1;
        if self.logged.is_none_or(|logged| now.duration_since(logged) >= Self::LOGGED_EACH) {
            tracing::warn!(%error, times = self.since, "could not accept a client");
            (self.logged, self.since) = (Some(now), 0);
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Self::MOST);
        pause
    }

    /// Somebody was let in.
    pub(super) fn over(&mut self) {
        self.pause = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over ten minutes at the limit: two tries a second, and a line a minute.
    #[test]
    fn what_lasts_is_tried_and_logged_rarely() {
        let (mut refused, mut tries, mut lines) = (Refused::default(), 0, 0);
        let (begun, mut passed) = (Instant::now(), Duration::ZERO);
        let error = Error::from_raw_os_error(libc::EMFILE);
        while passed < Duration::from_secs(600) {
            let before = refused.logged;
            let pause = refused.again(&error, begun + passed);
            assert!(pause >= Refused::FIRST && pause <= Refused::MOST);
            lines += u32::from(refused.logged != before);
            tries += 1;
            passed += pause;
        }
        assert!((1_200..1_210).contains(&tries), "{tries}");
        assert_eq!(lines, 10);
        refused.over();
        assert_eq!(refused.again(&error, begun + passed), Refused::FIRST);
    }
}
