//! One subcommand as a statement on the empty copy that the rewrite probe makes.
//!
//! Invariant: the statement changes nothing but the copy. It is built only if every reference to the table's own columns
//! could be carried over. Otherwise there is no statement, and the plan follows the form's row.
//!
//! The deparser of libpg_query trusts the tree. A tree that PostgreSQL would refuse only later (a type modifier that is
//! no number, a window in a default) can make the deparser end the process. So the deparser gets only what [`strip`]
//! knows.

use pg_query::protobuf::{
    AlterTableCmd, AlterTableStmt, AlterTableType, ColumnDef, ConstrType, IndexStmt, Node, ObjectType, RangeVar,
    TypeName, a_const,
};
use pg_query::{DeparseOptions, NodeEnum};

/// `ALTER TABLE pg_temp.pgsluice_probe <subcommand>`, without the constraints of a new column. These read rows or build indexes but
/// never rewrite.
pub(super) fn probe(table: &str, command: &AlterTableCmd) -> Option<String> {
    let mut command = command.clone();
    if let Some(def) = command.def.as_deref_mut() {
        match def.node.as_mut()? {
            NodeEnum::ColumnDef(column) => {
                strip_constraints(column, command.subtype == AlterTableType::AtAddColumn as i32);
                strip_column(column, table)?;
            }
            expression => strip(expression, table)?,
        }
    }
    deparse(&command)
}

/// The statement's text. libpg_query puts a type's COLLATE after the USING, where it would belong to the expression. In that case
/// the text is put together from its halves.
fn deparse(command: &AlterTableCmd) -> Option<String> {
    let Some(NodeEnum::ColumnDef(column)) = command.def.as_ref().and_then(|def| def.node.as_ref()) else {
        return statement(command.clone());
    };
    if column.coll_clause.is_none() || column.raw_default.is_none() {
        return statement(command.clone());
    }
    let with = |collation: bool, using: bool| {
        let mut column = column.clone();
        column.coll_clause = column.coll_clause.filter(|_| collation);
        column.raw_default = column.raw_default.filter(|_| using);
        let def = Some(Box::new(Node { node: Some(NodeEnum::ColumnDef(column)) }));
        statement(AlterTableCmd { def, ..command.clone() })
    };
    let (bare, using) = (with(false, false)?, with(false, true)?);
    Some(with(true, false)? + using.strip_prefix(&bare)?)
}

fn statement(command: AlterTableCmd) -> Option<String> {
    let statement = NodeEnum::AlterTableStmt(AlterTableStmt {
        relation: Some(copy()),
        cmds: vec![Node { node: Some(NodeEnum::AlterTableCmd(Box::new(command))) }],
        objtype: ObjectType::ObjectTable as i32,
        missing_ok: false,
    });
    statement.deparse(DeparseOptions::default()).ok()
}

/// The same index on the copy, so that the server can say how it would define the index. The server chooses the name.
pub(super) fn index(stmt: &IndexStmt) -> Option<String> {
    let mut stmt = stmt.clone();
    let table = stmt.relation.replace(copy())?.relname;
    for node in stmt.index_params.iter_mut().chain(&mut stmt.index_including_params) {
        if let Some(NodeEnum::IndexElem(element)) = node.node.as_mut() {
            strip_box(&mut element.expr, &table)?;
        }
    }
    strip_box(&mut stmt.where_clause, &table)?;
    stmt.idxname = String::new();
    stmt.concurrent = false;
    stmt.if_not_exists = false;
    NodeEnum::IndexStmt(Box::new(stmt)).deparse(DeparseOptions::default()).ok()
}

fn copy() -> RangeVar {
    RangeVar {
        schemaname: "pg_temp".to_owned(),
        relname: "pgsluice_probe".to_owned(),
        inh: true,
        relpersistence: "p".to_owned(),
        ..RangeVar::default()
    }
}

fn strip_constraints(column: &mut ColumnDef, is_new: bool) {
    let kept = [
        ConstrType::ConstrNull,
        ConstrType::ConstrNotnull,
        ConstrType::ConstrDefault,
        ConstrType::ConstrIdentity,
        ConstrType::ConstrGenerated,
    ];
    column.constraints.retain(|node| match &node.node {
        Some(NodeEnum::Constraint(constraint)) => !is_new || kept.contains(&constraint.contype()),
        _ => true,
    });
}

