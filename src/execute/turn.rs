//! A schema change's turn: the lanes that it has.
//!
//! It owns which lanes they are. `take_turn.rs` takes them and gives them back.

/// The lanes that a statement has.
#[derive(Debug, Default)]
pub struct Turn {
    /// Oids, in their order, as often as they were taken.
    lanes: Vec<u32>,
    /// In a transaction of the client's there are none.
    in_transaction: bool,
    /// They are all had: nobody else's schema change is under way on what the statement names.
    complete: bool,
    /// Somebody else has one of them.
    busy: bool,
    /// One is held by somebody who can have nothing to do with the relation, so that none is waited for.
    of_strangers: bool,
}

impl Turn {
    /// A statement that names no relation needs no lane.
    pub fn of_nothing() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// No lanes, as it is not known whether they are free.
    pub(super) fn unknown(in_transaction: bool) -> Self {
        Self { in_transaction, ..Self::default() }
    }

    /// No lanes, as somebody else has one of them.
    pub(super) fn taken(in_transaction: bool) -> Self {
        Self { in_transaction, busy: true, ..Self::default() }
    }

    /// No lanes, as one is held by somebody who can have nothing to do with the relation.
    pub(super) fn of_strangers(in_transaction: bool) -> Self {
        Self { of_strangers: true, ..Self::of(Vec::new(), in_transaction) }
    }

    /// All lanes are had.
    pub(super) fn of(mut lanes: Vec<u32>, in_transaction: bool) -> Self {
        lanes.sort_unstable();
        Self { lanes, in_transaction, complete: true, ..Self::default() }
    }

    /// Whether all lanes are had: nobody else's schema change is under way on what the statement names.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether somebody else has one of the lanes.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Somebody else has one of the lanes.
    pub(super) fn set_busy(&mut self) {
        self.busy = true;
    }

    /// Nobody who could be at work on what the statement names has a lane of it.
    pub fn is_free(&self) -> bool {
        self.complete && !self.of_strangers
    }

    /// Whether the client is in a transaction: then the turn has no lanes.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// More lanes are had. One may be there twice, as an index has its table's: then it is given back twice.
    pub(super) fn extend(&mut self, lanes: Vec<u32>) {
        self.lanes.extend(lanes);
        self.lanes.sort_unstable();
    }

    /// The lanes, which the caller gives back; the turn is as at its begin.
    pub(super) fn take_lanes(&mut self) -> Vec<u32> {
        std::mem::take(self).lanes
    }

    pub fn has(&self, lane: u32) -> bool {
        self.lanes.binary_search(&lane).is_ok()
    }
}
