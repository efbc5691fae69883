//! EXPLAIN of a statement: its plan as text. The plan is made from the same facts as for a run.
//!
//! It owns nothing. It keeps true: EXPLAIN leaves no change behind. In the client's transaction it changes nothing of the transaction either.

use super::conditions;
use super::context::{Place, StatementContext};
use super::gate;
use super::place::{not_ahead, refusal, sees_an_old_state};
use super::record::explain_recorded;
use super::rights::PlanningRights;
use crate::catalog::Facts;
use crate::catalog::inquiry::index::IndexInquiry;
use crate::config::InTransaction;
use crate::execute::{RunError, Suspend};
use crate::plan::ahead::NotAhead;
use crate::plan::block_place::BlockPlace;
use crate::plan::{self, Plan, hoist, print};
use crate::sql::Statement;

/// The plan of the statement as text, or the reason why it has none. The context's place says for which place the plan is made:
/// [`Place::Anywhere`] is an error if the statement would make the application wait in the client's transaction, and may be done ahead of it.
/// For [`Place::Ahead`] the caller says that the statement goes ahead.
pub(super) async fn plan_in_words(
    context: &mut StatementContext<'_>,
    rights: &mut PlanningRights,
) -> Result<String, RunError> {
    if rights.look(context).await? {
        let gate = gate::explain_by_text(context);
        return Ok(gate + "as written, under lock attempts: this session may not ask for what a plan needs");
    }
    if matches!(context.place(), Place::Ahead(_)) {
        return ahead_in_words(context).await;
    }
    let statement = context.statement;
    loop {
        let facts = context.facts().of(statement).await?;
        if let Some(continued) = explain_recorded(context, &facts).await? {
            return Ok(continued);
        }
        let plan = match plan::plan(statement, &facts, &context.limits()) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(refusal.report.to_string()),
        };
        conditions::look(context, &facts).await?;
        if let Some(gate) = gate::explain(context, &facts, &plan) {
            return Ok(gate + &placed(context, &facts, &plan)?);
        }
    }
}

/// The plan of a statement that goes ahead of the client's transaction.
async fn ahead_in_words(context: &mut StatementContext<'_>) -> Result<String, RunError> {
    let (statement, limits) = (context.statement, context.limits());
    let facts = context.facts().of_outside(statement).await?;
    if facts.tree.is_none() && IndexInquiry::new(statement, &facts, limits.small_table).is_some() {
        return Ok(print::unknown(PARTITIONS_UNKNOWN));
    }
    let plan = plan::plan(statement, &facts, &limits).map_err(|refusal| RunError::Report(refusal.report))?;
    conditions::look(context, &facts).await?;
    // Settings that a rule changes would have kept the statement in its place.
    let gate = gate::explain(context, &facts, &plan).unwrap_or_default();
    let plan = hoist::with_full_undo(plan, statement, &facts).map_err(|why| RunError::Report(not_ahead(&why)))?;
    let mut text = gate + &print::to_text(&plan);
    if plan.warns() && is_unprobed(statement, &facts) {
        text += &print::unknown(REWRITE_UNKNOWN);
    }
    Ok(text)
}

/// Whether a copy of the table would tell what the server does, and none was made.
fn is_unprobed(statement: &Statement, facts: &Facts) -> bool {
    let parts = statement.ddl().map(|ddl| ddl.parts.as_slice()).unwrap_or_default();
    parts.iter().zip(&facts.probe).any(|(part, answer)| part.probe.is_some() && answer.is_none())
}

const REWRITE_UNKNOWN: &str = "Whether the server rewrites the table is not known here, because EXPLAIN makes no copy of a table in a \
     transaction. When the statement is run ahead of the transaction, that is known, and the plan may be a better one.";

const PARTITIONS_UNKNOWN: &str = "It depends on the indexes of the partitions. To compare them EXPLAIN would need a temporary table, \
     with which this transaction could not be prepared any more (PREPARE TRANSACTION). EXPLAIN outside a transaction shows the plan. If a \
     partition has its part of the index already, the statement keeps its place in the transaction.";

/// The plan as text, with its place if the client is in a transaction.
fn placed(context: &StatementContext<'_>, facts: &Facts, plan: &Plan) -> Result<String, RunError> {
    let text = print::to_text(plan);
    if !facts.session.in_transaction || !context.makes_phases() || plan.answer.is_some() {
        return Ok(text);
    }
    let place = match (context.place(), context.config().ddl.in_transaction) {
        _ if !plan.warns() => BlockPlace::Inside,
        (Place::InBlock(Some(why)), _) => BlockPlace::NotAhead(why.clone()),
        (_, InTransaction::Hoist) if facts.session.frozen_snapshot => BlockPlace::NotAhead(sees_an_old_state()),
        (_, InTransaction::Hoist) => return Err(RunError::Suspend(Suspend::WouldStall)),
        (_, InTransaction::Guard) => BlockPlace::NotAhead(NotAhead {
            detail: "It keeps its place, because in_transaction in [ddl] of proxy.toml is \"guard\".".to_owned(),
            hint: "Send the statement outside a transaction, or set in_transaction = \"hoist\".".to_owned(),
        }),
        (_, InTransaction::Refuse) => return Ok(refusal(plan).to_string()),
    };
    Ok(print::place_to_text(&place) + &text)
}
