//! Changes to a table between the reading of its facts and the work on it: another session's schema change, and the remains
//! of a dead one.
//!
//! The proxy never reports an unfinished change as done, and never undoes a change that another session was told is there.

use crate::common::program::Program;
use crate::common::stop::{STOPS, send_and_stop};
use crate::common::{Client, new_database, port, postgres, proxy, wait_until};
use pgsluice::config::OnDisconnect;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;
use std::time::Duration;

static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

const TABLES: &str = "
    CREATE TABLE switch AS SELECT false AS go;
    CREATE TABLE t (id bigint PRIMARY KEY, a int, b text);
    INSERT INTO t SELECT g, g % 10, 'x' FROM generate_series(1, 20000) g;
    CREATE TABLE p (id int NOT NULL, v int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (10000);
    INSERT INTO p SELECT g, g FROM generate_series(1, 2000) g;
    CREATE INDEX ON p (v);
    CREATE TABLE apart (id int NOT NULL, v int, CHECK (id >= 10000 AND id < 20000));
    INSERT INTO apart SELECT 10000 + g, g FROM generate_series(1, 2000) g";

/// Two proxies on one database, whose backfills go on only when the switch says so.
struct Stage {
    database: String,
    proxies: [Running; 2],
    watcher: Client,
}

impl Stage {
    fn new(prefix: &str) -> Self {
        let database = new_database(&SERVER, prefix);
        let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
        watcher.ok(TABLES);
        watcher.ok(STOPS);
        let proxies = [(); 2].map(|()| {
            proxy(&SERVER, |config| {
                config.ddl.small_table = 0;
                config.ddl.record_interval = Duration::from_millis(1);
                // A session that dies leaves its work to the next one.
                config.ddl.on_disconnect = OnDisconnect::Undo;
                config.backfill.pause_ratio = 0.0;
                config.backfill.condition = Some("(SELECT go FROM public.switch)".to_owned());
            })
        });
        Self { database, proxies, watcher }
    }

    fn client(&self, proxy: usize) -> Client {
        Client::connect(port(&self.proxies[proxy]), &SERVER.user, &self.database)
    }

    fn direct(&self) -> Client {
        Client::connect(SERVER.port, &SERVER.user, &self.database)
    }

    fn wait_for(&mut self, pid: i32, pattern: &str) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '{pattern}'");
        wait_until(pattern, || self.watcher.value(&sql) == "1");
    }

    fn until_recorded(&mut self, table: &str) {
        let sql = format!("SELECT count(obj_description(reltype, 'pg_type')) FROM pg_class WHERE relname = '{table}'");
        wait_until("it is recorded", || self.watcher.value(&sql) == "1");
    }

    fn until_gone(&mut self, pid: i32) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("its backend is gone", || self.watcher.value(&sql) == "0");
    }

    /// The session of a statement is terminated at the first of its steps that is like this.
    fn lose(&mut self, proxy: usize, sql: &str, pattern: &str) {
        let (mut holder, mut client) = (self.direct(), self.client(proxy));
        send_and_stop(&mut client, sql, pattern, &mut self.watcher, &mut holder);
        let pid = client.pid;
        self.watcher.ok(&format!("SELECT pg_terminate_backend({pid})"));
        self.until_gone(pid);
        holder.goodbye();
    }

    fn go(&mut self) {
        self.watcher.ok("UPDATE switch SET go = true");
    }

    fn columns(&mut self) -> String {
        self.watcher.value(
            "SELECT string_agg(concat(attname, CASE WHEN attnotnull THEN '!' END, CASE WHEN atthasdef THEN '=' END), ' ' ORDER BY attnum) \
             FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 3 AND NOT attisdropped",
        )
    }

    /// Constraints, indexes that are not valid, records, lanes.
    fn left(&mut self) -> String {
        self.watcher.value(
            "SELECT concat_ws(' ', (SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype <> 'n'), \
             (SELECT count(*) FROM pg_index WHERE NOT indisvalid), \
             (SELECT count(*) FROM pg_description WHERE description LIKE 'pgsluice%'), \
             (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))",
        )
    }

    fn file(&mut self) -> String {
        self.watcher.value("SELECT pg_relation_filenode('t')")
    }
}

