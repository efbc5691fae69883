//! One statement on its way through the stages, and the parts that each stage may use.
//!
//! It owns whether the statement is planned as if its table were large, the settings that a rule of the gate has changed, and the approval under which
//! the statement runs. Everything else is borrowed: the channel, the log, the statement. State
//! that a session keeps from one statement to the next is elsewhere.

use super::facts::FactsReader;
use super::log::ChangeLog;
use crate::backend::ServerChannel;
use crate::catalog::Facts;
use crate::config::{Config, InTransaction, Mode};
use crate::execute::ahead::AheadOfBlock;
use crate::execute::context::{ExecutionContext, SizeGuess};
use crate::execute::record::RecordKey;
use crate::gate::{SeenCondition, Verdict};
use crate::holds::Passage;
use crate::metrics::Metrics;
use crate::plan::Limits;
use crate::plan::ahead::NotAhead;
use crate::session::run::{facts_without_questions, run_context_with};
use crate::session::shared::limits_of;
use crate::sql::Statement;
use crate::webhook::WaitWatch;

/// A statement that is to be run.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Request<'s> {
    pub(in crate::session) statement: &'s Statement,
    /// Characters of the client's string before the statement, for error positions.
    pub(in crate::session) offset: usize,
    pub(in crate::session) place: Place<'s>,
}

/// Whether the gate has let a statement run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Asked {
    /// It is to be asked.
    NotYet,
    /// It has, when the statement ran in the transaction.
    Before,
}

/// Where a statement is run if the client is in a transaction.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) enum Place<'s> {
    /// In the transaction, unless it would make the application wait there. Then nothing is done, and the result is
    /// [`Suspend::WouldStall`](crate::execute::Suspend::WouldStall).
    Anywhere,
    /// In the transaction. A WARNING of the plan says why the statement is not done ahead.
    InBlock(Option<&'s NotAhead>),
    /// Nowhere: the result comes when the locks of the statement could be had. The client's transaction is rolled back.
    LocksAlone,
    /// Ahead of the client's transaction, which is rolled back. The statement can still be undone when it is done.
    Ahead(Asked),
}

/// A statement on its way through the stages.
pub(super) struct StatementContext<'s> {
    pub(super) channel: &'s mut ServerChannel,
    pub(super) log: &'s ChangeLog,
    pub(super) statement: &'s Statement,
    offset: usize,
    place: Place<'s>,
    /// The statement, if it was run ahead of the client's transaction.
    ahead: Option<AheadOfBlock>,
    /// The records of the statements that this session has run ahead of its transactions.
    own_records: &'s [RecordKey],
    /// The statement has exceeded its hold budget as one brief step. It is planned as if its table were large.
    slow: bool,
    /// The settings of the statement, if a rule of the gate has changed them.
    config: Option<Box<Config>>,
    /// What the rules of the gate say of the statement.
    verdict: Verdict,
    /// What the server has said last to the conditions of windows.
    conditions: Vec<SeenCondition>,
    /// Who is told of long waits.
    watch: Option<Box<WaitWatch>>,
    /// The approval under which the statement runs, if it was held.
    passage: Option<Passage>,
}

impl<'s> StatementContext<'s> {
    pub(super) fn new(channel: &'s mut ServerChannel, log: &'s ChangeLog, request: Request<'s>) -> Self {
        Self {
            channel,
            log,
            statement: request.statement,
            offset: request.offset,
            place: request.place,
            ahead: None,
            own_records: &[],
            slow: false,
            config: None,
            verdict: Verdict::Allow,
            conditions: Vec::new(),
            watch: None,
            passage: None,
        }
    }

    /// With the records of the statements that this session has run ahead of its transactions.
    pub(super) fn with_own_records(self, own_records: &'s [RecordKey]) -> Self {
        Self { own_records, ..self }
    }

    /// The records of the statements that this session has run ahead of its transactions.
    pub(super) fn own_records(&self) -> &'s [RecordKey] {
        self.own_records
    }

    /// Where the statement is run.
    pub(super) fn place(&self) -> Place<'s> {
        self.place
    }

    /// Keeps the statement that was run ahead of the client's transaction.
    pub(super) fn keep_ahead(&mut self, ahead: AheadOfBlock) {
        self.ahead = Some(ahead);
    }

    /// Takes the statement that was run ahead of the client's transaction.
    pub(super) fn take_ahead(&mut self) -> Option<AheadOfBlock> {
        self.ahead.take()
    }

    /// From here on the statement is planned as if its table were large.
    pub(super) fn take_as_slow(&mut self) {
        self.slow = true;
    }

    /// Whether the statement is planned as if its table were large.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }

    /// The settings of the statement: the proxy's, unless a rule of the gate has changed them.
    pub(super) fn config(&self) -> &Config {
        self.config.as_deref().unwrap_or_else(|| &self.log.shared().config)
    }

    /// A rule of the gate has changed the settings of the statement.
    pub(super) fn set_config(&mut self, config: Config) {
        self.config = Some(Box::new(config));
    }

    /// The rules of the gate have decided.
    pub(super) fn set_verdict(&mut self, verdict: Verdict) {
        self.verdict = verdict;
    }

    /// What the rules of the gate say of the statement. Without rules it is allowed.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The server has said this to the conditions of windows.
    pub(super) fn set_conditions(&mut self, seen: Vec<SeenCondition>) {
        self.conditions = seen;
    }

    /// What the server has said last to the conditions of windows.
    pub(super) fn conditions(&self) -> &[SeenCondition] {
        &self.conditions
    }

    /// From here on somebody is told of long waits.
    pub(super) fn watch(&mut self, watch: WaitWatch) {
        self.watch = Some(Box::new(watch));
    }

    /// Whether a rule of the gate has changed the settings of the statement.
    pub(super) fn has_own_config(&self) -> bool {
        self.config.is_some()
    }

    /// The statement runs under this approval.
    pub(super) fn keep_passage(&mut self, passage: Passage) {
        self.channel.change_joins(passage.number());
        self.passage = Some(passage);
    }

    /// Takes the approval under which the statement runs.
    pub(super) fn take_passage(&mut self) -> Option<Passage> {
        self.passage.take()
    }

    pub(super) fn metrics(&self) -> &'s Metrics {
        &self.log.shared().metrics
    }

    pub(super) fn limits(&self) -> Limits {
        let limits = limits_of(self.config());
        // A statement that may be done ahead is not refused before.
        let ahead = matches!(self.place, Place::Anywhere) && self.channel.status() == b'T' && self.may_hoist();
        let limits = Limits { refuse_unsafe: limits.refuse_unsafe && !ahead, ..limits };
        if self.slow { Limits { small_table: 0, ..limits } } else { limits }
    }

    /// Whether the statement is run, and not only waited for.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.place, Place::LocksAlone)
    }

    /// Whether a statement in the client's transaction may be done ahead of it.
    pub(super) fn may_hoist(&self) -> bool {
        self.makes_phases() && self.config().ddl.in_transaction == InTransaction::Hoist
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
        let again = self.may_hoist() && !facts.session.frozen_snapshot;
        let inside = matches!(self.place, Place::Anywhere | Place::InBlock(_));
        let suspendable = matches!(self.place, Place::Anywhere) && again;
        let shared = self.log.shared();
        let config = self.config.as_deref().unwrap_or(&shared.config);
        let context = run_context_with(self.channel, (shared, config), facts, offset, guess);
        let watch = self.watch.as_deref().map(|watch| (&shared.webhook, watch));
        context.suspendable(suspendable).running_again(inside && again).watched(watch)
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
