//! Prepared statements whose names the proxy follows: the proxy acts on those that the server keeps, and forgets those that
//! a Query ends.

use crate::common::{Client, no_table_is_small, port, postgres, proxy, wait_until};
use bytes::BytesMut;
use pgsluice::dev::Postgres;
use pgsluice::server::Running;
use pgsluice::wire::message::put_frame;

fn parse(name: &str, sql: &str) -> BytesMut {
    frame(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

fn bind(portal: &str, name: &str) -> BytesMut {
    frame(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
}

fn execute(portal: &str) -> BytesMut {
    frame(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat())
}

fn sync() -> BytesMut {
    frame(b'S', b"")
}

fn frame(tag: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, tag, |b| b.extend_from_slice(body));
    out
}

/// The SQLSTATE that one pipeline ends with.
fn pipeline(client: &mut Client, frames: &[BytesMut]) -> Option<String> {
    client.send(&frames.concat());
    client.outcome().error
}

fn acted(proxy: &Running) -> u64 {
    proxy.shared().metrics.ddl_seen.value()
}

fn scene(postgres: &Postgres) -> (Running, Client) {
    let proxy = proxy(postgres, no_table_is_small);
    let client = Client::connect(port(&proxy), &postgres.user, "postgres");
    (proxy, client)
}

/// A Parse of a name that is taken fails, and the name keeps its meaning.
#[test]
fn a_refused_parse_leaves_a_name_its_meaning() {
    let postgres = postgres();
    let (proxy, mut client) = scene(&postgres);
    client.ok("CREATE TABLE t (a int)");
    for (nth, refused) in ["SELECT 1", "CREATE TABLE other (a int)", "DROP TABLE t"].into_iter().enumerate() {
        let ddl = format!("ALTER TABLE t ADD COLUMN c{nth} int");
        let name = format!("n{nth}");
        assert_eq!(pipeline(&mut client, &[parse(&name, &ddl), sync()]), None);
        assert_eq!(pipeline(&mut client, &[parse(&name, refused), sync()]).as_deref(), Some("42P05"));
        let before = acted(&proxy);
        assert_eq!(pipeline(&mut client, &[bind("", &name), execute(""), sync()]), None, "{refused}");
        assert_eq!(acted(&proxy), before + 1, "after {refused}");
        // Once more, in a block.
        client.ok("BEGIN");
        assert_eq!(
            pipeline(&mut client, &[bind("", &name), execute(""), sync()]).as_deref(),
            Some("42701"),
            "{refused}"
        );
        client.ok("ROLLBACK");
    }
    let columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(client.value(columns), "a,c0,c1,c2");
    proxy.stop();
}

/// SQL can end a statement unseen: the name then means what it was given to.
#[test]
fn a_name_that_was_deallocated_means_what_came_later() {
    let postgres = postgres();
    let (proxy, mut client) = scene(&postgres);
    client.ok("CREATE TABLE t (a int)");
    assert_eq!(pipeline(&mut client, &[parse("n", "ALTER TABLE t ADD COLUMN b int"), sync()]), None);
    client.ok("DEALLOCATE n");
    assert_eq!(pipeline(&mut client, &[parse("n", "SELECT 7 FROM t"), sync()]), None);
    for _ in 0..2 {
        client.send(&[bind("", "n"), execute(""), sync()].concat());
        let outcome = client.outcome();
        assert_eq!((outcome.error, outcome.tags), (None, vec!["SELECT 0".to_owned()]));
    }
    client.ok("DISCARD ALL");
    assert_eq!(pipeline(&mut client, &[parse("n", "ALTER TABLE t ADD COLUMN c int"), sync()]), None);
    client.ok("DISCARD ALL");
    let before = acted(&proxy);
    assert_eq!(
        pipeline(&mut client, &[parse("n", "ALTER TABLE t ADD COLUMN d int"), bind("", "n"), execute(""), sync()]),
        None
    );
    client.ok("DISCARD ALL");
    assert_eq!(pipeline(&mut client, &[parse("n", "ALTER TABLE t ADD COLUMN e int"), sync()]), None);
    assert_eq!(pipeline(&mut client, &[bind("", "n"), execute(""), sync()]), None);
    assert_eq!(acted(&proxy), before + 2);
    let columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(client.value(columns), "a,d,e");
    proxy.stop();
}

/// A simple Query ends the unnamed statement and the unnamed portal, whoever answers it.
#[test]
fn a_query_ends_what_has_no_name() {
    let postgres = postgres();
    let proxy = proxy(&postgres, |_| {});
    let queries = [
        "SELECT 1",
        "ALTER TABLE t ADD COLUMN IF NOT EXISTS b int",
        "CREATE INDEX IF NOT EXISTS ta ON t (a)",
        "ALTER TABLE nowhere ADD COLUMN b int",
        "EXPLAIN ALTER TABLE t ADD COLUMN c int",
        "SELECT 1; ALTER TABLE t ALTER a SET DEFAULT 1",
        "ALTER TABLE t ALTER a SET DEFAULT 1; SELECT 1",
        "DO 'BEGIN ALTER TABLE t ALTER a SET DEFAULT 2; END'",
    ];
    for (name, to) in [("direct", postgres.port), ("proxied", port(&proxy))] {
        let mut client = Client::connect(to, &postgres.user, "postgres");
        client.ok("DROP TABLE IF EXISTS t; CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
        for in_block in [false, true] {
            for query in queries.iter().filter(|query| name == "proxied" || !query.starts_with("EXPLAIN")) {
                if in_block {
                    client.ok("BEGIN");
                }
                let prepares = [
                    parse("", "SELECT a FROM t"),
                    bind("", ""),
                    parse("kept", "SELECT 1"),
                    bind("kept", "kept"),
                    sync(),
                ];
                assert_eq!(pipeline(&mut client, &prepares), None);
                let failed = client.query(query).error.is_some();
                let what = format!("{name}: {query} (in a block: {in_block})");
                if !(failed && in_block) {
                    if in_block {
                        client.ok("SAVEPOINT s");
                        // A Query may not end what has a name.
                        assert_eq!(
                            pipeline(
                                &mut client,
                                &[parse("k2", "SELECT 1"), bind("k2", "kept"), execute("kept"), sync()]
                            ),
                            None,
                            "{what}"
                        );
                        assert_eq!(pipeline(&mut client, &[execute(""), sync()]).as_deref(), Some("34000"), "{what}");
                        client.ok("ROLLBACK TO s");
                    }
                    assert_eq!(pipeline(&mut client, &[bind("", ""), sync()]).as_deref(), Some("26000"), "{what}");
                }
                if in_block {
                    client.ok("ROLLBACK");
                }
                client.ok("DEALLOCATE ALL");
            }
        }
    }
    proxy.stop();
}

/// Whatever the server takes for off leaves an ordinary session, whose schema changes are seen.
#[test]
fn replication_that_is_off_is_intercepted() {
    let postgres = postgres();
    let (proxy, mut admin) = scene(&postgres);
    admin.ok("CREATE TABLE t (a int)");
    for off in ["f", "F", "fal", "of", "no", "n", "0", "OFF"] {
        let body = format!("user\0{user}\0database\0postgres\0replication\0{off}\0\0", user = postgres.user);
        let mut packet = u32::try_from(8 + body.len()).unwrap().to_be_bytes().to_vec();
        packet.extend(196_608_u32.to_be_bytes());
        packet.extend(body.as_bytes());
        let (mut client, _) = Client::login(port(&proxy), &packet);
        let before = acted(&proxy);
        client.ok("ALTER TABLE t ALTER a SET DEFAULT 1");
        assert_eq!(acted(&proxy), before + 1, "replication={off}");
    }
    wait_until("the sessions have ended", || {
        admin.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == "1"
    });
    proxy.stop();
}
