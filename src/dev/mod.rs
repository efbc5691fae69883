//! `pgsluice dev`, `pgsluice demo`, and the throw-away PostgreSQL that they and the tests use.
//!
//! `dev` starts the proxy in front of a fresh server. Invariant: nothing is left behind when it ends.

mod binaries;
mod client;
pub mod demo;
mod load;
pub mod server;
mod operators;
mod shop;

pub use server::{Options, Postgres};

use crate::config::{Address, Config, Mode, Operator};
use crate::pg::sqlstate;
use crate::report::Report;
use std::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the playground until Ctrl-C or SIGTERM.
pub fn run(listen: &Address, mode: Mode) -> Result<(), Report> {
    check_free(listen)?;
    let signals = Signals::listen()?;
    println!("Starting a throw-away PostgreSQL, and filling a shop with {} orders …", shop::ORDERS);
    let postgres = Postgres::start(Options::default())?;
    shop::open(&postgres)?;
    let mut config = config(&postgres, listen, mode);
    operators::let_in(&postgres, &mut config)?;
    let proxy = crate::server::spawn(config)?;
    println!("{}", welcome(&postgres, listen));
    signals.wait();
    println!("Stopping, and removing the throw-away PostgreSQL …");
    proxy.stop();
    Ok(())
}

/// The settings of a proxy in front of a throw-away server.
fn config(postgres: &Postgres, listen: &Address, mode: Mode) -> Config {
    let mut config = Config::default();
    config.proxy.mode = mode;
    config.proxy.listen = vec![listen.clone()];
    config.proxy.backend = shop::address(postgres);
    config.proxy.drain_grace = std::time::Duration::from_secs(1);
    config.operator = Operator { user: Some(postgres.user.clone()), ..Operator::default() };
    config.operator.dbname = Some(shop::DATABASE.to_owned());
    config
}

/// Checks that `listen` is free. The check comes early, so that nobody waits for a server only to get this error.
fn check_free(listen: &Address) -> Result<(), Report> {
    let Address::Tcp { host, port } = listen else { return Ok(()) };
    TcpListener::bind((host.as_str(), *port)).map(drop).map_err(|error| {
        Report::error(sqlstate::CONNECTION_FAILURE, format!("could not listen on {listen}: {error}"))
            .hint(format!("Choose another address, such as --listen {}.", Address::tcp(host, port.saturating_add(1))))
    })
}

fn welcome(postgres: &Postgres, listen: &Address) -> String {
    let (user, database) = (shop::USER, shop::DATABASE);
    let psql = |login: &str, password: &str, database: &str| match listen {
        Address::Tcp { .. } => format!("psql postgres://{login}{password}@{listen}/{database}"),
        Address::Unix { dir, port } => {
            format!("psql \"host={} port={port} user={login} dbname={database}\"", dir.display())
        }
    };
    let (console, sql) = (psql("ann", ":ann", "pgsluice"), psql("ann", "", database));
    let psql = psql(user, "", database);
    format!(
        "
pgsluice listens on {listen}, in front of PostgreSQL {version} on {host}:{port}.

    {psql}

Four things to try, each with several windows open like that:

 1. Add a column while somebody holds the table.
      one window      BEGIN; SELECT count(*) FROM orders;
      a second        ALTER TABLE orders ADD COLUMN note text;
      a third         SELECT * FROM orders WHERE id = 1 \\watch 0.5
    The ALTER waits, and says for whom; the reads go on. COMMIT in the first, and the column is there.

 2. Build an index while somebody writes.
      one window      UPDATE orders SET status = 'sent' WHERE id = 1 \\watch 0.1
      a second        CREATE INDEX ON orders (customer_id);
    No write waits.

 3. Ask first.
      EXPLAIN ALTER TABLE orders ALTER COLUMN total TYPE text;

 4. Decide. A rule holds what changes customers. The operators are ann (admin) and vic (viewer); each password is the name.
      one window      ALTER TABLE customers ADD COLUMN phone text;
      the console     {console}
                      SHOW CHANGES;   SHOW CHANGE 1;   (the number is in the NOTICE of the first window)
      either there    APPROVE 1 REASON 'looks fine';
      or in SQL       {sql}
                      SELECT pgsluice.approve(1, 'looks fine');
    The ALTER goes on. Who has decided, and why: SELECT * FROM pgsluice.events;

Ctrl-C stops both and removes everything.",
        version = postgres.version,
        host = postgres.host,
        port = postgres.port,
    )
}

/// SIGINT and SIGTERM, caught from now on. An early signal is not lost, and the process cleans up.
struct Signals {
    runtime: tokio::runtime::Runtime,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Report> {
        let failed = |error| Report::error(sqlstate::CONNECTION_FAILURE, format!("could not catch signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let guard = runtime.enter();
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        drop(guard);
        Ok(Self { runtime, interrupt, terminate })
    }

    fn wait(mut self) {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        });
    }
}
