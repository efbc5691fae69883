//! Counters. Their names are the words of the log and the documentation.
//!
//! Invariant: no counter moves per message. A counter moves when a client comes or goes, and when a statement is
//! intercepted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// All counters of one proxy.
        #[derive(Debug, Default)]
        pub struct Metrics { $($(#[$doc])* pub $name: Counter,)+ }

        impl Metrics {
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)+]
            }
        }
    };
}

counters! {
    /// Clients that were given a backend.
    sessions,
    /// Clients turned away: a bad packet, too many clients, no backend.
    sessions_refused,
    cancel_requests,
    /// DDL statements that were seen.
    ddl_seen,
    /// … and run by the proxy, in one or more phases.
    ddl_planned,
    /// … relayed as they were, since nothing protects or needs protection.
    ddl_relayed,
    /// … answered without taking a lock, since there was nothing to do.
    ddl_elided,
    /// … refused by the proxy.
    ddl_refused,
    /// … run as written, as the role may not ask or a pooler stands behind the proxy.
    ddl_guarded_only,
    /// … that ended in an error or were given up.
    ddl_failed,
    /// Statements that were done by one round trip, before anything was asked.
    first_tries_done,
    /// Steps that held their locks for longer than `hold_budget`, and were taken back to go another way.
    hold_budget_outlived,
    /// Tries of a brief step.
    lock_attempts,
    /// … that found the lock taken.
    lock_attempts_failed,
    /// Batches of backfills.
    backfill_batches,
    /// … that met a lock, took too long, or failed.
    backfill_batches_failed,
    /// Waits for the clients' own advisory locks that were polled for.
    advisory_waits,
    /// Texts with DDL keywords that could not be parsed.
    texts_unparsable,
    /// Texts too large to inspect.
    texts_oversize,
    /// Prepared DDL that is followed no more, as its session has prepared too much.
    prepared_forgotten,
    /// Texts that may hide DDL (DO, CALL).
    texts_hiding_ddl,
    /// DDL relayed because the state of the conversation left two readings.
    ddl_uninterceptable,
}

/// `name=value`, those that are not zero.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, value) in self.all().into_iter().filter(|(_, value)| *value > 0) {
            write!(f, "{}{name}={value}", if first { "" } else { " " })?;
            first = false;
        }
        Ok(())
    }
}
