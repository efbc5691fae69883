//! Sessions whose schema changes are only guarded: the role may not ask the questions of a plan, or a pooler stands behind the proxy.
//!
//! It owns the knowledge about the session's backend and role. It keeps true: without the answers no plan is made. Behind a pooler, state that
//! a plan leaves in its session, such as a lane, would stay on the pooled connection. So the statement is run as written, under lock attempts
//! (`execute/guarded.rs`), and the client is told so once.

use super::context::StatementContext;
use crate::catalog::may_ask;
use crate::execute::as_written::as_written;
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::session::shared::pid_of;
use crate::session::statement::stands_alone;

use crate::wire::error_response::ServerError;

/// The knowledge about the session's backend and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Known {
    #[default]
    Nothing,
    /// Plans can be made.
    MayPlan,
    OnlyGuards,
}

/// Whether plans can be made in this session.
#[derive(Debug, Default)]
pub(super) struct PlanningRights(Known);

impl PlanningRights {
    /// Whether schema changes are known to be only guarded.
    pub(super) fn are_missing(&self) -> bool {
        self.0 == Known::OnlyGuards
    }

    /// Whether schema changes are only guarded. The server is asked once, and not again for a database and role that may plan, since the
    /// question costs a new session 10 ms. A right that is revoked later is noticed when the facts are asked for.
    pub(super) async fn look(&mut self, context: &mut StatementContext<'_>) -> Result<bool, RunError> {
        if self.0 != Known::Nothing {
            return Ok(self.are_missing());
        }
        let (shared, log) = (context.log.shared(), context.log);
        if shared.may_plan(log.database(), log.role()) {
            self.0 = Known::MayPlan;
            return Ok(false);
        }
        let answer = context.channel.ask_in_savepoint(&may_ask::question()).await?;
        if let Some(error) = answer.error {
            return match error.sqlstate() {
                sqlstate::QUERY_CANCELED => Err(cancelled(context, error)),
                _ => self.refused(context, &error).await.map(|()| true),
            };
        }
        let row = answer.rows.into_iter().next().unwrap_or_default();
        let mut values = row.into_iter();
        let pid: Option<i32> = values.next().flatten().and_then(|pid| pid.parse().ok());
        let refused = values.next().flatten();
        if pid_of(context.channel.backend_key()).is_some_and(|given| Some(given) != pid) {
            self.only_guard(context, &behind_a_pooler()).await?;
        } else if let Some(names) = refused {
            let why = format!("The role may not use {names} of pg_catalog.");
            self.only_guard(context, &not_permitted(&why)).await?;
        } else {
            self.0 = Known::MayPlan;
            shared.note_may_plan(log.database(), log.role());
        }
        Ok(self.are_missing())
    }

    /// The server has refused a question of the proxy's. The savepoint that the proxy has set before it in a block is taken back.
    pub(super) async fn refused(
        &mut self,
        context: &mut StatementContext<'_>,
        error: &ServerError,
    ) -> Result<(), RunError> {
        context.log.shared().forget_may_plan(context.log.database(), context.log.role());
        context.channel.roll_back_question().await?;
        self.only_guard(context, &not_permitted(&format!("The server says: {}.", error.message()))).await
    }

    async fn only_guard(&mut self, context: &mut StatementContext<'_>, report: &Report) -> Result<(), RunError> {
        self.0 = Known::OnlyGuards;
        let (user, database) = (context.log.role(), context.log.database());
        tracing::warn!(user, database, detail = report.detail, "{}", report.message);
        // SHOW needs no privilege.
        let heard = context.channel.ask_one("SHOW client_min_messages", &[]).await?;
        let hushed = heard.value().is_some_and(|level| matches!(level, "warning" | "error" | "fatal" | "panic"));
        if context.config().ddl.notices && !hushed {
            context.channel.notify(report);
        }
        Ok(())
    }
}

/// Runs the statement as written.
pub(super) async fn run_as_written(context: &mut StatementContext<'_>) -> Result<Reply, RunError> {
    let statement = context.statement;
    context.log.guarded(statement);
    let alone = stands_alone(statement);
    let session = context.facts_without_questions();
    let result = as_written(&mut context.run(&session), statement, alone).await;
    if let Err(stop) = &result {
        context.log.failed_as_written(stop);
    }
    result
}

fn cancelled(context: &StatementContext<'_>, error: ServerError) -> RunError {
    context.channel.take_cancelled();
    if context.channel.client_gone() { RunError::ClientGone } else { RunError::Server(error) }
}

const MESSAGE: &str = "schema changes of this session are run as written, under lock attempts";

fn not_permitted(why: &str) -> Report {
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, MESSAGE)
        .detail(format!("The proxy may not ask what it needs to know for a plan. {why}"))
        .hint("Grant the role what PUBLIC has by default, or run schema changes of large tables as another role.")
}

fn behind_a_pooler() -> Report {
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, MESSAGE)
        .detail("A pooler stands between the proxy and the server: the backend that answers is not the one that the login has named.")
        .hint("Let the proxy connect to the server itself. A pooler may stand in front of the proxy.")
}
