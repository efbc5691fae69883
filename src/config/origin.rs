//! Where settings come from: the file, its lines, the flags of the command line, and changes of an operator's.
//!
//! [`Origin`] owns the path of `proxy.toml` and the flags, so that the file can be read again, and the line of each key. It is not a part of what
//! the settings are: two configurations with the same settings are equal.

use super::address::Address;
use super::words::Mode;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The settings that flags override.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Empty: the file's addresses apply.
    pub listen: Vec<Address>,
    pub backend: Option<Address>,
    pub mode: Option<Mode>,
}

/// Where one setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Default,
    /// The line of `proxy.toml`.
    File(usize),
    Flag,
    /// SET on the console.
    Set,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "proxy.toml, line {line}"),
            Self::Flag => f.write_str("command line"),
            Self::Set => f.write_str("SET"),
        }
    }
}

/// Where the settings of a [`Config`](super::Config) come from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    file: Option<PathBuf>,
    overrides: Overrides,
    sources: BTreeMap<String, Source>,
}

impl Origin {
    pub(super) fn set_file(&mut self, file: &Path) {
        self.file = Some(file.to_owned());
    }

    pub(super) fn set_overrides(&mut self, overrides: Overrides) {
        self.overrides = overrides;
    }

    pub(super) fn note(&mut self, key: &str, source: Source) {
        self.sources.insert(key.to_owned(), source);
    }

    /// The file, if there is one, and the flags that hold beside it.
    pub(super) fn inputs(&self) -> (Option<&Path>, Overrides) {
        (self.file.as_deref(), self.overrides.clone())
    }

    /// Whether the settings come from a file.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Where a key's value comes from.
    pub fn of(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
