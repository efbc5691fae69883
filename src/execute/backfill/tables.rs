//! The tables of a backfill, as the server has them now.
//!
//! This file owns their list. It keeps true that a table is identified by its oid, and its pages by its file.

use super::short::{BatchOutcome, COVER, open, short};
use crate::execute::context::ExecutionContext;
use crate::execute::lock_wait::LockWait;
use crate::execute::outcome::RunError;
use crate::execute::record::BackfillPosition;
use crate::lanes::nap_sql;
use crate::pg::{RelationName, sqlstate};
use crate::plan::{Backfill, Phase};
use crate::report::Report;
use crate::wire::error_response::ServerError;
use serde::Deserialize;
use std::cmp::Ordering;
use std::ops::Range;

/// A table with rows of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Leaf {
    pub(super) oid: u32,
    #[serde(flatten)]
    pub(super) name: RelationName,
    pub(super) pages: u64,
    /// The result of `pg_relation_filenode`.
    pub(super) file: u32,
    /// The number of rows, if the statistics know it.
    pub(super) rows: Option<f64>,
    /// A text that changes if code of other roles may have been added since the table was checked (`backfill/watch.rs`).
    #[serde(skip)]
    pub(super) known: Option<String>,
}

impl Leaf {
    /// Returns the pages that are left if the backfill has reached this position. Tables are done in the order of their oids.
    pub(super) fn left(&self, place: Option<BackfillPosition>) -> Range<u64> {
        let Some(place) = place else { return 0..self.pages };
        match self.oid.cmp(&place.table) {
            Ordering::Less => self.pages..self.pages,
            Ordering::Equal if self.file == place.file => {
                let end = self.pages.min(place.end);
                place.page.min(end)..end
            }
            Ordering::Equal | Ordering::Greater => 0..self.pages,
        }
    }
}

/// The tables of a backfill, and the server's block size.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Listing {
    pub(super) block_size: u64,
    pub(super) leaves: Vec<Leaf>,
}

/// Asks for the tables that have rows.
pub(super) async fn listing(
    context: &mut ExecutionContext<'_>,
    what: &Backfill,
    phase: &Phase,
    waiting: &mut LockWait,
) -> Result<Listing, RunError> {
    let nap = nap_sql(COVER, &context.channel().words(&format!("backfill of {}", what.table)));
    let mut times = 0;
    loop {
        let mut batch = open(context, None, false)?;
        context.channel().put_question(&mut batch, include_str!("leaves.sql"), &[&what.oid.to_string()]);
        batch.statement("COMMIT", &[]);
        match short(context, batch, &nap, None).await? {
            BatchOutcome::Done(answer) => {
                let json = answer.rows.first().and_then(|row| row.first()?.clone()).unwrap_or_default();
                return serde_json::from_str(&context.channel().text(&json)).map_err(|error| {
                    let message = format!("cannot read the list of tables to fill: {error}");
                    RunError::Report(Report::error(sqlstate::INTERNAL_ERROR, message))
                });
            }
            BatchOutcome::Locked | BatchOutcome::TooLong => {
                times += 1;
                if times == 1 {
                    waiting.begin_anew();
                }
                waiting.wait(context, phase).await?;
            }
            BatchOutcome::Refused(error) | BatchOutcome::Moved(error) => {
                return Err(RunError::Server(ServerError::new(error.with_position(|_| None))));
            }
        }
    }
}
