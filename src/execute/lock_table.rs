//! The client's own LOCK TABLE in a transaction block, in a mode that makes readers or writers wait.
//!
//! Directly, a LOCK TABLE that must wait stands in PostgreSQL's lock queue, and the application queues behind it. Here the client's text runs
//! by attempts, each in a savepoint: with NOWAIT, and after a while with short waits in the queue (the ladder of `lock_wait.rs`). So the
//! server itself checks names and privileges, and it follows partitions, children and views.
//!
//! LOCK TABLE takes no snapshot. A transaction that is REPEATABLE READ or SERIALIZABLE sees the data as of its first query, and clients lock
//! before that query in order to see what the session before them has committed. So the proxy asks nothing by a query in such a transaction:
//! SAVEPOINT, LOCK, SET and SHOW take no snapshot either. In READ COMMITTED it looks at the blockers now and then. Between attempts the proxy
//! itself sleeps, and not the server: a concurrent build that met the snapshot of a nap would wait for the end of the client's block.
//!
//! The server does not see a deadlock of sessions that wait in this way. So the comment of the last statement names the transactions that
//! block the session, and a session that is named there by a session that blocks it gives up with 40P01.
//!
//! The statement takes no lane and no turn, because it changes no schema and its lock may be held for long. For the same reason it does not
//! wait for the lanes of others.
//!
//! This file owns the batch of an attempt, the reading of its answer, and the wait. It keeps true that an attempt whose lock is not
//! available leaves everything as it was, and that no attempt waits in the queue for longer than the stall budget.

use crate::catalog::{Facts, SessionFacts};
use crate::execute::advisory::milliseconds;
use crate::execute::blocked::{self, waiting_for_lock};
use crate::execute::budget::{self, AttemptMode};
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::server_error::{attempt_word, is_lock_failure, is_statement_timeout};
use crate::execute::timing::{SETTLE, set_local};
use crate::execute::wait::{deadlocked, view_of};
use crate::lanes::{self, Blocker, CLEAR_SQL, View};
use crate::pg::sqlstate;
use crate::plan::Phase;
use crate::sql::Statement;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// A sleep takes this part of the time waited so far, a fortieth, but no less than `poll`.
const SLEEP_SHARE: u32 = 40;
/// The longest sleep. It is shorter than any sensible `idle_in_transaction_session_timeout`, and short enough that of several sessions that
/// wait for long, each may be the next.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// The longest sleep of a session that may not look. Each of its attempts leaves an ERROR in the server's log.
const LONGEST_BLIND_SLEEP: Duration = Duration::from_millis(250);

/// How many transactions the comment names. `pg_stat_activity` shows 1024 bytes.
const MOST_NAMED: usize = 20;

/// Whether a session of a lower pid that blocks this session waits for this transaction in the proxy. Of two sessions that wait for each
/// other, only one gives up. The parameter: the pids of the sessions that block this session.
const WAITS_FOR_US_SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a \
       JOIN pg_catalog.pg_locks l ON l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
       AND l.locktype OPERATOR(pg_catalog.=) 'virtualxid' \
     WHERE a.pid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.int4[]) \
       AND a.pid OPERATOR(pg_catalog.<) pg_catalog.pg_backend_pid() \
       AND a.query OPERATOR(pg_catalog.~~) '/* pgsluice: LOCK TABLE, blocked by %' \
       AND pg_catalog.strpos(a.query, pg_catalog.concat(' ', l.virtualtransaction, ' ')) OPERATOR(pg_catalog.>) 0)";

/// A LOCK TABLE on its way.
#[derive(Debug)]
pub struct LockTableRun<'s> {
    statement: &'s Statement,
    begun: Instant,
    /// The transaction has one snapshot for all of its queries, so the proxy must not be the first to take it.
    keeps_snapshot: bool,
}

/// Sends the client's LOCK TABLE unchanged. Outside a transaction block the server refuses it.
///
/// # Errors
/// The server's error.
pub async fn unchanged(context: &mut ExecutionContext<'_>, statement: &Statement) -> Result<Reply, RunError> {
    let mut batch = Batch::new();
    batch.statement(&statement.text, &[]);
    let answer = context.channel_mut().ask(batch, Some(0)).await?;
    let mut reply = Reply::default();
    reply.frames.unsplit(answer.notices);
    if let Some(error) = answer.error {
        context.channel_mut().send_to_client(&reply.frames);
        return Err(context.ended(error));
    }
    reply.frames.unsplit(answer.completion);
    Ok(reply)
}

