//! Tests that a name keeps its meaning in all encodings of the session and of the database.

use crate::common::raw::{bind, execute as execute_portal, frame, sync};
use crate::common::{self, Client, Outcome, drop_database, port, proxy};
use bytes::BytesMut;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use pgsluice::wire::message::{put_frame, put_query};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

static SERVER: LazyLock<Postgres> = LazyLock::new(common::postgres);
static RUNNING: LazyLock<Running> = LazyLock::new(|| proxy(&SERVER, common::no_table_is_small));

/// Encodings of a database and of its client, and a character beyond ASCII in both.
struct Case {
    server: &'static str,
    client: &'static str,
    in_server: &'static [u8],
    in_client: &'static [u8],
    /// What one could take the character for.
    taken_for: &'static [u8],
}

const fn case([server, client]: [&'static str; 2], [in_server, in_client, taken_for]: [&'static [u8]; 3]) -> Case {
    Case { server, client, in_server, in_client, taken_for }
}

/// `é`, and where there is none, a `ソ`, of which SJIS makes a backslash at its end.
const CASES: [Case; 14] = [
    case(["UTF8", "UTF8"], [b"\xc3\xa9", b"\xc3\xa9", b"\xc3\x83\xc2\xa9"]),
    case(["UTF8", "LATIN1"], [b"\xc3\xa9", b"\xe9", b"\xc3\x83\xc2\xa9"]),
    case(["UTF8", "SQL_ASCII"], [b"\xc3\xa9", b"\xc3\xa9", b"\xc3\x83\xc2\xa9"]),
    case(["UTF8", "WIN1251"], [b"\xd0\xb9", b"\xe9", b"\xd0\xa0\xe2\x84\x96"]),
    case(["UTF8", "GBK"], [b"\xc3\xa9", b"\xa8\xa6", b"\xe8\x84\xa1"]),
    case(["UTF8", "BIG5"], [b"\xe5\xa7\x93", b"\xa9\x6d", b"\xc3\x83\xc2\xa9"]),
    case(["UTF8", "SJIS"], [b"\xe3\x82\xbd", b"\x83\x5c", b"\xe7\xb9\x9d\xef\xbd\xbd"]),
    case(["LATIN1", "LATIN1"], [b"\xe9", b"\xe9", b"\xc3\xa9"]),
    case(["LATIN1", "UTF8"], [b"\xe9", b"\xc3\xa9", b"\xc3\xa9"]),
    case(["LATIN1", "SQL_ASCII"], [b"\xe9", b"\xe9", b"\xc3\xa9"]),
    case(["SQL_ASCII", "SQL_ASCII"], [b"\xe9", b"\xe9", b"\xc3\xa9"]),
    case(["SQL_ASCII", "UTF8"], [b"\xc3\xa9", b"\xc3\xa9", b"\xe9"]),
    case(["EUC_JP", "SJIS"], [b"\xa5\xbd", b"\x83\x5c", b"\xa5\xa5"]),
    case(["EUC_JP", "UTF8"], [b"\xa5\xbd", b"\xe3\x82\xbd", b"\xa5\xa5"]),
];

/// `~` is the character, `^` what it is taken for.
const SETUP: &str = r#"
CREATE TABLE par (id bigint, a int, z int);
CREATE TABLE "kind_~" () INHERITS (par);
CREATE TABLE "kind_^" (id bigint, u uuid);
CREATE TABLE ref (id int PRIMARY KEY);
INSERT INTO ref SELECT generate_series(1, 20);
CREATE TABLE pp (id int, a int) PARTITION BY RANGE (id);
CREATE TABLE "part_~" PARTITION OF pp FOR VALUES FROM (0) TO (100);
CREATE TABLE "part_^" (id int, a int);
CREATE TABLE t (id int, a int, "~" text DEFAULT '~', CONSTRAINT "c_~" CHECK ("~" <> 'x'));
CREATE INDEX "i_~" ON t (a, "~");
CREATE VIEW v AS SELECT "~", id FROM t;
CREATE TABLE "t_~" (id int, a int, b varchar(5));
CREATE TABLE "t_^" (id int, a int, b varchar(5));
INSERT INTO par SELECT n, n, n FROM generate_series(1, 20) n;
INSERT INTO "kind_~" SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO "kind_^" SELECT n FROM generate_series(1, 20) n;
INSERT INTO pp SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO "part_^" SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO t SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO "t_~" SELECT n, n FROM generate_series(1, 20) n"#;

