//! The keys of `[[rule]]` and `[[window]]`, and their reader.
//!
//! It owns nothing. It keeps true: a rule that is read has a name of its own, a verdict, and no key that its verdict makes useless. A window that
//! is read has a name of its own, and hours or a condition.

use super::Fault;
use super::keys::{Key, key, line_at, nearest, read_key};
use super::rules::{GateSettings, MatchSettings, RuleSettings};
use super::slot::{DAY, HOUR, MS, SECOND, Slot};
use super::window::{Hours, Window};
use super::words::VerdictWord;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The most rules, and the most windows. Every schema change is compared with each rule.
const MOST: usize = 1000;

/// The keys of a rule, in the order of the documentation.
fn rule_keys(rule: &mut RuleSettings) -> Vec<Key<'_>> {
    let RuleSettings { limits, hold, blockers, matches, .. } = rule;
    let mut keys = vec![
        key("rule", "verdict", Slot::Word(&mut rule.verdict)),
        key("rule", "message", Slot::Text(&mut rule.message)),
        key("rule", "hint", Slot::Text(&mut rule.hint)),
        key("rule", "window", Slot::Text(&mut rule.window)),
        key("rule", "stall_budget", Slot::OptionalTime(&mut limits.stall_budget, MS..=60 * SECOND)),
        key("rule", "hold_budget", Slot::OptionalTime(&mut limits.hold_budget, MS..=HOUR)),
        key("rule", "deadline", Slot::OptionalTime(&mut limits.deadline, MS..=30 * DAY)),
        key("rule", "in_transaction", Slot::Word(&mut limits.in_transaction)),
        key("rule", "on_disconnect", Slot::Word(&mut limits.on_disconnect)),
        key("rule", "approvers", Slot::OptionalCount(&mut hold.approvers, 1..=100)),
        key("rule", "expires", Slot::OptionalTime(&mut hold.expires, SECOND..=365 * DAY)),
        key("rule", "wait_for", Slot::OptionalTime(&mut hold.wait_for, Duration::ZERO..=30 * DAY)),
        key("rule", "gate", Slot::Word(&mut hold.gate)),
        key("rule", "blockers", Slot::Word(&mut blockers.policy)),
        key("rule", "blockers_after", Slot::OptionalTime(&mut blockers.after, Duration::ZERO..=DAY)),
        key("rule", "blockers_except", Slot::Globs(&mut blockers.except)),
    ];
    keys.extend(match_keys(matches));
    keys
}

fn match_keys(matches: &mut MatchSettings) -> Vec<Key<'_>> {
    const MOST_BYTES: u64 = 1 << 50;
    vec![
        key("rule.match", "form", Slot::Texts(&mut matches.form)),
        key("rule.match", "family", Slot::Texts(&mut matches.family)),
        key("rule.match", "cost", Slot::Texts(&mut matches.cost)),
        key("rule.match", "lock", Slot::Locks(&mut matches.lock)),
        key("rule.match", "destructive", Slot::OptionalFlag(&mut matches.destructive)),
        key("rule.match", "relation", Slot::Globs(&mut matches.relation)),
        key("rule.match", "schema", Slot::Globs(&mut matches.schema)),
        key("rule.match", "size_over", Slot::OptionalBytes(&mut matches.size_over, 0..=MOST_BYTES)),
        key("rule.match", "rows_over", Slot::OptionalCount(&mut matches.rows_over, 0..=1_000_000_000_000_000)),
        key("rule.match", "role", Slot::Globs(&mut matches.role)),
        key("rule.match", "database", Slot::Globs(&mut matches.database)),
        key("rule.match", "application_name", Slot::Globs(&mut matches.application_name)),
        key("rule.match", "client", Slot::Networks(&mut matches.client)),
        key("rule.match", "in_transaction", Slot::OptionalFlag(&mut matches.in_transaction)),
        key("rule.match", "in_window", Slot::Text(&mut matches.in_window)),
    ]
}

fn window_keys(window: &mut Window) -> Vec<Key<'_>> {
    vec![
        key("window", "hours", Slot::Hours(&mut window.hours)),
        key("window", "days", Slot::Days(&mut window.days)),
        key("window", "zone", Slot::Zone(&mut window.zone)),
        key("window", "condition", Slot::Text(&mut window.condition)),
    ]
}

