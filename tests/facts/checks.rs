//! The checks of the facts and probes on one server: every kind of relation, a hostile search_path, and no waiting.
//!
//! The checks run on every version. If a version lacks a feature, the feature is left out of the schema, and never out of
//! the questions.

use pgsluice::catalog::reading::{FactsNeeded, Reading};
use pgsluice::catalog::{Facts, NamedFacts, RelationFacts, probe, query, trust};
use pgsluice::dev::Postgres;
use pgsluice::pg::{LockMode, RelationKind, RelationName};
use pgsluice::plan::{Limits, plan, print};
use pgsluice::sql::{Statement, parse};
use std::time::Duration;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

/// `{…}`: what the version decides.
const SCHEMA: &str = r#"
CREATE SCHEMA other; CREATE SCHEMA "Odd Schema"; CREATE SCHEMA secret; CREATE ROLE app;
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C");
CREATE TABLE orders (id serial PRIMARY KEY, customer_id bigint REFERENCES customers, note varchar(10) NOT NULL,
  CHECK (note <> ''), doubled int {stored});
INSERT INTO orders (note) SELECT 'x' FROM generate_series(1, 5000);
ALTER TABLE orders ADD COLUMN added int DEFAULT 7;
CREATE INDEX orders_note_idx ON orders (note);
CREATE TABLE "Odd Schema"."Odd ""Name""" (a int);
CREATE TABLE parted (a int) PARTITION BY RANGE (a);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (1) TO (10);
{of the parent}
INSERT INTO parted SELECT 5 FROM generate_series(1, 1000);
CREATE TABLE base (a int); CREATE TABLE heir () INHERITS (base);
CREATE VIEW a_view AS SELECT 1 AS x; CREATE MATERIALIZED VIEW a_mv AS SELECT 1 AS x;
CREATE TYPE pair AS (a int, b int); CREATE TABLE of_pair OF pair;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE a_ft (a int) SERVER s;
CREATE TABLE secret.hidden (a int);
GRANT SELECT ON orders TO app; GRANT USAGE ON SCHEMA public TO app;
"#;

/// Default partitions and indexes of the parent are new in 11, stored generated columns in 12.
fn schema(version: u32) -> String {
    let stored = if version >= 12 { "GENERATED ALWAYS AS (1 + 1) STORED" } else { "" };
    let of_the_parent = match version {
        11.. => "CREATE TABLE rest PARTITION OF parted DEFAULT; CREATE INDEX parted_idx ON parted (a);",
        _ => "",
    };
    SCHEMA.replace("{stored}", stored).replace("{of the parent}", of_the_parent)
}

/// Everything in one server: starting one costs more than all the questions.
pub(crate) async fn all(server: &Postgres) {
    let client = connect(server).await;
    client.batch_execute(&schema(server.version)).await.unwrap();
    kinds(&client, server.version).await;
    keys_and_indexes(&client, server.version).await;
    hostile_search_path(&client).await;
    roles(&client).await;
    own_transaction(&client).await;
    rewrite_probe(&client, server.version).await;
    index_probe(&client).await;
    not_waiting(server).await;
    lanes(server).await;
}

