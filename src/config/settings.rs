//! Every setting of `proxy.toml`, section by section, with its default.
//!
//! The settings are plain data. [`super::keys`] reads and checks each of them, and `proxy.toml` says what each of them does.

use super::console::ConsoleUser;
use super::origin::Origin;
use super::rules::{BlockersSettings, GateSettings};
use super::secret::Secret;
use super::words::{
    Autovacuum, BackendTlsMode, Fallback, InTransaction, Io, ListenTlsMode, LockWaits, LogFormat, LogLevel, Mode,
    Negotiation, OnDisconnect, Unsafe, WebhookEvent,
};
use super::{Address, Network, WebUrl};
use std::path::PathBuf;
use std::time::Duration;

/// The settings of `proxy.toml`, section by section.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub proxy: Proxy,
    pub listen_tls: ListenTls,
    pub backend_tls: BackendTls,
    pub ddl: Ddl,
    pub locks: Locks,
    pub backfill: Backfill,
    pub operator: Operator,
    pub console: Console,
    pub metrics: MetricsSettings,
    pub webhook: WebhookSettings,
    pub log: Log,
    /// Where the settings come from.
    pub origin: Origin,
    pub gate: GateSettings,
    /// What the rule of a statement says of sessions in its way. No key of its own.
    pub blockers: BlockersSettings,
}

/// `[proxy]`: which clients the proxy serves, and which server it relays to.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    pub mode: Mode,
    pub listen: Vec<Address>,
    pub backend: Address,
    /// 0 means one worker per core.
    pub workers: usize,
    pub io: Io,
    pub drain_grace: Duration,
    pub connect_timeout: Duration,
    pub login_timeout: Duration,
    pub max_clients: usize,
    /// 0 means no limit.
    pub max_clients_per_address: usize,
    /// Zero means off.
    pub keepalive: Duration,
    /// Zero means the system's setting.
    pub user_timeout: Duration,
    /// The networks whose connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<Network>,
}

/// `[listen.tls]`: encryption between client and proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    pub mode: ListenTlsMode,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The authority that client certificates are checked against.
    pub ca: Option<PathBuf>,
    pub require_client_certificate: bool,
}

/// `[backend.tls]`: encryption between proxy and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    pub mode: BackendTlsMode,
    pub negotiation: Negotiation,
    /// `None` means the system's root certificates.
    pub root: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// `[ddl]`: how statements are inspected.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddl {
    /// In bytes.
    pub inspect_limit: usize,
    pub statements_limit: usize,
    /// In bytes, for one session.
    pub prepared_limit: usize,
    /// In bytes, for one session.
    pub notifications_limit: usize,
    /// In bytes, for one transaction block. 0 means that no journal is kept.
    pub journal_limit: usize,
    pub unparsable: Fallback,
    pub oversize: Fallback,
    pub notices: bool,
    pub progress_interval: Duration,
    /// Zero means that nothing is recorded.
    pub record_interval: Duration,
    /// In bytes. 0 means that no table is small.
    pub small_table: u64,
    /// How the proxy treats a statement for which no plan avoids blocking others.
    pub unsafe_ddl: Unsafe,
    pub exclude: Unsafe,
    /// How the proxy treats a statement in a transaction that would make the application wait.
    pub in_transaction: InTransaction,
    /// What becomes of a statement outside a transaction whose client goes away.
    pub on_disconnect: OnDisconnect,
    /// What a transaction has altered is done ahead of it before it writes much, or while others wait for it.
    pub free_tables: bool,
    /// A transaction that has taken longer is not run again.
    pub replay_limit: Duration,
}

/// `[locks]`: how long the application and DDL may be made to wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Locks {
    pub poll: Duration,
    /// A share of `poll`, from 0 to 1.
    pub poll_jitter: f64,
    pub stall_budget: Duration,
    pub hold_budget: Duration,
    pub deadline: Duration,
    pub turn_limit: Duration,
    /// The deadline of a statement in a transaction that holds a lock for which others wait.
    pub in_transaction_wait: Duration,
    pub ladder_start: Duration,
    pub starve_after: Duration,
    pub autovacuum: Autovacuum,
    pub advisory_locks: LockWaits,
    pub lock_table: LockWaits,
    pub fallback_timeout: Duration,
}

/// `[backfill]`: how old rows are filled, and what makes that pause.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    pub batch_time: Duration,
    pub lock_timeout: Duration,
    /// The pause after a batch, as a multiple of the batch's time. The multiple applies while other sessions are at work on
    /// the server; otherwise it is 1 at most. 0 means no pause.
    pub pause_ratio: f64,
    /// Zero means off.
    pub max_lag: Duration,
    /// 0 means off.
    pub max_active: usize,
    /// An SQL expression of type boolean.
    pub condition: Option<String>,
    pub pause_limit: Duration,
    pub analyze: bool,
}

