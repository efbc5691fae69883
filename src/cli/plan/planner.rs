//! The plans of the statements of a text, one after the other.
//!
//! [`Planner`] owns what the text has made so far, and the transaction that is open. With a backend, a plan is made from the backend's facts, as
//! the proxy makes it. Without a backend, a plan is made from supposed facts: those of a large table in use. The text is not run, so a table or a
//! column that an earlier statement makes is supposed to be there for a later statement, and the table is empty.
//!
//! It keeps true: a statement in a transaction gets the place that the proxy would give it ([`BlockPlace`]). If it goes ahead of the transaction,
//! its plan is the one that can be undone.

use super::super::backend::Backend;
use super::super::failure::Failure;
use super::gate::{PlannedGate, PlannedVerdict};
use super::transaction::{Entry, FileTransaction, makes_column, makes_relation};
use crate::catalog::Facts;
use crate::catalog::query::relations_of;
use crate::catalog::supposed::{self, SupposedSize};
use crate::config::Config;
use crate::plan::ahead::NotAhead;
use crate::plan::block_place::{BlockPlace, EarlierStatement};
use crate::plan::{Limits, Plan, Refusal, hoist, plan};
use crate::sql::{Class, Effect, EffectKind, ParseOptions, Statement, TransactionControl, effects};
use serde::Serialize;

/// A statement and its plan or refusal.
#[derive(Debug, Serialize)]
pub(super) struct Planned {
    /// The line of the text on which the statement starts, from 1.
    pub(super) line: usize,
    pub(super) statement: String,
    /// What the rules of the gate say of the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gate: Option<PlannedVerdict>,
    /// Where the statement is run, if it is a schema change in a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<BlockPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<Refusal>,
}

/// Plans the statements of a text in their order.
pub(super) struct Planner {
    backend: Option<Backend>,
    gate: Option<PlannedGate>,
    /// The statements of earlier transactions that make relations or columns.
    done: Vec<Statement>,
    transaction: Option<FileTransaction>,
    /// A transaction is always open, since the whole text is one.
    whole: bool,
    planned: Vec<Planned>,
}

/// A plan ahead of the transaction.
struct AheadPlan {
    plan: Plan,
    /// The places of the earlier statements that go ahead too, and their plans.
    with: Vec<(usize, Plan)>,
}

fn limits() -> Limits {
    let ddl = Config::default().ddl;
    Limits { small_table: ddl.small_table, rewrite: true, refuse_unsafe: false, refuse_exclude: false }
}

impl Planner {
    /// `whole`: the text is one transaction.
    pub(super) fn new(backend: Option<Backend>, gate: Option<PlannedGate>, whole: bool) -> Self {
        let transaction = whole.then(FileTransaction::default);
        Self { backend, gate, done: Vec::new(), transaction, whole, planned: Vec::new() }
    }

    /// The statements that were planned.
    pub(super) fn planned(self) -> Vec<Planned> {
        self.planned
    }

    /// Plans the next statement. `line`: where it starts.
    pub(super) fn add(&mut self, line: usize, statement: Statement, effect: Effect) -> Result<(), Failure> {
        let mut subject = match &statement.class {
            Class::ExplainDdl(inner) => (**inner).clone(),
            _ => statement.clone(),
        };
        subject.gated = self.gate.as_ref().is_some_and(|gate| gate.rules.may_concern(&subject));
        let facts = self.facts(&subject)?;
        let inside = self.transaction.as_ref().map(|transaction| transaction.facts_inside(&facts));
        let planned_with = |limits: &Limits| match plan(&subject, inside.as_ref().unwrap_or(&facts), limits) {
            Ok(plan) => (Some(plan), None),
            Err(refusal) => (None, Some(refusal)),
        };
        let (mut plan, mut refusal) = planned_with(&limits());
        let asked = self.gate.as_ref().zip(plan.as_ref());
        let gate = asked.and_then(|(gate, plan)| gate.ask(&subject, &facts, plan, self.transaction.is_some()));
        let guarded = gate.as_ref().is_some_and(PlannedVerdict::is_guard);
        if guarded {
            (plan, refusal) = planned_with(&Limits { rewrite: false, ..limits() });
        }
        let mut planned = Planned { line, statement: statement.text.clone(), gate, place: None, plan, refusal };
        if self.transaction.is_some() && !guarded {
            self.place(&subject, &facts, &mut planned, effect.kind == EffectKind::Ddl)?;
        }
        self.planned.push(planned);
        self.follow(statement, effect, facts)
    }

    /// The facts of a statement outside any transaction.
    fn facts(&self, statement: &Statement) -> Result<Facts, Failure> {
        let mut facts = match &self.backend {
            Some(backend) if !relations_of(statement).is_empty() => backend.facts(statement, &limits())?,
            Some(_) | None => supposed::facts(statement, SupposedSize::Large),
        };
        let earlier = || {
            let open = self.transaction.iter().flat_map(FileTransaction::statements);
            self.done.iter().chain(open)
        };
        for asked in &mut facts.relations {
            let supposed = self.backend.is_none() || asked.found.is_none();
            let made = supposed && earlier().any(|earlier| makes_relation(earlier, &asked.name));
            if made {
                asked.found = Some(supposed::empty_table(&asked.name, false));
            }
            let (Some(found), Some(ddl)) = (&mut asked.found, statement.ddl()) else { continue };
            if !ddl.targets.contains(&asked.name) {
                continue;
            }
            for column in supposed::columns(ddl) {
                let added = || earlier().any(|earlier| makes_column(earlier, &asked.name, &column.name));
                if found.column(&column.name).is_none() && (made || added()) {
                    found.columns.push(column);
                }
            }
        }
        Ok(facts)
    }

