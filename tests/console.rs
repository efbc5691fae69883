//! The console, by the clients that people use: who may come in, what it shows, what its verbs do, and what it does with input of any kind.
//!
//! Most tests have a proxy without a server behind it: the console needs none.

mod common;
#[path = "console/catalogs.rs"]
mod catalogs;
#[path = "console/drivers.rs"]
mod drivers;
#[path = "console/hostile.rs"]
mod hostile;
#[path = "console/login.rs"]
mod login;
#[path = "console/pgjdbc.rs"]
mod pgjdbc;
#[path = "console/psql.rs"]
mod psql;
#[path = "console/tools.rs"]
mod tools;
#[path = "console/verbs.rs"]
mod verbs;
#[path = "console/views.rs"]
mod views;

use pgsluice::config::{Address, Config, ConsoleUser, Role, Verifier};
use pgsluice::server::{self, Running};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The verifiers of the passwords `admin secret` and `viewer secret`.
pub const ADMIN: &str = "SCRAM-SHA-256$4096:c2FsdCBvZiBhbiBhZG1pbg==$NW7KOWvddyhFay/5vBWMTt00CYaqRNlQIQor1qU+R2k=:yBfhQisChz+wDzolcSrjAhPCZeBAtdo6FAqs5vkz7gU=";
pub const VIEWER: &str = "SCRAM-SHA-256$4096:c2FsdCBvZiBhIHZpZXdlcg==$SA7oV9jWTm/79p+mA/dHs8l2G2z70EeU+tnwhweKq3g=:6C3dQFeoZfSLrl3IY6igCWeEXJkawMJ6toWOoB8UFV8=";

/// A proxy with users `ann` (admin) and `vic` (viewer), on a port and on a Unix socket.
pub struct Proxy {
    running: Option<Running>,
    pub folder: PathBuf,
    pub port: u16,
}

impl Proxy {
    /// With no server behind it.
    pub fn alone() -> Self {
        Self::start(|_| {})
    }

    pub fn start(tweak: impl FnOnce(&mut Config)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pgsluice-console-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut config = Config::default();
        config.proxy.listen = vec![Address::tcp("127.0.0.1", 0), Address::Unix { dir: folder.clone(), port: 6432 }];
        // Nobody listens on the discard port.
        config.proxy.backend = Address::tcp("127.0.0.1", 9);
        config.proxy.workers = 1;
        config.proxy.io = common::io();
        let user = |name: &str, role, verifier| {
            let verifier = Verifier::parse(verifier).expect("a verifier");
            ConsoleUser { name: name.to_owned(), role, verifier }
        };
        config.console.users = vec![user("ann", Role::Admin, ADMIN), user("vic", Role::Viewer, VIEWER)];
        tweak(&mut config);
        let running = server::spawn(config).expect("a proxy");
        let port = running.address().port();
        Self { running: Some(running), folder, port }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    /// A program that connects to the console by libpq's environment, as this user.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>, user: &str, password: &str) -> Command {
        let mut command = Command::new(program);
        for name in ["PGSERVICE", "PGSSLMODE", "PGOPTIONS", "PGHOSTADDR", "PGPASSFILE"] {
            command.env_remove(name);
        }
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGDATABASE", "pgsluice");
        command.env("PGUSER", user).env("PGPASSWORD", password).env("PSQLRC", "").env("PGCONNECT_TIMEOUT", "30");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `psql` of an admin, with these arguments.
    pub fn psql(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("psql", "ann", "admin secret");
        command.arg("-X").args(arguments).output().expect("psql")
    }

    /// A session by tokio-postgres, on a runtime that lives as long as it.
    pub fn session(&self, user: &str, password: &str) -> Session {
        self.try_session(user, password).unwrap_or_else(|error| panic!("{user}: {error:?}"))
    }

    pub fn try_session(&self, user: &str, password: &str) -> Result<Session, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async {
            let mut config = tokio_postgres::Config::new();
            config.host("127.0.0.1").port(self.port).user(user).password(password).dbname("pgsluice");
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Session { runtime, client })
    }

    pub fn admin(&self) -> Session {
        self.session("ann", "admin secret")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop_now();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A session of the console by tokio-postgres.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Session {
    /// The rows of a command, by the simple protocol.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.runtime.block_on(self.client.simple_query(sql));
        let messages = messages.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }

    /// The first value of the first row; empty if there is none.
    pub fn value(&self, sql: &str) -> String {
        self.rows(sql).first().and_then(|row| row.first()?.clone()).unwrap_or_default()
    }

    /// The SQLSTATE of a command that must fail.
    pub fn error(&self, sql: &str) -> String {
        let error = self.runtime.block_on(self.client.simple_query(sql)).expect_err(sql);
        error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
    }

    pub fn with<T>(&self, act: impl AsyncFnOnce(&Client) -> T) -> T {
        self.runtime.block_on(act(&self.client))
    }
}

/// The standard output of a program that must succeed.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    assert_eq!(said(&output.stderr), "", "nothing is said on standard error");
    said(&output.stdout)
}
