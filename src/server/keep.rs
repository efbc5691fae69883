//! The ledger of the proxy: what it follows, and what follows it.
//!
//! It owns nothing. It keeps true: the ledger decides from before the first client comes.

use crate::config::Address;
use crate::ledger::{self, Follow};
use crate::operator;
use crate::session::Shared;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the ledger's thread is to do until the other end of its argument is gone.
pub(super) type LedgerWork = Box<dyn FnOnce(oneshot::Receiver<()>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Makes the ledger decide, if there is one.
pub(super) fn ledger(shared: &Arc<Shared>, addresses: &[Address]) -> Option<LedgerWork> {
    let operator = &shared.config.operator;
    if !operator.ledger {
        return None;
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let address = addresses.first().map(Address::to_string).unwrap_or_default();
    let sessions = Arc::downgrade(shared);
    let follow = Follow {
        connection: operator::settings(&shared.config, &shared.target),
        name: format!("{} {address}", host.trim()).trim().to_owned(),
        keep: operator.ledger_keep,
        role: operator.user.clone(),
        holds: Arc::downgrade(shared.holds()),
        registry: Arc::clone(&shared.registry),
        metrics: Arc::clone(&shared.metrics),
        scopes_differ: Box::new(move || sessions.upgrade().iter().for_each(|shared| shared.follow_holds())),
    };
    let (keeper, work) = ledger::start(follow);
    shared.holds().keep_in(keeper);
    Some(Box::new(|end| Box::pin(work.run(end))))
}
