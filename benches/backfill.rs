//! How fast a backfill fills rows, beside one UPDATE of all rows and two usual schemes of batches, and how a backfill delays
//! the application.
//!
//! The two schemes run on a connection of their own, without the proxy. The `LIMIT n` scheme takes rows without a value
//! until there are none. The keyset scheme goes along the primary key, 1,000 rows at a time, as pgroll does. The application
//! reads and writes rows by key through the proxy. It runs at a fixed rate, where a delay counts from the moment at which a
//! statement was due, or as fast as it can, as pgbench does.
//!
//! The bench prints Markdown. An argument, `rate` or `application`, runs that part alone. `PGSLUICE_BENCH_BACKFILL` has
//! lines of `[backfill]` for the part `application`. `PGSLUICE_BENCH_ROWS` (1 million) and `PGSLUICE_BENCH_ROUNDS` (3) set
//! how much is measured.

mod rig;

use rig::common::Client;
use rig::{Rig, median, percentile, setting};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the application does.
#[derive(Debug, Clone, Copy)]
struct Load {
    workers: u32,
    /// From one statement of a worker's to the next; zero: as fast as it can.
    interval: Duration,
}

const LOADS: [Load; 2] =
    [Load { workers: 4, interval: Duration::from_millis(4) }, Load { workers: 8, interval: Duration::ZERO }];
/// A backfill is given up after so long.
const LONGEST: &str = "SET statement_timeout = '40s'";
/// Above this `LIMIT n` is left out: each batch reads all that is done already, so its time grows with the square of the rows.
const MOST_ROWS_OF_LIMIT: u32 = 2_000_000;
/// How long the application is measured without a backfill.
const BASELINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Single,
    Pgsluice,
    Limit,
    Keyset,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Single, "one UPDATE of all rows"),
    (Way::Pgsluice, "pgsluice, pause_ratio = 0"),
    (Way::Limit, "batches of 10,000 by LIMIT"),
    (Way::Keyset, "batches of 1,000 along the primary key"),
];

fn main() {
    let mut rig = Rig::start();
    rig.pgsluice("unthrottled", "[backfill]\npause_ratio = 0");
    let settings = std::env::var("PGSLUICE_BENCH_BACKFILL").unwrap_or_default();
    rig.pgsluice("throttled", &format!("[backfill]\n{settings}"));
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let rows = setting("PGSLUICE_BENCH_ROWS", 1_000_000);
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 3);
    println!("{}", rig::versions());
    if wants("rate") {
        rates(&rig, rows, rounds);
    }
    if wants("application") {
        for load in LOADS {
            application(&rig, load, rows, rounds);
        }
    }
}

fn rates(rig: &Rig, rows: u32, rounds: u32) {
    println!(
        "{rows} rows, {rounds} rounds: the medians.\n\n| a float8 for every row | rows/s | of one UPDATE |\n|---|--:|--:|"
    );
    let mut took: Vec<Vec<f64>> = WAYS.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (at, (way, _)) in WAYS.iter().enumerate() {
            if *way != Way::Limit || rows <= MOST_ROWS_OF_LIMIT {
                took[at].push(fill(rig, *way, rows));
            }
        }
    }
    let single = median(&took[0]);
    for ((_, title), took) in WAYS.iter().zip(&took).filter(|(_, took)| !took.is_empty()) {
        let took = median(took);
        println!("| {title} | {:.0} | {:.2} |", f64::from(rows) / took, single / took);
    }
    println!();
}

/// A new table of rows as applications have them.
fn table(rig: &Rig, rows: u32) -> Client {
    let mut client = rig.connect(rig.target("direct"));
    client.ok("DROP TABLE IF EXISTS orders");
    client
        .ok("CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, total int NOT NULL, note text NOT NULL)");
    client.ok(&format!("INSERT INTO orders SELECT g, g % 9973, g, repeat('x', 60) FROM generate_series(1, {rows}) g"));
    client.ok("VACUUM ANALYZE orders");
    client.ok("CHECKPOINT");
    client
}

/// Seconds.
fn fill(rig: &Rig, way: Way, rows: u32) -> f64 {
    let mut client = table(rig, rows);
    if way == Way::Pgsluice {
        let mut client = rig.connect(rig.target("unthrottled"));
        let begun = Instant::now();
        client.ok("ALTER TABLE orders ADD COLUMN r float8 DEFAULT random()");
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(client.value("SELECT count(*) FROM orders WHERE r IS NULL"), "0");
        return took;
    }
    client.ok("ALTER TABLE orders ADD COLUMN r float8");
    let begun = Instant::now();
    match way {
        Way::Single => drop(client.ok("UPDATE orders SET r = random() WHERE r IS NULL")),
        Way::Limit => {
            let batch =
                "UPDATE orders SET r = random() WHERE id IN (SELECT id FROM orders WHERE r IS NULL LIMIT 10000)";
            while client.ok(batch).tags != ["UPDATE 0"] {}
        }
        Way::Keyset | Way::Pgsluice => {
            let mut last = "0".to_owned();
            while !last.is_empty() {
                last = client.value(&format!(
                    "WITH batch AS (SELECT id FROM orders WHERE id > {last} ORDER BY id LIMIT 1000 FOR NO KEY UPDATE), \
                     filled AS (UPDATE orders SET r = random() FROM batch WHERE orders.id = batch.id RETURNING orders.id) \
                     SELECT max(id) FROM filled"
                ));
            }
        }
    }
    begun.elapsed().as_secs_f64()
}

