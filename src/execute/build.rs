//! Index builds: a concurrent build in place of the plain one that the author wrote, and the old snapshots that it would wait for.
//!
//! A concurrent build waits for every older snapshot of the database. A plain build does not wait for sessions that only read. The holder
//! of an old snapshot may even be the same client: its other connection may be idle in a transaction until this statement is done, so that
//! the build would never end. So if a session holds a snapshot for long, the index of a small table is built plainly, under lock attempts.
//! Small means that the build fits into the stall budget. For a larger table the client is told within seconds which session the build
//! waits for.
//!
//! The time of a plain build is estimated from the table's size. This file keeps true that a plain build ends at the stall budget. Then the
//! index is built concurrently. This file also runs the other long steps, which are validations.

use crate::backend::Answer;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError, UndoneAfter};
use crate::execute::server_error::{attempt_word, is_lock_failure, is_statement_timeout};
use crate::execute::state::RunState;
use crate::execute::timing::{jitter, set_local};
use crate::execute::{progress, undo};
use crate::lanes::{lock_sql, nap_sql};
use crate::pg::relation::quote_identifier;
use crate::pg::{LockMode, sqlstate};
use crate::plan::{LockNeed, Phase, Step, Undo};
use crate::report::{Report, in_words};
use crate::wire::message::Batch;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The bytes of a table that a plain build reads in a second, at least. Measured on two busy cores: 25 to 100 MB, depending on the index's
/// columns (40 MB of 400,000 rows: 0.4 s for an integer, 1.5 s for a text of 32 characters).
const PACE: u64 = 40 << 20;

/// A transaction of this age is not expected to end in a moment. A concurrent build that could be plain waits no longer than this, each
/// time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pause after an attempt, as a multiple of the time that the attempt may have made others wait.
const PAUSE: u32 = 10;

/// A query for the size of the table with the oid `$1`, and for the session whose snapshot a build would wait for longest: its pid,
/// application, role, state and age, and whether it belongs to the same client.
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

/// What is known of a build before it begins.
#[derive(Debug, Default)]
struct BuildForecast {
    bytes: Option<u64>,
    oldest: Option<OldestSnapshot>,
}

/// The session that holds the oldest snapshot.
#[derive(Debug)]
struct OldestSnapshot {
    who: String,
    pid: String,
    age: Duration,
    same_client: bool,
}

impl OldestSnapshot {
    /// Whether the snapshot is not expected to end in a moment.
    fn is_settled(&self) -> bool {
        self.same_client || self.age >= PATIENCE
    }
}

/// Runs the steps of a long phase: index builds and validations.
pub(super) async fn long_steps(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    reply: &mut Reply,
) -> Result<(), RunError> {
    for step in &phase.steps {
        if let Some(stop) = context.interrupted() {
            return Err(stop);
        }
        match plain(phase, step) {
            Some((table, plain)) => build(context, state, phase, step, (&table, &plain), reply).await?,
            None => {
                let answer = long_step(context, state, step, None).await?;
                over(context, step, answer, reply)?;
            }
        }
    }
    Ok(())
}

/// Runs one step, with reports of its progress. `limit` is how long the step may wait for other sessions each time.
async fn long_step(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    step: &Step,
    limit: Option<Duration>,
) -> Result<Answer, RunError> {
    let own = context.facts().session.lock_timeout_ms;
    let limit = limit.filter(|limit| own == 0 || limit.as_millis() < u128::from(own));
    if let Some(limit) = limit {
        context.channel_mut().ask_one(&format!("SET lock_timeout = {}", limit.as_millis()), &[]).await?;
    }
    let (tell, mut progress) = mpsc::channel(4);
    let watch = progress::watch(context.config(), context.channel().target(), &context.facts().session, tell);
    let mut batch = Batch::new();
    batch.statement(&step.named(state.names()), &[]);
    let answer = context.channel_mut().ask_with(batch, step.visible.then_some(0), &mut progress).await;
    drop(watch);
    let answer = answer?;
    if limit.is_some() {
        context.channel().cancel_settled().await;
        context.channel_mut().ask_one(&format!("SET lock_timeout = {own}"), &[]).await?;
    }
    Ok(answer)
}