/// Reads the rules and windows of `text`, and returns the errors. A text that is no TOML has none of these errors.
pub(super) fn read(text: &str, gate: &mut GateSettings) -> Vec<Fault> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let mut faults = Vec::new();
    for (name, value) in document.get_ref() {
        let list = name.get_ref().as_ref();
        if !matches!(list, "rule" | "window") {
            continue;
        }
        let line = line_at(text, &name.span());
        let tables = value.get_ref().as_array().filter(|all| all.iter().all(|one| one.get_ref().as_table().is_some()));
        let Some(tables) = tables else {
            faults.push(Fault::new(format!("{list} is not a list of tables; write [[{list}]]")).at(Some(line)));
            continue;
        };
        if tables.len() > MOST {
            faults.push(Fault::new(format!("there are more than {MOST} [[{list}]]")).at(Some(line)));
            continue;
        }
        for one in tables.iter() {
            let Some(table) = one.get_ref().as_table() else { continue };
            // An array of tables begins at its brackets.
            let line = line_at(text, &one.span());
            match list {
                "rule" => gate.rules.push(read_rule(text, table, line, &mut faults)),
                _ => gate.windows.push(read_window(text, table, line, &mut faults)),
            }
        }
    }
    check(gate, &mut faults);
    faults
}

fn read_rule(text: &str, table: &DeTable<'_>, line: usize, faults: &mut Vec<Fault>) -> RuleSettings {
    let mut rule = RuleSettings { name: read_name("rule", text, table, line, faults), ..RuleSettings::default() };
    let mut lines = std::collections::BTreeMap::from([("rule".to_owned(), line)]);
    for (name, value) in table {
        let (name, line) = (name.get_ref().as_ref(), line_at(text, &name.span()));
        match (name, value.get_ref()) {
            ("name", _) => {}
            ("match", DeValue::Table(conditions)) => {
                for (name, value) in conditions {
                    let (name, line) = (name.get_ref().as_ref(), line_at(text, &name.span()));
                    read_key(text, "rule.match", (name, line), value, &mut rule_keys(&mut rule), faults);
                    lines.insert(format!("match.{name}"), line);
                }
            }
            ("match", _) => {
                let allowed = "a table of conditions, such as { form = \"DROP TABLE\" }";
                faults.push(Fault::value("rule.match", Some(line), &text[value.span()], allowed));
            }
            _ if let Some(near) = nearest(name, ["match", "name"].into_iter()) => {
                let fault = Fault::new(format!("rule.{name}: unknown key")).hint(format!("Did you mean {near}?"));
                faults.push(fault.at(Some(line)));
            }
            _ => {
                read_key(text, "rule", (name, line), value, &mut rule_keys(&mut rule), faults);
            }
        }
        lines.insert(name.to_owned(), line);
    }
    rule.lines = lines;
    check_rule(&rule, faults);
    rule
}

fn read_window(text: &str, table: &DeTable<'_>, line: usize, faults: &mut Vec<Fault>) -> Window {
    let name = read_name("window", text, table, line, faults);
    let mut window = Window { name, line, ..Window::default() };
    let mut has_hours = false;
    for (name, value) in table {
        let (name, line) = (name.get_ref().as_ref(), line_at(text, &name.span()));
        has_hours |= name == "hours";
        if name != "name" {
            read_key(text, "window", (name, line), value, &mut window_keys(&mut window), faults);
        }
    }
    if window.condition.as_ref().is_some_and(|condition| condition.trim().is_empty()) {
        faults.push(Fault::new(format!("window \"{}\" has an empty condition", window.name)).at(Some(line)));
    }
    if !has_hours && window.condition.is_some() {
        // A condition alone is about every hour.
        window.hours.extend(Hours::new("00:00-24:00"));
    } else if !has_hours {
        let fault = Fault::new(format!("window \"{}\" has no hours", window.name)).at(Some(line));
        faults.push(fault.hint("Write hours = [\"22:00-06:00\"], or hours = [\"00:00-24:00\"] for whole days."));
    }
    window
}

