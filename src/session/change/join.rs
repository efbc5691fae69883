//! A statement that another session has begun: its client has left, and it goes on. The same statement joins it and gets its result.
//!
//! It owns nothing: the changes that go on are in [`crate::session::continuing`]. It keeps true: a statement joins only a change whose client has left. What
//! ends a wait here ends no change. Each nap is short, since a concurrent build waits for the snapshot of a nap.

use super::context::{Place, StatementContext};
use super::log::ChangeLog;
use super::nap::nap;
use super::on_disconnect::identity_of;
use super::pending;
use crate::backend::ServerChannel;
use crate::catalog::Facts;
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::registry::Progress;
use crate::report::Report;
use crate::session::continuing::{ContinuingRun, RunOutcome};
use crate::sql::Class;
use crate::wire::reply::put_command_complete;
use std::time::{Duration, Instant};

/// A nap takes a twentieth of the time waited so far, within these bounds.
const SHARE: u32 = 20;
const SHORTEST_NAP: Duration = Duration::from_millis(20);
const LONGEST_NAP: Duration = Duration::from_millis(250);

/// Whether the client's role has left a change in this database that goes on.
pub(super) fn may_join(log: &ChangeLog) -> bool {
    log.shared().continuing().has_left(log.role(), log.database())
}

/// Whether something is to be looked at before a statement is tried in the client's pipeline: what an earlier statement has left, a change to
/// join, or the end of the client.
pub(super) fn comes_first(log: &ChangeLog, channel: &ServerChannel) -> bool {
    channel.client_gone() || (channel.status() == b'I' && (pending::has_pending(log) || may_join(log)))
}

/// Joins the same statement of a session whose client has left. `None`: the statement runs by itself.
///
/// # Errors
/// The change has failed, and this is its error. Or the wait has ended before it.
pub(super) async fn look(context: &mut StatementContext<'_>) -> Result<Option<Reply>, RunError> {
    let alone = matches!(context.place(), Place::Anywhere) && context.channel.status() == b'I';
    let is_ddl = matches!(context.statement.class, Class::Ddl(_));
    if !alone || !is_ddl || !may_join(context.log) {
        return Ok(None);
    }
    let identity = identity_of(context).await?;
    let Some(run) = context.log.shared().continuing().left(&identity) else { return Ok(None) };
    let facts = context.facts().of_session().await?;
    tracing::info!(joined = run.change().known_as(), "joins a schema change whose client has left");
    match wait(context, &facts, &run).await? {
        RunOutcome::Done(tag) => {
            let mut reply = Reply::default();
            put_command_complete(&mut reply.frames, &String::from_utf8_lossy(&tag));
            Ok(Some(reply))
        }
        RunOutcome::Server(error) => Err(RunError::Server(error)),
        RunOutcome::Report(report) => Err(RunError::Report(report)),
        // What it has done is on record, and is continued or undone.
        RunOutcome::Unknown => Ok(None),
    }
}

/// Waits for the end of the change.
async fn wait(context: &mut StatementContext<'_>, facts: &Facts, run: &ContinuingRun) -> Result<RunOutcome, RunError> {
    let (begun, mut told) = (Instant::now(), None::<Instant>);
    let timeout = Duration::from_millis(facts.session.statement_timeout_ms);
    loop {
        if let Some(outcome) = run.outcome_for(&context.statement.text, context.offset()) {
            return Ok(outcome);
        }
        let (waited, progress) = (begun.elapsed(), run.change().progress());
        if !timeout.is_zero() && waited >= timeout {
            let report = Report::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
            return Err(RunError::Report(report.detail(goes_on(run))));
        }
        if waited >= context.config().locks.turn_limit {
            let report = Report::error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout");
            return Err(RunError::Report(report.detail(goes_on(run))));
        }
        if told.is_none_or(|at| at.elapsed() >= context.config().ddl.progress_interval) {
            told = Some(Instant::now());
            tell(context, facts, run, &progress);
        }
        nap_joined(context, run, (waited / SHARE).clamp(SHORTEST_NAP, LONGEST_NAP)).await?;
    }
}

fn goes_on(run: &ContinuingRun) -> String {
    format!("Change {}, which this statement had joined, goes on.", run.change().known_as())
}

/// Naps on the server, with the reason in the nap's comment.
async fn nap_joined(context: &mut StatementContext<'_>, run: &ContinuingRun, time: Duration) -> Result<(), RunError> {
    let words = format!("joined change {}, whose client has left", run.change().known_as());
    nap(context, &words, time).await.map_err(|stop| match stop {
        RunError::Report(report) => RunError::Report(report.detail(goes_on(run))),
        stop => stop,
    })
}

/// Tells the client that its statement has joined a change.
fn tell(context: &mut StatementContext<'_>, facts: &Facts, run: &ContinuingRun, progress: &Progress) {
    if !context.config().ddl.notices || facts.session.hushed {
        return;
    }
    let number = run.change().known_as();
    let phase = match progress {
        Progress { phases: 0, .. } => String::new(),
        Progress { phase, phases, .. } => format!(" It is in phase {phase} of {phases}."),
    };
    let message = format!("joined change {number}, which runs already");
    let report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message)
        .detail(format!("Its client has left. This statement gets its result.{phase}"))
        .hint(format!("A cancel ends this wait. On the console of pgsluice: CANCEL {number} ends the change."));
    context.channel.notify(&report);
}
