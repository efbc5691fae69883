//! The settings of the gate: `[[rule]]` and `[[window]]`, as they are written.
//!
//! It is plain data. `gate_keys` reads it, and [`crate::gate`] makes rules of it: names of forms and families are known only there.

use super::glob::Glob;
use super::words::{BlockersPolicy, GatePlace, InTransaction, OnDisconnect, VerdictWord};
use super::{Network, Window};
use crate::pg::LockMode;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// All rules and windows of a file, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GateSettings {
    /// The file, for errors that are found later.
    pub file: Option<PathBuf>,
    pub rules: Vec<RuleSettings>,
    pub windows: Vec<Window>,
}

impl GateSettings {
    /// Whether other rules or windows are meant. Lines of the file do not count.
    pub fn differs(&self, other: &Self) -> bool {
        let without_lines = |gate: &Self| {
            let mut gate = gate.clone();
            gate.file = None;
            gate.rules.iter_mut().for_each(|rule| rule.lines.clear());
            gate.windows.iter_mut().for_each(|window| window.line = 0);
            gate
        };
        without_lines(self) != without_lines(other)
    }
}

/// One `[[rule]]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleSettings {
    pub name: String,
    /// The line of each key that is set, from 1. The keys of `match` have `match.` in front. The line of the rule itself is under `rule`.
    pub lines: BTreeMap<String, usize>,
    pub matches: MatchSettings,
    pub verdict: Option<VerdictWord>,
    /// The message and the hint of the error that the client gets.
    pub message: Option<String>,
    pub hint: Option<String>,
    /// The window that a statement has to be in, for the verdict `window`.
    pub window: Option<String>,
    pub limits: RuleLimits,
    pub hold: HoldSettings,
    pub blockers: BlockersSettings,
}

impl RuleSettings {
    /// The line of a key, or of the rule if the key is not set.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).or_else(|| self.lines.get("rule")).copied()
    }
}

/// The `match` of a rule. A list that is empty, and a value that is not set, is no condition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MatchSettings {
    /// Patterns of titles of forms (`docs/forms.md`).
    pub form: Vec<String>,
    pub family: Vec<String>,
    pub cost: Vec<String>,
    pub lock: Vec<LockMode>,
    pub destructive: Option<bool>,
    /// Patterns of `name`, or of `schema.name` if there is a dot in it.
    pub relation: Vec<Glob>,
    pub schema: Vec<Glob>,
    /// In bytes.
    pub size_over: Option<u64>,
    pub rows_over: Option<u64>,
    pub role: Vec<Glob>,
    pub database: Vec<Glob>,
    pub application_name: Vec<Glob>,
    pub client: Vec<Network>,
    pub in_transaction: Option<bool>,
    /// The name of a window that is open.
    pub in_window: Option<String>,
}

/// Settings of `[locks]` and `[ddl]` that hold for the statements of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleLimits {
    pub stall_budget: Option<Duration>,
    pub hold_budget: Option<Duration>,
    pub deadline: Option<Duration>,
    pub in_transaction: Option<InTransaction>,
    /// What becomes of a change whose client goes away.
    pub on_disconnect: Option<OnDisconnect>,
}

/// How a held statement waits, and who may let it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HoldSettings {
    pub approvers: Option<u64>,
    /// An approval that is older does not count.
    pub expires: Option<Duration>,
    /// How long the client waits. Zero: for ever.
    pub wait_for: Option<Duration>,
    pub gate: Option<GatePlace>,
}

/// How sessions in the way of a statement are treated that are idle in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockersSettings {
    pub policy: Option<BlockersPolicy>,
    pub after: Option<Duration>,
    /// The roles whose sessions are left alone.
    pub except: Vec<Glob>,
}
