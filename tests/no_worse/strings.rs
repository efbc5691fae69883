//! Statements that commit by themselves, in every place of a string, a block and a pipeline. If the server refuses them, it
//! refuses them through the proxy too, in the same words; if the server runs them, they run.

use crate::common::versions::server;
use crate::common::{Client, Outcome, new_database, port, postgres, proxy};
use pgsluice::dev::Postgres;
use std::fmt::Write as _;

const SCENE: &str = "
    DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s; SET search_path = s;
    CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE INDEX ta ON t (a);
    CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE UNIQUE INDEX ma ON m (a);
    CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
    CREATE TYPE e AS ENUM ('x');
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE IF NOT EXISTS made (); COMMIT; END';
    CREATE PROCEDURE alters() LANGUAGE plpgsql AS 'BEGIN ALTER TABLE t ADD z int; END'";

const STATEMENTS: [&str; 19] = [
    "CREATE INDEX CONCURRENTLY i ON t (a)",
    "CREATE INDEX i ON t (a)",
    "DROP INDEX CONCURRENTLY ta",
    "DROP INDEX CONCURRENTLY IF EXISTS nothing",
    "DROP INDEX ta",
    "REINDEX INDEX CONCURRENTLY ta",
    "REINDEX TABLE CONCURRENTLY t",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
    "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY",
    "ALTER TYPE e ADD VALUE 'y'",
    "VACUUM t",
    "VACUUM FULL t",
    "ANALYZE t",
    "CLUSTER t USING ta",
    "CALL commits()",
    "CALL alters()",
    "DO 'BEGIN CREATE TABLE made (); COMMIT; END'",
    "DO 'BEGIN ALTER TABLE t ADD z int; END'",
    "ALTER TABLE t ADD z int NOT NULL DEFAULT 1",
];

/// Where a statement stands: among these strings, or in one pipeline with them.
enum Place {
    String(&'static str, &'static str),
    /// Each of these is a Query of its own.
    Block(&'static [&'static str]),
    Pipeline(&'static [&'static str], &'static [&'static str]),
}

const DDL: &str = "ALTER TABLE t ADD x int";

const PLACES: [Place; 17] = [
    Place::String("", ""),
    Place::String("", "; SELECT 1"),
    Place::String("", "; ALTER TABLE t ADD y int"),
    Place::String("SELECT 1; ", ""),
    Place::String("ALTER TABLE t ADD x int; ", ""),
    Place::String("BEGIN; ALTER TABLE t ADD x int; ", "; COMMIT"),
    Place::String("BEGIN; ALTER TABLE t ADD x int; COMMIT; ", ""),
    Place::String("ALTER TABLE t ADD x int; COMMIT; ", ""),
    Place::String("ALTER TABLE t ADD x int; ROLLBACK; ", "; SELECT 2"),
    Place::String("COMMIT; ", ""),
    Place::Block(&["BEGIN"]),
    Place::Block(&["BEGIN", DDL]),
    Place::Pipeline(&[], &[]),
    Place::Pipeline(&["SELECT 1"], &[]),
    Place::Pipeline(&[DDL], &[]),
    Place::Pipeline(&[], &["SELECT 1"]),
    Place::Pipeline(&["BEGIN", DDL], &["COMMIT"]),
];

