//! What drivers do that scripts cannot say: named statements, Flush before Execute, Close, several portals.

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

fn f() -> Frames {
    Frames::default()
}

/// Each is sent at once; what comes back up to its ReadyForQuery is noted.
fn conversations() -> Vec<(&'static str, Frames)> {
    let add = |name: &str| format!("ALTER TABLE t ADD COLUMN {name} int");
    vec![
        ("a table", f().parse("", "CREATE TABLE t (id int)").bind("", "").execute("").sync()),
        ("a named statement", f().parse("ddl", &add("a")).describe('S', "ddl").sync()),
        ("run", f().bind("", "ddl").describe('P', "").execute("").sync()),
        ("run again", f().bind("", "ddl").execute("").sync()),
        ("a name twice", f().parse("ddl", "SELECT 1").sync()),
        ("close and reuse", f().close('S', "ddl").parse("ddl", "SELECT 2").bind("", "ddl").execute("").sync()),
        ("the reused", f().bind("", "ddl").describe('P', "").execute("").sync()),
        ("the unnamed", f().parse("", "SELECT 3").sync()),
        ("DDL between", f().parse("x", &add("b")).bind("p", "x").execute("p").sync()),
        ("the unnamed is still there", f().bind("", "").execute("").sync()),
        (
            "bind after an error",
            f().parse("", "SELECT 1 / 0").bind("", "").execute("").bind("", "ddl").execute("").sync(),
        ),
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
        (
            "begin, rows and DDL under one Sync",
            f().parse("", "BEGIN")
                .bind("", "")
                .execute("")
                .parse("", "INSERT INTO t (id) VALUES (1)")
                .bind("", "")
                .execute("")
                .parse("", &add("e"))
                .bind("", "")
                .describe('P', "")
                .execute("")
                .parse("", "CREATE INDEX ON t (e)")
                .bind("", "")
                .execute("")
                .sync(),
        ),
        ("commit", f().parse("", "COMMIT").bind("", "").execute("").sync()),
        (
            "commit amid",
            f().parse("", "BEGIN")
                .bind("", "")
                .execute("")
                .parse("", &add("g"))
                .bind("", "")
                .execute("")
                .parse("", "COMMIT")
                .bind("", "")
                .execute("")
                .parse("", &add("h"))
                .bind("", "")
                .execute("")
                .parse("", "SELECT 1 / 0")
                .bind("", "")
                .execute("")
                .sync(),
        ),
        ("what stayed", f().parse("", "SELECT * FROM t").bind("", "").describe('P', "").execute("").sync()),
        (
            "rollback amid",
            f().parse("", &add("i"))
                .bind("", "")
                .execute("")
                .parse("", "ROLLBACK")
                .bind("", "")
                .execute("")
                .parse("", &add("j"))
                .bind("", "")
                .execute("")
                .sync(),
        ),
        (
            "concurrently amid",
            f().parse("", "SELECT 1")
                .bind("", "")
                .execute("")
                .parse("", "CREATE INDEX CONCURRENTLY ON t (id)")
                .bind("", "")
                .execute("")
                .sync(),
        ),
        ("concurrently alone", f().parse("", "CREATE INDEX CONCURRENTLY ON t (id)").bind("", "").execute("").sync()),
        ("an index alone", f().parse("i", "CREATE INDEX ON t (id)").bind("", "i").execute("").sync()),
        ("an index that fails", f().parse("", "CREATE UNIQUE INDEX ON t (missing)").bind("", "").execute("").sync()),
        ("two Syncs", f().parse("", &add("k")).bind("", "").execute("").sync()),
        ("empty", f().parse("", "").bind("", "").execute("").sync()),
        ("a comment", f().parse("", "-- DROP TABLE t").bind("", "").execute("").sync()),
        ("SQL-level prepare", f().parse("", "PREPARE pq AS SELECT * FROM t").bind("", "").execute("").sync()),
        (
            "an execute limit",
            f().parse("", "SELECT generate_series(1, 3)")
                .bind("s", "")
                .put(b'E', &["s"], &[0, 0, 0, 2])
                .parse("", &add("l"))
                .bind("", "")
                .execute("")
                .sync(),
        ),
    ]
}

pub(crate) fn run(postgres: &Postgres, port: u16) -> Vec<String> {
    let database = new_database(postgres, "frames");
    let mut client = Client::connect(port, &postgres.user, &database);
    let mut lines = Vec::new();
    for (what, frames) in conversations() {
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
