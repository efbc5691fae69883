//! Tests of trust. The code of a table's owner never runs with the rights of a role that changes the table. A role without
//! rights on a table cannot keep others from it. `trust_records.rs` has the records that an owner may have forged.
//!
//! The role `mallory` may only own the objects in the schema `m`. With the rights of others, mallory's code would draw a
//! number from sequences that belong to them alone; no ROLLBACK takes that back. Only mallory reads mallory's tables here,
//! since to plan a query of such a table is to run the functions that its indexes call.

use crate::common::versions::server;
use crate::common::{Client, new_database, no_table_is_small, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::time::{Duration, Instant};

/// Roles, and what each has that the others may not touch.
const ROLES: &str = "
    CREATE ROLE mallory LOGIN; CREATE ROLE alice LOGIN; CREATE ROLE stranger LOGIN;
    CREATE ROLE migrator LOGIN; GRANT mallory, alice TO migrator;
    CREATE ROLE chief LOGIN SUPERUSER";

const SCHEMAS: &str = "
    CREATE SCHEMA m AUTHORIZATION mallory; CREATE SCHEMA a AUTHORIZATION alice;
    GRANT CREATE ON SCHEMA public TO alice, migrator, mallory; GRANT USAGE ON SCHEMA public, a, m TO PUBLIC;
    CREATE SCHEMA safe; GRANT USAGE ON SCHEMA safe TO PUBLIC; CREATE SEQUENCE safe.of_superuser;
    CREATE SEQUENCE a.of_alice; ALTER SEQUENCE a.of_alice OWNER TO alice";

/// What a bank robber would write.
const PAYLOAD: &str = "
    CREATE FUNCTION m.payload() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
      BEGIN PERFORM nextval('a.of_alice'); EXCEPTION WHEN OTHERS THEN NULL; END;
      BEGIN PERFORM nextval('safe.of_superuser'); EXCEPTION WHEN OTHERS THEN NULL; END;
      BEGIN EXECUTE 'RESET ROLE'; PERFORM nextval('a.of_alice'); EXCEPTION WHEN OTHERS THEN NULL; END;
      BEGIN EXECUTE 'RESET ROLE'; PERFORM nextval('safe.of_superuser'); EXCEPTION WHEN OTHERS THEN NULL; END;
      BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; PERFORM nextval('safe.of_superuser'); EXCEPTION WHEN OTHERS THEN NULL; END;
      RETURN 0;
    END $$;
    CREATE FUNCTION m.evil(t text, n int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    DECLARE nothing int;
    BEGIN EXECUTE 'SELECT m.payload()' INTO nothing; RETURN t; END $$;
    CREATE FUNCTION m.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM m.payload(); RETURN NEW; END $$";

/// Has anybody's right been used?
const SPOILS: &str = "SELECT (SELECT is_called FROM safe.of_superuser) OR (SELECT is_called FROM a.of_alice)";

pub(super) struct Stage<'a> {
    pub(super) postgres: &'a Postgres,
    pub(super) database: String,
    pub(super) running: Running,
    pub(super) watcher: Client,
}

impl<'a> Stage<'a> {
    pub(super) fn new(postgres: &'a Postgres) -> Self {
        let running = proxy(postgres, |config| {
            no_table_is_small(config);
            config.backfill.pause_ratio = 0.0;
            config.ddl.record_interval = Duration::from_millis(1);
            config.locks.deadline = Duration::from_secs(30);
        });
        let database = new_database(postgres, "trust");
        let mut watcher = Client::connect(postgres.port, &postgres.user, &database);
        watcher.query(ROLES);
        watcher.ok(SCHEMAS);
        let stage = Self { postgres, database, running, watcher };
        stage.direct("mallory").ok(PAYLOAD);
        stage
    }

    pub(super) fn direct(&self, role: &str) -> Client {
        Client::connect(self.postgres.port, role, &self.database)
    }

    pub(super) fn proxied(&self, role: &str) -> Client {
        Client::connect(port(&self.running), role, &self.database)
    }

    #[track_caller]
    pub(super) fn nothing_was_taken(&mut self, way: &str) {
        assert_eq!(self.watcher.value(SPOILS), "f", "the owner's code has had the sender's rights: {way}");
    }
}

/// One who changes somebody else's table: how he logs in, and what he says first.
pub(super) const SENDERS: [(&str, &str); 5] = [
    ("chief", "SELECT 1"),
    ("migrator", "SELECT 1"),
    ("chief", "SET ROLE mallory"),
    ("migrator", "SET ROLE mallory"),
    ("chief", "SET SESSION AUTHORIZATION mallory"),
];

const COPIED: &str = "ALTER TABLE m.t ALTER name TYPE varchar(30)";
const TRIED: &str = "ALTER TABLE m.t ADD COLUMN IF NOT EXISTS c int DEFAULT 5";
const FILLED: &str = "ALTER TABLE m.t ADD COLUMN u float8 DEFAULT random()";
const NUMBERED: &str = "ALTER TABLE m.t ADD COLUMN s bigserial NOT NULL";

/// Where the owner's code stands, since which version there is such a thing, and what of [`COPIED`] and its like would call it directly.
const PLACES: [(&str, u32, &[&str]); 11] = [
    ("CREATE INDEX evil ON m.t ((m.evil('x', 7)))", 10, &[COPIED, TRIED, FILLED, NUMBERED]),
    ("CREATE INDEX evil ON m.t (id) WHERE m.evil(name, id) > ''", 10, &[COPIED, TRIED, FILLED]),
    ("ALTER TABLE m.t ADD CHECK (m.evil('x', 7) = 'x')", 10, &[COPIED, TRIED, FILLED]),
    (
        "ALTER TABLE m.t ADD CHECK (pg_catalog.query_to_xml('SELECT m.payload()', true, true, '') IS NOT NULL)",
        10,
        &[FILLED],
    ),
    ("ALTER TABLE m.t ADD COLUMN g text GENERATED ALWAYS AS (m.evil('x', 7)) STORED", 12, &[COPIED, TRIED, FILLED]),
    ("CREATE STATISTICS m.evil ON (m.evil('x', 7)), id FROM m.t", 14, &[COPIED, TRIED, FILLED]),
    ("CREATE TRIGGER evil BEFORE UPDATE ON m.t FOR EACH ROW EXECUTE PROCEDURE m.evil_trigger()", 10, &[TRIED, FILLED]),
    (
        "CREATE TRIGGER evil BEFORE UPDATE ON m.t FOR EACH ROW EXECUTE PROCEDURE m.evil_trigger();
      ALTER TABLE m.t ENABLE ALWAYS TRIGGER evil",
        10,
        &[TRIED, FILLED],
    ),
    (
        "ALTER TABLE m.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
      CREATE POLICY evil ON m.t USING (m.evil('x', id) = 'x')",
        10,
        &[FILLED],
    ),
    (
        "CREATE DOMAIN m.d AS text CHECK (m.evil(VALUE, 1) = VALUE);
      CREATE INDEX evil ON m.t ((name::m.d))",
        10,
        &[COPIED, FILLED],
    ),
    // No dependency on the type is recorded.
    (
        "CREATE DOMAIN m.d AS text CHECK (m.evil(VALUE, 1) = VALUE);
      CREATE INDEX evil ON m.t ((json_value(jsonb '{\"a\": \"x\"}', '$.a' RETURNING m.d)))",
        17,
        &[COPIED, FILLED],
    ),
];

/// All ways are tried with the first place; of the others those that differ most. A child is the owner's own below a superuser's table.
fn code_of_the_owner_stays_his(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    let mut mallory = stage.direct("mallory");
    let places = PLACES.iter().filter(|(_, since, _)| *since <= postgres.version);
    for (nth, (place, _, statements)) in places.enumerate() {
        let senders = SENDERS.iter().filter(|sender| nth == 0 || **sender == SENDERS[0] || **sender == SENDERS[3]);
        let ways = senders.map(|sender| (*sender, false)).chain([(SENDERS[0], true)]);
        for (((role, first), child), statement) in ways.flat_map(|way| statements.iter().map(move |one| (way, *one))) {
            stage
                .watcher
                .ok("DROP TABLE IF EXISTS m.parent CASCADE; DROP TABLE IF EXISTS m.t; DROP DOMAIN IF EXISTS m.d");
            mallory.ok("CREATE TABLE m.t (id int, name varchar(20))");
            if child {
                mallory.ok("ALTER TABLE m.t RENAME TO parent; CREATE TABLE m.t () INHERITS (m.parent)");
                stage.watcher.ok("ALTER TABLE m.parent OWNER TO chief");
            }
            mallory.ok("INSERT INTO m.t SELECT g, 'x' FROM generate_series(1, 300) g");
            mallory.ok(place);
            let statement = if child { statement.replace("m.t ", "m.parent ") } else { statement.to_owned() };
            let mut client = stage.proxied(role);
            client.ok(first);
            let outcome = client.query(&statement);
            client.goodbye();
            stage
                .nothing_was_taken(&format!("{place}; of a child: {child}; {role}: {first}; {statement}: {outcome:?}"));
        }
    }
    stage.running.stop_now();
}

#[test]
fn code_of_the_owner_stays_his_on_15() {
    code_of_the_owner_stays_his(&postgres());
}

#[test]
fn code_of_the_owner_stays_his_on_10_and_18() {
    for version in [10, 18] {
        code_of_the_owner_stays_his(&server(version));
    }
}

/// A foreign key of a type of the owner's is compared by way of his cast, also where it does not change.
#[test]
fn a_cast_of_the_owner_does_not_run() {
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    let mut mallory = stage.direct("mallory");
    mallory.ok("CREATE TYPE m.mood AS ENUM ('x');
        CREATE FUNCTION m.evil_cast(m.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN m.evil('x', 1); END $$;
        CREATE CAST (m.mood AS text) WITH FUNCTION m.evil_cast(m.mood) AS IMPLICIT;
        CREATE TABLE m.ref (k text PRIMARY KEY); INSERT INTO m.ref VALUES ('x');
        CREATE TABLE m.t (id int, k m.mood REFERENCES m.ref); INSERT INTO m.t SELECT g, 'x' FROM generate_series(1, 300) g");
    for (role, first) in SENDERS {
        let mut client = stage.proxied(role);
        client.ok(first);
        let outcome = client.ok(FILLED);
        stage.nothing_was_taken(&format!("{role}: {first}: {outcome:?}"));
        mallory.ok("ALTER TABLE m.t DROP COLUMN u");
    }
    stage.running.stop_now();
}

/// Copies of partitioned tables and of their partitions.
#[test]
fn partitions_of_others_are_not_copied_with_their_code() {
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    let mut mallory = stage.direct("mallory");
    // To plan an index of a parent, to try whether a partition fits, and what tells its place.
    let cases = [
        ("PARTITION BY RANGE (id)", "CREATE INDEX evil ON m.p ((m.evil('x', 7)))", "CREATE INDEX ON m.p (name)"),
        ("PARTITION BY RANGE (id)", "CREATE INDEX evil ON m.p ((m.evil('x', 7)))", "ALTER TABLE m.p ADD UNIQUE (id)"),
        (
            "PARTITION BY RANGE (id)",
            "ALTER TABLE m.p1 ADD CHECK (m.evil('x', 7) = name)",
            "ALTER TABLE m.p ADD COLUMN u float8 DEFAULT random()",
        ),
        ("PARTITION BY RANGE ((m.evil(name, 7)))", "SELECT 1", "ALTER TABLE m.p ADD COLUMN u float8 DEFAULT random()"),
        (
            "PARTITION BY RANGE (id)",
            "ALTER TABLE m.p ADD COLUMN g text GENERATED ALWAYS AS (m.evil('x', 7)) STORED",
            "ALTER TABLE m.p ADD COLUMN c int DEFAULT 7",
        ),
    ];
    for (role, first) in SENDERS {
        for (key, place, statement) in cases {
            mallory.query("DROP TABLE IF EXISTS m.p");
            mallory.ok(&format!("CREATE TABLE m.p (id int, name text) {key}"));
            let bounds = if key.contains("evil") { "FROM ('a') TO ('z')" } else { "FROM (0) TO (1000)" };
            mallory.ok(&format!("CREATE TABLE m.p1 PARTITION OF m.p FOR VALUES {bounds}"));
            mallory.ok("INSERT INTO m.p SELECT g, 'x' FROM generate_series(1, 300) g");
            mallory.ok(place);
            let mut client = stage.proxied(role);
            client.ok(first);
            let outcome = client.query(statement);
            client.goodbye();
            stage.nothing_was_taken(&format!("{key}; {place}; {role}: {first}; {statement}: {outcome:?}"));
        }
    }
    stage.running.stop_now();
}

const FILES: &str = "SELECT string_agg(pg_relation_filenode(oid)::text, ' ' ORDER BY oid) FROM pg_class
    WHERE oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'a.t'::regclass UNION SELECT 'a.t'::regclass)";

/// A table whose owner is another role, and that calls nothing of his, gets its phases: neither it nor an index is written anew.
fn ordinary_tables_of_others(postgres: &Postgres) {
    let mut stage = Stage::new(postgres);
    let mut alice = stage.direct("alice");
    alice.ok("CREATE TYPE a.mood AS ENUM ('good', 'bad'); CREATE DOMAIN a.code AS text CHECK (VALUE <> '');
        CREATE TABLE a.t (id bigint PRIMARY KEY, name varchar(20), email text CHECK (email <> ''), m a.mood, c a.code, n int[], r int4range)");
    alice.ok(
        "CREATE INDEX ON a.t (lower(email)); CREATE INDEX ON a.t (id) WHERE email > 'a'; CREATE INDEX ON a.t (m, c);
        CREATE INDEX ON a.t USING gin (n); CREATE INDEX ON a.t USING gist (r); CREATE UNIQUE INDEX ON a.t (id, name)",
    );
    alice.ok("INSERT INTO a.t SELECT g, 'x', 'x', 'good', 'c' FROM generate_series(1, 3000) g");
    let before = stage.watcher.value(FILES);
    let mut roles = vec![("chief", "SELECT 1"), ("migrator", "SELECT 1"), ("migrator", "SET ROLE alice")];
    roles.extend(SENDERS.last().map(|(role, _)| (*role, "SET SESSION AUTHORIZATION alice")));
    for (nth, (role, first)) in roles.into_iter().enumerate() {
        let mut client = stage.proxied(role);
        client.ok(first);
        for statement in [
            format!("ALTER TABLE a.t ALTER name TYPE varchar({})", 30 + nth),
            format!("ALTER TABLE a.t ADD COLUMN u{nth} float8 DEFAULT 1 + random()"),
            format!("ALTER TABLE a.t ADD COLUMN s{nth} bigint NOT NULL DEFAULT nextval('a.of_alice') -- behind it"),
        ] {
            let outcome = client.ok(&statement);
            assert!(
                !outcome.notices.iter().any(|notice| notice.contains("may make the application wait")),
                "{role}: {first}: {outcome:?}"
            );
        }
        let filled =
            format!("SELECT count(DISTINCT u{nth}) || ' ' || count(DISTINCT s{nth}) FROM a.t WHERE u{nth} >= 1");
        assert_eq!(stage.watcher.value(&filled), "3000 3000", "{role}: {first}");
        assert_eq!(stage.watcher.value(FILES), before, "{role}: {first}");
    }
    // What belongs to the one who logs in calls what he likes.
    alice.ok("CREATE FUNCTION a.mine(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE INDEX ON a.t (a.mine(email))");
    let before = stage.watcher.value(FILES);
    let mut client = stage.proxied("alice");
    let outcome = client.ok("ALTER TABLE a.t ADD COLUMN mine float8 DEFAULT random()");
    assert!(!outcome.notices.iter().any(|notice| notice.contains("WARNING")), "{outcome:?}");
    assert_eq!(stage.watcher.value(FILES), before);
    stage.running.stop_now();
}

#[test]
fn ordinary_tables_of_others_get_their_phases() {
    ordinary_tables_of_others(&postgres());
}

#[test]
fn ordinary_tables_of_others_get_their_phases_on_10_and_18() {
    for version in [10, 18] {
        ordinary_tables_of_others(&server(version));
    }
}

/// What says why, and what to do.
#[test]
fn who_is_not_trusted_is_told() {
    let postgres = postgres();
    let stage = Stage::new(&postgres);
    let mut mallory = stage.direct("mallory");
    mallory.ok("CREATE TABLE m.t (id int, name varchar(20)); INSERT INTO m.t SELECT 1, 'x'; CREATE INDEX evil ON m.t ((m.evil('x', 7)))");
    let mut client = stage.proxied("migrator");
    for (statement, words) in [
        (
            COPIED,
            "The statement was not tried on a copy of the table first, because its index evil calls the function m.evil(text,integer) of the role mallory.",
        ),
        (
            FILLED,
            "The rows of the table cannot be filled in batches, because its index evil calls the function m.evil(text,integer) of the role mallory.",
        ),
    ] {
        client.send_query(statement);
        let messages = client.read_up_to(b"Z");
        let warning =
            messages.iter().find(|message| message.tag == b'N').unwrap_or_else(|| panic!("{statement}: no WARNING"));
        let [severity, detail, hint] = [b'V', b'D', b'H'].map(|code| warning.field(code).unwrap_or_default());
        assert_eq!(severity, "WARNING", "{statement}");
        assert!(detail.contains(words), "{statement}: {detail}");
        assert!(hint.contains("Log in as the table's owner"), "{statement}: {hint}");
    }
    stage.running.stop_now();
}

/// What the owner does while his rows are filled, and whether that ends the statement.
const MEANWHILE: [(&str, bool); 11] = [
    ("CREATE INDEX evil ON m.t ((m.evil('x', 7)))", true),
    ("CREATE INDEX CONCURRENTLY evil ON m.t (id) WHERE m.evil('x', 7) = 'x'", true),
    ("ALTER TABLE m.t ADD CHECK (m.evil('x', id) = 'x')", true),
    (
        "CREATE TRIGGER evil BEFORE UPDATE ON m.t FOR EACH ROW EXECUTE PROCEDURE m.evil_trigger(); \
      ALTER TABLE m.t ENABLE ALWAYS TRIGGER evil",
        true,
    ),
    ("CREATE TRIGGER evil BEFORE UPDATE OF u ON m.t FOR EACH ROW EXECUTE PROCEDURE m.evil_trigger()", true),
    ("CREATE RULE evil AS ON UPDATE TO m.t DO ALSO SELECT m.payload()", true),
    ("CREATE STATISTICS m.evil ON (m.evil('x', 7)), id FROM m.t", true),
    (
        "CREATE FUNCTION m.worse() RETURNS float8 LANGUAGE sql VOLATILE AS 'SELECT m.payload()::float8'; \
      ALTER TABLE m.t ALTER u SET DEFAULT m.worse()",
        false,
    ),
    ("CREATE DOMAIN m.d AS float8 CHECK (m.evil('x', 1) = 'x'); ALTER TABLE m.t ALTER u TYPE m.d", true),
    (
        "ALTER TABLE m.t RENAME TO u; CREATE VIEW m.t AS SELECT *, m.payload() FROM m.u; \
      CREATE TRIGGER evil INSTEAD OF UPDATE ON m.t FOR EACH ROW EXECUTE PROCEDURE m.evil_trigger()",
        true,
    ),
    ("CREATE INDEX harmless ON m.t (lower(name))", false),
];

/// A table's owner needs a moment for what the backfill takes hours.
#[test]
fn what_the_owner_adds_while_his_rows_are_filled_does_not_run() {
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    stage.watcher.ok("CREATE TABLE safe.switch (go bool); CREATE SEQUENCE safe.calls; GRANT SELECT ON safe.switch TO PUBLIC;
        GRANT ALL ON SEQUENCE safe.calls TO PUBLIC;
        CREATE FUNCTION safe.slow() RETURNS float8 LANGUAGE sql VOLATILE AS 'SELECT nextval(''safe.calls'')::float8 FROM pg_sleep(0.001)'");
    let condition = "(SELECT last_value < 100 FROM safe.calls) OR (SELECT go FROM safe.switch)";
    let slow = proxy(&postgres, |config| {
        no_table_is_small(config);
        config.backfill.batch_time = Duration::from_millis(20);
        config.backfill.pause_ratio = 0.0;
        config.backfill.condition = Some(condition.to_owned());
        config.locks.deadline = Duration::from_secs(30);
    });
    std::mem::replace(&mut stage.running, slow).stop_now();
    let mut mallory = stage.direct("mallory");
    for (nth, (meanwhile, ends)) in MEANWHILE.into_iter().enumerate() {
        // Who may not keep triggers from firing.
        let migrator = Some("migrator").filter(|_| meanwhile.contains("BEFORE UPDATE"));
        for role in std::iter::once("chief").chain(migrator) {
            mallory.query("DROP VIEW IF EXISTS m.t");
            mallory
                .query("DROP TABLE IF EXISTS m.t, m.u; DROP DOMAIN IF EXISTS m.d; DROP FUNCTION IF EXISTS m.worse()");
            mallory.ok(
                "CREATE TABLE m.t (id int, name text); INSERT INTO m.t SELECT g, 'x' FROM generate_series(1, 1500) g",
            );
            stage
                .watcher
                .ok("DELETE FROM safe.switch; INSERT INTO safe.switch VALUES (false); SELECT setval('safe.calls', 1)");
            let mut client = stage.proxied(role);
            client.send_query("ALTER TABLE m.t ADD COLUMN u float8 DEFAULT safe.slow()");
            let paused =
                format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query LIKE '%paused%'", client.pid);
            wait_until(&format!("it is paused: {meanwhile}, {role}"), || stage.watcher.value(&paused) == "1");
            for part in meanwhile.split("; ") {
                mallory.ok(part);
            }
            stage.watcher.ok("UPDATE safe.switch SET go = true");
            let outcome = client.outcome();
            let way = format!("{nth}: {meanwhile}; {role}: {outcome:?}");
            stage.nothing_was_taken(&way);
            assert_eq!(outcome.error.as_deref(), ends.then_some("55000"), "{way}");
            // It is brought back, but for a column that its owner has made use of.
            if ends && !meanwhile.contains(" OF u ") && !meanwhile.contains("VIEW") {
                let left =
                    "SELECT count(*) FROM pg_attribute WHERE attrelid IN (to_regclass('m.t'), to_regclass('m.u'))
                    AND attname = 'u' AND NOT attisdropped";
                assert_eq!(stage.watcher.value(left), "0", "{way}");
            }
            client.goodbye();
        }
    }
    stage.running.stop_now();
}

/// What a plan of each kind does of a table.
const CHANGES: [&str; 6] = [
    "ALTER TABLE a.t ADD COLUMN c int",
    "ALTER TABLE a.t ADD CHECK (id > 0)",
    "CREATE INDEX ON a.t (id)",
    "ALTER TABLE a.t ADD COLUMN u float8 DEFAULT random()",
    "BEGIN; ALTER TABLE a.t ADD COLUMN b int; COMMIT",
    "DROP TABLE a.t",
];

/// Any role may take any advisory lock.
#[test]
fn who_has_no_rights_on_a_table_keeps_nobody_from_it() {
    let postgres = postgres();
    let mut stage = Stage::new(&postgres);
    let lock = |stage: &mut Stage<'_>, role: &str, shared: &str| {
        let oid = stage.watcher.value("SELECT 'a.t'::regclass::oid::int");
        let mut holder = stage.direct(role);
        holder.ok(&format!(
            "SELECT pg_advisory_lock{shared}(1885827948, {oid}), pg_advisory_lock{shared}(1885827946, {oid})"
        ));
        holder
    };
    stage.direct("alice").ok("CREATE TABLE a.t (id int); INSERT INTO a.t SELECT generate_series(1, 1000)");
    for shared in ["", "_shared"] {
        let stranger = lock(&mut stage, "stranger", shared);
        let second = (shared == "_shared").then(|| lock(&mut stage, "stranger", shared));
        for change in CHANGES.iter().filter(|change| shared.is_empty() || !change.contains("COLUMN")) {
            let begun = Instant::now();
            stage.proxied("alice").ok(change);
            // It would be half a minute.
            assert!(begun.elapsed() < Duration::from_secs(10), "{change} took {:?}", begun.elapsed());
        }
        drop((stranger, second));
        stage.direct("alice").ok("CREATE TABLE a.t (id int); INSERT INTO a.t SELECT generate_series(1, 1000)");
    }
    // Who may change it counts, as he always did.
    for role in ["alice", "migrator", "chief"] {
        let holder = lock(&mut stage, role, "");
        let mut client = stage.proxied("alice");
        client.ok("SET lock_timeout = '400ms'");
        for change in CHANGES {
            let outcome = client.query(change);
            assert_eq!(outcome.error.as_deref(), Some("55P03"), "{role}: {change}: {outcome:?}");
            client.query("ROLLBACK");
        }
        drop(holder);
        let gone = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        wait_until("its locks are gone", || stage.watcher.value(gone) == "0");
    }
    stage.running.stop_now();
}