/// Strips a column's type, its default, its generation expression and its USING.
fn strip_column(column: &mut ColumnDef, table: &str) -> Option<()> {
    sound_type(column.type_name.as_ref())?;
    strip_box(&mut column.raw_default, table)?;
    for node in &mut column.constraints {
        if let Some(NodeEnum::Constraint(constraint)) = node.node.as_mut() {
            strip_box(&mut constraint.raw_expr, table)?;
        }
    }
    Some(())
}

/// Removes the table's name from its columns (`t.c` to `c`), since the copy has another name. `None`: the expression is of a kind
/// that is not known here, and may hold such a name.
fn strip(node: &mut NodeEnum, table: &str) -> Option<()> {
    match node {
        NodeEnum::ColumnRef(column) => {
            let own = column.fields.iter().rev().nth(1).is_some_and(|field| is_name(field, table));
            if own {
                column.fields.drain(..column.fields.len() - 1);
            }
            Some(())
        }
        NodeEnum::AConst(_)
        | NodeEnum::SqlvalueFunction(_)
        | NodeEnum::String(_)
        | NodeEnum::AStar(_)
        | NodeEnum::SetToDefault(_) => Some(()),
        NodeEnum::AExpr(expr) => {
            strip_box(&mut expr.lexpr, table)?;
            strip_box(&mut expr.rexpr, table)
        }
        NodeEnum::TypeCast(cast) => {
            sound_type(cast.type_name.as_ref())?;
            strip_box(&mut cast.arg, table)
        }
        NodeEnum::CollateClause(collate) => strip_box(&mut collate.arg, table),
        NodeEnum::NullTest(test) => strip_box(&mut test.arg, table),
        NodeEnum::BooleanTest(test) => strip_box(&mut test.arg, table),
        NodeEnum::NamedArgExpr(named) => strip_box(&mut named.arg, table),
        NodeEnum::BoolExpr(expr) => strip_all(&mut expr.args, table),
        NodeEnum::CoalesceExpr(expr) => strip_all(&mut expr.args, table),
        NodeEnum::MinMaxExpr(expr) => strip_all(&mut expr.args, table),
        NodeEnum::RowExpr(expr) => strip_all(&mut expr.args, table),
        NodeEnum::AArrayExpr(array) => strip_all(&mut array.elements, table),
        NodeEnum::List(list) => strip_all(&mut list.items, table),
        // Aggregates and window functions are not allowed in the expressions of a probe.
        NodeEnum::FuncCall(call) if call.agg_order.is_empty() && call.agg_filter.is_none() && call.over.is_none() => {
            strip_all(&mut call.args, table)
        }
        NodeEnum::CaseExpr(case) => {
            strip_box(&mut case.arg, table)?;
            strip_all(&mut case.args, table)?;
            strip_box(&mut case.defresult, table)
        }
        NodeEnum::CaseWhen(when) => {
            strip_box(&mut when.expr, table)?;
            strip_box(&mut when.result, table)
        }
        NodeEnum::AIndirection(indirection) => {
            strip_box(&mut indirection.arg, table)?;
            strip_all(&mut indirection.indirection, table)
        }
        NodeEnum::AIndices(indices) => {
            strip_box(&mut indices.lidx, table)?;
            strip_box(&mut indices.uidx, table)
        }
        _ => None,
    }
}

/// Checks that the modifiers of a type are numbers. The modifiers of `interval` say which fields it has, unless they say all.
fn sound_type(name: Option<&TypeName>) -> Option<()> {
    const ALL_FIELDS: i32 = 0x7fff;
    let Some(name) = name else { return Some(()) };
    let number = |node: &Node| match &node.node {
        Some(NodeEnum::AConst(constant)) => match constant.val {
            Some(a_const::Val::Ival(ref number)) => Some(number.ival),
            _ => None,
        },
        _ => None,
    };
    let modifiers: Vec<i32> = name.typmods.iter().map(number).collect::<Option<_>>()?;
    let is_interval = name.names.last().is_some_and(|last| is_name(last, "interval"));
    (!is_interval || modifiers.is_empty() || (modifiers.len() == 2 && modifiers[0] == ALL_FIELDS)).then_some(())
}

fn strip_box(node: &mut Option<Box<Node>>, table: &str) -> Option<()> {
    match node.as_mut().and_then(|node| node.node.as_mut()) {
        Some(node) => strip(node, table),
        None => Some(()),
    }
}

fn strip_all(nodes: &mut [Node], table: &str) -> Option<()> {
    nodes.iter_mut().filter_map(|node| node.node.as_mut()).try_for_each(|node| strip(node, table))
}

fn is_name(node: &Node, name: &str) -> bool {
    matches!(&node.node, Some(NodeEnum::String(string)) if string.sval == name)
}
