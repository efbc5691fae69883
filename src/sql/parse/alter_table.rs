//! ALTER TABLE and the commands that share its node: ALTER INDEX, VIEW, MATERIALIZED VIEW, SEQUENCE, FOREIGN TABLE, TYPE.
//!
//! Invariant: there is one [`Part`] for each subcommand, in the order in which they are written.

use super::names::{is_cascade, range_var, relation, some, string};
use super::subcommand_text::{self, SubcommandText};
use super::tokens::Scanned;
use super::{column, definition, key, probe, tag};
use crate::sql::form::Form;
use crate::sql::{Ddl, NewForeignKey, Part};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableCmd, AlterTableMoveAllStmt, AlterTableStmt, AlterTableType as At, ConstrType, Constraint, Node,
    ObjectType, Token,
};

pub(super) fn alter_table(stmt: &AlterTableStmt, scanned: &Scanned<'_>) -> Ddl {
    let mut ddl = Ddl::new(tag::alter(stmt.objtype()), Form::Other);
    ddl.targets = relation(stmt.relation.as_ref()).into_iter().collect();
    // For a type the flag means nothing.
    let range = stmt.relation.as_ref().filter(|_| stmt.objtype() != ObjectType::ObjectType);
    ddl.only = range.is_some_and(|range| !range.inh);
    ddl.if_exists = stmt.missing_ok;
    let table = stmt.relation.as_ref().map_or("", |range| &range.relname);
    let commands = stmt.cmds.iter().filter_map(|node| match node.node.as_ref()? {
        NodeEnum::AlterTableCmd(command) => Some(command.as_ref()),
        _ => None,
    });
    let pieces = match stmt.objtype() {
        ObjectType::ObjectTable => subcommand_text::of_alter_table(stmt, scanned).unwrap_or_default(),
        _ => Vec::new(),
    };
    let written = |i: usize| pieces.get(i);
    let parts: Vec<Part> =
        commands.enumerate().map(|(i, command)| part(command, stmt.objtype(), table, written(i))).collect();
    ddl.concurrently = stmt.cmds.iter().any(is_concurrent);
    ddl.tail_at = scanned.tail_at(&[Token::Attach, Token::Partition]);
    let mut parts = parts;
    if let ([part], [command]) = (parts.as_mut_slice(), stmt.cmds.as_slice()) {
        part.foreign_key = new_foreign_key(command, scanned).map(Box::new);
    }
    if !parts.is_empty() {
        ddl.parts = parts;
    }
    ddl
}

fn new_foreign_key(command: &Node, scanned: &Scanned<'_>) -> Option<NewForeignKey> {
    let Some(NodeEnum::AlterTableCmd(command)) = &command.node else { return None };
    let Some(NodeEnum::Constraint(constraint)) = command.def.as_ref().and_then(|def| def.node.as_ref()) else {
        return None;
    };
    let columns = constraint.fk_attrs.iter().filter_map(string).map(str::to_owned).collect();
    let foreign = constraint.contype() == ConstrType::ConstrForeign;
    foreign.then(|| scanned.foreign_key_at()).flatten().map(|at| NewForeignKey { columns, at })
}

/// DETACH PARTITION … CONCURRENTLY
fn is_concurrent(command: &Node) -> bool {
    let Some(NodeEnum::AlterTableCmd(command)) = &command.node else { return false };
    matches!(command.def.as_ref().and_then(|def| def.node.as_ref()), Some(NodeEnum::PartitionCmd(p)) if p.concurrent)
}

/// ALTER TABLE ALL IN TABLESPACE: it names no relation.
pub(super) fn move_all(stmt: &AlterTableMoveAllStmt) -> Ddl {
    Ddl::new(tag::alter(stmt.objtype()), Form::SetTablespace)
}

fn part(command: &AlterTableCmd, kind: ObjectType, table: &str, written: Option<&SubcommandText<'_>>) -> Part {
    let mut part = match kind {
        ObjectType::ObjectTable => on_table(command, table, written),
        ObjectType::ObjectIndex => on_index(command),
        _ => on_other(command, kind),
    };
    part.text = written.and_then(SubcommandText::text);
    part.element = written.and_then(SubcommandText::element);
    part.missing_ok = command.missing_ok;
    part.cascade = is_cascade(command.behavior);
    if part.form.needs_probe() && part.probe.is_none() {
        part.probe = probe::probe(table, command);
    }
    part
}

