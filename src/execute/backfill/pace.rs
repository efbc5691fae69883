//! The size of the next batch, and the progress of a backfill in words. The functions are pure: times are arguments.
//!
//! This file owns the size and the counts. It keeps true that a batch is never empty, and never grows by more than a fifth, whatever the
//! last batch took.
//!
//! One slow batch says little: on a busy machine its backend may have been without a core for a while, whatever its size. If each slow
//! batch made the next one smaller, one slow batch in five would make all batches tiny. So a batch shrinks only after two slow ones in a
//! row.

use crate::report::in_words;
use std::time::Duration;

/// The pages of the first batch. Such a batch is short on any machine, and the size grows to a hundred times that in 25 batches.
const FIRST_PAGES: u64 = 8;
/// Batches grow by a fifth at most.
const MOST_GROWTH: f64 = 1.2;
/// Batches shrink to half at most, because two batches may have been slow by chance too.
const MOST_SHRINK: f64 = 0.5;

/// The size of batches. It follows the time that batches take.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BatchSize {
    /// The size of the next batch in places, so that it can be a part of a page.
    size: f64,
    /// The number of places of a page, and of the largest batch.
    page: f64,
    most: f64,
    target: Duration,
    /// The time that the last batch took.
    pub(super) last: Duration,
    /// If that time was more than the target: the target as a share of it.
    slow: Option<f64>,
}

impl BatchSize {
    /// Returns the size of a first batch. `page` and `most` are the places of a page and of the largest batch, `target` is the time that a
    /// batch is to take.
    pub(super) fn new(page: u64, most: u64, target: Duration) -> Self {
        let (page, most) = (page as f64, most as f64);
        Self { size: page * FIRST_PAGES as f64, page, most, target, last: Duration::ZERO, slow: None }
    }

    /// Returns the size of the next batch in places.
    pub(super) fn size(&self) -> u64 {
        self.size as u64
    }

    /// Adjusts the size to the time that a batch of this many places took.
    pub(super) fn took(&mut self, places: u64, took: Duration) {
        self.last = took;
        let ratio = self.target.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // Time alone makes no batch smaller than a page, because each batch has a cost of its own that a smaller one does not save.
        let least = self.page.min(self.size);
        let before = self.slow.take();
        let change = if ratio < 1.0 {
            self.slow = Some(ratio);
            before.map_or(1.0, |before| before.max(ratio))
        } else if places as f64 >= self.size.floor() {
            ratio
        } else {
            // A batch that was the rest of a table says as little as one slow batch.
            1.0
        };
        self.size = (self.size * change.clamp(MOST_SHRINK, MOST_GROWTH)).clamp(least, self.most);
    }

    /// Halves the size after a batch of this many places that met a lock or took too long.
    pub(super) fn too_much(&mut self, places: u64) {
        self.size = (self.size.min(places as f64) / 2.0).max(1.0);
    }

    /// Whether a batch cannot become smaller.
    pub(super) fn is_least(&self) -> bool {
        self.size < 2.0
    }
}

/// The progress of a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Progress {
    pub(super) rows: u64,
    /// The number of rows by the statistics. `None` means that the tables were never analyzed.
    pub(super) of_rows: Option<f64>,
    pub(super) pages: f64,
    pub(super) of_pages: f64,
    /// The rows and pages that an earlier session has done. They do not count for the rate.
    pub(super) before: (u64, f64),
    /// All pages are done, and the sweep looks for rows that were moved.
    pub(super) sweeping: bool,
}

impl Progress {
    /// Returns the share of the pages that are done.
    fn share(&self) -> f64 {
        self.share_of(self.pages)
    }

    /// Returns the share of all pages that `pages` are.
    fn share_of(&self, pages: f64) -> f64 {
        if self.of_pages > 0.0 { (pages / self.of_pages).clamp(0.0, 1.0) } else { 1.0 }
    }

    /// Returns the number of rows by the statistics, unless more rows have been updated already: then the statistics are too old.
    fn known_rows(&self) -> Option<f64> {
        self.of_rows.filter(|of| *of >= self.rows as f64)
    }

