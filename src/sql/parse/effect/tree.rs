//! A walk over the whole tree of a statement: the relations, the functions and the writes in it.
//!
//! The walk goes over the serialized tree, whose code is generated together with the tree, so that no place of any node is forgotten.
//! Only the names of fields are known here. The tree of the parser has a limited depth, and so has the walk.
//!
//! Invariant: a name is left out only if it certainly means a CTE.

use super::super::names::some;
use crate::pg::RelationName;
use pg_query::NodeEnum;
use pg_query::protobuf::LockWaitPolicy;
use serde_json::{Map, Value};

/// What stands in a tree.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each once.
    pub(super) relations: Vec<RelationName>,
    pub(super) calls: Vec<Call>,
    /// INSERT, UPDATE, DELETE and MERGE, the statement itself among them.
    pub(super) writes: usize,
    /// FOR UPDATE and the like.
    pub(super) locks_rows: bool,
    /// SKIP LOCKED
    pub(super) skips_locked: bool,
    /// CURRENT_TIMESTAMP, CURRENT_USER and the like.
    pub(super) session_values: bool,
}

/// A call of a function.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: RelationName,
    /// The first argument, if it is a constant string.
    pub(super) first: Option<String>,
}

impl Found {
    pub(super) fn add(&mut self, name: RelationName) {
        if !name.name.is_empty() && !self.relations.contains(&name) {
            self.relations.push(name);
        }
    }
}

/// `None`: the tree cannot be walked.
pub(super) fn walk(node: &NodeEnum) -> Option<(Value, Found)> {
    let tree = serde_json::to_value(node).ok()?;
    let mut found = Found::default();
    visit(&tree, &[], &mut found);
    Some((tree, found))
}

/// `ctes`: the names of the CTEs that the value may refer to.
fn visit(value: &Value, ctes: &[&str], found: &mut Found) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| visit(item, ctes, found)),
        Value::Object(fields) => object(fields, ctes, found),
        _ => {}
    }
}

fn object<'v>(fields: &'v Map<String, Value>, ctes: &[&'v str], found: &mut Found) {
    if let Some(name) = range_var(fields) {
        if name.schema.is_some() || !ctes.contains(&name.name.as_str()) {
            found.add(name);
        }
        return;
    }
    if fields.contains_key("agg_star") {
        let parts = strings(fields.get("funcname"));
        if let Some(name) = super::super::names::dotted(&parts) {
            found.calls.push(Call { name, first: fields.get("args").and_then(|args| constant(args.get(0)?)) });
        }
    }
    if let Some(policy) = fields.get("wait_policy") {
        found.locks_rows = true;
        found.skips_locked |= policy.as_i64() == Some(i64::from(LockWaitPolicy::LockWaitSkip as i32));
    }
    let mut inner = ctes.to_vec();
    if let Some(with) = fields.get("with_clause").filter(|with| !with.is_null()) {
        with_clause(with, &mut inner, found);
    }
    for (field, value) in fields {
        match field.as_str() {
            // The relations of FOR UPDATE OF are aliases of relations that stand in FROM.
            "with_clause" | "locked_rels" => continue,
            // The target of a write is never a CTE.
            "relation" if fields.contains_key("returning_clause") => {
                visit(value, &[], found);
                continue;
            }
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => found.writes += 1,
            "SqlvalueFunction" => found.session_values = true,
            _ => {}
        }
        visit(value, &inner, found);
    }
}

/// Visits the queries of WITH, and adds their names. A query sees the CTEs before it, and WITH RECURSIVE sees all.
fn with_clause<'v>(with: &'v Value, ctes: &mut Vec<&'v str>, found: &mut Found) {
    let name = |cte: &'v Value| cte.pointer("/node/CommonTableExpr/ctename").and_then(Value::as_str);
    let all = with.get("ctes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if with.get("recursive").and_then(Value::as_bool) == Some(true) {
        ctes.extend(all.iter().filter_map(name));
        all.iter().for_each(|cte| visit(cte, ctes, found));
        return;
    }
    for cte in all {
        visit(cte, ctes, found);
        ctes.extend(name(cte));
    }
}

fn range_var(fields: &Map<String, Value>) -> Option<RelationName> {
    let name = fields.get("relname")?.as_str()?;
    let schema = fields.get("schemaname")?.as_str()?;
    let temporary = fields.get("relpersistence").and_then(Value::as_str) == Some("t");
    let schema = if temporary { Some("pg_temp".to_owned()) } else { some(schema) };
    Some(RelationName { schema, name: name.to_owned() })
}

/// The strings of a list of nodes.
pub(super) fn strings(list: Option<&Value>) -> Vec<&str> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(|item| item.pointer("/node/String/sval")?.as_str()).collect()
}

/// The value of a constant string, perhaps with a cast.
fn constant(node: &Value) -> Option<String> {
    match node.pointer("/node/TypeCast/arg") {
        Some(inner) => constant(inner),
        None => Some(node.pointer("/node/AConst/val/Sval/sval")?.as_str()?.to_owned()),
    }
}
