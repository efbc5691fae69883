//! The [`Class`] of a node of the grammar.
//!
//! Invariant: a statement that changes no schema is [`Class::Other`]. A statement that changes the schema and has no form
//! of its own is DDL of a form that says so ([`Form::Other`], `CreateObject`, `AlterObject`, `DropObject`).

use super::tokens::Scanned;
use super::{advisory, alter_table, comment, create, drop, index, lock_table, maintenance, names, objects, rename};
use crate::sql::prefilter::has_word;
use crate::sql::{Class, Ddl, TransactionControl};
use pg_query::NodeEnum;
use pg_query::protobuf::{DoStmt, TransactionStmt, TransactionStmtKind};

#[cfg(doc)]
use crate::sql::form::Form;

/// Words whose presence in a body means that it may run DDL.
const NAMES_DDL: [&str; 16] = [
    "alter", "call", "cluster", "comment", "create", "do", "drop", "grant", "import", "reassign", "refresh", "reindex",
    "revoke", "security", "truncate", "vacuum",
];

/// Words by which a body may catch a lock timeout or a cancel of the proxy (by name, by code, or by the name or code of the class
/// that they belong to), or may commit half-way.
const SWALLOWS: [&str; 11] = [
    "others",
    "lock_not_available",
    "query_canceled",
    "object_not_in_prerequisite_state",
    "operator_intervention",
    "55p03",
    "55000",
    "57014",
    "57000",
    "commit",
    "rollback",
];

pub(super) fn class(node: &NodeEnum, text: &str, scanned: &Scanned<'_>) -> Class {
    match node {
        NodeEnum::TransactionStmt(stmt) => transaction(stmt),
        NodeEnum::DoStmt(stmt) => may_hide_ddl(&body(stmt).unwrap_or_else(|| text.to_owned())),
        NodeEnum::CallStmt(_) => may_hide_ddl(text.get("call".len()..).unwrap_or_default()),
        NodeEnum::SelectStmt(stmt) if stmt.into_clause.is_none() => match advisory::lock(stmt, scanned) {
            Some(lock) => Class::AdvisoryLock(Box::new(lock)),
            None => Class::Other,
        },
        NodeEnum::LockStmt(stmt) => match lock_table::lock_table(stmt) {
            Some(lock) => Class::Lock(Box::new(lock)),
            None => Class::Other,
        },
        _ => match ddl(node, scanned) {
            Some(ddl) => Class::Ddl(Box::new(ddl)),
            None => Class::Other,
        },
    }
}

/// One file parses each family of statements; [`objects`] knows the rest by name only.
fn ddl(node: &NodeEnum, scanned: &Scanned<'_>) -> Option<Ddl> {
    use NodeEnum as N;
    let ddl = match node {
        N::AlterTableStmt(stmt) => alter_table::alter_table(stmt, scanned),
        N::AlterTableMoveAllStmt(stmt) => alter_table::move_all(stmt),
        N::CreateStmt(stmt) => Ddl {
            bounds: scanned.bounds(),
            partition_of: scanned.partition_of(),
            ..create::table(stmt, "CREATE TABLE")
        },
        N::CreateForeignTableStmt(stmt) => create::foreign_table(stmt),
        N::CreateTableAsStmt(stmt) => return create::table_as(stmt),
        N::ViewStmt(stmt) => create::view(stmt),
        N::CreateTrigStmt(stmt) => create::trigger(stmt),
        N::RuleStmt(stmt) => create::rule(stmt),
        N::CreatePolicyStmt(stmt) => create::policy(stmt),
        N::AlterPolicyStmt(stmt) => create::alter_policy(stmt),
        N::CreateStatsStmt(stmt) => create::statistics(stmt),
        N::CreateSeqStmt(stmt) => create::sequence(stmt),
        N::AlterSeqStmt(stmt) => create::alter_sequence(stmt),
        N::IndexStmt(stmt) => index::create(stmt, scanned),
        N::ReindexStmt(stmt) => index::reindex(stmt, scanned),
        N::DropStmt(stmt) => drop::drop(stmt, scanned),
        N::TruncateStmt(stmt) => drop::truncate(stmt),
        N::RenameStmt(stmt) => rename::rename(stmt),
        N::AlterObjectSchemaStmt(stmt) => rename::set_schema(stmt),
        N::AlterOwnerStmt(stmt) => rename::owner(stmt),
        N::AlterObjectDependsStmt(stmt) => rename::depends(stmt),
        N::CommentStmt(stmt) => comment::comment(stmt),
        N::SecLabelStmt(stmt) => comment::security_label(stmt),
        N::VacuumStmt(stmt) => maintenance::vacuum(stmt),
        N::ClusterStmt(stmt) => maintenance::cluster(stmt),
        N::RefreshMatViewStmt(stmt) => maintenance::refresh(stmt, scanned),
        N::AlterDomainStmt(stmt) => objects::alter_domain(stmt),
        N::GrantStmt(stmt) => objects::grant(stmt),
        N::CreatePublicationStmt(stmt) => objects::create_publication(stmt),
        N::AlterPublicationStmt(stmt) => objects::alter_publication(stmt),
        _ => return objects::by_name(node),
    };
    Some(ddl)
}

fn transaction(stmt: &TransactionStmt) -> Class {
    let chain = stmt.chain;
    Class::Transaction(match stmt.kind() {
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => TransactionControl::Begin,
        TransactionStmtKind::TransStmtCommit => TransactionControl::Commit { chain },
        TransactionStmtKind::TransStmtRollback => TransactionControl::Rollback { chain },
        TransactionStmtKind::TransStmtSavepoint
        | TransactionStmtKind::TransStmtRelease
        | TransactionStmtKind::TransStmtRollbackTo => TransactionControl::Savepoint,
        TransactionStmtKind::TransStmtPrepare => TransactionControl::Prepare,
        // COMMIT PREPARED and ROLLBACK PREPARED work on another transaction than the session's own.
        TransactionStmtKind::TransStmtCommitPrepared
        | TransactionStmtKind::TransStmtRollbackPrepared
        | TransactionStmtKind::Undefined => return Class::Other,
    })
}

/// The code of a DO, as the server will read it.
fn body(stmt: &DoStmt) -> Option<String> {
    stmt.args.iter().find_map(|arg| match arg.node.as_ref()? {
        NodeEnum::DefElem(option) if option.defname == "as" => names::string(option.arg.as_ref()?).map(str::to_owned),
        _ => None,
    })
}

fn may_hide_ddl(body: &str) -> Class {
    let names_ddl = has_word(body.as_bytes(), &NAMES_DDL);
    Class::MayHideDdl { names_ddl, swallows: has_word(body.as_bytes(), &SWALLOWS) }
}
