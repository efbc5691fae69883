//! The record in the database: reading, writing and removing it, and the lock of the session that runs its plan.
//!
//! This file owns the SQL of a table's record. It keeps true that a record is written only on its own table, identified by oid, and that no
//! lock of a record is left behind, even after a cancel.

use crate::backend::Answer;
use crate::catalog::identity::{self, IDENTITY_SQL};
use crate::catalog::record::{JOB_CLASS, RecordRow, question};
use crate::execute::context::ExecutionContext;
use crate::execute::objects::known;
use crate::execute::outcome::RunError;
use crate::execute::record::Record;
use crate::execute::timing::{SETTLE, set_local};
use crate::lanes;
use crate::pg::relation::quote_literal;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{CreatedObject, ObjectName, Step};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;
use std::time::Duration;

/// How long a write waits for its lock. Other sessions do not notice such a short wait.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many times a write is tried if a cancel hits each try. Only a program cancels a session more often.
pub(super) const TRIES: usize = 20;

/// A query for the settings that a write changes for a moment.
const SETTINGS_SQL: &str =
    "SELECT pg_catalog.current_setting('session_replication_role'), pg_catalog.current_setting('lock_timeout')";

/// Returns the statement that writes the comment of a table's row type, or removes it.
pub(super) fn comment_sql(table: &RelationName, text: Option<&str>) -> String {
    let text = text.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON TYPE {} IS {text}", table.quoted())
}

/// Returns the query that calls an advisory lock function for the lock of a table's record. It gives `t` or `f`.
pub(super) fn lock_sql(function: &str, oid: u32) -> String {
    format!("SELECT pg_catalog.{function}({JOB_CLASS}, {})", lanes::signed(oid))
}

/// Writes or removes the record of a table in a transaction of its own. Returns false if it was not possible now.
pub(super) async fn write_record_of(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    quiet: bool,
    text: Option<&str>,
) -> Result<bool, RunError> {
    // Without the table there is no record.
    let Some((_, table)) = context.names_now(&[oid]).await?.pop() else { return Ok(true) };
    let mut batch = Batch::new();
    batch.statement("BEGIN", &[]);
    batch.statement(&set_local("lock_timeout", PATIENCE), &[]);
    if quiet {
        batch.statement("SET LOCAL session_replication_role = replica", &[]);
    }
    let assertion = Step::assertion(&identity::is_called(&table, oid), "");
    batch.statement(&assertion.sql, &[]);
    batch.statement(&comment_sql(&table, text), &[]);
    batch.statement("COMMIT", &[]);
    let Some(error) = context.channel_mut().ask(batch, None).await?.error else { return Ok(true) };
    context.channel_mut().ask_one("ROLLBACK", &[]).await?;
    if error.sqlstate() == sqlstate::QUERY_CANCELED && text.is_some() {
        context.cancelled_by(Some(error))?;
    } else {
        tracing::debug!(sqlstate = error.sqlstate(), "could not write a record now");
    }
    Ok(false)
}

/// Removes the record of a table. If that is not possible, the log says so.
pub(super) async fn forget(context: &mut ExecutionContext<'_>, oid: u32, quiet: bool) -> Result<(), RunError> {
    for _ in 0..TRIES {
        context.channel().cancel_settled().await;
        if write_record_of(context, oid, quiet, None).await? {
            return Ok(());
        }
    }
    tracing::warn!(
        oid,
        "could not remove the record of a schema change that is over: COMMENT ON TYPE … IS NULL removes it"
    );
    Ok(())
}