    /// Estimates the time that is left, from the rate so far.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        let share = self.share();
        let before = if self.before.1 > 0.0 { self.share_of(self.before.1) } else { 0.0 };
        let ours = share - before;
        let left = elapsed.as_secs_f64() * (1.0 - share) / ours;
        // A share below a hundredth is too little for an estimate.
        (ours >= 0.01 && left.is_finite()).then(|| Duration::from_secs_f64(left.min(1e9)))
    }

    /// Returns the progress in words, such as `60 %, 120000 of about 200000 rows, 25400 rows/s, about 3 s left`.
    pub(super) fn words(&self, elapsed: Duration) -> String {
        let mut text = format!("{:.0} %, {}", (self.share() * 100.0).floor(), self.rows);
        if let Some(of) = self.known_rows() {
            text.push_str(&format!(" of about {of:.0}"));
        }
        let rate = self.rows.saturating_sub(self.before.0) as f64 / elapsed.as_secs_f64().max(1e-3);
        text.push_str(&format!(" rows, {rate:.0} rows/s"));
        if self.sweeping {
            text.push_str(", looking for rows that were moved meanwhile");
        } else if let Some(left) = self.left(elapsed) {
            text.push_str(&format!(", about {} left", in_words(left)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    fn pace() -> BatchSize {
        BatchSize::new(291, 291 * 10_000, TARGET)
    }

    /// A server that does a place in a fixed time, and each batch in a few milliseconds more.
    fn after(batches: usize, per_place: f64) -> BatchSize {
        let mut pace = pace();
        for _ in 0..batches {
            let took = Duration::from_secs_f64(0.002 + pace.size() as f64 * per_place);
            pace.took(pace.size(), took);
        }
        pace
    }

    #[test]
    fn it_settles_on_the_target() {
        for per_place in [1e-6, 3e-6, 2e-5] {
            let pace = after(60, per_place);
            let off = pace.last.as_secs_f64() / TARGET.as_secs_f64();
            assert!((0.95..=1.05).contains(&off), "{per_place}: {:?}", pace.last);
        }
    }

    #[test]
    fn it_grows_by_a_fifth_and_shrinks_to_a_page() {
        let mut pace = pace();
        let before = pace.size();
        pace.took(before, Duration::from_micros(1));
        assert_eq!(pace.size(), before * 6 / 5);
        for _ in 0..30 {
            pace.took(pace.size(), Duration::from_secs(9));
        }
        assert_eq!(pace.size(), 291);
        // A batch that was the rest of a table does not change the size.
        pace.took(3, Duration::from_micros(1));
        assert_eq!(pace.size(), 291);
    }

    #[test]
    fn one_slow_batch_makes_none_smaller() {
        let mut pace = pace();
        let size = pace.size();
        pace.took(size, TARGET * 9);
        assert_eq!(pace.size(), size);
        pace.took(size, TARGET);
        pace.took(size, TARGET * 9);
        assert_eq!(pace.size(), size);
        // Of two slow batches in a row, the less slow one decides.
        pace.took(size, TARGET * 5 / 4);
        assert_eq!(pace.size(), size * 4 / 5);
    }

    /// Every third batch waits for a core.
    #[test]
    fn a_busy_machine_makes_no_tiny_batches() {
        let mut pace = pace();
        for batch in 0..90 {
            let waited = if batch % 3 == 0 { 0.1 } else { 0.0 };
            pace.took(pace.size(), Duration::from_secs_f64(waited + pace.size() as f64 * 3e-6));
        }
        assert!((25_000..=40_000).contains(&pace.size()), "{}", pace.size());
    }

    #[test]
    fn what_was_too_much_is_halved_down_to_a_row() {
        let mut pace = pace();
        pace.too_much(400);
        assert_eq!(pace.size(), 200);
        for _ in 0..20 {
            pace.too_much(pace.size());
        }
        assert!(pace.is_least());
        assert_eq!(pace.size(), 1);
        // From there the size grows again.
        pace.took(1, Duration::from_micros(1));
        pace.took(1, Duration::from_micros(1));
        assert!(pace.size >= 1.4);
    }

    #[test]
    fn the_largest_batch_has_a_limit() {
        assert_eq!(after(100, 0.0).size(), 291 * 10_000);
    }

    #[test]
    fn progress_in_words() {
        let progress =
            Progress { rows: 120_000, of_rows: Some(200_000.0), pages: 600.0, of_pages: 1000.0, ..Progress::default() };
        let words = progress.words(Duration::from_secs(6));
        assert_eq!(words, "60 %, 120000 of about 200000 rows, 20000 rows/s, about 4 s left");
        let unknown = Progress { of_rows: Some(100.0), sweeping: true, pages: 1000.0, ..progress };
        assert_eq!(
            unknown.words(Duration::from_secs(6)),
            "100 %, 120000 rows, 20000 rows/s, looking for rows that were moved meanwhile"
        );
        assert_eq!(Progress::default().words(Duration::ZERO), "100 %, 0 rows, 0 rows/s, about 0 ms left");
        assert_eq!(Progress { pages: 1.0, ..progress }.left(Duration::from_secs(6)), None);
        let continued = Progress { before: (60_000, 300.0), ..progress };
        assert_eq!(
            continued.words(Duration::from_secs(6)),
            "60 %, 120000 of about 200000 rows, 10000 rows/s, about 8 s left"
        );
    }
}
