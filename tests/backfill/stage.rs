//! The setting for the tests of backfills: a server, a proxy, a table, and the switch that pauses a backfill.

use crate::common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::Config;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;

/// What stops all backfills, if a test has it in its settings.
const SWITCH: &str = "CREATE TABLE public.switch (go bool NOT NULL); INSERT INTO public.switch VALUES (false)";
const CONDITION: &str = "(SELECT go FROM public.switch) -- ours";

pub(super) struct Stage {
    pub(super) postgres: Postgres,
    pub(super) running: Running,
    pub(super) database: String,
    pub(super) watcher: Client,
}

impl Stage {
    pub(super) fn new(tweak: impl FnOnce(&mut Config)) -> Self {
        Self::on(postgres(), tweak)
    }

    pub(super) fn on(postgres: Postgres, tweak: impl FnOnce(&mut Config)) -> Self {
        let running = proxy(&postgres, |config| {
            config.ddl.small_table = 0;
            config.backfill.pause_ratio = 0.0;
            tweak(config);
        });
        let database = new_database(&postgres, "backfill");
        let watcher = Client::connect(postgres.port, &postgres.user, &database);
        Self { postgres, running, database, watcher }
    }

    /// With a switch, which is off.
    pub(super) fn switched(tweak: impl FnOnce(&mut Config)) -> Self {
        let mut stage = Self::new(|config| {
            config.backfill.condition = Some(CONDITION.to_owned());
            tweak(config);
        });
        stage.watcher.ok(SWITCH);
        stage
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(port(&self.running), &self.postgres.user, &self.database)
    }

    pub(super) fn direct(&self) -> Client {
        Client::connect(self.postgres.port, &self.postgres.user, &self.database)
    }

    /// A table `t` of so many rows in the order of their ids, without a free place in its pages.
    pub(super) fn table(&mut self, rows: u32) {
        self.watcher.ok("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL)");
        self.watcher.ok(&format!("INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, {rows}) g"));
        self.watcher.ok("VACUUM ANALYZE t");
    }

    /// Waits until the session's statement is like this.
    pub(super) fn until_runs(&mut self, client: &Client, pattern: &str) {
        let running =
            format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '{pattern}'", client.pid);
        wait_until(pattern, || self.watcher.value(&running) == "1");
    }

    pub(super) fn until_runs_any(&mut self, pattern: &str) {
        let running = format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{pattern}'");
        wait_until(pattern, || self.watcher.value(&running) == "1");
    }

    pub(super) fn until_paused(&mut self, client: &Client) {
        self.until_runs(client, "/* pgsluice: backfill of %, paused: the condition%");
    }

    pub(super) fn go(&mut self) {
        self.watcher.ok("UPDATE switch SET go = true");
    }

    pub(super) fn column(&mut self) -> String {
        self.watcher.value(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped \
             AND attname = 'r'",
        )
    }

    /// Rows, rows with a value, and how many values there are.
    pub(super) fn counts(&mut self, table: &str) -> Vec<String> {
        let rows = self.watcher.ok(&format!("SELECT count(*), count(r), count(DISTINCT r) FROM {table}")).rows;
        rows.into_iter().flatten().flatten().collect()
    }

    /// Nothing of a backfill's is left in the server, and the column is gone.
    pub(super) fn assert_undone(&mut self, what: &str) {
        assert_eq!(self.column(), "0", "{what}");
        let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' OR relation = 't'::regclass";
        assert_eq!(self.watcher.value(left), "0", "{what}");
    }
}

pub(super) const ADD: &str = "ALTER TABLE t ADD COLUMN r float8 DEFAULT random()";

pub(super) fn all(rows: u32) -> Vec<String> {
    vec![rows.to_string(); 3]
}
