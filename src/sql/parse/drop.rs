//! DROP of any object, and TRUNCATE.
//!
//! Invariant: `targets` are relations. For a trigger, a policy or a rule the target is the relation that it belongs to.

use super::names::{dotted, dotted_member, is_cascade, parts, relations};
use super::tag;
use super::tokens::Scanned;
use crate::pg::RelationName;
use crate::sql::Ddl;
use crate::sql::form::Form;
use pg_query::protobuf::{DropStmt, ObjectType, TruncateStmt};

pub(super) fn drop(stmt: &DropStmt, scanned: &Scanned<'_>) -> Ddl {
    let kind = stmt.remove_type();
    let mut ddl = Ddl::new(tag::drop(kind), form(kind, stmt.concurrent));
    let names = stmt.objects.iter().map(|object| parts(Some(object)));
    ddl.targets = match kind {
        ObjectType::ObjectTrigger | ObjectType::ObjectPolicy | ObjectType::ObjectRule => {
            names.filter_map(|parts| dotted_member(&parts).0).collect::<Vec<RelationName>>()
        }
        ObjectType::ObjectTable
        | ObjectType::ObjectView
        | ObjectType::ObjectMatview
        | ObjectType::ObjectIndex
        | ObjectType::ObjectSequence
        | ObjectType::ObjectForeignTable => names.filter_map(|parts| dotted(&parts)).collect(),
        _ => Vec::new(),
    };
    ddl.if_exists = stmt.missing_ok;
    ddl.cascade = is_cascade(stmt.behavior);
    ddl.concurrently = stmt.concurrent;
    if kind == ObjectType::ObjectIndex && !stmt.concurrent {
        ddl.concurrently_at = scanned.concurrently_at();
    }
    ddl
}

fn form(kind: ObjectType, concurrent: bool) -> Form {
    match kind {
        ObjectType::ObjectTable => Form::DropTable,
        ObjectType::ObjectView => Form::DropView,
        ObjectType::ObjectMatview => Form::DropMaterializedView,
        ObjectType::ObjectIndex if concurrent => Form::DropIndexConcurrently,
        ObjectType::ObjectIndex => Form::DropIndex,
        ObjectType::ObjectSequence => Form::DropSequence,
        ObjectType::ObjectForeignTable => Form::DropForeignTable,
        ObjectType::ObjectTrigger => Form::DropTrigger,
        ObjectType::ObjectPolicy => Form::DropPolicy,
        ObjectType::ObjectRule => Form::DropRule,
        // Objects that may contain columns, or that columns may depend on.
        ObjectType::ObjectSchema | ObjectType::ObjectExtension | ObjectType::ObjectType | ObjectType::ObjectDomain => {
            Form::DropSchema
        }
        _ => Form::DropObject,
    }
}

pub(super) fn truncate(stmt: &TruncateStmt) -> Ddl {
    let ddl = Ddl::new("TRUNCATE TABLE", Form::Truncate);
    let only = stmt.relations.iter().filter_map(super::names::range_var).any(|range| !range.inh);
    Ddl { targets: relations(&stmt.relations), only, cascade: is_cascade(stmt.behavior), ..ddl }
}
