//! The webhook: a service is told of schema changes by HTTP POST.
//!
//! [`Webhook`] owns the queue of events. It keeps true: nobody waits for the receiver. An event for which there is no room in the queue is
//! dropped and counted. No event has more of a client's text than the log, and an event is made only if somebody is to be told.
//!
//! - `event`: what is told, as JSON. `deliver`: the requests, with their signature, on a thread of their own.

mod deliver;
mod event;

pub use deliver::Deliveries;
pub use event::{Event, EventChange};

use crate::config::{WebhookEvent, WebhookSettings};
use crate::metrics::Metrics;
use crate::tls::SettingError;
use event::Numbers;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// The most events that wait. Each takes up to about 8 kB.
const WAITING: usize = 256;

/// The queue of events, or nothing if nobody is to be told.
#[derive(Debug)]
pub struct Webhook(Option<Queue>);

#[derive(Debug)]
struct Queue {
    events: Vec<WebhookEvent>,
    blocked_after: Duration,
    bodies: mpsc::Sender<Vec<u8>>,
    numbers: Numbers,
    metrics: Arc<Metrics>,
    /// Who delivers, until that begins.
    deliveries: Mutex<Option<Deliveries>>,
}

impl Webhook {
    /// # Errors
    /// The file of authorities cannot be used.
    pub fn new(settings: &WebhookSettings, metrics: &Arc<Metrics>) -> Result<Self, SettingError> {
        let Some(url) = &settings.url else { return Ok(Self(None)) };
        let (bodies, waiting) = mpsc::channel(WAITING);
        let deliveries = Deliveries::new(settings, url, waiting, Arc::clone(metrics))?;
        Ok(Self(Some(Queue {
            events: settings.events.clone(),
            blocked_after: settings.blocked_after,
            bodies,
            numbers: Numbers::default(),
            metrics: Arc::clone(metrics),
            deliveries: Mutex::new(Some(deliveries)),
        })))
    }

    /// Whether somebody is to be told of such an event.
    pub fn wants(&self, kind: WebhookEvent) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.events.contains(&kind))
    }

    /// Tells of an event, if somebody is to be told of its kind. It does not wait.
    pub fn notify(&self, event: &Event<'_>) {
        let Some(queue) = self.0.as_ref().filter(|_| self.wants(event.kind)) else { return };
        match queue.bodies.try_send(event.json(&queue.numbers)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => queue.metrics.webhook_dropped.add(),
        }
    }

    /// The deliveries. The second call gets none.
    pub fn take_deliveries(&self) -> Option<Deliveries> {
        self.0.as_ref()?.deliveries.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The watch over the waits of a schema change. `None`: nobody is to be told of waits.
    pub fn watch(&self, change: impl FnOnce() -> EventChange) -> Option<WaitWatch> {
        let after = self.0.as_ref().filter(|_| self.wants(WebhookEvent::Blocked))?.blocked_after;
        Some(WaitWatch { change: change(), after, told: AtomicBool::new(false) })
    }
}

/// The watch over the waits of one schema change. Somebody is told once.
#[derive(Debug)]
pub struct WaitWatch {
    change: EventChange,
    after: Duration,
    told: AtomicBool,
}

impl WaitWatch {
    /// The change has waited this long. `blocked_by`: a sentence about those who are in the way.
    pub fn waits(&self, webhook: &Webhook, waited: Duration, blocked_by: impl FnOnce() -> String) {
        if waited >= self.after && !self.told.swap(true, Ordering::Relaxed) {
            let blocked_by = Some(blocked_by());
            webhook.notify(&Event { blocked_by, ..Event::new(WebhookEvent::Blocked, &self.change, waited) });
        }
    }
}
