//! What stands in FROM of a SELECT to the console: names, and where their columns come from.
//!
//! Invariant: columns that the text does not tell are unknown. So are those of a text that is deeper or longer than what tools send: a query of WITH is
//! read wherever it is named, and a short text can name one that names another so often that nobody could wait for the answer.

use crate::sql::console::{FromItem, Rows, Select};
use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, JoinExpr, Node, RangeVar, SelectStmt};
use std::cell::Cell;

/// Reads a query in FROM.
pub(super) type ReadSelect = fn(&SelectStmt, Room<'_>) -> Select;

/// The most items of one FROM that are told apart. No tool asks for so many.
const MOST: usize = 100;

/// The most columns and items of queries in FROM that are read for one text.
const MOST_READ: usize = 2000;

/// How much of a text is still read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl Room<'_> {
    /// Gives `read` all the room that there is for one text.
    pub(super) fn whole<T>(depth: usize, read: impl FnOnce(Room<'_>) -> T) -> T {
        read(Room { depth, left: &Cell::new(MOST_READ) })
    }

    fn deeper(self) -> Option<Self> {
        Some(Self { depth: self.depth.checked_sub(1)?, ..self })
    }

    /// Whether there is room for so many more columns and items. They are read then.
    fn takes(self, count: usize) -> bool {
        let left = self.left.get().checked_sub(count);
        left.inspect(|left| self.left.set(*left)).is_some()
    }
}

/// The items of FROM, in their order.
pub(super) fn from_items(stmt: &SelectStmt, room: Room<'_>, read: ReadSelect) -> Vec<FromItem> {
    let mut items = Vec::new();
    stmt.from_clause.iter().for_each(|node| put(stmt, node, (room, read), &mut items));
    if items.len() > MOST {
        items = vec![FromItem { alias: String::new(), rows: Rows::Unknown }];
    }
    items
}

fn put(stmt: &SelectStmt, node: &Node, (room, read): (Room<'_>, ReadSelect), items: &mut Vec<FromItem>) {
    let unknown = |alias: String| FromItem { alias, rows: Rows::Unknown };
    let (Some(node), Some(room)) = (node.node.as_ref(), room.deeper()) else {
        return items.push(unknown(String::new()));
    };
    match node {
        NodeEnum::RangeVar(range) => {
            let alias = named(range.alias.as_ref()).unwrap_or_else(|| range.relname.clone());
            items.push(FromItem { alias, rows: relation(stmt, range, (room, read)) });
        }
        NodeEnum::JoinExpr(join) => {
            let sides = [&join.larg, &join.rarg].into_iter().flatten();
            sides.for_each(|side| put(stmt, side, (room, read), items));
            if merges(join) {
                items.push(unknown(String::new()));
            }
        }
        NodeEnum::RangeSubselect(range) => {
            let rows = range.subquery.as_ref().map_or(Rows::Unknown, |node| query(node, (room, read)));
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

fn relation(stmt: &SelectStmt, range: &RangeVar, how: (Room<'_>, ReadSelect)) -> Rows {
    if renames(range.alias.as_ref()) {
        return Rows::Unknown;
    }
    let tables = stmt.with_clause.iter().flat_map(|with| &with.ctes);
    let mut common = tables.filter_map(|node| match node.node.as_ref()? {
        NodeEnum::CommonTableExpr(table) if table.ctename == range.relname => Some(table),
        _ => None,
    });
    if let Some(table) = common.rfind(|_| range.schemaname.is_empty()) {
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

fn query(node: &Node, (room, read): (Room<'_>, ReadSelect)) -> Rows {
    match node.node.as_ref() {
        // VALUES has no target list.
        Some(NodeEnum::SelectStmt(inner))
            if inner.values_lists.is_empty() && room.takes(1 + inner.target_list.len() + inner.from_clause.len()) =>
        {
            Rows::Query(Box::new(read(inner, room)))
        }
        _ => Rows::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::select;
    use super::*;

    fn from(text: &str) -> Vec<FromItem> {
        select(text).unwrap().unwrap().from
    }

    #[test]
    fn items_have_names_and_sources() {
        let items = from("SELECT * FROM pg_class c JOIN information_schema.tables ON true, (SELECT 1 AS one) s, f() g");
        let names: Vec<&str> = items.iter().map(|item| item.alias.as_str()).collect();
        assert_eq!(names, ["c", "tables", "s", "g"]);
        assert_eq!(items[0].rows, Rows::Catalog("pg_class".to_owned()));
        assert_eq!(items[1].rows, Rows::Catalog("information_schema.tables".to_owned()));
        assert!(matches!(&items[2].rows, Rows::Query(select) if select.columns[0].name == "one"));
        assert_eq!(items[3].rows, Rows::Unknown);
        let with = from("WITH pg_class AS (SELECT 1 AS one) SELECT * FROM pg_class, pg_catalog.pg_class");
        assert!(matches!((&with[0].rows, &with[1].rows), (Rows::Query(_), Rows::Catalog(_))));
        for text in [
            "SELECT * FROM pg_class a JOIN pg_class b USING (oid)",
            "SELECT * FROM pg_class a NATURAL JOIN pg_class b",
            "SELECT * FROM pg_class AS c (x)",
            "SELECT * FROM (VALUES (1)) v",
        ] {
            assert!(from(text).iter().any(|item| item.rows == Rows::Unknown), "{text}");
        }
    }

    /// Without a limit this one would be read 8^12 times.
    #[test]
    fn a_query_of_with_is_not_read_without_end() {
        let mut text = "SELECT 1 AS one".to_owned();
        for _ in 0..12 {
            text = format!("WITH c AS ({text}) SELECT * FROM c, c, c, c, c, c, c, c");
        }
        let mut read = 0;
        let mut open = from(&text);
        while let Some(item) = open.pop() {
            read += 1;
            if let Rows::Query(select) = item.rows {
                open.extend(select.from);
            }
        }
        assert!((100..=MOST_READ).contains(&read), "{read}");
    }
}
