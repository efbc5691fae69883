//! What statements of transaction blocks do.

use crate::sql::parse::ParseOptions;
use crate::sql::{Effect, EffectKind, effects};

fn effect(sql: &str) -> Effect {
    let mut all = effects(sql, ParseOptions::default()).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(all.len(), 1, "{sql}");
    all.remove(0).1
}

/// One line: the kind, without the reason of Once.
fn kind(sql: &str) -> String {
    match effect(sql).kind {
        EffectKind::Once(why) => {
            assert!(why.len() < 80 && !why.ends_with('.'), "{why}");
            "Once".to_owned()
        }
        kind => format!("{kind:?}"),
    }
}

#[track_caller]
fn all_are(wanted: &str, statements: &[&str]) {
    for sql in statements {
        assert_eq!(kind(sql), wanted, "{sql}");
    }
}

#[test]
fn reads() {
    all_are(
        "Read",
        &[
            "SELECT 1",
            "VALUES (1), (2)",
            "TABLE t",
            "SHOW search_path",
            "EXPLAIN SELECT nextval('s')",
            "EXPLAIN DELETE FROM t",
            "EXPLAIN (ANALYZE off) DELETE FROM t",
            "EXPLAIN ANALYZE SELECT * FROM t",
            "EXPLAIN CREATE INDEX ON t (a)",
            "SELECT random(), gen_random_uuid(), clock_timestamp(), txid_current(), now()",
            "SELECT pg_sleep(1)",
            "SELECT f(a) FROM t",
        ],
    );
}

#[test]
fn writes() {
    all_are(
        "Write",
        &[
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t SELECT nextval('s'), random(), now() FROM u",
            "INSERT INTO t DEFAULT VALUES",
            "UPDATE t SET a = 1",
            "DELETE FROM t USING u WHERE t.a = u.a",
            "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
            "COPY t (a) FROM STDIN",
            "INSERT INTO m (version) VALUES ($1) RETURNING version",
            "INSERT INTO m (version, at) VALUES ('1', now()) RETURNING \"m\".\"version\"",
            "INSERT INTO m (a, b) VALUES (1, 2), (3, 4::int) ON CONFLICT DO NOTHING RETURNING b, 'x'",
            "UPDATE m SET dirty = false, n = n + 1 WHERE version = 3 RETURNING m.dirty",
            "UPDATE public.t AS x SET a = $1 FROM u RETURNING x.a, a",
            "INSERT INTO public.t (a) VALUES ($1) RETURNING public.t.a",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING id) INSERT INTO u SELECT id FROM x",
            "INSERT INTO t SELECT pg_notify('a', 'b')::text",
        ],
    );
    all_are(
        "LockRows",
        &[
            "SELECT * FROM t FOR UPDATE",
            "SELECT a FROM (SELECT a FROM t FOR SHARE) x",
            "SELECT * FROM t FOR NO KEY UPDATE NOWAIT",
            "WITH x AS (SELECT 1) SELECT * FROM t, x FOR UPDATE OF t",
        ],
    );
}

/// Statements that migration tools send in their transactions.
#[test]
fn tools() {
    all_are(
        "Write",
        &[
            "INSERT INTO \"schema_migrations\" (\"version\") VALUES ($1) RETURNING \"version\"",
            "INSERT INTO \"SequelizeMeta\" (\"name\") VALUES ($1) RETURNING \"name\"",
            "INSERT INTO alembic_version (version_num) VALUES ('1') RETURNING alembic_version.version_num",
            "UPDATE alembic_version SET version_num='2' WHERE alembic_version.version_num = '1'",
            "INSERT INTO \"public\".\"pgmigrations\" (name, run_on) VALUES ('1', NOW())",
            "insert into \"knex_migrations\" (\"batch\", \"migration_time\", \"name\") values ($1, $2, $3)",
            "insert into \"drizzle\".\"__drizzle_migrations\" (\"hash\", \"created_at\") values($1, $2)",
            "UPDATE public.databasechangeloglock SET LOCKED = FALSE, LOCKEDBY = NULL WHERE ID = 1",
        ],
    );
    all_are("LockRows", &["SELECT s0.\"version\"::bigint FROM \"schema_migrations\" AS s0 FOR UPDATE"]);
    all_are(
        "Lock",
        &["LOCK TABLE changes IN EXCLUSIVE MODE", "LOCK TABLE \"schema_migrations\" IN SHARE UPDATE EXCLUSIVE MODE"],
    );
    all_are("Set([\"jit\"])", &["SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new"]);
    all_are(
        "AdvisoryXact",
        &["select pg_try_advisory_xact_lock($1)", "SELECT pg_advisory_xact_lock(3853314791062309107)"],
    );
    // Django asks for the id of the row that says that the migration is done.
    all_are(
        "Once",
        &[
            "INSERT INTO \"django_migrations\" (\"app\", \"name\") VALUES ('a', '1') RETURNING \"django_migrations\".\"id\"",
        ],
    );
}

