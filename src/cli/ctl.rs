//! `pgsluice ctl`: says a command to the console of a running proxy, and prints the answer.
//!
//! This file owns the arguments, the command's text and the printed table. [`super::pgpass`] has the password. Invariant: a word of the shell never
//! becomes more than one word or string of the command.

use super::backend::target;
use super::failure::Failure;
use super::pgpass;
use crate::config::{Address, Config, Overrides};
use crate::operator::{Error, log_in};
use clap::Args;
use std::env::var;
use std::path::PathBuf;
use tokio::runtime::Builder;
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

/// `pgsluice ctl`'s arguments.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The address of the proxy; the default is the first Unix socket of the settings, or else their first address
    #[arg(long, value_name = "HOST:PORT|unix:DIR")]
    proxy: Option<Address>,
    /// The proxy's file of settings, for its address and the name of the console
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The user of the console; the default is PGUSER, or else USER. PGPASSWORD or the password file has the password
    #[arg(long)]
    user: Option<String>,
    /// The command, such as `show sessions`, `show config like locks.%`, `set locks.poll 100ms`, `approve 12 reason "looks fine"`
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<String>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = Config::load(self.config.as_deref(), Overrides::default());
        let config = config.map_err(|error| Failure(error.to_string()))?;
        let listen = &config.proxy.listen;
        let unix = listen.iter().find(|address| matches!(address, Address::Unix { .. }));
        let address = self.proxy.as_ref().or(unix).or_else(|| listen.first());
        let address = address.ok_or_else(|| Failure("no address of a proxy; use --proxy".to_owned()))?;
        let user = self.user.clone().or_else(|| var("PGUSER").ok()).or_else(|| var("USER").ok());
        let user = user.ok_or_else(|| Failure("no user is set; use --user or PGUSER".to_owned()))?;
        let database = &config.console.database;
        let mut login = tokio_postgres::Config::new();
        login.user(&user).dbname(database).application_name("pgsluice ctl");
        if let Some(password) = var("PGPASSWORD").ok().or_else(|| pgpass::password(address, database, &user)) {
            login.password(password);
        }
        let target = target(address)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(format!("could not start a runtime: {error}")))?;
        let said = runtime.block_on(async {
            let (client, mut connection) = log_in(&login, &target).await?;
            let notices = async move {
                while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    if let AsyncMessage::Notice(notice) = message {
                        eprintln!("{}:  {}", notice.severity(), notice.message());
                    }
                }
                // The client hears of the end when the connection is gone.
                drop(connection);
                std::future::pending().await
            };
            let command = command(&self.words);
            tokio::select! {
                said = say(&client, &command) => said,
                never = notices => never,
            }
        });
        let said = said.map_err(|error| Failure(failure(address, &error)))?;
        print!("{said}");
        Ok(())
    }
}

/// The error as psql would show it.
fn failure(address: &Address, error: &Error) -> String {
    let db = match error {
        Error::Server(error) => error.as_db_error(),
        Error::Connect(_) => None,
    };
    let Some(db) = db else { return format!("could not ask the console at {address}: {error}") };
    let mut text = format!("{}:  {}", db.severity(), db.message());
    for (name, part) in [("DETAIL", db.detail()), ("HINT", db.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("\n{name}:  {part}"));
        }
    }
    text
}

async fn say(client: &Client, command: &str) -> Result<String, Error> {
    let mut names: Vec<String> = Vec::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for message in client.simple_query(command).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                names = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect());
            }
            _ => {}
        }
    }
    Ok(if names.is_empty() { String::new() } else { table(&names, &rows) })
}

/// A table with aligned columns, as psql prints it.
fn table(names: &[String], rows: &[Vec<String>]) -> String {
    let length = |text: &String| text.chars().count();
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(at, name)| rows.iter().filter_map(|row| row.get(at)).map(length).max().unwrap_or(0).max(length(name)))
        .collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} ")).collect();
        format!("{}\n", padded.join("|").trim_end())
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let mut text = line(names);
    text.push_str(&format!("{}\n", rule.join("+")));
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

/// The command of the shell's words. A shell takes quotes away, so that the texts of a command get theirs here.
fn command(words: &[String]) -> String {
    let quoted = |text: &str| match text.starts_with('\'') && text.ends_with('\'') && text.len() > 1 {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "''")),
    };
    let is = |word: &str, keyword: &str| word.eq_ignore_ascii_case(keyword);
    let mut out: Vec<String> = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    if words.peek().is_some_and(|word| is(word, "set")) {
        out.extend(words.next().map(str::to_owned));
        let (key, value) = words.next().map(|word| word.split_once('=').unwrap_or((word, ""))).unwrap_or_default();
        let value = if value.is_empty() {
            words.find(|word| *word != "=" && !is(word, "to")).unwrap_or_default()
        } else {
            value
        };
        out.extend([key.to_owned(), "=".to_owned(), quoted(value)]);
    }
    while let Some(word) = words.next() {
        out.push(word.to_owned());
        if is(word, "like") || is(word, "reason") {
            out.extend(words.next().map(quoted));
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell_become_a_command() {
        let shell = |words: &str| command(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(shell("show sessions"), "show sessions");
        assert_eq!(shell("show config like locks.%"), "show config like 'locks.%'");
        assert_eq!(shell("set locks.poll 100ms"), "set locks.poll = '100ms'");
        assert_eq!(shell("set locks.poll=100ms reason it's"), "set locks.poll = '100ms' reason 'it''s'");
        assert_eq!(shell("set locks.poll = 100ms"), "set locks.poll = '100ms'");
        assert_eq!(command(&["show config like 'a%'".to_owned()]), "show config like 'a%'");
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["ä".to_owned(), "1".to_owned()], vec!["long".to_owned(), String::new()]];
        let shown = table(&["a".to_owned(), "name".to_owned()], &rows);
        assert_eq!(shown, " a    | name\n------+------\n ä    | 1\n long |\n");
    }
}