/// Changes the records of a table as they are now. Neither a cancel nor a lock that is not available at once ends it. Returns false if it
/// was not possible. `change` returns `None` if there is nothing to change.
pub(super) async fn change_records(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    quiet: bool,
    change: impl Fn(Option<Record>) -> Option<Option<Record>>,
) -> Result<bool, RunError> {
    for _ in 0..TRIES {
        context.channel().cancel_settled().await;
        let found = match look_at_record(context, oid, false).await {
            Ok((_, found)) => found,
            Err(RunError::Lost) => return Err(RunError::Lost),
            Err(_) => continue,
        };
        // Without the table there is no record.
        let Some(found) = found else { return Ok(true) };
        let Some(changed) = change(found.text.as_deref().and_then(Record::from_text)) else { return Ok(true) };
        let text = changed.as_ref().and_then(Record::to_text);
        match write_record_of(context, oid, quiet, text.as_deref()).await {
            Ok(true) => return Ok(true),
            Err(RunError::Lost) => return Err(RunError::Lost),
            Ok(false) | Err(_) => {}
        }
    }
    Ok(false)
}

/// Removes the record of one run. The other records of the table stay.
pub(super) async fn forget_run(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    quiet: bool,
    job: &str,
) -> Result<(), RunError> {
    let gone = |found: Option<Record>| found.filter(|found| found.has(job)).map(|found| found.without(job));
    if !change_records(context, oid, quiet, gone).await? {
        tracing::warn!(
            oid,
            "could not remove the record of a schema change that is over: COMMENT ON TYPE … IS NULL removes it"
        );
    }
    Ok(())
}

/// Removes the record of one run in the client's block, in a savepoint. The client's settings stay as they are.
///
/// # Errors
/// The server's error, or the backend is lost. The block is as it was before.
pub(super) async fn forget_run_in_block(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    quiet: bool,
    job: &str,
) -> Result<(), RunError> {
    let mut batch = Batch::new();
    batch.statement(SETTLE, &[]);
    batch.savepoint();
    batch.statement(SETTINGS_SQL, &[]);
    let question = question(context.facts().session.server_version);
    context.channel().put_question(&mut batch, &question, &[&oid.to_string()]);
    let Answer { rows, error, .. } = context.channel_mut().ask(batch, None).await?;
    if let Some(error) = error {
        return Err(undo_savepoint(context, error).await);
    }
    let mut rows = rows.into_iter();
    let settings: Vec<String> = rows.next().unwrap_or_default().into_iter().flatten().collect();
    let found = rows.next().and_then(|row| row.into_iter().next().flatten());
    let found: Option<RecordRow> = found.and_then(|json| serde_json::from_str(&context.channel().text(&json)).ok());
    let name = found.as_ref().map(|found| RelationName::new(Some(&found.schema), &found.name));
    let records = found.and_then(|found| Record::from_text(found.text.as_deref()?)).filter(|found| found.has(job));
    let mut batch = Batch::new();
    if let (Some(name), Some(records), [role, timeout]) = (name, records, settings.as_slice()) {
        batch.statement(&set_local("lock_timeout", PATIENCE), &[]);
        if quiet {
            batch.statement("SET LOCAL session_replication_role = replica", &[]);
        }
        batch.statement(&comment_sql(&name, records.without(job).and_then(|rest| rest.to_text()).as_deref()), &[]);
        if quiet {
            batch.statement(&format!("SET LOCAL session_replication_role = {}", quote_literal(role)), &[]);
        }
        batch.statement(&format!("SET LOCAL lock_timeout = {}", quote_literal(timeout)), &[]);
    }
    batch.release_savepoint();
    match context.channel_mut().ask(batch, None).await?.error {
        None => Ok(()),
        Some(error) => Err(undo_savepoint(context, error).await),
    }
}

/// Restores the client's block after an error in the savepoint.
async fn undo_savepoint(context: &mut ExecutionContext<'_>, error: ServerError) -> RunError {
    let mut batch = Batch::new();
    batch.undo_savepoint();
    match context.channel_mut().ask(batch, None).await {
        Ok(_) => RunError::Server(error),
        Err(_) => RunError::Lost,
    }
}

/// Gives back the lock of a table's record.
///
/// # Errors
/// The backend is lost.
pub async fn release_record(context: &mut ExecutionContext<'_>, oid: u32) -> Result<(), RunError> {
    context.surely(&lock_sql("pg_advisory_unlock", oid), &[]).await.map(|_| ())
}

