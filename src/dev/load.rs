//! The load of an application: readers and writers query at a steady rate, and each query's delay is measured.
//!
//! The rate is fixed (an open loop), and a delay counts from the moment at which the query was due. A worker that waits four
//! seconds for one query delays the hundreds of queries behind it, too. Users of a real application would notice this.

use super::client::Client;
use super::shop;
use crate::config::Address;
use crate::report::Report;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const READERS: u64 = 3;
const WRITERS: u64 = 2;
/// Each worker sends 100 queries a second. That is far from saturation, so a delay is a wait for a lock.
const INTERVAL: Duration = Duration::from_millis(10);
/// The shortest delay that people notice.
pub(super) const NOTICEABLE: Duration = Duration::from_millis(100);

const READ: &str = "SELECT total FROM orders WHERE id = $1";
const WRITE: &str = "UPDATE orders SET total = total + 1 WHERE id = $1";

/// The delays of the application's queries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Felt {
    pub(super) worst_read: Duration,
    pub(super) worst_write: Duration,
    pub(super) queries: usize,
    /// The number of queries that were delayed by more than [`NOTICEABLE`].
    pub(super) delayed: usize,
}

/// The workers, which run until [`Load::finish`].
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Result<Vec<Duration>, Report>>>,
    writers: Vec<JoinHandle<Result<Vec<Duration>, Report>>>,
}

impl Load {
    pub(super) fn start(address: &Address) -> Result<Self, Report> {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number, sql| -> Result<_, Report> {
            let client = Client::connect(address, shop::USER, shop::DATABASE)?;
            let stop = Arc::clone(&stop);
            Ok(thread::spawn(move || work(&client, sql, number, &stop)))
        };
        let readers = (0..READERS).map(|number| start(number, READ)).collect::<Result<_, _>>()?;
        let writers = (0..WRITERS).map(|number| start(READERS + number, WRITE)).collect::<Result<_, _>>()?;
        Ok(Self { stop, readers, writers })
    }

    /// Ends the load. Overdue queries run first, so every query that was due is counted.
    pub(super) fn finish(self) -> Result<Felt, Report> {
        self.stop.store(true, Ordering::Relaxed);
        let (reads, writes) = (gather(self.readers)?, gather(self.writers)?);
        let worst = |delays: &[Duration]| delays.iter().max().copied().unwrap_or_default();
        let late = |delays: &[Duration]| delays.iter().filter(|delay| **delay > NOTICEABLE).count();
        Ok(Felt {
            worst_read: worst(&reads),
            worst_write: worst(&writes),
            queries: reads.len() + writes.len(),
            delayed: late(&reads) + late(&writes),
        })
    }
}

/// Runs one worker, and returns the delay of each of its queries.
fn work(client: &Client, sql: &str, number: u64, stop: &AtomicBool) -> Result<Vec<Duration>, Report> {
    let statement = client.prepare(sql)?;
    let mut delays = Vec::new();
    // The workers start at different moments, so that they do not query in step.
    let mut due = Instant::now() + INTERVAL / 5 * u32::try_from(number).unwrap_or_default();
    while !stop.load(Ordering::Relaxed) || due < Instant::now() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        client.execute(&statement, &row(number, delays.len()))?;
        delays.push(due.elapsed());
        due += INTERVAL;
    }
    Ok(delays)
}

/// The next row of a worker. Each worker has rows of its own, so that workers never wait for each other's row locks. The
/// long transaction uses row 1.
fn row(worker: u64, query: usize) -> i64 {
    let share = shop::ORDERS / i64::try_from(READERS + WRITERS).unwrap_or(1);
    let first = share * i64::try_from(worker).unwrap_or_default();
    // A prime stride visits the rows of the share out of order.
    first + 2 + i64::try_from(query).unwrap_or_default() * 7_919 % (share - 2)
}

fn gather(workers: Vec<JoinHandle<Result<Vec<Duration>, Report>>>) -> Result<Vec<Duration>, Report> {
    let mut delays = Vec::new();
    for worker in workers {
        match worker.join() {
            Ok(done) => delays.extend(done?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(delays)
}
