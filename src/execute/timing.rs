//! Times and savepoints: timeouts of a transaction, the statement before a savepoint, limits of naps, and the random share that keeps the
//! polls of several proxies apart.
//!
//! The functions are pure, except that `jitter` uses the thread's random number generator.

use std::time::Duration;

/// The longest nap of a session that waits behind another one. On average such a session takes a free lane after half of this time, and a
/// concurrent build waits for the nap's snapshot for up to this time.
pub(super) const LONGEST_NAP: Duration = Duration::from_millis(250);

/// Returns the statement that sets a timeout for the current transaction, in milliseconds.
pub(super) fn set_local(setting: &str, time: Duration) -> String {
    format!("SET LOCAL {setting} = {}", time.as_millis())
}

/// Returns a random number from 0 up to 1, which keeps polls apart. The generator is the thread's own, without shared state.
pub(super) fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The number is the upper 53 bits, as a fraction.
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

/// How long an undo tries to get its locks.
pub(super) const UNDO_PATIENCE: Duration = Duration::from_secs(10);

/// This statement runs before a savepoint. ALTER DOMAIN … DROP CONSTRAINT sends its invalidation message after the server has counted the
/// command, so that the message goes out with the next command that writes. If that command is in a savepoint, it fails (XX000, since 15:
/// *cannot start a subtransaction when there are unprocessed inval messages*). For the server this statement is a command that writes,
/// though it names no relation, locks nothing and needs no privilege.
pub(super) const SETTLE: &str =
    "/* pgsluice: before a savepoint */ SELECT FROM (SELECT 1 OFFSET 0) AS nothing LIMIT 0 FOR UPDATE";
