//! The invalid indexes that a failed build or a failed drop has left: how they are found and dropped.
//!
//! This file owns the SQL that finds them. It keeps true that an index that another session is building is not touched. That session holds
//! a lock on the table from the beginning, and from 12 on the server reports which index it builds. As long as the server does not report
//! it, the state of the index is uncertain, and the client is told so.
//!
//! An index is dropped only if it was invalid, no other session was building it, and its row was the same, at two looks in a row.
//!
//! Nothing here waits in PostgreSQL's lock queue behind a build: it would hold a snapshot that the build waits for.

use crate::execute::context::ExecutionContext;
use crate::execute::outcome::RunError;
use crate::execute::timing::UNDO_PATIENCE;
use crate::lanes::nap_sql;
use crate::pg::relation::RelationName;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// How long the server may take to report the index of a build that has just begun.
const TELLS_WITHIN: Duration = Duration::from_secs(2);
/// The nap between two looks.
const NAP: Duration = Duration::from_millis(50);

/// A condition: another session that holds the lock of builds on the table of the index `i` may be building this index. VACUUM and
/// autovacuum (which has no user) take the same lock but build nothing.
const LOCKED: &str = "EXISTS (SELECT FROM pg_catalog.pg_locks l \
     WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted \
     AND l.relation OPERATOR(pg_catalog.=) i.indrelid \
     AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d \
       WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
     AND l.mode OPERATOR(pg_catalog.=) 'ShareUpdateExclusiveLock' \
     AND l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() \
     AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity a \
       WHERE a.pid OPERATOR(pg_catalog.=) l.pid AND a.usesysid IS NOT NULL) \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v \
       WHERE v.pid OPERATOR(pg_catalog.=) l.pid) AND builds_it)";

/// A condition, from 12 on: the session that holds the lock builds an index, and not certainly another one. A REINDEX reports one of its
/// indexes. The server reports nothing of other roles' sessions.
const BUILDS_IT: &str = "EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p \
     WHERE p.pid OPERATOR(pg_catalog.=) l.pid AND (p.index_relid IS NULL \
       OR p.index_relid OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, i.indexrelid]) \
       OR p.command OPERATOR(pg_catalog.~~) 'REINDEX%'))";

/// A condition: a transaction that is under way changes the row of the index `i`. A build releases its lock on the table when it has marked
/// its index valid, and commits only after that (`DefineIndex` in `indexcmds.c`).
const CHANGED: &str = "EXISTS (SELECT FROM pg_catalog.pg_locks x \
     WHERE x.locktype OPERATOR(pg_catalog.=) 'transactionid' AND x.granted AND x.transactionid OPERATOR(pg_catalog.=) i.xmax)";

/// Returns the condition that another session may be building the index `i`.
fn may_be_anothers(server_version: i32) -> String {
    let locked = LOCKED.replace("builds_it", if server_version < 120_000 { "true" } else { BUILDS_IT });
    format!("({locked} OR {CHANGED})")
}

/// An invalid index, and the transaction that was the last to change or lock its row (`xmax`).
type Look = (RelationName, Option<String>);

/// Returns the invalid indexes of a table, except those that were invalid before, and the copies that an interrupted REINDEX CONCURRENTLY
/// has left on its TOAST table.
pub(super) async fn invalid_indexes(
    context: &mut ExecutionContext<'_>,
    table: u32,
    known: &[u32],
) -> Result<Vec<RelationName>, RunError> {
    let known: Vec<String> = known.iter().map(u32::to_string).collect();
    let known = format!("{{{}}}", known.join(","));
    let anothers = may_be_anothers(context.facts().session.server_version);
    let sql = format!(
        "SELECT n.nspname, c.relname, {anothers}, i.xmax::pg_catalog.text FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
         WHERE (i.indrelid OPERATOR(pg_catalog.=) t.oid OR i.indrelid OPERATOR(pg_catalog.=) t.reltoastrelid \
         AND c.relname OPERATOR(pg_catalog.~) '_cc(new|old)[0-9]*$') AND NOT i.indisvalid \
         AND NOT (i.indexrelid OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]::pg_catalog.oid[]))"
    );
    let begun = Instant::now();
    let mut before: Option<Vec<Look>> = None;
    loop {
        let rows = match context.surely(&sql, &[&table.to_string(), &known]).await {
            Ok(rows) => rows,
            Err(RunError::Lost) => return Err(RunError::Lost),
            Err(stop) => {
                tracing::warn!(reason = stop.reason(), "cannot ask which indexes a schema change has left");
                return Ok(Vec::new());
            }
        };
        let (uncertain, ours): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.get(2).is_some_and(|value| value.as_deref() == Some("t")));
        let ours: Vec<Look> = ours.iter().filter_map(|row| Some((named(row)?, row.get(3)?.clone()))).collect();
        if uncertain.is_empty() || begun.elapsed() >= TELLS_WITHIN {
            // One look reads the catalogue of its snapshot and the locks of the moment. If a build ended between the two, its index is
            // valid at the next look, or another transaction has changed its row meanwhile.
            if let Some(before) = before {
                uncertain.iter().filter_map(|row| named(row)).for_each(|index| tell_uncertain(context, &index));
                return Ok(ours.into_iter().filter(|look| before.contains(look)).map(|(index, _)| index).collect());
            }
            if ours.is_empty() && uncertain.is_empty() {
                return Ok(Vec::new());
            }
            before = Some(ours);
            continue;
        }
        before = None;
        context.channel_mut().ask_one(&nap_sql(NAP, "waiting to finish or undo"), &[]).await?;
    }
}