impl<'s> LockTableRun<'s> {
    /// Begins a LOCK TABLE in the client's block.
    ///
    /// # Errors
    /// A cancel, or the backend is gone.
    pub async fn begin(context: &mut ExecutionContext<'_>, statement: &'s Statement) -> Result<Self, RunError> {
        let begun = Instant::now();
        let answer = context.channel_mut().ask_one("SHOW transaction_isolation", &[]).await?;
        let keeps_snapshot = !matches!(answer.value(), Some("read committed" | "read uncommitted"));
        context.cancelled_by(answer.error)?;
        Ok(Self { statement, begun, keeps_snapshot })
    }

    /// Whether the proxy may ask which sessions block the statement.
    pub fn may_look(&self) -> bool {
        !self.keeps_snapshot
    }

    /// Tries once, with NOWAIT. `None`: a lock is taken.
    ///
    /// # Errors
    /// The reason why the statement failed. The client's block has failed, too.
    pub async fn try_at_once(
        &self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
    ) -> Result<Option<Reply>, RunError> {
        self.attempt(context, phase, AttemptMode::Poll, None).await
    }

    /// Asks for the session's own timeouts, without a snapshot. Nothing else is known of the session.
    ///
    /// # Errors
    /// A cancel, or the backend is gone.
    pub async fn session(&self, context: &mut ExecutionContext<'_>) -> Result<Facts, RunError> {
        let mut batch = Batch::new();
        for setting in ["lock_timeout", "statement_timeout", "deadlock_timeout"] {
            batch.statement(&format!("SHOW {setting}"), &[]);
        }
        let answer = context.channel_mut().ask(batch, None).await?;
        let shown = |nth: usize| {
            let text = answer.rows.get(nth).and_then(|row| row.first()?.as_deref());
            text.and_then(milliseconds).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        let session = SessionFacts {
            in_transaction: true,
            lock_timeout_ms: shown(0),
            statement_timeout_ms: shown(1),
            deadlock_timeout_ms: shown(2),
            ..SessionFacts::default()
        };
        context.cancelled_by(answer.error)?;
        Ok(Facts { session, ..Facts::default() })
    }

    /// Tries until the transaction has the locks of `phase`, with pauses between the attempts. `None`: the statement has waited for as long
    /// as `until` without a look at the blockers.
    ///
    /// # Errors
    /// The reason why the statement failed. The client's block has failed, too.
    pub async fn by_attempts(
        &self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
        until: Option<Duration>,
    ) -> Result<Option<Reply>, RunError> {
        let mut waiting = LockWait::without_lanes(phase, context, self.begun);
        loop {
            let how = self.pause(context, phase, &mut waiting).await?;
            if let Some(stop) = context.interrupted() {
                return Err(context.give_up_block(stop).await);
            }
            if let Some(reply) = self.attempt(context, phase, how, Some(waiting.last())).await? {
                return Ok(Some(reply));
            }
            waiting.failed(how);
            if until.is_some_and(|until| waiting.waited() >= until) {
                return Ok(None);
            }
        }
    }

    /// Sleeps until another attempt may succeed, and returns how it gets its locks. Each attempt that fails leaves an ERROR in the server's
    /// log, so none is made while a blocker is seen.
    async fn pause(
        &self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
        waiting: &mut LockWait,
    ) -> Result<AttemptMode, RunError> {
        let looks = self.may_look() && !phase.locks.is_empty();
        loop {
            if waiting.is_over() {
                let report = blocked::gave_up(context, phase, waiting);
                return Err(context.give_up_block(RunError::Report(report)).await);
            }
            if let Some(stop) = context.interrupted() {
                return Err(context.give_up_block(stop).await);
            }
            sleep(context, waiting, if looks { LONGEST_SLEEP } else { LONGEST_BLIND_SLEEP }).await;
            let now = Instant::now();
            let may_queue = |waiting: &LockWait, context: &ExecutionContext<'_>| {
                !waiting.polls(now) && !waiting.settled_blocker(context.config().locks.starve_after, now)
            };
            if !looks {
                return Ok(if may_queue(waiting, context) { waiting.queue() } else { AttemptMode::Poll });
            }
            if let Some(blocker) = waiting.watched(context.config(), now, true) {
                if glance(context, phase, waiting.last(), &blocker).await? {
                    continue;
                }
                waiting.forget_look();
                if waiting.last().blockers.len() == 1 {
                    return Ok(AttemptMode::Poll);
                }
            }
            look_around(context, phase, waiting, now).await?;
            if let Some(next) = waiting.autovacuum(context, now).await? {
                return Ok(next);
            }
            if waiting.last().blockers.is_empty() && waiting.polls(now) {
                return Ok(AttemptMode::Poll);
            }
            if may_queue(waiting, context) {
                return Ok(waiting.queue());
            }
        }
    }

