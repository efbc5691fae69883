//! Two equal databases, one reached directly and one through a proxy for which every table is large.

use crate::common::{Client, Outcome, no_table_is_small, port, postgres, proxy};
use crate::common::{drop_database, new_database};
use crate::state;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;

pub(crate) static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// A shop, and the table of a migration tool.
pub(crate) const SHOP: &str = "CREATE TABLE shops (id bigint PRIMARY KEY, name text);
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric NOT NULL DEFAULT 0);
    CREATE TABLE lines (id bigint PRIMARY KEY, order_id bigint REFERENCES orders);
    INSERT INTO shops SELECT g, 'shop ' || g FROM generate_series(1, 20) g;
    INSERT INTO orders SELECT g, 'note ' || g, g FROM generate_series(1, 500) g;
    INSERT INTO lines SELECT g, g FROM generate_series(1, 100) g;
    CREATE TABLE schema_migrations (version text PRIMARY KEY);
    INSERT INTO schema_migrations VALUES ('1')";

/// What the client is told of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) tags: Vec<String>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) error: Option<String>,
    pub(crate) status: char,
}

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        if std::env::var_os("SHOW_NOTICES").is_some() {
            eprintln!("{:?} {:?} {:?}", outcome.tags, outcome.notices, outcome.message);
        }
        Self { tags: outcome.tags, rows: outcome.rows, error: outcome.error, status: outcome.status }
    }
}

pub(crate) struct Stage {
    pub(crate) running: Running,
    pub(crate) direct: String,
    pub(crate) proxied: String,
}

impl Stage {
    pub(crate) fn new(prefix: &str, setup: &str) -> Self {
        Self::with(prefix, setup, |_| {})
    }

    pub(crate) fn with(prefix: &str, setup: &str, tweak: impl FnOnce(&mut pgsluice::config::Config)) -> Self {
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            tweak(config);
        });
        let [direct, proxied] = [(), ()].map(|()| {
            let database = new_database(&SERVER, prefix);
            Client::connect(SERVER.port, &SERVER.user, &database).ok(setup);
            database
        });
        Self { running, direct, proxied }
    }

    /// A client that goes through the proxy.
    pub(crate) fn client(&self) -> Client {
        Client::connect(port(&self.running), &SERVER.user, &self.proxied)
    }

    /// A client of the proxied database that does not go through the proxy.
    pub(crate) fn beside(&self) -> Client {
        Client::connect(SERVER.port, &SERVER.user, &self.proxied)
    }

    /// A client of the other database.
    pub(crate) fn directly(&self) -> Client {
        Client::connect(SERVER.port, &SERVER.user, &self.direct)
    }

    pub(crate) fn ahead(&self) -> u64 {
        self.running.shared().metrics.ddl_ahead.value()
    }

    /// Plays the queries on both sides, in the simple protocol or the extended one, and compares what is told and what is left.
    #[track_caller]
    pub(crate) fn same(&self, queries: &[&str], extended: bool) -> Vec<Told> {
        let play = |mut client: Client| -> Vec<Told> {
            let one = |sql: &&str| Told::from(if extended { client.execute(sql) } else { client.query(sql) });
            queries.iter().map(one).collect()
        };
        let (direct, proxied) = (play(self.directly()), play(self.client()));
        for ((sql, direct), proxied) in queries.iter().zip(&direct).zip(&proxied) {
            assert_eq!(direct, proxied, "{sql}\nin {queries:?}");
        }
        self.same_state(&queries.join(";\n"));
        proxied
    }

    /// Compares schema, comments and data of both sides. Every client of theirs must have left.
    #[track_caller]
    pub(crate) fn same_state(&self, what: &str) {
        let [direct, proxied] = [&self.direct, &self.proxied].map(|database| state::of_database(&SERVER, database));
        let only = |one: &[String], other: &[String], whose: &str| {
            let lines = one.iter().filter(|line| !other.contains(line));
            lines.map(|line| format!("{whose}: {line}")).collect::<Vec<_>>()
        };
        let differs = [only(&direct, &proxied, "directly"), only(&proxied, &direct, "proxied")].concat();
        assert!(differs.is_empty(), "{what}\n{}", differs.join("\n"));
        assert_no_locks(&mut self.beside());
    }

    pub(crate) fn end(self) {
        let (direct, proxied) = (self.direct.clone(), self.proxied.clone());
        self.running.stop_now();
        drop_database(&SERVER, &direct);
        drop_database(&SERVER, &proxied);
    }
}

/// No advisory lock of the proxy's is left in this database.
#[track_caller]
pub(crate) fn assert_no_locks(client: &mut Client) {
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    crate::common::wait_until("no advisory lock is held", || client.value(held) == "0");
}
