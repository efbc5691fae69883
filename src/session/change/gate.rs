//! The gate as a stage of a statement: the operators' rules are asked, and their verdict is carried out.
//!
//! It owns nothing. It keeps true: a statement that rules may concern is not sent to the server before they have let it run. Without rules
//! nothing here costs anything but a look whether there are any. A rule is not asked about a statement that changes nothing, nor once more
//! when the transaction is run again behind a statement that was done ahead of it.

use super::context::{Asked, Place, StatementContext};
use super::log::ChangeLog;
use super::not_run::not_run;
use super::{batch, conditions};
use crate::backend::ServerChannel;
use crate::catalog::Facts;
use crate::config::{Config, GatePlace, HoldSettings, Mode, RuleLimits, RuleSettings};
use crate::execute::RunError;
use crate::gate::{Decision, Rule, Rules, SeenCondition, Session, Subject, Verdict, answer, cut_over, print};
use crate::plan::Plan;
use crate::sql::{Class, Statement};

/// What the gate says of a plan.
pub(super) enum GateOutcome {
    /// The plan may run.
    Run,
    /// A rule has changed the settings of the statement, so that it is planned again.
    PlanAgain,
    /// The statement is held by a rule, or waits for a window.
    Hold(Decision),
}

/// Whether the statement may be tried before any fact is known.
pub(super) fn lets_try(log: &ChangeLog, channel: &ServerChannel, statement: &Statement) -> bool {
    let (shared, inside) = (log.shared(), channel.status() != b'I');
    let mode = shared.config.proxy.mode;
    shared.rules_to_ask().is_none_or(|rules| rules.lets_try(statement, &session(log, inside), mode))
}

/// The statements, of the first of a run, that may be tried together before any fact is known.
pub(super) fn triable<'s>(log: &ChangeLog, channel: &ServerChannel, run: &'s [Statement]) -> &'s [Statement] {
    let shared = log.shared();
    let Some(rules) = shared.rules_to_ask() else { return run };
    let (mode, session) = (shared.config.proxy.mode, session(log, channel.status() != b'I'));
    let run = run.get(..batch::MOST).unwrap_or(run);
    let until = run.iter().position(|statement| !rules.lets_try(statement, &session, mode));
    until.and_then(|until| run.get(..until)).unwrap_or(run)
}

/// Asks the rules about a plan.
///
/// # Errors
/// A rule refuses the statement. The client's transaction has failed.
pub(super) async fn ask(
    context: &mut StatementContext<'_>,
    facts: &Facts,
    plan: &Plan,
) -> Result<GateOutcome, RunError> {
    context.asks_now();
    let rules = context.log.shared().rules_to_ask().filter(|_| plan.answer.is_none());
    let Some(rules) = rules else { return Ok(GateOutcome::Run) };
    conditions::look(context, facts).await?;
    let decision = decide(context, &rules, Some((facts, plan)));
    context.set_verdict(decision.verdict);
    if !was_let_run(context.place()) {
        if puts_off(context, &decision, (facts, plan)) {
            return Ok(if apply(context, &decision) { GateOutcome::PlanAgain } else { GateOutcome::Run });
        }
        return carry_out(context, decision, &plan.tag).await;
    }
    // The limits of its rule hold for it, whatever the verdict is now.
    let is_changed = apply(context, &decision);
    if decision.verdict == Verdict::Hold && matches!(context.place(), Place::InBlock(None)) {
        // What was approved is begun.
        return Ok(GateOutcome::Hold(decision));
    }
    Ok(if is_changed { GateOutcome::PlanAgain } else { GateOutcome::Run })
}

/// Whether a decision is put off: the statement begins without an approval, and is asked about before its last strong lock. In a transaction nothing is
/// put off, since the transaction would hold locks meanwhile.
fn puts_off(context: &mut StatementContext<'_>, decision: &Decision, (facts, plan): (&Facts, &Plan)) -> bool {
    let hold = decision.rule.as_deref().map(|rule| rule.settings().hold).unwrap_or_default();
    let second = matches!(hold.gate, Some(GatePlace::CutOver | GatePlace::Both)) && decision.verdict == Verdict::Hold;
    let second = second && !facts.session.in_transaction && cut_over::phase_of(plan).is_some();
    context.set_cut_over(second.then(|| decision.clone()));
    second && hold.gate == Some(GatePlace::CutOver)
}

