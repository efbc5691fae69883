//! The relay beside the server itself, PgBouncer (session pooling) and HAProxy (TCP).
//!
//! All of them are measured in one run and in turns, since only ratios mean something. The parts are throughput, latency and
//! CPU time of pgbench's selects, the same while the proxy is scraped and reloaded (`beside`), system calls per query, memory per idle
//! pair of connections, connections per second, and COPY of a gibibyte each way.
//!
//! The bench prints Markdown. Arguments select the parts to run. `PGSLUICE_BENCH_ROUNDS` (3) and `PGSLUICE_BENCH_SECONDS`
//! (3) set how long it measures.

mod rig;

use rig::common::Client;
use rig::{Place, Rig, Target, cpu, median, resident, setting};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Part = (&'static str, fn(&Rig));

/// The idle clients come last: PgBouncer keeps their connections to the server, which weigh on it.
const PARTS: [Part; 8] = [
    ("select", selects),
    ("beside", beside),
    ("calls", system_calls),
    ("connect", connects),
    ("copy", copies),
    ("gibibyte", gibibyte),
    ("idle", idle),
    ("many", many),
];

fn main() {
    rig::allow_open_files();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut rig = Rig::start();
    let initialised = rig.postgres.command("pgbench").args(["-i", "-q", "-s", "5"]).stderr(Stdio::null()).status();
    assert!(initialised.is_ok_and(|status| status.success()), "pgbench -i");
    // PgBouncer has one thread; the others have one per core.
    rig.pgsluice("pgsluice, 1 worker", "workers = 1");
    // What io_uring brings.
    rig.pgsluice("pgsluice, epoll", "io = \"epoll\"");
    println!("Versions:\n\n{}- {}", rig::versions(), version(&rig));
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part(&rig);
        }
    }
}

fn version(rig: &Rig) -> String {
    let said = rig.postgres.command("postgres").arg("--version").output().expect("postgres --version");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// What one run of pgbench said, and what the proxy used meanwhile.
#[derive(Debug, Default)]
struct Run {
    tps: f64,
    /// Milliseconds.
    latency: f64,
    transactions: f64,
    cpu: Duration,
}

fn pgbench(rig: &Rig, target: &Target, arguments: &[&str]) -> Run {
    let before = target.pid().map(cpu).unwrap_or_default();
    let mut command = rig.postgres.command("pgbench");
    command.env("PGPORT", target.port.to_string()).args(["-n", "-S"]).args(arguments);
    let output = command.output().expect("pgbench");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "pgbench through {}: {}", target.name, String::from_utf8_lossy(&output.stderr));
    let number = |start: &str| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default();
        line.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap_or(f64::NAN)
    };
    Run {
        tps: number("tps = "),
        latency: number("latency average = "),
        transactions: number("number of transactions actually processed: "),
        cpu: target.pid().map(cpu).unwrap_or_default() - before,
    }
}

/// `rounds` runs of each target, in turns; each round begins with another one.
fn in_turns<T>(rig: &Rig, rounds: u32, mut run: impl FnMut(&Target) -> T) -> Vec<Vec<T>> {
    let count = rig.targets.len();
    let mut runs: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for n in 0..count {
            let at = (round + n) % count;
            runs[at].push(run(&rig.targets[at]));
        }
    }
    runs
}

