//! What an admin asks of a schema change that runs: THROTTLE, UNTHROTTLE, and HOLD and RELEASE of one change.
//!
//! It owns nothing: the orders are in the registry, and the change follows them itself. It keeps true: an order that has no effect is an error.

use super::host::Host;
use crate::gate::change::State;
use crate::holds::Keeper;
use crate::pg::sqlstate;
use crate::registry::{ChangeEntry, Order, Ratio, Throttled};
use crate::report::Report;
use std::sync::Arc;

/// A NOTICE, if there is something to say.
type Done = Result<Option<Report>, Report>;

/// The ledger, if the change does not run in this proxy. `None`: it runs here, or there is no ledger.
fn elsewhere(host: &dyn Host, number: u64) -> Option<&Arc<dyn Keeper>> {
    let here = host.registry().changes().into_iter().any(|change| change.known_as() == number);
    host.holds().keeper().filter(|_| !here)
}

/// What the ledger says, as a NOTICE.
fn said(text: String) -> Option<Report> {
    Some(Report::notice(sqlstate::SUCCESSFUL_COMPLETION, text))
}

/// Slows the backfill of a change down.
pub(super) async fn throttle(host: &dyn Host, number: u64, ratio: Ratio, order: &Order) -> Done {
    if let Some(keeper) = elsewhere(host, number) {
        return keeper.order(number, "throttle", Some(ratio.to_string()), order).await.map(said);
    }
    let slowed = running(host, number)?.into_iter().filter(|change| {
        let throttled = Throttled { ratio, order: order.clone() };
        change.steering.throttle(throttled, change.progress().phase)
    });
    if slowed.count() > 0 {
        return Ok(None);
    }
    Err(without_effect(format!("schema change {number} has no backfill"))
        .detail("THROTTLE slows a backfill down that is under way or comes in a later phase.")
        .hint("SHOW CHANGES shows the phase of each change."))
}

/// Lets a change go at its own pace again.
pub(super) async fn unthrottle(host: &dyn Host, number: u64, order: &Order) -> Done {
    if let Some(keeper) = elsewhere(host, number) {
        return keeper.order(number, "unthrottle", None, order).await.map(said);
    }
    let freed = running(host, number)?.into_iter().filter(|change| change.steering.unthrottle()).count();
    if freed > 0 { Ok(None) } else { Err(without_effect(format!("schema change {number} is not throttled"))) }
}

/// Stops a change before its next phase or batch.
pub(super) async fn hold(host: &dyn Host, number: u64, order: &Order) -> Done {
    if let Some(keeper) = elsewhere(host, number) {
        return keeper.order(number, "hold", None, order).await.map(said);
    }
    let waits = host.holds().get(number).is_some_and(|held| held.change.state() == State::Held);
    if waits {
        return Err(without_effect(format!("schema change {number} is held already"))
            .hint(format!("APPROVE {number} or REJECT {number} decides about it.")));
    }
    let results: Vec<_> =
        running(host, number)?.into_iter().map(|change| change.steering.hold(order.clone())).collect();
    match results.into_iter().reduce(Result::or) {
        Some(Err(why)) => Err(without_effect(format!("schema change {number} cannot be held: {why}"))),
        _ => Ok(None),
    }
}

/// Lets a change go on that was held while it ran.
pub(super) async fn release(host: &dyn Host, number: u64, order: &Order) -> Done {
    if let Some(keeper) = elsewhere(host, number) {
        return keeper.order(number, "release", None, order).await.map(said);
    }
    let freed = running(host, number)?.into_iter().filter(|change| change.steering.release(order.since)).count();
    if freed > 0 {
        return Ok(None);
    }
    Err(without_effect(format!("schema change {number} is not held while it runs"))
        .hint(format!("APPROVE {number} lets a change run that waits for an approval.")))
}

/// The changes that operators know by this number and whose clients are here.
fn running(host: &dyn Host, number: u64) -> Result<Vec<Arc<ChangeEntry>>, Report> {
    let all = host.registry().changes().into_iter().filter(|change| change.known_as() == number);
    let all: Vec<_> = all.collect();
    if !all.is_empty() {
        return Ok(all);
    }
    Err(Report::error(sqlstate::UNDEFINED_OBJECT, format!("schema change {number} does not run"))
        .hint("SHOW CHANGES lists the ones there are."))
}

fn without_effect(message: String) -> Report {
    Report::error(sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}