/// Whether the gate has let the statement run already, so that it cannot be refused any more.
fn was_let_run(place: Place<'_>) -> bool {
    matches!(place, Place::InBlock(None) | Place::LocksAlone | Place::Ahead(Asked::Before))
}

/// Asks the rules about a statement of which nothing is known but its text, since the session may not ask for facts. Returns the decision of a rule
/// that holds it.
///
/// # Errors
/// A rule refuses the statement. The client's transaction has failed.
pub(super) async fn ask_by_text(context: &mut StatementContext<'_>) -> Result<Option<Decision>, RunError> {
    let Some(rules) = context.log.shared().rules_to_ask() else { return Ok(None) };
    if was_let_run(context.place()) {
        return Ok(None);
    }
    let decision = decide(context, &rules, None);
    context.set_verdict(decision.verdict);
    let tag = tag_of(context.statement);
    Ok(match carry_out(context, decision, tag).await? {
        GateOutcome::Run | GateOutcome::PlanAgain => None,
        GateOutcome::Hold(decision) if matches!(decision.verdict, Verdict::Closed { .. }) => {
            // The role may not be allowed to nap.
            let report = answer::closed(&decision, tag, context.conditions(), None);
            return Err(not_run(context, report, &decision).await?);
        }
        GateOutcome::Hold(decision) => Some(decision),
    })
}

/// Whether the rule that holds a statement is still the one that decides, as the rules and the time are now.
pub(super) fn holds_still(context: &StatementContext<'_>, facts: &Facts, plan: &Plan, before: &Decision) -> bool {
    let inside = is_inside(context);
    let known = (facts, plan);
    still_holds(context.log, context.statement, inside, known, (before, context.conditions()))
}

/// As [`holds_still`], for a statement that runs. `seen`: the decision before, and what the server has said last to the conditions of windows.
pub(super) fn still_holds(
    log: &ChangeLog,
    statement: &Statement,
    inside: bool,
    (facts, plan): (&Facts, &Plan),
    seen: (&Decision, &[SeenCondition]),
) -> bool {
    let Some(rules) = log.shared().rules_to_ask() else { return false };
    let session = Session { conditions: seen.1, ..session(log, inside) };
    let decision = rules.decide(&Subject::planned(statement, facts, plan), &session);
    decision.verdict == Verdict::Hold && is_same_rule(&decision, seen.0)
}

/// Whether the same rule has decided. Other lines of the file are no other rule.
pub(super) fn is_same_rule(now: &Decision, before: &Decision) -> bool {
    let rule = |decision: &Decision| decision.rule.as_deref().map(|rule| terms(rule.settings().clone()));
    rule(now) == rule(before)
}

/// What a statement that waits depends on in its rule.
fn terms(rule: RuleSettings) -> (String, HoldSettings, RuleLimits) {
    (rule.name, rule.hold, rule.limits)
}

/// The decision as lines for EXPLAIN. `None`: the statement is planned again, since a rule has changed its settings.
pub(super) fn explain(context: &mut StatementContext<'_>, facts: &Facts, plan: &Plan) -> Option<String> {
    let rules = context.log.shared().rules_to_ask().filter(|_| plan.answer.is_none());
    let Some(rules) = rules else { return Some(String::new()) };
    let decision = decide(context, &rules, Some((facts, plan)));
    match apply(context, &decision) {
        true => None,
        false => Some(print::decision(&decision)),
    }
}

/// The decision as lines for EXPLAIN, where nothing is known but the text of the statement.
pub(super) fn explain_by_text(context: &StatementContext<'_>) -> String {
    let rules = context.log.shared().rules_to_ask();
    rules.map(|rules| print::decision(&decide(context, &rules, None))).unwrap_or_default()
}