/// Puts the end of a step into the reply, or returns its error.
fn over(context: &mut ExecutionContext<'_>, step: &Step, answer: Answer, reply: &mut Reply) -> Result<(), RunError> {
    reply.frames.unsplit(answer.notices);
    let Some(error) = answer.error else {
        reply.frames.unsplit(answer.completion);
        return Ok(());
    };
    let gone = context.channel().client_gone();
    context.channel().take_cancelled();
    let stop = context.failed(step, error, reply);
    Err(if gone { RunError::ClientGone } else { stop })
}

/// Builds an index that the author wrote plainly. `plain` holds the table, and the step without CONCURRENTLY.
async fn build(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    phase: &Phase,
    step: &Step,
    plain: (&LockNeed, &Step),
    reply: &mut Reply,
) -> Result<(), RunError> {
    let before = before_build(context, plain.0.oid).await?;
    let quick = before.bytes.is_some_and(|bytes| is_quick(context, bytes));
    let settled = before.oldest.filter(OldestSnapshot::is_settled);
    let stuck = settled.as_ref().is_some_and(|oldest| oldest.same_client);
    if let Some(oldest) = &settled {
        tell_of(context, plain.0, oldest, quick);
    }
    let limit = match (quick, stuck) {
        (true, _) => Some(PATIENCE),
        // The client's own snapshot would never end, so the wait has a limit.
        (false, true) => Some(context.config().locks.deadline),
        (false, false) => None,
    };
    if !(quick && settled.is_some()) {
        let answer = long_step(context, state, step, limit).await?;
        let waited = quick && answer.error.as_ref().is_some_and(is_lock_failure) && !context.channel().client_gone();
        if !waited {
            return over(context, step, answer, reply);
        }
        undo::undo_phase(context, state, phase, UndoneAfter::Failed).await?;
        if let Some(oldest) = before_build(context, plain.0.oid).await?.oldest {
            tell_of(context, plain.0, &oldest, true);
        }
    }
    if build_plainly(context, state, plain, reply).await? {
        return Ok(());
    }
    let answer = long_step(context, state, step, stuck.then_some(context.config().locks.deadline)).await?;
    over(context, step, answer, reply)
}

/// Whether a plain build probably ends within the stall budget. Half of that budget is for the wait in the lock queue. An operator turns
/// plain builds off with `small_table = 0`.
fn is_quick(context: &ExecutionContext<'_>, bytes: u64) -> bool {
    let budget = u64::try_from(context.config().locks.stall_budget.as_millis() / 2).unwrap_or(u64::MAX);
    context.config().ddl.small_table > 0 && bytes / (PACE / 1000) <= budget
}

/// Builds the index plainly, under lock attempts. Returns false if the build takes longer than the stall budget.
async fn build_plainly(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    (table, step): (&LockNeed, &Step),
    reply: &mut Reply,
) -> Result<bool, RunError> {
    let (limit, begun) = (context.wait_limit(), Instant::now());
    let mut patience = None;
    loop {
        if let Some(stop) = context.interrupted() {
            return Err(stop);
        }
        let answer = try_plainly(context, state, table, step, patience).await?;
        let Some(error) = &answer.error else {
            context.metrics().measures.waited_for_locks(begun.elapsed().saturating_sub(answer.took));
            reply.frames.unsplit(answer.notices);
            reply.frames.unsplit(answer.completion);
            return Ok(true);
        };
        let too_long = is_statement_timeout(error, answer.took, build_budget(context, patience.unwrap_or_default()));
        if too_long && !context.channel().take_cancelled() && !context.channel().client_gone() {
            return Ok(false);
        }
        if !is_lock_failure(error) || begun.elapsed() >= limit {
            return over(context, step, answer, reply).map(|()| true);
        }
        context.metrics().lock_attempts_failed.add();
        let queued = patience.unwrap_or_default();
        let nap = (queued * PAUSE).max(context.config().locks.poll).mul_f64(0.75 + jitter() / 2.0);
        let words = format!("waiting for SHARE on {}", table.relation);
        let nap = nap_sql(nap, &context.channel().words(&words));
        let napped = context.channel_mut().ask_one(&nap, &[]).await?;
        context.cancelled_by(napped.error)?;
        if begun.elapsed() >= context.config().locks.starve_after {
            let next = if queued.is_zero() { context.config().locks.ladder_start } else { queued * 2 };
            // A `lock_timeout` of 0 would be no limit.
            patience = Some(next.min(context.config().locks.stall_budget / 2).max(Duration::from_millis(1)));
        }
    }
}

