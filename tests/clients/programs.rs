//! PostgreSQL's own programs: psql, pgbench, the dump and restore programs, the maintenance programs, and the replication clients.

use crate::{Way, another_server, both, both_on, output, server, succeeded};
use std::path::PathBuf;
use std::process::Command;

fn script(name: &str) -> String {
    crate::root().join("tests/clients").join(name).display().to_string()
}

/// An empty folder, new for each run.
fn folder(way: &Way) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pgsluice-clients-{}-{}", std::process::id(), way.database));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

/// What it prints, and the errors it tells; notices of a wait or a plan are the proxy's own.
fn said(command: Command) -> String {
    let output = output(command);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> =
        errors.lines().filter(|line| ["ERROR", "FATAL", "LINE ", "  ^"].iter().any(|w| line.contains(w))).collect();
    let pid = |line: &str| line.split(" with PID ").next().unwrap_or_default().to_owned();
    let lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(pid).collect();
    format!("{:?}\n{}\n{}", output.status.code(), lines.join("\n"), errors.join("\n"))
}

#[test]
fn psql() {
    both("psql", 25, |way| {
        let folder = folder(way);
        let mut command = way.program("psql", &["-X", "-f", &script("psql.sql")]);
        command.current_dir(&folder);
        let said = said(command);
        std::fs::remove_dir_all(folder).expect("a folder");
        said
    });
}

#[test]
fn psql_in_other_ways() {
    both("psql_ways", 12, |way| {
        let mut all = String::new();
        let mut run = |arguments: &[&str]| {
            let command = way.program("psql", &[&["-X", "-A", "-v", "VERBOSITY=verbose"], arguments].concat());
            // Verbose errors tell the line in the server's source: the same, as the server raised them.
            all += &format!("{arguments:?}\n{}\n", said(command));
        };
        run(&["-c", "ALTER TABLE big ADD COLUMN a int; SELECT 1; ALTER TABLE big ADD COLUMN b int"]);
        run(&["-c", "ALTER TABLE big ADD COLUMN c int; SELECT 1/0; SELECT 2"]);
        run(&["-c", "SELECT 'é'; ALTER TABLE big ADD COLUMN c nothing"]);
        run(&["-c", "SELECT 1; CREATE INDEX CONCURRENTLY x ON big (n)"]);
        run(&["-c", "BEGIN; ALTER TABLE big ADD COLUMN c int; COMMIT; CREATE INDEX big_c ON big (c)"]);
        run(&["-c", "CREATE INDEX big_n ON big (n)", "-c", "DROP INDEX big_n", "-c", "CREATE INDEX big_n2 ON big (n)"]);
        run(&["-c", "ALTER TABLE big ADD COLUMN", "-c", "SELECT 'after a syntax error'"]);
        run(&["-v", "ON_ERROR_STOP=1", "-c", "ALTER TABLE big ADD COLUMN a int", "-c", "SELECT 'not to be seen'"]);
        run(&["-1", "-f", &script("schema.sql")]);
        run(&["-1", "-v", "ON_ERROR_STOP=1", "-f", &script("schema.sql")]);
        run(&["-c", "SET lock_timeout = '5s'; BEGIN; ALTER TABLE app.person ADD COLUMN z int; COMMIT"]);
        run(&["-c", "\\dt app.*", "-c", "\\di app.*"]);
        all
    });
}

/// By the extended protocol; psql can since 16.
#[test]
fn psql_bind() {
    if server().version < 16 {
        return eprintln!("skipped: psql before 16 has no \\bind");
    }
    both("psql_bind", 3, |way| {
        let mut command = way.program("psql", &["-X", "-v", "ON_ERROR_STOP=1"]);
        command.args([
            "-c",
            "ALTER TABLE big ADD COLUMN a int \\bind \\g",
            "-c",
            "CREATE INDEX x ON big (n) \\bind \\g",
        ]);
        command.args(["-c", "SELECT count(*) FROM big WHERE id < $1 \\bind 5 \\g", "-c", "DROP INDEX x \\bind \\g"]);
        said(command)
    });
}

#[test]
fn pgbench() {
    both("pgbench", 8, |way| {
        way.run("pgbench", &["-i", "-s", "1", "-q", "--foreign-keys"]);
        // Two that create one table at once collide, IF NOT EXISTS or not.
        way.client().ok("CREATE TABLE mine (id int, v int); CREATE INDEX mine_v ON mine (v)");
        let mut all = String::new();
        for protocol in ["simple", "extended", "prepared"] {
            let mut run = |arguments: &[&str]| {
                let said = way.run("pgbench", &[&["-n", "-M", protocol, "-c", "4"], arguments].concat());
                let shown = ["processed", "failed"];
                all.extend(said.lines().filter(|l| shown.iter().any(|w| l.contains(w))).map(|l| format!("{l}\n")));
            };
            run(&["-t", "100"]);
            run(&["-t", "200", "-S", "-j", "2"]);
            run(&["-t", "10", "-f", &script("load.sql")]);
        }
        let pipeline = way.program("pgbench", &["-n", "-M", "extended", "-t", "50", "-f", &script("pipeline.sql")]);
        succeeded(pipeline);
        let mut client = way.client();
        all += &client.value("SELECT count(*) FROM pgbench_history");
        client.ok("VACUUM FULL pgbench_branches");
        client.ok("DROP TABLE pgbench_history");
        all
    });
}

