//! First, do no harm: whatever works directly works through the proxy, at the first try.

mod common;

#[path = "no_worse/budgets.rs"]
mod budgets;
#[path = "no_worse/restore.rs"]
mod restore;
#[path = "no_worse/stalls.rs"]
mod stalls;
