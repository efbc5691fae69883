//! How far a plan of several phases is, on record in the database: the same statement continues it after whatever died.
//!
//! The record is a comment on the row type of the plan's table (`catalog/record.rs`). It holds what the plan was made from, so that the
//! planner, which is pure, makes the same again; which phases are done; what they have made, with what tells it; and the
//! place that the backfill has reached.
//!
//! It promises: what a transaction of the plan's has done and what the record says of it are committed together; who follows a
//! record has its lock, which nobody has who is alive and at work on it; nothing is followed that has become another table, or
//! another column. That every row has its value never depends on it: the sweep looks at them all.
//!
//! Where it cannot be written (an event trigger would see it, the comment is somebody else's), the plan runs without.
//!
//! - `format`: what a record says.
//! - `table`: the record in the database, and its lock.
//! - `writer`: the record of the plan that is under way.
//! - `trust`: whose record is followed.
//! - `resume`, `abandon`: the same statement continues; another one undoes.

pub(super) mod abandon;
mod format;
pub(super) mod resume;
mod table;
mod trust;
mod writer;

pub use self::abandon::take_record;
pub(super) use self::format::BackfillPosition;
pub use self::format::{Record, RecordKey, table_of};
pub use self::resume::{UnfinishedChange, any_record, can_resume, on_record, unfinished};
pub use self::table::release_record;
pub(super) use self::writer::RunRecord;
