//! Clients that the system did not let in. The most likely cause is that the process is out of descriptors, so that other
//! clients must leave first.
//!
//! The acceptor tries again soon, since the kernel keeps the client in its queue. If the failure lasts, the acceptor tries
//! and logs rarely.

use std::io::Error;
use std::time::{Duration, Instant};

pub(super) struct Refused {
    pause: Duration,
    /// When a failure was last logged, and how many failures came since then.
    logged: Option<Instant>,
    since: u64,
}

impl Default for Refused {
    fn default() -> Self {
        Self { pause: Self::FIRST, logged: None, since: 0 }
    }
}

impl Refused {
    /// The first pause is short, so a waiting client loses nothing.
    const FIRST: Duration = Duration::from_millis(10);
    /// The longest pause still lets a client in soon after another has left.
    const MOST: Duration = Duration::from_millis(500);
    /// A lasting failure is logged often enough to be seen, and too rarely to fill a disk.
    const LOGGED_EACH: Duration = Duration::from_secs(60);

    /// Records a failure, and returns the pause before the next try.
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

    /// Records that a client was let in.
    pub(super) fn over(&mut self) {
        self.pause = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes at the limit make two tries a second, and one line of the log a minute.
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
