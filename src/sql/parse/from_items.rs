//! What stands in FROM of a SELECT to the console: names, and where their columns come from.
//!
//! Invariant: columns that the text does not tell are unknown, and a depth that nobody writes by hand is not followed.

use crate::sql::console::{FromItem, Rows, Select};
use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, JoinExpr, Node, RangeVar, SelectStmt};

/// Reads a query in FROM, to a depth.
pub(super) type ReadSelect = fn(&SelectStmt, usize) -> Select;

/// The most items that are told apart. No tool asks for so many.
const MOST: usize = 100;

/// The items of FROM, in their order.
pub(super) fn from_items(stmt: &SelectStmt, depth: usize, read: ReadSelect) -> Vec<FromItem> {
    let mut items = Vec::new();
    stmt.from_clause.iter().for_each(|node| put(stmt, node, (depth, read), &mut items));
    if items.len() > MOST {
        items = vec![FromItem { alias: String::new(), rows: Rows::Unknown }];
    }
    items
}

fn put(stmt: &SelectStmt, node: &Node, (depth, read): (usize, ReadSelect), items: &mut Vec<FromItem>) {
    let unknown = |alias: String| FromItem { alias, rows: Rows::Unknown };
    let Some(node) = node.node.as_ref().filter(|_| depth > 0) else { return items.push(unknown(String::new())) };
    match node {
        NodeEnum::RangeVar(range) => {
            let alias = named(range.alias.as_ref()).unwrap_or_else(|| range.relname.clone());
            items.push(FromItem { alias, rows: relation(stmt, range, (depth - 1, read)) });
        }
        NodeEnum::JoinExpr(join) => {
            let sides = [&join.larg, &join.rarg].into_iter().flatten();
            sides.for_each(|side| put(stmt, side, (depth - 1, read), items));
            if merges(join) {
                items.push(unknown(String::new()));
            }
        }
        NodeEnum::RangeSubselect(range) => {
            let rows = range.subquery.as_ref().map_or(Rows::Unknown, |node| query(node, (depth - 1, read)));
            let rows = if renames(range.alias.as_ref()) { Rows::Unknown } else { rows };
            items.push(FromItem { alias: named(range.alias.as_ref()).unwrap_or_default(), rows });
        }
        NodeEnum::RangeFunction(range) => items.push(unknown(named(range.alias.as_ref()).unwrap_or_default())),
        _ => items.push(unknown(String::new())),
    }
}

/// Whether columns of both sides become one.
fn merges(join: &JoinExpr) -> bool {
    join.is_natural || !join.using_clause.is_empty() || join.alias.is_some()
}

fn named(alias: Option<&Alias>) -> Option<String> {
    alias.map(|alias| alias.aliasname.clone())
}

fn renames(alias: Option<&Alias>) -> bool {
    alias.is_some_and(|alias| !alias.colnames.is_empty())
}

fn relation(stmt: &SelectStmt, range: &RangeVar, how: (usize, ReadSelect)) -> Rows {
    if renames(range.alias.as_ref()) {
        return Rows::Unknown;
    }
    let tables = stmt.with_clause.iter().flat_map(|with| &with.ctes);
    let common = tables.filter_map(|node| match node.node.as_ref()? {
        NodeEnum::CommonTableExpr(table) if table.ctename == range.relname => Some(table),
        _ => None,
    });
    if let Some(table) = common.filter(|_| range.schemaname.is_empty()).last() {
        return match &table.ctequery {
            Some(node) if table.aliascolnames.is_empty() => query(node, how),
            _ => Rows::Unknown,
        };
    }
    Rows::Catalog(match range.schemaname.as_str() {
        "information_schema" => format!("information_schema.{}", range.relname),
        _ => range.relname.clone(),
    })
}

fn query(node: &Node, (depth, read): (usize, ReadSelect)) -> Rows {
    match node.node.as_ref() {
        // VALUES has no target list.
        Some(NodeEnum::SelectStmt(inner)) if depth > 0 && inner.values_lists.is_empty() => {
            Rows::Query(Box::new(read(inner, depth)))
        }
        _ => Rows::Unknown,
    }
}
