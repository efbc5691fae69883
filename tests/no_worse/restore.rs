//! Tests that a dump of pg_dump's is restored through the proxy, in each of its ways, without an error, and that the
//! database is the same afterwards.

use super::common::{Client, drop_database, new_database, no_table_is_small, port, postgres, proxy};
use pgsluice::config::Config;
use pgsluice::dev::Postgres;
use std::path::PathBuf;
use std::process::Output;
use std::sync::LazyLock;

/// One server for all; it ends with this process.
static SERVER: LazyLock<Postgres> = LazyLock::new(postgres);

/// Something of everything that a dump may hold.
const SCHEMA: &str = "
    CREATE SCHEMA app;
    CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TYPE app.pair AS (a int, b text);
    CREATE DOMAIN app.positive AS int DEFAULT 1 CONSTRAINT above CHECK (VALUE > 0);
    CREATE SEQUENCE app.numbers START 100 INCREMENT 5;
    CREATE FUNCTION app.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
    CREATE TABLE app.customer (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      name text COLLATE \"C\" NOT NULL, mood app.mood DEFAULT 'ok', size app.positive NOT NULL, old serial,
      doubled int GENERATED ALWAYS AS (app.twice(size)) STORED, home app.pair, tags text[] DEFAULT '{}',
      boss bigint REFERENCES app.customer DEFERRABLE INITIALLY DEFERRED, UNIQUE (name, size), CHECK (name <> ''));
    COMMENT ON TABLE app.customer IS 'who pays';
    COMMENT ON COLUMN app.customer.name IS 'as they say it';
    CREATE INDEX by_name ON app.customer (lower(name) text_pattern_ops) WHERE size > 2;
    CREATE INDEX by_tags ON app.customer USING gin (tags) WITH (fastupdate = off);
    COMMENT ON INDEX app.by_name IS 'for the search';
    CREATE STATISTICS app.both ON name, size FROM app.customer;
    CREATE TABLE app.booking (id int, room int, span int4range,
      CONSTRAINT apart EXCLUDE USING gist (span WITH &&) WHERE (room > 0),
      CONSTRAINT one EXCLUDE (id WITH =) DEFERRABLE);
    CREATE TABLE app.orders (id bigint, placed date NOT NULL, customer bigint REFERENCES app.customer ON DELETE CASCADE, total numeric(10,2),
      PRIMARY KEY (id, placed)) PARTITION BY RANGE (placed);
    CREATE TABLE app.orders_1 PARTITION OF app.orders FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE app.orders_2 PARTITION OF app.orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY HASH (id);
    CREATE TABLE app.orders_2a PARTITION OF app.orders_2 FOR VALUES WITH (modulus 2, remainder 0);
    CREATE TABLE app.orders_2b PARTITION OF app.orders_2 FOR VALUES WITH (modulus 2, remainder 1);
    CREATE TABLE app.orders_rest PARTITION OF app.orders DEFAULT;
    CREATE INDEX orders_by_customer ON app.orders (customer);
    CREATE UNIQUE INDEX alone ON app.orders_1 (total);
    CREATE TABLE app.line (order_id bigint, placed date, n int, FOREIGN KEY (order_id, placed) REFERENCES app.orders);
    ALTER TABLE app.line ADD CONSTRAINT later CHECK (n > 0) NOT VALID;
    ALTER TABLE app.line REPLICA IDENTITY FULL;
    CREATE TABLE app.base (a int, b int); CREATE TABLE app.child (c int) INHERITS (app.base);
    ALTER TABLE app.base ADD CHECK (a > 0);
    CREATE UNLOGGED TABLE app.cache (k text PRIMARY KEY, v bytea) WITH (fillfactor = 70);
    CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.name := trim(NEW.name); RETURN NEW; END$$;
    CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON app.customer FOR EACH ROW WHEN (NEW.size > 1) EXECUTE FUNCTION app.note();
    CREATE TRIGGER orders_noted AFTER INSERT ON app.orders FOR EACH STATEMENT EXECUTE FUNCTION app.note();
    ALTER TABLE app.customer DISABLE TRIGGER noted;
    CREATE VIEW app.happy AS SELECT id, name FROM app.customer WHERE mood = 'happy' WITH CHECK OPTION;
    CREATE VIEW app.a_view AS SELECT 1 AS x; CREATE VIEW app.on_view WITH (security_barrier) AS SELECT * FROM app.a_view;
    CREATE MATERIALIZED VIEW app.totals AS SELECT customer, sum(total) AS total FROM app.orders GROUP BY customer;
    CREATE UNIQUE INDEX totals_key ON app.totals (customer);
    CREATE MATERIALIZED VIEW app.empty AS SELECT 1 AS one WITH NO DATA;
    CREATE RULE quiet AS ON DELETE TO app.cache DO INSTEAD NOTHING;
    ALTER TABLE app.customer ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON app.customer FOR SELECT USING (size > 0);
    CREATE PROCEDURE app.does() LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE app.all_of (text) (SFUNC = textcat, STYPE = text, INITCOND = '');
    GRANT SELECT ON app.customer TO PUBLIC; GRANT UPDATE (name) ON app.customer TO PUBLIC; REVOKE ALL ON FUNCTION app.twice FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;
    CREATE EVENT TRIGGER none_yet ON sql_drop EXECUTE FUNCTION app.dropped();
";

const DROPPED: &str =
    "CREATE SCHEMA app; CREATE FUNCTION app.dropped() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';";

