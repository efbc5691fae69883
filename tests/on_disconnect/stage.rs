//! The stage of the tests of clients that leave: a server, a proxy, a build that waits in the middle, and an operator at the console.

use crate::common::{Client, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::config::{Address, Config};
use pgsluice::dev::Postgres;
use pgsluice::registry::ChangeEntry;
use pgsluice::server::Running;
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// One server for all; it ends with this process.
pub(crate) static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// `slow()` waits for as long as the holder has its advisory lock, except in a session with `slow.off`. A wait for the lock itself would end
/// with `lock_timeout`.
pub(crate) const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, a int);
    INSERT INTO t SELECT g, g % 50 FROM generate_series(1, 100) g;
    CREATE TABLE log (line text);
    CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
      WHILE current_setting('slow.off', true) IS NULL AND NOT pg_try_advisory_xact_lock_shared(42) LOOP PERFORM pg_sleep(0.01); END LOOP;
      RETURN $1;
    END $$";

/// A build, and the index that it makes.
pub(crate) const INDEX: &str = "CREATE INDEX i ON t (slow(a))";

pub(crate) struct Stage {
    pub(crate) running: Running,
    folder: PathBuf,
    pub(crate) database: String,
    pub(crate) direct: Client,
    holder: Client,
}

impl Stage {
    pub(crate) fn new(name: &str, tweak: impl FnOnce(&mut Config)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pgsluice-left-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let running = proxy(&SERVER, |config| {
            no_table_is_small(config);
            config.proxy.listen.push(Address::Unix { dir: folder.clone(), port: 6432 });
            tweak(config);
        });
        let database = new_database(&SERVER, name);
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
        direct.ok(TABLES);
        let holder = Client::connect(SERVER.port, &SERVER.user, &database);
        Self { running, folder, database, direct, holder }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(port(&self.running), &SERVER.user, &self.database)
    }

    /// From here on `slow()` waits.
    pub(crate) fn hold(&mut self) {
        self.holder.ok("SELECT pg_advisory_lock(42)");
    }

    pub(crate) fn release(&mut self) {
        self.holder.ok("SELECT pg_advisory_unlock_all()");
    }

    /// The client's backend is in `slow()`.
    pub(crate) fn wait_until_slow(&mut self, client: &Client) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep' AND query NOT LIKE '%pgsluice:%'",
            client.pid
        );
        wait_until("the statement is under way", || self.direct.value(&sql) == "1");
    }

    /// A client whose statement is under way, and waits in `slow()`.
    pub(crate) fn begun(&mut self, sql: &str) -> Client {
        self.hold();
        let mut client = self.client();
        client.send_query(sql);
        self.wait_until_slow(&client);
        client
    }

    /// The changes that go on without their clients.
    pub(crate) fn left(&self) -> Vec<Arc<ChangeEntry>> {
        let changes = self.running.shared().registry.changes();
        changes.into_iter().filter(|change| change.client_has_left()).collect()
    }

    /// The client leaves, and its statement goes on. The client's key can still be used for a cancel.
    pub(crate) fn leave(&self, client: &Client) {
        client.stream.shutdown(Shutdown::Both).unwrap();
        wait_until("the proxy knows that the client has left", || self.left().len() == 1);
    }

    /// Waits until the backend is gone.
    pub(crate) fn wait_until_gone(&mut self, pid: i32) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("the backend is gone", || self.direct.value(&sql) == "0");
    }

    /// The indexes of the table besides its key, each with whether it is valid.
    pub(crate) fn indexes(&mut self) -> String {
        self.direct.value(
            "SELECT coalesce(string_agg(format('%s %s', indexrelid::regclass, indisvalid), ', ' ORDER BY indexrelid), '')
               FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisprimary",
        )
    }

    /// Asserts that nothing of a change is left: no record, no lane, no session of a client.
    #[track_caller]
    pub(crate) fn assert_clean(&mut self, pid: i32) {
        self.wait_until_gone(pid);
        let record = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND obj_description(reltype, 'pg_type') LIKE 'pgsluice%'";
        assert_eq!(self.direct.value(record), "0", "a record");
        let locks = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> {} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self.holder.pid
        );
        assert_eq!(self.direct.value(&locks), "0", "lanes");
        assert!(self.running.shared().registry.changes().is_empty());
    }

    /// What the console answers.
    pub(crate) fn console(&self, sql: &str) -> Vec<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let messages = runtime.block_on(async {
            let mut config = tokio_postgres::Config::new();
            config.host_path(&self.folder).port(6432).user("ann").dbname("pgsluice");
            let (client, connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client.simple_query(sql).await.unwrap()
        });
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