/// The name of a rule or window. It stands in errors, logs and plans.
fn read_name(list: &str, text: &str, table: &DeTable<'_>, line: usize, faults: &mut Vec<Fault>) -> String {
    let named = table.iter().find(|(key, _)| key.get_ref() == "name");
    let Some((key, value)) = named else {
        faults.push(Fault::new(format!("a [[{list}]] has no name")).at(Some(line)));
        return String::new();
    };
    let name = Spanned::get_ref(value).as_str().filter(|name| is_name(name));
    if name.is_none() {
        let line = line_at(text, &key.span());
        let allowed = "one line of 1 to 200 characters";
        faults.push(Fault::value(&format!("{list}.name"), Some(line), &text[value.span()], allowed));
    }
    name.unwrap_or_default().to_owned()
}

fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.chars().count() <= 200 && !name.chars().any(char::is_control)
}

/// Checks what one key of a rule alone cannot show.
fn check_rule(rule: &RuleSettings, faults: &mut Vec<Fault>) {
    let mut wrong = |key: &str, what: String| faults.push(Fault::new(what).at(rule.line(key)));
    let name = &rule.name;
    let Some(verdict) = rule.verdict else {
        if !rule.lines.contains_key("verdict") {
            wrong("rule", format!("rule \"{name}\" has no verdict"));
        }
        return;
    };
    if verdict == VerdictWord::Window && rule.window.is_none() {
        wrong(
            "verdict",
            format!("rule \"{name}\": the verdict \"window\" needs the key window, the name of a [[window]]"),
        );
    }
    let restricts = matches!(verdict, VerdictWord::Refuse | VerdictWord::Hold | VerdictWord::Window);
    let useless: [(&[&str], bool); 5] = [
        (&["message", "hint"], restricts),
        (&["window"], verdict == VerdictWord::Window),
        (&["approvers", "expires", "gate"], verdict == VerdictWord::Hold),
        (&["wait_for"], matches!(verdict, VerdictWord::Hold | VerdictWord::Window)),
        (
            &[
                "stall_budget",
                "hold_budget",
                "deadline",
                "in_transaction",
                "on_disconnect",
                "blockers",
                "blockers_after",
                "blockers_except",
            ],
            verdict != VerdictWord::Refuse,
        ),
    ];
    for (keys, is_useful) in useless {
        for key in keys.iter().filter(|key| !is_useful && rule.lines.contains_key(**key)) {
            wrong(key, format!("rule \"{name}\": {key} has no effect with the verdict \"{verdict}\""));
        }
    }
    for key in ["blockers_after", "blockers_except"] {
        if rule.lines.contains_key(key) && rule.blockers.policy.is_none() {
            wrong(key, format!("rule \"{name}\": {key} needs the key blockers"));
        }
    }
}

/// Checks names: they are unique, and each window that a rule names exists.
fn check(gate: &GateSettings, faults: &mut Vec<Fault>) {
    for (at, rule) in gate.rules.iter().enumerate() {
        if !rule.name.is_empty() && gate.rules.iter().take(at).any(|other| other.name == rule.name) {
            faults.push(Fault::new(format!("there is more than one rule \"{}\"", rule.name)).at(rule.line("name")));
        }
        for (key, window) in [("window", &rule.window), ("match.in_window", &rule.matches.in_window)] {
            let Some(wanted) = window.as_ref().filter(|name| !gate.windows.iter().any(|w| w.name == **name)) else {
                continue;
            };
            let fault = Fault::new(format!("rule \"{}\": there is no [[window]] \"{wanted}\"", rule.name));
            let near = nearest(wanted, gate.windows.iter().map(|window| window.name.as_str()));
            let fault = near.map(|near| fault.clone().hint(format!("Did you mean \"{near}\"?"))).unwrap_or(fault);
            faults.push(fault.at(rule.line(key)));
        }
    }
    for (at, window) in gate.windows.iter().enumerate() {
        if !window.name.is_empty() && gate.windows.iter().take(at).any(|other| other.name == window.name) {
            faults.push(Fault::new(format!("there is more than one window \"{}\"", window.name)).at(Some(window.line)));
        }
    }
}