fn selects(rig: &Rig) {
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 3);
    let seconds = setting("PGSLUICE_BENCH_SECONDS", 3).to_string();
    println!("\n## pgbench, select only\n\nMedians of {rounds} rounds of {seconds} s each, in turns.\n");
    println!("| protocol | clients | through | queries/s | of direct | pgsluice is | latency | CPU per query |");
    println!("|---|--:|---|--:|--:|--:|--:|--:|");
    for protocol in ["simple", "extended", "prepared"] {
        for (clients, threads) in [("1", "1"), ("16", "2"), ("64", "2")] {
            let arguments = ["-M", protocol, "-c", clients, "-j", threads, "-T", &seconds];
            let runs = in_turns(rig, rounds, |target| pgbench(rig, target, &arguments));
            let tps: Vec<f64> =
                runs.iter().map(|runs| median(&runs.iter().map(|r| r.tps).collect::<Vec<_>>())).collect();
            for (at, target) in rig.targets.iter().enumerate() {
                let of = |value: fn(&Run) -> f64| median(&runs[at].iter().map(value).collect::<Vec<_>>());
                let latency = of(|run| run.latency * 1000.0);
                let used = of(|run| run.cpu.as_secs_f64() * 1e6 / run.transactions);
                let used = if target.pid().is_some() { format!("{used:.1} µs") } else { String::new() };
                // Round by round, as a neighbour's load comes and goes.
                let against: Vec<f64> = runs[1].iter().zip(&runs[at]).map(|(ours, its)| ours.tps / its.tps).collect();
                let against = if at == 1 { String::new() } else { format!("{:.2}×", median(&against)) };
                println!(
                    "| {protocol} | {clients} | {} | {:.0} | {:.2} | {against} | {latency:.0} µs | {used} |",
                    target.name,
                    tps[at],
                    tps[at] / tps[0],
                );
            }
        }
    }
}

/// What monitoring and operators cost those who are relayed: `/metrics` is read every 100 ms, and the settings are read anew every second.
fn beside(rig: &Rig) {
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 3);
    let seconds = setting("PGSLUICE_BENCH_SECONDS", 3).to_string();
    let port = rig::free_port();
    let target =
        rig.another("pgsluice, watched", &format!("[metrics]\nlisten = \"127.0.0.1:{port}\"")).expect("pgsluice");
    let clients = ["-M", "simple", "-c", "16", "-j", "2", "-T", &seconds];
    println!(
        "\n## Beside monitoring and RELOAD\n\npgbench, select only, simple protocol, 16 clients; medians of {rounds} rounds of {seconds} s each, in turns.\n"
    );
    println!(
        "| beside | queries/s | of alone | latency | CPU per query | scrapes | reloads |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    let mut runs: [Vec<(Run, [usize; 2])>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        runs[0].push((pgbench(rig, &target, &clients), [0, 0]));
        runs[1].push(watched(&target, port, || pgbench(rig, &target, &clients)));
    }
    let of = |runs: &[(Run, [usize; 2])], value: fn(&Run) -> f64| {
        median(&runs.iter().map(|(run, _)| value(run)).collect::<Vec<_>>())
    };
    let alone = of(&runs[0], |run| run.tps);
    for (name, runs) in ["nothing", "scrapes and reloads"].into_iter().zip(&runs) {
        let (tps, latency) = (of(runs, |run| run.tps), of(runs, |run| run.latency * 1000.0));
        let used = of(runs, |run| run.cpu.as_secs_f64() * 1e6 / run.transactions);
        let count = |at: usize| runs.iter().map(|(_, counts)| counts[at]).sum::<usize>();
        println!(
            "| {name} | {tps:.0} | {:.2} | {latency:.0} µs | {used:.1} µs | {} | {} |",
            tps / alone,
            count(0),
            count(1)
        );
    }
}

/// Runs something while the proxy is scraped and reloaded, and gives the numbers of both.
fn watched(target: &Target, port: u16, run: impl FnOnce() -> Run) -> (Run, [usize; 2]) {
    let pid = target.pid().expect("a proxy").to_string();
    let over = AtomicBool::new(false);
    let repeat = |every: Duration, act: &dyn Fn()| {
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            act();
            count += 1;
            std::thread::sleep(every);
        }
        count
    };
    std::thread::scope(|scope| {
        let scrapes = scope.spawn(|| repeat(Duration::from_millis(100), &|| scrape(port)));
        let reloads = scope.spawn(|| {
            repeat(Duration::from_secs(1), &|| {
                let said = Command::new("kill").args(["-HUP", &pid]).status();
                assert!(said.is_ok_and(|status| status.success()), "kill -HUP");
            })
        });
        let run = run();
        over.store(true, Ordering::Relaxed);
        (run, [scrapes.join().expect("scrapes"), reloads.join().expect("reloads")])
    })
}