#[test]
fn once() {
    all_are(
        "Once",
        &[
            "INSERT INTO t (a) VALUES ('x0') RETURNING t.id",
            "INSERT INTO t (a) VALUES (1) RETURNING *",
            "INSERT INTO t VALUES (1) RETURNING a",
            "INSERT INTO t (a) VALUES (DEFAULT) RETURNING a",
            "INSERT INTO t (a) VALUES (1), (now()) RETURNING a",
            "INSERT INTO t (a) SELECT 1 RETURNING a",
            "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 2 RETURNING a",
            "INSERT INTO t (a) VALUES (1) RETURNING a + 1",
            "INSERT INTO t (a) VALUES (1) RETURNING (SELECT max(id) FROM t)",
            "UPDATE t SET a = a + 1 RETURNING a",
            "UPDATE t SET a = 1 RETURNING old.a",
            "UPDATE t SET a = 1 RETURNING WITH (OLD AS o) o.a",
            "UPDATE t SET a = 1 FROM u WHERE t.b = u.b RETURNING u.a",
            "UPDATE t x SET a = 1 FROM t WHERE t.b = x.b RETURNING t.a",
            "DELETE FROM t WHERE id = 1 RETURNING id",
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "SELECT * FROM t FOR UPDATE SKIP LOCKED",
            "SELECT now(), a FROM t FOR UPDATE",
            "SELECT CURRENT_TIMESTAMP, a FROM t FOR UPDATE",
            "DECLARE c CURSOR FOR SELECT 1",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "COPY t TO STDOUT",
            "COPY (SELECT 1) TO STDOUT",
            "COPY t FROM PROGRAM 'x'",
            "CALL p()",
            "DO $$ BEGIN PERFORM 1; END $$",
            "EXECUTE p(1)",
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_advisory_lock_shared(1) FROM t",
            "SELECT pg_export_snapshot()",
            "SET TRANSACTION SNAPSHOT '00000003-0000001B-1'",
            "SELECT lo_create(0)",
            "SELECT * FROM dblink('a', 'b') AS t(a int)",
            "SELECT x.dblink_exec('a', 'b')",
            "SELECT currval('s')",
            "SELECT lastval()",
            "SELECT set_config(name, setting, false) FROM pg_settings",
            "SELECT set_config($1, 'x', false)",
            "SELECT set_config('a.b', now()::text, false)",
            "SELECT set_config('a.b', 'x', false), pg_notify('a', 'b')",
            "SELECT pg_notify('a', 'b'), now()",
            "SELECT 1 FROM t WHERE (SELECT lo_unlink(1)) = 1",
            "INSERT INTO t VALUES (pg_try_advisory_xact_lock(1))",
            "INSERT INTO t SELECT setval('s', 1)",
            "SELECT pg_drop_replication_slot('x')",
            "SELECT pg_logical_emit_message(true, 'a', 'b')",
            "EXPLAIN ANALYZE DELETE FROM t",
            "EXPLAIN (ANALYZE, COSTS off) CREATE TABLE t AS SELECT 1",
            "RESET ALL",
            "DISCARD ALL",
            "COMMIT PREPARED 'x'",
        ],
    );
}