/// A schema with everything, its data and its blobs, out of one database and into another, both by the same way.
#[test]
fn dump_and_restore() {
    both("dump", 60, |way| {
        let folder = folder(way);
        let file = |name: &str| folder.join(name).display().to_string();
        way.run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &script("schema.sql")]);
        way.run("pg_dump", &["-Fc", "--blobs", "-f", &file("custom")]);
        way.run("pg_dump", &["-Fd", "-j", "2", "-f", &file("directory")]);
        way.run("pg_dump", &["-f", &file("plain"), "--inserts", "--rows-per-insert=100"]);
        let mut all = String::new();
        let mut restored = |how: &str, restore: &dyn Fn(&str)| {
            let database = format!("{}_{how}", way.database);
            way.run("createdb", &["-T", "template0", &database]);
            restore(&database);
            let there = Way { port: way.direct, direct: way.direct, database: database.clone(), through: false };
            let rows = "SELECT (SELECT count(*) FROM app.person), (SELECT count(*) FROM app.visit), (SELECT count(*) FROM big),
                (SELECT sum(length(lo_get(oid))) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_index WHERE NOT indisvalid)";
            all += &format!("{how} {:?}\n{}\n", there.client().ok(rows).rows, crate::left_behind(&there));
            way.run("dropdb", &[&database]);
        };
        restored("custom", &|to| {
            way.run("pg_restore", &["-d", to, "--exit-on-error", "-j", "2", &file("custom")]);
        });
        restored("directory", &|to| {
            way.run("pg_restore", &["-d", to, "--exit-on-error", "-1", &file("directory")]);
        });
        restored("plain", &|to| {
            way.run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", to, "-f", &file("plain")]);
        });
        way.run("pg_restore", &["-d", &way.database, "--clean", "--if-exists", "--exit-on-error", &file("custom")]);
        std::fs::remove_dir_all(folder).expect("a folder");
        all
    });
}

/// On a server of their own: while REINDEX SYSTEM waits for a transaction that has read pg_authid, nobody can log in.
#[test]
fn maintenance_programs() {
    both_on(&another_server(), "maintenance", 3, |way| {
        let mut all = way.run("pg_isready", &["-q"]);
        way.run("vacuumdb", &["--analyze", "-j", "2"]);
        way.run("vacuumdb", &["--full", "-t", "small"]);
        way.run("reindexdb", &["-t", "big"]);
        way.run("reindexdb", &["-t", "big", "--concurrently"]);
        way.run("reindexdb", &["-s"]);
        way.run("clusterdb", &[]);
        way.run("pg_dumpall", &["--globals-only"]);
        all += &way.run("psql", &["-XAtc", "SELECT count(*) FROM pg_index WHERE NOT indisvalid"]);
        all
    });
}

#[test]
fn replication_programs() {
    both("replicated", 0, |way| {
        let folder = folder(way);
        let file = |name: &str| folder.join(name).display().to_string();
        way.run("pg_basebackup", &["-D", &file("base"), "-X", "stream", "-c", "fast", "--no-sync"]);
        way.run("pg_verifybackup", &[&file("base")]);
        let slot = format!("slot_{}", way.through);
        way.run("pg_recvlogical", &["-d", &way.database, "-S", &slot, "--create-slot", "-P", "test_decoding"]);
        let mut client = way.client();
        client.ok("INSERT INTO small VALUES (70, 'seen')");
        let end = client.value("SELECT pg_current_wal_insert_lsn()");
        client.ok("CHECKPOINT; SELECT pg_switch_wal()");
        let log = file("changes");
        way.run(
            "pg_recvlogical",
            &["-d", &way.database, "-S", &slot, "--start", "-f", &log, "-E", &end, "-o", "include-xids=0"],
        );
        let changes = std::fs::read_to_string(&log).expect("changes");
        way.run("pg_recvlogical", &["-d", &way.database, "-S", &slot, "--drop-slot"]);
        std::fs::create_dir(folder.join("wal")).expect("a folder");
        way.run("pg_receivewal", &["-D", &file("wal"), "-E", &end, "--no-loop", "--no-sync"]);
        let received = std::fs::read_dir(folder.join("wal")).expect("a folder").count() > 0;
        // A logical replication connection takes plain SQL too, by the simple protocol alone: it is relayed.
        let connect = format!("dbname={} replication=database", way.database);
        let altered =
            said(way.program("psql", &["-XAtd", &connect, "-c", "ALTER TABLE small ADD COLUMN by_replication int"]));
        std::fs::remove_dir_all(folder).expect("a folder");
        format!("{changes}\n{received}\n{altered}")
    });
}
