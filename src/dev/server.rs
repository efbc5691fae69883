//! A private, throw-away PostgreSQL for `dev`, `demo` and tests.
//!
//! The server lives in a fresh directory, listens on 127.0.0.1 and on a Unix socket in that directory, trusts everyone,
//! and gives up durability. The file is synchronous and needs no runtime.
//!
//! Invariant: the server never outlives this process, however the process ends. A watchdog (a small shell) holds the
//! reading end of a pipe whose writing end is this process's. On end of file it stops the server and removes the
//! directory.

use super::binaries::{Binaries, run};
use crate::pg::sqlstate;
use crate::report::Report;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest time for a start. A start takes 0.2 s on a fast machine, and longer on a loaded one.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time for a stop. An immediate shutdown takes milliseconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of ports to try. Another process may take a free port before the server does.
const PORT_ATTEMPTS: usize = 5;
const POLL: Duration = Duration::from_millis(10);

/// The watchdog's script. It waits for end of file or a line, stops the server (SIGQUIT: immediate shutdown), and removes
/// its directory.
const WATCHDOG: &str = r#"
read -r _
kill -QUIT "$1" 2>/dev/null
n=0
while kill -0 "$1" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
rm -rf -- "$2"
"#;

/// The options of a throw-away server.
#[derive(Debug, Clone)]
pub struct Options {
    pub max_connections: u32,
    /// The folder of the server's programs; `None` is the folder that `Binaries::find` returns.
    pub programs: Option<PathBuf>,
    /// Further lines of `postgresql.conf`. They override the built-in lines.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_connections: 200, programs: None, settings: Vec::new() }
    }
}

impl Options {
    /// Takes the server's programs from `folder`.
    pub fn programs(mut self, folder: impl Into<PathBuf>) -> Self {
        self.programs = Some(folder.into());
        self
    }

    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A running server. It is stopped and removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    pub host: String,
    pub port: u16,
    /// The superuser, who needs no password.
    pub user: String,
    pub socket_dir: PathBuf,
    pub data_dir: PathBuf,
    /// The major version, e.g. 15.
    pub version: u32,
    /// The process id of the postmaster.
    pub pid: u32,
    binaries: Binaries,
    server: Child,
    watchdog: Watchdog,
}

impl Postgres {
    /// Finds the binaries, makes a database cluster, starts it, and waits until it takes connections.
    pub fn start(options: Options) -> Result<Self, Report> {
        let binaries = Binaries::find(options.programs.as_deref())?;
        let folder = Folder::create(&binaries)?;
        let data_dir = folder.path.join("data");
        initdb(&binaries, &data_dir)?;
        write_settings(&data_dir, &folder.path, &options)?;
        Self::serve(binaries, folder, data_dir)
    }

    /// A streaming replica of this server, in a directory of its own.
    pub fn standby(&self, options: &Options) -> Result<Self, Report> {
        let binaries = self.binaries.clone();
        let folder = Folder::create(&binaries)?;
        let data_dir = folder.path.join("data");
        let mut copy = binaries.command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync", "--pgdata"]);
        copy.arg(&data_dir).args(["--host", &self.host, "--port", &self.port.to_string(), "--username", &self.user]);
        run(copy.env_remove("PGPASSWORD").env_remove("PGSERVICE"))?;
        write_settings(&data_dir, &folder.path, options)?;
        Self::serve(binaries, folder, data_dir)
    }

    /// Starts the server whose data are in the directory.
    fn serve(binaries: Binaries, folder: Folder, data_dir: PathBuf) -> Result<Self, Report> {
        let mut attempts = 0;
        let (server, watchdog, port) = loop {
            attempts += 1;
            let port = free_port().map_err(|error| failed(format!("could not find a free port: {error}")))?;
            let mut server = spawn(&binaries, &folder.path, port)?;
            let watchdog = Watchdog::start(server.id(), &folder.path)?;
            match wait_until_ready(&mut server, &folder.path) {
                Ok(()) => break (server, watchdog, port),
                Err(report) => {
                    watchdog.call_off();
                    let _ = server.kill();
                    let _ = server.wait();
                    if attempts == PORT_ATTEMPTS || !log(&folder.path).contains("in use") {
                        return Err(report);
                    }
                }
            }
        };
        let (pid, version) = (server.id(), binaries.version);
        let socket_dir = folder.keep();
        let host = "127.0.0.1".to_owned();
        let user = "postgres".to_owned();
        Ok(Self { host, port, user, socket_dir, data_dir, version, pid, binaries, server, watchdog })
    }

    /// A connection string for a database of this server.
    pub fn dsn(&self, dbname: &str) -> String {
        format!("host={} port={} user={} dbname={dbname}", self.host, self.port, self.user)
    }

    /// Whether [`Postgres::command`] can run the program. Some packages contain the server's own programs only.
    pub fn has(&self, program: &str) -> bool {
        self.binaries.folder.join(program).is_file()
    }