fn on_table(command: &AlterTableCmd, table: &str, written: Option<&SubcommandText<'_>>) -> Part {
    let of_column = |form| Part { column: some(&command.name), ..Part::new(form) };
    let of_constraint = |form| Part { constraint: some(&command.name), ..Part::new(form) };
    match command.subtype() {
        At::AtAddColumn => column::add(command, table, written),
        At::AtColumnDefault if command.def.is_some() => of_column(Form::SetDefault),
        At::AtColumnDefault => of_column(Form::DropDefault),
        At::AtDropNotNull => of_column(Form::DropNotNull),
        At::AtSetNotNull => of_column(Form::SetNotNull),
        At::AtSetExpression => of_column(Form::SetExpression),
        At::AtDropExpression => of_column(Form::DropExpression),
        At::AtSetStatistics | At::AtSetOptions | At::AtResetOptions => of_column(Form::SetColumnStatistics),
        At::AtSetStorage | At::AtSetCompression => of_column(Form::SetStorage),
        At::AtDropColumn => of_column(Form::DropColumn),
        At::AtAlterColumnType => Part { new_type: column::altered_type(command), ..of_column(Form::AlterColumnType) },
        At::AtAddIdentity | At::AtSetIdentity | At::AtDropIdentity => of_column(Form::AlterIdentity),
        At::AtAlterColumnGenericOptions => of_column(Form::AlterForeignTable),
        At::AtAddConstraint => add_constraint(command),
        At::AtAlterConstraint => alter_constraint(command),
        At::AtValidateConstraint => of_constraint(Form::ValidateConstraint),
        At::AtDropConstraint => of_constraint(Form::DropConstraint),
        At::AtAttachPartition => partition(command, |_| Form::AttachPartition),
        At::AtDetachPartition => partition(command, detach),
        At::AtDetachPartitionFinalize => partition(command, |_| Form::DetachConcurrently),
        At::AtAddInherit | At::AtDropInherit => {
            let parent = command.def.as_deref().and_then(range_var);
            Part { others: relation(parent).into_iter().collect(), ..Part::new(Form::Inherit) }
        }
        subtype => Part::new(whole_table(subtype)),
    }
}

/// The form of a subcommand that names nothing within the table that a plan would need.
fn whole_table(subtype: At) -> Form {
    match subtype {
        At::AtChangeOwner => Form::OwnerTo,
        At::AtClusterOn | At::AtDropCluster | At::AtSetRelOptions | At::AtResetRelOptions | At::AtReplaceRelOptions => {
            Form::SetTableOptions
        }
        At::AtSetLogged | At::AtSetUnLogged => Form::SetLogged,
        At::AtSetAccessMethod => Form::SetAccessMethod,
        At::AtSetTableSpace => Form::SetTablespace,
        At::AtEnableTrig
        | At::AtEnableAlwaysTrig
        | At::AtEnableReplicaTrig
        | At::AtDisableTrig
        | At::AtEnableTrigAll
        | At::AtDisableTrigAll
        | At::AtEnableTrigUser
        | At::AtDisableTrigUser => Form::SetTriggers,
        At::AtEnableRule | At::AtEnableAlwaysRule | At::AtEnableReplicaRule | At::AtDisableRule => Form::SetRules,
        At::AtAddOf | At::AtDropOf => Form::OfType,
        At::AtReplicaIdentity => Form::ReplicaIdentity,
        At::AtEnableRowSecurity | At::AtDisableRowSecurity | At::AtForceRowSecurity | At::AtNoForceRowSecurity => {
            Form::RowSecurity
        }
        At::AtGenericOptions => Form::AlterForeignTable,
        // SET WITHOUT OIDS, and subcommands that only the server itself makes.
        _ => Form::Other,
    }
}

fn on_index(command: &AlterTableCmd) -> Part {
    match command.subtype() {
        At::AtAttachPartition => partition(command, |_| Form::AlterIndexAttach),
        At::AtSetStatistics => Part { column: some(&command.name), ..Part::new(Form::AlterIndexStatistics) },
        At::AtSetRelOptions | At::AtResetRelOptions | At::AtReplaceRelOptions => Part::new(Form::AlterIndexSet),
        subtype => Part::new(whole_table(subtype)),
    }
}