async fn connect(server: &Postgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.dsn("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn facts(client: &Client, names: &[&str]) -> Facts {
    let names: Vec<RelationName> = names
        .iter()
        .map(|name| match name.split_once('.') {
            Some((schema, name)) => RelationName::new(Some(schema), name),
            None => RelationName::new(None, name),
        })
        .collect();
    ask(client, &names).await
}

async fn ask(client: &Client, names: &[RelationName]) -> Facts {
    let mut reading = Reading::new(names, FactsNeeded::Reach);
    while let Some(questions) = reading.round() {
        let mut texts = Vec::new();
        for question in &questions {
            let parameters: Vec<_> =
                question.parameters.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
            texts.push(client.query_typed(&question.sql, &parameters).await.unwrap()[0].get(0));
        }
        reading.answer(&texts).unwrap();
    }
    reading.facts().unwrap()
}

async fn one(client: &Client, name: &str) -> RelationFacts {
    facts(client, &[name]).await.relations.remove(0).found.unwrap_or_else(|| panic!("{name} is not found"))
}

async fn kinds(client: &Client, version: u32) {
    use RelationKind as K;
    let mut kinds = vec![
        ("orders", K::Table),
        ("parted", K::PartitionedTable),
        ("orders_note_idx", K::Index),
        ("orders_id_seq", K::Sequence),
        ("a_view", K::View),
        ("a_mv", K::MaterializedView),
        ("a_ft", K::ForeignTable),
        ("pair", K::CompositeType),
        ("Odd Schema.Odd \"Name\"", K::Table),
        ("pg_class", K::Table),
        ("public.orders", K::Table),
    ];
    if version >= 11 {
        kinds.push(("parted_idx", K::PartitionedIndex));
    }
    let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
    let facts = facts(client, &names).await;
    for ((name, kind), asked) in kinds.iter().zip(&facts.relations) {
        let found = asked.found.as_ref().unwrap_or_else(|| panic!("{name} is not found"));
        assert_eq!(found.kind, *kind, "{name}");
        assert_eq!(found.is_system, *name == "pg_class", "{name}");
        assert!(found.owned && found.may_lock && !found.created_here, "{name}");
    }
    for name in ["nowhere", "other.orders", "no_schema.orders"] {
        let NamedFacts { found, schema_usable, .. } = self::facts(client, &[name]).await.relations.remove(0);
        assert_eq!((found, schema_usable), (None, name != "no_schema.orders"), "{name}");
    }
    assert_eq!(facts.session.current_schema.as_deref(), Some("public"));
    assert_eq!((facts.session.lock_timeout_ms, facts.session.deadlock_timeout_ms), (0, 1000));
    client.batch_execute("SET lock_timeout = '90s'").await.unwrap();
    assert_eq!(self::facts(client, &[]).await.session.lock_timeout_ms, 90_000);
    client.batch_execute("RESET lock_timeout").await.unwrap();
}

async fn keys_and_indexes(client: &Client, version: u32) {
    let orders = one(client, "orders").await;
    assert!(orders.bytes > 100_000 && !orders.has_children);
    let column = |name: &str| orders.column(name).unwrap().clone();
    assert_eq!((column("note").type_name.as_str(), column("note").not_null), ("character varying(10)", true));
    assert_eq!((column("doubled").generated, column("added").has_default), (version >= 12, true));
    let fk = orders.constraint("orders_customer_id_fkey").unwrap();
    assert_eq!((fk.kind, fk.validated, fk.columns.clone()), ('f', true, vec!["customer_id".to_owned()]));
    assert_eq!(fk.references.as_ref().unwrap().name, "customers");
    assert_eq!(orders.constraint("orders_note_check").unwrap().columns, ["note"]);
    let names: Vec<&str> = orders.indexes.iter().map(|index| index.id.name.as_str()).collect();
    assert_eq!(names, ["orders_note_idx", "orders_pkey"]);
    assert!(orders.indexes.iter().all(|index| index.valid && !index.in_progress));
    assert_eq!(orders.indexes.iter().map(|index| index.of_constraint).collect::<Vec<_>>(), [false, true]);
    let customers = one(client, "customers").await;
    assert_eq!(customers.referenced_by.first().unwrap().name, "orders");
    assert!(customers.column("id").unwrap().identity && customers.column("name").unwrap().custom_collation);
    let index = one(client, "orders_note_idx").await;
    assert_eq!((index.table.unwrap().name.as_str(), index.table_bytes), ("orders", orders.bytes));
    assert_eq!(index.index.unwrap().definition, "CREATE INDEX orders_note_idx ON public.orders USING btree (note)");
    let sequence = one(client, "orders_id_seq").await;
    assert_eq!(sequence.table.unwrap().name, "orders");
    let parted = one(client, "parted").await;
    let part = one(client, "part").await;
    assert!(parted.has_children && parted.bytes >= part.bytes && part.bytes > 0);
    assert_eq!((part.is_partition, part.parent.unwrap().name.as_str()), (true, "parted"));
    for default in [parted.default_partition, part.default_partition] {
        assert_eq!(default.map(|rest| rest.name), (version >= 11).then(|| "rest".to_owned()));
    }
    let heir = one(client, "heir").await;
    assert!(!heir.is_partition && heir.parent.unwrap().name == "base" && one(client, "base").await.has_children);
    assert!(one(client, "of_pair").await.typed);
}

/// Operators and functions of the same names, found before PostgreSQL's own, that fail when they are called.
async fn hostile_search_path(client: &Client) {
    let before = facts(client, &["public.orders", "public.parted", "public.part"]).await;
    let hostile = "CREATE SCHEMA evil;
        CREATE FUNCTION evil.trap(anyelement, anyelement) RETURNS bool LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE OPERATOR evil.= (LEFTARG = anyelement, RIGHTARG = anyelement, PROCEDURE = evil.trap);
        CREATE FUNCTION evil.name_trap(name, name) RETURNS bool LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, PROCEDURE = evil.name_trap);
        CREATE FUNCTION evil.text_trap(text, text) RETURNS bool LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = evil.text_trap);
        CREATE FUNCTION evil.oid_trap(oid, oid) RETURNS bool LANGUAGE plpgsql AS
          'BEGIN RAISE EXCEPTION ''trapped''; END';
        CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, PROCEDURE = evil.oid_trap);
        CREATE TABLE evil.pg_class (oid oid); CREATE DOMAIN evil.text AS int; CREATE DOMAIN evil.oid AS int;
        SET search_path = evil, other, public, pg_catalog";
    client.batch_execute(hostile).await.unwrap();
    let after = facts(client, &["public.orders", "public.parted", "public.part"]).await;
    let comparable = |facts: Facts| -> Vec<RelationFacts> {
        let mut found: Vec<_> = facts.relations.into_iter().filter_map(|asked| asked.found).collect();
        // Definitions are written so that they are right under the session's own path.
        found.iter_mut().flat_map(|facts| &mut facts.constraints).for_each(|c| c.definition.clear());
        found
    };
    let schema = after.session.current_schema.clone();
    assert_eq!(comparable(before), comparable(after));
    assert_eq!(schema.as_deref(), Some("evil"));
    assert_eq!(one(client, "pg_class").await.id.schema, "evil");
    assert_eq!(one(client, "orders").await.id.schema, "public");
    client.batch_execute("RESET search_path; DROP SCHEMA evil CASCADE").await.unwrap();
}

