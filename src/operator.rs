//! The operator's connection: a connection of the proxy's own, with the credentials of `[operator]`.
//!
//! Invariants: the connection reads (the progress of a build, and facts for `pgsluice plan`), and writes the ledger. It never does the client's work.
//! Its `search_path` is fixed, and its password is never printed.

use crate::config::{Address, Config};
use crate::net::{Stream, Target, tasks};
use std::{fmt, io};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls};

/// The address and the login of the connection.
pub struct Settings {
    login: tokio_postgres::Config,
    target: Target,
}

/// Prints no credentials.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("user", &self.login.get_user()).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    Connect(io::Error),
    Server(tokio_postgres::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Server(error) => f.write_str(&said(error)),
        }
    }
}

impl std::error::Error for Error {}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Connect(error)
    }
}

/// The server's message, or else the innermost cause.
pub fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Where the connection goes: for what `[operator]` leaves out, to the backend.
pub fn address(config: &Config, backend: &Target) -> Address {
    let operator = &config.operator;
    let port = operator.port.unwrap_or_else(|| backend.address.port());
    match (&operator.host, &backend.address) {
        (Some(host), _) if host.starts_with('/') => Address::Unix { dir: host.into(), port },
        (Some(host), _) | (None, Address::Tcp { host, .. }) => Address::tcp(host, port),
        (None, Address::Unix { dir, .. }) => Address::Unix { dir: dir.clone(), port },
    }
}

/// The settings in `[operator]`. For a setting that is left out there, the backend's setting is used. Encryption is always the
/// backend's.
pub fn settings(config: &Config, backend: &Target) -> Settings {
    let operator = &config.operator;
    let address = address(config, backend);
    let mut login = tokio_postgres::Config::new();
    if let Some(user) = &operator.user {
        login.user(user);
        login.dbname(operator.dbname.as_ref().unwrap_or(user));
    }
    if let Some(password) = &operator.password {
        login.password(password.reveal());
    }
    login.application_name("pgsluice").options("-c search_path=pg_catalog");
    Settings { login, target: backend.at(address) }
}

/// A live connection. It ends when this value is dropped.
#[derive(Debug)]
pub struct Operator {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// # Errors
/// The error of the server or the network.
pub async fn connect(settings: &Settings) -> Result<Operator, Error> {
    let (client, connection) = log_in(&settings.login, &settings.target).await?;
    let connection = tasks::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the operator's connection ended");
        }
    });
    Ok(Operator { client, connection })
}

/// Opens a connection that the caller drives, with the operator's login.
///
/// # Errors
/// The error of the server or the network.
pub async fn open(settings: &Settings) -> Result<(Client, Connection<Stream, NoTlsStream>), Error> {
    log_in(&settings.login, &settings.target).await
}

/// Opens a connection over the target's own kind of stream. The stream does the encryption, and no channel is bound.
///
/// # Errors
/// The error of the server or the network.
pub async fn log_in(
    login: &tokio_postgres::Config,
    target: &Target,
) -> Result<(Client, Connection<Stream, NoTlsStream>), Error> {
    let mut login = login.clone();
    let stream = target.connect().await?;
    Ok(login.ssl_mode(SslMode::Disable).connect_raw(stream, NoTls).await?)
}

/// The progress of an index build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildProgress {
    /// PostgreSQL's word for the phase.
    pub phase: String,
    pub percent: Option<i64>,
    /// The transaction that the build waits for.
    pub waits_for: Option<String>,
}

const PROGRESS_SQL: &str = "SELECT p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total, \
     p.current_locker_pid::pg_catalog.int8, a.application_name, a.usename::pg_catalog.text, a.state \
     FROM pg_catalog.pg_stat_progress_create_index p \
     LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) p.current_locker_pid::pg_catalog.int4 \
     WHERE p.pid OPERATOR(pg_catalog.=) $1";

impl Operator {
    /// The progress of the index build of the backend `pid`, if the backend builds an index.
    ///
    /// # Errors
    /// The error of the server. Before PostgreSQL 12 the view does not exist.
    pub async fn build_progress(&self, pid: i32) -> Result<Option<BuildProgress>, Error> {
        let Some(row) = self.client.query_opt(PROGRESS_SQL, &[&pid]).await? else { return Ok(None) };
        let number = |column: usize| row.get::<_, Option<i64>>(column).unwrap_or_default();
        let share = |done: i64, total: i64| (total > 0).then(|| done.saturating_mul(100) / total);
        let text = |column: usize| row.get::<_, Option<String>>(column).filter(|text| !text.is_empty());
        let locker = number(5);
        let who = [text(6), text(7).map(|user| format!("user {user}")), text(8)];
        let who: Vec<String> = who.into_iter().flatten().collect();
        Ok(Some(BuildProgress {
            phase: text(0).unwrap_or_default(),
            percent: share(number(1), number(2)).or_else(|| share(number(3), number(4))),
            waits_for: (locker != 0).then(|| format!("pid {locker} ({})", who.join(", "))),
        }))
    }
}