/// Of tables whose names everybody can say, and of others.
const STATEMENTS: [&str; 36] = [
    "ALTER TABLE par ADD COLUMN u uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE par ADD COLUMN n bigserial",
    "ALTER TABLE par ALTER a SET NOT NULL",
    "ALTER TABLE par ALTER z SET NOT NULL",
    "ALTER TABLE par ADD CHECK (a > 0)",
    "ALTER TABLE par ADD CHECK (z > 7)",
    "ALTER TABLE pp ADD COLUMN w float8 NOT NULL DEFAULT random()",
    "ALTER TABLE pp ADD CONSTRAINT a_is CHECK (a > 0)",
    "CREATE INDEX pp_a ON pp (a)",
    "ALTER TABLE pp ADD PRIMARY KEY (id)",
    "ALTER TABLE pp ADD FOREIGN KEY (a) REFERENCES ref",
    "ALTER TABLE t ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid()",
    "ALTER TABLE t ALTER a TYPE bigint",
    "ALTER TABLE t ADD UNIQUE (a)",
    "CREATE INDEX ON t (id)",
    "REINDEX TABLE t",
    "ALTER TABLE t ADD UNIQUE (nothing)",
    "CREATE TABLE IF NOT EXISTS t (id int)",
    "ALTER TABLE t RENAME a TO aa",
    "TRUNCATE pp",
    "DROP INDEX t_id_idx",
    "ALTER TABLE t_~ ADD COLUMN u uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE \"t_~\" ADD COLUMN \"n_~\" int DEFAULT 7",
    "ALTER TABLE t_~ ADD CONSTRAINT \"u_~\" UNIQUE (a)",
    "CREATE INDEX ON t_~ (n_~)",
    "ALTER TABLE t_~ ALTER a SET NOT NULL",
    "ALTER TABLE t_~ ALTER b TYPE varchar(9)",
    "ALTER TABLE t_~ ADD FOREIGN KEY (a) REFERENCES nowhere_~",
    "ALTER TABLE t_~ ADD d text DEFAULT '~'; COMMENT ON TABLE t_~ IS '~'; ALTER TABLE t_~ ADD CHECK (a > 0)",
    "BEGIN; ALTER TABLE t_~ ADD e int; ALTER TABLE par ADD e int; COMMIT",
    "DO $$ BEGIN ALTER TABLE t_~ ADD f text DEFAULT '~'; END $$",
    "REINDEX TABLE t_~",
    "ALTER TABLE t_~ ADD UNIQUE (nothing)",
    "CREATE TABLE new_~ (id int); CREATE INDEX ON new_~ (id); ALTER TABLE new_~ ADD UNIQUE (id)",
    "ALTER TABLE t_~ RENAME TO renamed_~",
    "DROP TABLE renamed_~",
];

/// What there is, whatever its encoding.
const STATE: &str = "SELECT encode(convert_to(x.line, getdatabaseencoding()), 'escape') FROM (
  SELECT c.relname || ' ' || c.relkind::text || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull
    || ' ' || COALESCE(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || a.attislocal || a.attinhcount
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
  UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || convalidated FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
  UNION ALL SELECT pg_get_indexdef(indexrelid) || indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'public'::regnamespace
  UNION ALL SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT 'comment of ours ' || description FROM pg_description WHERE description LIKE '%pgsluice%'
) AS x(line) WHERE x.line IS NOT NULL ORDER BY x.line COLLATE \"C\"";

fn query(client: &mut Client, sql: &[u8]) -> Outcome {
    let mut out = BytesMut::new();
    put_query(&mut out, sql);
    client.send(&out);
    client.outcome()
}

