//! The tools of the benches: a throw-away server, the proxies in front of it, each in a process of its own, and the system's
//! figures for a process.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each bench uses a part of this, and a failure is its end"
)]

#[path = "../../tests/common/mod.rs"]
pub mod common;
pub mod load;
pub mod silent;

use common::Client;
use pgsluice::dev::{Options, Postgres};
use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server, and what stands in front of it; the first is the server itself.
pub struct Rig {
    pub targets: Vec<Target>,
    pub postgres: Postgres,
    place: Place,
}

/// A way to the server.
pub struct Target {
    pub name: &'static str,
    pub port: u16,
    /// None: the server itself.
    process: Option<Child>,
}

impl Target {
    /// Whether this is a proxy, i.e. a process to look at.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Rig {
    /// The server, pgsluice, and PgBouncer and HAProxy if they are installed.
    pub fn start() -> Self {
        let mut rig = Self::alone(&[]);
        rig.targets.extend(rig.place.proxies(""));
        rig
    }

    /// The server and pgsluice.
    pub fn of_pgsluice() -> Self {
        Self::alone(&[]).with_pgsluice()
    }

    /// The same, with a server that survives a crash, as those do that are no throw-away ones: each commit waits for its disk.
    pub fn durable() -> Self {
        Self::alone(&[("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")]).with_pgsluice()
    }

    fn with_pgsluice(mut self) -> Self {
        self.pgsluice("pgsluice", "");
        self
    }

    fn alone(settings: &[(&str, &str)]) -> Self {
        let options = Options { max_connections: 2600, ..Options::default() }.setting("shared_buffers", "512MB");
        let options = settings.iter().fold(options, |options, (name, value)| options.setting(*name, *value));
        let postgres = Postgres::start(options).expect("a throw-away server");
        let place = Place::new(postgres.port, &postgres.user);
        let targets = vec![Target { name: "direct", port: postgres.port, process: None }];
        Self { targets, postgres, place }
    }

    /// A session that waits as long as it takes: a statement on millions of rows may need minutes.
    pub fn connect(&self, target: &Target) -> Client {
        let client = Client::connect(target.port, &self.postgres.user, "postgres");
        client.stream.set_read_timeout(None).expect("no timeout");
        client
    }

    pub fn target(&self, name: &str) -> &Target {
        self.targets.iter().find(|target| target.name == name).expect("a target")
    }

    /// A pgsluice, with `more` lines of `[proxy]`.
    pub fn pgsluice(&mut self, name: &'static str, more: &str) {
        self.targets.extend(self.place.pgsluice(name, more));
    }

    /// A pgsluice that is no target of the parts of a bench, with `more` lines of `[proxy]`, or sections behind it.
    pub fn another(&self, name: &'static str, more: &str) -> Option<Target> {
        self.place.pgsluice(name, more)
    }

    /// Another program of pgsluice, with `more` lines of `[proxy]`.
    pub fn program(&mut self, name: &'static str, program: &OsStr, more: &str) {
        self.targets.extend(self.place.program(name, program, more));
    }
}

/// Where proxies have their settings, and the server that they relay to.
pub struct Place {
    folder: PathBuf,
    server: u16,
    user: String,
}

