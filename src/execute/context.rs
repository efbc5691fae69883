//! The context of a run: the server channel, the settings, the facts, and the time at which the statement began.
//!
//! This file owns nothing that a run changes. It keeps true that every server error reaches the client in the terms of the client's own
//! statement, and that a cancel takes effect wherever the proxy waits.

use crate::backend::{Answer, BackendLost, ServerChannel};
use crate::catalog::Facts;
use crate::catalog::identity::NAMES_SQL;
use crate::catalog::query::array;
use crate::config::Config;
use crate::execute::hold::HoldSource;
use crate::execute::outcome::{Reply, RunError, STALE};
use crate::execute::server_error::{contains_nulls, outside_bounds, with_name};
use crate::execute::timing::jitter;
use crate::execute::turn::Turn;
use crate::lanes;
use crate::metrics::Metrics;
use crate::pg::{RelationName, sqlstate};
use crate::plan::Step;
use crate::report::{Report, Severity};
use crate::webhook::{WaitWatch, Webhook};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// How many times a question is asked if a cancel hits it each time.
const QUESTIONS: usize = 100;

/// How many times lanes are given back if a cancel hits each try. Only a program cancels a session more often.
const GIVE_TRIES: usize = 100;

/// What is known of the time that a statement takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeGuess {
    /// The plan is one step, perhaps because the table is small. If the step takes long, another plan may be better.
    Small,
    /// Nothing is known.
    Any,
    /// The statement took longer than its hold budget as one step.
    Slow,
}

/// What running a statement needs, and nothing that a run chooses itself.
#[derive(Debug)]
pub struct ExecutionContext<'a> {
    channel: &'a mut ServerChannel,
    config: &'a Config,
    metrics: &'a Metrics,
    facts: &'a Facts,
    /// The number of characters before the statement in the string that the client sent, for error positions.
    offset: usize,
    /// When the statement began. The session's `statement_timeout` counts from here.
    begun: Instant,
    /// The lanes that the statement holds until it is over.
    turn: Option<&'a mut Turn>,
    /// Those who may hold the run between two steps.
    hold_source: Option<&'a mut dyn HoldSource>,
    size_guess: SizeGuess,
    /// The client's transaction may be suspended, so that a wait for a lock goes on without the locks of the transaction.
    suspendable: bool,
    /// The client's transaction may be run again behind a deadlock.
    may_run_again: bool,
    /// Who is told of long waits.
    watch: Option<(&'a Webhook, &'a WaitWatch)>,
}

impl<'a> ExecutionContext<'a> {
    /// Returns the context of a statement that begins now.
    pub fn new(channel: &'a mut ServerChannel, config: &'a Config, metrics: &'a Metrics, facts: &'a Facts) -> Self {
        Self {
            channel,
            config,
            metrics,
            facts,
            offset: 0,
            begun: Instant::now(),
            turn: None,
            hold_source: None,
            size_guess: SizeGuess::Any,
            suspendable: false,
            may_run_again: false,
            watch: None,
        }
    }

    /// Sets the number of characters before the client's statement in the string that the client sent.
    #[must_use]
    pub fn at(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// Sets the lanes that the statement holds until it is over.
    #[must_use]
    pub fn in_turn(self, turn: Option<&'a mut Turn>) -> Self {
        Self { turn, ..self }
    }

    /// Sets who may hold the run between two steps.
    #[must_use]
    pub fn held_by(self, hold_source: Option<&'a mut dyn HoldSource>) -> Self {
        Self { hold_source, ..self }
    }

    /// Takes out those who may hold the run. They are put back when they have been asked.
    pub(super) fn take_hold_source(&mut self) -> Option<&'a mut dyn HoldSource> {
        self.hold_source.take()
    }

    /// Puts those back who may hold the run.
    pub(super) fn put_hold_source(&mut self, source: &'a mut dyn HoldSource) {
        self.hold_source = Some(source);
    }

