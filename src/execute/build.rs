//! A concurrent build in place of the plain one that its author wrote, and who it would wait for.
//!
//! A concurrent build waits for every older snapshot of the database, whatever it is of. The plain one waits for nobody who only reads. So
//! where somebody holds a snapshot for long (above all the same client, whose other connection is idle in a transaction until this statement
//! is done: that one would never end), a table that can be built on within the stall budget is built on plainly, under lock
//! attempts; and of a larger one the client is told within seconds whom it waits for.
//!
//! How long a plain build takes is judged by the table's size; should it take longer than the stall budget all the same, it is ended
//! there, and the concurrent way is taken.

use super::attempt::{is_lock_failure, set_local};
use super::budget::is_statement_timeout;
use super::wait::jitter;
use super::{Reply, Run, RunError, UndoneAfter, progress};
use crate::backend::Answer;
use crate::lanes::{lock_sql, nap_sql};
use crate::pg::relation::quote_identifier;
use crate::pg::{LockMode, sqlstate};
use crate::plan::{LockNeed, Phase, Step, Undo};
use crate::report::{Report, in_words};
use crate::wire::message::Batch;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What a plain build reads of a table in a second, at least: measured 25 to 100 MB on two busy cores, by the index's columns (40 MB of 400,000
/// rows: 0.4 s for an integer, 1.5 s for a text of 32 characters).
const PACE: u64 = 40 << 20;

/// A transaction of that age is none that will be over in a moment. A build that can be done plainly waits no longer, each time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pause is so many times as long as others may have been made to wait.
const PAUSE: u32 = 10;

/// `$1`: the table's oid. Its size, and of the session whose snapshot a build would wait for longest: pid, application, role, state, age, and
/// whether it is another of the same client's.
const BEFORE_SQL: &str = "/* pgsluice: before a build */ SELECT pg_catalog.pg_table_size($1::pg_catalog.text::pg_catalog.oid::pg_catalog.regclass), \
       o.pid, o.application_name, o.usename, o.state, o.age, o.same FROM (SELECT 1) AS one(row) LEFT JOIN LATERAL ( \
     SELECT a.pid, a.application_name, a.usename, a.state, \
       (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.xact_start) \
         OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8 AS age, \
       a.usename OPERATOR(pg_catalog.=) me.usename AND a.application_name OPERATOR(pg_catalog.=) me.application_name \
         AND pg_catalog.concat(a.client_addr) OPERATOR(pg_catalog.=) pg_catalog.concat(me.client_addr) \
         AND (a.state OPERATOR(pg_catalog.~~) 'idle in transaction%' OR a.wait_event OPERATOR(pg_catalog.=) 'ClientRead') AS same \
     FROM pg_catalog.pg_stat_activity me JOIN pg_catalog.pg_stat_activity a \
       ON a.datid OPERATOR(pg_catalog.=) me.datid AND a.pid OPERATOR(pg_catalog.<>) me.pid AND a.backend_xmin IS NOT NULL \
     WHERE me.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
     ORDER BY 6 DESC NULLS LAST, 5 DESC NULLS LAST LIMIT 1) AS o ON true";

/// What is known before it begins.
#[derive(Debug, Default)]
struct BuildForecast {
    bytes: Option<u64>,
    oldest: Option<OldestSnapshot>,
}

#[derive(Debug)]
struct OldestSnapshot {
    who: String,
    pid: String,
    age: Duration,
    same_client: bool,
}

impl OldestSnapshot {
    /// It will not be gone in a moment.
    fn is_settled(&self) -> bool {
        self.same_client || self.age >= PATIENCE
    }
}

