//! The progress of a long build. The operator's own connection reads it while the session's backend is busy.
//!
//! This file owns the task that reads the progress. Without `[operator]` in `proxy.toml` there is no such task, and a build reports nothing
//! until it ends. It keeps true that a failure here is logged and never disturbs the build.

use crate::catalog::SessionFacts;
use crate::config::Config;
use crate::net::{Target, tasks};
use crate::operator;
use crate::pg::sqlstate;
use crate::report::Report;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The task that reads the progress. The task stops when this value is dropped.
#[derive(Debug)]
pub(super) struct Watch(Option<JoinHandle<()>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Starts a task that sends the progress of the build in the session's backend to `tell`, once per `progress_interval`. Before PostgreSQL
/// 12 the server does not report it.
pub(super) fn watch(config: &Config, backend: &Target, session: &SessionFacts, tell: mpsc::Sender<Report>) -> Watch {
    let pid = session.backend_pid;
    if config.operator.user.is_none() || !config.ddl.notices || session.server_version < 120_000 {
        // The sender must live as long as the step, because a closed channel would be polled without end.
        return Watch(Some(tasks::spawn(async move { tell.closed().await })));
    }
    let connection = operator::settings(config, backend);
    let interval = config.ddl.progress_interval;
    Watch(Some(tasks::spawn(async move {
        if let Err(error) = report_all(&connection, pid, interval, &tell).await {
            tracing::warn!(%error, "cannot report the progress of a build: the operator's connection failed");
        }
        tell.closed().await;
    })))
}

/// Reads and sends the progress until the receiver is closed.
async fn report_all(
    connection: &operator::Settings,
    pid: i32,
    interval: Duration,
    tell: &mpsc::Sender<Report>,
) -> Result<(), operator::Error> {
    // The delay saves the connection for a short build.
    tokio::time::sleep(interval.min(Duration::from_secs(1))).await;
    let operator = operator::connect(connection).await?;
    loop {
        if let Some(progress) = operator.build_progress(pid).await? {
            let percent = progress.percent.map(|p| format!(", {p} %")).unwrap_or_default();
            let message = format!("building: {}{percent}", progress.phase);
            let mut report = Report::notice(sqlstate::SUCCESSFUL_COMPLETION, message);
            if let Some(waits_for) = progress.waits_for {
                report = report.detail(format!("The build waits for {waits_for} to end its transaction."));
            }
            if tell.send(report).await.is_err() {
                return Ok(());
            }
        }
        tokio::time::sleep(interval).await;
    }
}
