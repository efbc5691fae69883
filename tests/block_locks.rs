//! Tests that a statement needs nothing of the proxy on a table that its transaction block has made or locked, and that the
//! proxy notices everything that could give a name to another table.

mod common;

use common::raw::{bind, execute, parse, sync};
use common::{Client, Outcome, new_database, port, postgres, proxy, wait_until};
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use std::sync::LazyLock;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// `n` of the schema `other` is what `n` must not be taken for.
const TABLES: &str = "CREATE TABLE old (id int PRIMARY KEY, a int);
    CREATE SCHEMA other; CREATE TABLE other.n (id int, a int); CREATE TABLE other.old (id int PRIMARY KEY, a int);
    CREATE FUNCTION moves() RETURNS text LANGUAGE sql AS $$SELECT set_config('search_path', 'other', false)$$;
    CREATE PROCEDURE moved() LANGUAGE plpgsql AS $$BEGIN SET search_path = other; END$$";

struct Stage {
    running: Running,
    direct: Client,
    client: Client,
}

/// How a statement is sent.
#[derive(Debug, Clone, Copy)]
enum Way {
    Simple,
    Extended,
}

impl Stage {
    fn new(name: &str) -> Self {
        let running = proxy(&SERVER, |_| {});
        let database = new_database(&SERVER, name);
        let mut direct = Client::connect(SERVER.port, &SERVER.user, &database);
        direct.ok(TABLES);
        let client = Client::connect(port(&running), &SERVER.user, &database);
        Self { running, direct, client }
    }

    /// How many statements were relayed as their block holds all that they need, and acted on.
    fn counted(&self) -> [u64; 2] {
        let metrics = &self.running.shared().metrics;
        [metrics.ddl_relayed.value(), metrics.ddl_planned.value()]
    }

    fn run(&mut self, sql: &str, way: Way) -> Outcome {
        match way {
            Way::Simple => self.client.query(sql),
            Way::Extended => self.client.execute(sql),
        }
    }

    fn ok(&mut self, sql: &str, way: Way) {
        assert_eq!(self.run(sql, way).error, None, "{sql}");
    }

    /// How many statements of it were held, and how many were acted on. It may fail.
    fn tried(&mut self, sql: &str, way: Way) -> [u64; 2] {
        let before = self.counted();
        self.run(sql, way);
        let after = self.counted();
        [after[0] - before[0], after[1] - before[1]]
    }

    /// The same of what does not.
    fn count(&mut self, sql: &str, way: Way) -> [u64; 2] {
        let before = self.counted();
        self.ok(sql, way);
        let after = self.counted();
        [after[0] - before[0], after[1] - before[1]]
    }
}

const HELD: [u64; 2] = [1, 0];
const GUARDED: [u64; 2] = [0, 1];

#[test]
fn what_a_block_has_made_or_locked_is_relayed() {
    let mut stage = Stage::new("held");
    for way in [Way::Simple, Way::Extended] {
        for (sql, counted) in [
            ("BEGIN", [0, 0]),
            ("CREATE TABLE n (id int, a int)", [0, 0]),
            ("CREATE INDEX ON n (id)", HELD),
            ("ALTER TABLE n ADD PRIMARY KEY (id), ADD COLUMN b float DEFAULT random()", HELD),
            ("INSERT INTO n SELECT g, g FROM generate_series(1, 10) g", [0, 0]),
            ("SET CONSTRAINTS ALL IMMEDIATE", [0, 0]),
            ("SAVEPOINT s", [0, 0]),
            ("COMMENT ON COLUMN n.b IS 'x'", HELD),
            ("RELEASE s", [0, 0]),
            ("CREATE TABLE m (n int REFERENCES n)", HELD),
            ("DELETE FROM n", [0, 0]),
            // The other end is not held, and then it is.
            ("ALTER TABLE m ADD COLUMN old int REFERENCES old", GUARDED),
            ("ALTER TABLE n ADD COLUMN old int REFERENCES old", HELD),
            // That it is small was not asked; then it was.
            ("ALTER TABLE n ADD FOREIGN KEY (id) REFERENCES old", GUARDED),
            ("ALTER TABLE m ADD FOREIGN KEY (n) REFERENCES old", HELD),
            ("CREATE TABLE o (old int REFERENCES old)", HELD),
            // SHARE ROW EXCLUSIVE is not enough.
            ("ALTER TABLE old ADD COLUMN b int", GUARDED),
            ("ALTER TABLE old ALTER b SET DEFAULT 1", HELD),
            ("ALTER TABLE old RENAME COLUMN b TO c", HELD),
            ("CREATE INDEX ON old (a)", HELD),
            // What it locks beside the table is not known.
            ("ALTER TABLE m DROP COLUMN old", GUARDED),
            ("ROLLBACK", [0, 0]),
        ] {
            assert_eq!(stage.count(sql, way), counted, "{sql} {way:?}");
        }
    }
    stage.running.stop_now();
}

