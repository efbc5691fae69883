//! What database tools send when they connect and look around. A golden has the answers: the columns with their types, and the rows.

use crate::Proxy;
use std::fmt::Write;
use std::path::Path;

/// What DBeaver, Metabase, Grafana and others send, one statement a line.
const SENT: &str = include_str!("tools.sql");

/// The answers, with the console's version left out.
fn answers() -> String {
    let proxy = Proxy::alone();
    let mut all = String::new();
    // Each tool has a session of its own.
    for tool in SENT.split("-- ").skip(1) {
        let (name, statements) = tool.split_once('\n').expect("a title");
        let session = proxy.session("vic", "viewer secret");
        let _ = writeln!(all, "-- {name}");
        for sql in statements.lines() {
            let _ = writeln!(all, "{sql}");
            let answer = session.with(async |client| {
                let statement = client.prepare(sql).await?;
                let columns = statement.columns().iter().map(|column| format!("{} {}", column.name(), column.type_()));
                let columns = columns.collect::<Vec<_>>().join(", ");
                let (rows, stats) = (client.simple_query(sql).await?, sql.ends_with("STATS"));
                let rows = rows.iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) if !stats => {
                        Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect::<Vec<_>>())
                    }
                    _ => None,
                });
                let rows: String = rows.map(|row| format!("\n  = {}", row.join(" | "))).collect();
                // Both protocols answer.
                client.query(&statement, &[]).await?;
                Ok::<_, tokio_postgres::Error>(format!("({columns}){rows}"))
            });
            let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let _ = writeln!(all, "  {}", answer.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
        }
    }
    all
}

#[test]
fn tools_connect_and_look_around() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/tools.golden");
    let answers = answers();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &answers).expect("the golden");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden (UPDATE_GOLDENS=1 makes it)");
    for (now, before) in answers.lines().zip(golden.lines()) {
        assert_eq!(now, before);
    }
    assert_eq!(answers.lines().count(), golden.lines().count());
}
