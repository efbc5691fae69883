//! Running a plan on the session's own backend: lock attempts, waits, long steps, undo.
//!
//! The executor makes no choices a plan could have made. It promises: the client's reply is put on
//! its way only when the phase it belongs to has committed; whatever ends it (an error, a cancel, a
//! client that left), the backend is back in the state that the client may expect, its settings are
//! the client's, and what earlier phases left is undone.

pub mod advisory;
mod as_directly;
mod attempt;
mod backfill;
mod blocked;
pub mod budget;
mod build;
mod detach;
pub mod optimistic;
mod guarded;
mod invalid;
mod lane;
pub mod pending_undo;
mod long;
mod progress;
pub mod record;
pub mod turn;
mod unchanged;
mod wait;

use self::attempt::UndoOutcome;
use self::budget::SizeGuess;
use self::pending_undo::RunState;
use self::turn::Turn;
use crate::backend::{BackendLost, ServerChannel};
use crate::catalog::Facts;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pg::sqlstate;
use crate::plan::{BoundsOf, Phase, PhaseKind, Plan, Renamed, Step};
use crate::report::{Report, Severity};
use crate::wire::error_response::ServerError;
use crate::wire::frame::{BACKEND_LIMIT, Header};
use crate::wire::message::Batch;
use crate::wire::reply::put_command_complete;
use bytes::BytesMut;
use std::borrow::Cow;
use std::time::Instant;

/// Why a statement did not come to its end.
#[derive(Debug)]
pub enum RunError {
    /// The server's own error, in the client's terms.
    Server(ServerError),
    /// The proxy's.
    Report(Report),
    /// As one brief step it takes too long, and was taken back: it is to be planned as if its table were large.
    Slow,
    /// The client left without a goodbye.
    ClientGone,
    /// The backend is gone.
    Lost,
    /// Nothing is done: it had to wait, or what it names has been changed, so that its plan is to be made anew.
    Stale,
}

impl RunError {
    /// For the log. Of the server's error the code alone: its message may hold a row's value.
    pub fn reason(&self) -> String {
        match self {
            Self::Server(error) => format!("{} from the server", error.sqlstate()),
            Self::Report(report) => format!("{}: {}", report.sqlstate, report.message),
            Self::Slow => "it outlived hold_budget".to_owned(),
            Self::ClientGone => "the client left".to_owned(),
            Self::Lost => "the server closed the connection".to_owned(),
            Self::Stale => "its plan is out of date".to_owned(),
        }
    }
}

impl From<BackendLost> for RunError {
    fn from(_: BackendLost) -> Self {
        Self::Lost
    }
}

/// Everything a run needs, and nothing it may choose.
#[derive(Debug)]
pub struct Run<'a> {
    pub channel: &'a mut ServerChannel,
    pub config: &'a Config,
    pub metrics: &'a Metrics,
    pub facts: &'a Facts,
    /// Where the client's text stands in the string it sent: characters before it, for error positions.
    pub offset: usize,
    /// The names of the constraints that steps have made, quoted, each in its slot.
    pub learned_names: Vec<String>,
    /// For the case that the backend is lost.
    pub state: RunState,
    /// When the statement began: the session's `statement_timeout` counts from here.
    pub begun: Instant,
    /// The lanes that the statement has until it is over.
    pub turn: Option<&'a Turn>,
    /// What the first phase does when its lock is not to be had at once.
    pub basis: Basis,
    pub size_guess: SizeGuess,
}

/// What a plan rests on, as long as none of its phases is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Basis {
    /// Nothing that a wait could change: it runs as it is.
    #[default]
    Any,
    /// Facts that a wait would leave behind: it stops with [`RunError::Stale`] before it waits.
    Fresh,
    /// Facts that are true for as long as this condition is, which is looked at under the first phase's locks.
    While(String),
}

/// What [`Basis::While`] stops with.
const STALE: &str = "what the plan rests on has been changed";

/// What the client is to be sent: notices, then CommandComplete.
#[derive(Debug, Default)]
pub struct Reply {
    pub frames: BytesMut,
}

