//! How a schema change takes its turn: it holds the lanes of the relations that it names from before its facts are read until it is over.
//!
//! Facts are true only as long as nobody changes the relations that they describe, and a plan of several phases leaves its table unlocked
//! between two phases. So a statement first takes the lanes of the relations that it names, then reads the facts, then plans. A statement
//! that has waited for a lane therefore sees what the statement ahead has made. It does not take a change for done that is still under way
//! or about to be undone.
//!
//! This file owns the SQL that tries lanes, and the loop that waits for them. It keeps true that a statement takes all of its lanes or
//! none, so that no two statements wait for each other; that lanes are tried, and never waited for in PostgreSQL; and that a waiting
//! statement holds no lane, looks less and less often, and tells its client which session it waits for.
//!
//! In a transaction block lanes could be given back only at its end, and each is one more lock in the server. There the statement waits
//! until the lanes are free, and takes none. If the transaction holds locks already, the session ahead may be waiting for these locks. Then
//! the statement waits for its turn no longer than the stall budget, and goes on.

use crate::catalog::query::{LANE_CLASS, array, may_change};
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use crate::execute::timing::{LONGEST_NAP, jitter};
use crate::execute::turn::Turn;
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::report::{Report, in_words};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A query for the relations whose lanes a statement needs. `$1` are names (`text[]`), `$2` oids (`oid[]`), each in its text form.
const WANTED_SQL: &str = include_str!("../lanes/wanted.sql");

/// Returns the query for the session that holds one of the lanes. Only a session counts whose role may change the relation.
fn holder_sql() -> String {
    let counts = may_change("a.usesysid");
    HOLDER_SQL.replace("holder_counts", &counts).replace("wanted", WANTED_SQL)
}

/// The text of [`holder_sql`], without the condition on the role and the relations.
const HOLDER_SQL: &str = "/* pgsluice: who has the turn */ \
     SELECT pg_catalog.min(l.pid)::pg_catalog.text FROM pg_catalog.pg_locks l \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.objid \
     JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid AND holder_counts \
     WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted \
     AND l.classid OPERATOR(pg_catalog.=) 1885827948::pg_catalog.oid AND l.objsubid OPERATOR(pg_catalog.=) 2::pg_catalog.int2 \
     AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d \
       WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
     AND l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() AND l.objid OPERATOR(pg_catalog.=) ANY (ARRAY(wanted))";

/// How a lane is taken.
#[derive(Clone, Copy)]
enum LaneHold {
    /// The session holds the lane.
    Session,
    /// The transaction holds the lanes, all or none: an error releases those that were taken.
    Transaction,
    /// The lane is taken and given back at once, which shows that it is free.
    Moment,
}

/// Returns the query that tries the lanes. It gives a row for each lane: the oid, and whether the lane was taken.
fn turn_sql(hold: LaneHold) -> String {
    // The second key is a signed number: the 32 bits of the oid.
    let lane = format!(
        "({LANE_CLASS}, (w.oid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32 OPERATOR(pg_catalog.>>) 32)::pg_catalog.int4)"
    );
    let taken = match hold {
        LaneHold::Session => format!("pg_catalog.pg_try_advisory_lock{lane}"),
        LaneHold::Transaction => format!("pg_catalog.pg_try_advisory_xact_lock{lane}"),
        LaneHold::Moment => format!(
            "CASE WHEN pg_catalog.pg_try_advisory_lock{lane} THEN pg_catalog.pg_advisory_unlock{lane} ELSE false END"
        ),
    };
    let tries =
        format!("SELECT w.oid::pg_catalog.int8::pg_catalog.text AS oid, {taken} AS taken FROM (\n{WANTED_SQL}\n) AS w");
    if !matches!(hold, LaneHold::Transaction) {
        return format!("/* pgsluice: a schema change's turn */ {tries}");
    }
    format!(
        "/* pgsluice: a schema change's turn */ SELECT t.oid, t.taken FROM (\
         SELECT q.oid, q.taken, pg_catalog.bool_and(q.taken) OVER () AS complete FROM ({tries}) AS q) AS t \
         WHERE (1 OPERATOR(pg_catalog./) CASE WHEN t.complete THEN 1 ELSE 0 END) OPERATOR(pg_catalog.=) 1"
    )
}

/// The first notice comes when a wait is long enough for a person to notice it.
const FIRST_NOTICE: Duration = Duration::from_millis(250);

/// The shortest nap. A nap takes a tenth of the time waited so far, from this to [`LONGEST_NAP`]: the session ahead may take an hour, and
/// each look costs the server.
const SHORTEST_NAP: Duration = Duration::from_millis(10);

