//! The cost of a statement inside the proxy: the keyword search, which every statement gets, and the parse and the plan,
//! which only DDL gets.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pgsluice::catalog::{Facts, NamedFacts, query};
use pgsluice::plan::{Limits, plan};
use pgsluice::sql::{may_carry_ddl, parse};

fn main() {
    divan::main();
}

/// Statements as applications send them, named by kind and size.
const ORDINARY: [&str; 6] = ["select 60", "select 300", "insert 250", "update 200", "upsert 600", "report 2000"];

fn ordinary(name: &str) -> String {
    let columns = "o.id, o.customer_id, o.status, o.total, o.created_at, o.updated_at, c.name, c.email";
    match name {
        "select 60" => "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;".to_owned(),
        "select 300" => format!(
            "SELECT {columns} FROM orders AS o INNER JOIN customers AS c ON c.id = o.customer_id \
             WHERE o.status IN ('new', 'paid') AND o.created_at > $1 AND c.deleted_at IS NULL \
             ORDER BY o.created_at DESC LIMIT 50 OFFSET 100"
        ),
        "insert 250" => "INSERT INTO orders (customer_id, status, total, created_at, updated_at, shipping_address, \
             billing_address, comment_count) VALUES ($1, $2, $3, now(), now(), $4, $5, 0) RETURNING id, created_at, \
             updated_at, customer_id, status"
            .to_owned(),
        "update 200" => "UPDATE \"orders\" SET \"status\" = $1, \"total\" = $2, \"updated_at\" = current_timestamp \
             WHERE \"orders\".\"id\" = $3 AND \"orders\".\"lock_version\" = $4 AND \"orders\".\"discarded_at\" IS NULL"
            .to_owned(),
        "upsert 600" => {
            let row = "(1, 'created', 'dropped off at the depot', 12.50), ".repeat(8);
            format!(
                "INSERT INTO events (order_id, kind, description, cost) VALUES {row} (9, 'a', 'b', 1) \
                 ON CONFLICT (order_id) DO UPDATE SET kind = excluded.kind, cost = excluded.cost"
            )
        }
        _ => {
            let part = format!(
                "SELECT {columns}, count(*) OVER (PARTITION BY c.country) AS customers, \
                 avg(o.total) FILTER (WHERE o.status = 'done') AS average FROM orders o JOIN customers c \
                 ON c.id = o.customer_id WHERE date_trunc('day', o.created_at) = $1 GROUP BY c.country "
            );
            format!("WITH a AS ({part}), b AS ({part}), d AS ({part}), e AS ({part}), f AS ({part}) SELECT * FROM a, b")
        }
    }
}

#[divan::bench(args = ORDINARY)]
fn prefilter(bencher: Bencher<'_, '_>, name: &str) {
    let text = ordinary(name);
    assert!(!may_carry_ddl(text.as_bytes()), "{text}");
    bencher.counter(BytesCount::of_str(text.as_str())).bench(|| may_carry_ddl(black_box(text.as_bytes())));
}

const DDL: [&str; 5] = [
    "ALTER TABLE orders ADD COLUMN note text",
    "CREATE INDEX ON orders (customer_id)",
    "ALTER TABLE orders ALTER COLUMN total SET NOT NULL",
    "DROP INDEX IF EXISTS orders_status",
    "CREATE TABLE IF NOT EXISTS archive (id bigint PRIMARY KEY, order_id bigint REFERENCES orders, note text DEFAULT 'x')",
];

#[divan::bench(args = DDL)]
fn parse_ddl(text: &str) -> usize {
    parse(black_box(text)).map_or(0, |statements| statements.len())
}

/// As the server would answer for a table of 31 GB.
const ORDERS: &str = r#"{
    "oid": 100, "schema": "public", "name": "orders", "kind": "r", "persistence": "p",
    "bytes": 33285996544, "table_bytes": 30000000000, "rows": 80000000, "has_children": false,
    "owned": true, "may_lock": true,
    "columns": [
        {"name": "id", "type_name": "bigint", "not_null": true, "has_default": true},
        {"name": "customer_id", "type_name": "bigint", "not_null": true, "has_default": false},
        {"name": "total", "type_name": "numeric", "not_null": false, "has_default": false}
    ],
    "indexes": [{
        "oid": 101, "schema": "public", "name": "orders_pkey", "unique": true, "valid": true, "of_constraint": true,
        "in_progress": false, "definition": "CREATE UNIQUE INDEX orders_pkey ON public.orders USING btree (id)"
    }]
}"#;

const SESSION: &str = r#"{
    "server_version": 160000, "backend_pid": 4711, "lock_timeout_ms": 0, "statement_timeout_ms": 0,
    "deadlock_timeout_ms": 1000, "may_probe": true, "current_schema": "public"
}"#;

#[divan::bench(args = DDL)]
fn plan_ddl(bencher: Bencher<'_, '_>, text: &str) {
    let statement = parse(text).ok().and_then(|mut statements| statements.pop()).unwrap_or_else(|| unreachable!());
    let asked = |name: pgsluice::pg::RelationName| {
        let found =
            (name.name == "orders").then(|| serde_json::from_str(ORDERS).unwrap_or_else(|e| unreachable!("{e}")));
        NamedFacts { name, schema_usable: true, may_create: true, found }
    };
    let facts = Facts {
        session: serde_json::from_str(SESSION).unwrap_or_else(|e| unreachable!("{e}")),
        relations: query::relations_of(&statement).into_iter().map(asked).collect(),
        wanted_index: Some("INDEX USING btree (customer_id)".to_owned()),
        ..Facts::default()
    };
    let limits = Limits { small_table: 1 << 20, rewrite: true, refuse_unsafe: false, refuse_exclude: false };
    assert!(plan(&statement, &facts, &limits).is_ok());
    bencher.bench(|| plan(black_box(&statement), black_box(&facts), &limits).is_ok());
}
