//! The client waits for an advisory lock of its own: `execute/advisory.rs` does it for it.
//!
//! Invariant: a portal that waits would hold a snapshot. So it is closed as long as the wait lasts, and bound anew, as the client has
//! bound it, when the lock is to be had.

use super::{FrameOutcome, Session};
use crate::backend::BackendLost;
use crate::config::{AdvisoryLocks, Mode};
use crate::execute::advisory::ClientCall;
use crate::execute::{Reply, RunError};
use crate::relay::Event;
use crate::sql::{AdvisoryLock, Class, Statement};
use crate::wire::message;

impl Session {
    /// Where waits are not to be served, they are statements like any other.
    pub(super) fn as_wanted(&self, mut statements: Vec<Statement>) -> Vec<Statement> {
        let config = &self.shared.config;
        if config.proxy.mode == Mode::Observe || config.locks.advisory_locks == AdvisoryLocks::Relay {
            let waits = |statement: &&mut Statement| matches!(statement.class, Class::AdvisoryLock(_));
            statements.iter_mut().filter(waits).for_each(|statement| statement.class = Class::Other);
        }
        statements
    }

    /// The reply is not on its way yet.
    pub(super) async fn advisory_lock(
        &mut self,
        lock: &AdvisoryLock,
        own: ClientCall<'_>,
        offset: usize,
    ) -> Result<Reply, RunError> {
        self.look_at_block();
        // What the function is called by may be another's.
        self.interceptor.block = None;
        let session = self.unasked();
        let backend = super::shared::pid_of(self.channel.backend_key());
        self.execution(&session, offset).advisory_lock(lock, &own, backend).await
    }

    /// What Parse says of the parameters, where it is to be known; the frame is still there.
    pub(super) fn parameter_types(&self, statement: &Statement) -> Vec<u8> {
        let waits = matches!(statement.class, Class::AdvisoryLock(_));
        let types = self.channel.peek_frame().filter(|_| waits);
        types.and_then(|(_, body)| message::parameter_types(body)).map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// In place of the portal's Execute.
    pub(super) async fn execute_advisory_lock(
        &mut self,
        lock: &AdvisoryLock,
        types: &[u8],
        portal: &str,
    ) -> Result<FrameOutcome, BackendLost> {
        match self.channel.settle(false).await {
            Event::Settled => {}
            other => return Ok(self.end(other).await),
        }
        let bind = self.interceptor.bind_of(portal.as_bytes()).filter(|_| !self.suspends());
        let Some((bind, true)) = bind.map(|bind| (bind, self.channel.owed_is_certain())) else {
            self.channel.pass_frame();
            return Ok(FrameOutcome::Continue);
        };
        let block = self.needs_block().await;
        if !self.seal(Some(portal), block).await? {
            self.channel.pass_frame();
            self.channel.skip_to_sync().await?;
            return Ok(FrameOutcome::Continue);
        }
        self.interceptor.pipeline_control = None;
        let Some(execute) = self.channel.take_frame() else { return Ok(FrameOutcome::End) };
        self.interceptor.forget_portal(portal.as_bytes());
        let own = ClientCall::Bound { types, bind: &bind, execute: &execute };
        let result = self.advisory_lock(lock, own, 0).await;
        self.executed(result).await
    }

    /// Execute wants one row, of one: the server would keep the portal for the next one.
    fn suspends(&self) -> bool {
        self.channel.peek_frame().is_some_and(|(_, body)| body.ends_with(&[0, 0, 0, 1]))
    }
}
