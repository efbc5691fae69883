//! `pgsluice demo`: runs the same schema changes in three ways while a long transaction blocks them.
//!
//! The demo measures the application beside the schema change, not the schema change.

use super::client::Client;
use super::load::{Felt, Load};
use super::server::{Options, Postgres, free_port};
use super::shop;
use crate::config::{Address, Mode};
use crate::pg::sqlstate;
use crate::report::Report;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the blocking transaction stays open, like a report, a backup, or a forgotten session.
const IN_THE_WAY: Duration = Duration::from_secs(4);
/// The time that the load runs before and after the change, to show its delays without a change.
const CALM: Duration = Duration::from_millis(300);
/// The pause of the usual retry loop.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A schema change and the statements that undo it.
struct Change {
    /// One line for each statement.
    sql: &'static str,
    undo: &'static str,
}

const CHANGES: [Change; 3] = [
    Change { sql: "ALTER TABLE orders ADD COLUMN note text", undo: "ALTER TABLE orders DROP COLUMN note" },
    Change { sql: "CREATE INDEX orders_customer ON orders (customer_id)", undo: "DROP INDEX orders_customer" },
    // As a migration tool sends it.
    Change {
        sql: "BEGIN;\n\
              ALTER TABLE orders ADD COLUMN shop_id bigint REFERENCES shops;\n\
              CREATE INDEX ON orders (shop_id);\n\
              INSERT INTO schema_migrations VALUES ('2');\n\
              COMMIT",
        undo: "ALTER TABLE orders DROP COLUMN shop_id; DELETE FROM schema_migrations",
    },
];

impl Change {
    /// Runs the statements. `false`: a lock was not free, and nothing is done.
    fn run_if_locks_are_free(&self, client: &Client) -> Result<bool, Report> {
        for sql in self.sql.split('\n') {
            if !client.run_if_lock_is_free(sql)? {
                if self.sql.starts_with("BEGIN") {
                    client.run("ROLLBACK")?;
                }
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A way to run a schema change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Directly,
    LockTimeout,
    Pgsluice,
}

impl Way {
    const ALL: [Self; 3] = [Self::Directly, Self::LockTimeout, Self::Pgsluice];

    fn title(self) -> &'static str {
        match self {
            Self::Directly => "directly",
            Self::LockTimeout => "lock_timeout = 2s, and retry",
            Self::Pgsluice => "through pgsluice",
        }
    }
}

/// One line of the table.
struct Outcome {
    way: Way,
    felt: Felt,
    took: Duration,
}

/// Runs the demonstration and prints its table.
pub fn run() -> Result<(), Report> {
    println!("Starting a throw-away PostgreSQL, and filling a shop with {} orders …", shop::ORDERS);
    let postgres = Postgres::start(Options::default())?;
    shop::open(&postgres)?;
    let direct = shop::address(&postgres);
    let port = free_port().map_err(|error| failed(format!("could not find a free port: {error}")))?;
    let proxied = Address::tcp("127.0.0.1", port);
    let proxy = crate::server::spawn(super::config(&postgres, &proxied, Mode::Plan))?;
    println!("3 readers and 2 writers work on orders, 100 queries a second each. A transaction that has read and");
    println!("written one order stays open for {} s; then comes the schema change.", IN_THE_WAY.as_secs());
    for change in &CHANGES {
        println!("\n{}", change.sql);
        println!("{}", heading());
        for way in Way::ALL {
            let address = if way == Way::Pgsluice { &proxied } else { &direct };
            println!("{}", line(&measure(change, way, address)?));
            Client::connect(&direct, shop::USER, shop::DATABASE)?.run(change.undo)?;
        }
    }
    println!("\nTo try it yourself: pgsluice dev");
    proxy.stop();
    Ok(())
}

/// Runs one way: load, the blocking transaction, the change, load.
fn measure(change: &Change, way: Way, address: &Address) -> Result<Outcome, Report> {
    let load = Load::start(address)?;
    thread::sleep(CALM);
    let in_the_way = get_in_the_way(address)?;
    let client = Client::connect(address, shop::USER, shop::DATABASE)?;
    let started = Instant::now();
    match way {
        Way::Directly | Way::Pgsluice => change.sql.split('\n').try_for_each(|sql| client.run(sql))?,
        Way::LockTimeout => {
            client.run("SET lock_timeout = '2s'")?;
            while !change.run_if_locks_are_free(&client)? {
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
    let took = started.elapsed();
    in_the_way.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    thread::sleep(CALM);
    Ok(Outcome { way, felt: load.finish()?, took })
}

/// Starts a transaction that holds its locks on `orders` when this function returns, and for some seconds more.
fn get_in_the_way(address: &Address) -> Result<thread::JoinHandle<Result<(), Report>>, Report> {
    let client = Client::connect(address, shop::USER, shop::DATABASE)?;
    let (ready, is_ready) = mpsc::channel();
    let thread = thread::spawn(move || {
        client.run("BEGIN; SELECT total FROM orders WHERE id = 1; UPDATE orders SET total = total + 1 WHERE id = 1")?;
        // The receiver waits for this message.
        let _ = ready.send(());
        thread::sleep(IN_THE_WAY);
        client.run("COMMIT")
    });
    match is_ready.recv() {
        Ok(()) => Ok(thread),
        // The thread ended before it was ready. Its error says why.
        Err(_) => match thread.join() {
            Ok(Err(report)) => Err(report),
            Ok(Ok(())) => Err(failed("the transaction in the way ended too early")),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

fn heading() -> String {
    let delayed = "queries > 100 ms late";
    format!("  {:<30}{:>14}{:>14}{delayed:>24}{:>12}", "", "worst read", "worst write", "done after")
}

fn line(outcome: &Outcome) -> String {
    let Outcome { way, felt, took } = outcome;
    let delayed = format!("{} of {}", felt.delayed, felt.queries);
    let (read, write) = (milliseconds(felt.worst_read), milliseconds(felt.worst_write));
    format!("  {:<30}{read:>14}{write:>14}{delayed:>24}{:>10.1} s", way.title(), took.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn failed(message: impl Into<String>) -> Report {
    Report::error(sqlstate::CONNECTION_FAILURE, message)
}
