//! What the benches measure with: a throw-away server, the proxies in front of it, each a process of
//! its own, and what the system says of a process.

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

use pgsluice::dev::{Options, Postgres};
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
    folder: PathBuf,
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

impl Rig {
    /// The server, pgsluice, and PgBouncer and HAProxy if they are installed.
    pub fn start() -> Self {
        let options = Options { max_connections: 2600, ..Options::default() };
        let postgres = Postgres::start(options.setting("shared_buffers", "512MB")).expect("a throw-away server");
        let folder = std::env::temp_dir().join(format!("pgsluice-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for settings");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder that others may read");
        let server = Target { name: "direct", port: postgres.port, process: None };
        let mut rig = Self { targets: vec![server], postgres, folder };
        rig.pgsluice("pgsluice", "");
        rig.pgsluice("pgsluice, epoll", "io = \"epoll\"");
        rig.pgbouncer();
        rig.haproxy();
        rig
    }

    pub fn target(&self, name: &str) -> &Target {
        self.targets.iter().find(|target| target.name == name).expect("a target")
    }

    /// A pgsluice, with `more` lines of `[proxy]`.
    pub fn pgsluice(&mut self, name: &'static str, more: &str) {
        let port = free_port();
        let settings = format!(
            "[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nbackend = \"127.0.0.1:{}\"\n{more}\n\
             [operator]\nuser = \"{}\"\ndbname = \"postgres\"\n",
            self.postgres.port, self.postgres.user
        );
        let path = self.settings(&format!("{name}.toml"), &settings);
        let program =
            std::env::var_os("PGSLUICE_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_pgsluice").into());
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(path);
        self.add(name, port, &mut command);
    }

    fn pgbouncer(&mut self) {
        let port = free_port();
        let users = self.settings("users.txt", &format!("\"{}\" \"\"\n", self.postgres.user));
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = session\nmax_client_conn = 2000\n\
             default_pool_size = 1100\nignore_startup_parameters = extra_float_digits\n",
            self.postgres.port,
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
        self.add("PgBouncer", port, &mut command);
    }

    fn haproxy(&mut self) {
        let port = free_port();
        let settings = format!(
            "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
             frontend clients\n bind 127.0.0.1:{port}\n default_backend server\n\
             backend server\n server postgres 127.0.0.1:{}\n",
            self.postgres.port
        );
        let path = self.settings("haproxy.cfg", &settings);
        self.add("HAProxy", port, Command::new(find("haproxy")).arg("-db").arg("-f").arg(path));
    }

    fn settings(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a settings file");
        path
    }

    /// Starts a proxy and waits until it listens; one that is not installed is left out.
    fn add(&mut self, name: &'static str, port: u16, command: &mut Command) {
        let log = fs::File::create(self.folder.join(format!("{name}.log"))).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let Ok(process) = command.spawn() else {
            eprintln!("{name} is not installed, and is left out (scripts/setup.sh bench)");
            return;
        };
        self.targets.push(Target { name, port, process: Some(process) });
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        panic!("{name} does not listen: {log}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for target in &mut self.targets {
            if let Some(process) = &mut target.process {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
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

fn free_port() -> u16 {
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
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The one in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
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
