//! RETURNING of a write: whether it gives only values that the statement itself gave.
//!
//! Invariant: a value counts as given only if it is a constant or a parameter. Any other value may be another one when the statement
//! is run again.

use super::super::names::string;
use pg_query::NodeEnum;
use pg_query::protobuf::{
    ColumnRef, InsertStmt, Node, OnConflictAction, RangeVar, ResTarget, ReturningClause, UpdateStmt,
};

/// INSERT
pub(super) fn of_insert(stmt: &InsertStmt) -> bool {
    let Some(returning) = stmt.returning_clause.as_ref() else { return true };
    let updates = |on: &pg_query::protobuf::OnConflictClause| on.action() == OnConflictAction::OnconflictUpdate;
    if stmt.on_conflict_clause.as_deref().is_some_and(updates) {
        return false;
    }
    let columns: Vec<&str> = stmt
        .cols
        .iter()
        .filter_map(target)
        .filter(|target| target.indirection.is_empty())
        .map(|it| it.name.as_str())
        .collect();
    let rows = match stmt.select_stmt.as_ref().and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::SelectStmt(select)) => select.values_lists.as_slice(),
        _ => &[],
    };
    let in_row = |row: &Node, at: usize| match row.node.as_ref() {
        Some(NodeEnum::List(row)) => row.items.get(at).is_some_and(is_given),
        _ => false,
    };
    let is_named = columns.len() == stmt.cols.len() && !rows.is_empty();
    gives_only(returning, stmt.relation.as_ref(), |column| {
        let mut places = columns.iter().enumerate().filter(|(_, name)| **name == column).map(|(at, _)| at);
        is_named && places.next().is_some_and(|at| rows.iter().all(|row| in_row(row, at)))
    })
}

/// UPDATE
pub(super) fn of_update(stmt: &UpdateStmt) -> bool {
    let Some(returning) = stmt.returning_clause.as_ref() else { return true };
    let sets = |column: &str, target: &ResTarget| {
        target.name == column && target.indirection.is_empty() && target.val.as_deref().is_some_and(is_given)
    };
    gives_only(returning, stmt.relation.as_ref(), |column| {
        stmt.target_list.iter().filter_map(target).any(|target| sets(column, target))
    })
}

/// Whether RETURNING gives constants, and columns of the target that `given` says are given. Names of OLD and NEW give other values.
fn gives_only(returning: &ReturningClause, relation: Option<&RangeVar>, given: impl Fn(&str) -> bool) -> bool {
    let one = |node: &Node| match target(node).and_then(|target| target.val.as_deref()) {
        Some(value) if is_given(value) => true,
        Some(Node { node: Some(NodeEnum::ColumnRef(column)) }) => column_name(column, relation).is_some_and(&given),
        _ => false,
    };
    returning.options.is_empty() && returning.exprs.iter().all(one)
}

/// The column of `column`, `table.column` or `schema.table.column`, if the table is the target. Another relation of the statement may
/// have a column of that name.
fn column_name<'c>(column: &'c ColumnRef, relation: Option<&RangeVar>) -> Option<&'c str> {
    let relation = relation?;
    let name = relation.alias.as_ref().map_or(relation.relname.as_str(), |alias| alias.aliasname.as_str());
    let parts: Option<Vec<&str>> = column.fields.iter().map(string).collect();
    match parts?.as_slice() {
        [column] => Some(*column),
        [table, column] | [_, table, column] if *table == name && name != "old" => Some(*column),
        _ => None,
    }
}

fn target(node: &Node) -> Option<&ResTarget> {
    match node.node.as_ref()? {
        NodeEnum::ResTarget(target) => Some(target),
        _ => None,
    }
}

/// A constant or a parameter, perhaps with a cast.
fn is_given(value: &Node) -> bool {
    match value.node.as_ref() {
        Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_given),
        _ => false,
    }
}
