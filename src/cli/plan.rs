//! `pgsluice plan`: prints what the proxy would do for each statement of a text. It changes nothing.
//!
//! This file owns the arguments and the answer. [`planner`] makes the plans, [`transaction`] knows the transaction in which a statement
//! stands, and [`gate`] asks the rules of a file of settings.

mod gate;
mod planner;
mod transaction;

use self::gate::PlannedGate;
use self::planner::{Planned, Planner};
use super::backend::{self, Backend};
use super::check_config;
use super::failure::Failure;
use crate::config::{Address, Overrides};
use crate::plan::print;
use crate::sql::{ParseOptions, effects};
use clap::{Args, ValueEnum};
use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;

/// `pgsluice plan`'s arguments.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The SQL to plan; `-` reads standard input
    file: PathBuf,
    /// The server whose facts the plans are made from; without it, every relation is supposed to be a large table
    #[arg(long, value_name = "HOST:PORT|unix:DIR")]
    backend: Option<Address>,
    /// The user to ask the server as; the default is PGUSER, or else USER. PGPASSWORD has the password
    #[arg(long, requires = "backend")]
    user: Option<String>,
    /// The database to ask about; the default is PGDATABASE, or else the user's name
    #[arg(long, requires = "backend")]
    dbname: Option<String>,
    /// The file of settings whose rules are asked about each statement
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The role that the rules suppose to send the text; the default is the user that the server is asked as
    #[arg(long, requires = "config")]
    role: Option<String>,
    /// The application name that the rules suppose
    #[arg(long, requires = "config", value_name = "NAME")]
    application_name: Option<String>,
    /// The client's IP address that the rules suppose
    #[arg(long, requires = "config", value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Plan the text as one transaction, as a tool runs it that sends a file as one string or wraps it in BEGIN and COMMIT
    #[arg(long)]
    transaction: bool,
    /// The format of the answer: text for people, or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let text = self.read()?;
        let statements = effects(&text, ParseOptions::default()).map_err(|reason| {
            Failure(format!(
                "{}: {reason}\nThe proxy would relay this text as it is, or refuse it.",
                self.file.display()
            ))
        })?;
        let backend = match &self.backend {
            Some(address) => Some(Backend::connect(address, self.user.as_deref(), self.dbname.as_deref())?),
            None => None,
        };
        let gate = self.gate()?;
        let mut planner = Planner::new(backend, gate, self.transaction);
        for (statement, effect) in statements {
            let line = 1 + text.bytes().take(statement.range.start).filter(|byte| *byte == b'\n').count();
            planner.add(line, statement, effect)?;
        }
        let planned = planner.planned();
        let answer = match self.format {
            Format::Text => to_text(&planned, self.backend.is_some()),
            Format::Json => serde_json::to_string_pretty(&planned)? + "\n",
        };
        match std::io::stdout().write_all(answer.as_bytes()) {
            // The reader has closed the pipe, as in `pgsluice plan … | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| Failure(format!("could not write to standard output: {error}"))),
        }
    }

    /// The rules that are asked. `None`: there is no file of settings.
    fn gate(&self) -> Result<Option<PlannedGate>, Failure> {
        let Some(path) = &self.config else { return Ok(None) };
        let (_, rules) = check_config::load(Some(path), Overrides::default())?;
        let asked_as = self.backend.is_some().then(|| backend::user(self.user.as_deref())).flatten();
        let database = self.backend.is_some().then(|| backend::database(self.dbname.as_deref(), asked_as.as_deref()));
        Ok(Some(PlannedGate {
            rules,
            role: self.role.clone().or(asked_as),
            database: database.flatten(),
            application_name: self.application_name.clone(),
            client: self.client,
        }))
    }

    fn read(&self) -> Result<String, Failure> {
        if self.file.as_os_str() == "-" {
            let mut text = String::new();
            return match std::io::stdin().read_to_string(&mut text) {
                Ok(_) => Ok(text),
                Err(error) => Err(Failure(format!("could not read standard input: {error}"))),
            };
        }
        std::fs::read_to_string(&self.file)
            .map_err(|error| Failure(format!("could not read {}: {error}", self.file.display())))
    }
}

fn to_text(planned: &[Planned], from_facts: bool) -> String {
    let mut out = String::new();
    if !from_facts {
        out.push_str("-- The facts are unknown: every relation is supposed to be a large table. With --backend a server is asked.\n\n");
    }
    for Planned { line, statement, gate, place, plan, refusal } in planned {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "-- line {line}: {}", print::first_line(statement));
        out.extend(gate.as_ref().map(|gate| gate.text.as_str()));
        out.extend(place.as_ref().map(print::place_to_text));
        match (plan, refusal) {
            (Some(plan), _) if plan.forms.is_empty() && plan.lock.is_none() && !plan.warns() => {
                out.push_str("relayed as it is written\n");
            }
            (Some(plan), _) => out.push_str(&print::to_text(plan)),
            (None, Some(refusal)) => {
                let _ = writeln!(out, "refused  {}", refusal.report);
            }
            (None, None) => {}
        }
        out.push('\n');
    }
    out
}