/// The most relations whose lanes a turn holds. Lanes of more relations are taken phase by phase, because each lane is an entry in the
/// server's lock table.
pub const MOST: usize = 64;

/// The result of one look at the lanes.
enum LanesOutcome {
    Taken(Vec<u32>),
    /// At least one lane is taken by another session, so this session took none.
    Busy,
    /// The question failed.
    Unknown,
}

/// Tries once to take the lanes of these relations. A relation that does not exist, is temporary or belongs to the system has no lane.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn try_turn(
    context: &mut ExecutionContext<'_>,
    names: &[RelationName],
    oids: &[u32],
) -> Result<Turn, RunError> {
    let in_transaction = context.in_transaction();
    Ok(match look_at_lanes(context, names, oids).await? {
        LanesOutcome::Taken(lanes) => Turn::of(lanes, in_transaction),
        LanesOutcome::Busy => Turn::taken(in_transaction),
        LanesOutcome::Unknown => Turn::unknown(in_transaction),
    })
}

/// Waits for the lanes for as long as the session's own timeouts allow. With `patience` it waits no longer than that, and returns a turn
/// without lanes.
///
/// # Errors
/// The wait reached its limit or was cancelled, or the backend is lost.
pub async fn wait_for_turn(
    context: &mut ExecutionContext<'_>,
    names: &[RelationName],
    oids: &[u32],
    patience: Option<Duration>,
) -> Result<Turn, RunError> {
    let begun = Instant::now();
    let in_transaction = context.in_transaction();
    let (mut notified, mut holder) = (None::<Instant>, None);
    let mut by_strangers = 0;
    let mut look = look_at_lanes(context, names, oids).await?;
    loop {
        match look {
            LanesOutcome::Taken(lanes) => return awake(context, Turn::of(lanes, in_transaction)).await,
            LanesOutcome::Unknown => return awake(context, Turn::unknown(in_transaction)).await,
            LanesOutcome::Busy => {}
        }
        let waited = begun.elapsed();
        context.waits(waited, || format!("Waiting for {}.", ahead(names, holder)));
        if patience.is_some_and(|patience| waited >= patience) {
            return awake(context, Turn::unknown(in_transaction)).await;
        }
        let due = notified.map_or(waited >= FIRST_NOTICE, |at| at.elapsed() >= context.config().ddl.progress_interval);
        if due || holder.is_none() {
            context.finish_nap().await?;
            let found = holder_of(context, names, oids).await?;
            by_strangers = if found.is_none() { by_strangers + 1 } else { 0 };
            holder = found.or(holder);
        }
        // The holder was asked for twice, because the lane may have been given back or taken between the two questions.
        if holder.is_none() && by_strangers > 1 {
            tracing::warn!(
                "a session whose role may not change a relation holds the lane of that relation: going on without the lane"
            );
            return Ok(Turn::of_strangers(in_transaction));
        }
        if due {
            notified = Some(Instant::now());
            tell_turn(context, names, holder);
        }
        if let Some(report) = turn_timed_out(context, waited, names, holder) {
            context.finish_nap().await?;
            return Err(context.give_up_block(RunError::Report(report)).await);
        }
        let spread = 1.0 + context.config().locks.poll_jitter * (jitter() * 2.0 - 1.0);
        let nap = (waited / 10).clamp(SHORTEST_NAP, LONGEST_NAP).mul_f64(spread.max(0.1));
        let nap = patience.map_or(nap, |patience| nap.min(patience));
        let nap = nap_sql(nap, &context.channel().words(&behind(names, holder)));
        look = look_and_nap(context, names, oids, &nap).await?;
        if let Some(stop) = context.interrupted() {
            if let LanesOutcome::Taken(lanes) = look {
                give_awake(context, lanes).await?;
            }
            return Err(context.give_up_block(stop).await);
        }
    }
}

/// Waits for the end of the last nap. If a cancel ended the nap, the lanes are given back.
async fn awake(context: &mut ExecutionContext<'_>, mut turn: Turn) -> Result<Turn, RunError> {
    let nap_error = context.channel_mut().finish_nap().await?;
    if nap_error.is_some() {
        end_turn(context, &mut turn).await?;
    }
    context.cancelled_by(nap_error).map(|()| turn)
}

/// Waits for the end of the last nap, then gives the lanes back.
async fn give_awake(context: &mut ExecutionContext<'_>, lanes: Vec<u32>) -> Result<(), RunError> {
    context.channel_mut().finish_nap().await?;
    context.release_lanes(lanes).await
}

