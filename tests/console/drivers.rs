//! Drivers: their logins, both protocols, typed and binary results.

use crate::common::raw::{bind, close, describe, execute, parse, sync};
use crate::hostile::Socket;
use crate::{Proxy, succeeded};
use std::path::Path;
use std::time::SystemTime;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a client is installed. With CI set, it must be.
fn installed(what: &str, found: bool) -> bool {
    assert!(found || std::env::var_os("CI").is_none(), "{what} is not installed (make setup-test installs it)");
    if !found {
        eprintln!("skipped: {what} is not installed (make setup-test installs it)");
    }
    found
}

#[test]
fn tokio_postgres_by_both_protocols() {
    let proxy = Proxy::alone();
    let session = proxy.admin();
    session.with(async |client| {
        let rows = client.query("SHOW SESSIONS", &[]).await.expect("rows");
        let row = rows.iter().find(|row| row.get::<_, &str>("user") == "ann").expect("this session");
        assert!(row.get::<_, i64>("number") > 0);
        assert!(row.get::<_, bool>("console") && !row.get::<_, bool>("encrypted"));
        let since: SystemTime = row.get("since");
        assert!(since.elapsed().expect("it is over").as_secs() < 600, "{since:?}");
        assert_eq!(row.get::<_, Option<i32>>("backend_pid"), None);
        let rows = client.query("SHOW STATS LIKE 'ddl_seen'", &[]).await.expect("rows");
        assert_eq!((rows[0].get::<_, String>(0).as_str(), rows[0].get::<_, i64>(1)), ("ddl_seen", 0));
        let row =
            client.query_one("SELECT 1, $1::text, true, now(), current_database()", &[&"ä"]).await.expect("a row");
        assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1), row.get::<_, bool>(2)), (1, "ä", true));
        assert_eq!(row.get::<_, &str>(4), "pgsluice");
        let sql = "SELECT c.oid, c.relname::text FROM pg_catalog.pg_class c WHERE c.relname = $1";
        let statement = client.prepare(sql).await.expect("a statement");
        assert_eq!(statement.columns().iter().map(|column| column.name()).collect::<Vec<_>>(), ["oid", "relname"]);
        assert!(client.query(&statement, &[&"x"]).await.expect("no rows").is_empty());
        let error = client.query("SELECT id FROM orders", &[]).await.expect_err("no such relation");
        assert_eq!(error.code().map(|code| code.code()), Some("42P01"));
        assert_eq!(client.execute("SET application_name = 'x'", &[]).await.expect("done"), 0);
        assert!(client.query("SELECT 1", &[]).await.is_ok());
    });
}

#[test]
fn a_transaction_that_has_failed_waits_for_its_end() {
    let proxy = Proxy::alone();
    let mut socket = Socket::of(&proxy);
    assert_eq!(socket.query("BEGIN").status, 'T');
    assert_eq!(socket.query("SELECT 1 FROM orders").status, 'E');
    assert_eq!(socket.query("SHOW STATE").error.as_deref(), Some("25P02"));
    assert_eq!(socket.query("ROLLBACK; SELECT 1").tags, ["ROLLBACK", "SELECT 1"]);
    // A string ends at its first error.
    let outcome = socket.query("SELECT 1; SELECT nothing(); SELECT 2");
    assert_eq!((outcome.tags.len(), outcome.error.as_deref(), outcome.status), (1, Some("42883"), 'I'));
}

/// A pipeline is skipped from its first error to Sync, portals give their rows in pieces, and what is closed is gone.
#[test]
fn pipelines_and_portals() {
    let proxy = Proxy::alone();
    let mut socket = Socket::of(&proxy);
    let mut bytes = parse("s", "SHOW HELP");
    bytes.extend([bind("p", "s", &[]), describe(b'P', "p"), execute("p", 2), execute("p", 0)].concat());
    bytes.extend(
        [parse("", "SELECT nothing()"), bind("", "", &[]), execute("", 0), parse("", "SELECT 1"), sync()].concat(),
    );
    socket.send(&bytes);
    let tags: String = socket.read_to_ready().iter().map(|message| char::from(message.tag)).collect();
    let rows = "D".repeat(pgsluice_help());
    assert_eq!(tags, format!("12TDDs{rows}C12EZ"));
    socket.send(&[close(b'P', "p"), close(b'S', "s"), bind("", "s", &[]), sync()].concat());
    let all = socket.read_to_ready();
    assert_eq!(all.iter().map(|message| char::from(message.tag)).collect::<String>(), "33EZ");
    assert_eq!(all[2].field(b'C').as_deref(), Some("26000"));
    assert_eq!(socket.query("SELECT 1").tags, ["SELECT 1"]);
}

/// The rows of HELP without the first two.
fn pgsluice_help() -> usize {
    let proxy = Proxy::alone();
    proxy.admin().rows("SHOW HELP").len() - 2
}

#[test]
fn psycopg() {
    let interpreter = root().join("target/venv/bin/python");
    if !installed("psycopg", interpreter.exists()) {
        return;
    }
    let proxy = Proxy::alone();
    let script = root().join("tests/console/psycopg_.py");
    let output = proxy.command(interpreter, "ann", "admin secret").arg(script).output().expect("python");
    assert_eq!(succeeded(&output), "psycopg\nasyncpg\n");
}

#[test]
fn node_postgres() {
    let modules = root().join("target/node/node_modules");
    let node = std::process::Command::new("node").arg("--version").output();
    if !installed("node-postgres", node.is_ok() && modules.join("pg").is_dir()) {
        return;
    }
    let proxy = Proxy::alone();
    let script = root().join("tests/console/node_.mjs");
    let mut command = proxy.command("node", "ann", "admin secret");
    assert_eq!(succeeded(&command.env("NODE_PATH", &modules).arg(script).output().expect("node")), "node-postgres\n");
}
