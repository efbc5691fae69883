//! The counters of a proxy, and what is measured besides. Their names are the words of the log and the documentation.
//!
//! Invariant: no counter moves per message. A counter moves when a client comes or goes, and when a statement is intercepted. The bytes of the
//! relay are counted by each thread for itself ([`Traffic`]).

mod exporter;
mod measures;
mod traffic;

pub use exporter::Exporter;
pub use measures::{Measures, Present};
pub use traffic::{Traffic, count_from_client, count_from_server, count_here};

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.add_many(1);
    }

    pub fn add_many(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// All counters of one proxy.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// What is more than a plain counter.
            pub measures: Measures,
        }

        impl Metrics {
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)+]
            }

            /// The counters, each with what it counts.
            fn described(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name.value()),)+]
            }
        }
    };
}

counters! {
    /// Clients that were given a backend.
    sessions,
    /// Clients that were turned away: a bad packet, too many clients, no backend.
    sessions_refused,
    /// CancelRequest packets of clients.
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
    /// Sessions idle in a transaction that a rule had ended, as they were in the way of a DDL statement.
    blockers_ended,
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
    /// Statements that began as a schema change, or again behind a transaction that was suspended.
    changes_begun,
    /// Rows that backfills have filled.
    backfill_rows,
    /// Reloads by SIGHUP that took effect.
    reloads,
    /// Reloads by SIGHUP of which some part failed. What was loaded before stays in use.
    reloads_failed,
    /// Events that the receiver of the webhook has taken.
    webhook_delivered,
    /// Events that the receiver of the webhook has refused, or not taken after several tries.
    webhook_failed,
    /// Events for the webhook that were dropped, since too many waited.
    webhook_dropped,
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
