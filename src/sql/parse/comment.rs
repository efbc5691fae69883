//! COMMENT ON and SECURITY LABEL ON.
//!
//! Invariant: only a relation, or an object that belongs to one, gives the statement a relation to lock. For any other
//! object the form is `AlterObject`.

use super::names::{dotted, dotted_member, parts};
use crate::pg::RelationName;
use crate::sql::Ddl;
use crate::sql::form::Form;
use pg_query::protobuf::{CommentStmt, Node, ObjectType, SecLabelStmt};

pub(super) fn comment(stmt: &CommentStmt) -> Ddl {
    on("COMMENT", Form::Comment, stmt.objtype(), stmt.object.as_deref())
}

pub(super) fn security_label(stmt: &SecLabelStmt) -> Ddl {
    on("SECURITY LABEL", Form::SecurityLabel, stmt.objtype(), stmt.object.as_deref())
}

fn on(tag: &str, form: Form, kind: ObjectType, object: Option<&Node>) -> Ddl {
    let parts = parts(object);
    let (target, member): (Option<RelationName>, Option<String>) = match kind {
        ObjectType::ObjectTable
        | ObjectType::ObjectView
        | ObjectType::ObjectMatview
        | ObjectType::ObjectIndex
        | ObjectType::ObjectSequence
        | ObjectType::ObjectForeignTable => (dotted(&parts), None),
        ObjectType::ObjectColumn
        | ObjectType::ObjectTabconstraint
        | ObjectType::ObjectTrigger
        | ObjectType::ObjectPolicy
        | ObjectType::ObjectRule => dotted_member(&parts),
        _ => return Ddl::new(tag, Form::AlterObject),
    };
    let mut ddl = Ddl { targets: target.into_iter().collect(), ..Ddl::new(tag, form) };
    for part in &mut ddl.parts {
        match kind {
            ObjectType::ObjectColumn => part.column.clone_from(&member),
            ObjectType::ObjectTabconstraint => part.constraint.clone_from(&member),
            _ => {}
        }
    }
    ddl
}
