//! EXPLAIN of a schema change, with the place that it would have if the client is in a transaction.
//!
//! It owns nothing. It keeps true: the choice is the one that [`AheadRun::run`] would make now, from the same questions. Nothing is suspended, and
//! the transaction is as before.

use super::{AheadRun, not_done};
use crate::backend::BackendLost;
use crate::execute::{RunError, Suspend};
use crate::pg::relation::quote_literal;
use crate::plan::block_place::{BlockPlace, EarlierStatement};
use crate::plan::print;
use crate::session::change::Place;
use crate::session::sent::Case;
use crate::sql::Statement;

impl AheadRun<'_> {
    /// The query that gives the lines of the statement's plan.
    pub(in crate::session) async fn explain(&mut self, statement: &Statement) -> Result<String, BackendLost> {
        let lines = match Box::pin(self.plan_in_words(statement)).await {
            Ok(lines) => lines,
            Err(RunError::Server(error)) => format!("{}: {}", error.sqlstate(), error.message()),
            Err(RunError::Report(report)) => report.to_string(),
            Err(RunError::ClientGone | RunError::Lost) => return Err(BackendLost),
            Err(stop @ (RunError::Stale | RunError::Slow | RunError::Suspend(_))) => stop.reason(),
        };
        // A question that has failed is no failure of the client's transaction.
        self.channel.roll_back_question().await?;
        let rows: Vec<String> = lines.lines().map(|line| format!("({})", quote_literal(line))).collect();
        Ok(format!("SELECT line AS \"QUERY PLAN\" FROM (VALUES {}) AS plan(line)", rows.join(", ")))
    }

    async fn plan_in_words(&mut self, statement: &Statement) -> Result<String, RunError> {
        match self.changes.explain(self.channel, statement, Place::Anywhere).await {
            Err(RunError::Suspend(Suspend::WouldStall)) => {}
            lines => return lines,
        }
        let why = match self.case(statement).await? {
            Err(why) => why,
            Ok(case) => match self.changes.explain(self.channel, statement, Place::Ahead).await {
                Ok(lines) => return Ok(print::place_to_text(&ahead(&case)) + &lines),
                Err(stop @ RunError::Report(_)) => not_done(&stop),
                Err(stop) => return Err(stop),
            },
        };
        self.changes.explain(self.channel, statement, Place::InBlock(Some(&why))).await
    }
}

fn ahead(case: &Case) -> BlockPlace {
    let earlier = |(place, statement): (usize, &Statement)| EarlierStatement {
        at: format!("statement {}", case.number(place)),
        statement: statement.text.clone(),
    };
    BlockPlace::Ahead { with: case.going_ahead().map(earlier).collect() }
}
