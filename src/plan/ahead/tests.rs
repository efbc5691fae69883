//! Which statements go ahead, with the shapes of migration tools.

use super::*;
use crate::sql::{ParseOptions, effects};

/// The statements before the last one of `block`, and the last one. Of the functions, `f` is volatile. What is undoable is told by the
/// statement's first words.
fn all_chosen(block: &str) -> Result<Chosen, String> {
    let mut all = effects(block, ParseOptions::default()).unwrap_or_else(|error| panic!("{block}: {error}"));
    let (last, effect) = all.pop().unwrap();
    let touches = oids(&effect.relations);
    let earlier: Vec<Earlier<'_>> = all
        .iter()
        .map(|(statement, effect)| Earlier {
            statement,
            effect,
            touches: oids(&effect.relations),
            hoisted: statement.text.contains("/* hoisted */"),
            undoable: if adds(&statement.text) { Ok(()) } else { Err(String::new()) },
            volatile: effect.functions.iter().any(|function| function.name == "f"),
        })
        .collect();
    choose(&earlier, &last, &touches).map_err(|not| {
        assert!(not.detail.ends_with('.') && not.hint.ends_with('.'), "{not:?}");
        not.detail
    })
}

fn chosen(block: &str) -> Result<Vec<usize>, String> {
    all_chosen(block).map(|chosen| chosen.ahead)
}

/// A few relations have oids: `v` is a view of `orders`.
fn oids(names: &[RelationName]) -> BTreeSet<u32> {
    let oid = |name: &RelationName| match name.name.as_str() {
        "orders" => vec![1],
        "v" => vec![1, 2],
        _ => Vec::new(),
    };
    names.iter().flat_map(oid).collect()
}

fn adds(text: &str) -> bool {
    let text = text.to_lowercase();
    let drops =
        ["drop ", "rename", "set default", "set schema", " type ", "extension"].iter().any(|word| text.contains(word));
    (text.starts_with("create") || text.starts_with("alter table")) && !drops || text.starts_with("create type")
}

#[track_caller]
fn goes(block: &str, wanted: &[usize]) {
    assert_eq!(chosen(block).as_deref(), Ok(wanted), "{block}");
}

/// The places of the statements whose rows are compared.
#[track_caller]
fn compares(block: &str, wanted: &[usize]) {
    assert_eq!(all_chosen(block).map(|chosen| chosen.compared).as_deref(), Ok(wanted), "{block}");
}

#[track_caller]
fn refused(block: &str, wanted: &str) {
    match chosen(block) {
        Err(detail) => assert!(detail.contains(wanted), "{block}: {detail}"),
        Ok(chosen) => panic!("{block}: {chosen:?}"),
    }
}

#[test]
fn shapes_of_tools() {
    // Rails, goose, Flyway: one statement, then the version.
    goes("BEGIN; CREATE INDEX ON orders (a)", &[]);
    goes(
        "BEGIN; INSERT INTO schema_migrations (version) VALUES ('1') RETURNING version; CREATE INDEX ON orders (a)",
        &[],
    );
    // Django: the additive prefix; DROP DEFAULT and comments stay.
    goes(
        "BEGIN; ALTER TABLE orders ADD COLUMN b int DEFAULT 5 NOT NULL; ALTER TABLE orders ALTER COLUMN b DROP DEFAULT; \
         COMMENT ON COLUMN orders.b IS 'x'; CREATE INDEX i ON orders (b)",
        &[1],
    );
    // Alembic: everything that is pending in one transaction.
    goes(
        "BEGIN; SELECT version_num FROM alembic_version; ALTER TABLE orders ADD COLUMN u uuid DEFAULT gen_random_uuid() NOT NULL; \
         UPDATE alembic_version SET version_num = '2' WHERE version_num = '1'; CREATE TABLE p (id serial PRIMARY KEY); \
         UPDATE alembic_version SET version_num = '3' WHERE version_num = '2'; \
         ALTER TABLE orders ADD COLUMN p_id int REFERENCES p; CREATE INDEX ON orders (p_id)",
        &[2, 4, 6],
    );
    // Flyway: locks and settings.
    goes(
        "BEGIN; SET LOCAL search_path = app; SELECT pg_try_advisory_xact_lock(1); SAVEPOINT s; SELECT * FROM h FOR UPDATE; \
         SELECT set_config('a.b', 'x', false); LISTEN l; LOCK TABLE h; ALTER TABLE orders ADD UNIQUE (a)",
        &[],
    );
    // CREATE TABLE with a foreign key to a busy table, rows of the new table, and a change of the busy table.
    goes(
        "BEGIN; CREATE TABLE p (id int PRIMARY KEY, o int REFERENCES orders); INSERT INTO p VALUES (1, NULL); \
         ALTER TABLE orders ADD COLUMN p_id int REFERENCES p",
        &[1],
    );
    goes("BEGIN; CREATE TYPE e AS ENUM ('a'); INSERT INTO q VALUES (1); ALTER TABLE orders ADD COLUMN e e", &[1]);
}

