//! Names in the parser's nodes.
//!
//! Invariant: a node of an unforeseen kind gives no name, never a wrong one.

use crate::pg::RelationName;
use pg_query::protobuf::{Node, RangeVar};
use pg_query::{NodeEnum, protobuf};

/// `text`, unless it is empty: the parser writes the empty string for "none".
pub(super) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn relation(range: Option<&RangeVar>) -> Option<RelationName> {
    let range = range.filter(|range| !range.relname.is_empty())?;
    Some(RelationName::new(Some(&range.schemaname), &range.relname))
}

/// The relations of a list of RangeVars.
pub(super) fn relations(nodes: &[Node]) -> Vec<RelationName> {
    nodes.iter().filter_map(|node| relation(range_var(node))).collect()
}

pub(super) fn range_var(node: &Node) -> Option<&RangeVar> {
    match node.node.as_ref()? {
        NodeEnum::RangeVar(range) => Some(range),
        NodeEnum::VacuumRelation(vacuum) => vacuum.relation.as_ref(),
        _ => None,
    }
}

/// The strings of a list: the parts of a dotted name.
pub(super) fn parts(node: Option<&Node>) -> Vec<&str> {
    match node.and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::List(list)) => strings(&list.items),
        Some(NodeEnum::TypeName(name)) => strings(&name.names),
        Some(NodeEnum::String(string)) => vec![&string.sval],
        _ => Vec::new(),
    }
}

pub(super) fn strings(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(string).collect()
}

pub(super) fn string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(&string.sval),
        _ => None,
    }
}

/// `[[database.]schema.]name`
pub(super) fn dotted(parts: &[&str]) -> Option<RelationName> {
    match parts {
        [.., schema, name] => Some(RelationName::new(Some(schema), name)),
        [name] => Some(RelationName::new(None, name)),
        [] => None,
    }
}

/// `relation.name`, for what belongs to a relation: a column, a constraint, a trigger.
pub(super) fn dotted_member(parts: &[&str]) -> (Option<RelationName>, Option<String>) {
    match parts.split_last() {
        Some((member, relation)) => (dotted(relation), Some((*member).to_owned())),
        None => (None, None),
    }
}

pub(super) fn is_cascade(behavior: i32) -> bool {
    behavior == protobuf::DropBehavior::DropCascade as i32
}

/// Whether the option `name` is among `options` and is on. Like `defGetBoolean`, the function takes the last one.
pub(super) fn is_on(options: &[Node], name: &str) -> bool {
    let mut on = false;
    for option in options {
        if let Some(NodeEnum::DefElem(option)) = option.node.as_ref()
            && option.defname == name
        {
            on = option.arg.as_ref().and_then(|arg| arg.node.as_ref()).is_none_or(is_true);
        }
    }
    on
}

fn is_true(value: &NodeEnum) -> bool {
    match value {
        NodeEnum::Boolean(value) => value.boolval,
        NodeEnum::Integer(value) => value.ival != 0,
        NodeEnum::String(value) => !matches!(value.sval.to_ascii_lowercase().as_str(), "false" | "off"),
        _ => true,
    }
}