    /// Makes one attempt. `None`: a lock is not available, and everything is as it was before. `view`: the last look at the blockers; the
    /// first attempt has none.
    async fn attempt(
        &self,
        context: &mut ExecutionContext<'_>,
        phase: &Phase,
        how: AttemptMode,
        view: Option<&View>,
    ) -> Result<Option<Reply>, RunError> {
        context.metrics().lock_attempts.add();
        let limit = (how != AttemptMode::Poll).then(|| budget::queue_share(context, phase, how, 1));
        let mut batch = Batch::new();
        // This statement takes a snapshot. Behind the first attempt it has nothing to do.
        if view.is_none() && !self.keeps_snapshot {
            batch.statement(SETTLE, &[]);
        }
        let visible = self.put(context, phase, how, limit, &mut batch);
        let begun = Instant::now();
        let answer = context.channel_mut().ask(batch, Some(visible)).await?;
        let took = begun.elapsed();
        context.metrics().measures.attempted(attempt_word(answer.error.as_ref()), took);
        let mut reply = Reply::default();
        reply.frames.unsplit(answer.notices);
        let Some(error) = answer.error else {
            reply.frames.unsplit(answer.completion);
            return Ok(Some(reply));
        };
        // A deadlock involves locks that the transaction held before, so that every attempt would find it.
        let hopeless = error.sqlstate() == sqlstate::DEADLOCK_DETECTED;
        let gone = context.channel().client_gone();
        let over = limit.is_some_and(|limit| is_statement_timeout(&error, took, limit));
        if !gone && ((is_lock_failure(&error) && !hopeless) || (over && !context.channel().take_cancelled())) {
            context.metrics().lock_attempts_failed.add();
            roll_back(context, phase, view.map_or(&[], |view| &view.blockers)).await?;
            return Ok(None);
        }
        context.channel_mut().send_to_client(&reply.frames);
        let stop = context.ended(error);
        // The client's own block fails too, and not only the savepoint. Its failure releases the locks of the block.
        context.rollback_attempt().await?;
        Err(context.give_up_block(stop).await)
    }

    /// Puts the savepoint of an attempt into the batch, and returns the position of the client's statement. `limit`: how long the attempt
    /// waits in the queue.
    fn put(
        &self,
        context: &ExecutionContext<'_>,
        phase: &Phase,
        how: AttemptMode,
        limit: Option<Duration>,
        batch: &mut Batch,
    ) -> usize {
        batch.savepoint();
        let visible = match limit {
            Some(limit) => {
                batch.statement(&set_local("lock_timeout", budget::lock_timeout(context, phase, how)), &[]);
                batch.statement(&set_local("statement_timeout", limit), &[]);
                let visible = batch.statements;
                batch.statement(&self.statement.text, &[]);
                let session = &context.facts().session;
                let own =
                    [("lock_timeout", session.lock_timeout_ms), ("statement_timeout", session.statement_timeout_ms)];
                own.iter().for_each(|(name, ms)| batch.statement(&set_local(name, Duration::from_millis(*ms)), &[]));
                visible
            }
            None => {
                let visible = batch.statements;
                // The text may end in a comment.
                batch.statement(&format!("{}\nNOWAIT", self.statement.text), &[]);
                visible
            }
        };
        batch.release_savepoint();
        visible
    }
}

/// The comment of a statement of the proxy's during the wait. It names the transactions that block the session, for [`WAITS_FOR_US_SQL`].
fn comment(context: &ExecutionContext<'_>, phase: &Phase, blockers: &[Blocker]) -> String {
    let transactions = blockers.iter().take(MOST_NAMED).map(|blocker| blocker.transaction.as_str());
    let transactions = transactions.collect::<Vec<_>>().join(" ");
    let words = format!("LOCK TABLE, blocked by {transactions} , waiting {}", waiting_for_lock(&phase.locks));
    lanes::comment(&context.channel().words(&words))
}