/// A name that the server would choose must be free, or taken, as it is in the block.
#[test]
fn names_that_the_server_chooses() {
    let view = "BEGIN; DROP TABLE old; CREATE VIEW orders_a_idx AS SELECT 1;";
    goes(&format!("{view} CREATE INDEX ON orders (a)"), &[2]);
    goes(&format!("{view} ALTER TABLE orders ADD UNIQUE (b)"), &[2]);
    refused(
        "BEGIN; ALTER INDEX old RENAME TO orders_a_idx; CREATE INDEX ON orders (a)",
        "ALTER INDEX old stands before it",
    );
    goes(&format!("{view} CREATE INDEX named ON orders (a)"), &[]);
    goes(&format!("{view} ALTER TABLE orders ADD COLUMN a int"), &[]);
    goes("BEGIN; CREATE TABLE orders_a_idx1 (id int); CREATE INDEX ON orders (a)", &[1]);
    goes("BEGIN; CREATE VIEW orders_all AS SELECT 1; CREATE INDEX ON orders (a)", &[]);
}

#[test]
fn what_stands_before() {
    refused(
        "BEGIN; UPDATE public.orders SET a = 1; CREATE INDEX ON orders (a)",
        "UPDATE of public.orders stands before it",
    );
    refused("BEGIN; DELETE FROM v; CREATE INDEX ON orders (a)", "DELETE of v stands");
    refused("BEGIN; LOCK TABLE orders; CREATE INDEX ON orders (a)", "LOCK of orders");
    refused("BEGIN; SELECT * FROM orders FOR UPDATE; CREATE INDEX ON orders (a)", "SELECT of orders");
    refused("BEGIN; ALTER TABLE orders DROP COLUMN b; CREATE INDEX ON orders (a)", "ALTER TABLE orders");
    refused("BEGIN; TRUNCATE a, orders; CREATE INDEX ON orders (a)", "TRUNCATE TABLE a, orders");
    refused("BEGIN; ALTER TABLE x RENAME TO y; CREATE INDEX ON y (a)", "ALTER TABLE x");
    refused("BEGIN; ALTER TABLE x SET SCHEMA s; CREATE INDEX ON s.x (a)", "ALTER TABLE x");
    refused("BEGIN; DROP INDEX i; CREATE INDEX i ON orders (a)", "DROP INDEX i");
    refused("BEGIN; DROP INDEX i; CREATE INDEX ON orders (a)", "DROP INDEX i");
    refused("BEGIN; DROP INDEX i; ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES p", "DROP INDEX i");
    refused("BEGIN; DROP INDEX i; ALTER TABLE orders ADD CONSTRAINT i UNIQUE (a)", "DROP INDEX i");
    goes("BEGIN; DROP INDEX i; CREATE INDEX j ON orders (a)", &[]);
    goes("BEGIN; CREATE INDEX i ON orders (b); CREATE INDEX j ON orders (a)", &[]);
    goes("BEGIN; CREATE INDEX ON orders (a); CREATE INDEX ON orders (a)", &[1]);
    goes("BEGIN; CREATE UNIQUE INDEX i ON p (b); ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES p (b)", &[1]);
    refused("BEGIN; DROP TABLE x CASCADE; CREATE INDEX ON orders (a)", "DROP TABLE x");
    refused("BEGIN; ALTER TYPE e RENAME TO g; ALTER TABLE orders ADD COLUMN c g", "ALTER TYPE");
    refused("BEGIN; CREATE EXTENSION btree_gin; CREATE INDEX ON orders USING gin (a)", "CREATE EXTENSION btree_gin");
    refused(
        "BEGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x; CREATE TABLE y (z int REFERENCES orders)",
        "DEFAULT",
    );
    refused(
        "BEGIN; DO $$ BEGIN CREATE TYPE e AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN null; END $$; \
         ALTER TABLE orders ADD COLUMN c e",
        "DO of e",
    );
    // An earlier statement goes ahead, and takes what it needs with it.
    refused(
        "BEGIN; UPDATE p SET a = 1; ALTER TABLE orders ADD COLUMN p_id int REFERENCES p; CREATE INDEX ON orders (p_id)",
        "UPDATE of p",
    );
    // What stands behind it may stay.
    goes(
        "BEGIN; ALTER TABLE orders ADD COLUMN p_id int REFERENCES p; UPDATE p SET a = 1; CREATE INDEX ON orders (p_id)",
        &[1],
    );
    goes("BEGIN; UPDATE other.orders_old SET a = 1; CREATE INDEX ON orders (a)", &[]);
    goes("BEGIN; CREATE EXTENSION citext; CREATE INDEX ON orders (a)", &[]);
    goes("BEGIN; ANALYZE orders; GRANT SELECT ON orders TO x; CREATE INDEX ON orders (a)", &[]);
    goes("BEGIN; ALTER TYPE a RENAME TO b; CREATE INDEX ON orders (a, b DESC)", &[]);
    refused("BEGIN; ALTER TYPE a RENAME TO b; CREATE INDEX ON orders ((x::b))", "ALTER TYPE a, b");
    goes("BEGIN; ALTER TYPE a RENAME TO b; CREATE INDEX \"i\" ON \"orders\" USING btree (\"b\")", &[]);
    refused(
        "BEGIN; ALTER TABLE x DROP COLUMN y; CREATE FUNCTION g() RETURNS SETOF x LANGUAGE sql AS ''",
        "ALTER TABLE x",
    );
    refused(
        "BEGIN; CREATE OR REPLACE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT a /* drop it */ FROM orders'; \
         ALTER TABLE orders ADD c int",
        "CREATE FUNCTION g",
    );
    goes("BEGIN; DROP TABLE x; DROP TYPE e; CREATE INDEX ON orders (a)", &[]);
    goes("BEGIN; UPDATE orders SET a = 1; ALTER TABLE orders /* hoisted */ ADD c int; CREATE INDEX ON p (a)", &[]);
    refused(
        "BEGIN; ALTER TABLE orders ALTER c DROP DEFAULT; ALTER TABLE orders ADD COLUMN c int",
        "ALTER TABLE orders",
    );
}