/// Looks once and naps. Outside a transaction block the backend is never idle in between, so that a cancel from anywhere ends one of the
/// naps.
async fn look_and_nap(
    context: &mut ExecutionContext<'_>,
    names: &[RelationName],
    oids: &[u32],
    nap: &str,
) -> Result<LanesOutcome, RunError> {
    if context.in_transaction() {
        let answer = context.channel_mut().ask_one(nap, &[]).await?;
        context.cancelled_by(answer.error)?;
        return look_at_lanes(context, names, oids).await;
    }
    let wanted = wanted(names, oids);
    let wanted = wanted.each_ref().map(String::as_str);
    let mut batch = Batch::new();
    batch.statement("BEGIN", &[]);
    // While this transaction holds the locks, no other session can take the session's locks between the two statements.
    batch.statement(&turn_sql(LaneHold::Transaction), &wanted);
    batch.statement(&turn_sql(LaneHold::Session), &wanted);
    batch.statement("COMMIT", &[]);
    let (answer, nap_error) = context.channel_mut().ask_then_roll_back_and_nap(batch, nap).await?;
    let taken: BTreeSet<u32> = answer.rows.iter().filter_map(|row| lane(row)).map(|(oid, _)| oid).collect();
    let look = match answer.error {
        None => LanesOutcome::Taken(taken.into_iter().collect()),
        Some(error) if error.sqlstate() == sqlstate::DIVISION_BY_ZERO => LanesOutcome::Busy,
        // The cancel was meant for the nap.
        Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED => {
            context.channel_mut().finish_nap().await?;
            // The session may have taken some of the lanes. Giving back the others does nothing.
            context.release_lanes(taken.into_iter().collect()).await?;
            return Err(context.cancelled_by(Some(error)).err().unwrap_or(RunError::ClientGone));
        }
        Some(_) => LanesOutcome::Unknown,
    };
    if nap_error.is_some() {
        if let LanesOutcome::Taken(lanes) = look {
            give_awake(context, lanes).await?;
        }
        return Err(context.cancelled_by(nap_error).err().unwrap_or(RunError::ClientGone));
    }
    Ok(look)
}

/// Tries the lanes once: takes all of them, or none.
async fn look_at_lanes(
    context: &mut ExecutionContext<'_>,
    names: &[RelationName],
    oids: &[u32],
) -> Result<LanesOutcome, RunError> {
    let inside = context.in_transaction();
    let wanted = wanted(names, oids);
    let mut batch = Batch::new();
    if inside {
        batch.savepoint();
    }
    let hold = if inside { LaneHold::Moment } else { LaneHold::Session };
    batch.statement(&turn_sql(hold), &wanted.each_ref().map(String::as_str));
    if inside {
        batch.release_savepoint();
    }
    let answer = context.channel_mut().ask(batch, None).await?;
    let lanes: Vec<(u32, bool)> = answer.rows.iter().filter_map(|row| lane(row)).collect();
    let taken: Vec<u32> = lanes.iter().filter(|(_, taken)| *taken).map(|(oid, _)| *oid).collect();
    let Some(error) = answer.error else {
        let all = taken.len() == lanes.len();
        if inside {
            return Ok(if all { LanesOutcome::Taken(Vec::new()) } else { LanesOutcome::Busy });
        }
        if all {
            return Ok(LanesOutcome::Taken(taken));
        }
        context.release_lanes(taken).await?;
        return Ok(LanesOutcome::Busy);
    };
    if inside {
        context.rollback_attempt().await?;
    } else {
        context.release_lanes(taken).await?;
    }
    if error.sqlstate() == sqlstate::QUERY_CANCELED || context.channel().client_gone() {
        let stop = context.cancelled_by(Some(error)).err().unwrap_or(RunError::ClientGone);
        return Err(context.give_up_block(stop).await);
    }
    tracing::debug!(sqlstate = error.sqlstate(), "cannot ask for the lanes of a schema change");
    Ok(LanesOutcome::Unknown)
}

/// Takes the lanes of further relations that a plan locks, if all of them are free. Otherwise it gives all lanes of the turn back.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn extend_turn(
    context: &mut ExecutionContext<'_>,
    turn: &mut Turn,
    wanted: &BTreeSet<u32>,
) -> Result<(), RunError> {
    let more: Vec<u32> = wanted.iter().copied().filter(|oid| !turn.has(*oid)).collect();
    if more.is_empty() || turn.is_in_transaction() || !turn.is_free() {
        return Ok(());
    }
    match look_at_lanes(context, &[], &more).await? {
        LanesOutcome::Taken(lanes) => {
            turn.extend(lanes);
        }
        LanesOutcome::Busy => {
            end_turn(context, turn).await?;
            turn.set_busy();
        }
        LanesOutcome::Unknown => {}
    }
    Ok(())
}

