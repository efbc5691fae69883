//! The context in which the statements of a session's schema changes are run.
//!
//! It owns nothing. It keeps true: every such context is made here, with the session's channel, the proxy's settings and its counters.

use super::shared::Shared;
use crate::backend::ServerChannel;
use crate::catalog::{Facts, SessionFacts};
use crate::config::Config;
use crate::execute::context::{ExecutionContext, SizeGuess};

/// The context of a run with these settings, which may be other ones than the proxy's. `offset`: as for [`run_context`].
pub(super) fn run_context_with<'r>(
    channel: &'r mut ServerChannel,
    (shared, config): (&'r Shared, &'r Config),
    facts: &'r Facts,
    offset: usize,
    size_guess: SizeGuess,
) -> ExecutionContext<'r> {
    ExecutionContext::new(channel, config, &shared.metrics, facts).at(offset).guessing(size_guess)
}

/// The context of a run on the session's backend. `offset`: characters of the client's string before the statement, for error positions.
pub(super) fn run_context<'r>(
    channel: &'r mut ServerChannel,
    shared: &'r Shared,
    facts: &'r Facts,
    offset: usize,
    size_guess: SizeGuess,
) -> ExecutionContext<'r> {
    run_context_with(channel, (shared, &shared.config), facts, offset, size_guess)
}

/// All facts of the session that are known without a question.
pub(super) fn facts_without_questions(channel: &ServerChannel) -> Facts {
    let in_transaction = channel.status() != b'I';
    Facts { session: SessionFacts { in_transaction, ..SessionFacts::default() }, ..Facts::default() }
}
