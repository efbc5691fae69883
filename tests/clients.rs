//! Real clients through the proxy. Each client does the same against the server itself and through the proxy, on databases
//! that begin alike, and must not be able to tell the two apart.
//!
//! The tests compare all output of a client (results, tags, error classes, SQLSTATEs) and the schema that it leaves
//! (`pg_dump`), and check that nothing of the proxy's is left behind. A client that is not installed is skipped with a
//! message, and fails the test if CI is set. `make test` installs all of them.

mod common;
#[path = "clients/migrations.rs"]
mod migrations;
#[path = "clients/passwords.rs"]
mod passwords;
#[path = "clients/programs.rs"]
mod programs;
#[path = "clients/rust.rs"]
mod rust;

use common::{Client, port, proxy};
use pgsluice::dev::{Options, Postgres};
use pgsluice::server::Running;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// No client needs this long, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(100);
/// Databases begin as copies of this one.
const TEMPLATE: &str = "beginning";
/// `big` is larger than `small_table`: its indexes are built concurrently.
const BEGINNING: &str = "\
    CREATE TABLE big (id int PRIMARY KEY, v text NOT NULL, n int);
    INSERT INTO big SELECT g, 'value ' || g || repeat('.', 80), g % 100 FROM generate_series(1, 20000) g;
    CREATE TABLE small (id int PRIMARY KEY, v text);
    INSERT INTO small SELECT g, 'value ' || g FROM generate_series(1, 10) g;
    ANALYZE";

/// The one server of all tests here; its watchdog ends it with this process.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(another_server)
}

/// For what would be in the way of other tests.
pub fn another_server() -> Postgres {
    let options = Options::default()
        .setting("wal_level", "logical")
        .setting("max_prepared_transactions", "10")
        .setting("password_encryption", "scram-sha-256");
    let postgres = Postgres::start(options).expect("a throw-away server");
    let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
    admin.ok(&format!("CREATE DATABASE {TEMPLATE}"));
    Client::connect(postgres.port, &postgres.user, TEMPLATE).ok(BEGINNING);
    postgres
}

/// One of the two ways to the server, and a database of its own.
pub struct Way {
    pub port: u16,
    /// The server's own.
    pub direct: u16,
    pub database: String,
    pub through: bool,
}

impl Way {
    /// A program that connects by libpq's environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for name in ["PGPASSWORD", "PGSERVICE", "PGSSLMODE", "PGOPTIONS", "PGHOSTADDR"] {
            command.env_remove(name);
        }
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", &server().user);
        command.env("PGDATABASE", &self.database).env("PGAPPNAME", "pgsluice test");
        command.env("DIRECT_PORT", self.direct.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// One of PostgreSQL's own programs.
    pub fn program(&self, name: &str, arguments: &[&str]) -> Command {
        let path = server().command(name).get_program().to_owned();
        let mut command = self.command(PathBuf::from(path));
        command.args(arguments);
        command
    }

    /// Its standard output; it must succeed.
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        succeeded(self.program(name, arguments))
    }

    /// A session over plain TCP.
    pub fn client(&self) -> Client {
        Client::connect(self.port, &server().user, &self.database)
    }
}

