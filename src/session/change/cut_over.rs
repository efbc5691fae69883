//! The second gate: a change waits for its approvals before the last phase that takes a strong lock (`gate = "cut-over"` or `"both"` of a rule).
//!
//! [`CutOver`] owns the approval under which the rest of the plan runs, and the wait for it. It keeps true: the last strong lock is not taken without
//! an approval for it, whatever was approved before. Somebody who has forced the change has forced all of it.

use super::context::StatementContext;
use super::gate;
use super::held::{self, WAIT_FOR};
use super::log::ChangeLog;
use crate::catalog::Facts;
use crate::config::format_time;
use crate::execute::RunError;
use crate::execute::hold::{HoldStep, Point};
use crate::gate::change::State;
use crate::gate::{Decision, answer, cut_over};
use crate::holds::{Held, HoldRequest, Joined, Passage, Waiting};
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::registry::ChangeEntry;
use crate::report::Report;
use crate::sql::Statement;
use std::time::{Duration, SystemTime};

/// The second gate of one run.
pub(super) struct CutOver<'s> {
    log: &'s ChangeLog,
    statement: &'s Statement,
    facts: &'s Facts,
    plan: &'s Plan,
    /// The client has sent the statement in a transaction.
    inside: bool,
    /// The plan begins with its first phase.
    begins: bool,
    at: usize,
    decision: Decision,
    request: HoldRequest,
    passage: Option<Passage>,
    waiting: Option<Waiting>,
    passed: bool,
}

impl<'r> CutOver<'r> {
    /// The second gate, if the statement has one. `begins`: the plan begins with its first phase.
    ///
    /// # Errors
    /// The statement was rejected before, the backend is lost, or a question failed.
    pub(super) async fn of<'s: 'r>(
        context: &mut StatementContext<'s>,
        facts: &'r Facts,
        plan: &'r Plan,
        begins: bool,
    ) -> Result<Option<Self>, RunError> {
        let Some((decision, at)) = context.take_cut_over().zip(cut_over::phase_of(plan)) else { return Ok(None) };
        let mut request = held::request_of(context, &decision, Some((facts, plan))).await?;
        request.cut_over = true;
        let rejected = context.log.shared().holds().rejected(&request.digest);
        if let Some(held) = rejected.filter(|_| begins) {
            return Err(RunError::Report(held.ended()));
        }
        let (log, statement, passage) = (context.log, context.statement, context.take_passage());
        let inside = gate::is_inside(context);
        let (waiting, passed) = (None, false);
        Ok(Some(Self { log, statement, facts, plan, inside, begins, at, decision, request, passage, waiting, passed }))
    }

    /// The approval under which the run is.
    pub(super) fn into_passage(self) -> Option<Passage> {
        self.passage
    }

    /// Whether the gate is to be asked here.
    pub(super) fn is_at(&self, point: Point) -> bool {
        !self.passed && point == Point::Phase(self.at)
    }

    /// What the run does next. `notice`: one is due. `nap`: the time until the next look.
    pub(super) async fn step(&mut self, entry: &ChangeEntry, held: Duration, nap: Duration, notice: bool) -> HoldStep {
        if self.waiting.is_none()
            && let Some(step) = self.join().await
        {
            return step;
        }
        let now = self.waiting.as_ref().and_then(|waiting| waiting.held().filter(|held| waiting.is_of(held)));
        let Some(now) = now else { return self.again(nap).await };
        entry.joins(now.number);
        match now.change.state() {
            State::Held | State::Running => {}
            State::Rejected | State::Cancelled => return HoldStep::End(now.ended()),
            State::Released => return self.passes(None),
            _ => return self.again(nap).await,
        }
        if !gate::still_holds(self.log, self.statement, self.inside, (self.facts, self.plan), (&self.decision, &[])) {
            self.log.shared().holds().release(now.number, SystemTime::now());
            return self.passes(None);
        }
        let limit = self.decision.rule.as_deref().and_then(|rule| rule.settings().hold.wait_for).unwrap_or(WAIT_FOR);
        let left = limit.saturating_sub(held);
        if !limit.is_zero() && left.is_zero() {
            return HoldStep::Leave(self.ticket(&now));
        }
        let time = if limit.is_zero() { nap } else { nap.min(left) };
        let words = format!(
            "change {} is held by rule \"{}\" before phase {} of {}, approvals {}",
            now.number,
            now.rule,
            self.at + 1,
            self.plan.phases.len(),
            now.approvals()
        );
        let notice = notice.then(|| self.notice(&now, (!limit.is_zero()).then_some(left)));
        HoldStep::Nap { time, words, notice }
    }

    /// Asks for the approval. `None`: it is to be waited for.
    async fn join(&mut self) -> Option<HoldStep> {
        let holds = self.log.shared().holds();
        if let Some(passage) = self.passage.take() {
            // What was left on record is continued under the approval for the last strong lock.
            if passage.is_forced() || (!self.begins && passage.is_of_cut_over()) {
                return Some(self.passes(Some(passage)));
            }
            self.waiting = holds.ask_again(passage).await;
            if self.waiting.is_some() {
                self.log.shared().metrics.ddl_held.add();
                return None;
            }
        }
        match holds.join(self.request.clone(), None).await {
            Ok(Joined::Go(passage)) => Some(self.passes(Some(passage))),
            Ok(Joined::Rejected(held)) => Some(HoldStep::End(held.ended())),
            Err(full) => Some(HoldStep::End(full)),
            // It is asked for again at the next look.
            Ok(Joined::Lost) => None,
            Ok(Joined::Wait(waiting)) => {
                self.log.shared().metrics.ddl_held.add();
                self.waiting = Some(waiting);
                None
            }
        }
    }

    fn passes(&mut self, passage: Option<Passage>) -> HoldStep {
        (self.passed, self.passage, self.waiting) = (true, passage, None);
        HoldStep::Go
    }

    /// The change was approved, or something else has happened to it: it is asked about again.
    async fn again(&mut self, nap: Duration) -> HoldStep {
        self.waiting = None;
        match self.join().await {
            Some(step) => step,
            None => {
                let words = "a schema change is held before its last strong lock".to_owned();
                HoldStep::Nap { time: nap, words, notice: None }
            }
        }
    }

    /// The client has cancelled the statement.
    pub(super) fn withdraw(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.log.shared().holds().withdraw(waiting.number(), SystemTime::now());
        }
    }

    fn notice(&self, held: &Held, left: Option<Duration>) -> Report {
        let number = held.number;
        let (tag, at) = (answer::subject(&self.plan.tag), self.at + 1);
        let message = format!("{tag} is held before phase {at} of {}: change {number}", self.plan.phases.len());
        let purpose = self.plan.phases.get(self.at).map(|phase| phase.purpose.as_str()).unwrap_or_default();
        let (why, approvals) = (answer::why(&self.decision), held.approvals());
        let detail = format!("{why} It has {approvals} approvals. The phase takes the last strong lock: {purpose}.");
        let seconds = left.map(|left| format_time(Duration::from_secs(left.as_secs())));
        let left = seconds.map(|left| format!(" The client waits for {left} more."));
        let hint = format!(
            "On the console of pgsluice: SHOW CHANGE {number}; APPROVE {number}; REJECT {number} REASON 'text' undoes it.{}",
            left.unwrap_or_default()
        );
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail).hint(hint)
    }

    fn ticket(&self, held: &Held) -> Report {
        let more = "What it has done stays, and the same statement continues it.";
        answer::ticket(&self.decision, &self.plan.tag, &held.ticket(), held.number, Some(more))
    }
}
