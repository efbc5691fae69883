//! The failure of a command: the text that is printed before the process ends with status 1.

use crate::report::Report;
use std::fmt;

/// The text of a failure.
pub(super) struct Failure(pub(super) String);

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self(report.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("could not write JSON: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
