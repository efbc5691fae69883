//! The errors that clients get from the gate.
//!
//! It owns nothing. It keeps true: an error names the rule and why it matches, and the operator's own words come first.

use super::condition::{self, ConditionAnswer, SeenCondition};
use super::{Decision, Rule, Verdict};
use crate::config::Window;
use crate::pg::sqlstate;
use crate::report::Report;

/// The error of a statement that a rule refuses.
pub fn refused(decision: &Decision, tag: &str) -> Report {
    error(decision, &format!("{} is refused", subject(tag)), None, "Ask those who operate this database.")
}

/// The error of a statement that is outside its window. `seen`: what the server has said to conditions. `more`: why the statement does not wait.
pub fn closed(decision: &Decision, tag: &str, seen: &[SeenCondition], more: Option<&str>) -> Report {
    let tag = subject(tag);
    let message = match window(decision) {
        Some(window) => format!("{tag} is allowed only in the window \"{}\"", window.name),
        None => format!("{tag} is allowed only in a window"),
    };
    let more = [when(decision, seen), more.map(str::to_owned)].into_iter().flatten().collect::<Vec<_>>().join(" ");
    error(
        decision,
        &message,
        Some(more).filter(|more| !more.is_empty()),
        "Send the statement again when the window is open.",
    )
}

/// Why a statement waits for its window: sentences.
pub fn closed_because(decision: &Decision, seen: &[SeenCondition]) -> String {
    [Some(why(decision)), when(decision, seen)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What a statement does that is outside its window: `waits for the window "night"`.
pub fn waits(decision: &Decision) -> String {
    match window(decision) {
        Some(window) => format!("waits for the window \"{}\"", window.name),
        None => "waits for a window".to_owned(),
    }
}

/// When the window opens, or what it depends on: a sentence.
fn when(decision: &Decision, seen: &[SeenCondition]) -> Option<String> {
    let (window, Verdict::Closed { opens, by_condition }) = (window(decision)?, decision.verdict) else { return None };
    Some(match (opens, condition::answer(window, seen)) {
        (Some(opens), _) => format!("The window ({window}) opens at {}.", window.clock(opens)),
        (None, _) if !by_condition => format!("The window ({window}) does not open within three weeks."),
        (None, Some(ConditionAnswer::Failed(message))) => {
            format!("The condition of the window ({window}) fails: {message}.")
        }
        (None, Some(_)) => format!("The condition of the window ({window}) is not true."),
        (None, None) => format!("Whether the condition of the window ({window}) is true is not known."),
    })
}

fn window(decision: &Decision) -> Option<&Window> {
    decision.rule.as_deref().and_then(Rule::window)
}

/// The error of a statement that is held, if it cannot wait.
pub fn held(decision: &Decision, tag: &str) -> Report {
    error(decision, &format!("{} is held", subject(tag)), None, "Ask those who operate this database.")
}

/// The error of a statement that is held and waits no longer. `ticket`: what programs read. `number`: of the change. `more`: why it does not wait.
pub fn ticket(decision: &Decision, tag: &str, ticket: &str, number: u64, more: Option<&str>) -> Report {
    let mut report = error(decision, &format!("{} is held", subject(tag)), more.map(str::to_owned), "");
    let hint = format!(
        "APPROVE {number} on the console of pgsluice (psql, database pgsluice) lets it run once. Then send the same statement again."
    );
    let own = report.hint.take().filter(|own| !own.is_empty());
    report.hint = Some(match own {
        Some(own) => format!("{own} {hint}"),
        None => hint,
    });
    let why = report.detail.take().unwrap_or_default();
    report.detail(format!("{ticket} {why}"))
}

/// The error of a statement that is held while the ledger cannot be asked who has approved it.
pub fn lost(decision: &Decision, tag: &str) -> Report {
    let more = "The ledger of pgsluice cannot be reached, so that nobody can approve it.".to_owned();
    let hint =
        "Send the statement again when the ledger is back. SHOW STATE on the console of pgsluice says how it does.";
    error(decision, &format!("{} is held", subject(tag)), Some(more), hint)
}

/// What a statement is called that may have no tag, as a DO.
pub fn subject(tag: &str) -> &str {
    if tag.is_empty() { "this statement" } else { tag }
}

/// Which rule has decided, and why: a sentence.
pub fn why(decision: &Decision) -> String {
    let name = decision.rule.as_deref().map(Rule::name).unwrap_or_default();
    match decision.because.as_slice() {
        [] => format!("Rule \"{name}\" is about every schema change."),
        because => format!("Rule \"{name}\" matches: {}.", because.join(", ")),
    }
}

fn error(decision: &Decision, message: &str, more: Option<String>, hint: &str) -> Report {
    let settings = decision.rule.as_deref().map(Rule::settings);
    let message = settings.and_then(|rule| rule.message.as_deref()).unwrap_or(message);
    let hint = settings.and_then(|rule| rule.hint.as_deref()).unwrap_or(hint);
    let detail = [Some(why(decision)), more].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message).detail(detail).hint(hint)
}
