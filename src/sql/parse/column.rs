//! ADD COLUMN: the form of a new column, by what its definition contains.
//!
//! Invariant: if a column has several properties, the form is that of the costliest one that is certain, or else of the costliest
//! one that is possible. If the column also has a default, a generated value or a user-defined type, the part still gets its probe.
//! A plan that splits the column from its constraint then knows what the rest would cost.

use super::definition::{
    constraints, definition, is_built_in, is_constant, is_null, is_stored, is_user_type, references, serial,
};
use super::names::{dotted, some, strings};
use super::probe;
use super::subcommand_text::SubcommandText;
use crate::sql::form::Form;
use crate::sql::{Calls, NewType, Part};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExprKind, AlterTableCmd, ColumnDef, ConstrType, FuncCall, Node, SqlValueFunctionOp, TypeName, a_const,
};

/// The properties of a column's definition on which its cost depends.
#[derive(Default)]
struct Properties {
    serial: bool,
    identity: bool,
    unique: bool,
    check: bool,
    references: bool,
    generated: bool,
    stored: bool,
    default: bool,
    user_type: bool,
}

pub(super) fn add(command: &AlterTableCmd, table: &str, written: Option<&SubcommandText<'_>>) -> Part {
    let Some(column) = command.def.as_deref().and_then(definition) else {
        return Part::new(Form::Other);
    };
    let properties = properties(column);
    let form = properties.form();
    let mut part = Part { column: some(&column.colname), others: references(column), ..Part::new(form) };
    if properties.may_rewrite() {
        part.probe = probe::probe(table, command);
    }
    if properties.user_type {
        part.new_type = new_type(column).filter(|_| has_no_default_but_a_string(column)).map(Box::new);
    }
    if properties.default && !properties.user_type {
        part.default_calls = default_calls(column).map(Box::new);
    }
    part.new_column = written.and_then(|piece| piece.new_column(command, column)).map(Box::new);
    part
}

impl Properties {
    fn form(&self) -> Form {
        match self {
            Self { serial: true, .. } => Form::AddColumnSerial,
            Self { identity: true, .. } => Form::AddColumnIdentity,
            // The server rewrites the whole table, whatever else the definition has.
            Self { stored: true, references: false, .. } => Form::AddColumnGenerated,
            Self { unique: true, .. } => Form::AddColumnUnique,
            Self { check: true, .. } => Form::AddColumnCheck,
            Self { references: true, .. } if self.may_rewrite() => Form::AddColumnReferencesDefault,
            Self { generated: true, .. } => Form::AddColumnGenerated,
            Self { default: true, .. } => Form::AddColumnDefault,
            Self { user_type: true, .. } => Form::AddColumnUserType,
            Self { references: true, .. } => Form::AddColumnReferences,
            _ => Form::AddColumn,
        }
    }

    /// Whether the server must be asked what the column costs without its constraints. For a serial or an identity column it need
    /// not be asked.
    fn may_rewrite(&self) -> bool {
        !self.serial && !self.identity && (self.generated || self.default || self.user_type)
    }
}

fn properties(column: &ColumnDef) -> Properties {
    let mut found = Properties::default();
    let mut not_null = false;
    found.serial = serial(column).is_some();
    found.user_type = is_user_type(column);
    for constraint in constraints(column) {
        match constraint.contype() {
            ConstrType::ConstrIdentity => found.identity = true,
            ConstrType::ConstrPrimary | ConstrType::ConstrUnique | ConstrType::ConstrExclusion => found.unique = true,
            ConstrType::ConstrCheck => found.check |= constraint.is_enforced,
            ConstrType::ConstrForeign => found.references = true,
            ConstrType::ConstrGenerated => {
                found.generated = true;
                found.stored = is_stored(constraint);
            }
            ConstrType::ConstrNotnull => not_null = true,
            ConstrType::ConstrDefault => {
                found.default |= constraint.raw_expr.as_deref().is_some_and(|value| !is_null(value));
            }
            _ => {}
        }
    }
    // The server writes a virtual column (18) nowhere, but it checks NOT NULL for every row.
    found.check |= found.generated && !found.stored && not_null;
    // The grammar gives "NOT ENFORCED" as a constraint of its own, after the constraint that it applies to.
    for pair in column.constraints.windows(2) {
        if let [Some(NodeEnum::Constraint(check)), Some(NodeEnum::Constraint(attribute))] =
            [&pair[0].node, &pair[1].node]
            && check.contype() == ConstrType::ConstrCheck
            && attribute.contype() == ConstrType::ConstrAttrNotEnforced
        {
            found.check = false;
        }
    }
    found
}

