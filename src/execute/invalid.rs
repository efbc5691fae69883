//! Invalid indexes that a failed build, or a failed drop, has left: which they are, and how they go.
//!
//! It promises: an index that another session is just building is not touched. That one has a lock on the table from its first moment on,
//! and from 12 on the server tells which index it builds; while it does not tell, nothing is certain, and that is said to the client.
//!
//! What is dropped was invalid, and nobody's, at two looks in a row.
//!
//! Nothing here waits in the queue behind a build: it would hold a snapshot that the build waits for in turn.

use crate::execute::context::Context;
use crate::execute::outcome::RunError;
use crate::execute::timing::UNDO_PATIENCE;
use crate::lanes::nap_sql;
use crate::pg::relation::RelationName;
use crate::pg::sqlstate;
use crate::report::Report;
use crate::wire::message::Batch;
use std::time::{Duration, Instant};

/// Whoever begins a build tells in a moment which index it is of.
const TELLS_WITHIN: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(50);

/// A condition: what another session does on the table of the index `i` may be a build of that one. VACUUM and autovacuum (the one that has no
/// user), which take the same lock, build nothing.
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

/// From 12 on, of whoever has the lock: it builds something, and not another index for certain. A REINDEX names one of several; of other
/// roles' sessions nothing is told.
const BUILDS_IT: &str = "EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p \
     WHERE p.pid OPERATOR(pg_catalog.=) l.pid AND (p.index_relid IS NULL \
       OR p.index_relid OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, i.indexrelid]) \
       OR p.command OPERATOR(pg_catalog.~~) 'REINDEX%'))";

fn may_be_anothers(server_version: i32) -> String {
    LOCKED.replace("builds_it", if server_version < 120_000 { "true" } else { BUILDS_IT })
}

/// Invalid indexes of a table, other than those that were invalid before; and what an interrupted REINDEX
/// CONCURRENTLY left on its TOAST table, where it names its copies alone.
pub(super) async fn invalid_indexes(
    context: &mut Context<'_>,
    table: u32,
    known: &[u32],
) -> Result<Vec<RelationName>, RunError> {
    let known: Vec<String> = known.iter().map(u32::to_string).collect();
    let known = format!("{{{}}}", known.join(","));
    let anothers = may_be_anothers(context.facts().session.server_version);
    let sql = format!(
        "SELECT n.nspname, c.relname, {anothers} FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
         WHERE (i.indrelid OPERATOR(pg_catalog.=) t.oid OR i.indrelid OPERATOR(pg_catalog.=) t.reltoastrelid \
         AND c.relname OPERATOR(pg_catalog.~) '_cc(new|old)[0-9]*$') AND NOT i.indisvalid \
         AND NOT (i.indexrelid OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]::pg_catalog.oid[]))"
    );
    let begun = Instant::now();
    let mut before: Option<Vec<RelationName>> = None;
    loop {
        let rows = match context.surely(&sql, &[&table.to_string(), &known]).await {
            Ok(rows) => rows,
            Err(RunError::Lost) => return Err(RunError::Lost),
            Err(stop) => {
                tracing::warn!(reason = stop.reason(), "what a schema change has left could not be asked for");
                return Ok(Vec::new());
            }
        };
        let (uncertain, ours): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.get(2).is_some_and(|value| value.as_deref() == Some("t")));
        let ours: Vec<RelationName> = ours.iter().filter_map(|row| named(row)).collect();
        if uncertain.is_empty() || begun.elapsed() >= TELLS_WITHIN {
            // A build that ended between the two things that a look looks at, the catalogue as it was and the locks as they are, has made its
            // index valid for the next look.
            if let Some(before) = before {
                uncertain.iter().filter_map(|row| named(row)).for_each(|index| tell_uncertain(context, &index));
                return Ok(ours.into_iter().filter(|index| before.contains(index)).collect());
            }
            if ours.is_empty() && uncertain.is_empty() {
                return Ok(ours);
            }
            before = Some(ours);
            continue;
        }
        before = None;
        context.channel_mut().ask_one(&nap_sql(NAP, "waiting to finish or undo"), &[]).await?;
    }
}

fn tell_uncertain(context: &mut Context<'_>, index: &RelationName) {
    tracing::warn!(%index, "an invalid index may be another session's, and was left");
    let message =
        format!("the invalid index {index} may be what this statement has left, or what another session is building");
    let hint = format!(
        "If it is still invalid when that session is done, drop it: DROP INDEX CONCURRENTLY {}.",
        index.quoted()
    );
    context.notify(&Report::warning(sqlstate::WARNING, message).hint(hint));
}

/// First at once, if nobody uses the table just now; else concurrently, which waits for those who do. While another session
/// builds on the table, neither is to be had.
pub(super) async fn drop_leftover(context: &mut Context<'_>, index: &RelationName) -> Result<(), RunError> {
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
                Some(error) => break error.message().to_owned(),
            }
        }
        if begun.elapsed() >= UNDO_PATIENCE {
            break "another session is building on its table".to_owned();
        }
        context.channel_mut().ask_one(&nap_sql(NAP, "waiting to finish or undo"), &[]).await?;
    };
    tracing::warn!(%index, failed, "an unfinished index could not be dropped");
    context.notify(
        &Report::warning(sqlstate::WARNING, format!("the invalid index {index} could not be dropped: {failed}"))
            .hint(format!("Drop it by hand: {sql}. The next CREATE INDEX of that name through the proxy does so too.")),
    );
    Ok(())
}

/// Whether a session has the lock of builds on the index's table.
async fn somebody_builds_beside(context: &mut Context<'_>, index: &RelationName) -> Result<bool, RunError> {
    let locked = LOCKED.replace("builds_it", "true");
    let sql = format!(
        "SELECT {locked} FROM pg_catalog.pg_index i \
         WHERE i.indexrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid"
    );
    let answer = context.channel_mut().ask_one(&sql, &[&index.quoted()]).await?;
    Ok(answer.value() == Some("t"))
}

fn named(row: &[Option<String>]) -> Option<RelationName> {
    Some(RelationName { schema: row.first()?.clone(), name: row.get(1)?.clone()? })
}