impl Reply {
    /// The frames without CommandComplete.
    pub fn notices(&self) -> BytesMut {
        let mut notices = BytesMut::new();
        let mut rest = &self.frames[..];
        while let Ok(Some(header)) = Header::read(rest, BACKEND_LIMIT)
            && let Some((frame, after)) = rest.split_at_checked(header.total())
        {
            if header.tag != b'C' {
                notices.extend_from_slice(frame);
            }
            rest = after;
        }
        notices
    }
}

/// How far a phase was that is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UndoneAfter {
    /// It failed by itself.
    Failed,
    /// It was done, as the plan's phase of this place, and a later one failed.
    Done(usize),
}

/// How one try of a phase ended.
enum AttemptOutcome {
    Done,
    /// The lock was not to be had.
    Locked,
    /// `LOCK TABLE` itself is refused, for another reason than a lock.
    Unlockable,
    /// It outlived its hold budget.
    Slow,
    Failed(RunError),
}

impl Run<'_> {
    /// Runs the plan. The notices that come before the end (waits, progress) have gone to the client by then;
    /// the reply has not. `told`: notes that the client has had already.
    ///
    /// # Errors
    /// Why it stopped. Phases that were done have been undone.
    pub async fn run(&mut self, plan: &Plan, told: &[Report]) -> Result<Reply, RunError> {
        let plan = &*self.at_its_pace(plan);
        let result = self.run_phases(plan, told).await;
        // Whatever ended it: no answer of the backend's to us is left on its way.
        if !matches!(result, Err(RunError::Lost)) {
            self.channel.finish_nap().await?;
            self.end_record().await?;
        }
        match result {
            Err(stop) => Err(self.as_directly(plan, stop).await?),
            done => done,
        }
    }

    async fn run_phases(&mut self, plan: &Plan, told: &[Report]) -> Result<Reply, RunError> {
        let mut reply = Reply::default();
        let (first, resumed) = (self.first_phase(), self.state.record.is_some());
        if !resumed {
            for note in plan.notes.iter().filter(|note| !told.contains(note)) {
                self.notify(note);
            }
            self.state.notes_created = !self.in_transaction() && plan.phases.iter().any(|phase| phase.undo.is_some());
            self.begin_record(plan).await?;
        }
        let mut interrupted = resumed;
        for (at, phase) in plan.phases.iter().enumerate().skip(first) {
            let phase = &*self.with_names(phase);
            if phase.steps.is_empty() {
                continue;
            }
            self.under_way(Some(at));
            let mut stopped = at;
            let mut result = self.phase_or_its_rest(at, phase, std::mem::take(&mut interrupted), &mut reply).await;
            if result.is_ok() && !self.records(phase) {
                // It is done: what stops here is to undo it too.
                stopped = at + 1;
                result = self.record_phase().await;
            }
            self.under_way(None);
            // From here on a wait changes nothing about what the plan rests on: it is half done.
            self.basis = Basis::Any;
            if let Err(stop) = result {
                return Err(self.undo_all(plan, stopped, stop).await);
            }
        }
        // A dead session has had the server's.
        if plan.phases.iter().take(first).flat_map(|phase| &phase.steps).any(|step| step.visible) {
            put_command_complete(&mut reply.frames, &plan.tag);
        }
        Ok(reply)
    }

    /// `interrupted`: a dead session was in it.
    async fn phase_or_its_rest(
        &mut self,
        at: usize,
        phase: &Phase,
        interrupted: bool,
        reply: &mut Reply,
    ) -> Result<(), RunError> {
        if interrupted && self.finish_interrupted_build(at, phase).await? {
            return Ok(());
        }
        match self.phase(at, phase, reply).await {
            Ok(()) if self.state.notes_created => self.note_built(at, phase).await.map_err(RunError::from),
            Err(stop) if phase.tidies && !matches!(stop, RunError::Lost) => self.undo_by_phase_or_warn(phase).await,
            other => other,
        }
    }

    /// Without the steps about a constraint that was not made.
    fn with_names<'p>(&self, phase: &'p Phase) -> Cow<'p, Phase> {
        let unmade = |step: &Step| {
            let name = step.name_at.and_then(|name| self.learned_names.get(name.slot));
            name.is_some_and(String::is_empty)
        };
        if !phase.steps.iter().any(unmade) {
            return Cow::Borrowed(phase);
        }
        let mut made = phase.clone();
        made.steps.retain(|step| !unmade(step));
        Cow::Owned(made)
    }

    /// Undoes the phases before the one that stopped, which has cleaned up after itself. Where no session is there any
    /// more that could, it is remembered.
    async fn undo_all(&mut self, plan: &Plan, stopped: usize, stop: RunError) -> RunError {
        if matches!(stop, RunError::Lost) {
            self.keep_pending_undo(plan, stopped, false);
            return stop;
        }
        for at in (0..stopped).rev() {
            match self.undo(&plan.phases[at], UndoneAfter::Done(at)).await {
                Ok(UndoOutcome::Undone | UndoOutcome::Reported) => {}
                // What is in the way now would be in the way of the others, too.
                Ok(UndoOutcome::NotNow(reason)) if self.leave_for_later(plan, at, &reason).await => break,
                Ok(UndoOutcome::NotNow(reason)) => self.warn_not_undone(&plan.phases[at], &reason),
                Err(_) => {
                    self.keep_pending_undo(plan, at, true);
                    return RunError::Lost;
                }
            }
        }
        stop
    }

    /// `at`: its place in the plan.
    async fn phase(&mut self, at: usize, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
        if let Some(what) = &phase.detach {
            return self.detach(phase, what, reply).await;
        }
        match phase.kind {
            PhaseKind::Relay => self.relay(phase, reply).await,
            PhaseKind::Brief | PhaseKind::Guarded => {
                self.attempts(&self.on_its_basis(self.guarded(phase)), reply).await
            }
            PhaseKind::Long if self.in_transaction() => self.attempts(phase, reply).await,
            PhaseKind::Long => {
                // The facts are as fresh as a look before the first could be.
                if at > 0 {
                    self.look_before(phase).await?;
                }
                self.long(phase, reply).await
            }
            PhaseKind::Backfill | PhaseKind::Detach => self.long(phase, reply).await,
        }
    }

    /// Keeps the first phase to what the plan rests on.
    fn on_its_basis<'p>(&self, phase: Cow<'p, Phase>) -> Cow<'p, Phase> {
        match &self.basis {
            Basis::While(condition) if phase.in_transaction => {
                let mut held = phase.into_owned();
                held.steps.insert(0, Step::assertion(condition, STALE));
                Cow::Owned(held)
            }
            _ => phase,
        }
    }

    /// A NOTICE or WARNING of the proxy's, if the session wants to hear it.
    fn notify(&mut self, report: &Report) {
        if !(self.facts.session.hushed && report.severity == Severity::Notice) {
            self.channel.notify(report);
        }
    }

    fn in_transaction(&self) -> bool {
        self.facts.session.in_transaction
    }

    /// Steps that need no protection: each as it is.
    async fn relay(&mut self, phase: &Phase, reply: &mut Reply) -> Result<(), RunError> {
        for step in &phase.steps {
            let mut batch = Batch::new();
            batch.statement(&step.named(&self.learned_names), &[]);
            let answer = self.channel.ask(batch, step.visible.then_some(0)).await?;
            reply.frames.unsplit(answer.notices);
            if let Some(error) = answer.error {
                return Err(self.failed(step, error, reply));
            }
            reply.frames.unsplit(answer.completion);
        }
        Ok(())
    }

    /// A step's error, as the client would have got it; the notices that came before it go first.
    fn failed(&mut self, step: &Step, error: ServerError, reply: &Reply) -> RunError {
        self.channel.send_to_client(&reply.notices());
        let error = match &step.renamed {
            Some(renamed) => with_name(&error, renamed),
            None => error,
        };
        if let Some(column) = &step.not_null
            && error.sqlstate() == sqlstate::CHECK_VIOLATION
        {
            return RunError::Server(contains_nulls(&error, column, self.facts.session.server_version));
        }
        if let Some(of) = step.bounds
            && error.sqlstate() == sqlstate::CHECK_VIOLATION
        {
            return RunError::Server(outside_bounds(&error, of, self.facts.session.server_version));
        }
        if let Some(otherwise) = step.must_hold
            && error.sqlstate() == sqlstate::DIVISION_BY_ZERO
        {
            if otherwise == STALE {
                return RunError::Stale;
            }
            return RunError::Report(Report::error(sqlstate::SERIALIZATION_FAILURE, otherwise).hint("Try again."));
        }
        let offset = self.offset;
        let frame = error.with_position(|position| {
            if step.own {
                return None;
            }
            let mapped = match step.inserted {
                // PostgreSQL counts characters, from 1.
                Some(inserted) => {
                    let before = step.sql.get(..inserted.at)?.chars().count();
                    let behind = (position + inserted.instead_of).saturating_sub(inserted.len);
                    if position <= before { position } else { behind.max(1) }
                }
                None => position,
            };
            Some(mapped + offset)
        });
        RunError::Server(ServerError::new(frame))
    }

    /// What ends a run from outside, looked at between two statements.
    pub fn interrupted(&self) -> Option<RunError> {
        if self.channel.client_gone() {
            return Some(RunError::ClientGone);
        }
        self.channel.take_cancelled().then(|| {
            RunError::Report(Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request"))
        })
    }
}