/// Rolls an attempt back. While the session sleeps, `pg_stat_activity` shows the comment.
async fn roll_back(context: &mut ExecutionContext<'_>, phase: &Phase, blockers: &[Blocker]) -> Result<(), RunError> {
    let mut batch = Batch::new();
    batch.roll_back_to_savepoint();
    batch.statement(&format!("{} RELEASE SAVEPOINT pgsluice", comment(context, phase, blockers)), &[]);
    context.channel_mut().ask(batch, None).await?;
    Ok(())
}

/// Sleeps for a part of the time waited so far, and no longer than the wait may last. A client's cancel and its end are noticed afterwards.
async fn sleep(context: &ExecutionContext<'_>, waiting: &LockWait, longest: Duration) {
    let waited = waiting.waited();
    let sleep = (waited / SLEEP_SHARE).clamp(context.config().locks.poll.min(longest), longest);
    tokio::time::sleep(context.spread(sleep).min(waiting.limit().saturating_sub(waited))).await;
}

/// Looks at the blockers, tells the client of them, and ends the wait if there is a deadlock.
async fn look_around(
    context: &mut ExecutionContext<'_>,
    phase: &Phase,
    waiting: &mut LockWait,
    now: Instant,
) -> Result<(), RunError> {
    let view = look(context, phase, &waiting.last().blockers).await?;
    // An autovacuum that waits for this session makes no deadlock: it is cancelled, or it gives up by itself.
    let in_server = view.blockers.iter().any(|blocker| blocker.waits_for_us && !blocker.autovacuum);
    let deadlock = waits_for_us(context, phase, &view).await? || in_server;
    waiting.look(view, now);
    if deadlock {
        let report = blocked::deadlock(phase, waiting);
        return Err(deadlocked(context, phase, report).await);
    }
    waiting.notice(context, phase, now);
    Ok(())
}

/// Whether this blocker still holds its lock.
async fn glance(
    context: &mut ExecutionContext<'_>,
    phase: &Phase,
    last: &View,
    blocker: &Blocker,
) -> Result<bool, RunError> {
    let sql = format!("{} {}", comment(context, phase, &last.blockers), lanes::GLANCE_SQL);
    let parameters = [&*blocker.transaction, &*blocker.oid.to_string(), &*blocker.mode];
    let answer = context.channel_mut().ask_one(&sql, &parameters).await?;
    let held = answer.value() != Some("f");
    context.cancelled_by(answer.error)?;
    Ok(held)
}

/// Looks at the blockers. `last`: those of the look before.
async fn look(context: &mut ExecutionContext<'_>, phase: &Phase, last: &[Blocker]) -> Result<View, RunError> {
    let [oids, modes, lanes, alone] = lanes::view_parameters(&phase.locks, &[]);
    let sql = format!("{} {}", comment(context, phase, last), lanes::view_sql());
    let mut batch = Batch::new();
    context.channel().put_question(&mut batch, &sql, &[&oids, &modes, &lanes, &alone]);
    let answer = context.channel_mut().ask(batch, None).await?;
    let view = if answer.error.is_none() { view_of(context, &answer) } else { View::default() };
    context.cancelled_by(answer.error)?;
    Ok(view)
}

/// Whether this session is to give up because of a deadlock with another session that waits in the proxy.
async fn waits_for_us(context: &mut ExecutionContext<'_>, phase: &Phase, view: &View) -> Result<bool, RunError> {
    let pids: Vec<String> = view.blockers.iter().filter_map(|blocker| blocker.pid).map(|pid| pid.to_string()).collect();
    let comment = comment(context, phase, &view.blockers);
    let mut batch = Batch::new();
    batch.savepoint();
    batch.statement(CLEAR_SQL, &[]);
    batch.statement(&format!("{comment} {WAITS_FOR_US_SQL}"), &[&format!("{{{}}}", pids.join(","))]);
    // The next look needs it.
    batch.statement(CLEAR_SQL, &[]);
    batch.statement(&format!("{comment} RELEASE SAVEPOINT pgsluice"), &[]);
    let answer = context.channel_mut().ask(batch, None).await?;
    match answer.error {
        Some(error) if error.sqlstate() == sqlstate::INSUFFICIENT_PRIVILEGE => {
            roll_back(context, phase, &view.blockers).await?;
            Ok(false)
        }
        Some(error) => context.cancelled_by(Some(error)).map(|()| false),
        None => {
            Ok(answer.rows.get(1).is_some_and(|row| row.first().is_some_and(|value| value.as_deref() == Some("t"))))
        }
    }
}
