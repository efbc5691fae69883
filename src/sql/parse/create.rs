//! CREATE of tables, views and sequences, and of the objects that belong to a relation: triggers, rules, policies,
//! statistics.
//!
//! Invariant: if a CREATE TABLE locks a table beside the new one, that table is among the `others` of the part whose form
//! says how it is locked.

use super::definition::{definition, references};
use super::names::{relation, relations};
use crate::pg::RelationName;
use crate::sql::form::Form;
use crate::sql::{Ddl, Part};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterPolicyStmt, AlterSeqStmt, CreateForeignTableStmt, CreatePolicyStmt, CreateSeqStmt, CreateStatsStmt,
    CreateStmt, CreateTableAsStmt, CreateTrigStmt, ObjectType, RangeVar, RuleStmt, ViewStmt,
};

/// A statement on one relation. A TEMP relation is created in `pg_temp`, whatever schema its name has.
fn on(tag: &str, form: Form, target: Option<&RangeVar>) -> Ddl {
    let mut name = relation(target);
    if let Some(name) = name.as_mut().filter(|_| target.is_some_and(is_temporary)) {
        name.schema = Some("pg_temp".to_owned());
    }
    Ddl { targets: name.into_iter().collect(), ..Ddl::new(tag, form) }
}

pub(super) fn table(stmt: &CreateStmt, tag: &str) -> Ddl {
    let mut ddl = on(tag, Form::CreateTable, stmt.relation.as_ref());
    ddl.if_not_exists = stmt.if_not_exists;
    let mut parts = Vec::new();
    let mut add = |form, others: Vec<RelationName>| {
        if !others.is_empty() {
            parts.push(Part { others, ..Part::new(form) });
        }
    };
    add(Form::CreateTableReferences, referenced(stmt, ddl.targets.first()));
    // The parents of a temporary table belong to its own session.
    if !stmt.relation.as_ref().is_some_and(is_temporary) {
        let form = if stmt.partbound.is_some() { Form::CreateTablePartitionOf } else { Form::CreateTableInherits };
        add(form, relations(&stmt.inh_relations));
    }
    if !parts.is_empty() {
        ddl.parts = parts;
    }
    ddl
}

pub(super) fn foreign_table(stmt: &CreateForeignTableStmt) -> Ddl {
    const TAG: &str = "CREATE FOREIGN TABLE";
    stmt.base_stmt.as_ref().map_or_else(|| Ddl::new(TAG, Form::CreateTable), |base| table(base, TAG))
}

/// The tables that the new table's foreign keys point to, each once, without itself.
fn referenced(stmt: &CreateStmt, itself: Option<&RelationName>) -> Vec<RelationName> {
    let mut found: Vec<RelationName> = Vec::new();
    for element in stmt.table_elts.iter().chain(&stmt.constraints) {
        let named = match element.node.as_ref() {
            Some(NodeEnum::ColumnDef(_)) => definition(element).map(references).unwrap_or_default(),
            Some(NodeEnum::Constraint(constraint)) => relation(constraint.pktable.as_ref()).into_iter().collect(),
            _ => Vec::new(),
        };
        for name in named {
            if Some(&name) != itself && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

fn is_temporary(range: &RangeVar) -> bool {
    range.relpersistence == "t" || range.schemaname == "pg_temp"
}

/// `None` for SELECT INTO: the prefilter does not look for it, and it locks no existing relation.
pub(super) fn table_as(stmt: &CreateTableAsStmt) -> Option<Ddl> {
    if stmt.is_select_into {
        return None;
    }
    let target = stmt.into.as_ref().and_then(|into| into.rel.as_ref());
    let mut ddl = match stmt.objtype() {
        ObjectType::ObjectMatview => on("CREATE MATERIALIZED VIEW", Form::CreateMaterializedView, target),
        _ => on("CREATE TABLE AS", Form::CreateTableAs, target),
    };
    ddl.if_not_exists = stmt.if_not_exists;
    Some(ddl)
}

pub(super) fn view(stmt: &ViewStmt) -> Ddl {
    let form = if stmt.replace { Form::ReplaceView } else { Form::CreateView };
    on("CREATE VIEW", form, stmt.view.as_ref())
}

pub(super) fn trigger(stmt: &CreateTrigStmt) -> Ddl {
    let mut ddl = on("CREATE TRIGGER", Form::CreateTrigger, stmt.relation.as_ref());
    for part in &mut ddl.parts {
        part.others = relation(stmt.constrrel.as_ref()).into_iter().collect();
    }
    ddl
}

pub(super) fn rule(stmt: &RuleStmt) -> Ddl {
    on("CREATE RULE", Form::CreateRule, stmt.relation.as_ref())
}

pub(super) fn policy(stmt: &CreatePolicyStmt) -> Ddl {
    on("CREATE POLICY", Form::CreatePolicy, stmt.table.as_ref())
}

pub(super) fn alter_policy(stmt: &AlterPolicyStmt) -> Ddl {
    on("ALTER POLICY", Form::AlterPolicy, stmt.table.as_ref())
}

pub(super) fn statistics(stmt: &CreateStatsStmt) -> Ddl {
    let ddl = Ddl::new("CREATE STATISTICS", Form::CreateStatistics);
    Ddl { targets: relations(&stmt.relations), if_not_exists: stmt.if_not_exists, ..ddl }
}

pub(super) fn sequence(stmt: &CreateSeqStmt) -> Ddl {
    let ddl = on("CREATE SEQUENCE", Form::CreateObject, stmt.sequence.as_ref());
    Ddl { if_not_exists: stmt.if_not_exists, ..ddl }
}

pub(super) fn alter_sequence(stmt: &AlterSeqStmt) -> Ddl {
    let ddl = on("ALTER SEQUENCE", Form::AlterSequence, stmt.sequence.as_ref());
    Ddl { if_exists: stmt.missing_ok, ..ddl }
}
