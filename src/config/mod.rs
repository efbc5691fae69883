//! Makes a [`Config`] of `proxy.toml` and the flags of the command line.
//!
//! This is the only module that names the TOML parser. The comments of `proxy.toml` describe the settings; this module does
//! not repeat them.
//!
//! Invariants: every setting is checked here, so no user of a [`Config`] needs to check it again. An error names the key,
//! its line, its value and the allowed values. All errors of a file are reported at once. The names in the rules of the gate are checked
//! by [`crate::gate::Rules::new`], since only that module knows them.

mod address;
mod console;
mod fault;
mod gate_keys;
mod glob;
mod keys;
mod live;
mod network;
mod origin;
mod rules;
mod secret;
mod settings;
mod slot;
mod units;
mod url;
mod window;
mod words;

pub use address::Address;
pub use console::{ConsoleUser, Verifier};
pub use fault::{ConfigError, Fault};
pub use glob::Glob;
pub(crate) use keys::nearest;
pub use live::{LiveConfig, is_live};
pub use network::{ClientAddress, Network};
pub use origin::{Origin, Overrides, Source};
pub use rules::{BlockersSettings, GateSettings, HoldSettings, MatchSettings, RuleLimits, RuleSettings};
pub use secret::Secret;
pub use settings::{
    BackendTls, Backfill, Config, Console, Ddl, ListenTls, Locks, Log, MetricsSettings, Operator, Proxy,
    WebhookSettings,
};
pub use units::{format_size, format_time, parse_size, parse_time};
pub use url::WebUrl;
pub use window::{Hours, Window};
pub use words::{
    Autovacuum, BackendTlsMode, BlockersPolicy, Fallback, GatePlace, InTransaction, Io, ListenTlsMode, LockWaits,
    LogFormat, LogLevel, Mode, Negotiation, OnDisconnect, Role, Unsafe, VerdictWord, WebhookEvent,
};

use std::path::{Path, PathBuf};