    /// Gives a schema change in a transaction its place. `runs`: it is not only explained.
    fn place(
        &mut self,
        statement: &Statement,
        facts: &Facts,
        planned: &mut Planned,
        runs: bool,
    ) -> Result<(), Failure> {
        let Some(plan) = planned.plan.as_ref().filter(|plan| plan.answer.is_none()) else { return Ok(()) };
        if !plan.warns() {
            planned.place = (!plan.forms.is_empty()).then_some(BlockPlace::Inside);
            return Ok(());
        }
        match self.ahead(statement, facts)? {
            Err(why) => planned.place = Some(BlockPlace::NotAhead(why)),
            Ok(AheadPlan { plan, with }) => {
                let places: Vec<usize> = with.iter().map(|(place, _)| *place).collect();
                planned.plan = Some(plan);
                planned.place = Some(BlockPlace::Ahead { with: self.go_ahead(with, planned.line, runs) });
                if let Some(transaction) = self.transaction.as_mut().filter(|_| runs) {
                    transaction.go_ahead(&places);
                }
            }
        }
        Ok(())
    }

    /// Names the earlier statements that go ahead with the one of this line. `runs`: they do so, and have other plans from now on.
    fn go_ahead(&mut self, with: Vec<(usize, Plan)>, line: usize, runs: bool) -> Vec<EarlierStatement> {
        let mut named = Vec::with_capacity(with.len());
        for (place, plan) in with {
            let Some(nth) =
                self.transaction.as_ref().and_then(|transaction| transaction.entry(place)).map(|entry| entry.nth)
            else {
                continue;
            };
            let Some(earlier) = self.planned.get_mut(nth) else { continue };
            named.push(EarlierStatement { at: format!("line {}", earlier.line), statement: earlier.statement.clone() });
            if runs {
                earlier.place = Some(BlockPlace::AheadWith { at: format!("line {line}") });
                earlier.plan = Some(plan);
            }
        }
        named
    }

    /// The plan of a statement ahead of the transaction that is open, or why it cannot go ahead.
    fn ahead(&self, statement: &Statement, facts: &Facts) -> Result<Result<AheadPlan, NotAhead>, Failure> {
        let Some(transaction) = &self.transaction else { return Ok(Err(FileTransaction::unknown())) };
        let effect = effects(&statement.text, ParseOptions::default()).ok().and_then(|mut all| all.pop());
        let touches = match (&self.backend, effect) {
            (Some(backend), Some((_, effect))) => backend.touched(&effect.relations)?,
            _ => Vec::new(),
        };
        let with = match transaction.with(statement, &touches.into_iter().flatten().collect()) {
            Ok(with) => with,
            Err(why) => return Ok(Err(why)),
        };
        let earlier: Result<Vec<_>, NotAhead> = with
            .into_iter()
            .filter_map(|place| Some((place, transaction.entry(place)?)))
            .map(|(place, entry)| Ok((place, undoable_plan(&entry.statement, &entry.facts)?)))
            .collect();
        Ok(earlier.and_then(|with| Ok(AheadPlan { plan: undoable_plan(statement, facts)?, with })))
    }

    /// Takes over the effects of the statement for those that follow.
    fn follow(&mut self, statement: Statement, effect: Effect, facts: Facts) -> Result<(), Failure> {
        let control = if let Class::Transaction(control) = statement.class { Some(control) } else { None };
        match control {
            Some(TransactionControl::Begin) => {
                self.transaction.get_or_insert_default();
            }
            Some(TransactionControl::Commit { chain }) => return self.end(true, chain),
            Some(TransactionControl::Rollback { chain }) => return self.end(false, chain),
            Some(TransactionControl::Prepare) => return self.end(true, false),
            Some(TransactionControl::Savepoint) | None => {}
        }
        let (touches, volatile) = match &self.backend {
            Some(backend) if self.transaction.is_some() => {
                let touches = backend.touched(&effect.relations)?;
                (touches.into_iter().flatten().collect(), backend.any_volatile(&effect.functions)?)
            }
            // Without a server, a function that is not PostgreSQL's own may do anything.
            Some(_) | None => (Default::default(), !effect.functions.is_empty()),
        };
        match &mut self.transaction {
            Some(transaction) => {
                let nth = self.planned.len().saturating_sub(1);
                let planned = self.planned.get(nth).filter(|_| effect.kind == EffectKind::Ddl);
                let ahead = planned.is_some_and(|planned| matches!(planned.place, Some(BlockPlace::Ahead { .. })));
                let phases =
                    planned.and_then(|planned| planned.plan.as_ref()).into_iter().flat_map(|plan| &plan.phases);
                let locks =
                    phases.flat_map(|phase| &phase.locks).map(|need| (need.relation.clone(), need.mode)).collect();
                transaction.add(Entry { statement, effect, facts, touches, volatile, ahead, locks, nth });
            }
            None => self.done.push(statement),
        }
        Ok(())
    }

    fn end(&mut self, commits: bool, chain: bool) -> Result<(), Failure> {
        let ended = self.transaction.take();
        if commits {
            self.done.extend(ended.into_iter().flat_map(FileTransaction::into_statements));
        }
        self.transaction =
            if chain { Some(FileTransaction::chained()) } else { self.whole.then(FileTransaction::default) };
        Ok(())
    }
}

/// The plan of a statement ahead of its transaction, with an undo for all that it makes.
fn undoable_plan(statement: &Statement, facts: &Facts) -> Result<Plan, NotAhead> {
    let plan = plan(statement, facts, &limits()).map_err(|refusal| NotAhead {
        detail: format!("That would fail with {}.", refusal.report.message),
        hint: refusal.report.hint.unwrap_or_default(),
    })?;
    hoist::with_full_undo(plan, statement, facts).map_err(|why| NotAhead::cannot_be_undone(&why))
}
