//! The errors that clients get from the gate.
//!
//! It owns nothing. It keeps true: an error names the rule and why it matches, and the operator's own words come first.

use super::{Decision, Rule};
use crate::pg::sqlstate;
use crate::report::Report;

/// The error of a statement that a rule refuses.
pub fn refused(decision: &Decision, tag: &str) -> Report {
    error(decision, &format!("{} is refused", subject(tag)), None, "Ask those who operate this database.")
}

/// The error of a statement that is outside its window. `opens`: seconds since 1970.
pub fn closed(decision: &Decision, tag: &str, opens: Option<i64>) -> Report {
    let window = decision.rule.as_deref().and_then(Rule::window);
    let tag = subject(tag);
    let message = match window {
        Some(window) => format!("{tag} is allowed only in the window \"{}\"", window.name),
        None => format!("{tag} is allowed only in a window"),
    };
    let when = window.map(|window| match opens {
        Some(opens) => format!("The window ({window}) opens at {}.", window.clock(opens)),
        None => format!("The window ({window}) does not open within three weeks."),
    });
    error(decision, &message, when, "Send the statement again when the window is open.")
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
