//! `pgsluice plan`: prints what the proxy would do for each statement of a text. It changes nothing.
//!
//! With a backend, a plan is made from the backend's facts, as the proxy makes it. Without a backend, a plan is made from
//! supposed facts: those of a large table in use. The text is not run, so a table that an earlier statement creates is
//! supposed to be there, and empty, for a later statement.

use super::backend::Backend;
use super::failure::Failure;
use crate::catalog::Facts;
use crate::catalog::query::relations_of;
use crate::catalog::supposed::{self, SupposedSize};
use crate::config::{Address, Config};
use crate::pg::RelationName;
use crate::plan::{Limits, Plan, Refusal, plan, print};
use crate::sql::{Class, Statement, TransactionControl, parse};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt::Write;
use std::io::{Read, Write as _};
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
    /// The format of the answer: text for people, or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A statement and its plan or refusal.
#[derive(Debug, Serialize)]
struct Planned {
    /// The line of the text on which the statement starts, from 1.
    line: usize,
    statement: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let text = self.read()?;
        let statements = parse(&text).map_err(|reason| {
            Failure(format!(
                "{}: {reason}\nThe proxy would relay this text as it is, or refuse it.",
                self.file.display()
            ))
        })?;
        let backend = match &self.backend {
            Some(address) => Some(Backend::connect(address, self.user.as_deref(), self.dbname.as_deref())?),
            None => None,
        };
        let mut planner = Planner { backend, created: Vec::new(), in_transaction: false };
        let mut planned = Vec::new();
        for statement in &statements {
            let (plan, refusal) = match planner.plan(statement)? {
                Ok(plan) => (Some(plan), None),
                Err(refusal) => (None, Some(refusal)),
            };
            let line = 1 + text.bytes().take(statement.range.start).filter(|byte| *byte == b'\n').count();
            planned.push(Planned { line, statement: statement.text.clone(), plan, refusal });
        }
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

fn limits() -> Limits {
    let ddl = Config::default().ddl;
    Limits { small_table: ddl.small_table, rewrite: true, refuse_unsafe: false, refuse_exclude: false }
}

/// Plans the statements of a text in their order.
struct Planner {
    backend: Option<Backend>,
    /// The relations that earlier statements of the text create.
    created: Vec<RelationName>,
    in_transaction: bool,
}

impl Planner {
    fn plan(&mut self, statement: &Statement) -> Result<Result<Plan, Refusal>, Failure> {
        let facts = self.facts(statement)?;
        let planned = plan(statement, &facts, &limits());
        self.follow(statement);
        Ok(planned)
    }

    fn facts(&self, statement: &Statement) -> Result<Facts, Failure> {
        let mut facts = match &self.backend {
            Some(backend) if !relations_of(statement).is_empty() => backend.facts(statement, &limits())?,
            Some(_) | None => supposed::facts(statement, SupposedSize::Large),
        };
        facts.session.in_transaction = self.in_transaction;
        for asked in &mut facts.relations {
            let supposed = self.backend.is_none() || asked.found.is_none();
            if supposed && self.created.contains(&asked.name) {
                asked.found = Some(supposed::empty_table(&asked.name, self.in_transaction));
            }
        }
        Ok(facts)
    }

    /// Takes over the effects of the statement for those that follow.
    fn follow(&mut self, statement: &Statement) {
        match &statement.class {
            Class::Ddl(ddl) if supposed::creates(ddl) => self.created.extend(ddl.targets.iter().cloned()),
            Class::Transaction(TransactionControl::Begin) => self.in_transaction = true,
            Class::Transaction(TransactionControl::Commit { chain } | TransactionControl::Rollback { chain }) => {
                self.in_transaction = *chain;
            }
            Class::Transaction(TransactionControl::Prepare) => self.in_transaction = false,
            Class::Transaction(TransactionControl::Savepoint)
            | Class::Ddl(_)
            | Class::ExplainDdl(_)
            | Class::MayHideDdl { .. }
            | Class::AdvisoryLock(_)
            | Class::Newer
            | Class::Other => {}
        }
    }
}

fn to_text(planned: &[Planned], from_facts: bool) -> String {
    let mut out = String::new();
    if !from_facts {
        out.push_str("-- The facts are unknown: every relation is supposed to be a large table. With --backend a server is asked.\n\n");
    }
    for Planned { line, statement, plan, refusal } in planned {
        let first = statement.lines().next().unwrap_or_default();
        let more = if statement.contains('\n') { " …" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "-- line {line}: {first}{more}");
        match (plan, refusal) {
            (Some(plan), _) if plan.forms.is_empty() && !plan.warns() => out.push_str("relayed as it is written\n"),
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