impl Config {
    /// Loads the file's settings, or the defaults if there is no file; applies the flags; and checks all settings.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::parse("", overrides) };
        let in_file = |error: ConfigError| error.in_file(path);
        let text = std::fs::read_to_string(path)
            .map_err(|error| in_file(Fault::new(format!("could not read the file: {error}")).into()))?;
        let mut config = Self::parse(&text, overrides).map_err(in_file)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        config.paths_from(folder);
        config.gate.file = Some(path.to_owned());
        config.read_secret_files().map_err(in_file)?;
        config.origin.set_file(path);
        Ok(config)
    }

    /// Does what [`Config::load`] does with the text of a file. It reads no other file.
    pub fn parse(text: &str, overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut faults = keys::read(text, &mut config);
        config.note_overrides(&overrides);
        faults.extend(gate_keys::read(text, &mut config.gate));
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

    fn note_overrides(&mut self, overrides: &Overrides) {
        let flags = [
            ("proxy.listen", !overrides.listen.is_empty()),
            ("proxy.backend", overrides.backend.is_some()),
            ("proxy.mode", overrides.mode.is_some()),
        ];
        flags.iter().filter(|(_, set)| *set).for_each(|(key, _)| self.origin.note(key, Source::Flag));
        self.origin.set_overrides(overrides.clone());
    }

    /// The settings of the same file and flags, read anew.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn loaded_again(&self) -> Result<Self, ConfigError> {
        let (file, overrides) = self.origin.inputs();
        Self::load(file, overrides)
    }

    /// These settings, with another value for `key` (`section.key`).
    ///
    /// # Errors
    /// There is no such key, it does not allow the value, or the value contradicts another setting.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        let mut keys = keys::keys(&mut config);
        let found = keys.iter_mut().find(|found| found.path() == key);
        let Some(found) = found else { return Err(Fault::new(format!("{key}: unknown key")).into()) };
        if !found.set_text(value) {
            return Err(Fault::value(key, None, format!("\"{value}\""), found.allowed()).into());
        }
        drop(keys);
        config.origin.note(key, Source::Set);
        let mut faults = Vec::new();
        config.check_together("", &mut faults);
        if faults.is_empty() { Ok(config) } else { Err(ConfigError::new(faults)) }
    }

    /// Every key with its value and its default, in the order of `proxy.toml`. No secret is shown.
    pub fn values(&self) -> Vec<(String, String, String)> {
        let (mut own, mut default) = (self.clone(), Self::default());
        let (own, default) = (keys::keys(&mut own), keys::keys(&mut default));
        own.iter().zip(&default).map(|(own, default)| (own.path(), own.shown(), default.shown())).collect()
    }

    /// Every key, as `section.key`, in the order of `proxy.toml`.
    pub fn keys() -> Vec<String> {
        let mut config = Self::default();
        keys::keys(&mut config).iter().map(keys::Key::path).collect()
    }

    /// Checks what one key alone cannot show: settings that contradict each other.
    fn check_together(&self, text: &str, faults: &mut Vec<Fault>) {
        let mut wrong = |key: &str, value: String, allowed: String| {
            faults.push(Fault::value(key, keys::line_of(text, key), value, allowed));
        };
        let Self { proxy, locks, operator, webhook, .. } = self;
        if let Some(address) = proxy.listen.iter().find(|address| **address == proxy.backend) {
            wrong("proxy.backend", format!("\"{address}\""), "an address that is not in proxy.listen".to_owned());
        }
        let monitoring = self.metrics.listen.as_ref().filter(|address| address.port() != 0);
        if let Some(address) = monitoring.filter(|address| proxy.listen.contains(address)) {
            wrong("metrics.listen", format!("\"{address}\""), "an address that is not in proxy.listen".to_owned());
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
        if webhook.secret.is_some() && webhook.secret_file.is_some() {
            wrong("webhook.secret", "(not shown)".to_owned(), "only one of secret and secret_file".to_owned());
        }
        if webhook.url.is_none() && *webhook != WebhookSettings::default() {
            wrong("webhook.url", "(not set)".to_owned(), "a URL, since other keys of [webhook] are set".to_owned());
        }
        self.check_tls(&mut wrong);
        if operator.user.is_none() && *operator != Operator::default() {
            wrong("operator.user", "(not set)".to_owned(), "a name, since other keys of [operator] are set".to_owned());
        }
    }

    fn check_tls(&self, wrong: &mut impl FnMut(&str, String, String)) {
        let Self { proxy, listen_tls: listen, backend_tls: backend, .. } = self;
        let missing = |path: &Option<PathBuf>| path.is_none().then(|| "(not set)".to_owned());
        if listen.mode != ListenTlsMode::Disable {
            for (key, path) in [("listen.tls.certificate", &listen.certificate), ("listen.tls.key", &listen.key)] {
                missing(path).into_iter().for_each(|shown| {
                    wrong(key, shown, format!("a file, since listen.tls.mode is \"{}\"", listen.mode));
                });
            }
        }
        if listen.require_client_certificate && listen.ca.is_none() {
            wrong("listen.tls.ca", "(not set)".to_owned(), "a file, since client certificates are required".to_owned());
        }
        let (certificate, key) = (backend.certificate.is_some(), backend.key.is_some());
        for (name, alone) in [("key", certificate && !key), ("certificate", key && !certificate)] {
            if alone {
                wrong(
                    &format!("backend.tls.{name}"),
                    "(not set)".to_owned(),
                    "a file, since certificate and key are set together or not at all".to_owned(),
                );
            }
        }
        let encrypted = !matches!(backend.mode, BackendTlsMode::Disable | BackendTlsMode::Prefer);
        if encrypted && matches!(proxy.backend, Address::Unix { .. }) {
            let allowed = "\"disable\" or \"prefer\", since PostgreSQL does not encrypt Unix sockets".to_owned();
            wrong("backend.tls.mode", format!("\"{}\"", backend.mode), allowed);
        }
        if backend.negotiation == Negotiation::Direct && !encrypted {
            let allowed = "\"postgres\", or a backend.tls.mode of require, verify-ca or verify-full".to_owned();
            wrong("backend.tls.negotiation", "\"direct\"".to_owned(), allowed);
        }
    }

    /// Makes each relative path count from the folder of `proxy.toml`.
    fn paths_from(&mut self, folder: &Path) {
        let Self { listen_tls: listen, backend_tls: backend, operator, webhook, .. } = self;
        let paths = [&mut listen.certificate, &mut listen.key, &mut listen.ca, &mut backend.root];
        let paths = paths.into_iter().chain([&mut backend.certificate, &mut backend.key, &mut operator.password_file]);
        let paths = paths.chain([&mut webhook.secret_file, &mut webhook.ca]);
        for path in paths.flatten() {
            *path = folder.join(&*path);
        }
    }

    fn read_secret_files(&mut self) -> Result<(), ConfigError> {
        let Self { operator, webhook, .. } = self;
        let files = [
            ("operator.password_file", &operator.password_file, &mut operator.password),
            ("webhook.secret_file", &webhook.secret_file, &mut webhook.secret),
        ];
        for (key, path, secret) in files {
            let Some(path) = path else { continue };
            let text = std::fs::read_to_string(path)
                .map_err(|error| Fault::new(format!("{key}: could not read {}: {error}", path.display())))?;
            *secret = Some(Secret::new(text.lines().next().unwrap_or_default()));
        }
        Ok(())
    }
}
