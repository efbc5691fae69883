//! Places in a table, and the SQL conditions that select them. The functions are pure.
//!
//! A place is a line pointer, counted from 0 over all pages: page × lines of a page + line. So whole pages, parts of a page and single rows
//! are all ranges of places, and halving a range is arithmetic. This file owns that numbering, and how far the walk through a range has
//! come. It keeps true that a condition makes the server read only the pages that it names: 14 and later scan ranges of tids; for older
//! versions the condition lists every tid that a page could have.

use std::ops::Range;

/// The size of a page header in bytes.
const PAGE_HEADER: u64 = 24;
/// The least size of a line pointer with its tuple header, in bytes.
const LEAST_TUPLE: u64 = 28;

/// How rows are addressed in the tables of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageLayout {
    /// The most line pointers of a page.
    pub(super) lines: u64,
    /// The server can scan ranges of tids (from 14 on).
    pub(super) ranges: bool,
}

impl PageLayout {
    /// Returns the layout of pages of this size in a server of this version.
    pub(super) fn new(block_size: u64, server_version: i32) -> Self {
        let lines = (block_size.saturating_sub(PAGE_HEADER) / LEAST_TUPLE).max(1);
        Self { lines, ranges: server_version >= 140_000 }
    }

    /// Returns the most places of one batch. Where the condition lists tids, the list must fit in memory.
    pub(super) fn most(self) -> u64 {
        self.lines * if self.ranges { 10_000 } else { 1_000 }
    }

    /// Returns the tid of a place as the server writes it. Offsets count from 1.
    pub(super) fn tid(self, place: u64) -> String {
        format!("({},{})", place / self.lines, place % self.lines + 1)
    }

    /// Returns the tid that bounds a range. The beginning of a page is `(n,0)`, which no row has.
    fn bound(self, place: u64) -> String {
        if place.is_multiple_of(self.lines) { format!("({},0)", place / self.lines) } else { self.tid(place) }
    }

    /// Returns a condition that is true for the rows of a range.
    pub(super) fn condition(self, range: &Range<u64>) -> String {
        if self.ranges {
            return format!(
                "ctid OPERATOR(pg_catalog.>=) '{}'::pg_catalog.tid AND ctid OPERATOR(pg_catalog.<) '{}'::pg_catalog.tid",
                self.bound(range.start),
                self.bound(range.end)
            );
        }
        format!(
            "ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT pg_catalog.format('(%s,%s)', p OPERATOR(pg_catalog./) {lines}, \
             p OPERATOR(pg_catalog.%) {lines} OPERATOR(pg_catalog.+) 1)::pg_catalog.tid \
             FROM pg_catalog.generate_series({}::pg_catalog.int8, {}::pg_catalog.int8) AS p))",
            range.start,
            range.end.saturating_sub(1),
            lines = self.lines
        )
    }

    /// Returns pages as ranges. The pages must be sorted and unique.
    pub(super) fn of_pages(self, pages: &[u64]) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for page in pages {
            let range = page * self.lines..(page + 1) * self.lines;
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }
}

/// The walk through one range of places. It never goes back to a place that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    at: u64,
    end: u64,
    /// A row before this place has caused an error. It is searched for by halving the batch.
    fault: Option<u64>,
    /// How many times the next batch has found a lock taken.
    pub(super) locked: u32,
}

impl Walk {
    /// Returns a walk at the beginning of a range.
    pub(super) fn new(range: Range<u64>) -> Self {
        Self { at: range.start, end: range.end, fault: None, locked: 0 }
    }

    /// Returns the next batch, if there is one.
    pub(super) fn next(&self, size: u64) -> Option<Range<u64>> {
        let size = match self.fault {
            Some(fault) => (fault.saturating_sub(self.at) / 2).max(1),
            None => size.max(1),
        };
        (self.at < self.end).then(|| self.at..self.end.min(self.at.saturating_add(size)))
    }

    /// Notes that a batch is done.
    pub(super) fn done(&mut self, batch: &Range<u64>) {
        self.at = batch.end;
        self.locked = 0;
        // The error is gone if the walk has passed the place.
        self.fault = self.fault.filter(|fault| self.at < *fault);
    }

    /// Skips the rest of the range, because its table is gone.
    pub(super) fn leave(&mut self) {
        self.at = self.end;
    }

    /// Returns the place that the walk has reached.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether the walk has reached the end of its range.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// Notes that a row of this batch has caused an error. Returns false if the batch has one row only.
    pub(super) fn narrow(&mut self, batch: &Range<u64>) -> bool {
        self.fault = Some(batch.end);
        batch.end.saturating_sub(batch.start) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: PageLayout = PageLayout { lines: 291, ranges: true };

    #[test]
    fn a_page_has_so_many_lines() {
        assert_eq!(PageLayout::new(8192, 140_000), PLACES);
        assert_eq!(PageLayout::new(32_768, 100_000), PageLayout { lines: 1169, ranges: false });
        assert_eq!((PLACES.tid(0), PLACES.tid(291 * 7 + 3)), ("(0,1)".to_owned(), "(7,4)".to_owned()));
    }

    #[test]
    fn ranges_name_pages_and_rows() {
        let condition = PLACES.condition(&(291 * 2..291 * 5 + 4));
        assert_eq!(
            condition,
            "ctid OPERATOR(pg_catalog.>=) '(2,0)'::pg_catalog.tid AND ctid OPERATOR(pg_catalog.<) '(5,5)'::pg_catalog.tid"
        );
        let listed = PageLayout { ranges: false, ..PLACES }.condition(&(582..584));
        assert!(listed.contains("generate_series(582::pg_catalog.int8, 583::pg_catalog.int8)"), "{listed}");
    }

    #[test]
    fn pages_that_meet_are_one_range() {
        assert_eq!(PLACES.of_pages(&[0, 1, 2, 7, 9, 10]), [0..873, 2037..2328, 2619..3201]);
        assert!(PLACES.of_pages(&[]).is_empty());
    }

    /// Every batch with the faulty row fails. The search finds that row in few tries.
    #[test]
    fn a_fault_is_narrowed_down_to_its_row() {
        for fault in [0, 1, 290, 4711, 9998, 9999] {
            let mut walk = Walk::new(0..10_000);
            let mut tries = 0;
            let found = loop {
                tries += 1;
                let batch = walk.next(4_000).unwrap();
                if !batch.contains(&fault) {
                    walk.done(&batch);
                } else if !walk.narrow(&batch) {
                    break batch;
                }
            };
            assert_eq!(found, fault..fault + 1);
            assert!(tries < 30, "{fault}: {tries} tries");
        }
    }

    #[test]
    fn a_fault_that_goes_away_is_walked_past() {
        let mut walk = Walk::new(0..100);
        assert!(walk.narrow(&(0..40)));
        let mut seen = Vec::new();
        while let Some(batch) = walk.next(40) {
            seen.push(batch.end);
            walk.done(&batch);
        }
        assert_eq!(seen, [20, 30, 35, 37, 38, 39, 40, 80, 100]);
    }
}
