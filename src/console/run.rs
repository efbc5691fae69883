//! The answer to a command, for one session of the console.
//!
//! [`Conversation`] owns what a session has beside its socket: who it is, and its settings. It keeps true: the columns that a command was described with
//! are the columns of its answer.

use super::command::Command;
use super::host::{Host, Identity};
use super::noise::{self, SessionSettings, Surroundings};
use super::table::{Heading, Kind, Table, Value};
use super::views;
use crate::report::Report;
use std::sync::Arc;

/// The answer to a command.
#[derive(Debug)]
pub(super) enum Answer {
    Rows(&'static str, Table),
    /// The tag, and a NOTICE before it.
    Done(&'static str, Option<Report>),
    Begin(&'static str),
    End(&'static str),
}

/// One session of the console, after its login.
#[derive(Debug)]
pub(super) struct Conversation {
    host: Arc<dyn Host>,
    who: Identity,
    pid: i32,
    settings: SessionSettings,
}

impl Conversation {
    pub(super) fn new(host: Arc<dyn Host>, who: Identity, pid: i32) -> Self {
        Self { host, who, pid, settings: SessionSettings::default() }
    }

    /// Sets what the startup packet has set.
    pub(super) fn begin_with(&mut self, name: &str, value: &str) {
        self.settings.set(name, value);
    }

    /// Answers a command. `parameters`: the values of `$1` and so on, as text.
    ///
    /// # Errors
    /// The command cannot be done.
    pub(super) async fn answer(&mut self, command: &Command, parameters: &[Option<String>]) -> Result<Answer, Report> {
        let host = &*self.host;
        if let (Some(keeper), Command::View(..) | Command::Change(_)) = (host.holds().keeper(), command) {
            keeper.refresh().await;
        }
        Ok(match command {
            Command::View(view, pattern) => {
                let mut table = view.table(host);
                pattern.iter().for_each(|pattern| table.keep_like(pattern));
                Answer::Rows("SHOW", table)
            }
            Command::Change(number) => Answer::Rows("SHOW", views::change(host, *number)?),
            Command::Setting(name) => {
                let value = self.setting(name).ok_or_else(|| noise::unrecognized(name))?;
                Answer::Rows("SHOW", Table { columns: columns(command), rows: vec![vec![Value::Text(value)]] })
            }
            Command::Settings => {
                let all = self.settings.all(host, &self.who);
                let row = |(name, value)| vec![Value::Text(name), Value::Text(value), Value::text("")];
                Answer::Rows("SHOW", Table { columns: columns(command), rows: all.into_iter().map(row).collect() })
            }
            Command::Verb(verb) => Answer::Done(verb.tag(), verb.run(host, &self.who).await?),
            Command::Set(name, value) => {
                self.settings.set(name, value);
                Answer::Done("SET", None)
            }
            Command::Nothing(tag) => Answer::Done(tag, None),
            Command::Begin(tag) => Answer::Begin(tag),
            Command::End(tag) => Answer::End(tag),
            Command::Select(select) => {
                let around = Surroundings { host, who: &self.who, pid: self.pid };
                Answer::Rows("SELECT", noise::select(&around, &mut self.settings, select, parameters)?)
            }
        })
    }

    /// One setting: the proxy's, or one that PostgreSQL has.
    fn setting(&self, name: &str) -> Option<String> {
        let of_the_proxy = self.host.config().values().into_iter().find(|(key, _, _)| key == name);
        of_the_proxy.map(|(_, value, _)| value).or_else(|| self.settings.get(&*self.host, &self.who, name))
    }
}

/// The columns of a command's answer; none if the answer has no rows.
pub(super) fn columns(command: &Command) -> Vec<Heading> {
    let text = |name: &str| Heading { name: name.to_owned(), kind: Kind::Text };
    match command {
        Command::View(view, _) => view.columns(),
        Command::Change(_) => views::change_columns(),
        Command::Setting(name) => vec![text(name)],
        Command::Settings => vec![text("name"), text("setting"), text("description")],
        Command::Select(select) => noise::headings(select),
        Command::Verb(_) | Command::Set(..) | Command::Nothing(_) | Command::Begin(_) | Command::End(_) => Vec::new(),
    }
}

/// The number of parameters of a command.
pub(super) fn parameters(command: &Command) -> usize {
    match command {
        Command::Select(select) => select.parameters,
        _ => 0,
    }
}
