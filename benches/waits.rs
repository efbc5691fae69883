//! The cost, for the server, of schema changes that wait. In one case all sessions want the same locked table, and one of
//! them is first in the table's lane. In the other case each session wants a table of its own.
//!
//! The cost is the processor time of the server's processes, as the kernel counts it. The bench prints Markdown.

mod rig;

use rig::common::{Client, wait_until};
use rig::{Rig, cpu, setting};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Until the naps of those who wait have the length that they keep.
const SETTLING: Duration = Duration::from_secs(10);

fn main() {
    rig::allow_open_files();
    let rig = Rig::of_pgsluice();
    let seconds = setting("PGSLUICE_BENCH_SECONDS", 10);
    println!("{}", rig::versions());
    println!(
        "| sessions that wait | for | the server's processor time, of one core | of one session | all done after |"
    );
    println!("|--:|---|--:|--:|--:|");
    for count in [10, 100, 500] {
        measure(&rig, count, false, seconds);
    }
    for count in [10, 100] {
        measure(&rig, count, true, seconds);
    }
}

/// `each`: a table of its own.
fn measure(rig: &Rig, count: usize, each: bool, seconds: u32) {
    let table = |number: usize| if each { format!("t{number}") } else { "t0".to_owned() };
    let mut holder = rig.connect(rig.target("direct"));
    let tables: Vec<String> = (0..if each { count } else { 1 }).map(table).collect();
    for table in &tables {
        holder.ok(&format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int)"));
    }
    holder.ok("BEGIN");
    for table in &tables {
        holder.ok(&format!("SELECT * FROM {table}"));
    }
    let mut clients: Vec<Client> = (0..count).map(|_| rig.connect(rig.target("pgsluice"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_query(&format!("ALTER TABLE {} ADD COLUMN c{number} int", table(number)));
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname = current_database()";
    let mut watcher = rig.connect(rig.target("direct"));
    // Between two statements a session may be seen at none.
    wait_until("they wait", || watcher.value(waiting).parse::<usize>().is_ok_and(|seen| seen * 10 >= count * 7));
    thread::sleep(SETTLING);
    let (begun, before) = (Instant::now(), server_time(rig));
    thread::sleep(Duration::from_secs(u64::from(seconds)));
    let share = (server_time(rig) - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let begun = Instant::now();
    holder.ok("COMMIT");
    for client in &mut clients {
        assert_eq!(client.outcome().error, None);
    }
    println!(
        "| {count} | {} | {share:.1} % | {:.2} % | {:.1} s |",
        if each { "a table each" } else { "one table" },
        share / count as f64,
        begun.elapsed().as_secs_f64()
    );
}

/// Of the postmaster's children that there are: none ends meanwhile.
fn server_time(rig: &Rig) -> Duration {
    let parent = rig.postgres.pid.to_string();
    let is_child =
        |stat: &str| stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(&parent);
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat)));
    children.map(cpu).sum()
}
