//! A conversation of the console without a socket: what a string would be answered. The fuzz targets read any bytes with it.
//!
//! It owns nothing. It keeps true: a string goes through the reader of commands and the answers that a client would get.

use super::command::{Command, commands};
use super::host::{FIRST_PID, Host, Identity};
use super::run::{Answer, Conversation, columns, parameters};
use super::table::{Heading, Value};
use crate::config::Role;
use crate::report::Report;
use std::sync::Arc;

/// The columns and the rows of an answer, as text.
type Shown = (Vec<String>, Vec<Vec<Option<String>>>);

/// One command of a string, and its answer.
#[derive(Debug)]
pub struct Rehearsed {
    /// The command as it was understood.
    pub command: String,
    /// It acts on the proxy, so that a viewer may not do it.
    pub is_verb: bool,
    /// The columns with which it is described.
    pub described: Vec<String>,
    pub answer: Result<Shown, Report>,
}

/// The answers to a string, for a user of this role. Each parameter is NULL.
///
/// # Errors
/// A statement of the string is not understood.
pub async fn rehearse(host: &Arc<dyn Host>, role: Role, text: &str) -> Result<Vec<Rehearsed>, Report> {
    let who = Identity { user: "rehearsal".to_owned(), role, address: None };
    let mut conversation = Conversation::new(Arc::clone(host), who, FIRST_PID);
    let mut rehearsed = Vec::new();
    for command in &commands(text)? {
        let answer = conversation.answer(command, &vec![None; parameters(command)]).await;
        rehearsed.push(Rehearsed {
            command: format!("{command:?}"),
            is_verb: matches!(command, Command::Verb(_)),
            described: columns(command).into_iter().map(|column| column.name).collect(),
            answer: answer.map(shown),
        });
    }
    Ok(rehearsed)
}

fn shown(answer: Answer) -> Shown {
    let Answer::Rows(_, table) = answer else { return (Vec::new(), Vec::new()) };
    // Both forms are made, as a client may ask for either.
    let value = |(value, column): (&Value, &Heading)| {
        let _ = value.encoded(column.kind, true);
        value.as_text()
    };
    let rows = table.rows.iter().map(|row| row.iter().zip(&table.columns).map(value).collect()).collect();
    (table.columns.iter().map(|column| column.name.clone()).collect(), rows)
}
