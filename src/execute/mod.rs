//! Running a plan on the session's own backend: lock attempts, waits, long steps, undo.
//!
//! The modules stand in the order in which they build on each other. A part owns its state; what it needs of the others it is passed.
//!
//! 1. What everything is run with, and how things end: [`context`], `outcome`, `server_error`, `timing`, `budget`.
//! 2. What a run has done so far: `state`, its objects and its [`record`]; and what is [`pending_undo`].
//! 3. Turns, lanes and waits: [`turn`], [`take_turn`], `lock_wait`, `lane`, `wait`, `blocked`.
//! 4. Lock attempts, and how one is taken back: `attempt`, `unchanged`, `undo`, `invalid`.
//! 5. What a phase may be besides: `long`, `build`, `detach`, `backfill`.
//! 6. The [`run`] of a plan; what is done when its session is lost: [`lost_session`].
//! 7. What needs no plan: [`optimistic`] tries, statements [`as_written`], the client's own [`advisory`] locks.

pub mod advisory;
mod as_directly;
pub mod as_written;
mod attempt;
mod backfill;
mod blocked;
pub mod budget;
mod build;
pub mod context;
mod detach;
mod invalid;
mod lane;
mod lock_wait;
mod long;
pub mod lost_session;
mod objects;
pub mod optimistic;
mod outcome;
pub mod pending_undo;
mod progress;
pub mod record;
pub mod run;
mod server_error;
mod state;
pub mod take_turn;
mod timing;
pub mod turn;
mod unchanged;
mod undo;
mod wait;

pub use self::outcome::{Reply, RunError};