impl Place {
    pub fn new(server: u16, user: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pgsluice-bench-{}-{server}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for settings");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder that others may read");
        Self { folder, server, user: user.to_owned() }
    }

    /// pgsluice with `more` lines of `[proxy]`, on io_uring if the system allows it and on epoll, and PgBouncer and HAProxy if they are installed.
    pub fn proxies(&self, more: &str) -> Vec<Target> {
        let epoll = self.pgsluice("pgsluice, epoll", &format!("{more}\nio = \"epoll\""));
        [self.pgsluice("pgsluice", more), epoll, self.pgbouncer(), self.haproxy()].into_iter().flatten().collect()
    }

    fn pgsluice(&self, name: &'static str, more: &str) -> Option<Target> {
        let program =
            std::env::var_os("PGSLUICE_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_pgsluice").into());
        self.program(name, &program, more)
    }

    fn program(&self, name: &'static str, program: &OsStr, more: &str) -> Option<Target> {
        let port = free_port();
        let settings = format!(
            "[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nbackend = \"127.0.0.1:{}\"\n{more}\n\
             [operator]\nuser = \"{}\"\ndbname = \"postgres\"\n",
            self.server, self.user
        );
        let path = self.settings(&format!("{name}.toml"), &settings);
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(path);
        self.start(name, port, &mut command)
    }

    fn pgbouncer(&self) -> Option<Target> {
        let port = free_port();
        let users = self.settings("users.txt", &format!("\"{}\" \"\"\n", self.user));
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = session\nmax_client_conn = {MOST}\n\
             default_pool_size = {MOST}\nignore_startup_parameters = extra_float_digits\n",
            self.server,
            users.display()
        );
        let path = self.settings("pgbouncer.ini", &settings);
        let mut command = Command::new(find("pgbouncer"));
        command.arg(path);
        // It does not run as root.
        if number("id", &["-u"]) == Some(0) {
            let user = ["postgres", "nobody"].into_iter().find_map(|user| {
                Some((number("id", &["-u", user])?, number("id", &["-g", user])?)) //
            });
            let (uid, gid) = user.expect("a user who is not root");
            command.uid(uid).gid(gid);
        }
        self.start("PgBouncer", port, &mut command)
    }

    fn haproxy(&self) -> Option<Target> {
        let port = free_port();
        let settings = format!(
            "global\n maxconn {MOST}\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
             frontend clients\n bind 127.0.0.1:{port}\n default_backend server\n\
             backend server\n server postgres 127.0.0.1:{}\n",
            self.server
        );
        let path = self.settings("haproxy.cfg", &settings);
        self.start("HAProxy", port, Command::new(find("haproxy")).arg("-db").arg("-f").arg(path))
    }

    fn settings(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a settings file");
        path
    }

    /// Starts a proxy and waits until it listens; one that is not installed is left out.
    fn start(&self, name: &'static str, port: u16, command: &mut Command) -> Option<Target> {
        let log = fs::File::create(self.folder.join(format!("{name}.log"))).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let Ok(process) = command.spawn() else {
            eprintln!("{name} is not installed, and is left out (scripts/setup.sh bench)");
            return None;
        };
        let target = Target { name, port, process: Some(process) };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(target);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        panic!("{name} does not listen: {log}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sessions that the other proxies are set up for.
const MOST: usize = 6000;

/// Runs this bench anew with as many open files as the system allows; what it starts inherits that.
pub fn allow_open_files() {
    const DONE: &str = "PGSLUICE_BENCH_OPEN_FILES";
    if std::env::var_os(DONE).is_none() {
        let mut again = Command::new("sh");
        again.args(["-c", "ulimit -S -n \"$(ulimit -H -n)\"; exec \"$0\" \"$@\""]);
        again.arg(std::env::current_exe().expect("this bench")).args(std::env::args_os().skip(1)).env(DONE, "yes");
        panic!("sh: {}", again.exec());
    }
}

/// A program on PATH, or where a distribution puts daemons.
fn find(program: &str) -> PathBuf {
    let daemons = Path::new("/usr/sbin").join(program);
    if daemons.is_file() { daemons } else { program.into() }
}

pub fn installed(program: &str) -> bool {
    output(Command::new(find(program)).arg("-V")).is_some()
}

fn number(program: &str, arguments: &[&str]) -> Option<u32> {
    output(Command::new(program).args(arguments))?.trim().parse().ok()
}

/// What a program says, if it can be run.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

/// CPU time that a process has used so far, user and system.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may have blanks: fields 3 and on; utime is 14, stime 15, in 1/100 s.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory of its own that a process has in RAM, in KiB: resident, less what is mapped from files.
pub fn resident(pid: u32) -> u64 {
    status(pid, "RssAnon:")
}

fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The most that a process ever had in RAM since [`forget_peak`], in KiB, with what is mapped from files.
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("/proc/PID/clear_refs");
}

/// The one in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that so many per cent are not above; of values in order.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share / 100.0) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A setting of the bench, from the environment.
pub fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What stood on the machine: results mean nothing without it.
pub fn versions() -> String {
    let first = |program: &str, argument: &str| {
        let said = output(Command::new(find(program)).arg(argument))?;
        said.lines().next().map(|line| format!("- {line}\n"))
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: unknown");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let mut text = format!("- {cores} cores, {model}\n- pgsluice {}\n", env!("CARGO_PKG_VERSION"));
    for (program, argument) in
        [("uname", "-sr"), ("pgbench", "--version"), ("pgbouncer", "--version"), ("haproxy", "-v"), ("strace", "-V")]
    {
        text.push_str(&first(program, argument).unwrap_or_default());
    }
    text
}
