//! Migration tools as released, in their default mode, beside an application: `tests/tools/run.py` drives them directly and
//! through the proxy.
//!
//! A test fails if the tool leaves something else through the proxy (schema, history, rows, leftovers), if the tool or the application gets an
//! error, if nothing goes ahead of a transaction where it should (the proxy's counters tell), or if a step makes the application
//! wait and `tests/tools/expected_waits.toml` does not know it. These tools cover the ways
//! to send: one statement after the other in one transaction (Alembic) or in one each (Rails, whose rows are prepared), and a file as
//! one string (dbmate). The tables are small, as a plain `cargo test` runs these; `make tools` runs all tools with tables that show every wait.
//! A tool that is not installed is skipped with a message, and fails the test if CI is set.
//!
//! Holds: one tool runs at a time, as the tests measure how long others wait.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A run takes less than a minute on a busy machine, and a second run follows a failed one.
const PATIENCE: Duration = Duration::from_secs(600);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a program can be run with these arguments, loudly if not.
fn installed(what: &str, program: impl AsRef<Path>, arguments: &[&str]) -> bool {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(root()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let found = command.status().is_ok_and(|status| status.success());
    let missing = format!("{what} is not installed (make setup-test installs it)");
    assert!(found || std::env::var_os("CI").is_none(), "{missing}");
    if !found {
        eprintln!("skipped: {missing}");
    }
    found
}

fn python(modules: &str) -> bool {
    installed(modules, root().join("target/venv/bin/python"), &["-c", &format!("import {modules}")])
}

fn node(module: &str) -> bool {
    let there = format!("process.exit(fs.existsSync('target/tools/node_modules/{module}') ? 0 : 1)");
    installed(module, "node", &["-e", &there])
}

/// Runs one tool to its end, or for as long as anybody is patient.
fn run(name: &str) {
    // The driver and the application are in Python, whatever the tool is.
    if !python("psycopg") {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut command = Command::new(root().join("target/venv/bin/python"));
    command.arg(root().join("tests/tools/run.py")).args([
        "--few-rows",
        "--check",
        "--pgsluice",
        env!("CARGO_BIN_EXE_pgsluice"),
        name,
    ]);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let mut pipe = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = pipe.read_to_string(&mut said);
        said
    });
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
        std::thread::sleep(Duration::from_millis(20));
    };
    println!("{}", reader.join().expect("output"));
    assert!(!hung, "{name} hangs");
    assert!(status.success(), "{name}: {status}; see above");
}

#[test]
fn alembic() {
    if python("alembic, sqlalchemy, psycopg2") {
        run("alembic");
    }
}

#[test]
fn rails() {
    if installed("Rails' ActiveRecord", "ruby", &["-e", "require 'active_record'; require 'pg'"]) {
        run("rails");
    }
}

#[test]
fn dbmate() {
    if node("dbmate") {
        run("dbmate");
    }
}
