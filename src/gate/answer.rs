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

/// What a statement is called that may have no tag, as a DO.
fn subject(tag: &str) -> &str {
    if tag.is_empty() { "this statement" } else { tag }
}

fn error(decision: &Decision, message: &str, more: Option<String>, hint: &str) -> Report {
    let settings = decision.rule.as_deref().map(Rule::settings);
    let message = settings.and_then(|rule| rule.message.as_deref()).unwrap_or(message);
    let hint = settings.and_then(|rule| rule.hint.as_deref()).unwrap_or(hint);
    let name = decision.rule.as_deref().map(Rule::name).unwrap_or_default();
    let why = match decision.because.as_slice() {
        [] => format!("Rule \"{name}\" is about every schema change."),
        because => format!("Rule \"{name}\" matches: {}.", because.join(", ")),
    };
    let detail = [Some(why), more].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message).detail(detail).hint(hint)
}
