//! Where a session makes a [`Run`].
//!
//! It owns nothing. It keeps true: every run of a session is made here, with the session's channel, the proxy's settings and its counters.

use super::shared::Shared;
use crate::backend::ServerChannel;
use crate::catalog::{Facts, SessionFacts};
use crate::execute::budget::SizeGuess;
use crate::execute::pending_undo::RunState;
use crate::execute::{Basis, Run};
use std::time::Instant;

/// A run on the session's backend. `offset`: characters of the client's string before the statement, for error positions.
pub(super) fn new_run<'r>(
    channel: &'r mut ServerChannel,
    shared: &'r Shared,
    facts: &'r Facts,
    offset: usize,
    size_guess: SizeGuess,
) -> Run<'r> {
    Run {
        channel,
        config: &shared.config,
        metrics: &shared.metrics,
        facts,
        offset,
        begun: Instant::now(),
        learned_names: Vec::new(),
        state: RunState::default(),
        turn: None,
        basis: Basis::Any,
        size_guess,
    }
}

/// All that is known of the session without a question.
pub(super) fn facts_without_questions(channel: &ServerChannel) -> Facts {
    let in_transaction = channel.status() != b'I';
    Facts { session: SessionFacts { in_transaction, ..SessionFacts::default() }, ..Facts::default() }
}