impl Place {
    fn send(&self, client: &mut Client, statement: &str) -> Vec<Outcome> {
        match self {
            Self::String(before, behind) => vec![client.query(&format!("{before}{statement}{behind}"))],
            Self::Block(before) => before.iter().chain([&statement]).map(|sql| client.query(sql)).collect(),
            Self::Pipeline(before, behind) => {
                let all: Vec<&str> = before.iter().copied().chain([statement]).chain(behind.iter().copied()).collect();
                vec![client.pipeline(&all)]
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::String(before, behind) => format!("{before}…{behind}"),
            Self::Block(before) => format!("{before:?}, …"),
            Self::Pipeline(before, behind) => format!("pipeline {before:?}, …, {behind:?}"),
        }
    }
}

/// What the statement brought, and what is there now.
fn told(client: &mut Client, place: &Place, statement: &str) -> String {
    client.ok(SCENE);
    let outcomes = place.send(client, statement);
    client.query("ROLLBACK");
    let left = client.ok(
        "SELECT concat_ws(' ', c.relname, \
         (SELECT string_agg(a.attname, ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), \
         (SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = c.oid), c.relispartition) \
         FROM pg_class c WHERE c.relnamespace = 's'::regnamespace ORDER BY 1",
    );
    let mut text = String::new();
    for outcome in outcomes {
        let _ = writeln!(text, "  {} {:?} {:?} {:?}", outcome.status, outcome.tags, outcome.error, outcome.message);
    }
    let _ = writeln!(text, "  {:?}", left.rows.into_iter().flatten().flatten().collect::<Vec<_>>());
    text
}

#[test]
fn what_commits_by_itself_is_refused_and_run_where_the_server_does() {
    check(&postgres());
}

/// Since 18 a pipeline is a block to its server, and says so.
#[test]
fn what_commits_by_itself_on_other_versions() {
    check(&server(12));
    check(&server(18));
}

fn check(postgres: &Postgres) {
    let proxy = proxy(postgres, |_| {});
    let databases = ["direct", "proxied"].map(|name| new_database(postgres, name));
    let mut direct = Client::connect(postgres.port, &postgres.user, &databases[0]);
    let mut proxied = Client::connect(port(&proxy), &postgres.user, &databases[1]);
    let mut differ = String::new();
    // What an older server cannot read it refuses when it comes to it, behind other statements of the string: docs/operations.md.
    let is_read = |statement: &&&str| postgres.version >= 14 || !statement.contains("DETACH");
    for statement in STATEMENTS.iter().filter(is_read) {
        for place in &PLACES {
            let told = [&mut direct, &mut proxied].map(|client| told(client, place, statement));
            // In a pipeline that the proxy keeps in a block it may not commit: docs/operations.md.
            let commits = statement.contains("commits()") || statement.contains("COMMIT");
            if commits && matches!(place, Place::Pipeline([DDL], _)) {
                assert!(told[1].contains("2D000"), "{}", told[1]);
                continue;
            }
            if told[0] != told[1] {
                let _ = writeln!(differ, "{statement} in {}\n- {}+ {}", place.name(), told[0], told[1]);
            }
        }
    }
    assert!(differ.is_empty(), "on PostgreSQL {}:\n{differ}", postgres.version);
    proxy.stop();
}

/// PostgreSQL has no EXPLAIN of DDL: that of the proxy may stand among other statements, and changes nothing.
#[test]
fn explain_of_ddl_stands_among_other_statements() {
    let postgres = postgres();
    let proxy = proxy(&postgres, |_| {});
    let mut client = Client::connect(port(&proxy), &postgres.user, "postgres");
    client.ok("CREATE TABLE t (a int)");
    let explains = |outcome: &Outcome, title: &str| {
        assert_eq!(outcome.error, None, "{outcome:?}");
        let lines: Vec<String> = outcome.rows.iter().flatten().flatten().cloned().collect();
        assert!(lines.iter().any(|line| line.starts_with("direct") && line.contains(title)), "{lines:?}");
    };
    let outcome = client.query("BEGIN; EXPLAIN CREATE INDEX ON t (a)");
    explains(&outcome, "CREATE INDEX");
    assert_eq!((outcome.status, outcome.tags.len()), ('T', 2));
    explains(&client.query("EXPLAIN ALTER TABLE t ADD COLUMN b int"), "ADD COLUMN");
    explains(&client.execute("EXPLAIN ALTER TABLE t ADD COLUMN b int"), "ADD COLUMN");
    client.ok("COMMIT");
    let outcome =
        client.query("ALTER TABLE t ADD COLUMN b int; EXPLAIN (VERBOSE) ALTER TABLE t DROP COLUMN b; EXPLAIN SELECT 1");
    explains(&outcome, "DROP COLUMN");
    assert_eq!(outcome.tags.len(), 3, "{outcome:?}");
    let outcome = client.query("EXPLAIN DROP TABLE t; SELECT 1/0; SELECT 2");
    assert_eq!((outcome.error.as_deref(), outcome.tags.len()), (Some("22012"), 1));
    assert_eq!(
        client.value("SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"),
        "a,b"
    );
    // An error of the string's tells where it stands in all of it.
    let outcome = client.query("BEGIN; EXPLAIN DROP TABLE t; SELECT FROM FROM");
    assert_eq!((outcome.error.as_deref(), outcome.status), (Some("42601"), 'I'));
    proxy.stop();
}
