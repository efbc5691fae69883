//! Makes rules of their settings, and finds those that are wrong.
//!
//! It owns nothing. It keeps true: each name in a rule means something, and each rule can match some statement. A rule that never matches would
//! be read as a protection that is not there.

use super::family::Family;
use super::rule::{Rule, cost_word};
use crate::config::{Config, Fault, Glob, MatchSettings, RuleSettings, Window, format_time, nearest};
use crate::sql::form::{Cost, ExecutionKind, FORMS, Form};
use std::sync::Arc;

const COSTS: [Cost; 5] = [Cost::Brief, Cost::Scan, Cost::Build, Cost::Rewrite, Cost::Unknown];

/// The rules of a configuration, in their order.
pub(super) fn rules(config: &Config) -> Result<Vec<Arc<Rule>>, Vec<Fault>> {
    let windows: Vec<Arc<Window>> = config.gate.windows.iter().cloned().map(Arc::new).collect();
    let mut faults = Vec::new();
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    for settings in &config.gate.rules {
        let Some(rule) = rule(settings, &windows, &mut faults) else { continue };
        check_limits(&rule, config, &mut faults);
        if let Some(why) = contradiction(&rule) {
            let what = format!("rule \"{}\" can never match, because {why}", rule.name());
            faults.push(Fault::new(what).at(settings.line("match")));
        } else if let Some(before) = rules.iter().find(|before| covers(before, &rule)) {
            let all = if before.matches_all() { "everything" } else { "all that this rule would match" };
            let what = format!("rule \"{}\" can never match", rule.name());
            let hint =
                format!("Rule \"{}\" before it matches {all}, and the first rule that matches decides.", before.name());
            faults.push(Fault::new(what).hint(hint).at(settings.line("rule")));
        }
        rules.push(Arc::new(rule));
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// The rule of something that an operator holds by hand. It may stand before rules that it covers.
pub(super) fn by_hand(settings: &RuleSettings) -> Option<Rule> {
    rule(settings, &[], &mut Vec::new())
}

fn rule(settings: &RuleSettings, windows: &[Arc<Window>], faults: &mut Vec<Fault>) -> Option<Rule> {
    let before = faults.len();
    let matches = &settings.matches;
    let forms = FORM.read(settings, &matches.form, faults);
    let families = FAMILY.read(settings, &matches.family, faults);
    let costs = COST.read(settings, &matches.cost, faults);
    let find = |name: &Option<String>| {
        let name = name.as_ref()?;
        windows.iter().find(|window| window.name == *name).cloned()
    };
    let (window, in_window) = (find(&settings.window), find(&matches.in_window));
    let rule =
        Rule { settings: settings.clone(), verdict: settings.verdict?, forms, families, costs, window, in_window };
    (faults.len() == before).then_some(rule)
}

/// The words that a key of `match` knows.
struct Vocabulary<T> {
    key: &'static str,
    /// What a word is, for an error.
    what: &'static str,
    meaning: fn(&str) -> Vec<T>,
    words: fn() -> Vec<&'static str>,
    /// What to do if no word is near.
    hint: &'static str,
}

const FORM: Vocabulary<Form> = Vocabulary {
    key: "form",
    what: "a form of DDL, nor a pattern of forms",
    meaning: forms_of,
    words: || FORMS.iter().map(|row| row.title).collect(),
    hint: "docs/forms.md lists all forms. A pattern such as \"ADD COLUMN*\" stands for all that begin so.",
};

const FAMILY: Vocabulary<Family> = Vocabulary {
    key: "family",
    what: "a family of forms",
    meaning: |word| Family::ALL.into_iter().filter(|family| family.as_str() == word).collect(),
    words: || Family::ALL.map(Family::as_str).to_vec(),
    hint: "The families are column, constraint, index, table, partition, view, trigger, privilege, type, maintenance, object, hidden.",
};

const COST: Vocabulary<Cost> = Vocabulary {
    key: "cost",
    what: "a cost",
    meaning: |word| COSTS.into_iter().filter(|cost| cost_word(*cost) == word).collect(),
    words: || COSTS.map(cost_word).to_vec(),
    hint: "The costs are brief, scan, build, rewrite, unknown.",
};

/// The forms whose titles match a pattern, whatever the case of its letters is.
fn forms_of(pattern: &str) -> Vec<Form> {
    let Some(glob) = Glob::new(&pattern.to_ascii_lowercase()) else { return Vec::new() };
    FORMS.iter().filter(|row| glob.matches(&row.title.to_ascii_lowercase())).map(|row| row.form).collect()
}

impl<T: PartialEq> Vocabulary<T> {
    /// What all words mean together. A word that means nothing is an error.
    fn read(&self, settings: &RuleSettings, words: &[String], faults: &mut Vec<Fault>) -> Vec<T> {
        let mut found = Vec::new();
        for word in words {
            let meant = (self.meaning)(word);
            if meant.is_empty() {
                let fault = Fault::new(format!("rule.match.{}: \"{word}\" is not {}", self.key, self.what));
                let hint = match nearest(word, (self.words)().into_iter()) {
                    Some(near) => format!("Did you mean \"{near}\"?"),
                    None => self.hint.to_owned(),
                };
                faults.push(fault.hint(hint).at(settings.line(&format!("match.{}", self.key))));
            }
            meant.into_iter().for_each(|one| {
                if !found.contains(&one) {
                    found.push(one);
                }
            });
        }
        found
    }
}

/// Checks the limits of a rule beside the settings that they stand in for.
fn check_limits(rule: &Rule, config: &Config, faults: &mut Vec<Fault>) {
    let limits = &rule.settings.limits;
    let stall = limits.stall_budget.unwrap_or(config.locks.stall_budget);
    let deadline = limits.deadline.unwrap_or(config.locks.deadline);
    if deadline < stall {
        let key = if limits.deadline.is_some() { "deadline" } else { "stall_budget" };
        let (deadline, stall) = (format_time(deadline), format_time(stall));
        let what =
            format!("rule \"{}\": the deadline ({deadline}) is shorter than the stall budget ({stall})", rule.name());
        faults.push(Fault::new(what).at(rule.settings.line(key)));
    }
}

/// Why no statement can match a rule.
fn contradiction(rule: &Rule) -> Option<String> {
    let matches = &rule.settings.matches;
    // A text that the proxy cannot read has no form.
    let hidden = rule.families.contains(&Family::Hidden) && rule.forms.is_empty();
    let fits = |form: Form| {
        let row = form.row();
        let cost = rule.costs.is_empty()
            || rule.costs.contains(&row.cost)
            || (rule.costs.contains(&Cost::Brief) && !matches!(row.way, ExecutionKind::Relay | ExecutionKind::Long));
        let locks = [form.locks(100_000).0, form.locks(190_000).0];
        let lock = matches.lock.is_empty() || locks.iter().flatten().any(|lock| matches.lock.contains(lock));
        let family = rule.families.is_empty() || rule.families.contains(&Family::of(form));
        let inside = matches.in_transaction != Some(true) || row.in_transaction;
        let data = matches.destructive != Some(false) || !super::family::always_destroys(form);
        [(cost, "cost"), (lock, "lock"), (family, "family"), (inside, "in_transaction"), (data, "destructive")]
    };
    let all: Vec<Form> = FORMS.iter().map(|row| row.form).collect();
    let forms = if rule.forms.is_empty() { &all } else { &rule.forms };
    if forms.iter().any(|form| fits(*form).iter().all(|(fit, _)| *fit)) {
        return None;
    }
    if hidden && matches.lock.is_empty() && (rule.costs.is_empty() || rule.costs.contains(&Cost::Unknown)) {
        return None;
    }
    // A statement of several parts may have a part of each, unless the rule lets it run.
    if !rule.lets_run() && rule.forms.is_empty() && rule.families.is_empty() {
        return None;
    }
    let what = if rule.forms.is_empty() { "form" } else { "form of form" };
    let never: Vec<&str> = ["cost", "lock", "family", "in_transaction", "destructive"]
        .into_iter()
        .filter(|key| forms.iter().all(|form| fits(*form).iter().any(|(fit, name)| name == key && !fit)))
        .collect();
    Some(match never.as_slice() {
        [] => format!("no {what} fits all its conditions"),
        keys => format!("no {what} fits {}", keys.join(" or ")),
    })
}

/// Whether the first rule matches whatever the second one would match. It is told only where that is plain.
fn covers(first: &Rule, second: &Rule) -> bool {
    let (a, b) = (&first.settings.matches, &second.settings.matches);
    // A rule that lets run needs more of a statement than a rule that restricts.
    if !first.matches_all() && first.lets_run() && !second.lets_run() {
        return false;
    }
    if first.exempts_version_tables() && !second.exempts_version_tables() {
        return false;
    }
    let smaller = |a: Option<u64>, b: Option<u64>| a.is_none_or(|a| b.is_some_and(|b| a <= b));
    within(&a.form, &b.form)
        && within(&a.family, &b.family)
        && within(&a.cost, &b.cost)
        && within(&a.lock, &b.lock)
        && same(a.destructive, b.destructive)
        && covers_names(a, b)
        && smaller(a.size_over, b.size_over)
        && smaller(a.rows_over, b.rows_over)
        && within(&a.client, &b.client)
        && same(a.in_transaction, b.in_transaction)
        && (a.in_window.is_none() || a.in_window == b.in_window)
}

fn covers_names(a: &MatchSettings, b: &MatchSettings) -> bool {
    within(&a.relation, &b.relation)
        && within(&a.schema, &b.schema)
        && within(&a.role, &b.role)
        && within(&a.database, &b.database)
        && within(&a.application_name, &b.application_name)
}

/// Whether the first list is no condition, or has all that the second one has.
fn within<T: PartialEq>(first: &[T], second: &[T]) -> bool {
    first.is_empty() || (!second.is_empty() && second.iter().all(|one| first.contains(one)))
}

fn same(first: Option<bool>, second: Option<bool>) -> bool {
    first.is_none() || first == second
}
