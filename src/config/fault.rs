//! The errors of a configuration. An error names the key, its line, its value, and the allowed values.

use crate::pg::sqlstate;
use crate::report::Report;
use std::fmt;
use std::path::{Path, PathBuf};

/// One error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: Option<usize>,
    /// The message, a lower-case fragment.
    pub message: String,
    /// The hint, a sentence.
    pub hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into(), hint: None }
    }

    pub(crate) fn at(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error that says that `key` does not allow `value`.
    pub(crate) fn value(key: &str, line: Option<usize>, value: impl fmt::Display, allowed: impl fmt::Display) -> Self {
        Self::new(format!("{key}: {value} is not allowed; expected {allowed}")).at(line)
    }
}

/// All errors of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    faults: Vec<Fault>,
}

impl ConfigError {
    pub(crate) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.line);
        Self { file: None, faults }
    }

    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// The errors in the order of the file. There is at least one.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The errors as one report, for places that show only one.
    pub fn report(&self) -> Report {
        Report::error(sqlstate::CONFIG_FILE_ERROR, self.to_string())
    }
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        Self::new(vec![fault])
    }
}

/// One line per fault, as compilers print: `proxy.toml:12: locks.poll: …`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match (&self.file, fault.line) {
                (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
                (Some(file), None) => write!(f, "{}: ", file.display())?,
                (None, Some(line)) => write!(f, "line {line}: ")?,
                (None, None) => {}
            }
            f.write_str(&fault.message)?;
            if let Some(hint) = &fault.hint {
                write!(f, ". {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