/// The new type of ALTER COLUMN TYPE, if the subcommand has neither USING nor COLLATE.
pub(super) fn altered_type(command: &AlterTableCmd) -> Option<Box<NewType>> {
    let column = command.def.as_deref().and_then(definition)?;
    let alone = column.raw_default.is_none() && column.coll_clause.is_none();
    new_type(column).filter(|_| alone).map(Box::new)
}

fn new_type(column: &ColumnDef) -> Option<NewType> {
    let written =
        column.type_name.as_ref().filter(|name| name.array_bounds.is_empty() && !name.setof && !name.pct_type)?;
    let name = dotted(&strings(&written.names))?;
    let modifiers: Option<Vec<i64>> = written.typmods.iter().map(integer).collect();
    Some(NewType { schema: name.schema, name: name.name, modifiers: modifiers? })
}

fn integer(node: &Node) -> Option<i64> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            a_const::Val::Ival(integer) => Some(integer.ival.into()),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the column has no default, or a default that is a string. The server reads such a string as the type's own value once
/// and for all, also where it is cast to that type.
fn has_no_default_but_a_string(column: &ColumnDef) -> bool {
    let is_string = |node: &Node| match node.node.as_ref() {
        Some(NodeEnum::AConst(constant)) => matches!(constant.val, Some(a_const::Val::Sval(_))),
        _ => false,
    };
    let of_the_type = |name: &TypeName| {
        column.type_name.as_ref().is_some_and(|own| {
            strings(&own.names) == strings(&name.names) && name.typmods.is_empty() && name.array_bounds.is_empty()
        })
    };
    constraints(column).all(|constraint| match (constraint.contype(), constraint.raw_expr.as_deref()) {
        (ConstrType::ConstrIdentity | ConstrType::ConstrGenerated, _) => false,
        (ConstrType::ConstrDefault, Some(value)) => match value.node.as_ref() {
            Some(NodeEnum::TypeCast(cast)) => {
                cast.type_name.as_ref().is_some_and(of_the_type) && cast.arg.as_deref().is_some_and(is_string)
            }
            _ => is_string(value) || is_null(value),
        },
        _ => true,
    })
}

/// The functions and operators that the column's default calls, if the default consists of literals and calls alone.
fn default_calls(column: &ColumnDef) -> Option<Calls> {
    let mut values = constraints(column).filter(|constraint| constraint.contype() == ConstrType::ConstrDefault);
    let (value, None) = (values.next()?, values.next()) else { return None };
    let mut calls = Calls::default();
    add_calls(value.raw_expr.as_deref()?, &mut calls)?;
    Some(calls)
}

/// Adds the calls in an expression. `None`: the expression has something else in it.
fn add_calls(value: &Node, calls: &mut Calls) -> Option<()> {
    let mut all = |nodes: &[Node]| nodes.iter().try_for_each(|node| add_calls(node, calls));
    match value.node.as_ref()? {
        NodeEnum::AConst(_) | NodeEnum::SqlvalueFunction(_) => Some(()),
        NodeEnum::TypeCast(cast) if cast.type_name.as_ref().is_some_and(is_built_in) => {
            add_calls(cast.arg.as_deref()?, calls)
        }
        NodeEnum::AArrayExpr(array) => all(&array.elements),
        NodeEnum::CoalesceExpr(coalesce) => all(&coalesce.args),
        NodeEnum::FuncCall(call) if is_time_elsewhere(call) => add_calls(call.args.first()?, calls),
        NodeEnum::FuncCall(call) if call.agg_filter.is_none() && call.over.is_none() && call.agg_order.is_empty() => {
            all(&call.args)?;
            calls.functions.push(dotted(&strings(&call.funcname))?);
            Some(())
        }
        NodeEnum::AExpr(operation) if operation.kind() == AExprKind::AexprOp => {
            for side in [&operation.lexpr, &operation.rexpr].into_iter().flatten() {
                add_calls(side, calls)?;
            }
            calls.operators.push(dotted(&strings(&operation.name))?);
            Some(())
        }
        _ => None,
    }
}

/// Whether the call is `now() AT TIME ZONE zone`. Of the functions called `timezone`, only that of a time of day is volatile.
fn is_time_elsewhere(call: &FuncCall) -> bool {
    let [_, time] = call.args.as_slice() else { return false };
    let is_now = match time.node.as_ref() {
        Some(NodeEnum::SqlvalueFunction(value)) => matches!(
            value.op(),
            SqlValueFunctionOp::SvfopCurrentTimestamp
                | SqlValueFunctionOp::SvfopCurrentTimestampN
                | SqlValueFunctionOp::SvfopLocaltimestamp
                | SqlValueFunctionOp::SvfopLocaltimestampN
        ),
        _ => is_constant(time) && matches!(time.node.as_ref(), Some(NodeEnum::FuncCall(_))),
    };
    is_now && matches!(strings(&call.funcname)[..], ["timezone"] | ["pg_catalog", "timezone"])
}
