//! What becomes of a statement whose client goes away while its plan runs: the setting `on_disconnect`.
//!
//! It owns nothing: the changes that go on are in [`crate::session::continuing`]. It keeps true: a statement in a transaction of the client's ends with its client, since
//! the COMMIT can never come. A cancel, from wherever it comes, ends a statement that goes on, too.

use super::context::{Place, StatementContext};
use super::held;
use crate::config::OnDisconnect;
use crate::execute::{Reply, RunError};
use crate::gate::digest::{Digest, Identity, SETTINGS};
use crate::logging::AUDIT;
use crate::plan::{Plan, additive};
use crate::session::continuing::{ContinuingRun, RunOutcome, StatementIdentity};
use crate::session::text::parse_options;
use std::sync::Arc;

/// The run of a plan begins. From here on the channel knows whether it goes on if the client leaves.
///
/// # Errors
/// The question about the session has failed, or was cancelled. Nothing is done.
pub(super) async fn begin(context: &mut StatementContext<'_>, plan: &Plan) -> Result<(), RunError> {
    let continues = continues(context, plan);
    context.channel.set_continues(continues);
    if !continues || context.is_continuing() {
        return Ok(());
    }
    let identity = identity_of(context).await?;
    let Some(change) = context.channel.change().map(Arc::clone) else { return Ok(()) };
    let (log, text) = (context.log, (context.statement.text.as_str(), context.offset()));
    let run = ContinuingRun::new(identity, (log.role(), log.database()), text, change);
    context.keep_continuing(log.shared().continuing().enter(run));
    Ok(())
}

/// Whether the plan goes on if the client leaves.
fn continues(context: &StatementContext<'_>, plan: &Plan) -> bool {
    let in_place = matches!(context.place(), Place::Anywhere | Place::InBlock(_));
    if !in_place || context.channel.status() != b'I' {
        return false;
    }
    let ddl = &context.config().ddl;
    match ddl.on_disconnect {
        OnDisconnect::Continue => true,
        OnDisconnect::Undo => false,
        OnDisconnect::Auto => additive::continues(plan, !ddl.record_interval.is_zero()),
    }
}

/// The statement is over. Those who have joined it get its outcome.
pub(super) fn end(context: &mut StatementContext<'_>, result: Result<&Reply, &RunError>) {
    let Some(place) = context.take_continuing() else { return };
    if place.end(RunOutcome::of(result)) {
        let outcome = result.map_or_else(RunError::reason, |_| "done".to_owned());
        tracing::info!(target: AUDIT, outcome, "a schema change whose client has left is over");
    }
}

/// What tells the statement from others, in whatever session they are sent.
pub(super) async fn identity_of(context: &mut StatementContext<'_>) -> Result<StatementIdentity, RunError> {
    let values = held::session_values(context).await?;
    let value = |at: usize| values.get(at).map(String::as_str).unwrap_or_default();
    let settings: Vec<(&str, &str)> = SETTINGS.iter().enumerate().map(|(at, name)| (*name, value(at + 2))).collect();
    let identity = Identity {
        text: &context.statement.text,
        options: parse_options(context.channel, context.log.shared()),
        session_user: value(0),
        current_user: value(1),
        database: context.log.database(),
        relations: &[],
        settings: &settings,
        plan: None,
        in_transaction: false,
    };
    Ok(StatementIdentity { digest: Digest::of_text(&identity), speech: context.channel.speech() })
}
