//! The turn of a schema change: the lanes that it holds.
//!
//! This file owns the list of lanes, and what is known of those that the statement does not hold. It keeps the list sorted. `take_turn.rs`
//! takes the lanes and gives them back.

/// The lanes that a statement holds.
#[derive(Debug, Default)]
pub struct Turn {
    /// The oids of the relations, sorted, each as often as its lane was taken.
    lanes: Vec<u32>,
    /// The client is in a transaction block, in which a turn holds no lanes.
    in_transaction: bool,
    /// The turn holds all lanes: no other schema change is under way on the relations that the statement names.
    complete: bool,
    /// Another session holds one of the lanes.
    busy: bool,
    /// A session whose role may not change the relation holds one of the lanes, so that the statement waits for none.
    of_strangers: bool,
}

impl Turn {
    /// Returns the turn of a statement that names no relation. It needs no lane.
    pub fn of_nothing() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// Returns a turn without lanes, because it is not known whether they are free.
    pub(super) fn unknown(in_transaction: bool) -> Self {
        Self { in_transaction, ..Self::default() }
    }

    /// Returns a turn without lanes, because another session holds one of them.
    pub(super) fn taken(in_transaction: bool) -> Self {
        Self { in_transaction, busy: true, ..Self::default() }
    }

    /// Returns a turn without lanes, because a session whose role may not change the relation holds one of them.
    pub(super) fn of_strangers(in_transaction: bool) -> Self {
        Self { of_strangers: true, ..Self::of(Vec::new(), in_transaction) }
    }

    /// Returns a turn that holds all of its lanes.
    pub(super) fn of(mut lanes: Vec<u32>, in_transaction: bool) -> Self {
        lanes.sort_unstable();
        Self { lanes, in_transaction, complete: true, ..Self::default() }
    }

    /// Whether the turn holds all lanes: no other schema change is under way on the relations that the statement names.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether another session holds one of the lanes.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Notes that another session holds one of the lanes.
    pub(super) fn set_busy(&mut self) {
        self.busy = true;
    }

    /// Whether no other session that may change the relations holds one of their lanes.
    pub fn is_free(&self) -> bool {
        self.complete && !self.of_strangers
    }

    /// Whether the client is in a transaction block. Then the turn holds no lanes.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Adds lanes that were taken. A lane may be in the list twice, because an index has the lane of its table; it is then given back
    /// twice.
    pub(super) fn extend(&mut self, lanes: Vec<u32>) {
        self.lanes.extend(lanes);
        self.lanes.sort_unstable();
    }

    /// Takes the lanes out of the turn. The caller gives them back.
    pub(super) fn take_lanes(&mut self) -> Vec<u32> {
        std::mem::take(self).lanes
    }

    /// The lanes that the turn holds, in their order.
    pub fn lanes(&self) -> &[u32] {
        &self.lanes
    }

    /// Whether the turn holds this lane.
    pub fn has(&self, lane: u32) -> bool {
        self.lanes.binary_search(&lane).is_ok()
    }
}