/// `[operator]`: the proxy's own connection. Without a `user` there is none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Operator {
    /// A host, or the directory of a Unix socket. `None` means the backend's.
    pub host: Option<String>,
    /// `None` means the backend's.
    pub port: Option<u16>,
    pub user: Option<String>,
    /// The password is from `password`, or from the first line of `password_file`.
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    /// `None` means the user's name, as in PostgreSQL.
    pub dbname: Option<String>,
    /// The ledger in that database decides about changes.
    pub ledger: bool,
    /// How long its events are kept. Zero means for ever.
    pub ledger_keep: Duration,
}

/// `[console]`: the virtual database in which the proxy answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    pub enabled: bool,
    pub database: String,
    pub users: Vec<ConsoleUser>,
}

/// `[metrics]`: where the proxy answers monitoring by HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// `None` means nowhere.
    pub listen: Option<Address>,
}

/// `[webhook]`: who is told of schema changes by HTTP. Without a `url` nobody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    pub url: Option<WebUrl>,
    /// The key of the signature is from `secret`, or from the first line of `secret_file`. `None` means no signature.
    pub secret: Option<Secret>,
    pub secret_file: Option<PathBuf>,
    /// The authorities that may have signed the receiver's certificate. `None` means the system's.
    pub ca: Option<PathBuf>,
    pub events: Vec<WebhookEvent>,
    /// A wait is reported once it has taken this long.
    pub blocked_after: Duration,
}

/// `[log]`: which messages are logged, and in which format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            mode: Mode::Plan,
            listen: vec![Address::tcp("127.0.0.1", 6432)],
            backend: Address::tcp("127.0.0.1", 5432),
            workers: 0,
            io: Io::Auto,
            drain_grace: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            login_timeout: Duration::from_secs(60),
            max_clients: 10_000,
            max_clients_per_address: 0,
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::ZERO,
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for ListenTls {
    fn default() -> Self {
        Self { mode: ListenTlsMode::Disable, certificate: None, key: None, ca: None, require_client_certificate: false }
    }
}

impl Default for BackendTls {
    fn default() -> Self {
        Self {
            mode: BackendTlsMode::Disable,
            negotiation: Negotiation::Postgres,
            root: None,
            certificate: None,
            key: None,
        }
    }
}

impl Default for Ddl {
    fn default() -> Self {
        Self {
            inspect_limit: 4 << 20,
            statements_limit: 10_000,
            prepared_limit: 16 << 20,
            notifications_limit: 1 << 20,
            journal_limit: 1 << 20,
            unparsable: Fallback::Relay,
            oversize: Fallback::Relay,
            notices: true,
            progress_interval: Duration::from_secs(10),
            record_interval: Duration::from_secs(30),
            small_table: 1 << 20,
            unsafe_ddl: Unsafe::Warn,
            exclude: Unsafe::Warn,
            in_transaction: InTransaction::Hoist,
            on_disconnect: OnDisconnect::Auto,
            free_tables: true,
            replay_limit: Duration::from_secs(5),
        }
    }
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(50),
            poll_jitter: 0.2,
            stall_budget: Duration::from_millis(200),
            hold_budget: Duration::from_secs(2),
            deadline: Duration::from_secs(30 * 60),
            turn_limit: Duration::from_secs(24 * 60 * 60),
            in_transaction_wait: Duration::from_secs(10),
            ladder_start: Duration::from_millis(5),
            starve_after: Duration::from_secs(1),
            autovacuum: Autovacuum::Cancel,
            advisory_locks: LockWaits::Poll,
            lock_table: LockWaits::Poll,
            fallback_timeout: Duration::from_millis(50),
        }
    }
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            batch_time: Duration::from_millis(100),
            lock_timeout: Duration::from_millis(50),
            pause_ratio: 9.0,
            max_lag: Duration::from_secs(10),
            max_active: 0,
            condition: None,
            pause_limit: Duration::from_secs(24 * 3600),
            analyze: true,
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { enabled: true, database: "pgsluice".to_owned(), users: Vec::new() }
    }
}

impl Default for WebhookSettings {
    fn default() -> Self {
        use WebhookEvent::{Approved, Blocked, Completed, Failed, Held};
        Self {
            url: None,
            secret: None,
            secret_file: None,
            ca: None,
            events: vec![Held, Approved, Failed, Completed, Blocked],
            blocked_after: Duration::from_secs(5 * 60),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}
