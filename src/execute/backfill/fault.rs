//! The row that cannot be filled: the DETAIL of the server's own error names it.
//!
//! This file owns that DETAIL. It keeps true that SQLSTATE and message are the server's, and that the log holds neither the row nor its
//! key.

use super::filling::BackfillRun;
use super::short::{BatchOutcome, COVER, open, short};
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError};
use crate::lanes::nap_sql;
use crate::wire::error_response::ServerError;
use std::ops::Range;

/// Whether an error may be caused by one row, so that the row is worth finding. Other errors would be the same for every row or are not
/// about rows: a missing privilege, a full disk, a server that stops.
pub(super) fn is_of_a_row(sqlstate: &str) -> bool {
    let of_all = ["08", "0A", "25", "26", "28", "40", "42", "53", "55", "57", "58", "XX"];
    // A sequence at its end (2200H) is at its end for every row.
    sqlstate != "2200H" && !of_all.iter().any(|class| sqlstate.starts_with(class))
}

/// A query for the columns of a table's primary key, quoted where necessary, as a JSON array.
const KEY_SQL: &str = "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.quote_ident(a.attname) ORDER BY k.place), '[]')::pg_catalog.text \
     FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(number, place), \
     pg_catalog.pg_attribute a WHERE i.indisprimary AND i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
     AND a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.number";

impl BackfillRun<'_> {
    /// Returns the server's error in the terms of the client's statement. If a batch of one row met the error, the DETAIL gives the ctid
    /// and the key of the row.
    pub(super) async fn at_fault(
        &self,
        context: &mut ExecutionContext<'_>,
        leaf: usize,
        batch: &Range<u64>,
        error: ServerError,
    ) -> Result<RunError, RunError> {
        let single = batch.end - batch.start == 1 && is_of_a_row(error.sqlstate());
        let (Some(leaf), Some(step), true) = (self.leaves.get(leaf), self.phase.steps.first(), single) else {
            return Ok(RunError::Server(ServerError::new(error.with_position(|_| None))));
        };
        let tid = self.places.tid(batch.start);
        let mut detail = error.field(b'D').map(|detail| format!("{detail}\n")).unwrap_or_default();
        detail.push_str(&format!("The failing row is at ctid {tid} of {}", leaf.name));
        // The key of another role's table is not read, because planning the query may call code of that role.
        let watched = self.what.watched;
        if !watched && let Some(key) = key_of(context, leaf.oid, &leaf.name.quoted(), &tid).await? {
            detail.push_str(&format!(", {key}"));
        }
        detail.push('.');
        let detail = context.channel().words(&detail).into_owned();
        let error = ServerError::new(error.restated(&[(b'D', &detail)], b""));
        Ok(context.failed(step, error, &Reply::default()))
    }
}

/// Returns the key of a row as the server writes keys, such as `key (id)=(17)`. `None` means that the table has no key, or that the key
/// cannot be read.
async fn key_of(
    context: &mut ExecutionContext<'_>,
    oid: u32,
    name: &str,
    tid: &str,
) -> Result<Option<String>, RunError> {
    let Some(json) = said(context, KEY_SQL, &[&oid.to_string()]).await? else { return Ok(None) };
    let columns: Vec<String> = serde_json::from_str(&json).unwrap_or_default();
    if columns.is_empty() {
        return Ok(None);
    }
    let values: Vec<String> = columns.iter().map(|column| format!("{column}::pg_catalog.text")).collect();
    let sql = format!(
        "SELECT pg_catalog.concat_ws(', ', {}) FROM ONLY {name} \
         WHERE ctid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.tid",
        values.join(", ")
    );
    let values = said(context, &sql, &[tid]).await?;
    Ok(values.map(|values| format!("key ({})=({values})", columns.join(", "))))
}

/// Asks a question in a short transaction and returns the one text of its answer.
async fn said(context: &mut ExecutionContext<'_>, sql: &str, parameters: &[&str]) -> Result<Option<String>, RunError> {
    let mut batch = open(context, None, false)?;
    context.channel().put_question(&mut batch, sql, parameters);
    batch.statement("COMMIT", &[]);
    let nap = nap_sql(COVER, "backfill: which row cannot be filled");
    let BatchOutcome::Done(answer) = short(context, batch, &nap, None).await? else { return Ok(None) };
    Ok(answer.value().map(|value| context.channel().text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_one_rows() {
        for sqlstate in ["22012", "23514", "P0001", "54000", "22P02", "38000"] {
            assert!(is_of_a_row(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["42501", "42703", "2200H", "53100", "XX001", "25006", "57P01"] {
            assert!(!is_of_a_row(sqlstate), "{sqlstate}");
        }
    }
}
