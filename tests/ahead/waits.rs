//! The longest wait of an application while a migration runs in a transaction.

use crate::common::{Client, proxy};
use crate::common::{new_database, port};
use crate::stage::SERVER;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A loaded machine makes everybody wait a little.
const SLACK: Duration = Duration::from_millis(250);

/// Reads and writes until it is stopped, and gives the longest wait of any query.
fn application(
    database: &str,
    queries: &'static [&'static str],
    stop: &Arc<AtomicBool>,
) -> thread::JoinHandle<Duration> {
    let mut client = Client::connect(SERVER.port, &SERVER.user, database);
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            for sql in queries {
                let begun = Instant::now();
                client.ok(sql);
                longest = longest.max(begun.elapsed());
            }
        }
        longest
    })
}

#[test]
fn nobody_waits_for_a_migration_in_a_transaction() {
    let running = proxy(&SERVER, |_| {});
    let database = new_database(&SERVER, "busy");
    let mut setup = Client::connect(SERVER.port, &SERVER.user, &database);
    setup.ok("CREATE TABLE shops (id bigint PRIMARY KEY); INSERT INTO shops SELECT generate_series(1, 100);
        CREATE TABLE orders (id bigint PRIMARY KEY, note text, total int);
        INSERT INTO orders SELECT g, md5(g::text), g FROM generate_series(1, 300000) g;
        CREATE TABLE baskets (id bigint PRIMARY KEY); INSERT INTO baskets SELECT generate_series(1, 20000);
        CREATE TABLE schema_migrations (version text PRIMARY KEY)");
    setup.ok("VACUUM ANALYZE orders");
    let stop = Arc::new(AtomicBool::new(false));
    let budget = pgsluice::config::Config::default().locks.stall_budget;
    let workers = [
        application(
            &database,
            &[
                "SELECT total FROM orders WHERE id = 7",
                "SELECT count(*) FROM shops",
                "SELECT id FROM baskets WHERE id = 7",
            ],
            &stop,
        ),
        application(
            &database,
            &[
                "UPDATE orders SET total = total + 1 WHERE id = 9",
                "INSERT INTO baskets VALUES (-1); DELETE FROM baskets WHERE id = -1",
                "INSERT INTO orders VALUES (-1); DELETE FROM orders WHERE id = -1",
            ],
            &stop,
        ),
    ];
    // The machine's own hiccups.
    let calm = application(&database, &["SELECT 1"], &stop);
    let mut client = Client::connect(port(&running), &SERVER.user, &database);
    for (version, block) in [
        &["ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops", "CREATE INDEX ON orders (shop_id)"][..],
        &["CREATE INDEX orders_note ON orders (note)"],
        &[
            // A backfill makes way for an application that is as busy as this one, so its table is a smaller one.
            "ALTER TABLE baskets ADD COLUMN token uuid DEFAULT gen_random_uuid() NOT NULL",
            "CREATE INDEX ON baskets (token)",
        ],
        &["ALTER TABLE orders ADD CONSTRAINT unique_note UNIQUE (note)"],
        &["ALTER TABLE orders ADD CONSTRAINT positive CHECK (total > -100)"],
    ]
    .into_iter()
    .enumerate()
    {
        let begun = Instant::now();
        client.ok("BEGIN");
        for sql in block {
            client.ok(sql);
        }
        client.ok(&format!("INSERT INTO schema_migrations VALUES ('{version}')"));
        client.ok("COMMIT");
        eprintln!("{:?} for {block:?}", begun.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let longest = workers.map(|worker| worker.join().unwrap()).into_iter().max().unwrap();
    let calm = calm.join().unwrap();
    eprintln!("the longest wait: {longest:?}, of {calm:?} the machine's own");
    assert!(longest < budget + calm + SLACK, "{longest:?}, the machine's own {calm:?}");
    assert_eq!(running.shared().metrics.ddl_not_ahead.value(), 0);
    running.stop_now();
}
