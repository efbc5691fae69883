//! This module runs a plan on the session's own backend: lock attempts, waits, long steps, undo.
//!
//! The modules stand in the order in which they build on each other. Each part owns its state. It gets the data of other parts as
//! arguments.
//!
//! 1. The context that all parts use, and the ways in which a run ends: [`context`], `outcome`, `server_error`, `timing`, `budget`.
//! 2. The progress of a run: `state`, its `objects`, its [`record`] and the [`pending_undo`].
//! 3. Turns, lanes and waits: [`turn`], [`take_turn`], `lock_wait`, `lane`, `wait`, `blocked`, `idle_blockers`.
//! 4. Lock attempts, and the undo of a phase: `attempt`, `unchanged`, `undo`, `invalid`.
//! 5. The points at which a run may be held (`checkpoint`, [`hold`]), and the phases that need no lock attempt: `long`, `build`, `built_index`, `detach`, `backfill`.
//! 6. The [`run`] of a plan, the plans that were run [`ahead`] of a block, and the undo after a session was lost: [`lost_session`].
//! 7. The statements that run without a plan: [`optimistic`] tries, statements [`as_written`], the client's own [`advisory`] locks,
//!    and its own [`lock_table`]. The [`condition`] of a window.

pub mod advisory;
pub mod ahead;
mod as_directly;
pub mod as_written;
mod attempt;
mod backfill;
mod blocked;
pub mod budget;
mod build;
mod built_index;
mod checkpoint;
pub mod condition;
pub mod context;
mod detach;
pub mod hold;
mod idle_blockers;
mod invalid;
mod lane;
pub mod lock_table;
mod lock_wait;
pub mod locks_first;
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

pub use self::outcome::{Deadlock, Reply, RunError, Suspend};
