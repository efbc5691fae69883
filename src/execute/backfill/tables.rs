//! The tables that a backfill is about, as the server has them now.
//!
//! It owns their list. It keeps true that a table is told by its oid, and its pages by its file.

use super::short::{BatchOutcome, COVER, open, short};
use crate::execute::context::Context;
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
    /// `pg_relation_filenode`
    pub(super) file: u32,
    /// Of all pages, as far as the statistics know.
    pub(super) rows: Option<f64>,
    /// What tells whether code of others could have come since it was looked at (`backfill/watch.rs`).
    #[serde(skip)]
    pub(super) known: Option<String>,
}

impl Leaf {
    /// The pages to be done if the backfill had come to this place. The tables are in the order of their oids.
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

/// The tables of a backfill, and how the server pages them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Listing {
    pub(super) block_size: u64,
    pub(super) leaves: Vec<Leaf>,
}

/// The tables that have rows, as they are now.
pub(super) async fn listing(
    context: &mut Context<'_>,
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
                    let message = format!("cannot read what tables there are to fill: {error}");
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
