//! WARNINGs in transaction blocks. People read a tool's log, and stop reading if it warns of nothing, so no WARNING is
//! without a cause. Conversely, without a WARNING no table is rewritten.

use crate::common::versions::server;
use crate::common::{Client, no_table_is_small, port, proxy};
use pgsluice::dev::Postgres;
use std::fmt::Write as _;

const SCENE: &str = "DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s; SET search_path = s;
    CREATE TYPE mood AS ENUM ('calm', 'odd'); CREATE DOMAIN plain AS int; CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN short AS varchar(10); CREATE DOMAIN five AS int DEFAULT 5;
    CREATE FUNCTION wild() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
    CREATE FUNCTION tame() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
    CREATE TABLE t (id int, v varchar(10), vi varchar(10), ve varchar(10), vc varchar(10) COLLATE \"C\", any_v varchar, tx text, ch char(5), n numeric(8, 2),
      ni numeric(8, 2), any_n numeric, ts timestamp(3), tz timestamptz(3), i int, b varbit(8), bi bit(8), ip cidr, d short, iv interval, w int, ck varchar(10) CHECK (ck <> 'x'));
    CREATE INDEX ON t (vi); CREATE INDEX ON t (ni); CREATE INDEX ON t (lower(ve)); CREATE INDEX ON t (id) WHERE w > 0;
    INSERT INTO t SELECT g, 'v', 'v', 'v', 'v', 'v', 'v', 'c', 1, 1, 1, now(), now(), 1, '1', '11110000', '10.0.0.0/8', 'd', '1 s', 1, 'c' FROM generate_series(1, 100) g;
    CREATE TABLE p (v varchar(10)); CREATE TABLE kid () INHERITS (p); INSERT INTO kid SELECT 'x' FROM generate_series(1, 100)";

/// Which the catalogue alone shows to be harmless, and since which version.
const HARMLESS: [(&str, u32); 36] = [
    ("t ALTER v TYPE text", 10),
    ("t ALTER v TYPE varchar", 10),
    ("t ALTER v TYPE varchar(10)", 10),
    ("t ALTER v TYPE varchar(11)", 10),
    ("t ALTER vi TYPE text", 10),
    ("t ALTER vi TYPE varchar(200)", 10),
    ("t ALTER any_v TYPE text", 10),
    ("t ALTER tx TYPE varchar", 10),
    ("t ALTER tx TYPE text", 10),
    ("t ALTER d TYPE text", 10),
    ("t ALTER ch TYPE char(5)", 10),
    ("t ALTER n TYPE numeric(9, 2)", 10),
    ("t ALTER n TYPE numeric", 10),
    ("t ALTER ni TYPE numeric(12, 2)", 10),
    ("t ALTER ts TYPE timestamp(6)", 10),
    ("t ALTER tz TYPE timestamptz", 10),
    ("t ALTER b TYPE varbit(9)", 10),
    ("t ALTER bi TYPE varbit", 10),
    ("t ALTER ip TYPE inet", 10),
    ("t ALTER i TYPE oid", 10),
    ("t ALTER i TYPE int", 10),
    ("t ALTER v TYPE text, ALTER n TYPE numeric", 10),
    ("t ADD c mood", 10),
    ("t ADD c s.mood", 10),
    ("t ADD c plain", 10),
    ("t ADD c mood DEFAULT 'calm'", 11),
    ("t ADD c mood NOT NULL DEFAULT 'calm'::mood", 11),
    ("t ADD c s.mood DEFAULT NULL", 10),
    ("t ADD c int DEFAULT 1 + 1", 11),
    ("t ADD c timestamp DEFAULT (now() AT TIME ZONE 'utc')", 11),
    ("t ADD c timestamp DEFAULT timezone('utc', now())", 11),
    ("t ADD c date DEFAULT CURRENT_DATE + 30", 11),
    ("t ADD c text[] DEFAULT ARRAY['a', 'b']", 11),
    ("t ADD c text DEFAULT lower('X') || 'y'", 11),
    ("t ADD c int DEFAULT tame()", 11),
    ("t ADD c int DEFAULT s.tame()", 11),
];

/// Which are not, or which cannot be told: what is true is asked the server.
const OTHERS: [&str; 26] = [
    "t ALTER v TYPE varchar(9)",
    "t ALTER d TYPE varchar(20)",
    "t ALTER w TYPE int",
    "t ALTER v TYPE text USING v || ''",
    "t ALTER v TYPE text COLLATE \"C\"",
    "t ALTER ve TYPE text",
    "t ALTER vc TYPE text",
    "t ALTER any_v TYPE varchar(20)",
    "t ALTER tx TYPE varchar(20)",
    "t ALTER ch TYPE text",
    "t ALTER ch TYPE char(6)",
    "t ALTER n TYPE numeric(9, 3)",
    "t ALTER n TYPE numeric(7, 2)",
    "t ALTER any_n TYPE numeric(12, 2)",
    "t ALTER ts TYPE timestamp(2)",
    "t ALTER ts TYPE timestamptz",
    "t ALTER i TYPE bigint",
    "t ALTER i TYPE positive",
    "t ALTER ck TYPE text",
    "t ALTER v TYPE text[] USING ARRAY[v]",
    "p ALTER v TYPE text",
    "t ADD c positive",
    "t ADD c five",
    "t ADD c int DEFAULT wild()",
    "t ADD c float8 DEFAULT random() + 1",
    "t ADD c uuid[] DEFAULT ARRAY[md5(clock_timestamp()::text)::uuid]",
];

/// The files of the tables and their indexes.
fn files(client: &mut Client) -> String {
    client.value(
        "SELECT string_agg(c.relname || pg_relation_filenode(c.oid), ' ' ORDER BY c.relname) FROM pg_class c \
         WHERE c.relnamespace = 's'::regnamespace AND c.relkind IN ('r', 'i')",
    )
}

fn check(postgres: &Postgres) {
    let proxy = proxy(postgres, no_table_is_small);
    let mut client = Client::connect(port(&proxy), &postgres.user, "postgres");
    client.ok(SCENE);
    let mut wrong = String::new();
    for sql in HARMLESS.iter().map(|(sql, _)| sql).chain(&OTHERS) {
        let known = HARMLESS.iter().any(|(harmless, since)| harmless == sql && *since <= postgres.version);
        client.ok("BEGIN");
        let before = files(&mut client);
        let outcome = client.query(&format!("ALTER TABLE {sql}"));
        let warned = outcome.notices.iter().any(|notice| notice.contains("may make the application wait"));
        let kept = outcome.error.is_some() || files(&mut client) == before;
        client.ok("ROLLBACK");
        if outcome.error.is_some() || (known && warned) || (!kept && !warned) {
            let _ =
                writeln!(wrong, "{sql}: warned {warned}, files kept {kept}, {:?} {:?}", outcome.error, outcome.message);
        }
    }
    assert!(wrong.is_empty(), "on PostgreSQL {}:\n{wrong}", postgres.version);
    proxy.stop();
}

#[test]
fn no_warning_where_nothing_is_written_anew() {
    for version in [10, 12, 15, 18] {
        check(&server(version));
    }
}
