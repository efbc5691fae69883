//! What the client knows of rows that its transaction has locked.
//!
//! It owns the question for a digest of a statement's rows. It keeps true: between the ROLLBACK of the transaction and its second run the rows are
//! free, and if anybody has changed them, the transaction has failed with 40001, as a transaction that another one has overtaken. The client gets
//! nothing of the questions, and the transaction is as it was before them.

use super::AheadRun;
use super::case::not_ahead;
use super::replay::conflict;
use crate::backend::Answer;
use crate::execute::RunError;
use crate::pg::sqlstate;
use crate::plan::ahead::NotAhead;
use crate::session::ahead_statements::Told;
use crate::session::sent::{Case, How, Sent};
use crate::wire::message::Batch;

/// What is set while the questions are asked, in a savepoint. The transaction has these rows already, so that only a row that has come since can
/// be locked by somebody else. It may be for a moment, but the transaction holds its own locks meanwhile. No digit of a number may be missing.
const SETTINGS: [&str; 3] =
    ["SET LOCAL lock_timeout = '1s'", "SET LOCAL statement_timeout = 0", "SET LOCAL extra_float_digits = 3"];

/// Goes before and behind a query, for the number of its rows and a digest of them in any order.
const DIGEST: [&str; 2] = [
    "SELECT pg_catalog.count(*)::pg_catalog.text, \
     pg_catalog.md5(pg_catalog.string_agg((r.*)::pg_catalog.text, E'\\n' \
     ORDER BY (r.*)::pg_catalog.text COLLATE pg_catalog.\"C\")) FROM (\n",
    "\n) r",
];

impl AheadRun<'_> {
    /// Asks for what the client has been told and must be told again, before the transaction is suspended.
    pub(super) async fn told(&mut self, case: &Case) -> Result<Result<Vec<Told>, NotAhead>, RunError> {
        if case.compared.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let Some(answer) = self.ask_again(&case.sent, case.compared.iter().copied()).await? else {
            return Ok(Err(cannot_compare("the encodings of this session cannot express it")));
        };
        match answer.error {
            None => Ok(match told_by(&answer.rows, &case.compared) {
                Some(told) => Ok(told),
                None => Err(cannot_compare("the answer is incomplete")),
            }),
            // The cancel is for the client's statement, so its transaction has failed.
            Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => Err(RunError::Server(error)),
            Some(error) => {
                let mut batch = Batch::new();
                batch.undo_savepoint();
                self.channel.ask(batch, None).await?.ok().map_err(RunError::Server)?;
                Ok(Err(cannot_compare(&format!("{} (SQLSTATE {})", error.message(), error.sqlstate()))))
            }
        }
    }

    /// Asks again, at the end of the second run.
    ///
    /// # Errors
    /// Somebody else has changed the rows. The transaction is to fail.
    pub(super) async fn is_still_true(&mut self, sent: &[Sent], told: &[Told]) -> Result<(), RunError> {
        if told.is_empty() {
            return Ok(());
        }
        let places: Vec<usize> = told.iter().map(Told::place).collect();
        let Some(answer) = self.ask_again(sent, places.iter().copied()).await? else {
            return Err(RunError::Report(conflict("The rows that it has read could not be read again.".to_owned())));
        };
        match answer.error {
            Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => Err(RunError::Server(error)),
            Some(error) => Err(RunError::Report(conflict(format!(
                "The rows that it has read could not be read again: {} (SQLSTATE {}).",
                error.message(),
                error.sqlstate()
            )))),
            None if told_by(&answer.rows, &places).as_deref() == Some(told) => Ok(()),
            None => Err(RunError::Report(conflict(
                "Rows that it has read and locked have been changed meanwhile.".to_owned(),
            ))),
        }
    }

    /// Asks for the digests of these statements in one round trip. `None`: one of them cannot be expressed.
    async fn ask_again(
        &mut self,
        sent: &[Sent],
        places: impl Iterator<Item = usize>,
    ) -> Result<Option<Answer>, RunError> {
        let speech = self.channel.speech();
        let mut batch = Batch::new();
        batch.savepoint();
        SETTINGS.iter().for_each(|sql| batch.statement(sql, &[]));
        for place in places {
            let Some(one) = sent.get(place) else { return Ok(None) };
            let Some(text) = speech.say(&one.statement.text) else { return Ok(None) };
            let sql = [DIGEST[0].as_bytes(), &text, DIGEST[1].as_bytes()].concat();
            match &one.how {
                How::Text => batch.statement_with(sql, &[0, 0], &[0; 4]),
                How::Bound { types, parameters } | How::Prepared { types, parameters, .. } => {
                    batch.statement_with(sql, types, parameters);
                }
            }
        }
        batch.undo_savepoint();
        self.channel.cancel_settled().await;
        Ok(Some(self.channel.ask(batch, None).await?))
    }
}

/// The digests in the rows of the answer. `None`: these are not the rows of the questions.
fn told_by(rows: &[Vec<Option<String>>], places: &[usize]) -> Option<Vec<Told>> {
    let told = || rows.iter().zip(places).map(|(row, place)| Told::new(*place, row.clone()));
    (rows.len() == places.len()).then(|| told().collect())
}

fn cannot_compare(why: &str) -> NotAhead {
    not_ahead(
        format!("The rows that the transaction has read and locked cannot be compared: {why}."),
        "Send the statement outside a transaction.",
    )
}
