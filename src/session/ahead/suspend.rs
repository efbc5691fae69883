//! The ROLLBACK of the client's transaction, and what outlives it ([`Suspended`]).
//!
//! It owns nothing. It keeps true: the statements ahead run
//! under the settings of the transaction, and afterwards the session has its own settings again. The advisory locks are held over the gap, so
//! nobody else gets them.

use super::AheadRun;
use super::outlives::{AdvisoryKey, Suspended};
use crate::backend::Answer;
use crate::execute::RunError;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::session::ahead_statements::Told;
use crate::session::sent::Case;
use crate::wire::message::Batch;

/// How many times a question is asked if a cancel hits it each time.
pub(super) const TRIES: usize = 100;

/// How long a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Session,
    Transaction,
}

impl Scope {
    /// The third argument of `set_config`.
    fn is_local(self) -> &'static str {
        if self == Self::Transaction { "true" } else { "false" }
    }
}

impl AheadRun<'_> {
    /// Rolls the client's transaction back. The session then has the settings of the transaction.
    pub(super) async fn suspend(&mut self, case: &Case, told: Vec<Told>) -> Result<Suspended, RunError> {
        let names: Vec<&str> = case.settings().into_iter().collect();
        let inside = self.settings(&names).await?;
        let locks = self.roll_back(case.takes_advisory_locks()).await?;
        let outside = self.settings(&names).await?;
        self.set(&inside, Scope::Session).await?;
        Ok(Suspended { settings: outside, inside, locks, told })
    }

    /// Rolls the client's transaction back. Its advisory locks are the session's then, if `keeps_locks`.
    pub(super) async fn roll_back(&mut self, keeps_locks: bool) -> Result<Vec<AdvisoryKey>, RunError> {
        let locks = if keeps_locks { self.advisory_locks().await? } else { Vec::new() };
        let mut batch = Batch::new();
        locks.iter().for_each(|lock| batch.statement(&lock.call("pg_advisory_lock"), &[]));
        batch.statement("ROLLBACK", &[]);
        let answer = self.channel.ask(batch, None).await?;
        if self.channel.status() != b'I' {
            // A cancel has hit it.
            self.channel.ask_one("ROLLBACK", &[]).await?;
            tracing::debug!(error = ?answer.error.map(|error| error.sqlstate().to_owned()), "the ROLLBACK of a transaction was cancelled");
        }
        Ok(locks)
    }

    /// Gives the session its own settings again.
    pub(super) async fn wake(&mut self, suspended: &Suspended) -> Result<(), RunError> {
        self.set(&suspended.settings, Scope::Session).await
    }

    async fn settings(&mut self, names: &[&str]) -> Result<Vec<(String, String)>, RunError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self
            .surely(|batch| {
                names.iter().for_each(|name| {
                    batch.statement("SELECT pg_catalog.current_setting($1, true)", &[name]);
                });
            })
            .await?;
        let values = answer.rows.into_iter().map(|row| row.into_iter().next().flatten());
        Ok(names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect())
    }

    pub(super) async fn set(&mut self, settings: &[(String, String)], scope: Scope) -> Result<(), RunError> {
        if settings.is_empty() {
            return Ok(());
        }
        self.surely(|batch| {
            settings.iter().for_each(|(name, value)| {
                batch.statement(
                    "SELECT pg_catalog.set_config($1, $2, $3::pg_catalog.text::pg_catalog.bool)",
                    &[name, value, scope.is_local()],
                );
            });
        })
        .await
        .map(|_| ())
    }

    /// The advisory locks of this session.
    async fn advisory_locks(&mut self) -> Result<Vec<AdvisoryKey>, RunError> {
        let answer = self.surely(|batch| batch.statement(LOCKS_SQL, &[])).await?;
        Ok(answer.rows.iter().filter_map(|row| AdvisoryKey::read(row)).collect())
    }

    /// Asks a batch, and asks it again if a cancel hits it.
    pub(super) async fn surely(&mut self, fill: impl Fn(&mut Batch)) -> Result<Answer, RunError> {
        for _ in 0..TRIES {
            self.channel.cancel_settled().await;
            let mut batch = Batch::new();
            fill(&mut batch);
            let answer = self.channel.ask(batch, None).await?;
            match answer.error {
                None => return Ok(answer),
                Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED && self.channel.status() != b'E' => {}
                Some(error) => return Err(RunError::Server(error)),
            }
        }
        Err(RunError::Report(Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request")))
    }
}

const LOCKS_SQL: &str = "SELECT l.classid::pg_catalog.text, l.objid::pg_catalog.text, l.objsubid::pg_catalog.text, l.mode \
     FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted \
     AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";
