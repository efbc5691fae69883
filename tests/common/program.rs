//! The program in a process of its own. A test can measure its resources, read its log, and survive its crash.

use super::{Client, wait_until};
use pgsluice::dev::Postgres;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Program {
    child: Child,
    folder: PathBuf,
    pub port: u16,
}

impl Program {
    pub fn start(postgres: &Postgres) -> Self {
        Self::with(postgres, "")
    }

    /// With these sections of `proxy.toml`, `[proxy]` left out.
    pub fn with(postgres: &Postgres, settings: &str) -> Self {
        Self::with_proxy(postgres, "", settings)
    }

    /// With these keys of `[proxy]`, and these other sections.
    pub fn with_proxy(postgres: &Postgres, proxy: &str, settings: &str) -> Self {
        Self::prepared(postgres, proxy, settings, |_| {})
    }

    /// In front of whatever listens on this port, with these sections of `proxy.toml`.
    pub fn before(backend: u16, settings: &str) -> Self {
        Self::started(backend, "", settings, |_| {})
    }

    /// As [`Self::with_proxy`], with something done to the command before it runs.
    pub fn prepared(postgres: &Postgres, proxy: &str, settings: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::started(postgres.port, proxy, settings, prepare)
    }

    fn started(backend: u16, proxy: &str, settings: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pgsluice-program-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let io = if proxy.contains("io = ") { String::new() } else { format!("io = \"{}\"\n", super::io()) };
        let own = format!("[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nbackend = \"127.0.0.1:{backend}\"\n{io}{proxy}\n");
        std::fs::write(folder.join("proxy.toml"), own + settings).expect("proxy.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.arg("run").arg("--config").arg(folder.join("proxy.toml"));
        prepare(&mut command);
        let log = File::create(folder.join("log")).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("pgsluice");
        let program = Self { child, folder, port };
        wait_until("the program listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        program
    }

    /// Resident memory, in kB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that was ever resident, in kB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    pub fn client(&self, user: &str, database: &str) -> Client {
        Client::connect(self.port, user, database)
    }

    /// Its file of settings.
    pub fn settings(&self) -> PathBuf {
        self.folder.join("proxy.toml")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8(std::fs::read(self.folder.join("log")).expect("a log")).expect("UTF-8")
    }

    /// Ends it as a crash would, at once.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("its end");
    }

    pub fn signal(&self, signal: &str) {
        super::signal(self.child.id(), signal);
    }

    /// Waits for its end, which a signal has asked for.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
