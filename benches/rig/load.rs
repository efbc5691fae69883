//! The load of an application, made by pgbench: short statements by key at a fixed rate, each a query of its own, and the
//! delay of each one.
//!
//! pgbench plans when each statement is due (an open loop) and counts the delay from then. A session that stands in a lock
//! queue therefore delays the statements behind it too, as users of a real application would notice.

use super::Rig;
use super::common::Client;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const SESSIONS: u32 = 8;

/// Of ten statements so many are of this kind. The table is the bench's, with rows 1 to `rows`.
const SCRIPTS: [(u32, &str); 3] = [
    (6, "\\set id random(1, :rows)\nSELECT total FROM orders WHERE id = :id;\n"),
    (3, "\\set id random(1, :rows)\nUPDATE orders SET total = total + 1 WHERE id = :id;\n"),
    (
        1,
        "\\set customer random(1, :customers)\nINSERT INTO orders (customer, total, note) VALUES (:customer, 1, 'new');\n",
    ),
];

/// Behind the last statement that counts, so that none of those is still under way when pgbench is ended.
const BEHIND: Duration = Duration::from_millis(500);
/// How long what is overdue may take. More was never seen, and the bench is to end.
const PATIENCE: Duration = Duration::from_secs(600);

/// pgbench, from [`Load::start`] to [`Load::finish`].
pub struct Load {
    process: Child,
    folder: PathBuf,
}

/// A statement of the application's.
#[derive(Debug, Clone, Copy)]
struct Query {
    /// When it was due.
    due: Duration,
    /// From then to its end.
    delay: Duration,
}

/// What the application's users felt of those statements that were due within some time.
#[derive(Debug, Clone, Default)]
pub struct Felt {
    /// Milliseconds, in order.
    pub delays: Vec<f64>,
    /// Sessions that ended with an error: pgbench ends a session whose statement fails.
    pub failed: usize,
}

impl Felt {
    /// Statements that came later than this.
    pub fn later_than(&self, limit: Duration) -> usize {
        self.delays.iter().filter(|delay| **delay > limit.as_secs_f64() * 1000.0).count()
    }

    pub fn percentile(&self, share: f64) -> f64 {
        super::percentile(&self.delays, share)
    }
}

/// On pgbench's clock, which is the system's.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

impl Load {
    /// Statements at `rate` per second, in all, through this port.
    pub fn start(rig: &Rig, port: u16, rate: u32, sizes: [(&str, u32); 2]) -> Self {
        let folder = std::env::temp_dir().join(format!("pgsluice-bench-{}-load", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for pgbench");
        let mut command = rig.postgres.command("pgbench");
        command.env("PGPORT", port.to_string()).env("PGAPPNAME", "load").current_dir(&folder);
        command.args(["-n", "-M", "prepared", "-T", "86400", "--log", "--log-prefix=log"]);
        command.args(["-c", &SESSIONS.to_string(), "-R", &rate.to_string()]);
        for (name, size) in sizes {
            command.args(["-D", &format!("{name}={size}")]);
        }
        for (number, (weight, script)) in SCRIPTS.iter().enumerate() {
            fs::write(folder.join(format!("{number}.sql")), script).expect("a script");
            command.args(["-f", &format!("{number}.sql@{weight}")]);
        }
        let process = said_to(&folder, &mut command).spawn().expect("pgbench");
        let load = Self { process, folder };
        load.wait_for("it works", || load.queries().len() > rate as usize);
        load
    }

    /// Does something meanwhile; gives what the application felt of it, and how long it took.
    pub fn finish(mut self, rig: &Rig, meanwhile: impl FnOnce()) -> (Felt, Duration) {
        let begun = now();
        meanwhile();
        let ended = now();
        // What is overdue comes first: all that was due meanwhile has been done when one is that was due later.
        self.wait_for("what is overdue is done", || {
            self.queries().last().is_some_and(|query| query.due > ended + BEHIND) || self.failed() > 0
        });
        let failed = self.failed();
        let mut admin = Client::connect(rig.postgres.port, &rig.postgres.user, "postgres");
        // pgbench knows no other end than this on which it writes all that it has logged.
        admin.ok("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'load'");
        let _ = self.process.wait();
        let within = |query: &Query| query.due >= begun && query.due < ended;
        let delays = self.queries().into_iter().filter(within).map(|query| query.delay.as_secs_f64() * 1000.0);
        let mut delays: Vec<f64> = delays.collect();
        delays.sort_by(f64::total_cmp);
        (Felt { delays, failed }, ended - begun)
    }

    fn wait_for(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !reached() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("said")).unwrap_or_default()
    }

    fn failed(&self) -> usize {
        self.said().lines().filter(|line| line.contains(" aborted")).count()
    }

    /// What pgbench has logged so far: session, number, microseconds, script, second and microsecond of its end, lag.
    fn queries(&self) -> Vec<Query> {
        let log = fs::read_to_string(self.folder.join(format!("log.{}", self.process.id()))).unwrap_or_default();
        // The last line may be half a line.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| query(line).unwrap_or_else(|| panic!("pgbench logged {line:?}"))).collect()
    }
}

fn query(line: &str) -> Option<Query> {
    let fields: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_, _, delay, _, seconds, microseconds, _] = fields[..] else { return None };
    let (delay, end) = (Duration::from_micros(delay), Duration::new(seconds, 0) + Duration::from_micros(microseconds));
    Some(Query { due: end - delay, delay })
}

/// All that it says goes into one file.
fn said_to<'a>(folder: &std::path::Path, command: &'a mut Command) -> &'a mut Command {
    let said = fs::File::create(folder.join("said")).expect("a file for what pgbench says");
    command.stdin(Stdio::null()).stdout(said.try_clone().expect("a file")).stderr(said)
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
