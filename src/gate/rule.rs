//! A rule: what it matches, and its verdict.
//!
//! [`Rule`] is plain data, made and checked by [`super::check`]. It keeps true: a rule that lets a statement run matches only if every part
//! of the statement surely matches. A rule that restricts matches if any part may match. So what is not known, or stands beside the thing that
//! a rule names, never opens the gate.

use super::family::{Family, is_of_version_tables};
use super::opening::is_open;
use super::session::Session;
use super::subject::{Largest, NamedRelation, Subject};
use super::truth::Truth;
use crate::catalog::RelationFacts;
use crate::config::{Glob, MatchSettings, RuleSettings, VerdictWord, Window, format_size};
use crate::plan::print::size;
use crate::sql::form::{Cost, Form};
use std::sync::Arc;

/// One rule, ready to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub(super) settings: RuleSettings,
    pub(super) verdict: VerdictWord,
    pub(super) forms: Vec<Form>,
    pub(super) families: Vec<Family>,
    pub(super) costs: Vec<Cost>,
    /// The window of the verdict `window`.
    pub(super) window: Option<Arc<Window>>,
    /// The window of `in_window`.
    pub(super) in_window: Option<Arc<Window>>,
}

/// Whether a rule matches, and the reasons.
pub(super) struct Matched {
    pub(super) truth: Truth,
    pub(super) because: Vec<String>,
}

impl Rule {
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    pub fn verdict(&self) -> VerdictWord {
        self.verdict
    }

    /// The rule as it is written.
    pub fn settings(&self) -> &RuleSettings {
        &self.settings
    }