/// Runs a command to its end, or for as long as anybody is patient; output is taken by threads of its own.
pub fn output(mut command: Command) -> Output {
    let name = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let reads = [
        std::thread::spawn({
            let mut pipe = child.stdout.take().expect("piped");
            move || read_all(&mut pipe)
        }),
        std::thread::spawn({
            let mut pipe = child.stderr.take().expect("piped");
            move || read_all(&mut pipe)
        }),
    ];
    let begun = Instant::now();
    let mut hung = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if begun.elapsed() > PATIENCE && !hung {
            hung = true;
            child.kill().expect("a child");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = reads.map(|read| read.join().expect("output"));
    if hung {
        let said = [&stdout, &stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        panic!("{name} hangs; it had said:\n{}\n{}", said[0], said[1]);
    }
    Output { status, stdout, stderr }
}

fn read_all(pipe: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}

pub fn succeeded(command: Command) -> String {
    let name = format!("{command:?}");
    let output = output(command);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{name}: {}\n{}\n{}", output.status, said[0], said[1]);
    said.into_iter().next().unwrap_or_default()
}

/// Runs `act` directly and through a proxy of its own, and compares what it gives and what it leaves.
/// The proxy must have run at least `least` statements of DDL.
pub fn both(name: &str, least: u64, act: impl Fn(&Way) -> String) {
    both_on(server(), name, least, act);
}

pub fn both_on(postgres: &Postgres, name: &str, least: u64, act: impl Fn(&Way) -> String) {
    let running = proxy(postgres, |_| {});
    let mut seen = Vec::new();
    for through in [false, true] {
        let mut admin = Client::connect(postgres.port, &postgres.user, "postgres");
        admin.ok(&format!("DROP DATABASE IF EXISTS {name}"));
        admin.ok(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"));
        let way = Way {
            port: if through { port(&running) } else { postgres.port },
            direct: postgres.port,
            database: name.to_owned(),
            through,
        };
        let begun = Instant::now();
        let said = act(&way);
        eprintln!("{name} {}: {:.1} s", if through { "through" } else { "directly" }, begun.elapsed().as_secs_f64());
        let directly = Way { port: postgres.port, direct: postgres.port, database: name.to_owned(), through: false };
        seen.push((said, left_behind(&directly)));
        admin.ok(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
        admin.ok(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    }
    let ran = planned(&running);
    running.stop_now();
    let (through, direct) = (seen.pop().expect("two"), seen.pop().expect("two"));
    same(name, &direct.0, &through.0);
    same(&format!("{name}, the schema"), &direct.1, &through.1);
    assert!(ran >= least, "{name}: the proxy ran {ran} statements of DDL, at least {least} were expected");
}

fn planned(running: &Running) -> u64 {
    let metrics = &running.shared().metrics;
    metrics.ddl_planned.value() + metrics.ddl_elided.value() + metrics.ddl_relayed.value()
}

/// The schema, and whatever should not be there: a dump does not show invalid indexes.
fn left_behind(way: &Way) -> String {
    let dump = way.run("pg_dump", &["--schema-only", "--no-owner"]);
    // Newer programs write a key of their own, chosen at random.
    let dump: Vec<&str> =
        dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict")).collect();
    let mut client = way.client();
    let odd = client.ok("SELECT 'invalid index ' || indexrelid::regclass FROM pg_index WHERE NOT indisvalid
         UNION ALL SELECT 'left ' || relname FROM pg_class WHERE relname ~ 'pgsluice'
         UNION ALL SELECT 'lock of ' || pid FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");
    format!("{}\n{:?}", dump.join("\n"), odd.rows)
}

/// Shows the first lines that differ.
fn same(what: &str, direct: &str, through: &str) {
    if direct == through {
        return;
    }
    let (one, two): (Vec<&str>, Vec<&str>) = (direct.lines().collect(), through.lines().collect());
    let at = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let from = at.saturating_sub(5);
    let show =
        |lines: &[&str]| lines.iter().skip(from).take(15).fold(String::new(), |all, line| all + "  " + line + "\n");
    panic!("{what} differs at line {}\ndirectly:\n{}through the proxy:\n{}", at + 1, show(&one), show(&two));
}

/// `None`, loudly, if a client is not installed.
fn installed(what: &str, found: bool) -> Option<()> {
    if found {
        return Some(());
    }
    assert!(std::env::var_os("CI").is_none(), "{what} is not installed (make setup-test installs it)");
    eprintln!("skipped: {what} is not installed (make setup-test installs it)");
    None
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A script of tests/clients/, if the Python module it drives is installed.
pub fn python(module: &str, script: &str) -> Option<impl Fn(&Way) -> Command + use<>> {
    let interpreter = root().join("target/venv/bin/python");
    let mut import = Command::new(&interpreter);
    import.args(["-c", &format!("import psycopg, {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    installed(&format!("Python's {module}"), import.status().is_ok_and(|status| status.success()))?;
    let script = root().join("tests/clients").join(script);
    Some(move |way: &Way| {
        let mut command = way.command(&interpreter);
        command.arg(&script);
        command
    })
}

/// A script of tests/clients/, if the node modules it needs are installed.
fn node(modules: &[&str], script: &str) -> Option<impl Fn(&Way) -> Command + use<>> {
    let folder = root().join("target/node/node_modules");
    let mut version = Command::new("node");
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let there = version.status().is_ok_and(|status| status.success());
    installed("Node.js", there)?;
    for module in modules {
        installed(&format!("Node's {module}"), folder.join(module).is_dir())?;
    }
    let script = root().join("tests/clients").join(script);
    Some(move |way: &Way| {
        let mut command = way.command("node");
        command.env("NODE_PATH", &folder).arg(&script);
        command
    })
}

#[test]
fn psycopg_3() {
    let Some(script) = python("psycopg", "psycopg3.py") else { return };
    both("psycopg3", 40, |way| succeeded(script(way)));
}

#[test]
fn psycopg_3_asynchronous() {
    let Some(script) = python("psycopg", "psycopg3_async.py") else { return };
    both("psycopg3_async", 12, |way| succeeded(script(way)));
}

#[test]
fn psycopg_2() {
    let Some(script) = python("psycopg2", "psycopg2_.py") else { return };
    both("psycopg2", 8, |way| succeeded(script(way)));
}

#[test]
fn asyncpg() {
    let Some(script) = python("asyncpg", "asyncpg_.py") else { return };
    both("asyncpg", 40, |way| succeeded(script(way)));
}

#[test]
fn node_postgres() {
    let Some(script) = node(&["pg", "pg-cursor", "pg-copy-streams"], "node_postgres.mjs") else { return };
    both("node_postgres", 20, |way| succeeded(script(way)));
}

#[test]
fn postgres_js() {
    let Some(script) = node(&["postgres"], "postgres_js.mjs") else { return };
    both("postgres_js", 10, |way| succeeded(script(way)));
}
