//! What is asked about partitions before a plan is made, round by round.
//!
//! Invariant: everything that a round does on the server is rolled back, and it waits for no lock longer than a moment.

use super::Session;
use crate::catalog::tree::{Inquire, Round};
use crate::catalog::{Facts, attach, tree};
use crate::execute::Stop;
use crate::lanes;
use crate::pg::sqlstate;
use crate::sql::Statement;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::Duration;

/// While somebody else changes a table, it is looked at again so many times, after naps: without an answer the statement
/// would have to run as it is.
const TRIES: usize = 100;
const NAP: Duration = Duration::from_millis(100);

impl Session {
    /// What a plan for partitions needs; nothing is learned where it cannot be told.
    pub(super) async fn partitions(&mut self, statement: &Statement, facts: &mut Facts) -> Result<(), Stop> {
        let small = self.limits().small_table;
        if let Some(mut inquiry) = tree::Inquiry::new(statement, facts, small) {
            facts.tree = if self.inquire(&mut inquiry).await? { inquiry.tree() } else { None };
        }
        if let Some(mut inquiry) = attach::Inquiry::new(statement, facts, small) {
            facts.attach = if self.inquire(&mut inquiry).await? { inquiry.facts() } else { None };
        }
        Ok(())
    }

    /// False: something was not answered.
    async fn inquire(&mut self, inquiry: &mut (dyn Inquire + Send)) -> Result<bool, Stop> {
        while let Some(round) = inquiry.round() {
            let Some(text) = self.answer_to(&round).await? else { return Ok(false) };
            if let Err(error) = inquiry.answer(&text) {
                tracing::warn!(%error, "cannot read what was asked about partitions");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The text that a round is answered with; `None`: something failed.
    async fn answer_to(&mut self, round: &Round) -> Result<Option<String>, Stop> {
        let parameters: Vec<&str> = round.parameters.iter().map(String::as_str).collect();
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            batch.statement("BEGIN", &[]);
            batch.statement("SET LOCAL lock_timeout = 50", &[]);
            for sql in &round.first {
                batch.statement(sql, &[]);
            }
            self.talk.put_question(&mut batch, round.question, &parameters);
            match self.answered_and_rolled_back(batch).await? {
                Ok(rows) => {
                    let value = rows.into_iter().next_back().and_then(|row| row.into_iter().next()?);
                    return Ok(value.map(|text| self.talk.text(&text)));
                }
                Err(error) if error.sqlstate() == sqlstate::LOCK_NOT_AVAILABLE => self.nap().await?,
                Err(error) => {
                    tracing::debug!(sqlstate = error.sqlstate(), "a question about partitions was not answered");
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    async fn nap(&mut self) -> Result<(), Stop> {
        if self.talk.link.front_gone() {
            return Err(Stop::ClientGone);
        }
        let nap = lanes::nap_sql(NAP, "waiting to look at a table that somebody else changes");
        let Some(error) = self.talk.ask_one(&nap, &[]).await?.error else { return Ok(()) };
        self.talk.take_cancelled();
        Err(Stop::Server(ServerError::new(error.with_position(|_| None))))
    }
}
