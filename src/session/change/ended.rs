//! The end of a schema change: it is counted, and the webhook is told.
//!
//! It owns nothing. It keeps true: a statement that was suspended has not ended, since it goes on ahead of its transaction or in it. A statement
//! counts once with each form that it has.

use super::context::{Place, StatementContext};
use super::log::ChangeLog;
use crate::config::WebhookEvent;
use crate::execute::RunError;
use crate::holds::{EndedChange, Told};
use crate::session::statement::shown;
use crate::sql::{Class, Statement};
use crate::webhook::{Event, EventChange, WaitWatch};
use std::collections::BTreeSet;
use std::time::Duration;

/// Counts a statement that has ended, `took` after it began, and tells the webhook.
pub(super) fn ended(context: &StatementContext<'_>, took: Duration, result: Result<(), &RunError>) {
    if !context.runs() || matches!(result, Err(RunError::Suspend(_))) || !is_change(context.statement) {
        return;
    }
    let verdict = context.verdict().word();
    count_forms(context.log, context.statement, verdict.as_str());
    let (outcome, kind) = match result {
        Ok(()) => ("completed", WebhookEvent::Completed),
        Err(_) => ("failed", WebhookEvent::Failed),
    };
    context.metrics().measures.change_ended(outcome, took);
    take_down(context, result.err());
    let webhook = &context.log.shared().webhook;
    if webhook.wants(kind) {
        let reason = result.err().map(RunError::reason);
        webhook.notify(&Event { reason, ..Event::new(kind, &change_of(context), took) });
    }
}

/// Tells the ledger. The end of a change that a rule has held is told by its approval.
fn take_down(context: &StatementContext<'_>, stop: Option<&RunError>) {
    let Some(keeper) = context.log.shared().holds().keeper() else { return };
    if context.channel.change_is_held() {
        return;
    }
    let log = context.log;
    keeper.tell(Told::Ended(Box::new(EndedChange {
        number: context.channel.change_number(),
        author: log.role().to_owned(),
        database: log.database().to_owned(),
        client: log.address().to_string(),
        statement: shown(context.statement).to_owned(),
        failure: stop.map(RunError::reason),
    })));
}

/// Counts the forms of a statement that had no stages, since the client's block holds its locks or a batch has done it.
pub(super) fn ended_at_once(log: &ChangeLog, statement: &Statement) {
    count_forms(log, statement, crate::config::VerdictWord::Allow.as_str());
    let kind = WebhookEvent::Completed;
    if log.shared().webhook.wants(kind) && is_change(statement) {
        log.shared().webhook.notify(&Event::new(kind, &log.change(statement, true), Duration::ZERO));
    }
}

/// Counts the forms of a statement that is relayed. How it ends is not known.
pub(super) fn count_relayed(log: &ChangeLog, statement: &Statement) {
    count_forms(log, statement, crate::config::VerdictWord::Allow.as_str());
}

/// The watch over the waits of a statement. `None`: nobody is to be told.
pub(super) fn watch(context: &StatementContext<'_>) -> Option<WaitWatch> {
    let webhook = &context.log.shared().webhook;
    is_change(context.statement).then(|| webhook.watch(|| change_of(context))).flatten()
}

/// The schema change, for an event.
pub(super) fn change_of(context: &StatementContext<'_>) -> EventChange {
    let ahead = matches!(context.place(), Place::Ahead(_) | Place::LocksAlone);
    context.log.change(context.statement, ahead || context.channel.status() != b'I')
}

fn is_change(statement: &Statement) -> bool {
    matches!(statement.class, Class::Ddl(_) | Class::Newer)
}

fn count_forms(log: &ChangeLog, statement: &Statement, verdict: &'static str) {
    if let Class::Ddl(ddl) = &statement.class {
        let forms: BTreeSet<_> = ddl.parts.iter().map(|part| part.form).collect();
        forms.iter().for_each(|form| log.shared().metrics.measures.ddl(form.row().title, verdict));
    }
}