const ROWS: &str = "
    INSERT INTO app.customer (name, mood, size, home, tags, boss)
      SELECT 'name ' || g, (ARRAY['sad', 'ok', 'happy'])[1 + g % 3]::app.mood, g, row(g, 'x')::app.pair, ARRAY['a' || g], nullif(g - 1, 0)
        FROM generate_series(1, 100) g;
    INSERT INTO app.booking SELECT g, g % 3, int4range(g * 10, g * 10 + 5) FROM generate_series(1, 50) g;
    ALTER TABLE app.orders DISABLE TRIGGER orders_noted;
    INSERT INTO app.orders SELECT g, date '2024-01-01' + g * 9, 1 + g % 100, g FROM generate_series(1, 100) g;
    ALTER TABLE app.orders ENABLE TRIGGER orders_noted;
    INSERT INTO app.line SELECT id, placed, 1 FROM app.orders;
    INSERT INTO app.child SELECT g, g, g FROM generate_series(1, 20) g;
    INSERT INTO app.cache VALUES ('k', '\\x00ff');
    REFRESH MATERIALIZED VIEW app.totals;
    SELECT nextval('app.numbers')";

/// How a dump is restored: the program and its arguments. `{file}` is the archive, `{text}` the same as SQL.
const WAYS: [(&str, &[&[&str]]); 6] = [
    ("pg_restore", &[&["{file}"]]),
    ("pg_restore", &[&["-j", "2", "{file}"]]),
    ("pg_restore", &[&["--single-transaction", "{file}"]]),
    (
        "pg_restore",
        &[&["--section=pre-data", "{file}"], &["--section=data", "{file}"], &["--section=post-data", "{file}"]],
    ),
    ("psql", &[&["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "{text}"]]),
    ("psql", &[&["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "{text}"]]),
];

struct Source {
    file: PathBuf,
    text: PathBuf,
    /// What is restored is to be dumped as this.
    dump: String,
}

/// A dump's text, without the word that is another each time.
fn dump(database: &str) -> String {
    let output = SERVER.command("pg_dump").arg(database).output().expect("pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

fn source() -> Source {
    let database = new_database(&SERVER, "source");
    let mut client = Client::connect(SERVER.port, &SERVER.user, &database);
    client.ok(DROPPED);
    client.ok(&SCHEMA.replace("CREATE SCHEMA app;", ""));
    client.ok(ROWS);
    let [file, text] = ["archive", "sql"].map(|kind| SERVER.socket_dir.join(format!("{database}.{kind}")));
    for (format, file) in [("custom", &file), ("plain", &text)] {
        let mut command = SERVER.command("pg_dump");
        let status = command.arg(format!("--format={format}")).arg("--file").arg(file).arg(&database).status();
        assert!(status.expect("pg_dump").success());
    }
    Source { file, text, dump: dump(&database) }
}

fn restore(port: u16, program: &str, arguments: &[&str], source: &Source, database: &str) -> Output {
    let mut command = SERVER.command(program);
    command.env("PGPORT", port.to_string()).env("PGDATABASE", database);
    if program == "pg_restore" {
        command.args(["-d", database]);
    }
    for argument in arguments {
        match *argument {
            "{file}" => command.arg(&source.file),
            "{text}" => command.arg(&source.text),
            other => command.arg(other),
        };
    }
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// `silent`: there is nothing to say of it; else there may be WARNINGs.
fn by_all_ways(tweak: fn(&mut Config), silent: bool) {
    let source = source();
    let running = proxy(&SERVER, tweak);
    let succeeds = |program: &str, arguments: &[&str], database: &str| {
        let output = restore(port(&running), program, arguments, &source, database);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        assert!(said.is_empty() || !silent, "{program} {arguments:?}: {said}");
        assert!(!said.to_lowercase().contains("error"), "{program} {arguments:?}: {said}");
    };
    for (program, steps) in WAYS {
        let database = new_database(&SERVER, "restored");
        steps.iter().for_each(|arguments| succeeds(program, arguments, &database));
        assert!(dump(&database) == source.dump, "{program} {steps:?}: {}", difference(&source.dump, &dump(&database)));
        // What is there goes first. Of keys of partitions a dump does not know how: what is refused, and all else, is as it is directly.
        let cleans: &[&str] = &["--clean", "--if-exists", "{file}"];
        if program == "pg_restore" && steps.len() == 1 {
            let directly = new_database(&SERVER, "directly");
            assert!(restore(SERVER.port, program, steps[0], &source, &directly).status.success());
            let ends = [(SERVER.port, &directly), (port(&running), &database)].map(|(port, database)| {
                let output = restore(port, program, cleans, &source, database);
                (output.status.code(), errors(&output), dump(database))
            });
            assert_eq!(ends[0].1, ends[1].1);
            assert!(ends[0] == ends[1], "{cleans:?}: {}", difference(&ends[0].2, &ends[1].2));
            drop_database(&SERVER, &directly);
        }
        drop_database(&SERVER, &database);
    }
    running.stop_now();
}

/// What the server has refused.
fn errors(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.contains("ERROR:")).map(str::to_owned).collect()
}

/// The lines that only one of them has.
fn difference(expected: &str, found: &str) -> String {
    let only = |these: &str, those: &str, sign: char| {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("\n{sign} {line}")).collect::<String>()
    };
    only(expected, found, '-') + &only(found, expected, '+')
}

fn has_clients() -> bool {
    let programs = ["pg_dump", "pg_restore", "psql"];
    let missing: Vec<_> = programs.into_iter().filter(|program| !SERVER.has(program)).collect();
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "{missing:?} are not installed");
    missing.is_empty()
}

#[test]
fn a_dump_is_restored() {
    if has_clients() {
        by_all_ways(|_| {}, true);
    }
}

/// With all the phases of large tables.
#[test]
fn a_dump_of_large_tables_is_restored() {
    if has_clients() {
        by_all_ways(no_table_is_small, false);
    }
}