const ADD: &str = "ALTER TABLE t ADD COLUMN IF NOT EXISTS u float8 DEFAULT random()";

/// Whoever comes while it is under way waits, and is told what is true when it is over: here that nothing is left of it.
#[test]
fn a_client_that_leaves_takes_nothing_from_the_next_one() {
    let mut stage = Stage::new("leaves");
    for extended in [false, true] {
        let (mut first, mut second) = (stage.client(0), stage.client(1));
        first.send_query(ADD);
        stage.until_recorded("t");
        match extended {
            false => second.send_query(ADD),
            true => second.send(&[&Client::extended(ADD)[..], &[b'S', 0, 0, 0, 4]].concat()),
        }
        stage.wait_for(second.pid, "%waiting for another schema change of t%");
        drop(first);
        stage.go();
        assert_eq!(second.outcome().error, None);
        assert_eq!(stage.watcher.value("SELECT count(u) || ' ' || count(DISTINCT u) FROM t"), "20000 20000");
        assert_eq!(stage.left(), "t_pkey 0 0 0");
        second.ok("ALTER TABLE t DROP COLUMN u");
        stage.watcher.ok("UPDATE switch SET go = false");
    }
}

/// The same in a block, which holds locks of its own.
#[test]
fn what_is_under_way_is_not_told_as_done_in_a_block() {
    let mut stage = Stage::new("in_block");
    for before in ["SELECT 1", "INSERT INTO switch SELECT false WHERE false", "LOCK apart IN SHARE MODE"] {
        let (mut first, mut second) = (stage.client(0), stage.client(1));
        first.send_query(ADD);
        stage.until_recorded("t");
        second.ok("BEGIN");
        second.ok(before);
        second.send_query(ADD);
        stage.wait_for(second.pid, "%waiting for another schema change of t%");
        drop(first);
        stage.go();
        let outcome = second.outcome();
        assert_eq!(outcome.error, None, "{before}: {outcome:?}");
        assert!(!outcome.notices.iter().any(|notice| notice.contains("already exists")), "{before}: {outcome:?}");
        second.ok("COMMIT");
        // Nor is a lane kept that the block would have to give back.
        let lanes = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        assert_eq!(second.value(lanes), "0", "{before}");
        assert_eq!(stage.watcher.value("SELECT count(u) FROM t"), "20000", "{before}");
        assert_eq!(stage.left(), "t_pkey 0 0 0", "{before}");
        second.ok("ALTER TABLE t DROP COLUMN u");
        stage.watcher.ok("UPDATE switch SET go = false");
    }
}

/// The facts of the second would be those of a table with a constraint that is just being validated.
#[test]
fn a_plan_is_not_older_than_the_wait_before_it() {
    let mut stage = Stage::new("older");
    stage.go();
    let file = stage.file();
    let (mut first, mut second, mut holder) = (stage.client(0), stage.client(1), stage.direct());
    let check = "ALTER TABLE t ADD CONSTRAINT zc CHECK (a < 10)";
    send_and_stop(&mut first, check, "%VALIDATE CONSTRAINT%", &mut stage.watcher, &mut holder);
    second.send_query("ALTER TABLE t ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid()");
    stage.wait_for(second.pid, "%waiting for another schema change of t%");
    holder.goodbye();
    assert_eq!(first.outcome().error, None);
    let outcome = second.outcome();
    assert_eq!(outcome.error, None);
    assert!(!outcome.notices.iter().any(|notice| notice.contains("WARNING")), "{outcome:?}");
    assert_eq!(stage.file(), file, "the table was rewritten under its lock");
    assert_eq!(stage.columns(), "u!=");
    assert_eq!(stage.left(), "t_pkey zc 0 0 0");
}

