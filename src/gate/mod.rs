//! The gate: the rules of those who operate the database, and their verdict on a schema change.
//!
//! [`Rules`] owns the rules. It is pure: statement, facts, plan, session and clock come in, and a [`Decision`] comes out. It keeps true:
//!
//! - The first rule that matches decides. Without a rule that matches, the statement is allowed.
//! - A rule that restricts (`hold`, `refuse`, `window`) matches whatever it may be about. A rule that lets run (`allow`, `plan`, `guard`)
//!   matches only what it is surely about, with all its parts.
//! - The verdict is the same whether a statement is tried at once or is planned first: where the text alone does not tell the verdict,
//!   [`Rules::lets_try`] says no, and the facts are asked for.
//!
//! - `rule`: one rule and what it matches. `check`: rules from settings, and the errors in them. `family`: words for groups of forms.
//! - `subject`, `session`, `condition`, `truth`: what is known of a statement, its session and the windows, and what is not. `opening`: whether a window is open.
//! - `print`: decisions and rules as text. `answer`: the errors that clients get.
//! - `digest`: the identity of a change that is held. `change`: what may happen to it. `cut_over`: where it is
//!   asked about once more.

pub mod answer;
pub mod change;
mod check;
mod condition;
pub mod cut_over;
pub mod digest;
mod family;
mod opening;
pub mod print;
mod rule;
mod session;
mod subject;
mod truth;

pub use crate::config::ClientAddress;
pub use condition::{ConditionAnswer, SeenCondition};
pub use family::Family;
pub use rule::Rule;
pub use session::Session;
pub use subject::Subject;

use crate::config::{Config, ConfigError, InTransaction, Mode, RuleSettings, VerdictWord, Window};
use crate::sql::Statement;
use std::sync::Arc;
use truth::Truth;

/// The rules of a proxy, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    rules: Vec<Arc<Rule>>,
    /// How many of them, at the front, are what operators hold by hand.
    by_hand: usize,
}

/// The verdict on a statement, with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    /// The rule that has decided. `None`: no rule matches.
    pub rule: Option<Arc<Rule>>,
    /// Why the rule matches: fragments.
    pub because: Vec<String>,
}

/// What is to be done about a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The statement runs as the settings say.
    Allow,
    /// The statement is planned, whatever the mode is.
    Plan,
    /// The statement runs as it is written, by lock attempts.
    Guard,
    /// The statement waits for an approval.
    Hold,
    Refuse,
    /// The statement has to wait for a window.
    Closed {
        /// When the hours of the window begin next (seconds since 1970). `None`: they have begun, or it is not known when they do.
        opens: Option<i64>,
        /// The hours have begun, and the condition of the window is not known to be true.
        by_condition: bool,
    },
}