/// In turns with nothing, and with something else that uses a core for as long as a batch, half of the time: what the
/// application feels of that is the machine's, and no backfill could spare it.
fn application(rig: &Rig, load: Load, rows: u32, rounds: u32) {
    let port = rig.target("throttled").port;
    let rate = match u32::try_from(load.interval.as_millis()) {
        Ok(interval @ 1..) => format!("{} statements/s in all", load.workers * 1000 / interval),
        _ => "as fast as they can".to_owned(),
    };
    let workers = load.workers;
    println!("{workers} sessions, {rate}, half of them updates by key; {rows} rows, {rounds} rounds.\n");
    println!(
        "| round | meanwhile | statements/s | median | 99th percentile | of reads | of updates | worst | took |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|--:|"
    );
    let mut late: [Vec<f64>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for round in 1..=rounds {
        table(rig, rows);
        let measured = [
            ("nothing", measure(rig, port, load, rows, || thread::sleep(BASELINE))),
            ("a core is busy half of the time", measure(rig, port, load, rows, || busy(BASELINE))),
            (
                "a backfill",
                measure(rig, port, load, rows, || {
                    let mut client = rig.connect(rig.target("throttled"));
                    client.ok(LONGEST);
                    let outcome = client.query("ALTER TABLE orders ADD COLUMN r float8 DEFAULT random()");
                    assert!(outcome.error.is_none_or(|error| error == "57014"), "{:?}", outcome.message);
                }),
            ),
        ];
        for ((what, measured), late) in measured.iter().zip(&mut late) {
            show(&format!("{round} | {what}"), measured);
            late.push(percentile(&measured.all, 99.0));
        }
    }
    let [nothing, busy, backfill] = late.map(|late| median(&late));
    println!(
        "\nBy the medians, the 99th percentile with a backfill is {:.2} times as long as without, and {:.2} times as long as \
         with a busy core.\n",
        backfill / nothing,
        backfill / busy
    );
}

/// A hundred milliseconds of work and as many of rest, as the default settings of a backfill make it.
fn busy(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let turn = Instant::now();
        while turn.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Milliseconds in order. Reads wait for no row: what only updates feel is the backfill's locks.
struct Delays {
    all: Vec<f64>,
    reads: Vec<f64>,
    updates: Vec<f64>,
    /// Seconds.
    took: f64,
}

fn show(what: &str, delays: &Delays) {
    let [median, late, worst] = [50.0, 99.0, 100.0].map(|share| percentile(&delays.all, share));
    let [reads, updates] = [&delays.reads, &delays.updates].map(|delays| percentile(delays, 99.0));
    let took = delays.took;
    let rate = delays.all.len() as f64 / took;
    println!(
        "| {what} | {rate:.0} | {median:.2} ms | {late:.2} ms | {reads:.2} ms | {updates:.2} ms | {worst:.1} ms | {took:.1} s |"
    );
}

/// What the application's statements take while something is done.
fn measure(rig: &Rig, port: u16, load: Load, rows: u32, meanwhile: impl FnOnce()) -> Delays {
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<JoinHandle<Vec<f64>>> = (0..load.workers)
        .map(|number| {
            let client = Client::connect(port, &rig.postgres.user, "postgres");
            let stop = Arc::clone(&stop);
            thread::spawn(move || work(client, load, number, rows, &stop))
        })
        .collect();
    let begun = Instant::now();
    meanwhile();
    let took = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let (mut reads, mut updates) = (Vec::new(), Vec::new());
    for delays in workers.into_iter().map(|worker| worker.join().expect("a worker")) {
        reads.extend(delays.iter().step_by(2));
        updates.extend(delays.iter().skip(1).step_by(2));
    }
    let mut all = [reads.as_slice(), updates.as_slice()].concat();
    for delays in [&mut all, &mut reads, &mut updates] {
        delays.sort_by(f64::total_cmp);
    }
    Delays { all, reads, updates, took }
}

/// The delay of each statement, of a read and of an update in turns. What is overdue is done before the end, so every statement that was due counts.
fn work(mut client: Client, load: Load, number: u32, rows: u32, stop: &AtomicBool) -> Vec<f64> {
    let mut delays = Vec::new();
    let paced = load.interval > Duration::ZERO;
    let mut due = Instant::now() + load.interval / load.workers * number;
    let mut id = number;
    while !stop.load(Ordering::Relaxed) || (paced && due < Instant::now()) {
        if paced {
            thread::sleep(due.saturating_duration_since(Instant::now()));
        } else {
            due = Instant::now();
        }
        // All over the table.
        id = id.wrapping_mul(48_271).wrapping_add(12_345) % rows + 1;
        match delays.len() % 2 {
            0 => client.ok(&format!("SELECT total FROM orders WHERE id = {id}")),
            _ => client.ok(&format!("UPDATE orders SET total = total + 1 WHERE id = {id}")),
        };
        delays.push(due.elapsed().as_secs_f64() * 1000.0);
        due += load.interval;
    }
    delays
}