/// Parse, Bind, Execute, Sync.
fn execute(client: &mut Client, sql: &[u8]) -> Outcome {
    let mut out = BytesMut::new();
    put_frame(&mut out, b'P', |b| {
        b.extend_from_slice(b"\0");
        b.extend_from_slice(sql);
        b.extend_from_slice(&[0, 0, 0]);
    });
    put_frame(&mut out, b'B', |b| b.extend_from_slice(&[0; 8]));
    put_frame(&mut out, b'E', |b| b.extend_from_slice(&[0; 5]));
    put_frame(&mut out, b'S', |_| {});
    client.send(&out);
    client.outcome()
}

#[track_caller]
fn ok(client: &mut Client, sql: &[u8]) -> Outcome {
    let outcome = query(client, sql);
    assert_eq!(outcome.error, None, "{}: {outcome:?}", sql.escape_ascii());
    outcome
}

/// `~` and `^` in that encoding.
fn bytes(sql: &str, character: &[u8], taken_for: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in sql.bytes() {
        match byte {
            b'~' => out.extend(character),
            b'^' => out.extend(taken_for),
            _ => out.push(byte),
        }
    }
    out
}

/// A database in that encoding, with [`SETUP`].
fn database(case: &Case) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("encodings_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = Client::connect(SERVER.port, &SERVER.user, "postgres");
    admin.ok(&format!(
        "CREATE DATABASE {name} ENCODING '{}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        case.server
    ));
    let mut client = Client::connect(SERVER.port, &SERVER.user, &name);
    ok(&mut client, format!("SET client_encoding = '{}'", case.server).as_bytes());
    ok(&mut client, &bytes(SETUP, case.in_server, case.taken_for));
    name
}

fn state(client: &mut Client) -> Vec<String> {
    let mut lines: Vec<String> = client.ok(STATE).rows.into_iter().filter_map(|row| row.into_iter().next()?).collect();
    lines.push(client.value("SHOW lock_timeout"));
    lines
}

/// What the statements come to, and what is there behind each.
fn play(case: &Case, port: u16, extended: bool) -> Vec<String> {
    let database = database(case);
    let mut client = Client::connect(port, &SERVER.user, &database);
    ok(&mut client, format!("SET client_encoding = '{}'", case.client).as_bytes());
    let mut watcher = Client::connect(SERVER.port, &SERVER.user, &database);
    let mut lines = Vec::new();
    for sql in STATEMENTS.iter().filter(|sql| !(extended && sql.contains("; "))) {
        let sent = bytes(sql, case.in_client, b"");
        let outcome = if extended { execute(&mut client, &sent) } else { query(&mut client, &sent) };
        lines.push(format!("> {sql}: {:?} {:?} {:?}", outcome.tags, outcome.error, outcome.message));
        lines.extend(state(&mut watcher));
    }
    ok(&mut watcher, format!("SET client_encoding = '{}'", case.server).as_bytes());
    for sql in [
        "SELECT count(*), count(u) FROM par",
        "SELECT count(*), count(u), count(n) FROM ONLY \"kind_~\"",
        "SELECT count(*), count(u) FROM \"kind_^\"",
    ] {
        let counted = query(&mut watcher, &bytes(sql, case.in_server, case.taken_for));
        lines.push(format!("> {sql}: {:?} {:?}", counted.rows, counted.message));
    }
    drop((client, watcher));
    drop_database(&SERVER, &database);
    lines
}

#[test]
fn names_mean_the_same_in_all_encodings() {
    for case in &CASES {
        for extended in [false, true] {
            if extended && !["LATIN1", "SJIS", "SQL_ASCII"].contains(&case.client) {
                continue;
            }
            let what = format!("{} from {}, extended: {extended}", case.server, case.client);
            let direct = play(case, SERVER.port, extended);
            let proxied = play(case, port(&RUNNING), extended);
            let differs = direct.iter().zip(&proxied).position(|(one, other)| one != other);
            if let Some(at) = differs {
                let statement = direct[..=at].iter().rfind(|line| line.starts_with("> "));
                panic!("{what}, behind {statement:?}:\n- {}\n+ {}", direct[at], proxied[at]);
            }
            assert_eq!(direct.len(), proxied.len(), "{what}");
        }
    }
}