/// Columns and constraints that the later statement does not name.
#[test]
fn what_is_apart() {
    for (x, y) in [
        ("DROP COLUMN b", "CREATE INDEX i ON orders (a)"),
        ("DROP COLUMN b", "ALTER TABLE orders ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES p (b2)"),
        ("ALTER COLUMN b TYPE bigint", "ALTER TABLE orders ADD COLUMN c int DEFAULT 5"),
        ("ALTER COLUMN b DROP NOT NULL, DROP COLUMN d", "ALTER TABLE orders ALTER a SET NOT NULL"),
        ("DROP CONSTRAINT k", "CREATE UNIQUE INDEX i ON orders (a)"),
        ("DROP CONSTRAINT k", "ALTER TABLE orders ADD CONSTRAINT k2 UNIQUE (a)"),
    ] {
        goes(&format!("BEGIN; ALTER TABLE orders {x} /* drop */; {y}"), &[]);
    }
    for (x, y) in [
        ("DROP COLUMN b", "CREATE INDEX ON orders (a)"),
        ("DROP COLUMN a", "CREATE INDEX i ON orders (\"A\")"),
        ("DROP COLUMN b CASCADE", "CREATE INDEX i ON orders (a)"),
        ("DROP COLUMN b", "ALTER TABLE orders ADD CONSTRAINT k PRIMARY KEY (a)"),
        ("DROP COLUMN b", "ALTER TABLE p ADD CONSTRAINT k FOREIGN KEY (o) REFERENCES orders"),
        ("DROP CONSTRAINT k", "ALTER TABLE orders ALTER a SET NOT NULL"),
        ("DROP COLUMN b", "CREATE INDEX i ON orders ((orders IS NULL))"),
        ("DROP COLUMN b", "ALTER TABLE orders ADD CONSTRAINT k CHECK (orders IS NOT NULL)"),
        ("DROP CONSTRAINT k", "ALTER TABLE orders ADD CONSTRAINT k UNIQUE (a)"),
        ("RENAME COLUMN b TO c", "CREATE INDEX i ON orders (a)"),
    ] {
        refused(&format!("BEGIN; ALTER TABLE orders {x}; {y}"), "ALTER TABLE orders stands before it");
    }
}