#[test]
fn settings() {
    for (sql, wanted) in [
        ("SET search_path = a, b", &["search_path"][..]),
        ("SET LOCAL Lock_Timeout = '1s'", &["lock_timeout"]),
        ("RESET Role", &["role"]),
        ("SET ROLE x", &["role"]),
        ("SET SESSION AUTHORIZATION x", &["session_authorization"]),
        ("SET TIME ZONE 'UTC'", &["timezone"]),
        ("SET NAMES 'UTF8'", &["client_encoding"]),
        ("SET SCHEMA 'x'", &["search_path"]),
        ("SELECT set_config('TimeZone', $1, false)", &["timezone"]),
        ("SELECT pg_catalog.set_config('search_path'::text, '', false) AS a", &["search_path"]),
        ("SELECT set_config('a.b', current_setting('c.d'), true), set_config('x', 'y', true)", &["a.b", "x"]),
        ("SET CONSTRAINTS ALL DEFERRED", &[]),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", &[]),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", &["default_transaction_read_only"]),
    ] {
        assert_eq!(effect(sql).kind, EffectKind::Set(wanted.iter().map(|name| (*name).to_owned()).collect()), "{sql}");
    }
}

#[test]
fn the_others() {
    all_are("Begin", &["BEGIN", "START TRANSACTION READ ONLY"]);
    all_are("End", &["COMMIT AND CHAIN", "ROLLBACK", "PREPARE TRANSACTION 'x'", "END"]);
    all_are("Savepoint(\"A b\")", &["SAVEPOINT \"A b\""]);
    all_are("RollbackTo(\"a\")", &["ROLLBACK TO SAVEPOINT A"]);
    all_are("Release(\"a\")", &["RELEASE a"]);
    all_are("Lock", &["LOCK TABLE t IN SHARE MODE"]);
    all_are(
        "AdvisoryXact",
        &[
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT pg_try_advisory_xact_lock(hashtext('a'), 1)",
            "SELECT pg_advisory_xact_lock_shared(id) FROM t",
        ],
    );
    all_are(
        "Keep",
        &[
            "PREPARE p AS SELECT 1",
            "DEALLOCATE ALL",
            "DISCARD PLANS",
            "SELECT nextval('s')",
            "SELECT setval('s', (SELECT max(id) FROM t))",
            "SELECT pg_try_advisory_lock(1)",
            "SELECT pg_advisory_unlock(1)",
            "SELECT pg_terminate_backend(1)",
            "FETCH 1 FROM c",
            "CLOSE c",
        ],
    );
    all_are(
        "Again",
        &[
            "LISTEN x",
            "UNLISTEN *",
            "NOTIFY x, 'y'",
            "SELECT pg_notify('a', 'b')",
            "SELECT pg_notify('a', b) FROM t",
            "ANALYZE t",
            "DISCARD TEMP",
            "DO $$ BEGIN CREATE TYPE x AS ENUM ('a', 'b'); EXCEPTION WHEN duplicate_object THEN null; END $$",
            "DO 'BEGIN CREATE TYPE \"public\".\"e\" AS ENUM(''a'', ''b''); EXCEPTION WHEN duplicate_object THEN null; END'",
        ],
    );
    all_are(
        "Once",
        &[
            "DO $$ BEGIN CREATE TYPE x AS ENUM ('a'); DROP TABLE t; EXCEPTION WHEN duplicate_object THEN null; END $$",
            "DO $$ BEGIN CREATE TYPE x AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN PERFORM f(); END $$",
            "DO $$ BEGIN CREATE TYPE x AS ENUM ('a'); EXCEPTION WHEN others THEN null; END $$",
            "DO LANGUAGE plperl $$ BEGIN CREATE TYPE x AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN null; END $$",
        ],
    );
    all_are(
        "Ddl",
        &[
            "CREATE TABLE t AS SELECT 1",
            "SELECT 1 INTO t",
            "TRUNCATE t",
            "CREATE INDEX ON t (a)",
            "COMMENT ON TABLE t IS 'x'",
            "CREATE EXTENSION x",
            "GRANT SELECT ON t TO u",
        ],
    );
}