/// Subcommands on a relation that is not a table. The form depends on the kind of relation, and on the subcommand only where one is
/// costly.
fn on_other(command: &AlterTableCmd, kind: ObjectType) -> Part {
    let form = match (kind, command.subtype()) {
        (ObjectType::ObjectView, _) => Form::AlterView,
        (ObjectType::ObjectMatview, At::AtSetTableSpace) => Form::SetTablespace,
        (ObjectType::ObjectMatview, At::AtSetAccessMethod) => Form::SetAccessMethod,
        (ObjectType::ObjectMatview, _) => Form::AlterMaterializedView,
        // OWNER TO takes ACCESS EXCLUSIVE. The other changes of a sequence do not.
        (ObjectType::ObjectSequence, At::AtChangeOwner) => Form::OwnerTo,
        (ObjectType::ObjectSequence, _) => Form::AlterSequence,
        (ObjectType::ObjectForeignTable, _) => Form::AlterForeignTable,
        (ObjectType::ObjectType, _) => Form::AlterCompositeType,
        _ => Form::Other,
    };
    let of_attribute = matches!(kind, ObjectType::ObjectForeignTable | ObjectType::ObjectType);
    let added = command.def.as_deref().and_then(definition::definition).map(|column| column.colname.clone());
    let column = if of_attribute { some(&command.name).or(added) } else { None };
    Part { column, ..Part::new(form) }
}

fn partition(command: &AlterTableCmd, form: impl Fn(bool) -> Form) -> Part {
    let Some(NodeEnum::PartitionCmd(partition)) = command.def.as_ref().and_then(|def| def.node.as_ref()) else {
        return Part::new(form(false));
    };
    let others = relation(partition.name.as_ref()).into_iter().collect();
    Part { others, ..Part::new(form(partition.concurrent)) }
}

fn detach(concurrent: bool) -> Form {
    if concurrent { Form::DetachConcurrently } else { Form::DetachPartition }
}

fn alter_constraint(command: &AlterTableCmd) -> Part {
    let (form, name) = match command.def.as_ref().and_then(|def| def.node.as_ref()) {
        Some(NodeEnum::AtalterConstraint(alter)) if alter.alter_enforceability && alter.is_enforced => {
            (Form::EnforceConstraint, &alter.conname)
        }
        Some(NodeEnum::AtalterConstraint(alter)) if alter.alter_enforceability => {
            (Form::UnenforceConstraint, &alter.conname)
        }
        Some(NodeEnum::AtalterConstraint(alter)) => (Form::AlterConstraint, &alter.conname),
        _ => return Part::new(Form::AlterConstraint),
    };
    Part { constraint: some(name), ..Part::new(form) }
}

fn add_constraint(command: &AlterTableCmd) -> Part {
    let Some(NodeEnum::Constraint(constraint)) = command.def.as_ref().and_then(|def| def.node.as_ref()) else {
        return Part::new(Form::Other);
    };
    let column = match constraint.contype() {
        ConstrType::ConstrNotnull => constraint.keys.first().and_then(string).map(str::to_owned),
        _ => None,
    };
    let others = relation(constraint.pktable.as_ref()).into_iter().collect();
    let key = key::new_key(constraint).map(Box::new);
    Part { column, constraint: some(&constraint.conname), others, key, ..Part::new(constraint_form(constraint)) }
}

fn constraint_form(constraint: &Constraint) -> Form {
    let unchecked = constraint.skip_validation || !constraint.is_enforced;
    match constraint.contype() {
        ConstrType::ConstrCheck if unchecked => Form::AddCheckNotValid,
        ConstrType::ConstrCheck => Form::AddCheck,
        ConstrType::ConstrForeign if unchecked => Form::AddForeignKeyNotValid,
        ConstrType::ConstrForeign => Form::AddForeignKey,
        // These constraints cannot be NOT ENFORCED.
        ConstrType::ConstrNotnull if constraint.skip_validation => Form::AddNotNullNotValid,
        ConstrType::ConstrNotnull => Form::AddNotNullConstraint,
        ConstrType::ConstrPrimary | ConstrType::ConstrUnique if !constraint.indexname.is_empty() => {
            Form::AddConstraintUsingIndex
        }
        ConstrType::ConstrPrimary => Form::AddPrimaryKey,
        ConstrType::ConstrUnique => Form::AddUnique,
        ConstrType::ConstrExclusion => Form::AddExclude,
        _ => Form::Other,
    }
}