    /// The window of the verdict `window`.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_deref()
    }

    /// Whether the rule lets a statement run at once. Then every part of the statement must match.
    pub(super) fn lets_run(&self) -> bool {
        matches!(self.verdict, VerdictWord::Allow | VerdictWord::Plan | VerdictWord::Guard)
    }

    /// Whether the rule changes nothing: a statement that it matches runs as without rules.
    pub(super) fn is_plain_allow(&self) -> bool {
        self.verdict == VerdictWord::Allow
            && self.settings.limits == Default::default()
            && self.settings.blockers == Default::default()
    }

    /// Whether the rule is about statements that destroy data, and names no relations. Version tables are exempt from such a rule.
    pub(super) fn exempts_version_tables(&self) -> bool {
        let by_form = !self.forms.is_empty() && self.forms.iter().all(|form| super::family::always_destroys(*form));
        (self.settings.matches.destructive == Some(true) || by_form) && self.settings.matches.relation.is_empty()
    }

    /// Whether the rule has no condition.
    pub(super) fn matches_all(&self) -> bool {
        self.settings.matches == MatchSettings::default()
    }

    /// Whether the rule matches a statement of a session.
    pub(super) fn matches(&self, subject: &Subject<'_>, session: &Session<'_>) -> Matched {
        let exempt = self.exempts_version_tables() && subject.ddl().is_some_and(is_of_version_tables);
        if exempt || !subject.is_schema_change() {
            return Matched { truth: Truth::No, because: Vec::new() };
        }
        let mut matched = Matched { truth: Truth::Yes, because: Vec::new() };
        for condition in [Self::of_statement, Self::of_relations, Self::of_session, Self::of_time] {
            condition(self, subject, session, &mut matched);
            if matched.truth == Truth::No {
                matched.because.clear();
                break;
            }
        }
        matched
    }

    /// Combines the parts of a statement: all of them if the rule lets the statement run, or else any.
    fn parts(&self, parts: impl Iterator<Item = Truth>) -> Truth {
        if self.lets_run() { Truth::all(parts) } else { Truth::any(parts) }
    }

    fn of_statement(&self, subject: &Subject<'_>, _: &Session<'_>, matched: &mut Matched) {
        let wanted = &self.settings.matches;
        if !self.forms.is_empty() {
            let forms = subject.forms();
            let titles: Vec<&str> =
                forms.iter().filter(|form| self.forms.contains(form)).map(|form| form.row().title).collect();
            let truth = self.parts(forms.iter().map(|form| self.forms.contains(form).into()));
            matched.and(truth, || format!("the form is {}", unique(&titles)));
        }
        if !self.families.is_empty() {
            let families = subject.families();
            let words: Vec<&str> =
                families.iter().filter(|one| self.families.contains(one)).map(|one| one.as_str()).collect();
            let truth = self.parts(families.iter().map(|family| self.families.contains(family).into()));
            matched.and(truth, || format!("the family is {}", unique(&words)));
        }
        if !self.costs.is_empty() {
            let truth = subject.costs(&self.costs, self.lets_run());
            matched.and(truth, || match subject.cost() {
                Some(cost) => format!("the cost is {}", cost_word(cost)),
                None => "the cost is one of those".to_owned(),
            });
        }
        if !wanted.lock.is_empty() {
            matched.and(subject.locks(&wanted.lock), || match subject.lock() {
                Some(lock) => format!("the lock is {lock}"),
                None => "the lock is one of those".to_owned(),
            });
        }
        if let Some(destructive) = wanted.destructive {
            let truth = match (subject.is_destructive(), destructive) {
                (Truth::Maybe, _) => Truth::Maybe,
                (known, destructive) => ((known == Truth::Yes) == destructive).into(),
            };
            let what = if destructive { "it destroys data" } else { "it destroys no data" };
            matched.and(truth, || what.to_owned());
        }
    }

    fn of_relations(&self, subject: &Subject<'_>, _: &Session<'_>, matched: &mut Matched) {
        let wanted = &self.settings.matches;
        if !wanted.relation.is_empty() {
            let test = |schema: Option<&str>, name: &str| {
                Truth::any(wanted.relation.iter().map(|pattern| matches_name(pattern, schema, name)))
            };
            matched.and(self.named(subject, &test), || match named(subject, &test) {
                Some(names) => format!("it is about {names}"),
                None => "it may be about any relation".to_owned(),
            });
        }
        if !wanted.schema.is_empty() {
            let test = |schema: Option<&str>, _: &str| {
                Truth::of(schema.map(|schema| wanted.schema.iter().any(|pattern| pattern.matches(schema))))
            };
            matched.and(self.named(subject, &test), || match named(subject, &test) {
                Some(names) => format!("it is about {names}, of such a schema"),
                None => "it may be about any relation".to_owned(),
            });
        }
        if let Some(bytes) = wanted.size_over {
            let of = |found: &RelationFacts| Some(found.bytes.max(found.table_bytes) as f64);
            let over = subject.largest(of).map(|largest| largest.filter(|one| one.amount > bytes as f64));
            let shown = |one: &Largest| {
                format!("{} has {}, more than {}", one.name, size(one.amount as u64), format_size(bytes))
            };
            let unsure = format!("a table has more than {}", format_size(bytes));
            matched.and_largest(over.as_ref().map(Option::as_ref), unsure, shown);
        }
        if let Some(rows) = wanted.rows_over {
            let of = |found: &RelationFacts| Some(found.rows).filter(|rows| *rows >= 0.0);
            let over = subject.largest(of).map(|largest| largest.filter(|one| one.amount > rows as f64));
            let shown = |one: &Largest| format!("{} has about {:.0} rows, more than {rows}", one.name, one.amount);
            let unsure = format!("a table has more than {rows} rows");
            matched.and_largest(over.as_ref().map(Option::as_ref), unsure, shown);
        }
    }

    /// Whether a test holds of the relations that the statement names.
    fn named(&self, subject: &Subject<'_>, test: &dyn Fn(Option<&str>, &str) -> Truth) -> Truth {
        match subject.relations() {
            Some(relations) => self.parts(relations.iter().map(|relation: &NamedRelation<'_>| relation.is(test))),
            None => Truth::Maybe,
        }
    }

    fn of_session(&self, _: &Subject<'_>, session: &Session<'_>, matched: &mut Matched) {
        let wanted = &self.settings.matches;
        let names = [
            ("role", &wanted.role, session.role),
            ("database", &wanted.database, session.database),
            ("application name", &wanted.application_name, session.application_name),
        ];
        for (what, globs, name) in names {
            if !globs.is_empty() {
                let truth = Truth::of(name.map(|name| globs.iter().any(|glob| glob.matches(name))));
                matched.and(truth, || match name {
                    Some(name) => format!("the {what} is {name}"),
                    None => format!("the {what} is such a one"),
                });
            }
        }
        if !wanted.client.is_empty() {
            let truth = Truth::of(session.client.map(|client| client.is_in(&wanted.client)));
            matched.and(truth, || match session.client {
                Some(client) => format!("the client's address is {client}"),
                None => "the client's address is such a one".to_owned(),
            });
        }
        if let Some(inside) = wanted.in_transaction {
            let truth = Truth::of(session.in_transaction.map(|found| found == inside));
            let what = if inside { "it stands in a transaction" } else { "it stands in no transaction" };
            matched.and(truth, || what.to_owned());
        }
    }

    fn of_time(&self, _: &Subject<'_>, session: &Session<'_>, matched: &mut Matched) {
        if let Some(window) = &self.in_window {
            matched.and(is_open(window, session), || format!("the window \"{}\" is open", window.name));
        }
    }
}

impl Matched {
    /// One more condition has to hold.
    fn and(&mut self, truth: Truth, because: impl FnOnce() -> String) {
        self.truth = self.truth.min(truth);
        if self.truth != Truth::No {
            let unsure = if truth == Truth::Maybe { "perhaps " } else { "" };
            self.because.push(format!("{unsure}{}", because()));
        }
    }

    /// The largest table has to be over a limit. `Err`: that is not known.
    fn and_largest(&mut self, over: Result<Option<&Largest>, &()>, unsure: String, shown: impl Fn(&Largest) -> String) {
        match over {
            Ok(Some(largest)) => self.and(Truth::Yes, || shown(largest)),
            Ok(None) => self.and(Truth::No, String::new),
            Err(()) => self.and(Truth::Maybe, || unsure),
        }
    }
}

/// Whether a pattern matches a relation. If it has a dot, it is compared with `schema.name`, otherwise with the name.
fn matches_name(pattern: &Glob, schema: Option<&str>, name: &str) -> Truth {
    if !pattern.as_str().contains('.') {
        return pattern.matches(name).into();
    }
    match schema {
        Some(schema) => pattern.matches(&format!("{schema}.{name}")).into(),
        None if pattern.may_match_in_a_schema(name) => Truth::Maybe,
        None => Truth::No,
    }
}

/// The word of a cost in `proxy.toml`.
pub(super) fn cost_word(cost: Cost) -> &'static str {
    match cost {
        Cost::Brief => "brief",
        Cost::Scan => "scan",
        Cost::Build => "build",
        Cost::Rewrite => "rewrite",
        Cost::Unknown => "unknown",
    }
}

fn unique(words: &[&str]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    words.iter().for_each(|word| {
        if !seen.contains(word) {
            seen.push(word);
        }
    });
    seen.join("; ")
}

/// The relations of which a test holds or may hold. `None`: the statement may be about any.
fn named(subject: &Subject<'_>, test: &dyn Fn(Option<&str>, &str) -> Truth) -> Option<String> {
    let relations = subject.relations()?;
    let names = relations.iter().filter(|relation| relation.is(test) != Truth::No).map(NamedRelation::name);
    Some(names.collect::<Vec<_>>().join(" and "))
}
