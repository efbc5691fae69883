//! SHOW RULES, WINDOWS and HOLDS: the rules of the gate as they are now, and what operators hold by hand.
//!
//! It owns nothing. It keeps true: the rows are those of the rules that the next statement is asked about.

use crate::console::host::Host;
use crate::console::table::Value;
use crate::gate::{Rule, print};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn rules(host: &dyn Host) -> Vec<Vec<Value>> {
    let row = |(at, rule): (usize, &Rule)| {
        let (matches, limits) = (print::conditions(rule), print::limits(rule));
        vec![
            Value::number(at + 1),
            Value::text(rule.name()),
            Value::text(rule.verdict().as_str()),
            Value::text(if matches.is_empty() { "every schema change".to_owned() } else { matches.join(", ") }),
            Value::text(limits.join(", ")),
            Value::maybe(rule.window().map(|window| window.name.as_str())),
            rule.settings().line("rule").filter(|line| *line > 0).map_or(Value::Null, Value::number),
        ]
    };
    host.rules().iter().enumerate().map(row).collect()
}

pub(super) fn holds(host: &dyn Host) -> Vec<Vec<Value>> {
    let changes = host.holds().all(SystemTime::now());
    let row = |hold: crate::holds::ScopeHold| {
        let name = hold.scope.to_string();
        let waiting: usize = changes.iter().filter(|held| held.rule == name).map(|held| held.waiting).sum();
        vec![
            Value::Text(name),
            Value::Text(hold.by),
            Value::Text(hold.from),
            Value::Time(hold.since),
            Value::Text(hold.why),
            Value::number(waiting),
        ]
    };
    host.holds().scopes().into_iter().map(row).collect()
}

pub(super) fn windows(host: &dyn Host) -> Vec<Vec<Value>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let time = |seconds: i64| u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    let windows = &host.config().gate.windows;
    let rows = windows.iter().map(|window| {
        let is_open = window.is_open(now);
        let opens = window.next_opening(now).filter(|_| !is_open).and_then(time);
        vec![
            Value::text(&window.name),
            Value::text(window.to_string()),
            // The console has no connection to the server that could tell whether the condition is true.
            if is_open && window.condition.is_some() { Value::Null } else { Value::Boolean(is_open) },
            opens.map_or(Value::Null, Value::Time),
            Value::number(window.line),
        ]
    });
    rows.collect()
}
