//! Driver behaviour that scripts cannot express: named statements, Flush before Execute, Close, several portals.

use crate::common::{Client, new_database};
use crate::state;
use crate::ways;
use bytes::BytesMut;
use pgsluice::dev::Postgres;
use pgsluice::wire::message::put_frame;
use std::collections::VecDeque;

const FLUSH: [u8; 5] = [b'H', 0, 0, 0, 4];
const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

#[derive(Default)]
struct Frames(BytesMut);

impl Frames {
    fn put(mut self, tag: u8, parts: &[&str], tail: &[u8]) -> Self {
        put_frame(&mut self.0, tag, |b| {
            for part in parts {
                b.extend_from_slice(part.as_bytes());
                b.extend_from_slice(b"\0");
            }
            b.extend_from_slice(tail);
        });
        self
    }

    fn parse(self, name: &str, sql: &str) -> Self {
        self.put(b'P', &[name, sql], &[0, 0])
    }

    fn bind(self, portal: &str, name: &str) -> Self {
        self.put(b'B', &[portal, name], &[0; 6])
    }

    fn describe(self, kind: char, name: &str) -> Self {
        self.put(b'D', &[&format!("{kind}{name}")], &[])
    }

    fn execute(self, portal: &str) -> Self {
        self.put(b'E', &[portal], &[0; 4])
    }

    /// Unnamed, from Parse to Execute.
    fn run(self, sql: &str) -> Self {
        self.parse("", sql).bind("", "").execute("")
    }

    fn close(self, kind: char, name: &str) -> Self {
        self.put(b'C', &[&format!("{kind}{name}")], &[])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn sync(self) -> Self {
        self.raw(&SYNC)
    }
}

fn add(name: &str) -> String {
    format!("ALTER TABLE t ADD COLUMN {name} int")
}

fn f() -> Frames {
    Frames::default()
}

/// Each is sent at once; what comes back up to its ReadyForQuery is noted.
fn conversations() -> Vec<(&'static str, Frames)> {
    vec![
        ("a table", f().run("CREATE TABLE t (id int)").sync()),
        ("a named statement", f().parse("ddl", &add("a")).describe('S', "ddl").sync()),
        ("run", f().bind("", "ddl").describe('P', "").execute("").sync()),
        ("run again", f().bind("", "ddl").execute("").sync()),
        ("a name twice", f().parse("ddl", "SELECT 1").sync()),
        ("close and reuse", f().close('S', "ddl").parse("ddl", "SELECT 2").bind("", "ddl").execute("").sync()),
        ("the reused", f().bind("", "ddl").describe('P', "").execute("").sync()),
        ("the unnamed", f().parse("", "SELECT 3").sync()),
        ("DDL between", f().parse("x", &add("b")).bind("p", "x").execute("p").sync()),
        ("the unnamed is still there", f().bind("", "").execute("").sync()),
        ("bind after an error", f().run("SELECT 1 / 0").bind("", "ddl").execute("").sync()),
        (
            "named portals",
            f().parse("y", &add("c")).bind("p1", "y").bind("p2", "ddl").execute("p1").execute("p2").sync(),
        ),
        ("a portal twice", f().bind("", "x").execute("").execute("").sync()),
        (
            "flush before execute",
            f().parse("", &add("d")).raw(&FLUSH).bind("", "").raw(&FLUSH).execute("").raw(&FLUSH).sync(),
        ),
        ("never executed", f().parse("", &add("never")).bind("", "").describe('P', "").sync()),
        ("nor here", f().parse("z", &add("never")).close('S', "z").bind("", "z").execute("").sync()),
        ("a portal that was closed", f().parse("", &add("never")).bind("q", "").close('P', "q").execute("q").sync()),
    ]
}

/// Several statements under one Sync, with transaction control amid them.
fn pipelines() -> Vec<(&'static str, Frames)> {
    vec![
        (
            "begin, rows and DDL under one Sync",
            f().run("BEGIN")
                .run("INSERT INTO t (id) VALUES (1)")
                .parse("", &add("e"))
                .bind("", "")
                .describe('P', "")
                .execute("")
                .run("CREATE INDEX ON t (e)")
                .sync(),
        ),
        ("commit", f().run("COMMIT").sync()),
        ("commit amid", f().run("BEGIN").run(&add("g")).run("COMMIT").run(&add("h")).run("SELECT 1 / 0").sync()),
        ("what stayed", f().parse("", "SELECT * FROM t").bind("", "").describe('P', "").execute("").sync()),
        ("rollback amid", f().run(&add("i")).run("ROLLBACK").run(&add("j")).sync()),
        ("concurrently amid", f().run("SELECT 1").run("CREATE INDEX CONCURRENTLY ON t (id)").sync()),
        ("concurrently alone", f().run("CREATE INDEX CONCURRENTLY ON t (id)").sync()),
        ("an index alone", f().parse("i", "CREATE INDEX ON t (id)").bind("", "i").execute("").sync()),
        ("an index that fails", f().run("CREATE UNIQUE INDEX ON t (missing)").sync()),
        ("two Syncs", f().run(&add("k")).sync()),
        ("empty", f().run("").sync()),
        ("a comment", f().run("-- DROP TABLE t").sync()),
        ("SQL-level prepare", f().run("PREPARE pq AS SELECT * FROM t").sync()),
        (
            "an execute limit",
            f().parse("", "SELECT generate_series(1, 3)")
                .bind("s", "")
                .put(b'E', &["s"], &[0, 0, 0, 2])
                .run(&add("l"))
                .sync(),
        ),
    ]
}

pub(crate) fn run(postgres: &Postgres, port: u16) -> Vec<String> {
    let database = new_database(postgres, "frames");
    let mut client = Client::connect(port, &postgres.user, &database);
    let mut lines = Vec::new();
    for (what, frames) in conversations().into_iter().chain(pipelines()) {
        lines.push(format!("> {what}"));
        client.send(&frames.0);
        if !ways::answers(&mut client, &mut VecDeque::new(), true, &mut lines) {
            return lines;
        }
    }
    lines.extend(state::of_session(&mut client));
    drop(client);
    lines.extend(state::of_database(postgres, &database));
    lines
}