/// The error of what has a name of the proxy's, with its author's.
fn with_name(error: &ServerError, renamed: &Renamed) -> ServerError {
    let told = |code: u8| Some((code, error.field(code)?.replace(&renamed.from, &renamed.to)));
    let fields: Vec<(u8, String)> = b"MDHWn".iter().filter_map(|code| told(*code)).collect();
    let fields: Vec<(u8, &str)> = fields.iter().map(|(code, text)| (*code, text.as_str())).collect();
    ServerError::new(error.restated(&fields, b""))
}

/// The violation of a check that stands for NOT NULL, as SET NOT NULL would have told it. The relation is the one
/// that the server found it in: a child, maybe. Its name is in the client's encoding.
fn contains_nulls(error: &ServerError, column: &str, version: i32) -> ServerError {
    let relation = error.bytes_of(b't').unwrap_or_default();
    // Before 13 without the relation's name.
    let relation = if version < 130_000 { Vec::new() } else { [b" of relation \"", relation, b"\""].concat() };
    let column = column.as_bytes();
    let message = [b"column \"", column, b"\"", &relation, b" contains null values"].concat();
    let fields = [(b'C', sqlstate::NOT_NULL_VIOLATION.as_bytes()), (b'M', message.as_slice()), (b'c', column)];
    ServerError::new(error.restated(&fields, b"nDHP"))
}

/// The violation of a check that stands for a partition's bounds, as ATTACH PARTITION would have told it.
fn outside_bounds(error: &ServerError, of: BoundsOf, version: i32) -> ServerError {
    let relation = error.bytes_of(b't').unwrap_or_default();
    let (before, behind): (&str, &str) = match (of, version < 130_000) {
        (BoundsOf::Partition, true) => ("partition constraint is violated by some row", ""),
        (BoundsOf::Partition, false) => ("partition constraint of relation \"", "\" is violated by some row"),
        (BoundsOf::Default, true) => {
            ("updated partition constraint for default partition would be violated by some row", "")
        }
        (BoundsOf::Default, false) | (BoundsOf::DefaultBesideNew, _) => {
            ("updated partition constraint for default partition \"", "\" would be violated by some row")
        }
    };
    let relation = if behind.is_empty() { &[] } else { relation };
    let message = [before.as_bytes(), relation, behind.as_bytes()].concat();
    // Before 13 without the relation's name.
    let dropped: &[u8] = if version < 130_000 { b"nDHPst" } else { b"nDHP" };
    ServerError::new(error.restated(&[(b'M', message)], dropped))
}