#[test]
fn rows_of_new_tables() {
    let with = |last: &str| {
        chosen(&format!(
            "BEGIN; CREATE TABLE p (id int, o int); CREATE TABLE q (id int); INSERT INTO p VALUES (1, 2); {last}"
        ))
    };
    for last in [
        "CREATE INDEX ON p (id)",
        "ALTER TABLE p ADD FOREIGN KEY (o) REFERENCES orders",
        "ALTER TABLE p ADD COLUMN c int",
        "ALTER TABLE p ADD COLUMN c int DEFAULT 5 NOT NULL",
        "ALTER TABLE orders ADD COLUMN p_id int REFERENCES p",
        "CREATE TABLE r (p_id int REFERENCES p, o int REFERENCES orders)",
    ] {
        assert_eq!(with(last).as_deref(), Ok(&[1][..]), "{last}");
    }
    for last in [
        "CREATE UNIQUE INDEX ON p (id)",
        "ALTER TABLE p ADD FOREIGN KEY (o) REFERENCES q",
        "ALTER TABLE p ALTER id SET NOT NULL",
        "ALTER TABLE p ADD COLUMN c uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE orders ADD FOREIGN KEY (p_id) REFERENCES p",
        "ALTER TABLE orders ADD COLUMN p_id int DEFAULT 1 REFERENCES p",
        "INSERT INTO q SELECT * FROM p; ALTER TABLE p ADD COLUMN c int",
        "INSERT INTO p SELECT id, 1 FROM orders; CREATE INDEX ON orders (a)",
        "SELECT * FROM p FOR UPDATE; CREATE INDEX ON p (id)",
    ] {
        assert!(with(last).is_err(), "{last}");
    }
}

#[test]
fn what_cannot_be_run_again() {
    refused("BEGIN; INSERT INTO t (a) VALUES (1) RETURNING id; CREATE INDEX ON orders (a)", "RETURNING gives values");
    refused(
        "BEGIN; DECLARE c CURSOR FOR SELECT 1; CREATE INDEX ON orders (a)",
        "DECLARE cannot be run again: it opens a cursor.",
    );
    refused("BEGIN; SELECT f(); CREATE INDEX ON orders (a)", "may do anything");
    refused("BEGIN; SELECT f(a) FROM t FOR UPDATE; CREATE INDEX ON orders (a)", "may do anything");
    refused("BEGIN; UPDATE t SET a = f(); ALTER TABLE orders ADD UNIQUE (a)", "UPDATE of t");
    goes("BEGIN; UPDATE t SET a = f(); CREATE INDEX ON orders (a)", &[]);
    refused("BEGIN; SELECT f(), nextval('s'); CREATE INDEX ON orders (a)", "may do anything");
    refused("BEGIN; SELECT f(), pg_advisory_xact_lock(1); CREATE INDEX ON orders (a)", "may do anything");
    goes("BEGIN; PREPARE p AS SELECT f(); SET LOCAL transaction_timeout = 0; CREATE INDEX ON orders (a)", &[]);
    goes("BEGIN; SELECT g(), nextval('s'); CREATE INDEX ON orders (a)", &[]);
    refused("BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE INDEX ON orders (a)", "The transaction is REPEATABLE READ.");
    refused("BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; CREATE INDEX ON orders (a)", "SERIALIZABLE");
    refused("START TRANSACTION READ ONLY; CREATE INDEX ON orders (a)", "READ ONLY");
    refused(
        "BEGIN; SET LOCAL transaction_isolation = 'serializable'; CREATE INDEX ON orders (a)",
        "transaction_isolation",
    );
    goes(
        "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; SET CONSTRAINTS ALL DEFERRED; CREATE INDEX ON orders (a)",
        &[],
    );
    // The client knows a value that the second run would choose anew.
    refused(
        "BEGIN; INSERT INTO t (a) VALUES (1); SELECT id FROM t; CREATE INDEX ON orders (a)",
        "SELECT of t has read rows",
    );
    refused(
        "BEGIN; UPDATE t SET at = now(); SELECT at FROM t; CREATE INDEX ON orders (a)",
        "SELECT of t has read rows",
    );
    goes("BEGIN; SELECT id FROM t; INSERT INTO t (a) VALUES (1); CREATE INDEX ON orders (a)", &[]);
    goes("BEGIN; UPDATE t SET a = 1; SELECT a FROM t; CREATE INDEX ON orders (a)", &[]);
    refused(
        "BEGIN; ALTER TABLE orders ADD u uuid DEFAULT gen_random_uuid(); SELECT u FROM orders; CREATE INDEX ON orders (u)",
        "SELECT of orders has read rows",
    );
    refused(
        "BEGIN; CREATE TABLE t (id serial); SELECT setval('t_id_seq', 5); CREATE INDEX ON orders (a)",
        "a sequence",
    );
    goes("BEGIN; SELECT setval('t_id_seq', 5); CREATE TABLE t (id serial); CREATE INDEX ON orders (a)", &[]);
}