/// A wait for a lock, too: what is done meanwhile past the proxy is seen.
#[test]
fn a_plan_is_made_again_behind_a_lock() {
    let mut stage = Stage::new("behind");
    stage.go();
    for extended in [false, true] {
        let (mut blocker, mut client) = (stage.direct(), stage.client(0));
        blocker.ok("BEGIN; ALTER TABLE t ADD COLUMN u float8");
        match extended {
            false => client.send_query(ADD),
            true => client.send(&[&Client::extended(ADD)[..], &[b'S', 0, 0, 0, 4]].concat()),
        }
        stage.wait_for(client.pid, "%waiting for ACCESS EXCLUSIVE on public.t%");
        blocker.ok("COMMIT");
        let outcome = client.outcome();
        assert_eq!(outcome.error, None);
        assert!(outcome.notices.iter().any(|notice| notice.contains("already exists, skipping")), "{outcome:?}");
        assert_eq!(stage.columns(), "u");
        stage.watcher.ok("ALTER TABLE t DROP COLUMN u");
    }
}

/// In other words than the author of what is unfinished: it is undone first, and then done as asked.
#[test]
fn what_a_dead_session_has_left_is_not_told_as_done() {
    let mut stage = Stage::new("dead");
    for (again, then) in [
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS u double precision DEFAULT random()", "u= 20000"),
        ("ALTER TABLE t ADD COLUMN IF NOT EXISTS u float8", "u 0"),
        (ADD, "u= 20000"),
    ] {
        stage.watcher.ok("UPDATE switch SET go = false");
        let mut first = stage.client(0);
        first.send_query(ADD);
        stage.until_recorded("t");
        stage.watcher.ok(&format!("SELECT pg_terminate_backend({})", first.pid));
        stage.until_gone(first.pid);
        stage.go();
        // Nothing of it can be undone in a block: it is not told to be there either.
        let mut second = stage.client(1);
        second.ok("BEGIN");
        let outcome = second.query(again);
        assert_eq!(outcome.error.as_deref(), Some("55006"), "{again}: {outcome:?}");
        assert_eq!(second.ok("ROLLBACK").status, 'I');
        second.ok(again);
        let columns = stage.columns();
        let there = format!("{columns} {}", stage.watcher.value("SELECT count(u) FROM t"));
        assert_eq!(there, then, "{again}");
        assert_eq!(stage.left(), "t_pkey 0 0 0", "{again}");
        // The first proxy remembers; it takes nothing back from those who were told that it is there.
        stage.client(0).ok("ALTER TABLE t ALTER b SET DEFAULT 'y'");
        assert_eq!(stage.columns(), columns, "{again}");
        stage.watcher.ok("ALTER TABLE t DROP COLUMN u");
    }
}

/// A constraint of ours that is not valid yet is no reason to rewrite the table under its lock.
#[test]
fn what_a_dead_session_has_left_is_in_nobodys_way() {
    let mut stage = Stage::new("way");
    stage.go();
    let file = stage.file();
    stage.lose(0, "ALTER TABLE t ADD CONSTRAINT zc CHECK (a < 10)", "%VALIDATE CONSTRAINT%");
    let outcome = stage.client(1).ok("ALTER TABLE t ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid()");
    assert!(!outcome.notices.iter().any(|notice| notice.contains("WARNING")), "{outcome:?}");
    assert_eq!(stage.file(), file, "the table was rewritten under its lock");
    assert_eq!(stage.left(), "t_pkey 0 0 0");
}

