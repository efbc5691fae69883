//! Who may hold a change that runs: operators, by its number or by what they hold more widely, and its rule before its last strong lock.
//!
//! [`RunHolder`] owns when its client has heard of it last. It keeps true: what operators have held before the gate was asked does not hold the
//! run, since the gate has decided about that.

use super::context::{Place, StatementContext};
use super::cut_over::CutOver;
use super::gate;
use super::log::ChangeLog;
use crate::catalog::Facts;
use crate::execute::RunError;
use crate::execute::hold::{HoldEnd, HoldSource, HoldStep, Looking, Point};
use crate::gate::{Rules, Subject, Verdict, answer};
use crate::holds::Passage;
use crate::logging::AUDIT;
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::registry::ChangeEntry;
use crate::report::Report;
use crate::sql::Statement;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The client hears at least this often that its statement is held.
const NOTICES: Duration = Duration::from_secs(30);
/// A nap takes a twentieth of the time held so far, within these bounds, as before the run.
const SHARE: u32 = 20;
const SHORTEST_NAP: Duration = Duration::from_millis(50);
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// Those who may hold one run.
pub(super) struct RunHolder<'s> {
    log: &'s ChangeLog,
    entry: Arc<ChangeEntry>,
    statement: &'s Statement,
    facts: &'s Facts,
    plan: &'s Plan,
    asked_at: SystemTime,
    told: Option<Instant>,
    cut_over: Option<CutOver<'s>>,
}

impl fmt::Debug for RunHolder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunHolder").field("change", &self.entry.number).finish_non_exhaustive()
    }
}

impl<'r> RunHolder<'r> {
    /// The holder of a run. `None`: nothing is run but a wait for locks. `begins`: the plan begins with its first phase.
    ///
    /// # Errors
    /// The statement was rejected before, the backend is lost, or a question failed.
    pub(super) async fn new<'s: 'r>(
        context: &mut StatementContext<'s>,
        facts: &'r Facts,
        plan: &'r Plan,
        begins: bool,
    ) -> Result<Option<Self>, RunError> {
        if matches!(context.place(), Place::LocksAlone) {
            return Ok(None);
        }
        let Some(entry) = context.channel.change().map(Arc::clone) else { return Ok(None) };
        let cut_over = CutOver::of(context, facts, plan, begins).await?;
        let (log, statement, asked_at) = (context.log, context.statement, context.asked_at());
        Ok(Some(Self { log, entry, statement, facts, plan, asked_at, told: None, cut_over }))
    }

    /// The approval that the run has got.
    pub(super) fn into_passage(self) -> Option<Passage> {
        self.cut_over.and_then(CutOver::into_passage)
    }

    /// Which operator holds the run now, in words.
    fn held_by_operator(&self) -> Option<String> {
        let orders = self.entry.steering.orders();
        if let Some(hold) = orders.hold {
            return Some(hold.to_string());
        }
        let since = orders.released.map_or(self.asked_at, |released| released.max(self.asked_at));
        let scopes = self.log.shared().holds().scopes();
        let newer = scopes.iter().filter(|scope| scope.seen > since);
        let mut about = newer.filter(|scope| scope.scope.rule().is_some_and(|rule| self.is_about(&rule)));
        about.next().map(|scope| {
            let why = if scope.why.is_empty() { String::new() } else { format!(": {}", scope.why) };
            format!("held by {}, by {}{why}", scope.scope, scope.by)
        })
    }

    fn is_about(&self, rule: &crate::config::RuleSettings) -> bool {
        let subject = Subject::planned(self.statement, self.facts, self.plan);
        let rules = Rules::default().with_holds(std::slice::from_ref(rule));
        rules.decide(&subject, &gate::session(self.log, false)).verdict == Verdict::Hold
    }

    /// Whether the client is to hear of the hold now.
    fn tells(&mut self) -> bool {
        let interval = NOTICES.min(self.log.shared().config.ddl.progress_interval);
        let tells = self.told.is_none_or(|at| at.elapsed() >= interval);
        if tells {
            self.told = Some(Instant::now());
        }
        tells
    }

    /// The NOTICE that an operator holds the run.
    fn notice(&self, point: Point, why: &str) -> Report {
        let number = self.entry.known_as();
        let place = match point {
            Point::Phase(at) => format!("before phase {} of {}", at + 1, self.plan.phases.len()),
            Point::Batch => "between two batches of its backfill".to_owned(),
        };
        let message = format!("{} is {why}", answer::subject(&self.plan.tag));
        let detail = format!("It waits {place}, without locks.");
        let hint = format!("On the console of pgsluice: RELEASE {number} lets it go on, CANCEL {number} undoes it.");
        Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message).detail(detail).hint(hint)
    }

    async fn step(&mut self, point: Point, held: Duration) -> HoldStep {
        let time = (held / SHARE).clamp(SHORTEST_NAP, LONGEST_NAP);
        if let Some(why) = self.held_by_operator() {
            self.stops(Some(why.clone()));
            let notice = self.tells().then(|| self.notice(point, &why));
            return HoldStep::Nap { time, words: format!("change {} is {why}", self.entry.known_as()), notice };
        }
        self.stops(None);
        if !self.cut_over.as_ref().is_some_and(|cut_over| cut_over.is_at(point)) {
            return HoldStep::Go;
        }
        let tells = self.tells();
        match &mut self.cut_over {
            Some(cut_over) => cut_over.step(&self.entry, held, time, tells).await,
            None => HoldStep::Go,
        }
    }

    /// An operator's hold begins or ends.
    fn stops(&self, why: Option<String>) {
        let before = self.entry.steering.orders().stopped;
        if before == why {
            return;
        }
        let (change, statement) = (self.entry.known_as(), &self.entry.statement);
        match &why {
            Some(why) => tracing::warn!(target: AUDIT, change, why, %statement, "a schema change stops while it runs"),
            None => tracing::warn!(target: AUDIT, change, %statement, "a schema change is not stopped any more"),
        }
        self.entry.steering.stops(why);
    }
}

impl HoldSource for RunHolder<'_> {
    fn plan(&self) -> &Plan {
        self.plan
    }

    fn may_hold(&self, point: Point) -> bool {
        self.cut_over.as_ref().is_some_and(|cut_over| cut_over.is_at(point)) || self.held_by_operator().is_some()
    }

    fn look(&mut self, point: Point, held: Duration) -> Looking<'_> {
        Box::pin(self.step(point, held))
    }

    fn is_over(&mut self, end: HoldEnd) {
        self.told = None;
        self.stops(None);
        if end == HoldEnd::Cancelled {
            self.cut_over.iter_mut().for_each(CutOver::withdraw);
        }
    }
}
