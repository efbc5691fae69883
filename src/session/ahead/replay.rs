//! The client's transaction, run again after a statement was done ahead of it.
//!
//! It owns nothing. It keeps true: the client gets nothing of the replay, since it has got these answers already. Every statement that is run again
//! must have the same tag as before. If one has not, the transaction has failed with 40001, as a transaction that another one has overtaken.

use super::AheadRun;
use super::outlives::Suspended;
use super::suspend::TRIES;
use crate::execute::{Reply, RunError, Suspend};
use crate::pg::sqlstate;
use crate::plan::LockNeed;
use crate::report::Report;
use crate::session::change::{Place, Request};
use crate::session::journal::Journal;
use crate::session::reply::tags;
use crate::session::sent::{How, Sent, begin_of};
use crate::session::statement::acts;
use crate::session::transaction::fail;
use crate::sql::EffectKind;
use crate::wire::error_response::ServerError;
use crate::wire::message::{Batch, put_frame};
use crate::wire::speech::Speech;
use bytes::{BufMut, BytesMut};

impl AheadRun<'_> {
    /// Begins the client's transaction, and runs its statements again up to this place.
    ///
    /// # Errors
    /// A statement had another outcome than before. The transaction has failed.
    pub(super) async fn replay(&mut self, sent: &[Sent], suspended: &Suspended, end: usize) -> Result<(), RunError> {
        self.channel.set_muted(true);
        let mut journal = self.block.suspend_journal();
        let result = loop {
            let first = journal.as_deref().map_or(&[][..], Journal::first);
            match self.run_again(sent, suspended, end, first).await {
                Err(RunError::Suspend(Suspend::Deadlock(deadlock))) => {
                    // A statement that keeps its place waits for a session that waits for what has been run again.
                    let noted = journal.as_mut().is_some_and(|journal| journal.lock_first(end, &deadlock.locks));
                    if !noted {
                        break Err(RunError::Report(deadlock.report));
                    }
                    self.shared.metrics.blocks_locked_first.add();
                    self.roll_back(false).await?;
                }
                result => break result,
            }
        };
        self.block.resume_journal(journal);
        self.channel.set_muted(false);
        if matches!(result, Err(RunError::Lost)) {
            return result;
        }
        if !suspended.locks.is_empty() && self.channel.status() == b'T' {
            self.surely(|batch| {
                suspended.locks.iter().for_each(|lock| batch.statement(&lock.call("pg_advisory_unlock"), &[]));
            })
            .await?;
        }
        if result.is_err() && self.channel.status() == b'T' {
            fail(self.channel).await?;
        }
        self.shared.metrics.blocks_replayed.add();
        result
    }

    /// Begins the client's transaction, and makes it fail. It has no savepoint to go back to, so nothing of it needs to be run again.
    pub(super) async fn begin_failed(&mut self, sent: &[Sent], suspended: &Suspended) -> Result<(), RunError> {
        if !suspended.locks.is_empty() {
            self.surely(|batch| {
                suspended.locks.iter().for_each(|lock| batch.statement(&lock.call("pg_advisory_unlock"), &[]));
            })
            .await?;
        }
        let begin = begin_of(sent);
        for _ in 0..TRIES {
            self.channel.cancel_settled().await;
            self.channel.ask_one(begin, &[]).await?;
            if self.channel.status() != b'I' {
                break;
            }
        }
        Ok(fail(self.channel).await?)
    }

    async fn run_again(
        &mut self,
        sent: &[Sent],
        suspended: &Suspended,
        end: usize,
        first: &[(usize, LockNeed)],
    ) -> Result<(), RunError> {
        let mut batch = Batch::new();
        batch.statement(begin_of(sent), &[]);
        suspended.locks.iter().for_each(|lock| batch.statement(&lock.call("pg_advisory_xact_lock"), &[]));
        if let Some(error) = self.channel.ask(batch, None).await?.error {
            return Err(RunError::Server(error));
        }
        self.block.replayed();
        self.take_first(first, sent, end, suspended).await?;
        let mut together: Vec<&Sent> = Vec::new();
        for (place, one) in sent.iter().enumerate().take(end).skip(1) {
            if one.taken_back || self.block.ahead().is_some_and(|ahead| ahead.is_done(place)) {
                continue;
            }
            match one.effect.kind {
                // A read was true when it was answered.
                EffectKind::Read | EffectKind::AdvisoryXact | EffectKind::Keep => {}
                // Its locks are asked for as they were the first time.
                EffectKind::Ddl | EffectKind::Lock if acts(&one.statement) => {
                    self.run_together(&std::mem::take(&mut together)).await?;
                    let request = Request { statement: &one.statement, offset: 0, place: Place::InBlock(None) };
                    let Reply { frames } = Box::pin(self.changes.run(self.channel, self.block, request)).await?;
                    compare(&[one], &tags(&frames))?;
                }
                _ => together.push(one),
            }
        }
        self.run_together(&together).await?;
        self.is_still_true(sent, &suspended.told).await
    }

    /// Runs several statements in one round trip.
    async fn run_together(&mut self, run: &[&Sent]) -> Result<(), RunError> {
        if run.is_empty() {
            return Ok(());
        }
        let speech = self.channel.speech();
        let mut batch = Batch::new();
        for one in run {
            put(&mut batch, one, &speech)?;
        }
        let visible: Vec<usize> = (0..run.len()).collect();
        let answer = self.channel.ask_each(batch, &visible).await?;
        let tags = tags(&answer.completion);
        match answer.error {
            None => compare(run, &tags),
            Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => Err(RunError::Server(error)),
            Some(error) => Err(RunError::Report(failed(run.get(answer.done).copied(), &error))),
        }
    }
}

