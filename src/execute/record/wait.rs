//! How a session waits for the end of what another session has recorded on a table: a plan that is running, or a transaction block that has
//! something ahead of it.
//!
//! This file owns the loop of naps, and the look for a session that waits for this one in turn. It keeps true that a wait ends: with the other
//! session, with a cancel or a timeout, or as a deadlock. Some of these waits are naps, which the server's own deadlock check does not see.

use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use crate::execute::record::{Record, table};
use crate::lanes::nap_sql;
use crate::pg::sqlstate;
use crate::report::{Report, in_words};
use std::time::{Duration, Instant};

/// The first notice comes when a wait is long enough for a person to notice it.
const FIRST_NOTICE: Duration = Duration::from_millis(250);
/// The nap between two looks at a record that another session works on.
const NAP: Duration = Duration::from_millis(100);
/// The words of the nap's comment.
const WORDS: &str = "waiting to continue a schema change";

/// Whether the session `$1` waits in the server for a lock of this session, and what it is running.
const HOLDER_WAITS_SQL: &str = "/* pgsluice: who waits for whom */ \
     SELECT pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids($1::pg_catalog.int4)) AS blocked, \
     (SELECT a.query FROM pg_catalog.pg_stat_activity a \
       WHERE a.pid OPERATOR(pg_catalog.=) $1::pg_catalog.int4 AND a.state OPERATOR(pg_catalog.=) 'active') AS query";

/// Whether the table has a record of a plan ahead of the block of another session that is alive. The table is that block's until it is over.
///
/// # Errors
/// The statement was cancelled, or the backend is lost.
pub async fn is_of_another_block(context: &mut ExecutionContext<'_>, oid: u32) -> Result<bool, RunError> {
    Ok(other_block(context, oid).await?.is_some())
}

/// Returns the session whose block has something ahead of it on this table.
async fn other_block(context: &mut ExecutionContext<'_>, oid: u32) -> Result<Option<i32>, RunError> {
    let (_, found) = table::look_at_record(context, oid, false).await?;
    let own = context.facts().session.backend_pid;
    Ok(found.filter(|found| found.trusted && found.may).and_then(|found| {
        let holder = found.holder.filter(|holder| *holder != own)?;
        Record::from_text(found.text.as_deref()?)?.is_ahead().then_some(holder)
    }))
}

/// Waits until the block is over that has something ahead of it on this table.
///
/// # Errors
/// The wait reached its limit or was cancelled, it is part of a deadlock, or the backend is lost. The client's block has failed.
pub async fn wait_for_block(context: &mut ExecutionContext<'_>, oid: u32) -> Result<(), RunError> {
    let mut wait = RecordWait::new(context);
    while let Some(holder) = other_block(context, oid).await? {
        wait.nap(context, Some(holder)).await?;
    }
    Ok(())
}

/// The wait for the end of what another session is doing.
pub(super) struct RecordWait {
    begun: Instant,
    limit: Duration,
    notified: bool,
}

impl RecordWait {
    pub(super) fn new(context: &ExecutionContext<'_>) -> Self {
        Self { begun: Instant::now(), limit: context.wait_limit(), notified: false }
    }

    /// Sleeps for a moment.
    ///
    /// # Errors
    /// The wait is over. The client's block has failed.
    pub(super) async fn nap(
        &mut self,
        context: &mut ExecutionContext<'_>,
        holder: Option<i32>,
    ) -> Result<(), RunError> {
        match self.look(context, holder).await {
            Ok(()) => {}
            Err(stop) => return Err(context.give_up_block(stop).await),
        }
        let behind = holder.map(|pid| format!(", behind the DDL of pid {pid}")).unwrap_or_default();
        let nap = nap_sql(NAP, &format!("{WORDS}{behind}"));
        let answer = context.channel_mut().ask_one(&nap, &[]).await?;
        context.cancelled_by(answer.error)
    }

    /// Whether to wait on.
    async fn look(&mut self, context: &mut ExecutionContext<'_>, holder: Option<i32>) -> Result<(), RunError> {
        if let Some(stop) = context.interrupted() {
            return Err(stop);
        }
        let who = holder.map_or_else(|| "Another session".to_owned(), |pid| format!("The session of pid {pid}"));
        let detail = format!("{who} has a schema change of this table under way.");
        let took = self.begun.elapsed();
        if took >= self.limit {
            let waited = format!("Waited {} to go on with this statement. {detail}", in_words(took));
            let report = Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout");
            return Err(RunError::Report(report.detail(waited)));
        }
        let patience = Duration::from_millis(context.facts().session.deadlock_timeout_ms);
        if let Some(holder) = holder.filter(|_| took >= patience)
            && waits_for_us(context, holder).await?
        {
            let detail = format!("{detail} It waits for this session.");
            let report = Report::error(sqlstate::DEADLOCK_DETECTED, "deadlock detected").detail(detail);
            return Err(RunError::Report(report));
        }
        if took >= FIRST_NOTICE && !std::mem::replace(&mut self.notified, true) && context.config().ddl.notices {
            let message = "waiting for a schema change that another session has begun";
            context.notify(&Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail));
        }
        Ok(())
    }
}

/// Whether the other session waits for this one: in the server for one of its locks, or in a nap. If both nap in this loop, each sees the
/// other, and only the session whose pid is greater gives up. In a transaction the server shows the query of its first look, so that a nap may
/// not be seen there; such a wait ends with its limit.
async fn waits_for_us(context: &mut ExecutionContext<'_>, holder: i32) -> Result<bool, RunError> {
    let own = context.facts().session.backend_pid;
    let answer = context.channel_mut().ask_rows(HOLDER_WAITS_SQL, &[&holder.to_string()]).await?;
    context.cancelled_by(answer.error)?;
    let Some([blocked, query]) = answer.rows.first().map(Vec::as_slice) else { return Ok(false) };
    let query = query.as_deref().unwrap_or_default();
    Ok(blocked.as_deref() == Some("t") || (naps_behind(query, own) && (own > holder || !query.contains(WORDS))))
}

/// Whether the nap's comment says that its session waits for this pid.
fn naps_behind(query: &str, pid: i32) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
    let comment = query.split("*/").next().unwrap_or_default();
    [format!("behind the DDL of pid {pid}"), format!("blocked by pid {pid}")]
        .iter()
        .any(|words| comment.find(words).is_some_and(|at| is_end(&comment[at + words.len()..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nap_names_the_session_that_it_is_behind() {
        let nap = nap_sql(NAP, &format!("{WORDS}, behind the DDL of pid 12"));
        assert!(naps_behind(&nap, 12));
        assert!(!naps_behind(&nap, 1));
        assert!(!naps_behind("SELECT 'behind the DDL of pid 12'", 13));
        assert!(!naps_behind("/* pgsluice: waiting */ SELECT 'behind the DDL of pid 12'", 12));
    }
}
