//! RENAME, SET SCHEMA, OWNER TO and DEPENDS ON, for every kind of object.
//!
//! Invariant: if the object is a relation, or belongs to one, that relation is the target.

use super::names::{dotted, is_cascade, parts, relation, some};
use super::tag;
use crate::sql::Ddl;
use crate::sql::form::Form;
use pg_query::protobuf::{
    AlterObjectDependsStmt, AlterObjectSchemaStmt, AlterOwnerStmt, ObjectType, RangeVar, RenameStmt,
};

fn on(tag: &str, form: Form, target: Option<&RangeVar>) -> Ddl {
    Ddl { targets: relation(target).into_iter().collect(), ..Ddl::new(tag, form) }
}

pub(super) fn rename(stmt: &RenameStmt) -> Ddl {
    let kind = stmt.rename_type();
    // The relation of a column gives the tag: ALTER VIEW v RENAME COLUMN … has the tag ALTER VIEW.
    let tagged = if kind == ObjectType::ObjectColumn { stmt.relation_type() } else { kind };
    let mut ddl = on(tag::alter(tagged), rename_form(kind, stmt.relation_type()), stmt.relation.as_ref());
    ddl.if_exists = stmt.missing_ok;
    ddl.cascade = is_cascade(stmt.behavior);
    ddl.only = stmt.relation.as_ref().is_some_and(|range| !range.inh) && kind != ObjectType::ObjectAttribute;
    for part in &mut ddl.parts {
        match kind {
            ObjectType::ObjectColumn | ObjectType::ObjectAttribute => part.column = some(&stmt.subname),
            ObjectType::ObjectTabconstraint | ObjectType::ObjectDomconstraint => part.constraint = some(&stmt.subname),
            _ => {}
        }
    }
    ddl
}

fn rename_form(kind: ObjectType, relation: ObjectType) -> Form {
    match kind {
        ObjectType::ObjectColumn => match relation {
            ObjectType::ObjectView => Form::AlterView,
            ObjectType::ObjectMatview => Form::AlterMaterializedView,
            ObjectType::ObjectForeignTable => Form::AlterForeignTable,
            _ => Form::RenameColumn,
        },
        // Renaming a sequence takes the same lock as renaming a table.
        ObjectType::ObjectTable | ObjectType::ObjectSequence => Form::RenameTable,
        ObjectType::ObjectView => Form::AlterView,
        ObjectType::ObjectMatview => Form::AlterMaterializedView,
        ObjectType::ObjectForeignTable => Form::AlterForeignTable,
        ObjectType::ObjectIndex => Form::AlterIndexRename,
        ObjectType::ObjectTabconstraint => Form::RenameConstraint,
        ObjectType::ObjectAttribute => Form::AlterCompositeType,
        ObjectType::ObjectTrigger => Form::AlterTrigger,
        ObjectType::ObjectPolicy => Form::AlterPolicy,
        ObjectType::ObjectRule => Form::AlterRule,
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => Form::AlterDomainBrief,
        kind => object_form(kind),
    }
}

/// The form for an object that is not a relation.
fn object_form(kind: ObjectType) -> Form {
    match kind {
        ObjectType::ObjectDatabase
        | ObjectType::ObjectRole
        | ObjectType::ObjectTablespace
        | ObjectType::ObjectSubscription => Form::ClusterWide,
        ObjectType::ObjectExtension => Form::Extension,
        ObjectType::ObjectDomain => Form::AlterDomainBrief,
        _ => Form::AlterObject,
    }
}

pub(super) fn set_schema(stmt: &AlterObjectSchemaStmt) -> Ddl {
    let kind = stmt.object_type();
    let form = match kind {
        ObjectType::ObjectTable | ObjectType::ObjectSequence => Form::SetSchema,
        ObjectType::ObjectView => Form::AlterView,
        ObjectType::ObjectMatview => Form::AlterMaterializedView,
        ObjectType::ObjectForeignTable => Form::AlterForeignTable,
        kind => object_form(kind),
    };
    let ddl = on(tag::alter(kind), form, stmt.relation.as_ref());
    let only = stmt.relation.as_ref().is_some_and(|range| !range.inh);
    Ddl { if_exists: stmt.missing_ok, only, ..ddl }
}

/// OWNER TO of every object but a table. For a table it is a subcommand of ALTER TABLE.
pub(super) fn owner(stmt: &AlterOwnerStmt) -> Ddl {
    on(tag::alter(stmt.object_type()), object_form(stmt.object_type()), stmt.relation.as_ref())
}

pub(super) fn depends(stmt: &AlterObjectDependsStmt) -> Ddl {
    let kind = stmt.object_type();
    let form = match kind {
        ObjectType::ObjectTrigger => Form::AlterTrigger,
        ObjectType::ObjectMatview => Form::AlterMaterializedView,
        // Unlike any other ALTER INDEX, this one takes ACCESS EXCLUSIVE.
        ObjectType::ObjectIndex => Form::Other,
        kind => object_form(kind),
    };
    let mut ddl = on(tag::alter(kind), form, stmt.relation.as_ref());
    if ddl.targets.is_empty() && matches!(kind, ObjectType::ObjectMatview | ObjectType::ObjectIndex) {
        ddl.targets = dotted(&parts(stmt.object.as_deref())).into_iter().collect();
    }
    ddl
}
