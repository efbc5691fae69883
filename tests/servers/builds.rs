//! Tests of index builds, drops and waits through the proxy: they are concurrent where the version can, and a cancelled one
//! leaves nothing.

use crate::common::{self, Client, new_database, port, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;

struct Scene<'a> {
    server: &'a Postgres,
    running: Running,
    database: String,
}

pub(crate) fn check(server: &Postgres) {
    let running = proxy(server, common::no_table_is_small);
    let scene = Scene { server, running, database: new_database(server, "builds") };
    scene
        .direct()
        .ok("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1000) g");
    scene.plans();
    scene.partitions();
    scene.waits();
    let mut owner = scene.through();
    scene.cancelled("CREATE INDEX x ON t (v)", "CREATE INDEX CONCURRENTLY");
    owner.ok("CREATE INDEX x ON t (v)");
    if server.version >= 12 {
        scene.cancelled("REINDEX TABLE t", "REINDEX TABLE CONCURRENTLY");
        scene.cancelled("REINDEX INDEX x", "REINDEX INDEX CONCURRENTLY");
    }
    owner.ok("REINDEX TABLE t");
    owner.ok("REINDEX INDEX x");
    scene.dropped();
    scene.running.stop_now();
}

impl Scene<'_> {
    fn direct(&self) -> Client {
        Client::connect(self.server.port, &self.server.user, &self.database)
    }

    fn through(&self) -> Client {
        Client::connect(port(&self.running), &self.server.user, &self.database)
    }

    fn explain(&self, sql: &str) -> String {
        let rows = self.through().ok(&format!("EXPLAIN {sql}")).rows;
        rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n")
    }

    /// What cannot be done concurrently is said to be guarded, with the way that there is.
    fn plans(&self) {
        assert!(self.explain("CREATE INDEX x ON t (v)").contains("CREATE INDEX CONCURRENTLY x"));
        let reindex = self.explain("REINDEX TABLE t");
        match self.server.version {
            12.. => assert!(reindex.contains("REINDEX TABLE CONCURRENTLY t"), "{reindex}"),
            _ => {
                assert!(!reindex.contains("CONCURRENTLY"), "{reindex}");
                for said in ["guarded", "WARNING", "Create an index of the same definition"] {
                    assert!(reindex.contains(said), "{said} in {reindex}");
                }
            }
        }
    }

    /// What would be done for partitions: the CHECKs are a proof for this server, and there are such indexes.
    fn partitions(&self) {
        let mut owner = self.direct();
        let mut kinds = vec![
            ("RANGE (id, v)", "FOR VALUES FROM (0, 'a') TO (100, MAXVALUE)"),
            ("RANGE ((id % 7))", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"),
            ("LIST (v)", "FOR VALUES IN ('a', 'it''s', NULL)"),
            ("LIST (id)", "FOR VALUES IN (7)"),
        ];
        if self.server.version >= 11 {
            kinds.push(("HASH (id, n)", "FOR VALUES WITH (MODULUS 4, REMAINDER 1)"));
            kinds.push(("LIST (id)", "DEFAULT"));
        }
        for (key, bounds) in kinds {
            let what = format!("{key} {bounds}");
            owner.ok(&format!("CREATE TABLE parts (id int NOT NULL, v text, n bigint) PARTITION BY {key}"));
            if key == "LIST (id)" {
                owner.ok("CREATE TABLE first PARTITION OF parts FOR VALUES IN (1, 2)");
            }
            if self.server.version >= 11 && bounds != "DEFAULT" && !key.starts_with("HASH") {
                owner.ok("CREATE TABLE rest PARTITION OF parts DEFAULT; CREATE TABLE loose (LIKE parts)");
            } else {
                owner.ok("CREATE TABLE loose (LIKE parts); INSERT INTO loose VALUES (1, 'a')");
            }
            owner.ok("INSERT INTO loose VALUES (5, 'a')");
            let plan = self.explain(&format!("ALTER TABLE parts ATTACH PARTITION loose {bounds}"));
            assert!(plan.contains("since the bounds are proved") && !plan.contains("guarded"), "{what}: {plan}");
            if self.server.version >= 11 {
                let plan = self.explain("CREATE INDEX ON parts (v)");
                assert!(key != "LIST (id)" || plan.contains("CONCURRENTLY"), "{what}: {plan}");
            }
            owner.ok("DROP TABLE parts, loose");
        }
    }

    /// Waiting in the proxy: the comment says for whom, and nobody queues.
    fn waits(&self) {
        let mut watcher = self.direct();
        let mut reader = self.direct();
        reader.ok("BEGIN; SELECT count(*) FROM t");
        let mut ddl = self.through();
        ddl.send_query("ALTER TABLE t ADD COLUMN added int");
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE \
             '/* pgsluice: waiting for ACCESS EXCLUSIVE on public.t, blocked by pid {} %'",
            ddl.pid, reader.pid
        );
        wait_until("it waits in the proxy", || watcher.value(&waits) == "1");
        assert_eq!(watcher.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), "0");
        reader.ok("COMMIT");
        assert_eq!(ddl.outcome().error, None);
    }

    /// A statement that is cancelled while it waits for an old snapshot, in its last step.
    fn cancelled(&self, sql: &str, runs: &str) {
        let mut watcher = self.direct();
        let before = self.indexes(&mut watcher);
        let mut snapshot = self.direct();
        snapshot.ok("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        let mut ddl = self.through();
        ddl.send_query(sql);
        let builds = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '{runs}%' AND wait_event_type = 'Lock'",
            ddl.pid
        );
        wait_until("it waits for the snapshot", || watcher.value(&builds) == "1");
        ddl.cancel(port(&self.running));
        let outcome = ddl.outcome();
        assert_eq!(outcome.error.as_deref(), Some("57014"), "{sql}: {outcome:?}");
        assert_eq!(self.indexes(&mut watcher), before, "{sql} left something");
        assert_eq!(ddl.value("SHOW lock_timeout"), "0");
        snapshot.ok("COMMIT");
    }

    /// Beside a reader of the table, who must not queue.
    fn dropped(&self) {
        let mut watcher = self.direct();
        let mut reader = self.direct();
        reader.ok("BEGIN; SELECT count(*) FROM t");
        let mut ddl = self.through();
        ddl.send_query("DROP INDEX x");
        let drops = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE 'DROP INDEX CONCURRENTLY%' \
             AND wait_event_type = 'Lock'",
            ddl.pid
        );
        wait_until("it waits for the reader", || watcher.value(&drops) == "1");
        assert_eq!(watcher.value("SELECT count(*) FROM t"), "1000");
        reader.ok("COMMIT");
        assert_eq!(ddl.outcome().error, None);
        assert_eq!(self.indexes(&mut watcher), "t_pkey true");
    }

    /// Each index of the table and whether it is valid.
    fn indexes(&self, watcher: &mut Client) -> String {
        let each = "i.indexrelid::regclass || ' ' || (i.indisvalid AND i.indisready AND i.indislive)";
        let of = "i.indrelid IN ('t'::regclass, (SELECT reltoastrelid FROM pg_class WHERE oid = 't'::regclass))";
        let visible = "i.indrelid = 't'::regclass OR NOT i.indisvalid";
        watcher.value(&format!(
            "SELECT string_agg({each}, ', ' ORDER BY i.indexrelid::regclass::text) FROM pg_index i WHERE {of} AND ({visible})"
        ))
    }
}