    /// `psql`, `pg_dump`, `pgbench` … of this server's version, connected to it by its environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.folder.join(program));
        command.env("PGHOST", &self.host).env("PGPORT", self.port.to_string()).env("PGUSER", &self.user);
        command.env("PGDATABASE", "postgres").env_remove("PGPASSWORD").env_remove("PGSERVICE");
        command
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        log(&self.socket_dir)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.watchdog.bark();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.server.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        // Only a server that ignored SIGQUIT still runs. The errors of a dead child do not matter.
        let _ = self.server.kill();
        let _ = self.server.wait();
        self.watchdog.wait();
        let _ = fs::remove_dir_all(&self.socket_dir);
    }
}

/// The shell process that stops the server when this process ends.
#[derive(Debug)]
struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn start(pid: u32, folder: &Path) -> Result<Self, Report> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "pgsluice-watchdog"]).arg(pid.to_string()).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // The watchdog has a process group of its own: Ctrl-C must not reach it, since it must outlive this process to clean
        // up.
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("could not run sh to watch over the server: {error}")))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Makes the watchdog stop the server.
    fn bark(&mut self) {
        self.pipe = None;
    }

    fn wait(&mut self) {
        let _ = self.child.wait();
    }

    /// Ends the watchdog without its work: the server has stopped, and its directory is still needed.
    fn call_off(mut self) {
        let _ = self.child.kill();
        self.wait();
    }
}

/// The server's directory until the watchdog takes over. It is removed when dropped.
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn create(binaries: &Binaries) -> Result<Self, Report> {
        let random = RandomState::new().build_hasher().finish();
        let path = std::env::temp_dir().join(format!("pgsluice-{}-{:08x}", std::process::id(), random & 0xffff_ffff));
        let failed = |error: io::Error| failed(format!("could not create the directory {}: {error}", path.display()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let folder = Self { path: path.clone(), kept: false };
        if let Some(user) = &binaries.run_as {
            chown(&path, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        Ok(folder)
    }

    fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn initdb(binaries: &Binaries, data_dir: &Path) -> Result<(), Report> {
    let mut tried = Err(failed("initdb was not run"));
    // C.UTF-8 sorts as C and knows letters beyond ASCII. Some systems lack it.
    for locale in ["--locale=C.UTF-8", "--locale=C"] {
        let mut command = binaries.command("initdb");
        command.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", locale, "--pgdata"]);
        tried = run(command.arg(data_dir));
        if tried.is_ok() {
            break;
        }
    }
    tried.map(drop)
}

fn write_settings(data_dir: &Path, socket_dir: &Path, options: &Options) -> Result<(), Report> {
    let ours = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("unix_socket_directories", socket_dir.display().to_string()),
        ("max_connections", options.max_connections.to_string()),
        // The database is thrown away, so it need not survive a crash.
        ("fsync", "off".to_owned()),
        ("synchronous_commit", "off".to_owned()),
        ("full_page_writes", "off".to_owned()),
        // No checkpoint starts during a measurement.
        ("checkpoint_timeout", "1h".to_owned()),
        ("max_wal_size", "4GB".to_owned()),
        ("log_line_prefix", "%m [%p] ".to_owned()),
    ];
    let mut lines = String::new();
    let ours = ours.iter().map(|(name, value)| (*name, value.as_str()));
    let theirs = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in ours.chain(theirs) {
        lines.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    let path = data_dir.join("postgresql.conf");
    let written = fs::read_to_string(&path).and_then(|defaults| fs::write(&path, defaults + &lines));
    written.map_err(|error| failed(format!("could not write the settings of the server: {error}")))
}

fn spawn(binaries: &Binaries, folder: &Path, port: u16) -> Result<Child, Report> {
    let log =
        fs::File::create(folder.join("log")).map_err(|error| failed(format!("could not create a log: {error}")))?;
    let also = log.try_clone().map_err(|error| failed(format!("could not create a log: {error}")))?;
    let mut command = binaries.command("postgres");
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
    command.stdin(Stdio::null()).stdout(log).stderr(also).process_group(0);
    command.spawn().map_err(|error| failed(format!("could not run postgres: {error}")))
}

/// Waits until the server is ready. The postmaster writes `ready` into its lock file, which pg_ctl waits for too.
fn wait_until_ready(server: &mut Child, folder: &Path) -> Result<(), Report> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let pid_file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
        if pid_file.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
            return Ok(());
        }
        let ended = !matches!(server.try_wait(), Ok(None));
        if ended || Instant::now() >= deadline {
            return Err(failed("the server did not start").detail(log(folder)));
        }
        std::thread::sleep(POLL);
    }
}

/// A port that nobody listens on now.
pub(super) fn free_port() -> io::Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr().map(|address| address.port())
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn failed(message: impl Into<String>) -> Report {
    Report::error(sqlstate::CONNECTION_FAILURE, message)
}