async fn roles(client: &Client) {
    client.batch_execute("SET ROLE app").await.unwrap();
    let orders = one(client, "orders").await;
    assert!(!orders.owned && !orders.may_lock);
    let hidden = facts(client, &["secret.hidden"]).await.relations.remove(0);
    assert!(!hidden.schema_usable && !hidden.may_create && hidden.found.is_some());
    client.batch_execute("RESET ROLE").await.unwrap();
}

/// What the transaction made, holds and has seen; also in subtransactions.
async fn own_transaction(client: &Client) {
    client
        .batch_execute(
            "BEGIN; CREATE TABLE fresh (a int); SAVEPOINT s; CREATE TABLE fresher (a int); \
        CREATE INDEX fresher_idx ON fresher (a); RELEASE s; LOCK TABLE orders IN SHARE MODE; \
        ALTER TABLE part ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
        )
        .await
        .unwrap();
    let facts = facts(client, &["fresh", "fresher", "fresher_idx", "orders", "part", "customers"]).await;
    let here: Vec<bool> = facts.relations.iter().map(|asked| asked.found.as_ref().unwrap().created_here).collect();
    assert_eq!(here, [true, true, true, false, false, false]);
    let locks: Vec<Option<LockMode>> =
        facts.relations.iter().map(|asked| asked.found.as_ref().unwrap().own_lock).collect();
    use LockMode::{AccessExclusive, Share};
    assert_eq!(
        locks[..5],
        [Some(AccessExclusive), Some(AccessExclusive), Some(AccessExclusive), Some(Share), Some(AccessExclusive)]
    );
    assert_eq!(facts.session.strongest_lock, Some(AccessExclusive));
    client.batch_execute("ROLLBACK; BEGIN; CREATE TABLE fresh (a int)").await.unwrap();
    assert_eq!(self::facts(client, &[]).await.session.strongest_lock, None);
    client.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    let session = self::facts(client, &[]).await.session;
    assert!(session.frozen_snapshot && !session.may_probe);
    client.batch_execute("ROLLBACK; CREATE TEMP TABLE scratch (a int)").await.unwrap();
    let scratch = [one(client, "scratch").await, one(client, "pg_temp.scratch").await];
    assert!(scratch.iter().all(|scratch| scratch.persistence == 't' && !scratch.created_here));
}

fn statement(sql: &str) -> Statement {
    parse(sql).unwrap().remove(0)
}