fn decide(context: &StatementContext<'_>, rules: &Rules, known: Option<(&Facts, &Plan)>) -> Decision {
    let inside = is_inside(context);
    let subject = match known {
        Some((facts, plan)) => Subject::planned(context.statement, facts, plan),
        None => Subject::of_text(context.statement),
    };
    rules.decide(&subject, &Session { conditions: context.conditions(), ..session(context.log, inside) })
}

/// What the rules say of a statement that waits, as the rules, the time and the conditions are now. `None`: there are no rules any more.
pub(super) fn decide_again(context: &StatementContext<'_>, facts: &Facts, plan: &Plan) -> Option<Decision> {
    let rules = context.log.shared().rules_to_ask()?;
    Some(decide(context, &rules, Some((facts, plan))))
}

/// Whether the client has sent the statement in a transaction.
pub(super) fn is_inside(context: &StatementContext<'_>) -> bool {
    matches!(context.place(), Place::Ahead(_) | Place::LocksAlone) || context.channel.status() != b'I'
}

/// The client's session, and the time.
pub(super) fn session(log: &ChangeLog, in_transaction: bool) -> Session<'_> {
    Session { in_transaction: Some(in_transaction), now: conditions::now(), ..log.as_session() }
}

async fn carry_out(context: &mut StatementContext<'_>, decision: Decision, tag: &str) -> Result<GateOutcome, RunError> {
    match decision.verdict {
        Verdict::Refuse => Err(not_run(context, answer::refused(&decision, tag), &decision).await?),
        Verdict::Hold | Verdict::Closed { .. } => {
            apply(context, &decision);
            Ok(GateOutcome::Hold(decision))
        }
        Verdict::Allow | Verdict::Plan | Verdict::Guard => match apply(context, &decision) {
            true => Ok(GateOutcome::PlanAgain),
            false => Ok(GateOutcome::Run),
        },
    }
}

/// Gives the statement the settings of the rule that has decided, once. `true`: other settings, with which it is to be planned again.
fn apply(context: &mut StatementContext<'_>, decision: &Decision) -> bool {
    let Some(rule) = decision.rule.as_deref().filter(|_| !context.has_own_config()) else { return false };
    let Some(config) = config_of(rule, decision.verdict, context.config()) else { return false };
    let before = context.limits();
    context.set_config(config);
    context.limits() != before
}

/// The settings that a rule changes. `None`: it changes none.
fn config_of(rule: &Rule, verdict: Verdict, config: &Config) -> Option<Config> {
    let mode = match verdict {
        Verdict::Plan => Mode::Plan,
        Verdict::Guard => Mode::Guard,
        _ => config.proxy.mode,
    };
    let (limits, blockers) = (&rule.settings().limits, &rule.settings().blockers);
    if mode == config.proxy.mode && *limits == Default::default() && *blockers == Default::default() {
        return None;
    }
    let mut own = config.clone();
    own.proxy.mode = mode;
    own.blockers = blockers.clone();
    own.ddl.in_transaction = limits.in_transaction.unwrap_or(own.ddl.in_transaction);
    own.ddl.on_disconnect = limits.on_disconnect.unwrap_or(own.ddl.on_disconnect);
    let locks = &mut own.locks;
    locks.stall_budget = limits.stall_budget.unwrap_or(locks.stall_budget);
    locks.hold_budget = limits.hold_budget.unwrap_or(locks.hold_budget);
    locks.deadline = limits.deadline.unwrap_or(locks.deadline);
    // No attempt waits for longer than the stall budget.
    locks.ladder_start = locks.ladder_start.min(locks.stall_budget);
    locks.fallback_timeout = locks.fallback_timeout.min(locks.stall_budget);
    Some(own)
}

/// The tag of a statement, if it is known.
pub(super) fn tag_of(statement: &Statement) -> &str {
    match &statement.class {
        Class::Ddl(ddl) => &ddl.tag,
        _ => "",
    }
}
