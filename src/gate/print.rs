//! Decisions and rules as text: for `pgsluice plan`, for EXPLAIN, and for `pgsluice check-config`.
//!
//! It owns nothing. It keeps true: without rules there is nothing to print, so a plan looks as it does without a gate.

use super::{Decision, Rule, Rules, Verdict};
use crate::config::{Config, Fallback, Mode, format_time};
use crate::plan::print::labelled;
use std::fmt::Write;

/// The decision as lines above a plan.
///
/// ```text
/// gate     refuse, by rule "no drops by day"
///          it destroys data, the window "day" is open
/// ```
pub fn decision(decision: &Decision) -> String {
    let Some(rule) = decision.rule.as_deref() else { return labelled("gate", "allow: no rule matches") };
    let mut out = labelled("gate", &format!("{}, by rule \"{}\"", rule.verdict(), rule.name()));
    if !decision.because.is_empty() {
        out += &labelled("", &decision.because.join(", "));
    }
    for limit in limits(rule) {
        out += &labelled("", &format!("with {limit}"));
    }
    if let Some(window) = rule.window() {
        let name = &window.name;
        out += &labelled(
            "",
            &match decision.verdict {
                Verdict::Closed { opens: Some(opens), .. } => {
                    format!("the window \"{name}\" is closed, and opens at {}", window.clock(opens))
                }
                Verdict::Closed { by_condition: true, .. } => {
                    format!("the hours of the window \"{name}\" are open, and its condition is not known to be true")
                }
                Verdict::Closed { .. } => format!("the window \"{name}\" is closed"),
                _ => format!("the window \"{name}\" is open"),
            },
        );
    }
    out
}

/// The keys by which a rule matches; none if it matches every schema change.
pub fn conditions(rule: &Rule) -> Vec<&str> {
    rule.settings().lines.keys().filter_map(|key| key.strip_prefix("match.")).collect()
}

/// The limits of a rule that apply, as they are written.
pub fn limits(rule: &Rule) -> Vec<String> {
    let settings = rule.settings();
    let (limits, hold) = (&settings.limits, &settings.hold);
    let times =
        [("stall_budget", limits.stall_budget), ("hold_budget", limits.hold_budget), ("deadline", limits.deadline)];
    let times = times.into_iter().filter_map(|(key, time)| Some(format!("{key} = {}", format_time(time?))));
    let hold_times = [("expires", hold.expires), ("wait_for", hold.wait_for)].into_iter();
    let hold_times = hold_times.filter_map(|(key, time)| Some(format!("{key} = {}", format_time(time?))));
    times
        .chain(limits.in_transaction.map(|word| format!("in_transaction = {word}")))
        .chain(limits.on_disconnect.map(|word| format!("on_disconnect = {word}")))
        .chain(settings.blockers.policy.map(|word| format!("blockers = {word}")))
        .chain(settings.blockers.after.map(|time| format!("blockers_after = {}", format_time(time))))
        .chain(hold.approvers.map(|count| format!("approvers = {count}")))
        .chain(hold_times)
        .chain(hold.gate.map(|place| format!("gate = {place}")))
        .collect()
}

/// The texts that go to the server although rules may be about them: the setting, its value, and the texts.
fn unasked(config: &Config) -> impl Iterator<Item = (&'static str, Fallback, &'static str)> {
    let ddl = &config.ddl;
    let settings = [
        ("unparsable", ddl.unparsable, "texts that cannot be parsed"),
        ("oversize", ddl.oversize, "texts that are too large to be inspected"),
    ];
    settings.into_iter().filter(|(_, value, _)| *value == Fallback::Relay)
}

/// All rules and windows, for `pgsluice check-config`.
pub fn summary(config: &Config, rules: &Rules) -> String {
    let mut out = String::new();
    if rules.is_empty() {
        out.push_str("no rules: every schema change is allowed\n");
    }
    for (at, rule) in rules.iter().enumerate() {
        let _ = writeln!(out, "rule {}   {} \"{}\"", at + 1, rule.verdict(), rule.name());
        match conditions(rule).as_slice() {
            [] => out.push_str("         matches every schema change\n"),
            keys => {
                let _ = writeln!(out, "         matches by {}", keys.join(", "));
            }
        }
        for limit in limits(rule) {
            let _ = writeln!(out, "         with {limit}");
        }
        if let Some(window) = rule.window() {
            let _ = writeln!(out, "         only in the window \"{}\"", window.name);
        }
    }
    if !rules.is_empty() {
        out.push_str("         what no rule matches is allowed\n");
        if matches!(config.proxy.mode, Mode::Relay | Mode::Observe) {
            let _ = writeln!(out, "         no rule is asked, because the mode is \"{}\"", config.proxy.mode);
        }
        for (key, value, texts) in unasked(config) {
            let _ = writeln!(out, "         {texts} pass unasked, because {key} is \"{value}\"");
        }
    }
    for window in &config.gate.windows {
        let _ = writeln!(out, "window   \"{}\": {window}", window.name);
    }
    out
}
