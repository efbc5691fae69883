//! What migration tools send that `tests/tools.rs` does not run, statement by statement, directly and through the proxy.
//!
//! The conversations were recorded from the tools as released; `tests/traces/*.txt` has the statements of each, with fixed values for times and
//! keys. A line is `KIND | …`: `Q` a simple query, `P` an unnamed statement by the extended protocol with its parameters, `N` a statement that is
//! prepared under a name and described, `B` such a statement, bound and executed. `\n` is a line break, `NULL` a null.
//!
//! Holds: tags, rows, SQLSTATEs and statuses are the same after each line, schema and data at the end. No table is small, so that all that can go
//! ahead of a transaction does.

#[path = "parity/catalog.rs"]
mod catalog;
mod common;
#[allow(dead_code, reason = "the tests of transactions use the rest")]
#[path = "ahead/stage.rs"]
mod stage;
#[allow(dead_code, reason = "the parity test compares sessions, too")]
#[path = "parity/state.rs"]
mod state;

use common::Client;
use common::raw::{bind, execute, frame, parse, sync};
use stage::{Stage, Told};

/// Sends one line, and reads what the client is told.
fn play(client: &mut Client, line: &str) -> Told {
    let line = line.replace("\\n", "\n").replace("\\\\", "\\");
    let parts: Vec<&str> = line.split(" | ").collect();
    let bytes = match parts.as_slice() {
        ["Q", sql] => frame(b'Q', &[sql.as_bytes(), b"\0"].concat()),
        ["P", sql, values @ ..] => [parse("", sql), bound("", values)].concat(),
        ["N", name, sql] => [parse(name, sql), frame(b'D', &[b"S", name.as_bytes(), b"\0"].concat()), sync()].concat(),
        ["B", name, values @ ..] => bound(name, values),
        _ => panic!("a line of an unknown kind: {line}"),
    };
    client.send(&bytes);
    client.outcome().into()
}

/// Bind and Execute of a prepared statement, and Sync.
fn bound(name: &str, values: &[&str]) -> Vec<u8> {
    if !values.contains(&"NULL") {
        return [bind("", name, values), execute("", 0), sync()].concat();
    }
    let mut body = [b"\0", name.as_bytes(), b"\0\0\0"].concat();
    body.extend(u16::try_from(values.len()).expect("few").to_be_bytes());
    for value in values {
        let length = if *value == "NULL" { -1 } else { i32::try_from(value.len()).expect("short") };
        body.extend(length.to_be_bytes());
        body.extend(if length < 0 { &[] } else { value.as_bytes() });
    }
    body.extend([0, 0]);
    [frame(b'B', &body), execute("", 0), sync()].concat()
}

/// Plays a trace on both sides; `ahead`: how many times statements go ahead of the tool's transactions.
fn compare(tool: &str, trace: &str, ahead: u64) {
    let stage = Stage::new("trace", "");
    let (mut direct, mut proxied) = (stage.directly(), stage.client());
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let one = play(&mut direct, line);
        assert_eq!(play(&mut proxied, line), one, "{tool}: {line}");
    }
    drop((direct, proxied));
    stage.same_state(tool);
    assert_eq!(stage.ahead(), ahead, "{tool}");
    stage.end();
}

#[test]
fn prisma() {
    compare("Prisma", include_str!("traces/prisma.txt"), 1);
}

#[test]
fn sqlx() {
    compare("sqlx", include_str!("traces/sqlx.txt"), 1);
}

#[test]
fn graphile_migrate() {
    compare("graphile-migrate", include_str!("traces/graphile-migrate.txt"), 1);
}

#[test]
fn mikro_orm() {
    compare("MikroORM", include_str!("traces/mikro-orm.txt"), 1);
}

#[test]
fn postgrator() {
    compare("postgrator", include_str!("traces/postgrator.txt"), 1);
}
