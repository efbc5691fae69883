//! Sessions whose schema changes are only guarded: the role may not ask what a plan needs to know, or a pooler stands behind the proxy.
//!
//! Without the answers there is no plan, and behind a pooler nothing that a plan leaves in its session, such as a lane, is its own: it would
//! stay on the pooled connection. So the statement is run as written, under lock attempts (`execute/guarded.rs`), and the client is
//! told so once.

use super::Session;
use super::shared::pid_of;
use super::statement::shown;
use crate::catalog::may_ask;
use crate::execute::{Reply, RunError};
use crate::pg::sqlstate;
use crate::report::Report;
use crate::sql::{Class, Statement};
use crate::wire::error_response::ServerError;
use crate::wire::message::Batch;

/// What is known of the session's backend and role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum GuardOnly {
    #[default]
    Unknown,
    /// Plans can be made.
    No,
    Yes,
}

impl Session {
    /// Whether its schema changes are only guarded. Asked once, and not again for a database and role that were found to be free: it costs
    /// a new session 10 ms. What is revoked later is noticed when the facts are asked for.
    pub(super) async fn only_guards(&mut self) -> Result<bool, RunError> {
        if self.guard_only != GuardOnly::Unknown {
            return Ok(self.guard_only == GuardOnly::Yes);
        }
        let (database, role) = self.database_and_role();
        if self.shared.may_plan(database, role) {
            self.guard_only = GuardOnly::No;
            return Ok(false);
        }
        let inside = self.channel.status() == b'T';
        let mut batch = Batch::new();
        if inside {
            batch.statement("SAVEPOINT pgsluice", &[]);
        }
        batch.statement(&may_ask::question(), &[]);
        if inside {
            batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
        }
        let answer = self.channel.ask(batch, None).await?;
        if let Some(error) = answer.error {
            return match error.sqlstate() {
                sqlstate::QUERY_CANCELED => Err(self.cancelled(error)),
                _ => self.refused(&error).await.map(|()| true),
            };
        }
        let row = answer.rows.into_iter().next().unwrap_or_default();
        let mut values = row.into_iter();
        let pid: Option<i32> = values.next().flatten().and_then(|pid| pid.parse().ok());
        let refused = values.next().flatten();
        if pid_of(self.channel.backend_key()).is_some_and(|given| Some(given) != pid) {
            self.only_guard(&behind_a_pooler()).await?;
        } else if let Some(names) = refused {
            self.only_guard(&not_permitted(&format!("The role may not use {names} of pg_catalog."))).await?;
        } else {
            self.guard_only = GuardOnly::No;
            let (database, role) = self.database_and_role();
            self.shared.note_may_plan(database, role);
        }
        Ok(self.guard_only == GuardOnly::Yes)
    }

    /// A question of the proxy's own was refused: what it put before it in a block is taken back.
    pub(super) async fn refused(&mut self, error: &ServerError) -> Result<(), RunError> {
        let (database, role) = self.database_and_role();
        self.shared.forget_may_plan(database, role);
        if self.channel.status() == b'E' {
            let mut batch = Batch::new();
            batch.statement("ROLLBACK TO SAVEPOINT pgsluice", &[]);
            batch.statement("RELEASE SAVEPOINT pgsluice", &[]);
            self.channel.ask(batch, None).await?;
        }
        self.only_guard(&not_permitted(&format!("The server says: {}.", error.message()))).await
    }

    fn cancelled(&self, error: ServerError) -> RunError {
        self.channel.take_cancelled();
        if self.channel.client_gone() { RunError::ClientGone } else { RunError::Server(error) }
    }

    async fn only_guard(&mut self, report: &Report) -> Result<(), RunError> {
        self.guard_only = GuardOnly::Yes;
        let (user, database) = (&self.parameters.user, &self.parameters.database);
        tracing::warn!(user, database, detail = report.detail, "{}", report.message);
        // SHOW needs no privilege.
        let heard = self.channel.ask_one("SHOW client_min_messages", &[]).await?;
        let hushed = heard.value().is_some_and(|level| matches!(level, "warning" | "error" | "fatal" | "panic"));
        if self.shared.config.ddl.notices && !hushed {
            self.channel.notify(report);
        }
        Ok(())
    }

    /// The statement as written.
    pub(super) async fn guard_only(&mut self, statement: &Statement, offset: usize) -> Result<Reply, RunError> {
        self.shared.metrics.ddl_guarded_only.add();
        let alone = match &statement.class {
            Class::Ddl(ddl) => {
                self.log_line(&ddl.tag, 1, false, shown(statement));
                ddl.parts.iter().any(|part| !part.form.row().in_transaction)
            }
            _ => false,
        };
        let session = self.unasked();
        let result = self.execution(&session, offset).as_written(statement, alone).await;
        match &result {
            Ok(_) => self.done(statement, None),
            Err(stop) => {
                self.shared.metrics.ddl_failed.add();
                tracing::info!(reason = stop.reason(), "a schema change did not come to its end");
            }
        }
        result
    }
}

const MESSAGE: &str = "schema changes of this session are run as written, under lock attempts";

fn not_permitted(why: &str) -> Report {
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, MESSAGE)
        .detail(format!("What the proxy would have to know before it makes a plan it may not ask. {why}"))
        .hint("Grant the role what is everybody's by default, or run schema changes of large tables as another one.")
}

fn behind_a_pooler() -> Report {
    Report::notice(sqlstate::SUCCESSFUL_COMPLETION, MESSAGE)
        .detail(
            "A pooler stands between the proxy and the server, as another backend answers than the login has named.",
        )
        .hint("Let the proxy connect to the server itself; a pooler may stand in front of the proxy.")
}
