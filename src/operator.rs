//! The operator's connection: the proxy's own, by the credentials of `[operator]`.
//!
//! Used only to look (progress of a build, facts for `pgsluice plan`), never for the client's work.
//! Its `search_path` is fixed, and its password is never printed.

use crate::config::{Address, Config};
use std::fmt;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Settings(tokio_postgres::Config);

/// The credentials stay unseen.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("user", &self.0.get_user()).finish_non_exhaustive()
    }
}

pub type Error = tokio_postgres::Error;

/// What the server said, or else the innermost cause.
pub fn said(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// From `[operator]`; what it leaves out is the backend's.
pub fn settings(config: &Config) -> Settings {
    let operator = &config.operator;
    let mut settings = tokio_postgres::Config::new();
    match &config.proxy.backend {
        Address::Tcp { host, .. } => settings.host(operator.host.as_ref().unwrap_or(host)),
        Address::Unix { dir, .. } => match &operator.host {
            Some(host) => settings.host(host),
            None => settings.host_path(dir),
        },
    };
    settings.port(operator.port.unwrap_or_else(|| config.proxy.backend.port()));
    if let Some(user) = &operator.user {
        settings.user(user);
        settings.dbname(operator.dbname.as_ref().unwrap_or(user));
    }
    if let Some(password) = &operator.password {
        settings.password(password.reveal());
    }
    settings.application_name("pgsluice").options("-c search_path=pg_catalog");
    settings.connect_timeout(config.proxy.connect_timeout);
    Settings(settings)
}

/// A live connection; it ends when it is dropped.
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
/// As the server or the network says.
pub async fn connect(settings: &Settings) -> Result<Operator, Error> {
    let (client, connection) = settings.0.connect(NoTls).await?;
    let connection = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the operator's connection ended");
        }
    });
    Ok(Operator { client, connection })
}

/// How far a build is.
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
    /// What the backend `pid` builds, if it builds an index.
    ///
    /// # Errors
    /// As the server says; before PostgreSQL 12 there is no such view.
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
