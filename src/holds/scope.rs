//! What operators hold by hand: everything, a database, or a relation.
//!
//! A scope is a rule in front of all others ([`Scope::rule`]). So whatever a rule is asked about is held, with the same exceptions. It owns nothing.

use crate::config::{Glob, HoldSettings, MatchSettings, RuleSettings, VerdictWord};
use std::fmt;
use std::time::SystemTime;

/// What is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    Database(String),
    /// `name`, or `schema.name`.
    Relation(String),
}

/// A scope, with who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeHold {
    pub scope: Scope,
    pub by: String,
    pub from: String,
    pub why: String,
    pub since: SystemTime,
    /// When this proxy has heard of it. The ledger has its own clock.
    pub seen: SystemTime,
}

impl Scope {
    /// The rule that holds it. `None`: no name of a database or relation is like this.
    pub fn rule(&self) -> Option<RuleSettings> {
        let mut matches = MatchSettings::default();
        let mut lines = std::collections::BTreeMap::new();
        match self {
            Self::All => {}
            Self::Database(name) => {
                matches.database = vec![exactly(name)?];
                lines.insert("match.database".to_owned(), 0);
            }
            Self::Relation(name) => {
                matches.relation = vec![exactly(name)?];
                lines.insert("match.relation".to_owned(), 0);
            }
        }
        Some(RuleSettings {
            name: self.to_string(),
            matches,
            lines,
            verdict: Some(VerdictWord::Hold),
            hold: HoldSettings::default(),
            ..RuleSettings::default()
        })
    }
}

/// The pattern of one name.
fn exactly(name: &str) -> Option<Glob> {
    let escaped: String =
        name.chars().flat_map(|c| matches!(c, '*' | '?' | '\\').then_some('\\').into_iter().chain([c])).collect();
    Glob::new(&escaped)
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("HOLD ALL"),
            Self::Database(name) => write!(f, "HOLD DATABASE {name}"),
            Self::Relation(name) => write!(f, "HOLD RELATION {name}"),
        }
    }
}
