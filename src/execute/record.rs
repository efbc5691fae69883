//! The record of a plan of several phases, in the database: it says how far the plan is. If the proxy, the session or the server dies, the
//! same statement continues the plan.
//!
//! The record is a comment on the row type of the plan's table (`catalog/record.rs`). It holds the facts that the plan was made from, so
//! that the planner, which is pure, makes the same plan again; the phases that are done; the objects that they have made, with their
//! identities; and the position of the backfill.
//!
//! It keeps true that the work of a transaction and its record are committed together; that a session follows a record only while it holds
//! the record's lock, which every session that works on the plan holds; and that a record is not followed if its table or column has become
//! another one. The values of the rows never depend on the record, because the sweep looks at all rows.
//!
//! If the record cannot be written (an event trigger would see the COMMENT, or there is another comment), the plan runs without a record.
//!
//! - `format`: the contents of a record.
//! - `table`: the record in the database, and its lock.
//! - `writer`: the record of the plan that is under way.
//! - `trust`: whose record is followed.
//! - `resume`: the same statement continues a plan. `abandon`: another statement undoes it.

pub(super) mod abandon;
mod format;
pub(super) mod resume;
mod table;
mod trust;
mod wait;
mod writer;

pub use self::abandon::take_record;
pub(super) use self::format::BackfillPosition;
pub use self::format::{Record, RecordKey, table_of};
pub use self::resume::{UnfinishedChange, any_record, can_resume, is_left_ahead, on_record, unfinished};
pub use self::table::release_record;
pub use self::wait::{is_of_another_block, wait_for_block};
pub(super) use self::writer::RunRecord;