/// Takes the lock of a table's record once more. This session holds it already.
pub(super) async fn lock_again(context: &mut ExecutionContext<'_>, oid: u32) -> Result<(), RunError> {
    context.surely(&lock_sql("pg_advisory_lock", oid), &[]).await.map(|_| ())
}

/// Returns the query that tries to take the lock of a table's record. It gives `f` also if this session holds the lock: the record is then
/// that of a statement ahead of its own block, and is not unfinished.
fn try_lock_sql(oid: u32) -> String {
    format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted \
         AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.classid OPERATOR(pg_catalog.=) {JOB_CLASS}::pg_catalog.oid \
         AND l.objid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid AND l.objsubid OPERATOR(pg_catalog.=) 2) \
         THEN false ELSE pg_catalog.pg_try_advisory_lock({JOB_CLASS}, {}) END",
        lanes::signed(oid)
    )
}

/// Asks for the record of a table. With `lock`, also tries to take the record's lock, and returns whether it was taken.
pub(super) async fn look_at_record(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    lock: bool,
) -> Result<(bool, Option<RecordRow>), RunError> {
    let mut batch = Batch::new();
    if lock {
        batch.statement(&try_lock_sql(oid), &[]);
    }
    let question = question(context.facts().session.server_version);
    context.channel().put_question(&mut batch, &question, &[&oid.to_string()]);
    let Answer { rows, error, .. } = context.channel_mut().ask(batch, None).await?;
    let mut values = rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default());
    let locked = lock && values.next().is_some_and(|value| value == "t");
    if let Some(error) = error {
        if locked {
            release_record(context, oid).await?;
        }
        if error.sqlstate() == sqlstate::QUERY_CANCELED {
            context.cancelled_by(Some(error))?;
        }
        return Ok((false, None));
    }
    let recorded = values.next().and_then(|json| serde_json::from_str(&context.channel().text(&json)).ok());
    Ok((locked, recorded))
}

/// Whether the comment may be overwritten: there is none, or it is a record of which no object is left.
pub(super) async fn may_overwrite(context: &mut ExecutionContext<'_>, text: Option<&str>) -> Result<bool, RunError> {
    let Some(text) = text else { return Ok(true) };
    let Some(record) = Record::from_text(text) else { return Ok(false) };
    let things = objects_now(context, &record, |_| true).await?;
    Ok(!things.contains(&true) && indexes_now(context, &record).await?.is_empty())
}

/// Returns the oids of the existing indexes that a recorded plan has built, or was building.
pub(super) async fn indexes_now(context: &mut ExecutionContext<'_>, record: &Record) -> Result<Vec<u32>, RunError> {
    let named = record.builds.iter().map(|(table, name)| ("index", *table, name.as_str()));
    let parameters = identity::parameters(named);
    let rows = context.surely(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
    Ok(rows.iter().filter_map(|row| row.get(1)?.as_deref()?.parse().ok()).collect())
}

/// Returns for each object of these kinds that the plan has made whether its name still finds it.
pub(super) async fn objects_now(
    context: &mut ExecutionContext<'_>,
    record: &Record,
    of: impl Fn(&CreatedObject) -> bool,
) -> Result<Vec<bool>, RunError> {
    let named = |thing: &CreatedObject| match &thing.name {
        ObjectName::Known(_) => thing.clone(),
        ObjectName::Learned(slot) => {
            let name = record.learned.get(*slot).cloned().unwrap_or_default();
            CreatedObject { name: ObjectName::Known(name), ..thing.clone() }
        }
    };
    let things: Vec<(CreatedObject, u32)> =
        record.things.iter().filter(|(thing, _)| of(thing)).map(|(thing, id)| (named(thing), *id)).collect();
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let parameters = identity::parameters(things.iter().filter_map(|(thing, _)| known(thing)));
    let rows = context.surely(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
    let now = rows.iter().map(|row| row.get(1).and_then(|value| value.as_deref()?.parse::<u32>().ok()));
    Ok(now.zip(&things).map(|(now, (_, made))| now == Some(*made)).collect())
}