#[test]
fn relations() {
    for (sql, wanted) in [
        ("WITH c AS (SELECT * FROM a), d AS (SELECT * FROM c) SELECT * FROM c, d, s.c", "a s.c"),
        ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a"),
        ("WITH RECURSIVE a AS (SELECT 1 UNION SELECT * FROM a) SELECT * FROM a", ""),
        ("WITH t AS (SELECT 1) INSERT INTO t SELECT * FROM t", "t"),
        ("SELECT * FROM a WHERE EXISTS (SELECT FROM b) ORDER BY (SELECT 1 FROM c) FOR UPDATE OF a", "a b c"),
        ("SELECT * FROM orders o FOR UPDATE OF o", "orders"),
        (
            "UPDATE a SET x = (SELECT 1 FROM b) FROM c WHERE (SELECT count(*) FILTER (WHERE EXISTS (TABLE d)) FROM e) > 0",
            "b d e c a",
        ),
        ("MERGE INTO a USING (SELECT * FROM b) x ON true WHEN MATCHED AND EXISTS (TABLE c) THEN DELETE", "b c a"),
        ("INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET x = (SELECT 1 FROM b)", "b a"),
        ("COPY a FROM STDIN", "a"),
        ("LOCK TABLE a, s.b", "a s.b"),
        ("DROP TABLE a, s.b", "a s.b"),
        ("DROP TYPE s.x, y", "s.x y"),
        ("ALTER TABLE a RENAME TO b", "a b"),
        ("ALTER TABLE a RENAME COLUMN x TO y", "a"),
        ("ALTER TABLE a SET SCHEMA s", "a s.a"),
        ("ALTER TYPE a RENAME TO b", "a b"),
        ("CREATE TABLE a (x int REFERENCES b, CHECK (f(x)))", "b a"),
        ("CREATE VIEW a AS SELECT * FROM b", "b a"),
        ("CREATE FUNCTION s.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'", "s.f"),
        ("CREATE TYPE e AS ENUM ('a')", "e"),
        ("CREATE DOMAIN s.d AS int", "s.d"),
        ("CREATE SCHEMA s", "s"),
        ("CREATE EXTENSION citext", "citext"),
        ("ALTER TYPE e ADD VALUE 'x'", "e"),
        ("DROP FUNCTION f(int)", "f"),
        ("CREATE INDEX i ON a (x)", "a i"),
        ("CREATE TEMP TABLE a (x int)", "pg_temp.a"),
        ("SELECT * FROM generate_series(1, 2) g", ""),
    ] {
        let found = effect(sql).relations;
        let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let mut wanted: Vec<&str> = wanted.split_whitespace().collect();
        found.sort();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{sql}");
    }
}

#[test]
fn functions() {
    for (sql, wanted) in [
        ("SELECT f(g(1)), s.h() OVER (ORDER BY i()), count(*) FILTER (WHERE j())", "count f g i j s.h"),
        ("SELECT random(), pg_sleep(1)", ""),
        ("SELECT * FROM s.random() r, LATERAL f(r) WHERE x = ANY (ARRAY[g()]) GROUP BY h()", "f g h s.random"),
        ("INSERT INTO t VALUES (CASE WHEN f() THEN COALESCE(g(), 1) END)", "f g"),
        ("EXPLAIN SELECT f()", ""),
        ("PREPARE p AS SELECT f()", ""),
        ("SELECT uuid_generate_v4(), ext.uuid_generate_v1(), ext.random()", "ext.random"),
        ("SELECT a AT TIME ZONE 'UTC', current_date FROM t", ""),
    ] {
        let mut found: Vec<String> = effect(sql).functions.iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found.join(" "), wanted, "{sql}");
    }
}

#[test]
fn several_statements_and_large_ones() {
    let text = "BEGIN; INSERT INTO t VALUES (1); -- x\n SELECT 1";
    let all = effects(text, ParseOptions::default()).unwrap();
    let kinds: Vec<&EffectKind> = all.iter().map(|(_, effect)| &effect.kind).collect();
    assert_eq!(kinds, [&EffectKind::Begin, &EffectKind::Write, &EffectKind::Read]);
    assert!(all.iter().all(|(statement, _)| text[statement.range.clone()] == statement.text));
    for (value, wanted) in [
        ("x".repeat(70_000), EffectKind::Write),
        ("', '".repeat(60_000), EffectKind::Once("it is too large to be parsed")),
    ] {
        let all = effects(&format!("SELECT 1; INSERT INTO t VALUES ('{value}')"), ParseOptions::default()).unwrap();
        assert_eq!(all[1].1.kind, wanted);
    }
    let deep = format!("SELECT {}1", "1 + ".repeat(5_000));
    if let Ok(all) = effects(&deep, ParseOptions::default()) {
        assert!(matches!(all[0].1.kind, EffectKind::Read | EffectKind::Once(_)));
    }
    assert!(effects("SELEC 1", ParseOptions::default()).is_err());
}
