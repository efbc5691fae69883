//! The log on standard error, and its level, which may change while the proxy runs.
//!
//! Invariants: a change of the level holds from the next message on, on every thread. Events of [`AUDIT`] are logged at every level, so that nobody hides
//! what an operator has done.

use crate::config::{Log, LogFormat, LogLevel};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// The level of the log that [`start`] has started.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The target of events that say what an operator has done.
pub const AUDIT: &str = "pgsluice::audit";

/// Starts the log on standard error. Standard output is for answers.
pub fn start(log: &Log) {
    // Colours are for people. A file or a log collector gets none.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (level, handle) = reload::Layer::new(filter(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match log.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(level).with(lines).init();
    // The log is started once, so that nobody has set the handle before.
    let _ = LEVEL.set(handle);
}

/// Changes the level. Without a log, as in a program that has the proxy as a library, nothing changes.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // The handle fails only without a log.
        let _ = handle.modify(|current| *current = filter(level));
    }
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level).with_target(AUDIT, level.max(LevelFilter::INFO))
}
