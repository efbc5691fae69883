//! The settings of a running proxy, some of which an operator may change.
//!
//! [`LiveConfig`] owns every generation of the settings, the first and each one that a change has made. It keeps true: a reader has one whole
//! generation, which stays as it is for as long as the proxy runs. So a read is one load without a lock, and a statement that has begun goes on
//! under the settings with which it began.

use super::Config;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of generations. Each takes about 2 kB, and people make the changes.
const MOST: usize = 4096;

/// The settings of a running proxy.
#[derive(Debug)]
pub struct LiveConfig {
    generations: Vec<OnceLock<Box<Config>>>,
    first: Box<Config>,
    /// The number of changes; 0: the first generation holds.
    changes: AtomicUsize,
    changing: std::sync::Mutex<()>,
}

impl LiveConfig {
    pub fn new(config: Config) -> Self {
        let generations = (0..MOST).map(|_| OnceLock::new()).collect();
        Self {
            generations,
            first: Box::new(config),
            changes: AtomicUsize::new(0),
            changing: std::sync::Mutex::default(),
        }
    }

    /// Makes a change of the current settings. Changes are made one after the other.
    ///
    /// # Errors
    /// The error of `change`, or `None` if there were too many changes.
    pub fn change<E>(&self, change: impl FnOnce(&Config) -> Result<Config, E>) -> Result<(), Option<E>> {
        let _one_at_a_time = self.changing.lock();
        let next = self.changes.load(Ordering::Acquire);
        let place = self.generations.get(next).ok_or(None)?;
        let config = change(self).map_err(Some)?;
        place.set(Box::new(config)).map_err(|_| None)?;
        self.changes.store(next + 1, Ordering::Release);
        Ok(())
    }
}

impl Deref for LiveConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        let changes = self.changes.load(Ordering::Acquire);
        let changed = changes.checked_sub(1).and_then(|last| self.generations.get(last)?.get());
        changed.unwrap_or(&self.first)
    }
}

/// The keys that a running proxy follows, beside those of [`LIVE_SECTIONS`].
const LIVE_KEYS: [&str; 5] =
    ["proxy.max_clients", "proxy.max_clients_per_address", "proxy.drain_grace", "proxy.login_timeout", "log.level"];

/// The sections whose keys a running proxy follows. Limits of a session's memory (`inspect_limit`, `journal_limit`, `notifications_limit`) hold for
/// the sessions to come.
const LIVE_SECTIONS: [&str; 4] = ["ddl", "locks", "backfill", "console"];

/// Whether a running proxy follows a change of the key.
pub fn is_live(key: &str) -> bool {
    LIVE_KEYS.contains(&key) || key.split_once('.').is_some_and(|(section, _)| LIVE_SECTIONS.contains(&section))
}

impl Config {
    /// These settings, with the live ones of `new`, and its rules and windows.
    #[must_use]
    pub fn with_live_of(&self, new: Self) -> Self {
        let Self { proxy, ddl, locks, backfill, console, log, gate, origin, .. } = new;
        let mut config = self.clone();
        config.proxy.max_clients = proxy.max_clients;
        config.proxy.max_clients_per_address = proxy.max_clients_per_address;
        config.proxy.drain_grace = proxy.drain_grace;
        config.proxy.login_timeout = proxy.login_timeout;
        config.log.level = log.level;
        Self { ddl, locks, backfill, console, gate, origin, ..config }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_keys_are_taken_over_and_no_others() {
        let text = "[proxy]\nmode = \"relay\"\nmax_clients = 7\nconnect_timeout = \"1s\"\nlogin_timeout = \"1s\"\n[ddl]\nnotices = false\n\
            [locks]\npoll = \"1ms\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[operator]\nuser = \"op\"\n";
        let old = Config::default();
        let new = Config::parse(text, crate::config::Overrides::default()).unwrap();
        let changed = |a: &Config, b: &Config| {
            let keys = a.values().into_iter().zip(b.values()).filter(|(a, b)| a.1 != b.1);
            keys.map(|(a, _)| a.0).collect::<Vec<_>>()
        };
        let wanted: Vec<String> = changed(&old, &new).into_iter().filter(|key| is_live(key)).collect();
        assert_eq!(changed(&old, &old.with_live_of(new)), wanted);
        assert_eq!(wanted.len(), 5);
        assert!(LIVE_KEYS.iter().all(|key| Config::keys().iter().any(|known| known == key)));
    }

    #[test]
    fn a_reader_keeps_its_generation() {
        let live = LiveConfig::new(Config::default());
        let before: &Config = &live;
        let limit = before.proxy.max_clients;
        live.change(|config| {
            let mut config = config.clone();
            config.proxy.max_clients += 1;
            Ok::<_, ()>(config)
        })
        .unwrap();
        assert_eq!((before.proxy.max_clients, live.proxy.max_clients), (limit, limit + 1));
        assert_eq!(live.change(|_| Err(7)), Err(Some(7)));
        assert_eq!(live.proxy.max_clients, limit + 1);
        while live.change(|config| Ok::<_, ()>(config.clone())).is_ok() {}
        assert_eq!(live.proxy.max_clients, limit + 1);
    }
}