impl Run<'_> {
    pub(super) async fn long_steps(&mut self, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
        for step in &phase.steps {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            match plain(phase, step) {
                Some((table, plain)) => self.build(phase, step, (&table, &plain), reply).await?,
                None => {
                    let answer = self.long_step(step, None).await?;
                    self.over(step, answer, reply)?;
                }
            }
        }
        Ok(())
    }

    /// `limit`: how long it may wait for others each time.
    async fn long_step(&mut self, step: &Step, limit: Option<Duration>) -> Result<Answer, RunError> {
        let own = self.facts.session.lock_timeout_ms;
        let limit = limit.filter(|limit| own == 0 || limit.as_millis() < u128::from(own));
        if let Some(limit) = limit {
            self.channel.ask_one(&format!("SET lock_timeout = {}", limit.as_millis()), &[]).await?;
        }
        let (tell, mut progress) = mpsc::channel(4);
        let watch = progress::watch(self.config, self.channel.target(), &self.facts.session, tell);
        let mut batch = Batch::new();
        batch.statement(&step.named(&self.learned_names), &[]);
        let answer = self.channel.ask_with(batch, step.visible.then_some(0), &mut progress).await;
        drop(watch);
        let answer = answer?;
        if limit.is_some() {
            self.channel.cancel_settled().await;
            self.channel.ask_one(&format!("SET lock_timeout = {own}"), &[]).await?;
        }
        Ok(answer)
    }

    fn over(&mut self, step: &Step, answer: Answer, reply: &mut Reply) -> Result<(), RunError> {
        reply.frames.unsplit(answer.notices);
        let Some(error) = answer.error else {
            reply.frames.unsplit(answer.completion);
            return Ok(());
        };
        let gone = self.channel.client_gone();
        self.channel.take_cancelled();
        let stop = self.failed(step, error, reply);
        Err(if gone { RunError::ClientGone } else { stop })
    }

    /// `plain`: the table, and the step without CONCURRENTLY.
    async fn build(
        &mut self,
        phase: &Phase,
        step: &Step,
        plain: (&LockNeed, &Step),
        reply: &mut Reply,
    ) -> Result<(), RunError> {
        let before = self.before_build(plain.0.oid).await?;
        let quick = before.bytes.is_some_and(|bytes| self.is_quick(bytes));
        let settled = before.oldest.filter(OldestSnapshot::is_settled);
        let stuck = settled.as_ref().is_some_and(|oldest| oldest.same_client);
        if let Some(oldest) = &settled {
            self.tell_of(plain.0, oldest, quick);
        }
        let limit = match (quick, stuck) {
            (true, _) => Some(PATIENCE),
            // For ever would be too long.
            (false, true) => Some(self.config.locks.deadline),
            (false, false) => None,
        };
        if !(quick && settled.is_some()) {
            let answer = self.long_step(step, limit).await?;
            let waited = quick && answer.error.as_ref().is_some_and(is_lock_failure) && !self.channel.client_gone();
            if !waited {
                return self.over(step, answer, reply);
            }
            self.undo(phase, UndoneAfter::Failed).await?;
            if let Some(oldest) = self.before_build(plain.0.oid).await?.oldest {
                self.tell_of(plain.0, &oldest, true);
            }
        }
        if self.build_plainly(plain, reply).await? {
            return Ok(());
        }
        let answer = self.long_step(step, stuck.then_some(self.config.locks.deadline)).await?;
        self.over(step, answer, reply)
    }

    /// Whether a plain build is over within the stall budget, most likely, of which half may go by in the queue for its lock. An operator
    /// who wants none at all says so of small tables.
    fn is_quick(&self, bytes: u64) -> bool {
        let budget = u64::try_from(self.config.locks.stall_budget.as_millis() / 2).unwrap_or(u64::MAX);
        self.config.ddl.small_table > 0 && bytes / (PACE / 1000) <= budget
    }

    /// Under lock attempts, for no longer than the stall budget. False: it takes longer.
    async fn build_plainly(&mut self, (table, step): (&LockNeed, &Step), reply: &mut Reply) -> Result<bool, RunError> {
        let (limit, begun) = (self.wait_limit(), Instant::now());
        let mut patience = None;
        loop {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            let answer = self.try_plainly(table, step, patience).await?;
            let Some(error) = &answer.error else {
                reply.frames.unsplit(answer.notices);
                reply.frames.unsplit(answer.completion);
                return Ok(true);
            };
            let over = is_statement_timeout(error, answer.took, self.build_budget(patience.unwrap_or_default()));
            if over && !self.channel.take_cancelled() && !self.channel.client_gone() {
                return Ok(false);
            }
            if !is_lock_failure(error) || begun.elapsed() >= limit {
                return self.over(step, answer, reply).map(|()| true);
            }
            self.metrics.lock_attempts_failed.add();
            let queued = patience.unwrap_or_default();
            let nap = (queued * PAUSE).max(self.config.locks.poll).mul_f64(0.75 + jitter() / 2.0);
            let words = format!("waiting for SHARE on {}", table.relation);
            let napped = self.channel.ask_one(&nap_sql(nap, &self.channel.words(&words)), &[]).await?;
            self.cancelled_by(napped.error)?;
            if begun.elapsed() >= self.config.locks.starve_after {
                let next = if queued.is_zero() { self.config.locks.ladder_start } else { queued * 2 };
                // 0 would be no limit at all.
                patience = Some(next.min(self.config.locks.stall_budget / 2).max(Duration::from_millis(1)));
            }
        }
    }

    /// `patience`: in the server's queue for so long; else NOWAIT.
    async fn try_plainly(
        &mut self,
        table: &LockNeed,
        step: &Step,
        patience: Option<Duration>,
    ) -> Result<Answer, RunError> {
        self.metrics.lock_attempts.add();
        let mut batch = Batch::new();
        batch.statement("BEGIN", &[]);
        batch.statement(&set_local("lock_timeout", patience.unwrap_or(self.config.locks.fallback_timeout)), &[]);
        let locks = lock_sql(std::slice::from_ref(table), patience.is_some());
        locks.nowait.iter().chain(&locks.queued).for_each(|sql| batch.statement(sql, &[]));
        // It holds its lock from here on.
        batch.statement(&set_local("statement_timeout", self.build_budget(patience.unwrap_or_default())), &[]);
        let visible = batch.statements;
        batch.statement(&step.named(&self.learned_names), &[]);
        batch.statement("COMMIT", &[]);
        let answer = self.channel.ask(batch, step.visible.then_some(visible)).await?;
        if answer.error.is_some() {
            self.rollback_attempt().await?;
        }
        Ok(answer)
    }

    /// What is left of the stall budget behind the wait for the lock, or the session's own limit if that is stricter.
    fn build_budget(&self, queued: Duration) -> Duration {
        let budget = self.config.locks.stall_budget.saturating_sub(queued).max(Duration::from_millis(1));
        match self.facts.session.statement_timeout_ms {
            0 => budget,
            own => budget.min(Duration::from_millis(own)),
        }
    }

    /// What cannot be told is not known.
    async fn before_build(&mut self, oid: u32) -> Result<BuildForecast, RunError> {
        let answer = self.channel.ask_one(BEFORE_SQL, &[&oid.to_string()]).await?;
        if let Some(error) = answer.error {
            if error.sqlstate() == sqlstate::QUERY_CANCELED {
                return self.cancelled_by(Some(error)).map(|()| BuildForecast::default());
            }
            tracing::debug!(sqlstate = error.sqlstate(), "who a build would wait for could not be asked");
            return Ok(BuildForecast::default());
        }
        let row = answer.rows.into_iter().next().unwrap_or_default();
        let value = |nth: usize| row.get(nth).and_then(|value| value.as_deref()).filter(|value| !value.is_empty());
        let milliseconds = value(5).and_then(|age| age.parse().ok()).unwrap_or_default();
        let age = Duration::from_millis(milliseconds);
        let oldest = value(1).map(|pid| {
            let role = value(3).map(|role| format!("user {}", quote_identifier(role)));
            let age = (milliseconds > 0).then(|| format!("for {}", in_words(age)));
            let words = [value(2).map(str::to_owned), role, value(4).map(str::to_owned), age];
            let words: Vec<String> = words.into_iter().flatten().collect();
            OldestSnapshot {
                who: format!("pid {pid} ({})", words.join(", ")),
                pid: pid.to_owned(),
                age: Duration::from_millis(milliseconds),
                same_client: value(6) == Some("t"),
            }
        });
        Ok(BuildForecast { bytes: value(0).and_then(|bytes| bytes.parse().ok()), oldest })
    }

    fn tell_of(&mut self, table: &LockNeed, oldest: &OldestSnapshot, quick: bool) {
        let OldestSnapshot { who, pid, .. } = oldest;
        tracing::info!(waits_for = who, quick, "a build would wait for an old snapshot");
        if !self.config.ddl.notices {
            return;
        }
        let report = if quick {
            let message = format!("the index on {} is built at once, not concurrently", table.relation);
            Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
                .detail(format!("A concurrent build would wait for the snapshot of {who}; the table is small enough."))
        } else {
            let whose = if oldest.same_client { " It is another session of the same client." } else { "" };
            let message = format!("the concurrent build on {} waits for an older snapshot", table.relation);
            Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
                .detail(format!("It is held by {who}.{whose}"))
                .hint(format!(
                    "Nobody else waits meanwhile. The build ends when that transaction does: close its cursor or end it, or SELECT pg_terminate_backend({pid})."
                ))
        };
        self.notify(&report);
    }
}

