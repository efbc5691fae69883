//! `pgsluice check-config`: checks a file of settings as `pgsluice run` would, and shows its rules and windows.
//!
//! It owns nothing. It keeps true: a file that this command accepts is accepted by `run`, and the same errors come from both.

use super::failure::Failure;
use crate::config::{Config, ConfigError, Overrides};
use crate::gate::{Rules, print};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `pgsluice check-config`'s arguments.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file of settings
    #[arg(long, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (config, rules) = load(Some(&self.config), Overrides::default())?;
        let answer = format!("{}: no errors\n{}", self.config.display(), print::summary(&config, &rules));
        match std::io::stdout().write_all(answer.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure(format!("could not write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// Loads a file of settings and its rules.
pub(super) fn load(path: Option<&Path>, overrides: Overrides) -> Result<(Config, Rules), Failure> {
    let failure = |error: ConfigError| Failure(error.to_string());
    let config = Config::load(path, overrides).map_err(failure)?;
    let rules = Rules::new(&config).map_err(failure)?;
    Ok((config, rules))
}
