//! What operators ask of a schema change that runs: to be slower, or to stop for a while.
//!
//! [`Steering`] owns these orders for one change. It keeps true: an order is refused if the change cannot follow it. The run reads the orders between
//! two batches and between two phases, and waits for nothing here.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The share of the time that a backfill does not work, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u16);

/// The largest ratio: a backfill always works a hundredth of the time.
const MOST: u16 = 990;

impl Ratio {
    /// Reads a ratio from 0 to 0.99, with at most three decimals.
    pub fn from_text(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let is_number = !(whole.is_empty() && decimals.is_empty()) && decimals.len() <= 3;
        let digits = decimals.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number || !digits || !whole.bytes().all(|digit| digit == b'0') {
            return None;
        }
        let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
        (thousandths <= MOST).then_some(Self(thousandths))
    }

    /// The ratio as a number.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.share())
    }
}

/// Who has said something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub by: String,
    /// The address, for people.
    pub from: String,
    pub why: String,
    pub since: SystemTime,
}

impl Order {
    /// The reason behind a colon, if there is one.
    fn reason(&self) -> String {
        if self.why.is_empty() { String::new() } else { format!(": {}", self.why) }
    }
}

/// An operator slows a backfill down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttled {
    pub ratio: Ratio,
    pub order: Order,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "throttled by {} to ratio {}{}", self.order.by, self.ratio, self.order.reason())
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held by {}{}", self.by, self.reason())
    }
}

/// The orders for a change, and what it can follow.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    pub throttled: Option<Throttled>,
    /// An operator holds this change by its number.
    pub hold: Option<Order>,
    /// Operators have let the change go on. What they have held more widely before that time does not hold it.
    pub released: Option<SystemTime>,
    /// The change is stopped between two phases or batches, for this reason.
    pub stopped: Option<String>,
    /// How many phases there are up to the last backfill.
    fills_until: usize,
    /// Why the change cannot stop any more.
    unstoppable: Option<&'static str>,
}

/// What operators ask of one change.
#[derive(Debug, Default)]
pub struct Steering {
    orders: Mutex<Orders>,
}

impl Steering {
    /// The orders as they are now.
    pub fn orders(&self) -> Orders {
        self.lock().clone()
    }

    /// What slows the change down.
    pub fn throttled(&self) -> Option<Throttled> {
        self.lock().throttled.clone()
    }

    /// Slows the change down. `phase`: the phase that it is in. `false`: it has no backfill under way or before it.
    pub fn throttle(&self, throttled: Throttled, phase: usize) -> bool {
        let mut orders = self.lock();
        let fills = orders.fills_until > 0 && phase <= orders.fills_until;
        if fills {
            orders.throttled = Some(throttled);
        }
        fills
    }

    /// Lets the change go at its own pace. `false`: nobody has slowed it down.
    pub fn unthrottle(&self) -> bool {
        self.lock().throttled.take().is_some()
    }

    /// Holds the change.
    ///
    /// # Errors
    /// Why it cannot be held.
    pub fn hold(&self, order: Order) -> Result<(), String> {
        let mut orders = self.lock();
        if let Some(hold) = &orders.hold {
            return Err(format!("it is {hold}"));
        }
        if let Some(why) = orders.unstoppable {
            return Err(why.to_owned());
        }
        orders.hold = Some(order);
        Ok(())
    }

    /// Lets the change go on. `false`: nothing holds it.
    pub fn release(&self, now: SystemTime) -> bool {
        let mut orders = self.lock();
        let was_held = orders.hold.take().is_some() || orders.stopped.is_some();
        if was_held {
            orders.released = Some(now);
        }
        was_held
    }

    /// The change begins its run. `fills_until`: how many phases there are up to the last backfill.
    pub fn begins(&self, fills_until: usize) {
        let mut orders = self.lock();
        (orders.fills_until, orders.unstoppable) = (fills_until, None);
    }

    /// From here on the change stops nowhere, for this reason.
    pub fn cannot_stop(&self, why: &'static str) {
        self.lock().unstoppable = Some(why);
    }

    /// The change is stopped for this reason, or it goes on.
    pub fn stops(&self, why: Option<String>) {
        self.lock().stopped = why;
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(why: &str) -> Order {
        Order { by: "ann".to_owned(), from: String::new(), why: why.to_owned(), since: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn ratios() {
        let ratio = |text: &str| Ratio::from_text(text).map(|ratio| ratio.to_string());
        assert_eq!(ratio("0.9").as_deref(), Some("0.9"));
        assert_eq!(ratio("0").as_deref(), Some("0"));
        assert_eq!(ratio(".125").as_deref(), Some("0.125"));
        assert_eq!(ratio("0.99").as_deref(), Some("0.99"));
        for bad in ["1", "0.991", "1.5", "-0.5", "0.1234", ".", "", "x", "0.x", "1e-1", "0.+5"] {
            assert_eq!(ratio(bad), None, "{bad}");
        }
    }

    #[test]
    fn orders_are_refused_that_cannot_be_followed() {
        let steering = Steering::default();
        let throttled = Throttled { ratio: Ratio(900), order: order("busy") };
        assert_eq!(throttled.to_string(), "throttled by ann to ratio 0.9: busy");
        assert!(!steering.throttle(throttled.clone(), 0), "it does not run yet");
        steering.begins(2);
        assert!(steering.throttle(throttled.clone(), 2));
        assert!(!steering.throttle(throttled, 3), "the backfill is over");
        assert!(steering.unthrottle() && !steering.unthrottle());
        assert!(!steering.release(SystemTime::UNIX_EPOCH));
        steering.hold(order("lunch")).unwrap();
        assert_eq!(steering.hold(order("")).unwrap_err(), "it is held by ann: lunch");
        assert!(steering.release(SystemTime::UNIX_EPOCH) && !steering.release(SystemTime::UNIX_EPOCH));
        steering.cannot_stop("it is in a transaction");
        assert_eq!(steering.hold(order("")).unwrap_err(), "it is in a transaction");
    }
}
