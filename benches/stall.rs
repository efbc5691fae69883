//! The worst wait of a reader while an ALTER TABLE stands behind a transaction of four seconds. The ALTER TABLE runs
//! directly, directly with the usual `lock_timeout` and retry, and through pgsluice.
//!
//! Readers read at a fixed rate, and a delay counts from the moment at which a read was due. In the third way the readers go
//! through pgsluice too, as an application would. The bench prints Markdown.

mod rig;

use rig::common::Client;
use rig::{Rig, median, setting};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the transaction in the way stays open.
const IN_THE_WAY: Duration = Duration::from_secs(4);
/// The pause of the usual retry loop.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const READERS: u32 = 4;
const INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No schema change: what the machine's own noise is.
    Nothing,
    Direct,
    LockTimeout,
    Pgsluice,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Nothing, "no ALTER TABLE at all"),
    (Way::Direct, "direct"),
    (Way::LockTimeout, "direct, lock_timeout = 2s and retry"),
    (Way::Pgsluice, "through pgsluice"),
];

struct Outcome {
    /// Milliseconds.
    worst: f64,
    /// Reads later than 100 ms.
    late: usize,
    reads: usize,
    /// Seconds until the ALTER TABLE was done.
    took: f64,
}

fn main() {
    let rig = Rig::start();
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 3);
    let mut admin = Client::connect(rig.postgres.port, &rig.postgres.user, "postgres");
    admin.ok("CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL)");
    admin.ok("INSERT INTO orders SELECT g, g FROM generate_series(1, 100000) g");
    admin.ok("VACUUM ANALYZE orders");
    println!("{}", rig::versions());
    println!(
        "{READERS} readers, one read in {} ms each; {rounds} rounds: the medians, and the worst of all.\n",
        INTERVAL.as_millis()
    );
    println!("| ALTER TABLE orders ADD COLUMN | worst read | of all rounds | reads > 100 ms late | done after |");
    println!("|---|--:|--:|--:|--:|");
    let mut outcomes: Vec<Vec<Outcome>> = WAYS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (at, (way, _)) in WAYS.iter().enumerate() {
            outcomes[at].push(measure(&rig, *way, &format!("note_{round}_{at}")));
        }
    }
    for ((_, title), outcomes) in WAYS.iter().zip(&outcomes) {
        let of = |value: fn(&Outcome) -> f64| median(&outcomes.iter().map(value).collect::<Vec<_>>());
        println!(
            "| {title} | {:.1} ms | {:.1} ms | {:.0} of {:.0} | {:.1} s |",
            of(|o| o.worst),
            outcomes.iter().map(|o| o.worst).fold(0.0, f64::max),
            of(|o| o.late as f64),
            of(|o| o.reads as f64),
            of(|o| o.took),
        );
    }
}

fn measure(rig: &Rig, way: Way, column: &str) -> Outcome {
    let port = rig.target(if way == Way::Pgsluice { "pgsluice" } else { "direct" }).port;
    let connect = || Client::connect(port, &rig.postgres.user, "postgres");
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<JoinHandle<Vec<Duration>>> = (0..READERS)
        .map(|number| {
            let (client, stop) = (connect(), Arc::clone(&stop));
            thread::spawn(move || read(client, number, &stop))
        })
        .collect();
    let mut in_the_way = connect();
    in_the_way.ok("BEGIN; SELECT total FROM orders WHERE id = 1");
    let in_the_way = thread::spawn(move || {
        thread::sleep(IN_THE_WAY);
        in_the_way.ok("COMMIT");
    });
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let mut client = connect();
    let alter = format!("ALTER TABLE orders ADD COLUMN {column} text");
    match way {
        Way::Nothing => {}
        Way::Direct | Way::Pgsluice => drop(client.ok(&alter)),
        Way::LockTimeout => {
            client.ok("SET lock_timeout = '2s'");
            while client.query(&alter).error.is_some() {
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    in_the_way.join().expect("the transaction in the way");
    thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let delays: Vec<Duration> = readers.into_iter().flat_map(|reader| reader.join().expect("a reader")).collect();
    Outcome {
        worst: delays.iter().max().copied().unwrap_or_default().as_secs_f64() * 1000.0,
        late: delays.iter().filter(|delay| **delay > Duration::from_millis(100)).count(),
        reads: delays.len(),
        took,
    }
}

/// The delay of each read. What is overdue is read before the end, so every read that was due counts.
fn read(mut client: Client, number: u32, stop: &AtomicBool) -> Vec<Duration> {
    let mut delays = Vec::new();
    let mut due = Instant::now() + INTERVAL / READERS * number;
    while !stop.load(Ordering::Relaxed) || due < Instant::now() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        client.ok("SELECT total FROM orders WHERE id = 7");
        delays.push(due.elapsed());
        due += INTERVAL;
    }
    delays
}
