//! The first try (`plan/first.rs`): one round trip, which does all of the statement or nothing.
//!
//! It waits for nobody: what it names is locked with NOWAIT, and for what it does not name (the other end of a foreign key, say)
//! it stands in PostgreSQL's queue for a few milliseconds at most. In a transaction block the session's timeouts are kept
//! in settings of that transaction, and put back from there, as they are not known yet.

use super::attempt::{is_lock_failure, is_statement_timeout};
use super::{Execution, Reply, Stop};
use crate::backend::Answer;
use crate::lanes::lock_sql;
use crate::pg::sqlstate;
use crate::plan::Phase;
use crate::plan::first::First;
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::Duration;

/// For the locks that the statement takes beside those of what it names.
const PATIENCE: Duration = Duration::from_millis(10);

/// How many statements are done once the condition of a single relation holds: BEGIN or SAVEPOINT, and the condition.
const CONDITION_IS_DONE: usize = 2;

/// In a transaction block: keeps the session's timeouts for the rest of the transaction.
const KEEP: &str = "pg_catalog.set_config('pgsluice.lock_timeout', pg_catalog.current_setting('lock_timeout'), true), \
     pg_catalog.set_config('pgsluice.statement_timeout', pg_catalog.current_setting('statement_timeout'), true), ";

/// Puts them back.
const PUT_BACK_SQL: &str = "SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('pgsluice.lock_timeout'), true), \
     pg_catalog.set_config('statement_timeout', pg_catalog.current_setting('pgsluice.statement_timeout'), true)";

/// How a first try ended.
#[derive(Debug)]
pub enum Outcome {
    /// It came behind messages of the client's. One of those has failed, and the client has its error; nothing was tried.
    ClientFailed,
    /// Nothing was done, as the condition does not hold: it may not soon.
    NotSo,
    /// Nothing was done.
    InVain,
    Done(Reply),
}

impl Execution<'_> {
    /// Unless it is done, the statement is to go its full way.
    ///
    /// # Errors
    /// The client cancels, or is gone; or the backend is.
    pub async fn first_try(&mut self, first: &First) -> Result<Outcome, Stop> {
        let Some(phase) = first.plan.phases.first() else { return Ok(Outcome::InVain) };
        let (batch, visible) = self.first_batch(Batch::new(), first, phase);
        let answer = self.talk.ask(batch, Some(visible)).await?;
        self.first_answer(answer, phase).await
    }

    /// The same, in place of an Execute of the client's portal and in one pipeline with what the client has sent before it.
    ///
    /// # Errors
    /// As [`Execution::first_try`].
    pub async fn first_try_behind(&mut self, first: &First, portal: &str) -> Result<Outcome, Stop> {
        let Some(phase) = first.plan.phases.first() else { return Ok(Outcome::InVain) };
        let (batch, visible) = self.first_batch(Batch::behind(portal), first, phase);
        match self.talk.ask_behind(batch, Some(visible)).await? {
            Some(answer) => self.first_answer(answer, phase).await,
            None => Ok(Outcome::ClientFailed),
        }
    }

    async fn first_answer(&mut self, answer: Answer, phase: &Phase) -> Result<Outcome, Stop> {
        let Some(error) = answer.error else {
            self.metrics.lock_attempts.add();
            self.metrics.first_tries_done.add();
            let mut reply = Reply::default();
            reply.frames.unsplit(answer.notices);
            reply.frames.unsplit(answer.completion);
            return Ok(Outcome::Done(reply));
        };
        self.take_back().await?;
        if self.talk.link.front_gone() {
            return Err(self.leave(Stop::ClientGone).await);
        }
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            let stop = self.ended_by(error, phase);
            return Err(self.leave(stop).await);
        }
        tracing::debug!(sqlstate = error.sqlstate(), locked = is_lock_failure(&error), "not at the first try");
        let condition = error.sqlstate() == sqlstate::INVALID_TEXT_REPRESENTATION && answer.done < CONDITION_IS_DONE;
        Ok(if condition { Outcome::NotSo } else { Outcome::InVain })
    }

    /// A cancel, the session's own `statement_timeout`, or the hold budget.
    fn ended_by(&self, error: ServerError, phase: &Phase) -> Stop {
        let cancelled = self.talk.take_cancelled();
        let by_budget = self.hold_budget(phase).is_some_and(|budget| self.begun.elapsed() >= budget);
        let by_budget = by_budget && is_statement_timeout(&error);
        if by_budget && !cancelled { Stop::Report(self.over_hold_budget(phase)) } else { Stop::Server(error) }
    }

    /// A target list that sets the transaction's timeouts. A target is computed behind those before it.
    fn timeouts(&self, inside: bool, phase: &Phase) -> String {
        let wait = PATIENCE.min(self.config.locks.fallback_timeout).as_millis();
        let keep = if inside { KEEP } else { "" };
        let hold = self.hold_budget(phase).map(hold).unwrap_or_default();
        format!("{keep}pg_catalog.set_config('lock_timeout', '{wait}', true){hold}")
    }

    /// With the place of the client's statement in it.
    fn first_batch(&self, mut batch: Batch, first: &First, phase: &Phase) -> (Batch, usize) {
        let inside = self.in_transaction();
        batch.statement(if inside { "SAVEPOINT pgsluice" } else { "BEGIN" }, &[]);
        // One statement for all of them: each costs the server as much as what it does here.
        for (sql, parameters) in first.condition.questions(&self.timeouts(inside, phase)) {
            batch.statement(&sql, &parameters.iter().map(String::as_str).collect::<Vec<_>>());
        }
        for sql in lock_sql(&phase.locks, false) {
            batch.statement(&sql, &[]);
        }
        let visible = batch.statements;
        for step in &phase.steps {
            batch.statement(&step.sql, &[]);
        }
        if inside {
            batch.statement(PUT_BACK_SQL, &[]);
            batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
        } else {
            batch.statement("COMMIT", &[]);
        }
        (batch, visible)
    }
}

/// The hold budget, unless the session's own limit is stricter.
fn hold(budget: Duration) -> String {
    const OWN: &str = "pg_catalog.current_setting('statement_timeout')";
    let ms = budget.as_millis();
    format!(
        ", CASE WHEN {OWN} OPERATOR(pg_catalog.=) '0' \
         OR {OWN}::pg_catalog.interval OPERATOR(pg_catalog.>) '{ms} ms'::pg_catalog.interval \
         THEN pg_catalog.set_config('statement_timeout', '{ms}', true) END"
    )
}