/// What cannot be taken back now is not taken for done by the next one either: it waits.
#[test]
fn what_is_still_to_be_undone_is_not_told_as_done() {
    let mut stage = Stage::new("undone");
    let mut first = stage.client(0);
    first.send_query(ADD);
    stage.until_recorded("t");
    let mut reader = stage.direct();
    reader.ok("BEGIN; SELECT FROM t LIMIT 1");
    first.cancel(port(&stage.proxies[0]));
    let outcome = first.outcome();
    assert_eq!(outcome.error.as_deref(), Some("57014"));
    assert!(
        outcome.notices.iter().any(|notice| notice.contains("could not undo the earlier phases of this statement yet")),
        "{outcome:?}"
    );
    stage.go();
    let mut second = stage.client(1);
    second.send_query(ADD);
    stage.wait_for(second.pid, "%pgsluice: waiting%");
    reader.ok("COMMIT");
    assert_eq!(second.outcome().error, None);
    assert_eq!(stage.watcher.value("SELECT count(u) || ' ' || count(DISTINCT u) FROM t"), "20000 20000");
    stage.client(0).ok("ALTER TABLE t ALTER b SET DEFAULT 'y'");
    assert_eq!(stage.columns(), "u=");
    assert_eq!(stage.left(), "t_pkey 0 0 0");
}

/// A record of which only an index is built, or being built, is not written over by another statement's.
#[test]
fn a_record_of_a_build_is_not_free() {
    let mut stage = Stage::new("free");
    stage.go();
    let add = "ALTER TABLE t ADD CONSTRAINT one UNIQUE (id, a)";
    for pattern in ["CREATE UNIQUE INDEX%", "%USING INDEX%"] {
        stage.lose(0, add, pattern);
        stage.client(1).ok("ALTER TABLE t ALTER b SET NOT NULL");
        stage.client(1).ok(add);
        assert_eq!(stage.left(), "one t_pkey 0 0 0", "{pattern}");
        let indexes = stage.watcher.value("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass");
        assert_eq!(indexes, "2", "{pattern}");
        stage.watcher.ok("ALTER TABLE t DROP CONSTRAINT one; ALTER TABLE t ALTER b DROP NOT NULL");
    }
}

/// Undone, and its record not yet removed: it begins anew.
#[test]
fn a_death_behind_the_undo() {
    let mut stage = Stage::new("behind_undo");
    let check = "ALTER TABLE t ADD CONSTRAINT few CHECK (id > 0)";
    let (mut first, mut holder, mut hinders) = (stage.client(0), stage.direct(), stage.direct());
    send_and_stop(&mut first, check, "%VALIDATE CONSTRAINT%", &mut stage.watcher, &mut holder);
    hinders.ok("BEGIN; COMMENT ON TYPE t IS 'another'");
    stage.watcher.ok("INSERT INTO fail_at VALUES ('%VALIDATE CONSTRAINT%')");
    holder.goodbye();
    let undone = "SELECT count(*) FROM pg_constraint WHERE conname = 'few'";
    wait_until("it is undone", || stage.watcher.value(undone) == "0");
    stage.watcher.ok(&format!("SELECT pg_terminate_backend({})", first.pid));
    stage.until_gone(first.pid);
    hinders.ok("ROLLBACK");
    stage.until_recorded("t");
    let outcome = stage.client(1).query(check);
    assert_eq!(outcome.error, None, "{outcome:?}");
    assert_eq!(stage.left(), "few t_pkey 0 0 0");
}

