//! Questions about names, and the proxy's own words, in any encodings of the session.
//!
//! It owns only the mark that a name was read which cannot be sent. It keeps true: a name that is read here is the name that the server has, or
//! the name is marked so that it is never sent (`wire/speech.rs`). [`ServerChannel::take_unsayable`] then tells.

use super::answer::Answer;
use super::channel::ServerChannel;
use crate::relay::BackendLost;
use crate::wire::message::Batch;
use crate::wire::speech::Sayable;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::Ordering;

impl ServerChannel {
    /// Asks one question whose answer is one text ([`ServerChannel::put_question`]).
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn question(&mut self, sql: &str, parameters: &[&str]) -> Result<Answer, BackendLost> {
        let mut batch = Batch::new();
        self.put_question(&mut batch, sql, parameters);
        self.ask(batch, None).await
    }

    /// Asks several questions in one round trip, each with its parameters. The answer to each is one text.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn questions(&mut self, questions: &[(&str, Vec<&str>)]) -> Result<Answer, BackendLost> {
        let mut batch = Batch::new();
        self.put_questions(&mut batch, |channel, batch| {
            for (sql, parameters) in questions {
                batch.statement(&channel.encoded(sql), parameters);
            }
        });
        self.ask(batch, None).await
    }

    /// Adds a question to a batch. Its answer is one text, which the client's encoding does not change. [`ServerChannel::text`] reads it.
    ///
    /// Just-in-time compilation is off for the question. If a planner setting of the client's makes the question look costly, the server would
    /// compile it for seconds to run it for milliseconds. The client's transaction keeps its setting.
    pub fn put_question(&self, batch: &mut Batch, sql: &str, parameters: &[&str]) {
        self.put_questions(batch, |channel, batch| batch.statement(&channel.encoded(sql), parameters));
    }

    fn put_questions(&self, batch: &mut Batch, put: impl FnOnce(&Self, &mut Batch)) {
        // Servers before 11 have no such setting. The statement gives no row.
        const JIT_OFF: &str = "SELECT WHERE CASE WHEN pg_catalog.current_setting('jit', true) OPERATOR(pg_catalog.=) 'on' \
             THEN pg_catalog.set_config('jit', 'off', true) IS NULL ELSE false END";
        let inside = self.link.status() != b'I';
        if inside {
            batch.savepoint();
        }
        batch.statement(JIT_OFF, &[]);
        put(self, batch);
        if inside {
            batch.undo_savepoint();
        }
    }

    /// Sends one statement of the proxy's own that may fail. In the client's block it runs in a savepoint. If it fails,
    /// [`ServerChannel::roll_back_question`] rolls back to the savepoint.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_in_savepoint(&mut self, sql: &str) -> Result<Answer, BackendLost> {
        let inside = self.link.status() != b'I';
        let mut batch = Batch::new();
        if inside {
            batch.savepoint();
        }
        batch.statement(sql, &[]);
        if inside {
            batch.release_savepoint();
        }
        self.ask(batch, None).await
    }

    /// Rolls the client's block back to the savepoint of a question that has failed. This ends the savepoint and the failed state.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn roll_back_question(&mut self) -> Result<(), BackendLost> {
        if self.link.status() == b'E' {
            let mut batch = Batch::new();
            batch.undo_savepoint();
            self.ask(batch, None).await?;
        }
        Ok(())
    }

    fn encoded<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        if self.link.speech().sayable() == Sayable::All {
            return Cow::Borrowed(sql);
        }
        Cow::Owned(format!("SELECT {} FROM (\n{sql}\n) AS q(answer)", self.hexadecimal("q.answer::pg_catalog.text")))
    }

    fn hexadecimal(&self, text: &str) -> String {
        let encoding = if self.link.speech().converts() { "'UTF8'" } else { "pg_catalog.getdatabaseencoding()" };
        format!("pg_catalog.encode(pg_catalog.convert_to({text}, {encoding}), 'hex')")
    }

    /// The text in the answer to a [`ServerChannel::question`].
    pub fn text(&self, value: &str) -> String {
        let speech = &self.link.speech();
        if speech.sayable() == Sayable::All {
            return value.to_owned();
        }
        let text = speech.deciphered(value);
        if text.contains(char::REPLACEMENT_CHARACTER) || (speech.sayable() == Sayable::Ascii && !text.is_ascii()) {
            self.unsayable.store(true, Ordering::Relaxed);
        }
        text
    }

    /// Whether a name has been read since the last call that cannot be sent.
    pub fn take_unsayable(&self) -> bool {
        self.unsayable.swap(false, Ordering::Relaxed)
    }

    /// Sends one query of the proxy's whose rows hold names. The client's encoding does not change the names.
    ///
    /// # Errors
    /// As [`ServerChannel::ask`].
    pub async fn ask_rows(&mut self, sql: &str, parameters: &[&str]) -> Result<Answer, BackendLost> {
        let mut answer = self.ask_one(&self.in_json(sql), parameters).await?;
        answer.rows = self.decoded(answer.rows);
        Ok(answer)
    }

    /// The text of a query whose rows hold names. [`ServerChannel::decoded`] reads its rows.
    pub fn in_json<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        if self.link.speech().sayable() == Sayable::All {
            return Cow::Borrowed(sql);
        }
        let row = self.hexadecimal("pg_catalog.row_to_json(q)::pg_catalog.text");
        Cow::Owned(format!("SELECT {row}, 'pgsluice row' FROM (\n{sql}\n) AS q"))
    }

    /// The rows of queries, some of which were sent in the form of [`ServerChannel::in_json`].
    pub fn decoded(&self, rows: Vec<Vec<Option<String>>>) -> Vec<Vec<Option<String>>> {
        let read = |row: Vec<Option<String>>| match row.as_slice() {
            [Some(json), Some(mark)] if mark == "pgsluice row" => values(&self.text(json)).unwrap_or_default(),
            _ => row,
        };
        rows.into_iter().map(read).collect()
    }

    /// Words of the proxy's own. `?` stands for each character that the client's encoding cannot carry.
    pub fn words<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.link.speech().sayable() == Sayable::All || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect())
    }

    /// The bytes of a query that the proxy sends for the client. It has the names themselves if the session's encodings can carry them.
    pub fn said_or_in_words(&self, sql: &str) -> Vec<u8> {
        match self.link.speech().say(sql) {
            Some(bytes) => bytes.into_owned(),
            None => self.words(sql).into_owned().into_bytes(),
        }
    }

    /// Sends a batch to the backend, in the session's encodings.
    pub fn send(&mut self, batch: Batch) {
        let bytes = batch.said(&self.link.speech());
        self.link.send_to_server(&bytes);
    }
}

/// The values of a row in JSON, in their order. Names, numbers and booleans are as in the text form.
fn values(json: &str) -> Option<Vec<Option<String>>> {
    let row: Row = serde_json::from_str(json).ok()?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Bool(truth) => Some(if truth { "t" } else { "f" }.to_owned()),
        other => Some(other.to_string()),
    };
    Some(row.0.into_iter().map(text).collect())
}

/// The values of a JSON object. Two columns may have the same name, so it is not a map.
struct Row(Vec<serde_json::Value>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut values = Vec::new();
                while let Some((_, value)) = map.next_entry::<IgnoredAny, serde_json::Value>()? {
                    values.push(value);
                }
                Ok(Row(values))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn a_row_in_json_is_its_values_in_order() {
        let row = values(r#"{"b":"é\"","a":4294967295,"?column?":null,"?column?":true}"#).unwrap();
        assert_eq!(row, [Some("é\""), Some("4294967295"), None, Some("t")].map(|value| value.map(str::to_owned)));
        assert_eq!(values("7"), None);
    }
}
