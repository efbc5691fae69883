//! The objects that a DDL statement names beside relations: types, functions, schemas, roles; and new names.
//!
//! Invariant: too many names do no harm, since a name only makes statements depend on each other.

use super::super::names::dotted;
use super::tree::{Found, strings};
use pg_query::protobuf::ObjectType;
use serde_json::{Map, Value};

/// Adds the objects of a statement. `tree`: the statement as a serialized node.
pub(super) fn add(tree: &Value, found: &mut Found) {
    let Some(fields) = tree.as_object().and_then(|node| node.values().next()).and_then(Value::as_object) else {
        return;
    };
    for (field, value) in fields {
        match field.as_str() {
            "type_name" | "domainname" | "funcname" | "defnames" | "opclassname" | "opfamilyname" => {
                name(&strings(Some(value)), found);
            }
            "schemaname" | "extname" | "role" | "amname" | "fdwname" | "servername" | "plname" | "idxname" => {
                name(&value.as_str().into_iter().collect::<Vec<_>>(), found);
            }
            "object" | "objects" | "func" | "opername" => object(value, found),
            _ => {}
        }
    }
    new_name(fields, found);
}

fn name(parts: &[&str], found: &mut Found) {
    if let Some(name) = dotted(parts) {
        found.add(name);
    }
}

/// The name of an object: a list of strings, a string, a type, or a function with its arguments.
fn object(value: &Value, found: &mut Found) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| object(item, found)),
        Value::Object(fields) => {
            for (field, value) in fields {
                match field.as_str() {
                    "node" | "TypeName" | "ObjectWithArgs" => object(value, found),
                    "List" => name(&strings(value.get("items")), found),
                    "names" | "objname" => name(&strings(Some(value)), found),
                    "String" => name(&value.get("sval").and_then(Value::as_str).into_iter().collect::<Vec<_>>(), found),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// The new name of RENAME, and the names in the new schema of SET SCHEMA.
fn new_name(fields: &Map<String, Value>, found: &mut Found) {
    let text = |field: &str| fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    const INNER: [ObjectType; 6] = [
        ObjectType::ObjectColumn,
        ObjectType::ObjectAttribute,
        ObjectType::ObjectTabconstraint,
        ObjectType::ObjectTrigger,
        ObjectType::ObjectPolicy,
        ObjectType::ObjectRule,
    ];
    let kind = fields.get("rename_type").and_then(Value::as_i64);
    let renames_inner = INNER.iter().any(|inner| kind == Some(i64::from(*inner as i32)));
    if let Some(new) = text("newname").filter(|_| !renames_inner) {
        name(&[new], found);
    }
    if let Some(schema) = text("newschema") {
        for relation in found.relations.clone() {
            name(&[schema, &relation.name], found);
        }
    }
}
