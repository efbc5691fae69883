//! One backfill under way: its tables, how far it is, how large its batches are.
//!
//! It owns the state of the backfill and asks nobody. It keeps true that what another session had done counts as done, and not as this one's work.

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

/// How a batch is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchKind {
    Plain,
    /// Without the rows that others have locked.
    Skipping,
    /// It tells how many rows it has updated, and how many of them still want.
    Counting,
}

/// One backfill under way.
pub(super) struct BackfillRun<'a> {
    pub(super) what: &'a Backfill,
    pub(super) phase: &'a Phase,
    pub(super) waiting: &'a mut LockWait,
    pub(super) leaves: Vec<Leaf>,
    pub(super) places: PageLayout,
    pub(super) pace: BatchSize,
    /// The longest that a batch may take now.
    pub(super) longest: Duration,
    pub(super) progress: Progress,
    pub(super) throttle: Throttle,
    pub(super) notices: ProgressNotices,
    /// The table and the place that the first walk has come to.
    pub(super) at: Option<(usize, u64)>,
    /// Rows that still wanted after their update: the default may give NULL.
    pub(super) still: u64,
}

impl BackfillRun<'_> {
    /// What another session had done is no work of this one's. The pages that are left, of each table.
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

    /// The statement of one batch: of rows that want all of its columns.
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

    /// For the record: whole pages.
    pub(super) fn reached(&self) -> Option<BackfillPosition> {
        let (leaf, place) = self.at?;
        let Leaf { oid: table, file, pages: end, .. } = *self.leaves.get(leaf)?;
        Some(BackfillPosition { table, file, page: place / self.places.lines, end, rows: self.progress.rows })
    }

    /// A batch of this many places is done.
    pub(super) fn done(&mut self, places: u64, answer: &Answer) {
        let counted = |at: usize| answer.rows.first()?.get(at)?.as_deref()?.parse::<u64>().ok();
        // A record may say anything.
        let rows = answer.updated + counted(0).unwrap_or_default();
        self.progress.rows = self.progress.rows.saturating_add(rows);
        self.still += counted(1).unwrap_or_default();
        self.pace.took(places, answer.took);
    }
}