/// Sends the WARNING that an invalid index may be another session's.
fn tell_uncertain(context: &mut ExecutionContext<'_>, index: &RelationName) {
    tracing::warn!(%index, "an invalid index may be another session's and was not dropped");
    let message =
        format!("the invalid index {index} may be left by this statement, or another session may be building it");
    let hint = format!(
        "If the index is still invalid when that session has finished, drop it: DROP INDEX CONCURRENTLY {}.",
        index.quoted()
    );
    context.notify(&Report::warning(sqlstate::WARNING, message).hint(hint));
}

/// Drops an index: at once if no other session uses the table, otherwise concurrently, which waits for the sessions that use it. While
/// another session builds an index on the table, neither is possible.
pub(super) async fn drop_leftover(context: &mut ExecutionContext<'_>, index: &RelationName) -> Result<(), RunError> {
    let begun = Instant::now();
    let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.quoted());
    let failed = loop {
        let mut batch = Batch::new();
        batch.statement("BEGIN", &[]);
        batch.statement("SET LOCAL lock_timeout = 10", &[]);
        batch.statement(&format!("DROP INDEX IF EXISTS {}", index.quoted()), &[]);
        batch.statement("COMMIT", &[]);
        if context.channel_mut().ask(batch, None).await?.error.is_none() {
            return Ok(());
        }
        context.channel_mut().ask_one("ROLLBACK", &[]).await?;
        if !somebody_builds_beside(context, index).await? {
            match context.channel_mut().ask_one(&sql, &[]).await?.error {
                None => return Ok(()),
                // A cancel was meant for the statement, and not for its undo.
                Some(error) if error.sqlstate() == sqlstate::QUERY_CANCELED && begun.elapsed() < UNDO_PATIENCE => {
                    context.channel().cancel_settled().await;
                    continue;
                }
                Some(error) => break error.message().to_owned(),
            }
        }
        if begun.elapsed() >= UNDO_PATIENCE {
            break "another session is building on its table".to_owned();
        }
        context.channel_mut().ask_one(&nap_sql(NAP, "waiting to finish or undo"), &[]).await?;
    };
    tracing::warn!(%index, failed, "could not drop an unfinished index");
    context.notify(
        &Report::warning(sqlstate::WARNING, format!("could not drop the invalid index {index}: {failed}")).hint(
            format!("Drop it by hand: {sql}. The next CREATE INDEX of that name through the proxy drops it too."),
        ),
    );
    Ok(())
}

/// Whether another session holds the lock of builds on the table of the index.
async fn somebody_builds_beside(context: &mut ExecutionContext<'_>, index: &RelationName) -> Result<bool, RunError> {
    let locked = LOCKED.replace("builds_it", "true");
    let sql = format!(
        "SELECT {locked} FROM pg_catalog.pg_index i \
         WHERE i.indexrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid"
    );
    let answer = context.channel_mut().ask_one(&sql, &[&index.quoted()]).await?;
    Ok(answer.value() == Some("t"))
}

/// Reads a row that begins with a schema and a name.
fn named(row: &[Option<String>]) -> Option<RelationName> {
    Some(RelationName { schema: row.first()?.clone(), name: row.get(1)?.clone()? })
}