    /// Takes the turn out, whose lanes are given back or taken. It is put back then.
    pub(super) fn take_turn(&mut self) -> Option<&'a mut Turn> {
        self.turn.take()
    }

    /// Puts the turn back.
    pub(super) fn put_turn(&mut self, turn: &'a mut Turn) {
        self.turn = Some(turn);
    }

    /// Sets what is known of the time that the statement takes.
    #[must_use]
    pub fn guessing(self, size_guess: SizeGuess) -> Self {
        Self { size_guess, ..self }
    }

    /// Sets whether the client's transaction may be suspended. A wait that makes others wait then ends with [`Suspend::LockedOut`]
    /// after the stall budget.
    #[must_use]
    pub fn suspendable(self, suspendable: bool) -> Self {
        Self { suspendable, ..self }
    }

    /// Sets whether the client's transaction may be run again. A wait for a session that waits for the transaction then ends with
    /// [`Suspend::Deadlock`].
    #[must_use]
    pub fn running_again(self, may_run_again: bool) -> Self {
        Self { may_run_again, ..self }
    }

    /// Sets who is told of long waits.
    #[must_use]
    pub fn watched(self, watch: Option<(&'a Webhook, &'a WaitWatch)>) -> Self {
        Self { watch, ..self }
    }

    /// The statement has waited this long. `blocked_by`: a sentence about those who are in the way.
    pub(super) fn waits(&self, waited: Duration, blocked_by: impl FnOnce() -> String) {
        if let Some((webhook, watch)) = self.watch {
            watch.waits(webhook, waited, blocked_by);
        }
    }

    /// Whether the client's transaction may be run again behind a deadlock.
    pub(super) fn may_run_again(&self) -> bool {
        self.may_run_again
    }

    /// Whether the client's transaction may be suspended.
    pub(super) fn is_suspendable(&self) -> bool {
        self.suspendable
    }

    /// Returns the server channel.
    pub(super) fn channel(&self) -> &ServerChannel {
        self.channel
    }

    /// Returns the server channel, to ask the server.
    pub(super) fn channel_mut(&mut self) -> &mut ServerChannel {
        self.channel
    }

    /// Returns the settings of the proxy.
    pub(super) fn config(&self) -> &'a Config {
        self.config
    }

    /// Returns the counters of the proxy.
    pub(super) fn metrics(&self) -> &'a Metrics {
        self.metrics
    }

    /// Returns the facts that the plan was made from.
    pub(super) fn facts(&self) -> &'a Facts {
        self.facts
    }

    /// Returns the lanes that the statement holds until it is over.
    pub(super) fn turn(&self) -> Option<&Turn> {
        self.turn.as_deref()
    }

    /// Naps before the next try to undo or finish a phase. If a cancel ends the nap, the answer holds its error.
    pub(super) async fn nap_to_undo(&mut self, time: Duration) -> Result<Answer, BackendLost> {
        self.channel.ask_one(&lanes::nap_sql(time, "waiting to finish or undo"), &[]).await
    }

    /// Returns what is known of the time that the statement takes.
    pub(super) fn size_guess(&self) -> SizeGuess {
        self.size_guess
    }

    /// Returns when the statement began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Returns an error of the client's statement, in the terms of that statement.
    pub(super) fn ended(&self, error: ServerError) -> RunError {
        if self.channel().client_gone() {
            return RunError::ClientGone;
        }
        self.channel().take_cancelled();
        let offset = self.offset;
        RunError::Server(ServerError::new(error.with_position(|position| Some(position + offset))))
    }

    /// Rolls back a failed attempt: its transaction, or its savepoint in a transaction block.
    pub(super) async fn rollback_attempt(&mut self) -> Result<(), RunError> {
        let mut batch = Batch::new();
        if self.in_transaction() {
            batch.undo_savepoint();
        } else {
            batch.statement("ROLLBACK", &[]);
        }
        self.channel_mut().ask(batch, None).await?;
        Ok(())
    }

    /// Makes the client's transaction block fail, as a server error would have, before the statement ends with an error of the proxy's.
    pub(super) async fn give_up_block(&mut self, stop: RunError) -> RunError {
        if self.in_transaction() && self.channel().status() == b'T' {
            let fail = self
                .channel_mut()
                .ask_one("ROLLBACK TO SAVEPOINT \"pgsluice: the statement before has failed\"", &[])
                .await;
            if fail.is_err() {
                return RunError::Lost;
            }
        }
        stop
    }

    /// Asks for the names of relations. If the question fails, the failure is logged and the list is empty.
    pub(super) async fn names(&mut self, sql: &str, parameters: &[&str]) -> Result<Vec<RelationName>, RunError> {
        let rows = match self.surely(sql, parameters).await {
            Ok(rows) => rows,
            Err(RunError::Lost) => return Err(RunError::Lost),
            Err(stop) => {
                tracing::warn!(reason = stop.reason(), "cannot ask which objects a schema change has left");
                Vec::new()
            }
        };
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let mut values = row.into_iter();
                Some(RelationName { schema: values.next()?, name: values.next()?? })
            })
            .collect())
    }

    /// Asks a question, and asks it again if a cancel hits it.
    pub(super) async fn surely(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Vec<Vec<Option<String>>>, RunError> {
        self.channel().cancel_settled().await;
        for _ in 0..QUESTIONS {
            let answer = self.channel_mut().ask_rows(sql, parameters).await?;
            match answer.error {
                None => return Ok(answer.rows),
                Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => {}
                Some(error) => return Err(RunError::Server(error)),
            }
        }
        Err(RunError::Report(Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request")))
    }

    /// Sends a NOTICE or WARNING of the proxy's. A NOTICE is not sent if the session has turned notices off.
    pub(super) fn notify(&mut self, report: &Report) {
        if !(self.facts().session.hushed && report.severity == Severity::Notice) {
            self.channel_mut().notify(report);
        }
    }

    /// Whether the client is in a transaction block.
    pub(super) fn in_transaction(&self) -> bool {
        self.facts().session.in_transaction
    }

    /// Returns the error of a step as the client's own statement would have raised it. The notices before it are sent first.
    pub(super) fn failed(&mut self, step: &Step, error: ServerError, reply: &Reply) -> RunError {
        self.channel_mut().send_to_client(&reply.notices());
        let error = match &step.renamed {
            Some(renamed) => with_name(&error, renamed),
            None => error,
        };
        if let Some(column) = &step.not_null
            && error.sqlstate() == sqlstate::CHECK_VIOLATION
        {
            return RunError::Server(contains_nulls(&error, column, self.facts().session.server_version));
        }
        if let Some(of) = step.bounds
            && error.sqlstate() == sqlstate::CHECK_VIOLATION
        {
            return RunError::Server(outside_bounds(&error, of, self.facts().session.server_version));
        }
        if let Some(otherwise) = step.must_hold
            && error.sqlstate() == sqlstate::DIVISION_BY_ZERO
        {
            if otherwise == STALE {
                return RunError::Stale;
            }
            return RunError::Report(Report::error(sqlstate::SERIALIZATION_FAILURE, otherwise).hint("Try again."));
        }
        let offset = self.offset;
        let frame = error.with_position(|position| {
            if step.own {
                return None;
            }
            let mapped = match step.inserted {
                // PostgreSQL counts characters, from 1.
                Some(inserted) => {
                    let before = step.sql.get(..inserted.at)?.chars().count();
                    let behind = (position + inserted.instead_of).saturating_sub(inserted.len);
                    if position <= before { position } else { behind.max(1) }
                }
                None => position,
            };
            Some(mapped + offset)
        });
        RunError::Server(ServerError::new(frame))
    }

    /// Returns what ends a run from outside: a client that is gone, or a cancel. A run checks it between two statements.
    pub fn interrupted(&self) -> Option<RunError> {
        if self.channel().client_gone() {
            return Some(RunError::ClientGone);
        }
        self.channel().take_cancelled().then(|| {
            RunError::Report(Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request"))
        })
    }

    /// Gives lanes back. A cancel may hit this too: it is tried again with the lanes that are left, so that none is given back twice.
    pub(super) async fn release_lanes(&mut self, mut lanes: Vec<u32>) -> Result<(), RunError> {
        for _ in 0..GIVE_TRIES {
            if lanes.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            lanes.iter().for_each(|lane| batch.statement(&lanes::give_lane_sql(*lane), &[]));
            let done = self.channel_mut().ask(batch, None).await?.done;
            lanes.drain(..done.min(lanes.len()));
        }
        tracing::warn!("cannot give a lane back: its session holds it until it ends");
        Ok(())
    }

    /// Returns the current names of the relations that still exist.
    pub(super) async fn names_now(&mut self, oids: &[u32]) -> Result<Vec<(u32, RelationName)>, RunError> {
        let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
        let rows = self.surely(NAMES_SQL, &[&array(oids.iter().map(|oid| Some(oid.as_str())))]).await?;
        let named = |row: &Vec<Option<String>>| {
            let name = RelationName { schema: row.get(1)?.clone(), name: row.get(2)?.clone()? };
            Some((row.first()?.as_deref()?.parse().ok()?, name))
        };
        Ok(rows.iter().filter_map(named).collect())
    }

    /// Returns the longest that this phase may wait.
    pub(super) fn wait_limit(&self) -> Duration {
        let session = &self.facts().session;
        let mut limit = self.config().locks.deadline;
        if session.lock_timeout_ms > 0 {
            limit = limit.min(Duration::from_millis(session.lock_timeout_ms));
        }
        if session.statement_timeout_ms > 0 {
            limit = limit.min(Duration::from_millis(session.statement_timeout_ms));
        }
        if self.holds_strong_lock() {
            limit = limit.min(self.config().locks.in_transaction_wait);
        }
        limit
    }

    /// Whether the client's transaction block holds a lock that blocks the application. Other sessions then wait for as long as this
    /// statement waits.
    pub(super) fn holds_strong_lock(&self) -> bool {
        let session = &self.facts().session;
        session.in_transaction && session.strongest_lock.is_some_and(|mode| mode.blocks_application())
    }

    /// Returns the nap, made longer or shorter at random, so that several proxies do not poll at the same time.
    pub(super) fn spread(&self, nap: Duration) -> Duration {
        nap.mul_f64((1.0 + self.config().locks.poll_jitter * (jitter() * 2.0 - 1.0)).max(0.0))
    }

    /// Turns the error of a nap into the end of the run. Such an error is a cancel or the session's own timeout, so the client gets it
    /// unchanged.
    pub(super) fn cancelled_by(&self, error: Option<ServerError>) -> Result<(), RunError> {
        match error {
            None => Ok(()),
            Some(_) if self.channel().client_gone() => Err(RunError::ClientGone),
            Some(error) => {
                self.channel().take_cancelled();
                Err(RunError::Server(error))
            }
        }
    }

    /// Waits for the end of the last nap.
    pub(super) async fn finish_nap(&mut self) -> Result<(), RunError> {
        let nap_error = self.channel_mut().finish_nap().await?;
        self.cancelled_by(nap_error)
    }
}
