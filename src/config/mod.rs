//! `proxy.toml` and the command line's flags to [`Config`]: every setting is checked here, once.
//!
//! Whoever holds a `Config` need not check it again. An error names the key, its line, its value and
//! what is allowed, and all errors of a file are told at once. The only module that names the TOML
//! parser. It does not say what a setting does: `proxy.toml` does, one line above each.

mod address;
mod fault;
mod keys;
mod units;

pub use address::Address;
pub use fault::{ConfigError, Fault};
pub use units::{format_size, format_time, parse_size, parse_time};

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `proxy.toml` says, section by section.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub proxy: Proxy,
    pub ddl: Ddl,
    pub locks: Locks,
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
    pub drain_grace: Duration,
    pub connect_timeout: Duration,
    pub login_timeout: Duration,
    pub max_clients: usize,
    /// Zero: off.
    pub keepalive: Duration,
}

/// `[ddl]`: how statements are inspected.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddl {
    /// Bytes.
    pub inspect_limit: usize,
    pub statements_limit: usize,
    pub unparsable: Fallback,
    pub oversize: Fallback,
    pub notices: bool,
    pub progress_interval: Duration,
    /// Bytes; 0: no table is small.
    pub small_table: u64,
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
    pub ladder_start: Duration,
    pub starve_after: Duration,
    pub autovacuum: Autovacuum,
    pub fallback_timeout: Duration,
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
    /// What becomes of a text that cannot be inspected.
    Fallback {
        Relay = "relay",
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
            drain_grace: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            login_timeout: Duration::from_secs(60),
            max_clients: 10_000,
            keepalive: Duration::from_secs(60),
        }
    }
}

impl Default for Ddl {
    fn default() -> Self {
        Self {
            inspect_limit: 4 << 20,
            statements_limit: 10_000,
            unparsable: Fallback::Relay,
            oversize: Fallback::Relay,
            notices: true,
            progress_interval: Duration::from_secs(10),
            small_table: 1 << 20,
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
            ladder_start: Duration::from_millis(5),
            starve_after: Duration::from_secs(1),
            autovacuum: Autovacuum::Cancel,
            fallback_timeout: Duration::from_millis(50),
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
        config.read_password_file(path.parent().unwrap_or_else(|| Path::new(""))).map_err(in_file)?;
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
        if operator.user.is_none() && *operator != Operator::default() {
            wrong("operator.user", "(not set)".to_owned(), "a name, as other keys of [operator] are set".to_owned());
        }
    }

    /// A relative path counts from the folder of `proxy.toml`.
    fn read_password_file(&mut self, folder: &Path) -> Result<(), ConfigError> {
        let Some(file) = &self.operator.password_file else { return Ok(()) };
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Fault::new(format!("operator.password_file: cannot read {}: {error}", path.display())))?;
        self.operator.password = Some(Secret::new(text.lines().next().unwrap_or_default()));
        Ok(())
    }
}
