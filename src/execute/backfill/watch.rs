//! The watch on tables of other roles: no code of such a role runs while its rows are filled, whatever the role does meanwhile.
//!
//! The facts say whose code an UPDATE would run (`catalog/trust.rs`). But a backfill may take hours, and a table's owner can add an index
//! in a moment. So each transaction first locks its table with SHARE UPDATE EXCLUSIVE. Under this lock the table gets no new index,
//! trigger, rule, constraint, type, statistics or name. The lock blocks neither reads nor writes, and a wait for it blocks no other
//! session, so that the transaction waits for it longer than for rows. An autovacuum, which holds the same lock, gives way as it does to
//! any ALTER TABLE. Then a short question checks that nothing has changed since the last look.
//!
//! This file owns the beginning of such transactions and the looks. It keeps true that no UPDATE runs on a table that has changed since it
//! was looked at. Limit: between the question and the UPDATE, the owner of a schema who may create schemas can rename the schema and put
//! another in its place.

use super::filling::BackfillRun;
use super::short::{BatchOutcome, COVER, open, put_settings, row_timeout, short};
use crate::catalog::trust::{self, Watch};
use crate::config::Autovacuum;
use crate::execute::context::ExecutionContext;
use crate::execute::objects::unquoted;
use crate::execute::outcome::RunError;
use crate::execute::timing::set_local;
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::plan::Backfill;
use crate::report::Report;
use crate::wire::message::Batch;
use std::time::Duration;

/// Returns the beginning of a short transaction that locks its table. `only` leaves out the table's children.
pub(super) fn open_on(
    context: &ExecutionContext<'_>,
    table: &RelationName,
    only: bool,
    longest: Option<Duration>,
    quiet: bool,
) -> Result<Batch, RunError> {
    let mut batch = Batch::new();
    batch.statement("BEGIN ISOLATION LEVEL READ COMMITTED", &[]);
    batch.statement(&set_local("lock_timeout", table_timeout(context)), &[]);
    let only = if only { "ONLY " } else { "" };
    batch.statement(&format!("LOCK TABLE {only}{} IN SHARE UPDATE EXCLUSIVE MODE", table.quoted()), &[]);
    put_settings(context, &mut batch, longest, quiet)?;
    Ok(batch)
}

/// Returns how long a transaction waits for its table: a little longer than an autovacuum takes to give way, if it is to give way.
fn table_timeout(context: &ExecutionContext<'_>) -> Duration {
    let deadlock = Duration::from_millis(context.facts().session.deadlock_timeout_ms);
    match context.config().locks.autovacuum {
        Autovacuum::Wait => row_timeout(context),
        Autovacuum::Cancel | Autovacuum::Outwait => row_timeout(context).max(deadlock + deadlock / 5),
    }
}

impl BackfillRun<'_> {
    /// Asks whose code an UPDATE of a table would run, unless that is known. `None` means that the code may run.
    pub(super) async fn look_whose_code(
        &mut self,
        context: &mut ExecutionContext<'_>,
        leaf: usize,
    ) -> Result<Option<BatchOutcome>, RunError> {
        let Some(table) = self.leaves.get(leaf).filter(|leaf| self.what.watched && leaf.known.is_none()) else {
            return Ok(None);
        };
        let (name, oid) = (table.name.clone(), table.oid);
        let columns = column_names(self.what);
        let watch = Watch { columns: &columns, quiet: self.what.quiet };
        let mut batch = open_on(context, &name, true, None, false)?;
        batch.statement(&trust::called(&name, oid), &[]);
        batch.statement(&watch.question(), &[&oid.to_string()]);
        batch.statement("COMMIT", &[]);
        let nap = nap_sql(COVER, &context.channel().words(&format!("backfill of {}", self.what.table)));
        let answer = match short(context, batch, &nap, None).await? {
            BatchOutcome::Done(answer) => answer,
            BatchOutcome::Refused(error) if trust::untrue(error.message()).is_some() => {
                return Ok(Some(BatchOutcome::Moved(error)));
            }
            other => return Ok(Some(other)),
        };
        let mut values = answer.rows.into_iter().next().unwrap_or_default().into_iter();
        match (values.next().flatten(), values.next().flatten()) {
            (Some(code), Some(known)) if trust::may_run(&code) => {
                if let Some(leaf) = self.leaves.get_mut(leaf) {
                    leaf.known = Some(known);
                }
                Ok(None)
            }
            (code, _) => Err(not_any_more(&code.unwrap_or_else(|| "it is not known whose code would run".to_owned()))),
        }
    }

    /// Returns the statements of a batch before its UPDATE.
    pub(super) fn open_batch(&self, context: &ExecutionContext<'_>, leaf: usize) -> Result<Batch, RunError> {
        let (longest, quiet) = (Some(self.longest), self.what.quiet);
        let Some(leaf) = self.leaves.get(leaf).filter(|_| self.what.watched) else {
            return open(context, longest, quiet);
        };
        let mut batch = open_on(context, &leaf.name, true, longest, quiet)?;
        batch.statement(&trust::unchanged(&leaf.name, leaf.oid, leaf.known.as_deref().unwrap_or_default()), &[]);
        Ok(batch)
    }
}

/// Returns the statements of a look at all tables before its SELECT.
pub(super) fn open_look(context: &ExecutionContext<'_>, what: &Backfill) -> Result<Batch, RunError> {
    if !what.watched {
        return open(context, None, false);
    }
    let columns = column_names(what);
    let watch = Watch { columns: &columns, quiet: what.quiet };
    let mut batch = open_on(context, &what.table, false, None, false)?;
    batch.statement(&trust::called(&what.table, what.oid), &[]);
    batch.statement(&watch.assertion_of_tree(), &[&what.oid.to_string()]);
    Ok(batch)
}

/// Returns the names of the columns to fill, as the catalogue has them.
fn column_names(what: &Backfill) -> Vec<String> {
    what.columns.iter().map(|filled| unquoted(&filled.column)).collect()
}

/// Returns the error that a backfill cannot go on.
pub(super) fn not_any_more(reason: &str) -> RunError {
    let message = format!("old rows cannot be filled any more, because {}", on_one_line(reason));
    let report = Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
    RunError::Report(
        report
            .detail("This has changed since the statement began.")
            .hint("Send the statement again: it then runs as written."),
    )
}

/// Returns the reason without control characters, because a name may hold any character.
fn on_one_line(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).collect()
}