impl Verdict {
    /// The verdict as rules name it.
    pub fn word(self) -> VerdictWord {
        match self {
            Self::Allow => VerdictWord::Allow,
            Self::Plan => VerdictWord::Plan,
            Self::Guard => VerdictWord::Guard,
            Self::Hold => VerdictWord::Hold,
            Self::Refuse => VerdictWord::Refuse,
            Self::Closed { .. } => VerdictWord::Window,
        }
    }
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// A rule names something that does not exist, or can never match. The errors have the lines of the file.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        check::rules(config).map(|rules| Self { rules, by_hand: 0 }).map_err(|faults| {
            let error = ConfigError::new(faults);
            match &config.gate.file {
                Some(file) => error.in_file(file),
                None => error,
            }
        })
    }

    /// These rules behind others that hold what operators hold by hand, in place of those that have held so far.
    #[must_use]
    pub fn with_holds(&self, holds: &[RuleSettings]) -> Self {
        let by_hand: Vec<Arc<Rule>> = holds.iter().filter_map(check::by_hand).map(Arc::new).collect();
        let own = self.rules.iter().skip(self.by_hand).cloned();
        Self { by_hand: by_hand.len(), rules: by_hand.iter().cloned().chain(own).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule may let a statement go ahead of the client's transaction, whatever the settings say.
    pub fn may_hoist(&self) -> bool {
        let hoists = |rule: &Rule| rule.settings().limits.in_transaction == Some(InTransaction::Hoist);
        self.iter().any(|rule| hoists(rule) || rule.verdict() == VerdictWord::Plan)
    }

    /// The windows with a condition that the rules depend on at this time: their hours are open.
    pub fn windows_to_ask(&self, now: i64) -> Vec<&Window> {
        let mut windows: Vec<&Window> = Vec::new();
        for window in self.rules.iter().flat_map(|rule| [rule.window.as_deref(), rule.in_window.as_deref()]).flatten() {
            let is_new = !windows.iter().any(|known| known.name == window.name);
            if is_new && window.condition.is_some() && window.is_open(now) {
                windows.push(window);
            }
        }
        windows
    }

    /// The rules in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(Arc::as_ref)
    }

    /// Whether the rules may do anything else about the statement than let it run, whoever sends it and whenever.
    pub fn may_concern(&self, statement: &Statement) -> bool {
        let nobody = Session::default();
        !self.surely_allows(statement, &nobody, Mode::Relay)
    }

    /// Whether a statement of this session may run at once, before any fact is known. Otherwise the gate is to be asked with the facts.
    pub fn lets_try(&self, statement: &Statement, session: &Session<'_>, mode: Mode) -> bool {
        self.surely_allows(statement, session, mode)
    }

    fn surely_allows(&self, statement: &Statement, session: &Session<'_>, mode: Mode) -> bool {
        let subject = Subject::of_text(statement);
        for rule in &self.rules {
            let truth = rule.matches(&subject, session).truth;
            let allows =
                rule.is_plain_allow() || (is_of_mode(rule, mode) && rule.settings().limits == Default::default());
            match truth {
                Truth::No => {}
                Truth::Yes if allows => return true,
                // If it does not match, the next rules decide.
                Truth::Maybe if allows => {}
                Truth::Yes | Truth::Maybe => return false,
            }
        }
        true
    }

    /// The verdict on a statement.
    pub fn decide(&self, subject: &Subject<'_>, session: &Session<'_>) -> Decision {
        for rule in &self.rules {
            let matched = rule.matches(subject, session);
            let applies = if rule.lets_run() { matched.truth == Truth::Yes } else { matched.truth != Truth::No };
            if applies {
                let verdict = verdict(rule, session);
                return Decision { verdict, rule: Some(Arc::clone(rule)), because: matched.because };
            }
        }
        Decision { verdict: Verdict::Allow, rule: None, because: Vec::new() }
    }
}

/// Whether the rule's verdict is what the mode does in any case.
fn is_of_mode(rule: &Rule, mode: Mode) -> bool {
    matches!((rule.verdict(), mode), (VerdictWord::Plan, Mode::Plan) | (VerdictWord::Guard, Mode::Guard))
}

fn verdict(rule: &Rule, session: &Session<'_>) -> Verdict {
    match rule.verdict() {
        VerdictWord::Allow => Verdict::Allow,
        VerdictWord::Plan => Verdict::Plan,
        VerdictWord::Guard => Verdict::Guard,
        VerdictWord::Hold => Verdict::Hold,
        VerdictWord::Refuse => Verdict::Refuse,
        VerdictWord::Window => match rule.window() {
            Some(window) if opening::is_open(window, session) == Truth::Yes => Verdict::Allow,
            window => closed(window.zip(session.now)),
        },
    }
}

fn closed(at: Option<(&Window, i64)>) -> Verdict {
    let by_condition = at.is_some_and(|(window, now)| window.is_open(now));
    let opens = at.filter(|_| !by_condition).and_then(|(window, now)| window.next_opening(now));
    Verdict::Closed { opens, by_condition }
}