/// Rows that the block has locked, and that the client has read.
#[test]
fn what_the_client_knows_is_compared() {
    let index = "CREATE INDEX ON orders (a)";
    for (block, wanted) in [
        ("SELECT * FROM t FOR UPDATE", &[1][..]),
        ("SELECT * FROM t FOR KEY SHARE; SELECT a FROM t", &[1, 2]),
        ("SELECT a FROM t; SELECT a FROM t FOR UPDATE", &[2]),
        ("UPDATE t SET a = 1; SELECT a FROM t; SELECT a FROM p", &[2]),
        ("DELETE FROM t; TABLE t; SELECT (SELECT max(a) FROM t)", &[2, 3]),
        ("LOCK TABLE t; SELECT count(*) FROM t", &[2]),
        ("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE; SELECT count(*) FROM t", &[2]),
        ("LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT count(*) FROM t", &[2]),
        ("ALTER TABLE t DROP COLUMN c; SELECT * FROM t", &[2]),
        ("SELECT a FROM t FOR UPDATE; UPDATE p SET a = 5; INSERT INTO q VALUES (5)", &[1]),
        ("SELECT a FROM t ORDER BY a LIMIT 1 FOR UPDATE", &[1]),
        ("SELECT a FROM t FOR UPDATE; COMMENT ON TABLE t IS 'x'; CREATE INDEX i ON t (a); LOCK TABLE t", &[1]),
        ("WITH x AS (SELECT 1) SELECT * FROM t, x FOR UPDATE OF t", &[1]),
    ] {
        compares(&format!("BEGIN; {block}; {index}"), wanted);
    }
    // Nobody is kept away from these rows, or nothing is read.
    for block in [
        "SELECT a FROM t; UPDATE t SET a = 1",
        "UPDATE t SET a = 1; SELECT a FROM p",
        "LOCK TABLE t IN ACCESS SHARE MODE; SELECT count(*) FROM t",
        "LOCK TABLE t IN ROW EXCLUSIVE MODE; SELECT count(*) FROM t",
        "UPDATE t SET a = 1; EXPLAIN SELECT * FROM t; SHOW search_path",
        "COMMENT ON TABLE t IS 'x'; SELECT count(*) FROM t",
        "CREATE TABLE t (a int); SELECT count(*) FROM t",
        "ALTER TABLE t /* hoisted */ ADD COLUMN c int; SELECT * FROM t",
    ] {
        compares(&format!("BEGIN; {block}; {index}"), &[]);
    }
    // An index of the table that was locked leaves its rows.
    compares("BEGIN; ALTER TABLE orders ADD COLUMN c int; SELECT c FROM orders; CREATE INDEX ON orders (c)", &[2]);
}

#[test]
fn what_the_client_knows_and_what_may_change_it() {
    let index = "CREATE INDEX ON orders (a)";
    for (block, wanted) in [
        (
            "SELECT a FROM t FOR UPDATE; UPDATE t SET a = 90",
            "SELECT of t has read rows that this transaction has locked, and UPDATE of t behind",
        ),
        ("UPDATE t SET a = 1; SELECT a FROM t; DELETE FROM t WHERE a = 1", "DELETE of t behind it"),
        ("LOCK TABLE t; SELECT a FROM t; INSERT INTO t VALUES (1)", "INSERT into t behind it"),
        ("SELECT a FROM t FOR UPDATE; ALTER TABLE t DROP COLUMN a", "ALTER TABLE t behind it"),
        ("SELECT a FROM t FOR UPDATE; TRUNCATE t", "TRUNCATE TABLE t behind it"),
        ("SELECT a FROM t FOR UPDATE; UPDATE p SET a = f()", "UPDATE of p behind it"),
        ("UPDATE t SET a = 1; SELECT a, now() FROM t", "the time or on chance"),
        ("UPDATE t SET a = 1; SELECT a FROM t WHERE random() < 0.5", "the time or on chance"),
        ("UPDATE t SET a = 1; SELECT ctid FROM t", "where the rows stand"),
        ("SELECT a FROM t LIMIT 1 FOR UPDATE", "the order of the rows"),
        ("UPDATE t SET a = 1; SELECT array_agg(a) FROM t", "the order of the rows"),
    ] {
        refused(&format!("BEGIN; {block}; {index}"), wanted);
    }
    refused(
        "BEGIN; ALTER TABLE orders ADD COLUMN c int; SELECT * FROM orders; ALTER TABLE orders ADD COLUMN d uuid DEFAULT gen_random_uuid()",
        "SELECT of orders has read the table that the statement changes",
    );
    // The block has only read these rows before it wrote them.
    goes(&format!("BEGIN; SELECT a FROM t; UPDATE t SET a = 90; {index}"), &[]);
}
