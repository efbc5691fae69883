//! The purposes that phases of several files share. A purpose says for people what a phase is for.

/// The phase changes the catalogue, and reads no row.
pub(super) const CATALOGUE_ONLY: &str = "a catalogue change only";

/// The work of the phase under its lock is short only because the table is small.
pub(super) const SMALL_TABLE: &str = "the table is small";

/// The phase runs only for the server's error. The locks of the statement are not known.
pub(super) const NOT_RUN: &str = "the server will not run the statement";

/// The phase adds a constraint that is NOT VALID.
pub(super) const NEW_ROWS: &str = "from now on new rows must satisfy the constraint";

/// The phase validates a constraint.
pub(super) const OLD_ROWS: &str = "check the old rows without blocking reads or writes";

/// The phase undoes others.
pub(super) const RESTORE: &str = "restore the table as it was";
