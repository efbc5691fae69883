//! The counters of a proxy. Their names are the words of the log and the documentation.
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
    /// Clients that were turned away: a bad packet, too many clients, no backend.
    sessions_refused,
    cancel_requests,
    /// DDL statements that were seen.
    ddl_seen,
    /// DDL statements that the proxy ran, in one or more phases.
    ddl_planned,
    /// DDL statements that were relayed unchanged, since they need no protection or none is possible.
    ddl_relayed,
    /// DDL statements that were answered without a lock, since there was nothing to do.
    ddl_elided,
    /// DDL statements that waited for an approval.
    ddl_held,
    /// DDL statements that the proxy refused.
    ddl_refused,
    /// DDL statements that ran as written, since the role may not ask or a pooler is behind the proxy.
    ddl_guarded_only,
    /// DDL statements that ended in an error or were given up.
    ddl_failed,
    /// Statements that one round trip completed, before anything was asked.
    first_tries_done,
    /// Steps that held their locks for longer than `hold_budget`, and were rolled back to go another way.
    hold_budget_outlived,
    /// DDL statements that were done ahead of the client's transaction.
    ddl_ahead,
    /// DDL statements that could make the application wait in the client's transaction, and could not be done ahead of it.
    ddl_not_ahead,
    /// Transactions that were run again behind a statement that was done ahead.
    blocks_replayed,
    /// Waits for a lock that a transaction was suspended for, because it held locks of its own.
    blocks_locked_out,
    /// Transactions that were run again to take a lock first, because a session that held it waited for them.
    blocks_locked_first,
    /// Transactions that no longer hold the tables that they have altered, since that was done ahead before a long write.
    blocks_freed,
    /// Transactions that hold the tables that they have altered during a long write.
    blocks_not_freed,
    /// Lock attempts of brief steps.
    lock_attempts,
    /// Lock attempts that found the lock taken.
    lock_attempts_failed,
    /// Batches of backfills.
    backfill_batches,
    /// Batches of backfills that met a lock, took too long, or failed.
    backfill_batches_failed,
    /// Waits for a client's own advisory lock in which the proxy polled for the lock.
    advisory_waits,
    /// LOCK TABLE statements of clients that found a lock taken, and waited in the proxy.
    lock_table_waits,
    /// Texts with DDL keywords that could not be parsed.
    texts_unparsable,
    /// Texts too large to inspect.
    texts_oversize,
    /// Prepared DDL that the proxy no longer follows, since its session has prepared too much.
    prepared_forgotten,
    /// Texts that may hide DDL (DO, CALL).
    texts_hiding_ddl,
    /// DDL that was relayed because the state of the protocol allowed two readings.
    ddl_uninterceptable,
}

/// Prints `name=value` for each counter that is not zero.
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
