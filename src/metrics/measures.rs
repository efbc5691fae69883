//! What is measured besides the plain counters: times as histograms, counts with labels, and what is there now.
//!
//! Invariant: a label has a few values that are written in this program. No name of a relation and no text of a client is a label.

use super::traffic::Traffic;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Seconds from an attempt that finds its lock free to one that is an outage.
const HELD: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 15.0];
/// Seconds from a round trip to the longest `deadline` that people set.
const WAITED: [f64; 15] =
    [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0];

/// A statement's form, and what the rules of the gate said of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FormVerdict {
    form: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

type Times = Family<Outcome, Histogram, fn() -> Histogram>;

/// What one proxy measures besides its plain counters.
#[derive(Debug)]
pub struct Measures {
    sessions_open: Gauge,
    changes_running: Gauge,
    ledger_lost: Gauge,
    ddl: Family<FormVerdict, Counter>,
    lock_wait: Histogram,
    lane_wait: Histogram,
    lock_held: Times,
    changes: Times,
    backfill_pauses: Family<Reason, Counter>,
    traffic: Mutex<Vec<Arc<Traffic>>>,
}

impl Default for Measures {
    fn default() -> Self {
        let measures = Self {
            sessions_open: Gauge::default(),
            changes_running: Gauge::default(),
            ledger_lost: Gauge::default(),
            ddl: Family::default(),
            lock_wait: Histogram::new(WAITED),
            lane_wait: Histogram::new(WAITED),
            lock_held: Family::new_with_constructor(|| Histogram::new(HELD)),
            changes: Family::new_with_constructor(|| Histogram::new(WAITED)),
            backfill_pauses: Family::default(),
            traffic: Mutex::default(),
        };
        // A series that begins at zero shows its first event as a rise.
        for outcome in ["done", "locked", "slow", "failed"] {
            let _ = measures.lock_held.get_or_create(&Outcome { outcome });
        }
        for outcome in ["completed", "failed"] {
            let _ = measures.changes.get_or_create(&Outcome { outcome });
        }
        for reason in ["lag", "active", "condition", "condition_failed"] {
            let _ = measures.backfill_pauses.get_or_create(&Reason { reason });
        }
        measures
    }
}

/// Something that is there now, and counted until it is dropped.
#[derive(Debug)]
pub struct Present(Gauge);

impl Present {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Measures {
    /// A session has its backend.
    pub fn session_begins(&self) {
        self.sessions_open.inc();
    }

    /// A session that has begun has ended.
    pub fn session_ends(&self) {
        self.sessions_open.dec();
    }

    /// Whether the ledger cannot be asked.
    pub fn ledger_is_lost(&self, lost: bool) {
        self.ledger_lost.set(i64::from(lost));
    }

    /// A schema change runs, until the guard is dropped.
    pub fn change(&self) -> Present {
        Present::new(&self.changes_running)
    }

    /// A part of a statement has this form, and the rules of the gate gave this verdict.
    pub fn ddl(&self, form: &'static str, verdict: &'static str) {
        self.ddl.get_or_create(&FormVerdict { form, verdict }).inc();
    }

    /// A statement has waited this long for the locks of one phase, whether it got them or not.
    pub fn waited_for_locks(&self, waited: Duration) {
        self.lock_wait.observe(waited.as_secs_f64());
    }

    /// A statement has waited this long for the schema changes before it.
    pub fn waited_in_lane(&self, waited: Duration) {
        self.lane_wait.observe(waited.as_secs_f64());
    }

    /// A lock attempt has held its locks, or stood in the server's queue for them, for at most this long.
    pub fn attempted(&self, outcome: &'static str, took: Duration) {
        self.lock_held.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// A schema change has ended, this long after its statement began.
    pub fn change_ended(&self, outcome: &'static str, took: Duration) {
        self.changes.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// A backfill begins to pause for this reason.
    pub fn backfill_pauses(&self, reason: &'static str) {
        self.backfill_pauses.get_or_create(&Reason { reason }).inc();
    }

    /// The counter of a thread that begins to relay.
    pub fn new_traffic(&self) -> Arc<Traffic> {
        let traffic = Arc::<Traffic>::default();
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&traffic));
        traffic
    }

    /// The bytes that came from clients, and those that came from the server.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let all = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|one| one.bytes()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Registers what a scrape shows.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("sessions_open", "Clients that have a backend now", self.sessions_open.clone());
        registry.register("changes_running", "Schema changes that run or wait now", self.changes_running.clone());
        let help = "1 while the ledger cannot be asked, so that nothing is allowed that a rule holds; else 0";
        registry.register("ledger_lost", help, self.ledger_lost.clone());
        let help = "Parts of DDL statements, by their form and by the verdict of the rules";
        registry.register("ddl", help, self.ddl.clone());
        let help = "Time that a statement waited for the locks of one phase";
        registry.register("lock_wait_seconds", help, self.lock_wait.clone());
        let help = "Time that a statement waited for the schema changes before it in its lane";
        registry.register("lane_wait_seconds", help, self.lane_wait.clone());
        let help = "Time that a lock attempt held its locks or queued for them, by its outcome: the longest that others waited for it";
        registry.register("lock_held_seconds", help, self.lock_held.clone());
        let help = "Time from the beginning of a schema change to its end, by its outcome";
        registry.register("change_seconds", help, self.changes.clone());
        registry.register("backfill_pauses", "Pauses of backfills, by their reason", self.backfill_pauses.clone());
    }
}
