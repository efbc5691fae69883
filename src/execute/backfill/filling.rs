//! The state of one backfill: its tables, its position, the size of its batches.
//!
//! This file owns that state and the SQL of a batch, and asks the server nothing. It keeps true that the work of an earlier session counts
//! as done, but not in the rate of this session.

use super::notices::ProgressNotices;
use super::pace::{BatchSize, Progress};
use super::range::PageLayout;
use super::tables::Leaf;
use super::throttle::Throttle;
use crate::backend::Answer;
use crate::execute::lock_wait::LockWait;
use crate::execute::record::BackfillPosition;
use crate::plan::{Backfill, Filled, Phase};
use std::ops::Range;
use std::time::Duration;

/// How a batch treats locked rows, and what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchKind {
    /// The batch updates all of its rows.
    Plain,
    /// The batch leaves out rows that other sessions have locked.
    Skipping,
    /// The batch returns how many rows it has updated, and how many of them still need a value.
    Counting,
}

/// The state of one backfill.
pub(super) struct BackfillRun<'a> {
    pub(super) what: &'a Backfill,
    pub(super) phase: &'a Phase,
    pub(super) waiting: &'a mut LockWait,
    pub(super) leaves: Vec<Leaf>,
    pub(super) places: PageLayout,
    pub(super) pace: BatchSize,
    /// The longest that a batch may take at present.
    pub(super) longest: Duration,
    pub(super) progress: Progress,
    pub(super) throttle: Throttle,
    pub(super) notices: ProgressNotices,
    /// An operator has slowed the backfill down, and this is counted.
    pub(super) slowed: bool,
    /// The table and the place that the first walk has reached.
    pub(super) at: Option<(usize, u64)>,
    /// The number of rows that still need a value after their update, because the default is NULL for them.
    pub(super) still: u64,
}

impl BackfillRun<'_> {
    /// Continues from the position that an earlier session has reached. Returns the pages that are left of each table.
    pub(super) fn go_on(&mut self, from: Option<BackfillPosition>) -> Vec<Range<u64>> {
        let progress = &mut self.progress;
        progress.rows = from.map_or(0, |place| place.rows);
        let mut all = Vec::with_capacity(self.leaves.len());
        for table in &mut self.leaves {
            let left = table.left(from);
            let behind = table.pages - left.end;
            let rows = table.rows.unwrap_or_default() * behind as f64 / table.pages.max(1) as f64;
            progress.of_rows = progress.of_rows.map(|of| of - rows.round());
            progress.of_pages -= behind as f64;
            progress.pages += left.start as f64;
            table.pages = left.end;
            all.push(left);
        }
        progress.before = (progress.rows, progress.pages);
        all
    }

    /// Returns the statement of one batch. It updates the rows that need a value in all of these columns.
    pub(super) fn update(&self, leaf: usize, batch: &Range<u64>, how: BatchKind, columns: &[Filled]) -> String {
        let name = self.leaves.get(leaf).map(|leaf| leaf.name.quoted()).unwrap_or_default();
        let each = |words: fn(&Filled) -> String, between: &str| {
            columns.iter().map(words).collect::<Vec<_>>().join(between) //
        };
        let (set, wanting) = (each(Filled::set, ", "), each(|filled| format!("({})", filled.wanting), " AND "));
        let wanted = format!("{} AND {wanting}", self.places.condition(batch));
        let update = format!("UPDATE ONLY {name} SET {set} WHERE");
        match how {
            BatchKind::Plain => format!("/* pgsluice: filling old rows */ {update} {wanted}"),
            BatchKind::Skipping => format!(
                "/* pgsluice: filling old rows that nobody has locked */ {update} ctid OPERATOR(pg_catalog.=) ANY (ARRAY(\
                 SELECT ctid FROM ONLY {name} WHERE {wanted} FOR NO KEY UPDATE SKIP LOCKED))"
            ),
            BatchKind::Counting => format!(
                "/* pgsluice: filling old rows that were moved */ WITH pgsluice AS ({update} {wanted} RETURNING {} AS still) \
                 SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE still) FROM pgsluice",
                each(|filled| format!("({})", filled.wanting), " OR ")
            ),
        }
    }

    /// Returns the position for the record, in whole pages.
    pub(super) fn reached(&self) -> Option<BackfillPosition> {
        let (leaf, place) = self.at?;
        let Leaf { oid: table, file, pages: end, .. } = *self.leaves.get(leaf)?;
        Some(BackfillPosition { table, file, page: place / self.places.lines, end, rows: self.progress.rows })
    }

    /// Counts a batch of this many places as done. Returns the number of its rows.
    pub(super) fn done(&mut self, places: u64, answer: &Answer) -> u64 {
        let counted = |at: usize| answer.rows.first()?.get(at)?.as_deref()?.parse::<u64>().ok();
        // The number of rows may come from a record, which may hold any number.
        let rows = answer.updated + counted(0).unwrap_or_default();
        self.progress.rows = self.progress.rows.saturating_add(rows);
        self.still += counted(1).unwrap_or_default();
        self.pace.took(places, answer.took);
        rows
    }
}
