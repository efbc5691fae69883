//! Real migration histories, replayed directly and through the proxy. The tests compare schema, rows, sequences and errors.
//!
//! The histories are not in the repository. They are in `$CORPORA` or `../shared/corpora`, with `../tools/replay.py` beside
//! them (it needs psycopg and pglast, which `scripts/setup.sh clients` installs). Without them the test prints a message and
//! passes; the scripts of `tests/parity` cover every form.
//!
//! In transactions every table counts as large, so that whatever could make the application wait is done ahead of its transaction.
//!
//! By default every history runs as its own tool sends it, and in two other ways, which differ from one history to the next.
//! `PGSLUICE_ALL_CORPORA=1` (`make test-corpora`) runs all histories in all ways. `CORPUS=name` (or `CORPUS=name/mode`) runs
//! only the histories whose name contains it.

mod common;

use common::{no_table_is_small, port, postgres, proxy};
use pgsluice::dev::Postgres;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const MODES: [&str; 8] = ["simple", "stmt", "ext", "pipe", "tx", "tx-ext", "tx-stmt", "tx-pipe"];

/// Modes beside the native one that each history runs in by default.
const IN_TURN: usize = 2;

/// Where everything is.
struct Bench {
    corpora: PathBuf,
    replay: PathBuf,
    python: PathBuf,
    out: PathBuf,
}

#[test]
fn migration_histories_give_the_same_directly_and_through_the_proxy() {
    let bench = match bench() {
        Ok(bench) => bench,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let postgres = postgres();
    let running = proxy(&postgres, |_| {});
    let large = proxy(&postgres, no_table_is_small);
    let work = combinations(&bench);
    let failures = Mutex::new(String::new());
    let next = Mutex::new(work.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((corpus, modes)) = { next.lock().unwrap().next() } {
                    for mode in modes {
                        let proxy = if mode.starts_with("tx") { &large } else { &running };
                        if let Err(found) = check(&bench, &postgres, port(proxy), &corpus, mode) {
                            failures.lock().unwrap().push_str(&format!("=== {corpus}/{mode}\n{found}\n"));
                        }
                    }
                }
            });
        }
    });
    let metrics = &large.shared().metrics;
    eprintln!("{} done ahead, {} not", metrics.ddl_ahead.value(), metrics.ddl_not_ahead.value());
    if std::env::var_os("CORPUS").is_none() {
        assert!(metrics.ddl_ahead.value() > 100, "statements go ahead of transactions");
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "direct and proxied differ:\n{failures}");
}

/// What is needed, or what is missing.
fn bench() -> Result<Bench, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpora = std::env::var_os("CORPORA").map_or_else(|| root.join("../shared/corpora"), PathBuf::from);
    if !corpora.is_dir() {
        return Err(format!("no migration histories in {} (set CORPORA)", corpora.display()));
    }
    let replay = corpora.join("../tools/replay.py");
    if !replay.is_file() {
        return Err(format!("no {}", replay.display()));
    }
    let own = root.join("target/venv/bin/python");
    let python = if own.exists() { own } else { PathBuf::from("python3") };
    let imports = Command::new(&python).args(["-c", "import psycopg, pglast"]).output();
    if !imports.is_ok_and(|output| output.status.success()) {
        return Err("psycopg and pglast are missing (scripts/setup.sh clients)".to_owned());
    }
    Ok(Bench { corpora, replay, python, out: Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpora") })
}

/// Every history, with its modes. One history's runs follow each other: their databases have the same names.
fn combinations(bench: &Bench) -> Vec<(String, Vec<&'static str>)> {
    let entries = std::fs::read_dir(&bench.corpora).expect("the corpora").filter_map(Result::ok);
    let histories = entries.filter(|entry| entry.path().join("manifest.json").is_file());
    let mut names: Vec<String> = histories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let all = std::env::var_os("PGSLUICE_ALL_CORPORA").is_some();
    let wanted = std::env::var("CORPUS").unwrap_or_default();
    let (corpus, mode) = wanted.split_once('/').unwrap_or((&wanted, ""));
    let modes = |place: usize| {
        let turn = place * IN_TURN;
        let others = MODES.iter().cycle().skip(turn).take(if all { MODES.len() } else { IN_TURN });
        let modes = std::iter::once(&"native").chain(others).copied();
        modes.filter(|one| mode.is_empty() || *one == mode).collect()
    };
    let numbered = names.into_iter().enumerate().map(|(place, name)| (name, modes(place)));
    numbered.filter(|(name, _)| name.contains(corpus)).collect()
}

/// Replays one history twice; what differs, if anything does.
fn check(bench: &Bench, postgres: &Postgres, port: u16, corpus: &str, mode: &str) -> Result<(), String> {
    // Rows are put in after certain files; where the server refuses one of those in this mode, they do not fit.
    let answer = replay(bench, postgres, port, corpus, mode, true)
        .or_else(|_| replay(bench, postgres, port, corpus, mode, false))?;
    let (json, rest) = answer.split_once('\n').unwrap_or((&answer, ""));
    let result: Value = serde_json::from_str(json).map_err(|error| format!("{error}: {answer}"))?;
    let seconds = |side: &str| result[side]["seconds"].as_f64().unwrap_or_default();
    let (direct, proxied) = (seconds("direct"), seconds("proxied"));
    eprintln!("{corpus}/{mode}: {direct:.2} s directly, {proxied:.2} s proxied");
    let mut found = String::new();
    let (direct, proxied) = (failed(&result["direct"]), failed(&result["proxied"]));
    if direct != proxied {
        found = format!("failed directly: {direct:#?}\nfailed proxied: {proxied:#?}\n");
    }
    if result["schema_diff_lines"] != 0 || result["data_diff"].as_array().is_none_or(|lines| !lines.is_empty()) {
        found.push_str(&format!("rows: {:#}\nschema: {rest}", result["data_diff"]));
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// What failed, without the numbers that differ from run to run.
fn failed(side: &Value) -> Vec<String> {
    let failed = side["failed"].as_array().into_iter().flatten();
    failed.map(|one| one.to_string().replace(|c: char| c.is_ascii_digit(), "")).collect()
}

/// The replay's answer: one line of JSON, then the schemas' difference.
fn replay(
    bench: &Bench,
    postgres: &Postgres,
    port: u16,
    corpus: &str,
    mode: &str,
    seeds: bool,
) -> Result<String, String> {
    let dsn = |port: u16| format!("host=127.0.0.1 port={port} user={} dbname=u", postgres.user);
    let mut command = Command::new(&bench.python);
    command.arg(&bench.replay).args(["check", corpus, "--mode", mode, "--keep-going"]);
    command.args(["--dsn", &dsn(port), "--direct-dsn", &dsn(postgres.port)]).arg("--out").arg(&bench.out);
    if seeds {
        command.arg("--seeds");
    }
    command.env("CORPORA", &bench.corpora).env("PGSSLMODE", "disable");
    // psql and pg_dump of the server's own version.
    if let Some(folder) = Path::new(postgres.command("psql").get_program()).parent() {
        command.env("PG_BIN", folder);
    }
    let output = command.output().expect("the replay");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    if answer.starts_with('{') { Ok(answer) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
