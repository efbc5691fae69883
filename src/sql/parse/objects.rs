//! Objects that are not relations. For most of them, only a tag and a form are known.
//!
//! Invariant: a node that is not listed in [`by_name`] changes no schema.

use super::names::{is_cascade, relation, relations, some};
use super::{names, tag};
use crate::sql::Ddl;
use crate::sql::form::Form;
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterDomainStmt, AlterPublicationStmt, CreatePublicationStmt, GrantStmt, GrantTargetType, Node, ObjectType,
};

pub(super) fn by_name(node: &NodeEnum) -> Option<Ddl> {
    use NodeEnum as N;
    let (tag, form) = match node {
        N::AlterDefaultPrivilegesStmt(_) => ("ALTER DEFAULT PRIVILEGES", Form::Grant),
        N::GrantRoleStmt(stmt) if stmt.is_grant => ("GRANT ROLE", Form::Grant),
        N::GrantRoleStmt(_) => ("REVOKE ROLE", Form::Grant),
        N::AlterEnumStmt(_) => ("ALTER TYPE", Form::AlterEnum),
        N::DropOwnedStmt(_) => ("DROP OWNED", Form::DropOwned),
        N::ReassignOwnedStmt(_) => ("REASSIGN OWNED", Form::DropOwned),
        N::CreateExtensionStmt(_) => ("CREATE EXTENSION", Form::Extension),
        N::AlterExtensionStmt(_) | N::AlterExtensionContentsStmt(_) => ("ALTER EXTENSION", Form::Extension),
        N::ImportForeignSchemaStmt(_) => ("IMPORT FOREIGN SCHEMA", Form::ImportForeignSchema),
        N::DropUserMappingStmt(_) => ("DROP USER MAPPING", Form::DropObject),
        _ => created(node)
            .map(|tag| (tag, Form::CreateObject))
            .or_else(|| altered(node).map(|tag| (tag, Form::AlterObject)))
            .or_else(|| cluster_wide(node).map(|tag| (tag, Form::ClusterWide)))?,
    };
    Some(Ddl::new(tag, form))
}

fn created(node: &NodeEnum) -> Option<&'static str> {
    use NodeEnum as N;
    Some(match node {
        N::CreateSchemaStmt(_) => "CREATE SCHEMA",
        N::CreateFunctionStmt(stmt) if stmt.is_procedure => "CREATE PROCEDURE",
        N::CreateFunctionStmt(_) => "CREATE FUNCTION",
        N::CompositeTypeStmt(_) | N::CreateEnumStmt(_) | N::CreateRangeStmt(_) => "CREATE TYPE",
        N::CreateDomainStmt(_) => "CREATE DOMAIN",
        N::DefineStmt(stmt) => tag::create(stmt.kind()),
        N::CreateOpClassStmt(_) => "CREATE OPERATOR CLASS",
        N::CreateOpFamilyStmt(_) => "CREATE OPERATOR FAMILY",
        N::CreateAmStmt(_) => "CREATE ACCESS METHOD",
        N::CreateFdwStmt(_) => "CREATE FOREIGN DATA WRAPPER",
        N::CreateForeignServerStmt(_) => "CREATE SERVER",
        N::CreateUserMappingStmt(_) => "CREATE USER MAPPING",
        N::CreateEventTrigStmt(_) => "CREATE EVENT TRIGGER",
        N::CreatePlangStmt(_) => "CREATE LANGUAGE",
        N::CreateConversionStmt(_) => "CREATE CONVERSION",
        N::CreateCastStmt(_) => "CREATE CAST",
        N::CreateTransformStmt(_) => "CREATE TRANSFORM",
        _ => return None,
    })
}

fn altered(node: &NodeEnum) -> Option<&'static str> {
    use NodeEnum as N;
    Some(match node {
        N::AlterFunctionStmt(stmt) => tag::alter(stmt.objtype()),
        N::AlterOperatorStmt(_) => "ALTER OPERATOR",
        N::AlterOpFamilyStmt(_) => "ALTER OPERATOR FAMILY",
        N::AlterTypeStmt(_) => "ALTER TYPE",
        N::AlterCollationStmt(_) => "ALTER COLLATION",
        N::AlterStatsStmt(_) => "ALTER STATISTICS",
        N::AlterFdwStmt(_) => "ALTER FOREIGN DATA WRAPPER",
        N::AlterForeignServerStmt(_) => "ALTER SERVER",
        N::AlterUserMappingStmt(_) => "ALTER USER MAPPING",
        N::AlterEventTrigStmt(_) => "ALTER EVENT TRIGGER",
        N::AlterTsdictionaryStmt(_) => "ALTER TEXT SEARCH DICTIONARY",
        N::AlterTsconfigurationStmt(_) => "ALTER TEXT SEARCH CONFIGURATION",
        _ => return None,
    })
}

