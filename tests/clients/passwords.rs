//! Tests that authentication passes through: the client answers every request of the server, and the proxy only relays.

use crate::common::{Client, port, proxy};
use crate::{Way, node, output, python, succeeded};
use pgsluice::config::Address;
use pgsluice::dev::{Options, Postgres};
use std::process::Command;

const METHODS: [&str; 4] = ["trust", "password", "md5", "scram-sha-256"];
/// With what SASLprep, quoting and md5 could trip over.
const SECRET: &str = "s3cret 'ä' \"%";

/// A server that asks a different thing of each role, each named for it.
fn strict() -> Postgres {
    let postgres = Postgres::start(Options::default()).expect("a throw-away server");
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    let mut rules = String::new();
    for method in METHODS {
        let stored = if method == "md5" { "md5" } else { "scram-sha-256" };
        let role = method.replace('-', "_");
        let secret = SECRET.replace('\'', "''");
        admin.ok(&format!("SET password_encryption = '{stored}'; CREATE ROLE {role} LOGIN PASSWORD '{secret}'"));
        admin.ok(&format!("CREATE SCHEMA AUTHORIZATION {role}"));
        rules += &format!("local all {role} {method}\nhost all {role} all {method}\n");
    }
    let path = postgres.data_dir.join("pg_hba.conf");
    let old = std::fs::read_to_string(&path).expect("pg_hba.conf");
    std::fs::write(&path, rules + &old).expect("pg_hba.conf");
    admin.ok("SELECT pg_reload_conf()");
    postgres
}

fn tokio(way: &Way, user: &str, password: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(way.port).user(user).password(password).dbname(&way.database);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(|error| code(&error))?;
        tokio::spawn(connection);
        client.batch_execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id int)").await.map_err(|error| code(&error))?;
        client.execute("ALTER TABLE t ADD COLUMN v text", &[]).await.map_err(|error| code(&error))?;
        let row = client.query_one("SELECT current_user::text", &[]).await.map_err(|error| code(&error))?;
        Ok(row.get(0))
    })
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

#[test]
fn every_method_of_authentication() {
    let postgres = strict();
    let running = proxy(&postgres, |_| {});
    let scripts = [python("asyncpg", "login.py").map(|s| Box::new(s) as Box<dyn Fn(&Way) -> Command>), {
        node(&["pg"], "login.mjs").map(|s| Box::new(s) as Box<dyn Fn(&Way) -> Command>)
    }];
    // A role may be logged in to by each way once: both have the same database.
    let ways = [postgres.port, port(&running)].map(|port| Way {
        port,
        direct: postgres.port,
        database: "postgres".to_owned(),
        through: port != postgres.port,
    });
    for method in METHODS {
        for password in [SECRET, "wrong"] {
            let role = method.replace('-', "_");
            let fits = password == SECRET || method == "trust";
            let seen = ways.each_ref().map(|way| {
                let mut said = format!("{:?}\n", tokio(way, &role, password));
                let psql = way.program("psql", &["-XAtc", "ALTER TABLE t ADD COLUMN w int; SELECT current_user"]);
                let commands = scripts.iter().flatten().map(|script| script(way)).chain([psql]);
                for mut command in commands {
                    command.env("PGUSER", &role).env("PGPASSWORD", password);
                    let output = output(command);
                    assert_eq!(output.status.success(), fits, "{method}: {output:?}");
                    said += &String::from_utf8_lossy(&output.stdout);
                }
                said
            });
            assert_eq!(seen[0], seen[1], "{method}, {password}");
            assert_eq!(seen[1].contains(&format!("{role}\n")), fits, "{method}: {}", seen[1]);
        }
    }
    let mut command = ways[1].program("psql", &["-XAtc", "SELECT 1"]);
    command.env("PGUSER", "nobody_at_all");
    assert!(String::from_utf8_lossy(&output(command).stderr).contains("role \"nobody_at_all\" does not exist"));
    running.stop_now();
}

/// The proxy has no TLS yet: who prefers it goes on without, who requires it is told so.
#[test]
fn encryption_is_declined() {
    let postgres = strict();
    let running = proxy(&postgres, |_| {});
    let way = Way { port: port(&running), direct: postgres.port, database: "postgres".to_owned(), through: true };
    for (name, value, fits) in [
        ("PGSSLMODE", "disable", true),
        ("PGSSLMODE", "allow", true),
        ("PGSSLMODE", "prefer", true),
        ("PGSSLMODE", "require", false),
        ("PGGSSENCMODE", "disable", true),
        ("PGGSSENCMODE", "prefer", true),
        ("PGGSSENCMODE", "require", false),
        ("PGCHANNELBINDING", "prefer", true),
        ("PGCHANNELBINDING", "require", false),
    ] {
        let mut command = way.program("psql", &["-XAtc", "SELECT current_user"]);
        command.env("PGUSER", "scram_sha_256").env("PGPASSWORD", SECRET).env(name, value);
        let output = output(command);
        assert_eq!(output.status.success(), fits, "{name}={value}: {output:?}");
    }
    running.stop_now();
}

#[test]
fn unix_sockets_on_both_sides() {
    let postgres = strict();
    let folder = std::env::temp_dir().join(format!("pgsluice-clients-{}-sockets", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let socket = folder.join(".s.PGSQL.6432");
    // What a proxy that died left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let running = proxy(&postgres, |config| {
        config.proxy.listen = vec![Address::Unix { dir: folder.clone(), port: 6432 }];
        config.proxy.backend = Address::Unix { dir: postgres.socket_dir.clone(), port: postgres.port };
    });
    let way = Way { port: 6432, direct: postgres.port, database: "postgres".to_owned(), through: true };
    for role in ["trust", "md5", "scram_sha_256"] {
        let mut command = way.program("psql", &["-XAtv", "ON_ERROR_STOP=1"]);
        command.args(["-c", "DROP TABLE IF EXISTS t", "-c", "CREATE TABLE t (id int)"]);
        command.args(["-c", "ALTER TABLE t ADD COLUMN v int", "-c", "SELECT current_user, inet_server_addr() IS NULL"]);
        command.env("PGHOST", &folder).env("PGUSER", role).env("PGPASSWORD", SECRET);
        assert!(succeeded(command).ends_with(&format!("{role}|t\n")), "{role}");
    }
    assert!(running.shared().metrics.ddl_planned.value() >= 3);
    // A cancel goes the same way.
    let mut waiting = way.program("psql", &["-XAtc", "SELECT pg_sleep(60)"]);
    waiting.env("PGHOST", &folder).env("PGUSER", "trust");
    let child = waiting.spawn().expect("psql");
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND usename = 'trust'";
    crate::common::wait_until("psql sleeps", || admin.value(sleeps) == "1");
    succeeded({
        let mut kill = Command::new("kill");
        kill.args(["-INT", &child.id().to_string()])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        kill
    });
    let ended = child.wait_with_output().expect("psql");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("canceling statement due to user request"), "{ended:?}");
    running.stop_now();
    assert!(!socket.exists(), "the socket's file is removed at the end");
    std::fs::remove_dir_all(folder).expect("a folder");
}
