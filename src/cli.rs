//! The command line: it turns the arguments into a call, and writes a failure to standard error.
//!
//! Invariant: `proxy.toml` can say everything that a flag can. Flags become [`Overrides`] of the file.

mod backend;
mod check_config;
mod ctl;
mod failure;
mod ledger;
mod pgpass;
mod plan;

use crate::config::{Address, Mode, Overrides};
use crate::{dev, logging, server};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use failure::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

/// A proxy for PostgreSQL that runs schema changes without making the application wait.
#[derive(Debug, Parser)]
#[command(name = "pgsluice", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Run(RunArguments),
    /// Try the proxy: start a throw-away PostgreSQL with some tables, and the proxy in front of it
    Dev(Dev),
    /// Measure the same schema changes directly and through the proxy (takes less than a minute)
    Demo,
    /// Show what the proxy would do for each statement of a text
    Plan(plan::Arguments),
    /// Check a file of settings, and show its rules and windows
    CheckConfig(check_config::Arguments),
    /// Say a command to the console of a running proxy
    Ctl(ctl::Arguments),
    /// Make the ledger, in which several proxies keep what operators decide
    Install(ledger::Install),
    /// Take the ledger away
    Uninstall(ledger::Uninstall),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The file of settings; without it, the defaults apply
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on; may be given more than once
    #[arg(long, value_name = "HOST:PORT|unix:DIR")]
    listen: Vec<Address>,
    /// The address of the PostgreSQL server
    #[arg(long, value_name = "HOST:PORT|unix:DIR")]
    backend: Option<Address>,
    /// What to do about schema changes
    #[arg(long, value_name = "MODE", value_parser = mode())]
    ddl: Option<Mode>,
}

#[derive(Debug, Args)]
struct Dev {
    /// The address that the proxy listens on
    #[arg(long, value_name = "HOST:PORT|unix:DIR", default_value = "127.0.0.1:6432")]
    listen: Address,
    /// What to do about schema changes
    #[arg(long, value_name = "MODE", value_parser = mode(), default_value = "plan")]
    ddl: Mode,
}

fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::WORDS).try_map(|word| Mode::from_word(&word).ok_or("not a mode"))
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(run) => run.run(),
        Command::Dev(command) => dev::run(&command.listen, command.ddl).map_err(Failure::from),
        Command::Demo => dev::demo::run().map_err(Failure::from),
        Command::Plan(arguments) => arguments.run(),
        Command::CheckConfig(arguments) => arguments.run(),
        Command::Ctl(arguments) => arguments.run(),
        Command::Install(arguments) => arguments.run(),
        Command::Uninstall(arguments) => arguments.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

impl RunArguments {
    fn run(self) -> Result<(), Failure> {
        let overrides = Overrides { listen: self.listen, backend: self.backend, mode: self.ddl };
        let (config, _) = check_config::load(self.config.as_deref(), overrides)?;
        logging::start(&config.log);
        server::run(config).map_err(Failure::from)
    }
}