/// Gives the lanes of the turn back.
///
/// # Errors
/// The backend is lost.
pub async fn end_turn(context: &mut ExecutionContext<'_>, turn: &mut Turn) -> Result<(), RunError> {
    context.release_lanes(turn.take_lanes()).await
}

/// Returns the pid of a session that holds one of the lanes.
async fn holder_of(
    context: &mut ExecutionContext<'_>,
    names: &[RelationName],
    oids: &[u32],
) -> Result<Option<i32>, RunError> {
    let wanted = wanted(names, oids);
    let mut batch = Batch::new();
    let inside = context.in_transaction();
    if inside {
        batch.savepoint();
    }
    batch.statement(&holder_sql(), &wanted.each_ref().map(String::as_str));
    let answer = context.channel_mut().ask(batch, None).await?;
    if inside {
        context.rollback_attempt().await?;
    }
    if let Some(error) = answer.error.as_ref().filter(|error| error.sqlstate() == sqlstate::QUERY_CANCELED) {
        context.cancelled_by(Some(ServerError::new(error.frame.clone())))?;
    }
    Ok(answer.value().and_then(|pid| pid.parse().ok()))
}

/// Tells the client which session has its turn before this statement.
fn tell_turn(context: &mut ExecutionContext<'_>, names: &[RelationName], holder: Option<i32>) {
    let message = format!("waiting for {}", ahead(names, holder));
    tracing::info!("{message}");
    if context.config().ddl.notices {
        let mut report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
            .detail("Another schema change of the same relation is under way. This statement is planned when that schema change is over.");
        if let Some(pid) = holder {
            report = report.hint(format!(
                "Nobody else waits meanwhile. To end the wait: cancel this statement, or SELECT pg_terminate_backend({pid})."
            ));
        }
        context.notify(&report);
    }
}

/// Returns the error that the server would have raised for a wait for the lock of the session ahead, if a timeout is over.
fn turn_timed_out(
    context: &ExecutionContext<'_>,
    waited: Duration,
    names: &[RelationName],
    holder: Option<i32>,
) -> Option<Report> {
    let session = &context.facts().session;
    let over = |ms: u64| ms > 0 && waited >= Duration::from_millis(ms);
    let detail = || format!("Waited {} for {}.", in_words(waited), ahead(names, holder));
    if over(session.lock_timeout_ms) {
        let report = Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout");
        return Some(report.detail(detail()));
    }
    if over(session.statement_timeout_ms) {
        let report = Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
        return Some(report.detail(detail()));
    }
    (waited >= turn_limit(context)).then(|| {
        let report = Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout");
        report
            .detail(detail())
            .hint("Try again when that schema change is over, or raise turn_limit in [locks] of proxy.toml.")
    })
}

/// Returns the longest wait for a turn. In a transaction block that blocks other sessions it is the limit of every wait.
fn turn_limit(context: &ExecutionContext<'_>) -> Duration {
    let holds = context.facts().session.strongest_lock.is_some_and(|mode| mode.blocks_application());
    if context.in_transaction() && holds { context.wait_limit() } else { context.config().locks.turn_limit }
}

/// Returns the parameters of [`WANTED_SQL`].
fn wanted(names: &[RelationName], oids: &[u32]) -> [String; 2] {
    let names: Vec<String> = names.iter().map(RelationName::quoted).collect();
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    [names, oids].map(|words| array(words.iter().map(|word| Some(word.as_str()))))
}

/// Reads a row of [`turn_sql`].
fn lane(row: &[Option<String>]) -> Option<(u32, bool)> {
    let [oid, taken] = row else { return None };
    Some((oid.as_deref()?.parse().ok()?, taken.as_deref()? == "t"))
}

/// Returns the schema change ahead in words.
fn ahead(names: &[RelationName], holder: Option<i32>) -> String {
    let names: Vec<String> = names.iter().take(3).map(ToString::to_string).collect();
    let of = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
    match holder {
        Some(pid) => format!("the schema change{of} by pid {pid}"),
        None => format!("another schema change{of}"),
    }
}

/// Returns the comment of a nap, for `pg_stat_activity`.
fn behind(names: &[RelationName], holder: Option<i32>) -> String {
    let behind = holder.map(|pid| format!(", behind the DDL of pid {pid}")).unwrap_or_default();
    format!("waiting for {}{behind}", ahead(names, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_knows_the_lane() {
        assert!(HOLDER_SQL.contains(&LANE_CLASS.to_string()));
    }
}
