//! `proxy.toml` and the command line's flags to [`Config`]: every setting is checked here, once.
//!
//! Whoever holds a `Config` need not check it again. An error names the key, its line, its value and
//! what is allowed, and all errors of a file are told at once. The only module that names the TOML
//! parser. It does not say what a setting does: `proxy.toml` does, one line above each.

mod address;
mod fault;
mod keys;
mod network;
mod units;

pub use address::Address;
pub use fault::{ConfigError, Fault};
pub use network::Network;
pub use units::{format_size, format_time, parse_size, parse_time};

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `proxy.toml` says, section by section.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub proxy: Proxy,
    pub listen_tls: ListenTls,
    pub backend_tls: BackendTls,
    pub ddl: Ddl,
    pub locks: Locks,
    pub backfill: Backfill,
    pub operator: Operator,
    pub log: Log,
}

/// `[proxy]`: whom the proxy serves, and where it relays to.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    pub mode: Mode,
    pub listen: Vec<Address>,
    pub backend: Address,
    /// 0: one per core.
    pub workers: usize,
    pub io: Io,
    pub drain_grace: Duration,
    pub connect_timeout: Duration,
    pub login_timeout: Duration,
    pub max_clients: usize,
    /// 0: no limit.
    pub max_clients_per_address: usize,
    /// Zero: off.
    pub keepalive: Duration,
    /// Zero: the system's.
    pub user_timeout: Duration,
    /// Whose connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<Network>,
}

/// `[listen.tls]`: encryption between client and proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    pub mode: ListenTlsMode,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Client certificates are checked against it.
    pub ca: Option<PathBuf>,
    pub require_client_certificate: bool,
}

/// `[backend.tls]`: encryption between proxy and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    pub mode: BackendTlsMode,
    pub negotiation: Negotiation,
    /// None: the system's.
    pub root: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// `[ddl]`: how statements are inspected.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddl {
    /// Bytes.
    pub inspect_limit: usize,
    pub statements_limit: usize,
    /// Bytes, of one session.
    pub prepared_limit: usize,
    /// Bytes, of one session.
    pub notifications_limit: usize,
    pub unparsable: Fallback,
    pub oversize: Fallback,
    pub notices: bool,
    pub progress_interval: Duration,
    /// Zero: nothing is recorded.
    pub record_interval: Duration,
    /// Bytes; 0: no table is small.
    pub small_table: u64,
    /// What has no way that blocks nobody.
    pub unsafe_ddl: Unsafe,
    pub exclude: Unsafe,
}

/// `[locks]`: how long the application may be made to wait, and how long DDL may.
#[derive(Debug, Clone, PartialEq)]
pub struct Locks {
    pub poll: Duration,
    /// A share of `poll`: `0 <= poll_jitter <= 1`.
    pub poll_jitter: f64,
    pub stall_budget: Duration,
    pub hold_budget: Duration,
    pub deadline: Duration,
    /// The same of a transaction that holds a lock for which others wait.
    pub in_transaction_wait: Duration,
    pub ladder_start: Duration,
    pub starve_after: Duration,
    pub autovacuum: Autovacuum,
    pub fallback_timeout: Duration,
}

/// `[backfill]`: how old rows are filled, and what makes that pause.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    pub batch_time: Duration,
    pub lock_timeout: Duration,
    /// A pause in times its batch, while others are at work on the server; where nobody is, 1 at most. 0: none.
    pub pause_ratio: f64,
    /// Zero: off.
    pub max_lag: Duration,
    /// 0: off.
    pub max_active: usize,
    /// SQL of type boolean.
    pub condition: Option<String>,
    pub pause_limit: Duration,
    pub analyze: bool,
}

/// `[operator]`: the proxy's own connection. Without a `user` there is none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Operator {
    /// A host, or the directory of a Unix socket; none: the backend's.
    pub host: Option<String>,
    /// None: the backend's.
    pub port: Option<u16>,
    pub user: Option<String>,
    /// From `password`, or the first line of `password_file`.
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    /// None: the user's name, as in PostgreSQL.
    pub dbname: Option<String>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// A setting that is one of a few words; the words are written once, here.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl keys::Word for $name {
            fn words(&self) -> &'static [&'static str] { Self::WORDS }

            fn set(&mut self, word: &str) -> bool {
                Self::from_word(word).map(|value| *self = value).is_some()
            }
        }
    };
}