/// Reads `/metrics` once.
fn scrape(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the address for monitoring");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// Counted twice, with few queries and with many: the difference is what a query costs.
fn system_calls(rig: &Rig) {
    println!("\n## System calls per query, one client\n");
    if !rig::installed("strace") {
        println!("strace is not installed.");
        return;
    }
    println!("| protocol | through | calls per query | of these |\n|---|---|--:|---|");
    for protocol in ["simple", "prepared"] {
        for target in rig.targets.iter().filter(|target| target.pid().is_some()) {
            let (few, many) = (traced(rig, target, protocol, 500), traced(rig, target, protocol, 2500));
            let mut names: Vec<(f64, f64, &str)> = many
                .iter()
                .map(|(name, calls, errors)| {
                    let (calls_before, errors_before) =
                        few.iter().find(|(n, ..)| n == name).map_or((0.0, 0.0), |(_, calls, errors)| (*calls, *errors));
                    ((calls - calls_before) / 2000.0, (errors - errors_before) / 2000.0, name.as_str())
                })
                .collect();
            names.sort_by(|a, b| b.0.total_cmp(&a.0));
            let total: f64 = names.iter().map(|(calls, ..)| calls).sum();
            let errors: f64 = names.iter().map(|(_, errors, _)| errors).sum();
            let list: Vec<String> = names
                .iter()
                .filter(|(calls, ..)| *calls >= 0.005)
                .map(|(calls, _, name)| format!("{name} {calls:.2}"))
                .collect();
            println!("| {protocol} | {} | {total:.2} | {} (failed: {errors:.2}) |", target.name, list.join(", "));
        }
    }
}

/// Name, calls and failed calls of a proxy while it relays `queries`.
fn traced(rig: &Rig, target: &Target, protocol: &str, queries: u32) -> Vec<(String, f64, f64)> {
    let pid = target.pid().expect("a proxy").to_string();
    let path = std::env::temp_dir().join(format!("pgsluice-strace-{pid}"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-qq", "-U", "name,calls,errors", "-p", &pid, "-o"]).arg(&path);
    let mut strace = strace.stderr(Stdio::null()).spawn().expect("strace");
    std::thread::sleep(Duration::from_millis(500));
    pgbench(rig, target, &["-M", protocol, "-c", "1", "-t", &queries.to_string()]);
    let interrupted = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
    assert!(interrupted.is_ok_and(|status| status.success()), "kill -INT strace");
    strace.wait().expect("strace's end");
    let table = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    let rows = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls = words.get(1)?.parse().ok()?;
        let errors = words.get(2).and_then(|word| word.parse().ok()).unwrap_or(0.0);
        (words[0] != "total").then(|| (words[0].to_owned(), calls, errors))
    });
    rows.collect()
}

const IDLE: usize = 1000;

/// Each has asked once, so that PgBouncer gives it a server connection too.
fn idle(rig: &Rig) {
    println!(
        "\n## Memory per idle pair\n\nAnonymous memory in RAM, before and after {IDLE} clients that have asked one query each.\n"
    );
    println!("{IDLE_HEAD}");
    // PgBouncer keeps its connections to the server, so the server has room for all proxies' at once.
    for target in rig.targets.iter().filter(|target| target.pid().is_some()) {
        idle_pairs(target, IDLE, &rig.postgres.user);
    }
}

const IDLE_HEAD: &str = "| through | before | after | per pair | after they left |\n|---|--:|--:|--:|--:|";

fn idle_pairs(target: &Target, count: usize, user: &str) {
    let pid = target.pid().expect("a proxy");
    let connect = || Client::connect(target.port, user, "postgres");
    drop(connect());
    std::thread::sleep(Duration::from_millis(200));
    let before = resident(pid);
    let mut clients: Vec<Client> = (0..count).map(|_| connect()).collect();
    for client in &mut clients {
        client.ok("SELECT 1");
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = resident(pid);
    drop(clients);
    std::thread::sleep(Duration::from_millis(1500));
    let left = resident(pid);
    let per_pair = (after as f64 - before as f64) / count as f64;
    println!("| {} | {before} KiB | {after} KiB | {per_pair:.1} KiB | {left} KiB |", target.name);
}

/// The same with more sessions than a server here could have backends: a stand-in answers for them.
fn many(rig: &Rig) {
    let pairs = setting("PGSLUICE_BENCH_PAIRS", 5000) as usize;
    println!(
        "\n## Memory per idle pair, {pairs} of them\n\nThe server is a stand-in that answers a login and one query, and \
         is silent (`benches/rig/silent.rs`). Each proxy is a fresh process.\n\n{IDLE_HEAD}"
    );
    let place = Place::new(rig::silent::start(), &rig.postgres.user);
    for target in place.proxies("") {
        idle_pairs(&target, pairs, &rig.postgres.user);
    }
}

fn connects(rig: &Rig) {
    println!(
        "\n## A new connection for each query (pgbench -C)\n\nPgBouncer keeps its server connections and reuses them; the others open one for each client.\n"
    );
    println!("| clients | through | connections/s | of direct |\n|--:|---|--:|--:|");
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 3);
    let seconds = setting("PGSLUICE_BENCH_SECONDS", 3).to_string();
    for clients in ["1", "16"] {
        let arguments = ["-C", "-c", clients, "-j", "1", "-T", &seconds];
        let runs = in_turns(rig, rounds, |target| pgbench(rig, target, &arguments).tps);
        let direct = median(&runs[0]);
        for (target, tps) in rig.targets.iter().zip(&runs) {
            println!("| {clients} | {} | {:.0} | {:.2} |", target.name, median(tps), median(tps) / direct);
        }
    }
}

const ROWS: usize = 1_500_000;

fn copies(rig: &Rig) {
    let mut admin = Client::connect(rig.postgres.port, &rig.postgres.user, "postgres");
    let row = "repeat(md5(g::text), 4)";
    admin.ok(&format!("CREATE UNLOGGED TABLE big AS SELECT g AS id, {row} AS v FROM generate_series(1, {ROWS}) g"));
    admin.ok("CREATE UNLOGGED TABLE into_big (LIKE big)");
    let rounds = setting("PGSLUICE_BENCH_ROUNDS", 3);
    println!(
        "\n## COPY of some 200 MB\n\n| direction | through | MB/s | of direct | CPU per MB |\n|---|---|--:|--:|--:|"
    );
    for (direction, copy) in [("out", copy_out as fn(&mut Client) -> usize), ("in", copy_in)] {
        let runs = in_turns(rig, rounds, |target| {
            admin.ok("TRUNCATE into_big");
            let mut client = Client::connect(target.port, &rig.postgres.user, "postgres");
            let (begun, used) = (Instant::now(), target.pid().map(cpu).unwrap_or_default());
            let megabytes = copy(&mut client) as f64 / 1e6;
            let used = target.pid().map(cpu).unwrap_or_default() - used;
            (megabytes / begun.elapsed().as_secs_f64(), used.as_secs_f64() * 1e6 / megabytes)
        });
        let rate = |at: usize| median(&runs[at].iter().map(|run| run.0).collect::<Vec<_>>());
        for (at, target) in rig.targets.iter().enumerate() {
            let used = median(&runs[at].iter().map(|run| run.1).collect::<Vec<_>>());
            let used = if target.pid().is_some() { format!("{used:.0} µs") } else { String::new() };
            println!("| {direction} | {} | {:.0} | {:.2} | {used} |", target.name, rate(at), rate(at) / rate(0));
        }
    }
}

/// Moves rows and gives the bytes.
type Transfer<'a> = &'a dyn Fn(&mut Client) -> usize;

/// How fast a gibibyte goes each way, and what the proxy needs for it: no more than for a megabyte.
fn gibibyte(rig: &Rig) {
    const ROWS: usize = 1 << 20;
    let mut admin = Client::connect(rig.postgres.port, &rig.postgres.user, "postgres");
    admin.ok("CREATE UNLOGGED TABLE gibibyte (v text)");
    println!(
        "\n## A gibibyte\n\nIn: COPY FROM STDIN. Out: the result of a SELECT. Memory with what is mapped from files, and its peak meanwhile.\n\n\
         | direction | through | MB/s | of direct | CPU per MB | memory before | peak |\n|---|---|--:|--:|--:|--:|--:|"
    );
    let select = format!("SELECT repeat('x', 1013) FROM generate_series(1, {ROWS})");
    let ways: [(&str, Transfer<'_>); 2] = [
        ("in", &|client| send_rows(client, "gibibyte", &format!("{}\n", "x".repeat(1018)), ROWS)),
        ("out", &|client| read_all(client, &select)),
    ];
    for (direction, way) in ways {
        let mut direct = f64::NAN;
        // One worker is for short queries.
        for target in rig.targets.iter().filter(|target| target.name != "pgsluice, 1 worker") {
            admin.ok("TRUNCATE gibibyte");
            let mut client = Client::connect(target.port, &rig.postgres.user, "postgres");
            let before = target.pid().map(|pid| {
                rig::forget_peak(pid);
                (rig::peak(pid), cpu(pid))
            });
            let begun = Instant::now();
            let bytes = way(&mut client);
            assert!(bytes >= 1 << 30, "{bytes} bytes");
            let megabytes = bytes as f64 / 1e6;
            let rate = megabytes / begun.elapsed().as_secs_f64();
            if before.is_none() {
                direct = rate;
            }
            let used = target.pid().zip(before).map_or_else(
                || "| |".to_owned(),
                |(pid, (before, used))| {
                    let used = (cpu(pid) - used).as_secs_f64() * 1e6 / megabytes;
                    format!("{used:.0} µs | {before} KiB | {} KiB", rig::peak(pid))
                },
            );
            println!("| {direction} | {} | {rate:.0} | {:.2} | {used} |", target.name, rate / direct);
        }
    }
    admin.ok("DROP TABLE gibibyte");
}

fn copy_out(client: &mut Client) -> usize {
    read_all(client, "COPY big TO STDOUT")
}

/// Reads it all and looks at nothing but the end; gives the bytes.
fn read_all(client: &mut Client, sql: &str) -> usize {
    client.send_query(sql);
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let n = client.stream.read(&mut buffer).expect("data");
        total += n;
        // CommandComplete and ReadyForQuery come last, and alone are not data.
        if n == 0 || buffer[..n].ends_with(&[b'Z', 0, 0, 0, 5, b'I']) {
            return total;
        }
    }
}

fn copy_in(client: &mut Client) -> usize {
    let row = format!("1234567\t{}\n", "0123456789abcdef".repeat(8));
    send_rows(client, "into_big", &row, ROWS)
}

/// Sends one CopyData per row, as psql does, in large writes; gives the bytes.
fn send_rows(client: &mut Client, table: &str, row: &str, count: usize) -> usize {
    client.send_query(&format!("COPY {table} FROM STDIN"));
    while client.read().tag != b'G' {}
    let mut frame = vec![b'd'];
    frame.extend((row.len() as u32 + 4).to_be_bytes());
    frame.extend(row.as_bytes());
    let rows = (60_000 / frame.len()).max(1);
    let block = frame.repeat(rows);
    for _ in 0..count.div_ceil(rows) {
        client.stream.write_all(&block).expect("send");
    }
    client.send(&[b'c', 0, 0, 0, 4]);
    assert_eq!(client.outcome().error, None);
    count.div_ceil(rows) * block.len()
}