#[test]
fn a_string_is_relayed_if_it_makes_all_that_it_changes() {
    let mut stage = Stage::new("strings");
    for (sql, counted) in [
        ("CREATE TABLE a (id int); CREATE INDEX ON a (id); ALTER TABLE a ADD b int; INSERT INTO a VALUES (1)", [2, 0]),
        ("BEGIN; CREATE TABLE b (id int); CREATE INDEX ON b (id); COMMIT", [1, 0]),
        // As pg_dump has it.
        (
            "CREATE SEQUENCE s; CREATE TABLE p (id int); ALTER SEQUENCE s OWNED BY p.id;
             ALTER TABLE ONLY p ALTER id SET DEFAULT nextval('s'::regclass); ALTER TABLE ONLY p ADD PRIMARY KEY (id)",
            [3, 0],
        ),
        // A transaction of its own for each of the first two.
        ("CREATE TABLE c (id int); COMMIT; CREATE INDEX ON c (id)", [0, 1]),
        ("CREATE TABLE d (id int); CREATE INDEX ON d (id); ALTER TABLE old ADD d int; CREATE INDEX ON d (id)", [2, 1]),
        ("CREATE TABLE e (id int); SELECT 1; CREATE INDEX ON e (id)", [0, 1]),
        ("CREATE TABLE IF NOT EXISTS a (id int); CREATE INDEX ON a (b)", [0, 1]),
    ] {
        assert_eq!(stage.count(sql, Way::Simple), counted, "{sql}");
    }
    let before = stage.counted();
    let failed = stage.client.query("CREATE TABLE f (id int); CREATE INDEX ON f (nothing); CREATE TABLE g ()");
    assert_eq!((failed.error.as_deref(), failed.status, failed.tags.len()), (Some("42703"), 'I', 1));
    assert_eq!(stage.counted(), [before[0] + 1, before[1]]);
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    assert_eq!(stage.direct.value(tables), "a b c d e old p");
    // Nothing is left of it for what comes.
    assert_eq!(stage.count("CREATE INDEX ON a (id)", Way::Simple), GUARDED);
    stage.running.stop_now();
}

/// Whatever might make another table of `n` or `old`, or give a lock back.
#[test]
fn what_may_be_another_table_is_guarded() {
    let mut stage = Stage::new("other");
    for way in [Way::Simple, Way::Extended] {
        for between in [
            "SET search_path = other",
            "SET LOCAL search_path TO other",
            "SET SCHEMA 'other'",
            "RESET search_path",
            "SELECT set_config('search_path', 'other', true)",
            "SELECT moves()",
            "INSERT INTO n SELECT length(pg_catalog.set_config('search_path', 'other', true))",
            "WITH moved AS (SELECT moves()) INSERT INTO n SELECT 1 FROM moved",
            "DO $$BEGIN SET search_path = other; END$$",
            "CALL moved()",
            "ROLLBACK TO s",
            "ALTER TABLE n RENAME TO was_n",
            "ALTER TABLE n SET SCHEMA other2",
            "DROP TABLE n",
            "COMMIT AND CHAIN",
        ] {
            for sql in ["BEGIN", "CREATE SCHEMA other2", "SET search_path = public, other", "SAVEPOINT s"] {
                stage.ok(sql, way);
            }
            stage.ok("CREATE TABLE n (id int, a int)", way);
            stage.ok("ALTER TABLE old ADD COLUMN b int", way);
            assert_eq!(stage.count("CREATE INDEX ON n (a)", way), HELD, "{between} {way:?}");
            stage.ok(between, way);
            let outcome = stage.tried("CREATE INDEX ON n (id)", way);
            assert!(outcome[0] == 0, "{between} {way:?} {outcome:?}");
            let outcome = stage.tried("ALTER TABLE old ALTER a SET DEFAULT 1", way);
            assert!(outcome[0] == 0, "{between} {way:?} {outcome:?}");
            stage
                .client
                .ok("ROLLBACK; DROP TABLE IF EXISTS public.n; DROP SCHEMA IF EXISTS other2; SET search_path = public");
            stage.direct.ok("ALTER TABLE old DROP COLUMN IF EXISTS b");
        }
    }
    stage.running.stop_now();
}