/// Makes one attempt of a plain build. With `patience` it waits in PostgreSQL's lock queue for at most this long, otherwise it uses NOWAIT.
async fn try_plainly(
    context: &mut ExecutionContext<'_>,
    state: &RunState,
    table: &LockNeed,
    step: &Step,
    patience: Option<Duration>,
) -> Result<Answer, RunError> {
    context.metrics().lock_attempts.add();
    let mut batch = Batch::new();
    batch.statement("BEGIN", &[]);
    let timeout = patience.unwrap_or_else(|| context.config().locks.fallback_timeout);
    batch.statement(&set_local("lock_timeout", timeout), &[]);
    let locks = lock_sql(std::slice::from_ref(table), patience.is_some());
    locks.nowait.iter().chain(&locks.queued).for_each(|sql| batch.statement(sql, &[]));
    // The attempt holds its lock from here on.
    batch.statement(&set_local("statement_timeout", build_budget(context, patience.unwrap_or_default())), &[]);
    let visible = batch.statements;
    batch.statement(&step.named(state.names()), &[]);
    batch.statement("COMMIT", &[]);
    let answer = context.channel_mut().ask(batch, step.visible.then_some(visible)).await?;
    context.metrics().measures.attempted(attempt_word(answer.error.as_ref()), answer.took);
    if answer.error.is_some() {
        context.rollback_attempt().await?;
    }
    Ok(answer)
}

/// Returns the rest of the stall budget after the wait for the lock, or the session's own limit if that is shorter.
fn build_budget(context: &ExecutionContext<'_>, queued: Duration) -> Duration {
    let budget = context.config().locks.stall_budget.saturating_sub(queued).max(Duration::from_millis(1));
    match context.facts().session.statement_timeout_ms {
        0 => budget,
        own => budget.min(Duration::from_millis(own)),
    }
}

/// Asks for the forecast of a build. If the question fails, the forecast is empty.
async fn before_build(context: &mut ExecutionContext<'_>, oid: u32) -> Result<BuildForecast, RunError> {
    let answer = context.channel_mut().ask_one(BEFORE_SQL, &[&oid.to_string()]).await?;
    if let Some(error) = answer.error {
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            return context.cancelled_by(Some(error)).map(|()| BuildForecast::default());
        }
        tracing::debug!(sqlstate = error.sqlstate(), "cannot ask which sessions a build would wait for");
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

/// Tells the client of the session whose snapshot is old, and what the build does about it.
fn tell_of(context: &mut ExecutionContext<'_>, table: &LockNeed, oldest: &OldestSnapshot, quick: bool) {
    let OldestSnapshot { who, pid, .. } = oldest;
    tracing::info!(waits_for = who, quick, "a build would wait for an old snapshot");
    if !context.config().ddl.notices {
        return;
    }
    let report = if quick {
        let message = format!("the index on {} is built at once, not concurrently", table.relation);
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(format!(
            "A concurrent build would wait for the snapshot of {who}. The table is small enough for a plain build."
        ))
    } else {
        let whose = if oldest.same_client { " This is another session of the same client." } else { "" };
        let message = format!("the concurrent build on {} waits for an older snapshot", table.relation);
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
            .detail(format!("The snapshot is held by {who}.{whose}"))
            .hint(format!(
                "Nobody else waits meanwhile. The build ends when that transaction does: close its cursor or end the transaction, or SELECT pg_terminate_backend({pid})."
            ))
    };
    context.notify(&report);
}

/// If the step is a concurrent build that its author wrote as a plain one, returns the table with the lock of a plain build, and the plain
/// build.
fn plain(phase: &Phase, step: &Step) -> Option<(LockNeed, Step)> {
    /// The word with which the concurrent build differs from the plain one.
    const CONCURRENTLY: &str = " CONCURRENTLY";
    let Some(Undo::DropInvalidIndexes { oid, .. } | Undo::DropBuiltIndex { oid, .. } | Undo::DropNewIndex { oid, .. }) =
        &phase.undo
    else {
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
