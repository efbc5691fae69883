//! Where a session makes a [`Run`].
//!
//! It owns nothing. It keeps true: every run of a session is made here, with the session's channel, the proxy's settings and its counters.

use super::shared::Shared;
use crate::backend::ServerChannel;
use crate::catalog::{Facts, SessionFacts};
use crate::execute::budget::SizeGuess;
use crate::execute::pending_undo::{PendingUndo, RunState};
use crate::execute::turn::Turn;
use crate::execute::{Basis, Run};
use std::time::Instant;

/// What differs from run to run.
#[derive(Debug)]
pub(super) struct RunOptions<'r> {
    /// Characters of the client's string before the statement, for error positions.
    pub(super) offset: usize,
    /// What is known of the statement's time.
    pub(super) size_guess: SizeGuess,
    /// The lanes that the statement has until it is over.
    pub(super) turn: Option<&'r Turn>,
    /// What the plan rests on.
    pub(super) basis: Basis,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self { offset: 0, size_guess: SizeGuess::Any, turn: None, basis: Basis::Any }
    }
}

/// A run on the session's backend.
pub(super) fn new_run<'r>(
    channel: &'r mut ServerChannel,
    shared: &'r Shared,
    facts: &'r Facts,
    options: RunOptions<'r>,
) -> Run<'r> {
    let RunOptions { offset, size_guess, turn, basis } = options;
    Run {
        channel,
        config: &shared.config,
        metrics: &shared.metrics,
        facts,
        offset,
        begun: Instant::now(),
        learned_names: Vec::new(),
        state: RunState::default(),
        turn,
        basis,
        size_guess,
    }
}

/// The undo that a run could not do, for a later session of the role.
pub(super) fn take_pending_undo(run: &mut Run<'_>) -> Option<PendingUndo> {
    run.state.pending_undo.take()
}

/// All that is known of the session without a question.
pub(super) fn facts_without_questions(channel: &ServerChannel) -> Facts {
    let in_transaction = channel.status() != b'I';
    Facts { session: SessionFacts { in_transaction, ..SessionFacts::default() }, ..Facts::default() }
}