words! {
    /// How far the proxy goes; the order in which a careful team adopts it.
    Mode {
        /// Intercepts nothing.
        Relay = "relay",
        /// Relays, and says what it would have done.
        Observe = "observe",
        /// Queue, lock attempts and retry; no statement is rewritten.
        Guard = "guard",
        /// All of it.
        Plan = "plan",
    }
}

words! {
    /// How the relay reads and writes its sockets.
    Io {
        /// By io_uring if the system allows it.
        Auto = "auto",
        Epoll = "epoll",
        /// Or not at all.
        IoUring = "io_uring",
    }
}

words! {
    /// Towards clients; Unix sockets are never encrypted.
    ListenTlsMode {
        Disable = "disable",
        /// As the client likes.
        Allow = "allow",
        /// No session without; a CancelRequest, which older clients send in plain text, passes.
        Require = "require",
    }
}

words! {
    /// libpq's `sslmode`, without its `allow`.
    BackendTlsMode {
        Disable = "disable",
        /// If the server can; the certificate is not checked.
        Prefer = "prefer",
        /// The certificate is checked only if a root is given, as in libpq.
        Require = "require",
        VerifyCa = "verify-ca",
        VerifyFull = "verify-full",
    }
}

words! {
    /// libpq's `sslnegotiation`.
    Negotiation {
        /// By PostgreSQL's SSLRequest.
        Postgres = "postgres",
        /// The handshake at once; PostgreSQL 17 and later.
        Direct = "direct",
    }
}

words! {
    /// What becomes of a text that cannot be inspected.
    Fallback {
        Relay = "relay",
        Refuse = "refuse",
    }
}

words! {
    /// What becomes of a statement that may be long under a lock that blocks the application.
    Unsafe {
        Warn = "warn",
        Refuse = "refuse",
    }
}

words! {
    /// What is done about an autovacuum that blocks a brief step.
    Autovacuum {
        /// `pg_cancel_backend`; where that is not permitted, as `Outwait`.
        Cancel = "cancel",
        /// One lock attempt longer than `deadlock_timeout`, which makes the autovacuum yield.
        Outwait = "outwait",
        /// Until it is done.
        Wait = "wait",
    }
}

words! {
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

words! {
    LogFormat {
        Text = "text",
        Json = "json",
    }
}

/// A text that is never shown, not even in an error or a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For the login message alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
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
            unparsable: Fallback::Relay,
            oversize: Fallback::Relay,
            notices: true,
            progress_interval: Duration::from_secs(10),
            record_interval: Duration::from_secs(30),
            small_table: 1 << 20,
            unsafe_ddl: Unsafe::Warn,
            exclude: Unsafe::Warn,
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
            in_transaction_wait: Duration::from_secs(10),
            ladder_start: Duration::from_millis(5),
            starve_after: Duration::from_secs(1),
            autovacuum: Autovacuum::Cancel,
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

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// What the command line puts over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Empty: as the file says.
    pub listen: Vec<Address>,
    pub backend: Option<Address>,
    pub mode: Option<Mode>,
}