/// Puts a statement into the batch as the client has sent it.
fn put(batch: &mut Batch, one: &Sent, speech: &Speech) -> Result<(), RunError> {
    // A text that the batch itself put into the session's encodings would make it take the client's parameters for its own.
    let said = speech.say(&one.statement.text);
    let text = said.ok_or_else(|| RunError::Report(conflict("A statement could not be sent again.".to_owned())));
    match &one.how {
        How::Text => batch.statement_with(text?, &[0, 0], &[0; 4]),
        How::Bound { types, parameters } => batch.statement_with(text?, types, parameters),
        How::Prepared { name, parameters, .. } => {
            let mut bind = BytesMut::new();
            bind.put_slice(PORTAL);
            bind.put_slice(name);
            bind.put_u8(0);
            bind.put_slice(parameters);
            bind.put_slice(&[0, 0]);
            let mut execute = BytesMut::new();
            put_frame(&mut execute, b'E', |b| {
                b.put_slice(PORTAL);
                b.put_u32(0);
            });
            batch.bound(&bind, &execute);
        }
    }
    Ok(())
}

/// The portal of a statement that the client has prepared.
const PORTAL: &[u8] = b"pgsluice replay\0";

fn compare(run: &[&Sent], tags: &[&[u8]]) -> Result<(), RunError> {
    let differs = run.iter().zip(tags).find(|(one, tag)| one.tag != **tag);
    match differs {
        None if run.len() == tags.len() => Ok(()),
        None => Err(RunError::Report(conflict("It did not give the same number of answers.".to_owned()))),
        Some((one, now)) => Err(RunError::Report(conflict(format!(
            "A statement gave {} when it was run again, and {} before.",
            String::from_utf8_lossy(now),
            String::from_utf8_lossy(&one.tag)
        )))),
    }
}

fn failed(one: Option<&Sent>, error: &ServerError) -> Report {
    let tag = one.map(|one| String::from_utf8_lossy(&one.tag).into_owned()).unwrap_or_default();
    conflict(format!(
        "A statement that gave {tag} before has failed: {} (SQLSTATE {}).",
        error.message(),
        error.sqlstate()
    ))
}

/// The error of a transaction that had another outcome when it was run again.
pub(super) fn conflict(what: String) -> Report {
    Report::error(sqlstate::SERIALIZATION_FAILURE, "could not serialize access due to concurrent update")
        .detail(format!("The transaction was run again behind a schema change that was done ahead of it. {what}"))
        .hint("The transaction might succeed if retried.")
}
