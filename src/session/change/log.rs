//! The counters and the log of a session's schema changes.
//!
//! It owns the session as the registry has it, which says who the client is. It keeps true: the log has no more of a client's text than
//! [`shown`] gives.

use crate::backend::ServerChannel;
use crate::execute::RunError;
use crate::gate::{ClientAddress, Decision, Rule, Session};
use crate::plan::Plan;
use crate::registry::{ChangePlace, SessionEntry};
use crate::session::shared::Shared;
use crate::session::statement::shown;
use crate::sql::{Class, Statement};
use crate::webhook::EventChange;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct ChangeLog {
    shared: Arc<Shared>,
    /// The session, with what its client has said at its start.
    session: Arc<SessionEntry>,
}

impl ChangeLog {
    /// The client as rules of the gate see it.
    pub(super) fn as_session(&self) -> Session<'_> {
        Session {
            role: Some(self.role()),
            database: Some(self.database()),
            application_name: Some(self.application()),
            client: Some(self.address()),
            ..Session::default()
        }
    }

    pub(super) fn new(shared: Arc<Shared>, session: Arc<SessionEntry>) -> Self {
        Self { shared, session }
    }

    /// The session as the registry has it.
    pub(super) fn session(&self) -> &Arc<SessionEntry> {
        &self.session
    }

    /// Enters a statement among the changes that run, until the guard is dropped.
    pub(super) fn enter(&self, channel: &mut ServerChannel, statement: &str) -> ChangePlace {
        let (cancels, key) = (channel.cancels().clone(), channel.backend_key().clone());
        let cancel = move || {
            cancels.requests().cancel(cancels.requests().current());
            cancels.cancel_work(&key);
        };
        let place = self.shared.registry.begin(self.session.number, statement, cancel);
        channel.set_change(Some(Arc::clone(place.entry())));
        place
    }

    /// The span of a schema change. It gives each line of the log the numbers of the session and of the change, as the console shows them.
    pub(super) fn span(&self, channel: &ServerChannel) -> tracing::Span {
        self.shared.metrics.changes_begun.add();
        tracing::error_span!("change", session = self.session.number, change = channel.change_number())
    }

    /// A schema change of the client's, for the webhook.
    pub(super) fn change(&self, statement: &Statement, in_transaction: bool) -> EventChange {
        EventChange {
            user: self.role().to_owned(),
            database: self.database().to_owned(),
            application_name: self.session.client.application_name.clone(),
            tag: if let Class::Ddl(ddl) = &statement.class { ddl.tag.to_string() } else { String::new() },
            statement: shown(statement).to_owned(),
            in_transaction,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The role that the client has logged in as.
    pub(super) fn role(&self) -> &str {
        &self.session.client.user
    }

    /// The client's database. The default is the database of the role's name, as in libpq.
    pub(super) fn database(&self) -> &str {
        if self.session.client.database.is_empty() { &self.session.client.user } else { &self.session.client.database }
    }

    /// The `application_name` of the login.
    pub(super) fn application(&self) -> &str {
        &self.session.client.application_name
    }

    /// Where the client has come from.
    pub(super) fn address(&self) -> ClientAddress {
        self.session.address.map_or(ClientAddress::Local, ClientAddress::Ip)
    }

    /// A statement is about to go through its stages.
    pub(super) fn count(&self, statement: &Statement) {
        match statement.class {
            Class::MayHideDdl { .. } => self.shared.metrics.texts_hiding_ddl.add(),
            _ => self.shared.metrics.ddl_seen.add(),
        }
    }

    /// A statement has a plan.
    pub(super) fn planned(&self, statement: &Statement, plan: &Plan) {
        self.line(&plan.tag, plan.phases.len(), plan.answer.is_some(), statement);
    }

    /// A statement was done at once, by its optimistic try.
    pub(super) fn done_at_once(&self, statement: &Statement, plan: &Plan) {
        self.shared.metrics.ddl_planned.add();
        self.planned(statement, plan);
    }

    /// A statement is run as written.
    pub(super) fn guarded(&self, statement: &Statement) {
        self.shared.metrics.ddl_guarded_only.add();
        if let Class::Ddl(ddl) = &statement.class {
            self.line(&ddl.tag, 1, false, statement);
        }
    }

    /// A statement is relayed, since the client's block holds the locks that it needs.
    pub(super) fn relayed(&self, statement: &Statement) {
        self.shared.metrics.ddl_seen.add();
        self.shared.metrics.ddl_relayed.add();
        if let Class::Ddl(ddl) = &statement.class {
            self.line(&ddl.tag, 0, false, statement);
        }
    }

    /// The run of a plan has failed.
    pub(super) fn failed(&self, plan: &Plan, stop: &RunError) {
        self.shared.metrics.ddl_failed.add();
        tracing::info!(tag = plan.tag, reason = stop.reason(), "a schema change did not come to its end");
    }

    /// A statement that was run as written has failed.
    pub(super) fn failed_as_written(&self, stop: &RunError) {
        self.shared.metrics.ddl_failed.add();
        tracing::info!(reason = stop.reason(), "a schema change did not come to its end");
    }

    /// A rule of the gate does not let a statement run.
    pub(super) fn not_run(&self, statement: &Statement, decision: &Decision) {
        let rule = decision.rule.as_deref();
        tracing::info!(
            user = self.session.client.user,
            database = self.session.client.database,
            application = self.session.client.application_name,
            rule = rule.map(Rule::name),
            verdict = rule.map(|rule| rule.verdict().as_str()),
            "not run: {}",
            shown(statement)
        );
    }

    fn line(&self, tag: &str, phases: usize, answered: bool, statement: &Statement) {
        tracing::info!(
            user = self.session.client.user,
            database = self.session.client.database,
            application = self.session.client.application_name,
            tag,
            phases,
            answered,
            "{}",
            shown(statement)
        );
    }
}