/// Begins a build through the proxy that fails as soon as the first of the two sessions has said goodbye. The second is its client's.
fn begin_failing_build(stage: &mut Stage) -> (Client, Client) {
    stage.watcher.ok("CREATE FUNCTION fails(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN
          IF $1 = 5 AND current_query() LIKE '%failing%' THEN
            WHILE NOT pg_try_advisory_xact_lock_shared(42) LOOP PERFORM pg_sleep(0.01); END LOOP;
            RAISE EXCEPTION 'no';
          END IF;
          RETURN $1;
        END $$");
    let (mut holder, mut client) = (stage.direct(), stage.client(0));
    holder.ok("SELECT pg_advisory_lock(42)");
    client.send_query("CREATE INDEX failing ON t (fails(a))");
    stage.wait_for(client.pid, "%INDEX CONCURRENTLY failing%");
    (holder, client)
}

/// A build of another session, past the proxy, that waits for the one that fails: its index is left alone, and the failed one goes.
#[test]
fn a_failed_build_leaves_nothing_beside_another() {
    let mut stage = Stage::new("beside");
    let (holder, mut client) = begin_failing_build(&mut stage);
    let mut other = stage.direct();
    other.send_query("CREATE INDEX CONCURRENTLY beside ON t (b)");
    let waits = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {}", other.pid);
    wait_until("the other waits", || stage.watcher.value(&waits) == "1");
    holder.goodbye();
    let outcome = client.outcome();
    assert_eq!(outcome.error.as_deref(), Some("P0001"), "{outcome:?}");
    assert_eq!(other.outcome().error, None);
    let there = "SELECT string_agg(concat(indexrelid::regclass, CASE WHEN NOT indisvalid THEN ' invalid' END), ', ' ORDER BY 1) \
        FROM pg_index WHERE indrelid = 't'::regclass";
    let there = stage.watcher.value(&there.replace("ORDER BY 1", "ORDER BY indexrelid::regclass::text"));
    assert_eq!(there, "beside, t_pkey", "{outcome:?}");
}

/// A build gives its lock back when it has marked its index valid, and commits after that. In between the index looks invalid and nobody's.
#[test]
fn an_index_that_becomes_valid_just_now_is_left_alone() {
    let mut stage = Stage::new("becomes_valid");
    stage.watcher.ok("CREATE INDEX beside ON t (b)");
    let (holder, mut client) = begin_failing_build(&mut stage);
    let mut other = stage.direct();
    // As the last transaction of a build leaves it until it commits.
    let valid = "UPDATE pg_index SET indisvalid = {} WHERE indexrelid = 'beside'::regclass";
    stage.watcher.ok(&valid.replace("{}", "false"));
    other.ok(&format!("BEGIN; {}", valid.replace("{}", "true")));
    holder.goodbye();
    let outcome = client.outcome();
    assert_eq!(outcome.error.as_deref(), Some("P0001"), "{outcome:?}");
    assert!(
        outcome.notices.iter().any(|notice| notice.contains("the invalid index public.beside may be")),
        "{outcome:?}"
    );
    other.ok("COMMIT");
    let there = "SELECT string_agg(indexrelid::regclass::text, ', ' ORDER BY indexrelid::regclass::text) \
        FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid";
    assert_eq!(stage.watcher.value(there), "beside, t_pkey", "{outcome:?}");
}

/// The server goes on with what a dead proxy had begun: the same statement finds it done.
#[test]
fn a_build_that_goes_on_without_its_proxy() {
    let mut stage = Stage::new("goes_on");
    stage.go();
    for (sql, pattern) in [
        ("CREATE INDEX wanted ON p (id)", "CREATE INDEX CONCURRENTLY%"),
        ("ALTER TABLE p ATTACH PARTITION apart FOR VALUES FROM (10000) TO (20000)", "CREATE INDEX CONCURRENTLY%"),
    ] {
        let mut program = Program::with(&SERVER, "[ddl]\nsmall_table = \"0\"\n");
        let mut client = program.client(&SERVER.user, &stage.database);
        let mut holder = stage.direct();
        send_and_stop(&mut client, sql, pattern, &mut stage.watcher, &mut holder);
        program.signal("KILL");
        program.wait();
        holder.goodbye();
        let pid = client.pid;
        stage.until_gone(pid);
        let outcome = stage.client(1).query(sql);
        assert_eq!(outcome.error, None, "{sql}: {outcome:?}");
        let bad = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
        assert_eq!(stage.watcher.value(bad), "0", "{sql}");
        let alone = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relispartition \
            AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)";
        assert_eq!(stage.watcher.value(alone), "0", "{sql}: an index is not attached");
        assert_eq!(stage.left(), "t_pkey 0 0 0", "{sql}");
    }
}
