//! What the journal of transaction blocks costs: processor time of the proxy for a block, with the journal and without.
//!
//! The blocks have four statements: BEGIN, UPDATE, SELECT and COMMIT, in the simple and the extended protocol, unprepared and prepared, for 16 and 64
//! clients. Both proxies are the same program. They are measured in turns, and each round gives one ratio, since a neighbour's load comes
//! and goes. A third proxy is another program: `PGSLUICE_BENCH_BEFORE`, such as the one before a change.
//!
//! The bench prints Markdown. `PGSLUICE_BENCH_ROUNDS` (9) and `PGSLUICE_BENCH_BLOCKS` (16000) set how long it measures.

mod rig;

use rig::{Rig, Target, median, setting};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

/// The extended protocol with BEGIN prepared is the costliest: the proxy opens Bind and Execute outside blocks, too.
const PROTOCOLS: [&str; 3] = ["simple", "extended", "prepared"];

const WITHOUT: &str = "pgsluice, no journal";

const SCRIPT: &str = "\\set aid random(1, 100000)\n\
    BEGIN;\n\
    UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    COMMIT;\n";

const SELECT: &str = "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";

fn main() {
    rig::allow_open_files();
    let mut rig = Rig::of_pgsluice();
    let initialised = rig.postgres.command("pgbench").args(["-i", "-q", "-s", "1"]).stderr(Stdio::null()).status();
    assert!(initialised.is_ok_and(|status| status.success()), "pgbench -i");
    rig.pgsluice(WITHOUT, "[ddl]\njournal_limit = \"0\"");
    if let Some(program) = std::env::var_os("PGSLUICE_BENCH_BEFORE") {
        rig.program("pgsluice, before", &program, "");
    }
    println!("Versions:\n\n{}", rig::versions());
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 9);
    let count = setting("PGSLUICE_BENCH_BLOCKS", 16_000);
    println!("\nMedians of {rounds} rounds, in turns.\n");
    println!(
        "| statements | protocol | clients | through | processor time | of no journal | user mode | of no journal |"
    );
    println!("|---|---|--:|---|--:|--:|--:|--:|");
    for (name, script, factor) in [("block", SCRIPT, 1), ("SELECT alone", SELECT, 4)] {
        let path = std::env::temp_dir().join(format!("pgsluice-journal-{}.sql", std::process::id()));
        fs::write(&path, script).expect("a script");
        for protocol in PROTOCOLS {
            for clients in [16, 64] {
                let each = (count * factor / clients).to_string();
                let clients = clients.to_string();
                let file = path.to_string_lossy();
                let arguments = ["-M", protocol, "-c", &clients, "-j", "2", "-t", &each, "-f", &file];
                compare(&rig, rounds, name, &arguments, f64::from(count * factor));
            }
        }
        let _ = fs::remove_file(&path);
    }
}

/// Prints a line for each proxy.
fn compare(rig: &Rig, rounds: u32, name: &str, arguments: &[&str], count: f64) {
    let proxies: Vec<&Target> = rig.targets.iter().filter(|target| target.pid().is_some()).collect();
    let mut runs: Vec<Vec<Used>> = proxies.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for n in 0..proxies.len() {
            let at = (round + n) % proxies.len();
            runs[at].push(run(rig, proxies[at], arguments));
        }
    }
    let without = proxies.iter().position(|target| target.name == WITHOUT).expect("a proxy");
    for (at, target) in proxies.iter().enumerate() {
        let of = |value: fn(&Used) -> f64| {
            let per_block: Vec<f64> = runs[at].iter().map(|used| value(used) * 1e6 / count).collect();
            let pairs = runs[at].iter().zip(&runs[without]);
            let ratios: Vec<f64> = pairs.map(|(its, plain)| value(its) / value(plain)).collect();
            (median(&per_block), median(&ratios))
        };
        let (all, all_ratio) = of(|used| used.all.as_secs_f64());
        let (user, user_ratio) = of(|used| used.user.as_secs_f64());
        println!(
            "| {name} | {} | {} | {} | {all:.2} µs | {all_ratio:.3} | {user:.2} µs | {user_ratio:.3} |",
            arguments[1], arguments[3], target.name
        );
    }
}

/// Processor time of a proxy.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    all: Duration,
    /// In user mode, where the journal is written. The kernel counts it in steps of 10 ms.
    user: Duration,
}

fn run(rig: &Rig, target: &Target, arguments: &[&str]) -> Used {
    let pid = target.pid().expect("a proxy");
    let before = used(pid);
    let mut command = rig.postgres.command("pgbench");
    command.env("PGPORT", target.port.to_string()).arg("-n").args(arguments);
    let output = command.output().expect("pgbench");
    assert!(output.status.success(), "pgbench through {}: {}", target.name, String::from_utf8_lossy(&output.stderr));
    let after = used(pid);
    Used { all: after.all - before.all, user: after.user - before.user }
}

/// The sum over the threads: their time on a processor is counted in nanoseconds.
fn used(pid: u32) -> Used {
    let mut used = Used::default();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let first = |text: &str, at: usize| text.split_whitespace().nth(at)?.parse::<u64>().ok();
        used.all += Duration::from_nanos(first(&read("schedstat"), 0).unwrap_or_default());
        let stat = read("stat");
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        used.user += Duration::from_millis(10 * first(behind_name, 11).unwrap_or_default());
    }
    used
}
