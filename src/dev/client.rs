//! A blocking client for `dev` and `demo`: one connection, and one call at a time.

use crate::config::Address;
use crate::operator::said;
use crate::pg::sqlstate;
use crate::report::Report;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Statement};

pub(super) struct Client {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl Client {
    pub(super) fn connect(address: &Address, user: &str, dbname: &str) -> Result<Self, Report> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(format!("could not start a runtime: {error}")))?;
        let mut config = tokio_postgres::Config::new();
        config.host(address.libpq_host()).port(address.port()).user(user).dbname(dbname);
        let (client, connection) = runtime
            .block_on(config.connect(NoTls))
            .map_err(|error| failed(format!("could not connect to {address}: {}", said(&error))))?;
        // The task ends with the runtime. Its error shows in the client's next call.
        runtime.spawn(async { drop(connection.await) });
        Ok(Self { runtime, client })
    }

    /// Runs SQL by the simple protocol.
    pub(super) fn run(&self, sql: &str) -> Result<(), Report> {
        self.try_run(sql).map_err(|error| report(&error))
    }

    /// The text that a query gives.
    pub(super) fn text(&self, sql: &str) -> Result<String, Report> {
        let row = self.runtime.block_on(self.client.query_one(sql, &[])).map_err(|error| report(&error))?;
        row.try_get(0).map_err(|error| report(&error))
    }

    /// Runs SQL as [`Client::run`] does. `Ok(false)` means that a lock was not available (55P03).
    pub(super) fn run_if_lock_is_free(&self, sql: &str) -> Result<bool, Report> {
        match self.try_run(sql) {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
            Err(error) => Err(report(&error)),
        }
    }

    fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<Statement, Report> {
        self.runtime.block_on(self.client.prepare(sql)).map_err(|error| report(&error))
    }

    pub(super) fn execute(&self, statement: &Statement, parameter: &(dyn ToSql + Sync)) -> Result<(), Report> {
        let done = self.runtime.block_on(self.client.execute(statement, &[parameter]));
        done.map(drop).map_err(|error| report(&error))
    }
}

fn report(error: &tokio_postgres::Error) -> Report {
    failed(said(error))
}

fn failed(message: impl Into<String>) -> Report {
    Report::error(sqlstate::CONNECTION_FAILURE, message)
}
