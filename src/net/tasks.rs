//! The tasks of a worker: all of them on its thread, run by one loop.
//!
//! The tasks are a [`LocalSet`] and not tasks of the runtime, so that the loop knows when nothing is left to do and can
//! sleep in the ring.
//!
//! Invariant: every task of a worker is spawned here. A task of the runtime would wait for as long as the worker sleeps.

use super::ring::{self, Bell};
use std::cell::Cell;
use tokio::task::{JoinHandle, LocalSet};

thread_local! {
    /// Whether this thread runs the tasks of a worker.
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `main`, and all tasks that are spawned on this thread meanwhile, until `main` ends. The other tasks are dropped
/// then.
pub async fn work(bell: Option<Bell>, main: impl Future<Output = ()> + 'static) {
    let mut tasks = LocalSet::new();
    let main = tasks.spawn_local(main);
    HERE.set(true);
    if let Some(bell) = bell {
        ring::work(bell, &mut tasks, &main).await;
    }
    if let Err(error) = tasks.run_until(main).await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
    HERE.set(false);
}

/// Spawns a task beside the current one: among the worker's tasks on a worker's thread, in the runtime on any other.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    if HERE.get() { tokio::task::spawn_local(task) } else { tokio::spawn(task) }
}
