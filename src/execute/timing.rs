//! Times: settings of a transaction, naps, and the chance that keeps several proxies out of step.
//!
//! Pure, but for the thread's generator of random numbers.

use std::time::Duration;

/// The longest nap of who is not first: a lane that becomes free is taken after half of it, and a build waits for as long in vain.
pub(super) const LONGEST_NAP: Duration = Duration::from_millis(250);

pub(super) fn set_local(setting: &str, time: Duration) -> String {
    format!("SET LOCAL {setting} = {}", time.as_millis())
}

/// From 0 up to 1, to keep polls apart. The thread's own generator, no shared state.
pub(super) fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The upper 53 bits, as a fraction.
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

/// How long the locks are asked for that undoing takes.
pub(super) const UNDO_PATIENCE: Duration = Duration::from_secs(10);
