//! Those who may hold a run between two of its steps, as the run sees them.
//!
//! This file owns the types only; `checkpoint.rs` asks. It keeps true that a run knows nothing of operators and rules: it is told what to do next.

use crate::plan::Plan;
use crate::report::Report;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before the phase at this position of the plan.
    Phase(usize),
    /// Between two batches of a backfill.
    Batch,
}

/// What a held run does next.
#[derive(Debug)]
pub enum HoldStep {
    /// The run goes on.
    Go,
    /// It naps for this long, with these words in the comment, and then asks again. The client is notified first.
    Nap { time: Duration, words: String, notice: Option<Report> },
    /// It ends with this error, and is undone.
    End(Report),
    /// It ends with this error. If it is on record, it is not undone: the same statement continues it.
    Leave(Report),
}

/// The answer of a [`HoldSource`].
pub type Looking<'l> = Pin<Box<dyn Future<Output = HoldStep> + Send + 'l>>;

/// Those who may hold a run: operators, and the rules of the gate.
pub trait HoldSource: fmt::Debug + Send + Sync {
    /// The plan that runs.
    fn plan(&self) -> &Plan;
    /// Whether the run may be held here. Between two batches this is asked each time.
    fn may_hold(&self, point: Point) -> bool;
    /// What the run does next. It has been held for this long.
    fn look(&mut self, point: Point, held: Duration) -> Looking<'_>;
    /// The hold is over.
    fn is_over(&mut self, end: HoldEnd);
}

/// How a hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnd {
    GoesOn,
    /// The client or the server has cancelled the statement.
    Cancelled,
    /// The run ends for another reason.
    Ends,
}