impl Config {
    /// The file's settings (without a file the defaults), overridden by the flags, all checked.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::parse("", overrides) };
        let in_file = |error: ConfigError| error.in_file(path);
        let text = std::fs::read_to_string(path)
            .map_err(|error| in_file(Fault::new(format!("cannot read the file: {error}")).into()))?;
        let mut config = Self::parse(&text, overrides).map_err(in_file)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        config.paths_from(folder);
        config.read_password_file().map_err(in_file)?;
        Ok(config)
    }

    /// As [`Config::load`], from the text of a file. Reads no other file.
    pub fn parse(text: &str, overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut faults = keys::read(text, &mut config);
        let Overrides { listen, backend, mode } = overrides;
        if !listen.is_empty() {
            config.proxy.listen = listen;
        }
        config.proxy.backend = backend.unwrap_or(config.proxy.backend);
        config.proxy.mode = mode.unwrap_or(config.proxy.mode);
        if faults.is_empty() {
            config.check_together(text, &mut faults);
        }
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::new(faults)) }
    }

    /// Every key, as `section.key`, in the order of `proxy.toml`.
    pub fn keys() -> Vec<String> {
        let mut config = Self::default();
        keys::keys(&mut config).iter().map(keys::Key::path).collect()
    }

    /// What one key cannot say: settings that contradict each other.
    fn check_together(&self, text: &str, faults: &mut Vec<Fault>) {
        let mut wrong = |key: &str, value: String, allowed: String| {
            faults.push(Fault::value(key, keys::line_of(text, key), value, allowed));
        };
        let Self { proxy, locks, operator, .. } = self;
        if let Some(address) = proxy.listen.iter().find(|address| **address == proxy.backend) {
            wrong("proxy.backend", format!("\"{address}\""), "an address that proxy.listen does not have".to_owned());
        }
        for (key, value) in [("ladder_start", locks.ladder_start), ("fallback_timeout", locks.fallback_timeout)] {
            if value > locks.stall_budget {
                let most = format!("at most locks.stall_budget ({})", format_time(locks.stall_budget));
                wrong(&format!("locks.{key}"), format!("\"{}\"", format_time(value)), most);
            }
        }
        if locks.deadline < locks.stall_budget {
            let least = format!("at least locks.stall_budget ({})", format_time(locks.stall_budget));
            wrong("locks.deadline", format!("\"{}\"", format_time(locks.deadline)), least);
        }
        if operator.password.is_some() && operator.password_file.is_some() {
            wrong("operator.password", "(not shown)".to_owned(), "only one of password and password_file".to_owned());
        }
        self.check_tls(&mut wrong);
        if operator.user.is_none() && *operator != Operator::default() {
            wrong("operator.user", "(not set)".to_owned(), "a name, as other keys of [operator] are set".to_owned());
        }
    }

    fn check_tls(&self, wrong: &mut impl FnMut(&str, String, String)) {
        let Self { proxy, listen_tls: listen, backend_tls: backend, .. } = self;
        let missing = |path: &Option<PathBuf>| path.is_none().then(|| "(not set)".to_owned());
        if listen.mode != ListenTlsMode::Disable {
            for (key, path) in [("listen.tls.certificate", &listen.certificate), ("listen.tls.key", &listen.key)] {
                missing(path).into_iter().for_each(|shown| {
                    wrong(key, shown, format!("a file, as listen.tls.mode is \"{}\"", listen.mode));
                });
            }
        }
        if listen.require_client_certificate && listen.ca.is_none() {
            wrong("listen.tls.ca", "(not set)".to_owned(), "a file, as client certificates are required".to_owned());
        }
        let (certificate, key) = (backend.certificate.is_some(), backend.key.is_some());
        for (name, alone) in [("key", certificate && !key), ("certificate", key && !certificate)] {
            if alone {
                wrong(&format!("backend.tls.{name}"), "(not set)".to_owned(), "a file: both or none".to_owned());
            }
        }
        let encrypted = !matches!(backend.mode, BackendTlsMode::Disable | BackendTlsMode::Prefer);
        if encrypted && matches!(proxy.backend, Address::Unix { .. }) {
            let allowed = "\"disable\" or \"prefer\": PostgreSQL does not encrypt Unix sockets".to_owned();
            wrong("backend.tls.mode", format!("\"{}\"", backend.mode), allowed);
        }
        if backend.negotiation == Negotiation::Direct && !encrypted {
            let allowed = "\"postgres\", or a backend.tls.mode of require, verify-ca or verify-full".to_owned();
            wrong("backend.tls.negotiation", "\"direct\"".to_owned(), allowed);
        }
    }

    /// A relative path counts from the folder of `proxy.toml`.
    fn paths_from(&mut self, folder: &Path) {
        let Self { listen_tls: listen, backend_tls: backend, operator, .. } = self;
        let paths = [&mut listen.certificate, &mut listen.key, &mut listen.ca, &mut backend.root];
        let paths = paths.into_iter().chain([&mut backend.certificate, &mut backend.key, &mut operator.password_file]);
        for path in paths.flatten() {
            *path = folder.join(&*path);
        }
    }

    fn read_password_file(&mut self) -> Result<(), ConfigError> {
        let Some(path) = &self.operator.password_file else { return Ok(()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Fault::new(format!("operator.password_file: cannot read {}: {error}", path.display())))?;
        self.operator.password = Some(Secret::new(text.lines().next().unwrap_or_default()));
        Ok(())
    }
}
