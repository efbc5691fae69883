//! A statement that a rule lets run only in a window.
//!
//! It owns nothing. It keeps true:
//!
//! - A statement that waits for its window has changed nothing, has no lane, and holds no lock that makes others wait. In a transaction that has such
//!   locks it does not wait.
//! - After the wait the statement is planned again, and the rules are asked again.

use super::conditions::look;
use super::context::StatementContext;
use super::held::{HeldOutcome, NOTICES, SHARE, WAIT_FOR, makes_others_wait};
use super::nap::nap;
use super::not_run::not_run;
use super::{gate, turn};
use crate::catalog::Facts;
use crate::config::format_time;
use crate::execute::RunError;
use crate::execute::turn::Turn;
use crate::gate::{Decision, Rule, Verdict, answer};
use crate::pg::sqlstate;
use crate::plan::Plan;
use crate::report::Report;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The shortest and the longest nap. A condition costs the server a question, so that it is not asked more often than once a second.
const SHORTEST_NAP: Duration = Duration::from_millis(50);
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
const LONGEST_NAP: Duration = Duration::from_secs(5);

/// Ends a statement that cannot wait for its window.
pub(super) async fn at_once(
    context: &mut StatementContext<'_>,
    decision: &Decision,
    tag: &str,
) -> Result<RunError, RunError> {
    let report = answer::closed(decision, tag, context.conditions(), None);
    not_run(context, report, decision).await
}

/// Waits until the window is open. If it surely does not open while the client would wait, the client gets the error at once.
///
/// # Errors
/// The window is closed. The client's transaction has failed.
pub(super) async fn wait(
    context: &mut StatementContext<'_>,
    decision: &Decision,
    (facts, plan): (&Facts, &Plan),
    turn: &mut Turn,
) -> Result<HeldOutcome, RunError> {
    let limit = decision.rule.as_deref().and_then(|rule| rule.settings().hold.wait_for).unwrap_or(WAIT_FOR);
    let limit = Some(limit).filter(|limit| !limit.is_zero());
    if !may_open_within(decision, limit) {
        return Err(at_once(context, decision, &plan.tag).await?);
    }
    if makes_others_wait(context, facts).await? {
        let why = "The transaction holds locks that make others wait, so that it does not wait itself.";
        let report = answer::closed(decision, &plan.tag, context.conditions(), Some(why));
        return Err(not_run(context, report, decision).await?);
    }
    turn::end(context, turn, Ok(())).await?;
    wait_for_window(context, decision.clone(), (facts, plan), limit).await
}

async fn wait_for_window(
    context: &mut StatementContext<'_>,
    mut decision: Decision,
    (facts, plan): (&Facts, &Plan),
    limit: Option<Duration>,
) -> Result<HeldOutcome, RunError> {
    let (begun, mut told) = (Instant::now(), None::<Instant>);
    let timeout = Some(Duration::from_millis(facts.session.statement_timeout_ms)).filter(|timeout| !timeout.is_zero());
    loop {
        let waited = begun.elapsed();
        if timeout.is_some_and(|timeout| waited >= timeout) {
            let report = Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
            return Err(not_run(context, report.detail(answer::why(&decision)), &decision).await?);
        }
        let left = limit.map(|limit| limit.saturating_sub(waited));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(at_once(context, &decision, &plan.tag).await?);
        }
        if told.is_none_or(|at| at.elapsed() >= NOTICES.min(context.config().ddl.progress_interval)) {
            told = Some(Instant::now());
            tell(context, &decision, (facts, plan), left);
        }
        let most = [left, timeout.map(|timeout| timeout.saturating_sub(waited)), until_opening(&decision)];
        let most = most.into_iter().flatten().min().unwrap_or(LONGEST_NAP).max(SHORTEST_NAP);
        let time = (waited / SHARE).clamp(shortest(&decision), LONGEST_NAP).min(most);
        nap(context, &answer::waits(&decision), time).await?;
        look(context, facts).await?;
        match gate::decide_again(context, facts, plan) {
            // RELOAD may have put another rule in its place.
            Some(now) if is_same(&now, &decision) => decision = now,
            _ => return Ok(HeldOutcome::PlanAgain),
        }
    }
}

/// Whether the same rule keeps the statement from running because of its window.
fn is_same(now: &Decision, before: &Decision) -> bool {
    matches!(now.verdict, Verdict::Closed { .. }) && gate::is_same_rule(now, before)
}

/// Whether the window may open in this time. Conditions may become true at any time.
fn may_open_within(decision: &Decision, limit: Option<Duration>) -> bool {
    let by_condition = matches!(decision.verdict, Verdict::Closed { by_condition: true, .. });
    by_condition || limit.is_none_or(|limit| until_opening(decision).is_some_and(|left| left <= limit))
}

/// The time until the hours of the window begin. `None`: they have begun, or it is not known when they do.
fn until_opening(decision: &Decision) -> Option<Duration> {
    let Verdict::Closed { opens: Some(opens), .. } = decision.verdict else { return None };
    let opens = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(opens).ok()?))?;
    Some(opens.duration_since(SystemTime::now()).unwrap_or_default())
}

fn shortest(decision: &Decision) -> Duration {
    let window = decision.rule.as_deref().and_then(Rule::window);
    let has_condition = window.is_some_and(|window| window.condition.is_some());
    if has_condition { BETWEEN_QUESTIONS } else { SHORTEST_NAP }
}

/// Tells the client that its statement waits.
fn tell(
    context: &mut StatementContext<'_>,
    decision: &Decision,
    (facts, plan): (&Facts, &Plan),
    left: Option<Duration>,
) {
    let message = format!("{} {}", answer::subject(&plan.tag), answer::waits(decision));
    let report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message);
    let report = report.detail(answer::closed_because(decision, context.conditions()));
    let report = match left {
        None => report,
        Some(left) => {
            let left = format_time(Duration::from_secs(left.as_secs()));
            report.hint(format!("The client waits for {left} more, and then gets an error."))
        }
    };
    if context.config().ddl.notices && !facts.session.hushed {
        context.channel.notify(&report);
    }
}