/// What is in the way of the names is in the way of no more.
#[test]
fn names_that_can_be_said_are_changed_in_steps() {
    for case in &CASES {
        let database = database(case);
        let mut client = Client::connect(port(&RUNNING), &SERVER.user, &database);
        ok(&mut client, format!("SET client_encoding = '{}'", case.client).as_bytes());
        let explain = |client: &mut Client, sql: &str| {
            let rows = ok(client, &bytes(sql, case.in_client, b"")).rows;
            rows.into_iter().filter_map(|row| row.into_iter().next()?).collect::<Vec<_>>().join("\n")
        };
        let what = format!("{} from {}", case.server, case.client);
        let plan = explain(&mut client, "EXPLAIN ALTER TABLE t ADD COLUMN u uuid DEFAULT gen_random_uuid()");
        let steps = matches!(case.server, "UTF8" | "LATIN1");
        assert_eq!(
            [plan.contains("phase 2"), plan.contains("names in the statement cannot be read")],
            [steps, !steps],
            "{what}: {plan}"
        );
        drop(client);
        drop_database(&SERVER, &database);
    }
}

/// Each is sent at once, so that the proxy cannot know what the server has made of its beginning.
#[test]
fn an_encoding_that_changes_midway_changes_what_follows() {
    let q = |sql: &[u8]| frame(b'Q', &[sql, b"\0"].concat());
    let parse = |name: &str, sql: &[u8]| frame(b'P', &[name.as_bytes(), b"\0", sql, &[0, 0, 0]].concat());
    let run = |name: &str| [bind("", name, &[]), execute_portal("", 0)].concat();
    let set = b"SET client_encoding = LATIN1";
    // In UTF-8 the one table, in LATIN1 the other.
    let alter = b"ALTER TABLE \"t_\xc3\xa9\" ADD COLUMN changed int DEFAULT 7, ALTER a SET NOT NULL";
    let talks: [(&str, Vec<Vec<u8>>); 6] = [
        ("two queries at once", vec![q(set), q(alter)]),
        ("a string", vec![q(&[&set[..], b"; ", alter].concat())]),
        ("a function", vec![q(&[&b"SELECT latin(); "[..], alter, b"; SELECT 1"].concat())]),
        ("a pipeline", vec![parse("", set), run(""), parse("", alter), run(""), sync()]),
        ("prepared before", vec![parse("a", alter), parse("", set), run(""), sync(), run("a"), sync()]),
        (
            "prepared before, in a block",
            vec![q(b"BEGIN"), parse("a", alter), sync(), q(set), run("a"), sync(), q(b"COMMIT")],
        ),
    ];
    let case = &CASES[0];
    for (name, talk) in talks {
        let [direct, proxied] = [SERVER.port, port(&RUNNING)].map(|port| {
            let database = database(case);
            let mut client = Client::connect(port, &SERVER.user, &database);
            client.ok("CREATE FUNCTION latin() RETURNS text LANGUAGE sql AS 'SELECT set_config(''client_encoding'', ''LATIN1'', false)'");
            let cycles = talk.iter().filter(|frame| matches!(frame[0], b'Q' | b'S')).count();
            client.send(&talk.concat());
            let outcomes: Vec<_> = (0..cycles).map(|_| client.outcome()).collect();
            let error = outcomes.iter().find_map(|outcome| outcome.error.clone());
            drop(client);
            let state = state(&mut Client::connect(SERVER.port, &SERVER.user, &database));
            drop_database(&SERVER, &database);
            (error, state)
        });
        if name == "a function" {
            // The server has read all of it before; rather than to read the rest anew, nothing is done.
            assert_eq!(proxied.0.as_deref(), Some("0A000"), "{name}");
            assert!(!proxied.1.iter().any(|line| line.contains("changed")), "{name}: {:?}", proxied.1);
            assert!(direct.1.iter().any(|line| line.contains("changed")), "{name}: {:?}", direct.1);
        } else {
            assert_eq!(proxied, direct, "{name}");
            assert_eq!(proxied.0, None, "{name}");
            let changed: Vec<_> = proxied.1.iter().filter(|line| line.contains("changed")).collect();
            assert_eq!(changed.len(), 1, "{name}: {changed:?}");
        }
    }
}

/// They are read by the server in `client_encoding`.
#[test]
fn the_proxys_own_questions_are_ascii() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sql") {
                assert!(std::fs::read(&path).expect("a file").is_ascii(), "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen} files were looked at");
}