/// The table that a step builds on concurrently though its author has not written so, as a plain build locks it, and that build.
fn plain(phase: &Phase, step: &Step) -> Option<(LockNeed, Step)> {
    const CONCURRENTLY: &str = " CONCURRENTLY";
    let Some(Undo::DropInvalidIndexes { oid, .. } | Undo::DropBuiltIndex { oid, .. }) = &phase.undo else {
        return None;
    };
    let at = match step.inserted {
        Some(inserted) => inserted.at,
        None if step.own => {
            ["CREATE INDEX", "CREATE UNIQUE INDEX"].iter().find(|words| step.sql.starts_with(**words))?.len()
        }
        None => return None,
    };
    let (before, rest) = step.sql.split_at_checked(at)?;
    let behind = rest.strip_prefix(CONCURRENTLY)?;
    let builds = before.split_ascii_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("create"));
    let table = phase.locks.iter().find(|lock| lock.oid == *oid).filter(|_| builds)?;
    let step = Step { sql: format!("{before}{behind}"), inserted: None, ..step.clone() };
    Some((LockNeed { mode: LockMode::Share, ..table.clone() }, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::RelationName;
    use crate::plan::PhaseKind;

    fn phase(step: Step) -> Phase {
        let relation = RelationName::new(Some("s"), "t");
        let lock = LockNeed { only: true, ..LockNeed::alone(relation.clone(), 7, LockMode::ShareUpdateExclusive) };
        Phase {
            kind: PhaseKind::Long,
            purpose: String::new(),
            in_transaction: false,
            locks: vec![lock],
            steps: vec![step],
            undo: Some(Undo::DropInvalidIndexes { table: relation, oid: 7, known: Vec::new() }),
            backfill: None,
            detach: None,
            tidies: false,
        }
    }

    fn plain_sql(step: Step) -> Option<String> {
        let phase = phase(step);
        plain(&phase, &phase.steps[0]).map(|(table, step)| {
            assert_eq!((table.mode, table.oid), (LockMode::Share, 7));
            step.sql
        })
    }

    #[test]
    fn what_its_author_wrote_plainly() {
        let text = "create /* CONCURRENTLY */ index i on t (a)";
        let rerouted = Step::concurrently(text, text.find(" i on").unwrap()).unwrap();
        assert_eq!(plain_sql(rerouted).as_deref(), Some(text));
        let own = Step::hidden("CREATE UNIQUE INDEX CONCURRENTLY \"i\" ON \"t\" USING btree (a)".to_owned());
        assert_eq!(plain_sql(own).as_deref(), Some("CREATE UNIQUE INDEX \"i\" ON \"t\" USING btree (a)"));
        let written = Step::as_written("CREATE INDEX CONCURRENTLY i ON t (a)");
        assert_eq!(plain_sql(written), None);
        assert_eq!(plain_sql(Step::concurrently("REINDEX TABLE t", 13).unwrap()), None);
    }
}
