//! The rules that `pgsluice plan` asks, and who is supposed to send the text.
//!
//! [`PlannedGate`] owns the rules. It keeps true: what the command line does not say of the client is not known, so that a rule that depends on it
//! is said to match perhaps.

use crate::catalog::Facts;
use crate::gate::{ClientAddress, Rule, Rules, Session, Subject, print};
use crate::plan::Plan;
use crate::sql::Statement;
use serde::Serialize;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// The rules, and the client.
pub(super) struct PlannedGate {
    pub(super) rules: Rules,
    pub(super) role: Option<String>,
    pub(super) database: Option<String>,
    pub(super) application_name: Option<String>,
    pub(super) client: Option<IpAddr>,
}

/// What the rules say of a statement.
#[derive(Debug, Serialize)]
pub(super) struct PlannedVerdict {
    /// The word of the rule, or `allow`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    because: Vec<String>,
    #[serde(skip)]
    pub(super) text: String,
}

impl PlannedVerdict {
    /// Whether the statement runs as it is written, so that it has no phases.
    pub(super) fn is_guard(&self) -> bool {
        self.verdict == "guard"
    }
}

impl PlannedGate {
    /// Asks the rules about a statement that is sent now. `None`: the file has no rules, or the statement is no schema change.
    pub(super) fn ask(
        &self,
        statement: &Statement,
        facts: &Facts,
        plan: &Plan,
        in_transaction: bool,
    ) -> Option<PlannedVerdict> {
        if self.rules.is_empty() || plan.answer.is_some() {
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let session = Session {
            role: self.role.as_deref(),
            database: self.database.as_deref(),
            application_name: self.application_name.as_deref(),
            client: self.client.map(ClientAddress::Ip),
            in_transaction: Some(in_transaction),
            now: i64::try_from(now.as_secs()).ok(),
            conditions: &[],
        };
        let subject = Subject::planned(statement, facts, plan);
        if !subject.is_schema_change() {
            return None;
        }
        let decision = self.rules.decide(&subject, &session);
        let text = print::decision(&decision);
        let rule = decision.rule.as_deref();
        let verdict = rule.map_or("allow", |rule| rule.verdict().as_str());
        Some(PlannedVerdict { verdict, rule: rule.map(Rule::name).map(str::to_owned), because: decision.because, text })
    }
}