/// The tag of a statement on an object that the cluster shares, or on a subscription. None of these statements locks a user's
/// table, and many may not run in a transaction block.
fn cluster_wide(node: &NodeEnum) -> Option<&'static str> {
    use NodeEnum as N;
    Some(match node {
        N::CreatedbStmt(_) => "CREATE DATABASE",
        N::AlterDatabaseStmt(_) | N::AlterDatabaseRefreshCollStmt(_) | N::AlterDatabaseSetStmt(_) => "ALTER DATABASE",
        N::DropdbStmt(_) => "DROP DATABASE",
        N::CreateRoleStmt(_) => "CREATE ROLE",
        N::AlterRoleStmt(_) | N::AlterRoleSetStmt(_) => "ALTER ROLE",
        N::DropRoleStmt(_) => "DROP ROLE",
        N::CreateTableSpaceStmt(_) => "CREATE TABLESPACE",
        N::AlterTableSpaceOptionsStmt(_) => "ALTER TABLESPACE",
        N::DropTableSpaceStmt(_) => "DROP TABLESPACE",
        N::AlterSystemStmt(_) => "ALTER SYSTEM",
        N::CreateSubscriptionStmt(_) => "CREATE SUBSCRIPTION",
        N::AlterSubscriptionStmt(_) => "ALTER SUBSCRIPTION",
        N::DropSubscriptionStmt(_) => "DROP SUBSCRIPTION",
        _ => return None,
    })
}

pub(super) fn alter_domain(stmt: &AlterDomainStmt) -> Ddl {
    let checks_rows = match stmt.subtype.as_str() {
        // SET NOT NULL; VALIDATE CONSTRAINT
        "O" | "V" => true,
        // ADD CONSTRAINT
        "C" => match stmt.def.as_ref().and_then(|def| def.node.as_ref()) {
            Some(NodeEnum::Constraint(constraint)) => !constraint.skip_validation,
            _ => true,
        },
        _ => false,
    };
    let mut ddl = Ddl::new("ALTER DOMAIN", if checks_rows { Form::AlterDomain } else { Form::AlterDomainBrief });
    ddl.domain = names::dotted(&names::strings(&stmt.type_name));
    for part in &mut ddl.parts {
        part.constraint = some(&stmt.name);
        part.cascade = is_cascade(stmt.behavior);
        part.missing_ok = stmt.missing_ok;
    }
    ddl
}

pub(super) fn grant(stmt: &GrantStmt) -> Ddl {
    let mut ddl = Ddl::new(if stmt.is_grant { "GRANT" } else { "REVOKE" }, Form::Grant);
    let relations_named = matches!(stmt.objtype(), ObjectType::ObjectTable | ObjectType::ObjectSequence);
    if relations_named && stmt.targtype() == GrantTargetType::AclTargetObject {
        ddl.targets = relations(&stmt.objects);
    }
    ddl.cascade = is_cascade(stmt.behavior);
    ddl
}

pub(super) fn create_publication(stmt: &CreatePublicationStmt) -> Ddl {
    publication("CREATE PUBLICATION", &stmt.pubobjects)
}

pub(super) fn alter_publication(stmt: &AlterPublicationStmt) -> Ddl {
    publication("ALTER PUBLICATION", &stmt.pubobjects)
}

fn publication(tag: &str, objects: &[Node]) -> Ddl {
    let tables = objects.iter().filter_map(|object| match object.node.as_ref()? {
        NodeEnum::PublicationObjSpec(object) => relation(object.pubtable.as_ref()?.relation.as_ref()),
        _ => None,
    });
    Ddl { targets: tables.collect(), ..Ddl::new(tag, Form::Publication) }
}
