//! The cost of a trivial DDL statement through the proxy, beside the same statement run directly, of a migration in a
//! transaction on an empty table, and of a whole migration history.
//!
//! Statements run in turns on two sessions of one server, one direct and one through the proxy, so that other load on the
//! machine affects both. The server does not wait for its disk (`fsync` is off), so the times are those of the statements
//! alone. Each statement runs on objects of its own, and the objects that it made are there for the next one. Histories are
//! replayed on this server, and on a second one whose commits wait for the disk, as a real server's do.
//!
//! The bench prints Markdown. `PGSLUICE_BENCH_ROUNDS` sets how often each statement runs, and `PGSLUICE_BENCH_REPLAYS` (3)
//! how often each history runs. `CORPORA` says where the histories are (`tests/corpora.rs` says what they need). `CORPUS`
//! names the histories to run, separated by commas; the default is all. An argument, `statements`, `migration` or `corpus`,
//! runs that part alone.

mod rig;

use rig::common::Client;
use rig::{Rig, median, setting};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// `N` is the round, `W` the way, so that no two statements meet.
const STATEMENTS: [(&str, &str); 10] = [
    ("CREATE TABLE", "CREATE TABLE tW_N (id int PRIMARY KEY, total numeric, note text)"),
    ("ADD COLUMN", "ALTER TABLE tW_N ADD COLUMN added text"),
    ("ADD COLUMN … DEFAULT", "ALTER TABLE tW_N ADD COLUMN more int NOT NULL DEFAULT 7"),
    ("CREATE INDEX", "CREATE INDEX iW_N ON tW_N (total)"),
    ("CREATE TABLE … REFERENCES", "CREATE TABLE rW_N (id int PRIMARY KEY, t int REFERENCES tW_N)"),
    ("COMMENT ON TABLE", "COMMENT ON TABLE tW_N IS 'what it is'"),
    ("ADD CHECK", "ALTER TABLE tW_N ADD CHECK (id > 0)"),
    ("RENAME COLUMN", "ALTER TABLE tW_N RENAME COLUMN note TO remark"),
    ("DROP TABLE, referencing", "DROP TABLE rW_N"),
    ("DROP TABLE", "DROP TABLE tW_N"),
];

/// A migration as a tool sends it, on an empty table. `N` and `W` as above.
const MIGRATION: [&str; 5] = [
    "BEGIN",
    "ALTER TABLE mW_N ADD COLUMN shop_id bigint REFERENCES shops",
    "CREATE INDEX ON mW_N (shop_id)",
    "INSERT INTO schema_migrations VALUES ('W_N')",
    "COMMIT",
];

/// How many times as long as directly the migration may take.
const MIGRATION_TARGET: f64 = 1.5;

/// What the target allows, in milliseconds.
const TARGET: f64 = 2.0;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let rig = Rig::start();
    println!("{}", rig::versions());
    if wants("statements") {
        statements(&rig, setting("PGSLUICE_BENCH_ROUNDS", 200));
    }
    if wants("migration") {
        migration(&rig, setting("PGSLUICE_BENCH_ROUNDS", 200));
    }
    if wants("corpus") {
        corpora(&rig);
    }
}