async fn files(client: &Client, sql: &str) -> probe::Files {
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn rewrite_probe(client: &Client, version: u32) {
    let mut cases = vec![
        ("ALTER TABLE orders ADD COLUMN c int DEFAULT 1", (version < 11, false)),
        ("ALTER TABLE orders ADD COLUMN c float8 DEFAULT random()", (true, false)),
        ("ALTER TABLE orders ALTER COLUMN note TYPE varchar(20)", (false, false)),
        ("ALTER TABLE orders ALTER COLUMN note TYPE text", (false, false)),
        ("ALTER TABLE orders ALTER COLUMN id TYPE bigint", (true, true)),
        ("ALTER TABLE orders ALTER COLUMN note TYPE varchar(10) COLLATE \"C\"", (false, true)),
    ];
    if version >= 12 {
        cases.push(("ALTER TABLE orders ADD COLUMN g int GENERATED ALWAYS AS (orders.id * 2) STORED", (true, false)));
    }
    if version >= 17 {
        cases.push(("ALTER TABLE orders ALTER COLUMN doubled SET EXPRESSION AS (1 + 2)", (true, true)));
    }
    if version >= 18 {
        cases.push(("ALTER TABLE orders ADD COLUMN g int GENERATED ALWAYS AS (orders.id * 2) VIRTUAL", (false, false)));
    }
    let table = one(client, "orders").await;
    for (sql, expected) in cases {
        let probes = probe::probes(&statement(sql), &table, &trust::CopyExtent::All);
        let [probe] = probes.as_slice() else { panic!("{sql}: {} probes", probes.len()) };
        client.batch_execute(&format!("BEGIN; {}", probe.make.join("; "))).await.unwrap();
        let before = files(client, probe.files).await;
        client.batch_execute(&probe.statement).await.unwrap();
        let answer = probe::answer(&before, &files(client, probe.files).await);
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!((answer.rewrites_table, answer.rebuilds_indexes), expected, "{sql}");
    }
    assert!(
        probe::probes(&statement("ALTER TABLE orders ADD COLUMN c int"), &table, &trust::CopyExtent::All).is_empty()
    );
}

/// A failed build leaves an invalid index; the plan drops it first, as its definition is the wanted one.
async fn index_probe(client: &Client) {
    let sql = "CREATE UNIQUE INDEX IF NOT EXISTS failed ON orders (lower(note)) WHERE id > 0";
    let concurrently = sql.replace("INDEX IF NOT EXISTS", "INDEX CONCURRENTLY");
    client.batch_execute(&concurrently).await.unwrap_err();
    let create = statement(sql);
    let mut facts = ask(client, &query::relations_of(&create)).await;
    let table = facts.relations.remove(0).found.unwrap();
    let probe = probe::index_probe(&create, &table).unwrap();
    client.batch_execute(&format!("BEGIN; {}; {}", probe.make, probe.build)).await.unwrap();
    let definition: String = client.query_one(&probe.definition, &[]).await.unwrap().get(0);
    client.batch_execute("ROLLBACK").await.unwrap();
    facts = ask(client, &query::relations_of(&create)).await;
    facts.wanted_index = probe::wanted_index(&definition);
    let plan =
        plan(&create, &facts, &Limits { small_table: 0, rewrite: true, refuse_unsafe: false, refuse_exclude: false })
            .unwrap();
    let text = print::to_text(&plan);
    assert!(text.contains("hidden DROP INDEX CONCURRENTLY \"public\".\"failed\""), "{definition}\n{text}");
    client.batch_execute("DROP INDEX failed").await.unwrap();
}

/// Behind an ACCESS EXCLUSIVE lock, held or waited for, facts come at once.
async fn not_waiting(server: &Postgres) {
    let (holder, reader, asker) = (connect(server).await, connect(server).await, connect(server).await);
    asker.batch_execute("SET lock_timeout = '1s'").await.unwrap();
    let all = ["orders", "orders_note_idx", "orders_id_seq", "parted", "part", "customers"];
    holder
        .batch_execute(
            "BEGIN; LOCK TABLE orders, parted IN ACCESS EXCLUSIVE MODE; \
        ALTER INDEX orders_note_idx SET (fillfactor = 70); DROP INDEX orders_note_idx",
        )
        .await
        .unwrap();
    let facts = facts(&asker, &all).await;
    let orders = facts.relations[0].found.as_ref().unwrap();
    assert!(orders.bytes > 100_000, "{}", orders.bytes);
    assert!(orders.indexes.iter().all(|index| index.definition.is_empty() && index.in_progress));
    assert!(facts.relations.iter().all(|asked| asked.found.is_some()));
    holder.batch_execute("ROLLBACK").await.unwrap();
    reader.batch_execute("BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE").await.unwrap();
    let waiter = tokio::spawn(async move { holder.batch_execute("BEGIN; LOCK TABLE orders").await.map(|()| holder) });
    let queued = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while asker.query_one(queued, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(!waiter.is_finished(), "it should wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(self::facts(&asker, &all).await.relations.iter().all(|asked| asked.found.is_some()));
    reader.batch_execute("ROLLBACK").await.unwrap();
    waiter.await.unwrap().unwrap();
}

async fn lanes(server: &Postgres) {
    let (holder, asker) = (connect(server).await, connect(server).await);
    let oid = one(&asker, "orders").await.id.oid;
    let take = format!("SELECT pg_advisory_lock({}, {oid}), pg_backend_pid()", query::LANE_CLASS);
    let pid: i32 = holder.query_one(&take, &[]).await.unwrap().get(1);
    assert_eq!(one(&asker, "orders").await.lane_holder, Some(pid));
    assert_eq!(one(&holder, "orders").await.lane_holder, None);
    assert_eq!(one(&asker, "customers").await.lane_holder, None);
}
