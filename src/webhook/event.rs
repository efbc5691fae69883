//! What the webhook tells: one event as JSON.
//!
//! Invariant: a statement is in an event as the log has it, and cut where it is long.

use crate::config::WebhookEvent;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most characters of a statement or a reason that are told.
const MOST: usize = 2_000;

/// A schema change and its client.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EventChange {
    pub user: String,
    pub database: String,
    pub application_name: String,
    /// What the statement is called, such as `ALTER TABLE`.
    pub tag: String,
    /// The statement as the log has it.
    pub statement: String,
    /// The statement was in a transaction of the client's, or ahead of it, so that it may be undone with the transaction.
    pub in_transaction: bool,
}

/// One event.
#[derive(Debug)]
pub struct Event<'e> {
    pub kind: WebhookEvent,
    pub change: &'e EventChange,
    /// How long the change has taken or waited.
    pub took: Duration,
    /// Why it failed or is held, or who has approved it.
    pub reason: Option<String>,
    /// The rule of the gate that it is about.
    pub rule: Option<String>,
    /// The number under which operators decide about it.
    pub number: Option<u64>,
    /// Who is in its way.
    pub blocked_by: Option<String>,
}

impl<'e> Event<'e> {
    pub fn new(kind: WebhookEvent, change: &'e EventChange, took: Duration) -> Self {
        Self { kind, change, took, reason: None, rule: None, number: None, blocked_by: None }
    }

    /// The event as the body of a request.
    pub(super) fn json(&self, numbers: &Numbers) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut change = self.change.clone();
        change.statement = cut(change.statement);
        let body = Body {
            id: numbers.next(now),
            event: self.kind.as_str(),
            at: now.as_secs_f64(),
            change,
            seconds: self.took.as_secs_f64(),
            reason: self.reason.clone().map(cut),
            rule: self.rule.as_deref(),
            number: self.number,
            blocked_by: self.blocked_by.clone().map(cut),
        };
        // Strings and finite numbers can always be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Body<'b> {
    id: String,
    event: &'static str,
    at: f64,
    #[serde(flatten)]
    change: EventChange,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'b str>,
    #[serde(rename = "change", skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_by: Option<String>,
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MOST) {
        None => text,
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}

/// The numbers of the events. With the time of the first event they differ from those of any other proxy and of the one before a restart.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    first: std::sync::OnceLock<u128>,
    last: AtomicU64,
}

impl Numbers {
    fn next(&self, now: Duration) -> String {
        let first = self.first.get_or_init(|| now.as_nanos());
        format!("{first:x}-{}", self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_with_an_id_of_its_own() {
        let numbers = Numbers::default();
        let change = EventChange { tag: "DROP TABLE".into(), statement: "é".repeat(3_000), ..EventChange::default() };
        let event = Event::new(WebhookEvent::Failed, &change, Duration::from_millis(1500));
        let event = Event { reason: Some("42P01 from the server".into()), ..event };
        let [one, two] = [0; 2].map(|_| serde_json::from_slice::<serde_json::Value>(&event.json(&numbers)).unwrap());
        assert_ne!(one["id"], two["id"]);
        assert_eq!(
            (&one["event"], &one["tag"], &one["seconds"]),
            (&"failed".into(), &"DROP TABLE".into(), &1.5.into())
        );
        assert_eq!(one["statement"].as_str().unwrap().chars().count(), MOST + 1);
        assert_eq!(one["reason"], "42P01 from the server");
        assert_eq!(one.get("blocked_by"), None);
    }
}