fn statements(rig: &Rig, rounds: u32) {
    let ways = ["direct", "pgsluice"].map(|name| rig.target(name).port);
    let mut clients = ways.map(|port| Client::connect(port, &rig.postgres.user, "postgres"));
    let mut took: Vec<[Vec<f64>; 2]> = STATEMENTS.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for round in 0..rounds {
        for ((_, sql), took) in STATEMENTS.iter().zip(&mut took) {
            // Whoever is second finds the server's caches warm: each is first every other time.
            for turn in 0..2 {
                let way = (turn + round as usize) % 2;
                let sql = sql.replace("W_N", &format!("{way}_{round}"));
                let begun = Instant::now();
                clients[way].ok(&sql);
                took[way].push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    println!("{rounds} rounds: the medians.\n");
    println!(
        "| statement | direct | through pgsluice | more | target: under {TARGET:.0} ms more |\n|---|--:|--:|--:|---|"
    );
    for ((title, _), [direct, proxied]) in STATEMENTS.iter().zip(&took) {
        let (direct, proxied) = (median(direct), median(proxied));
        let more = proxied - direct;
        let met = if more < TARGET { "met" } else { "**not met**" };
        println!("| {title} | {direct:.2} ms | {proxied:.2} ms | {more:.2} ms | {met} |");
    }
}

/// The migration in a transaction, in turns directly and through the proxy.
fn migration(rig: &Rig, rounds: u32) {
    let ways = ["direct", "pgsluice"].map(|name| rig.target(name).port);
    let mut clients = ways.map(|port| Client::connect(port, &rig.postgres.user, "postgres"));
    clients[0]
        .ok("CREATE TABLE shops (id bigint PRIMARY KEY); CREATE TABLE schema_migrations (version text PRIMARY KEY)");
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..2 {
            let way = (turn + round as usize) % 2;
            let named = |sql: &str| sql.replace("W_N", &format!("{way}_{round}"));
            clients[0].ok(&named("CREATE TABLE mW_N (id bigint PRIMARY KEY, total numeric)"));
            let begun = Instant::now();
            MIGRATION.iter().for_each(|sql| drop(clients[way].ok(&named(sql))));
            took[way].push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let [direct, proxied] = took.map(|took| median(&took));
    let ratio = proxied / direct;
    let met = if ratio <= MIGRATION_TARGET { "met" } else { "**not met**" };
    println!("\nA migration in a transaction, on an empty table, {rounds} rounds: the medians.\n");
    println!("| direct | through pgsluice | ratio | target: at most {MIGRATION_TARGET} |\n|--:|--:|--:|---|");
    println!("| {direct:.2} ms | {proxied:.2} ms | {ratio:.2} | {met} |\n");
}

/// Migration histories, each as its own tool sends it: the medians of the ratios of its replays.
fn corpora(rig: &Rig) {
    let Some(programs) = programs() else {
        return println!("\nno migration histories (set CORPORA)");
    };
    let durable = Rig::durable();
    println!(
        "\n| migration history | direct | through pgsluice | ratio | on a server that waits for its disk: direct | through \
         pgsluice | ratio |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    let mut ratios = [Vec::new(), Vec::new()];
    for corpus in wanted(&programs[0]) {
        let mut row = format!("| {corpus} |");
        for (rig, ratios) in [rig, &durable].into_iter().zip(&mut ratios) {
            let [direct, proxied, ratio] = replays(rig, &programs, &corpus);
            row.push_str(&format!(" {direct:.2} s | {proxied:.2} s | {ratio:.2} |"));
            ratios.push(ratio);
        }
        println!("{row}");
    }
    let under = |ratios: &[f64]| ratios.iter().filter(|ratio| **ratio < 1.5).count();
    println!(
        "\nUnder 1.5, which is the target: {} of {}, and {} where the server waits for its disk. By the medians of all: {:.2} and {:.2}.",
        under(&ratios[0]),
        ratios[0].len(),
        under(&ratios[1]),
        median(&ratios[0]),
        median(&ratios[1])
    );
}

fn wanted(corpora: &Path) -> Vec<String> {
    if let Ok(wanted) = std::env::var("CORPUS") {
        return wanted.split(',').map(str::to_owned).collect();
    }
    let all = std::fs::read_dir(corpora).expect("the histories").flatten().filter(|entry| entry.path().is_dir());
    let mut all: Vec<String> = all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    // What tools send is no history.
    all.retain(|name| name != "traces");
    all.sort();
    all
}

/// Seconds directly and through the proxy, and the ratio.
fn replays(rig: &Rig, [corpora, replay, python]: &[PathBuf; 3], corpus: &str) -> [f64; 3] {
    let mut sides: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..setting("PGSLUICE_BENCH_REPLAYS", 3) {
        let dsn = |port: u16| format!("host=127.0.0.1 port={port} user={} dbname=u", rig.postgres.user);
        let mut command = Command::new(python);
        command.arg(replay).args(["check", corpus, "--mode", "native", "--keep-going"]);
        command.args(["--dsn", &dsn(rig.target("pgsluice").port), "--direct-dsn", &dsn(rig.postgres.port)]);
        command.arg("--out").arg(std::env::temp_dir()).env("CORPORA", corpora).env("PGSSLMODE", "disable");
        let output = command.output().expect("the replay");
        let said = String::from_utf8_lossy(&output.stdout);
        let result: serde_json::Value = said
            .lines()
            .next()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        for (side, name) in sides.iter_mut().zip(["direct", "proxied"]) {
            side.push(result[name]["seconds"].as_f64().expect("seconds"));
        }
    }
    let ratios: Vec<f64> = sides[0].iter().zip(&sides[1]).map(|(direct, proxied)| proxied / direct).collect();
    [median(&sides[0]), median(&sides[1]), median(&ratios)]
}

/// Where the histories are, what replays them, and what runs that.
fn programs() -> Option<[PathBuf; 3]> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpora = std::env::var_os("CORPORA").map_or_else(|| root.join("../shared/corpora"), PathBuf::from);
    let replay = corpora.join("../tools/replay.py");
    let own = root.join("target/venv/bin/python");
    let python = if own.exists() { own } else { PathBuf::from("python3") };
    replay.is_file().then_some([corpora, replay, python])
}
