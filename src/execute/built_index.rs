//! Which index a phase has built. The server does not tell the oid of an index that it has built concurrently.
//!
//! This file owns no state. It keeps true that an index is taken for the plan's own only if nothing speaks for another session's: the index
//! has the name that the author gave, or it is the only new index of the table, or the only one with the wanted definition.

use crate::catalog::identity::{self, IDENTITY_SQL, NEW_INDEXES_SQL};
use crate::catalog::query::array;
use crate::execute::context::ExecutionContext;
use crate::execute::outcome::{Reply, RunError};
use crate::execute::state::RunState;
use crate::pg::sqlstate;
use crate::plan::hoist::plain_definition;
use crate::plan::{Phase, Undo};
use crate::wire::error_response::ServerError;
use crate::wire::frame::{BACKEND_LIMIT, Header};
use bytes::Bytes;

/// The oid of no index, for an index that an undo must not drop.
pub(super) const NOBODYS: u32 = 0;

/// A new index: its oid, and its definition.
type NewIndex = (u32, String);

/// Notes the oid of an index that a phase has built, because an undo may have to drop the index. `reply` has what the server said of the
/// build.
pub(super) async fn note(
    context: &mut ExecutionContext<'_>,
    state: &mut RunState,
    at: usize,
    phase: &Phase,
    reply: &Reply,
) -> Result<(), RunError> {
    match &phase.undo {
        // With IF NOT EXISTS the server may have found an index of that name.
        Some(Undo::DropBuiltIndex { .. }) if phase.steps.iter().any(|step| step.visible) && says_exists(reply) => {
            state.note_built(at, NOBODYS);
        }
        Some(Undo::DropBuiltIndex { oid, index, .. }) => {
            let parameters = identity::parameters(std::iter::once(("index", *oid, index.name.as_str())));
            let answer =
                context.channel_mut().ask_one(IDENTITY_SQL, &parameters.each_ref().map(String::as_str)).await?;
            if let Some(oid) = answer.rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok()) {
                state.note_built(at, oid);
            }
        }
        Some(Undo::DropNewIndex { oid, before, definition, .. }) => {
            let found = new_indexes(context, *oid, before).await?;
            let built = match found.as_slice() {
                [(only, _)] => Some(*only),
                several => with_definition(several, definition),
            };
            state.note_built(at, built.unwrap_or(NOBODYS));
        }
        _ => {}
    }
    Ok(())
}

/// Returns the valid index without a written name that a lost session has built in this phase, if there is just one with its definition.
pub(super) async fn of_lost_session(
    context: &mut ExecutionContext<'_>,
    phase: &Phase,
) -> Result<Option<u32>, RunError> {
    let Some(Undo::DropNewIndex { oid, before, definition, .. }) = &phase.undo else { return Ok(None) };
    let found = new_indexes(context, *oid, before).await?;
    Ok(with_definition(&found, definition))
}

/// Returns the valid indexes of a table that are not among those of before.
async fn new_indexes(
    context: &mut ExecutionContext<'_>,
    table: u32,
    before: &[u32],
) -> Result<Vec<NewIndex>, RunError> {
    let before: Vec<String> = before.iter().map(u32::to_string).collect();
    let before = array(before.iter().map(|oid| Some(oid.as_str())));
    let rows = context.surely(NEW_INDEXES_SQL, &[&table.to_string(), &before]).await?;
    let index = |row: &Vec<Option<String>>| Some((row.first()?.as_deref()?.parse().ok()?, row.get(1)?.clone()?));
    Ok(rows.iter().filter_map(index).collect())
}

/// Returns the index with this definition, if there is just one.
fn with_definition(found: &[NewIndex], definition: &str) -> Option<u32> {
    let mut equal = found.iter().filter(|(_, text)| plain_definition(text).is_some_and(|text| text == definition));
    equal.next().map(|(oid, _)| *oid).filter(|_| equal.next().is_none())
}

/// Whether the server has said that a relation exists already, so that it made none.
fn says_exists(reply: &Reply) -> bool {
    let mut rest = &reply.frames[..];
    while let Ok(Some(header)) = Header::read(rest, BACKEND_LIMIT)
        && let Some((frame, after)) = rest.split_at_checked(header.total())
    {
        if header.tag == b'N' && ServerError::new(Bytes::copy_from_slice(frame)).sqlstate() == sqlstate::DUPLICATE_TABLE
        {
            return true;
        }
        rest = after;
    }
    false
}
