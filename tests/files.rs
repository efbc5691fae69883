//! Goldens of `pgsluice plan`: the files of `tests/files`, each planned as a whole, without a server and with one.
//!
//! `NAME.sql` is the file. Its first line may say `-- plan ARGUMENTS`. `NAME.txt` is what is printed. `UPDATE_GOLDENS=1` writes these anew.

mod common;

use common::postgres;
use std::path::Path;
use std::process::Command;

/// What `pgsluice plan` prints for a file.
fn printed(path: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    command.arg("plan").args(arguments).arg(path);
    command.env_remove("PGPASSWORD").env_remove("PGUSER").env_remove("PGDATABASE");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_are_planned_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let arguments = text.lines().next().and_then(|line| line.strip_prefix("-- plan ")).unwrap_or_default();
        let now = printed(&path, &arguments.split_whitespace().collect::<Vec<_>>());
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&golden, &now).unwrap();
        }
        let written = std::fs::read_to_string(&golden).unwrap();
        assert_eq!(written, now, "{}: UPDATE_GOLDENS=1 writes it anew", golden.display());
    }
}

/// With a server the relations are known by oid, and functions by their volatility.
#[test]
fn the_facts_of_a_server_decide_what_goes_ahead() {
    let server = postgres();
    let setup = "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
        INSERT INTO orders SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g;
        CREATE TABLE small (id bigint PRIMARY KEY, note text);
        CREATE VIEW all_orders AS SELECT * FROM orders;
        CREATE FUNCTION calm() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
        CREATE FUNCTION wild() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'";
    assert!(server.command("psql").args(["-XAtqc", setup]).status().unwrap().success());
    let backend = format!("127.0.0.1:{}", server.port);
    let arguments = ["--backend", &backend, "--user", &server.user, "--transaction"];
    let path = std::env::temp_dir().join(format!("pgsluice-files-{}.sql", std::process::id()));
    let plan = |sql: &str| {
        std::fs::write(&path, sql).unwrap();
        printed(&path, &arguments)
    };
    const AHEAD: &str = "ahead    of the transaction, in which the application would wait for it";
    const INSIDE: &str = "inside   the transaction, in which the application does not wait for it";
    for (sql, told, count) in [
        ("CREATE INDEX ON orders (note)", AHEAD, 1),
        ("CREATE INDEX ON small (note)", INSIDE, 1),
        // The column is not there yet.
        (
            "ALTER TABLE orders ADD a int; ALTER TABLE orders ALTER a SET NOT NULL",
            "line 1: ALTER TABLE orders ADD a int",
            2,
        ),
        // The view shows rows of the table.
        (
            "UPDATE all_orders SET note = ''; CREATE INDEX ON orders (note)",
            "DETAIL: UPDATE of all_orders stands before it",
            1,
        ),
        ("UPDATE small SET note = ''; CREATE INDEX ON orders (note)", AHEAD, 1),
        ("SELECT calm(); CREATE INDEX ON orders (note)", AHEAD, 1),
        ("SELECT wild(); CREATE INDEX ON orders (note)", "DETAIL: SELECT calls a function that may do anything", 1),
        // Committed before: another transaction has the index.
        ("CREATE TABLE t (a int); COMMIT; INSERT INTO t VALUES (1); CREATE INDEX ON orders (note)", AHEAD, 1),
    ] {
        let text = plan(sql);
        assert_eq!(text.matches(told).count(), count, "{sql}:\n{text}");
    }
    std::fs::remove_file(&path).unwrap();
}
