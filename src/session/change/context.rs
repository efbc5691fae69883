//! One statement on its way through the stages, and the parts that each stage may use.
//!
//! It owns whether the statement is planned as if its table were large. Everything else is borrowed: the channel, the log, the statement. State
//! that a session keeps from one statement to the next is elsewhere.

use super::facts::FactsReader;
use super::log::ChangeLog;
use crate::backend::ServerChannel;
use crate::catalog::Facts;
use crate::config::{Config, Mode};
use crate::execute::context::{ExecutionContext, SizeGuess};
use crate::metrics::Metrics;
use crate::plan::Limits;
use crate::session::run::{facts_without_questions, run_context};
use crate::sql::Statement;

/// A statement that is to be run.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Request<'s> {
    pub(in crate::session) statement: &'s Statement,
    /// Characters of the client's string before the statement, for error positions.
    pub(in crate::session) offset: usize,
}

/// A statement on its way through the stages.
pub(super) struct StatementContext<'s> {
    pub(super) channel: &'s mut ServerChannel,
    pub(super) log: &'s ChangeLog,
    pub(super) statement: &'s Statement,
    offset: usize,
    /// The statement has exceeded its hold budget as one brief step. It is planned as if its table were large.
    slow: bool,
}

impl<'s> StatementContext<'s> {
    pub(super) fn new(channel: &'s mut ServerChannel, log: &'s ChangeLog, request: Request<'s>) -> Self {
        Self { channel, log, statement: request.statement, offset: request.offset, slow: false }
    }

    /// From here on the statement is planned as if its table were large.
    pub(super) fn take_as_slow(&mut self) {
        self.slow = true;
    }

    pub(super) fn config(&self) -> &'s Config {
        &self.log.shared().config
    }

    pub(super) fn metrics(&self) -> &'s Metrics {
        &self.log.shared().metrics
    }

    pub(super) fn limits(&self) -> Limits {
        let limits = self.log.shared().limits();
        if self.slow { Limits { small_table: 0, ..limits } } else { limits }
    }

    /// Whether statements get phases. Otherwise they run guarded as they are written.
    pub(super) fn makes_phases(&self) -> bool {
        self.config().proxy.mode == Mode::Plan
    }

    /// The context in which the statement is run.
    pub(super) fn run<'r>(&'r mut self, facts: &'r Facts) -> ExecutionContext<'r> {
        self.run_at(facts, self.offset)
    }

    /// The context in which something beside the statement is run.
    pub(super) fn side_run<'r>(&'r mut self, facts: &'r Facts) -> ExecutionContext<'r> {
        self.run_at(facts, 0)
    }

    fn run_at<'r>(&'r mut self, facts: &'r Facts, offset: usize) -> ExecutionContext<'r> {
        let guess = if self.slow { SizeGuess::Slow } else { SizeGuess::Any };
        run_context(self.channel, self.log.shared(), facts, offset, guess)
    }

    /// All facts of the session that are known without a question.
    pub(super) fn facts_without_questions(&self) -> Facts {
        facts_without_questions(self.channel)
    }

    /// The reader of the statement's facts.
    pub(super) fn facts(&mut self) -> FactsReader<'_> {
        let (limits, makes_phases) = (self.limits(), self.makes_phases());
        FactsReader::new(self.channel, limits, makes_phases)
    }
}