/// Statements and portals of another pipeline may do anything; a table that was parsed may never be made.
#[test]
fn names_of_other_pipelines_are_not_known() {
    let mut stage = Stage::new("named");
    let run = |statement: &str| [bind("", statement, &[]), execute("", 0), sync()].concat();
    let prepare = |name: &str, sql: &str| [parse(name, sql), sync()].concat();
    stage.client.ok("SET search_path = public, other");
    for (name, sql) in [("moves", "SELECT moves()"), ("back", "ROLLBACK TO s"), ("made", "CREATE TABLE n (id int)")] {
        stage.client.send(&prepare(name, sql));
        assert_eq!(stage.client.outcome().error, None);
    }
    let steps: [(&str, Vec<Vec<u8>>, u64); 5] = [
        ("by a prepared statement", vec![run("moves")], 0),
        ("by a prepared ROLLBACK", vec![run("back")], 0),
        (
            "by a portal of before",
            vec![[bind("p", "moves", &[]), sync()].concat(), [execute("p", 0), sync()].concat()],
            0,
        ),
        (
            "harmless",
            vec![[parse("", "INSERT INTO n VALUES (1)"), bind("", "", &[]), execute("", 0), sync()].concat()],
            1,
        ),
        ("only described", vec![prepare("x", "INSERT INTO n VALUES (1)")], 1),
    ];
    for (what, messages, held) in steps {
        stage.client.ok("BEGIN");
        stage.client.ok("SAVEPOINT s");
        stage.client.ok("CREATE TABLE n (id int)");
        assert_eq!(stage.count("CREATE INDEX ON n (id)", Way::Simple), HELD, "{what}");
        for message in messages {
            stage.client.send(&message);
            assert_eq!(stage.client.outcome().error, None, "{what}");
        }
        assert_eq!(stage.tried("CREATE INDEX ON n (id)", Way::Simple)[0], held, "{what}");
        stage.client.ok("ROLLBACK");
        stage.client.ok("SET search_path = public, other");
    }
    // `n` is the other one: none was made, or it was not by a name of this pipeline.
    stage.client.ok("BEGIN");
    stage.client.send(&prepare("never", "CREATE TABLE n (id int)"));
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.count("CREATE INDEX ON n (id)", Way::Simple), GUARDED);
    stage.client.ok("ROLLBACK");
    stage.client.ok("BEGIN");
    stage.client.send(&run("made"));
    assert_eq!(stage.client.outcome().error, None);
    assert_eq!(stage.count("CREATE INDEX ON n (id)", Way::Simple), GUARDED);
    stage.client.ok("ROLLBACK");
    stage.running.stop_now();
}

/// What is held is what PostgreSQL grants at once, also with others in the queue.
#[test]
fn what_is_held_waits_for_nobody() {
    let mut stage = Stage::new("granted");
    stage.client.ok("BEGIN");
    stage.client.ok("CREATE INDEX ON old (a)");
    stage.direct.send_query("ALTER TABLE old ADD COLUMN waits int");
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, "postgres");
    let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {} AND NOT granted", stage.direct.pid);
    wait_until("it waits", || watcher.value(&waits) == "1");
    assert_eq!(stage.count("CREATE INDEX ON old (id, a)", Way::Simple), HELD);
    stage.client.ok("COMMIT");
    assert_eq!(stage.direct.outcome().error, None);
    stage.running.stop_now();
}
