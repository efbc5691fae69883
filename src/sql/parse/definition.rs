//! The definition of a column in PostgreSQL's tree: its type, its constraints, its default.
//!
//! These readers answer one question each. [`super::column`] and [`super::subcommand_text`] put the answers together.

use super::names::{relation, strings};
use crate::pg::RelationName;
use pg_query::NodeEnum;
use pg_query::protobuf::{ColumnDef, ConstrType, Constraint, Node, TypeName};

/// The types of `pg_catalog` that a column may be written with by their bare name.
#[rustfmt::skip] // as a table
const BUILT_IN: [&str; 79] = [
    "aclitem", "bit", "bool", "box", "bpchar", "bytea", "char", "cid", "cidr", "circle", "date", "datemultirange",
    "daterange", "float4", "float8", "gtsvector", "inet", "int2", "int2vector", "int4", "int4multirange", "int4range",
    "int8", "int8multirange", "int8range", "interval", "json", "jsonb", "jsonpath", "line", "lseg", "macaddr",
    "macaddr8", "money", "name", "numeric", "nummultirange", "numrange", "oid", "oidvector", "path", "pg_lsn",
    "pg_snapshot", "point", "polygon", "refcursor", "regclass", "regcollation", "regconfig", "regdictionary",
    "regnamespace", "regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype", "text", "tid", "time",
    "timestamp", "timestamptz", "timetz", "tsmultirange", "tsquery", "tsrange", "tstzmultirange", "tstzrange",
    "tsvector", "txid_snapshot", "uuid", "varbit", "varchar", "xid", "xid8", "xml",
    // Pseudo-types and internal types that no column has. The server rejects them.
    "record", "unknown", "void",
];

/// Names that are types only for a new column, and the types that they stand for.
const SERIAL: [(&str, &str); 6] = [
    ("serial", "integer"),
    ("serial2", "smallint"),
    ("serial4", "integer"),
    ("serial8", "bigint"),
    ("bigserial", "bigint"),
    ("smallserial", "smallint"),
];

/// The definition of a column, if the node is one.
pub(super) fn definition(node: &Node) -> Option<&ColumnDef> {
    match node.node.as_ref()? {
        NodeEnum::ColumnDef(column) => Some(column),
        _ => None,
    }
}

/// The constraints written with the column.
pub(super) fn constraints(column: &ColumnDef) -> impl Iterator<Item = &Constraint> {
    column.constraints.iter().filter_map(|node| match node.node.as_ref()? {
        NodeEnum::Constraint(constraint) => Some(constraint.as_ref()),
        _ => None,
    })
}

/// The tables that the column's foreign keys point to.
pub(super) fn references(column: &ColumnDef) -> Vec<RelationName> {
    constraints(column).filter_map(|constraint| relation(constraint.pktable.as_ref())).collect()
}

/// The type that serial stands for. For an array of serial and the like, the server reports the error.
pub(super) fn serial(column: &ColumnDef) -> Option<&'static str> {
    let type_name = column.type_name.as_ref().filter(|name| is_plain(name))?;
    let names = strings(&type_name.names);
    let [name] = names.as_slice() else { return None };
    SERIAL.iter().find(|(serial, _)| serial == name).map(|(_, stands_for)| *stands_for)
}

/// Whether a generated column is STORED, and not VIRTUAL.
pub(super) fn is_stored(generated: &Constraint) -> bool {
    generated.generated_kind != "v"
}

/// Whether the column's type is one that a sequence may have.
pub(super) fn is_integer(column: &ColumnDef) -> bool {
    let plain = column.type_name.as_ref().filter(|name| is_plain(name));
    let names = plain.map(|name| strings(&name.names)).unwrap_or_default();
    matches!(names.as_slice(), ["pg_catalog", "int2" | "int4" | "int8"] | ["int2" | "int4" | "int8"])
}

/// Whether the type is no array and no set, has nothing in brackets, and is not written as the type of another column.
fn is_plain(name: &TypeName) -> bool {
    name.array_bounds.is_empty() && name.typmods.is_empty() && !name.setof && !name.pct_type
}

/// Whether the column's type is not PostgreSQL's own.
pub(super) fn is_user_type(column: &ColumnDef) -> bool {
    serial(column).is_none() && column.type_name.as_ref().is_some_and(|name| !is_built_in(name))
}

pub(super) fn is_built_in(name: &TypeName) -> bool {
    match strings(&name.names).as_slice() {
        ["pg_catalog", _] => true,
        [name] => BUILT_IN.contains(name),
        _ => false,
    }
}

/// Whether the column has one value, and that is a constant default.
pub(super) fn has_constant_default(column: &ColumnDef) -> bool {
    let values = |constraint: &&Constraint| {
        use ConstrType::{ConstrDefault, ConstrGenerated, ConstrIdentity};
        matches!(constraint.contype(), ConstrDefault | ConstrGenerated | ConstrIdentity)
    };
    let mut values = constraints(column).filter(values);
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    value.contype() == ConstrType::ConstrDefault && value.raw_expr.as_deref().is_some_and(is_constant)
}

/// Whether the value is a constant: a literal, perhaps cast to a type of PostgreSQL's own, none of whose casts is volatile; or a
/// time or a name that is the same for the whole transaction. For any other expression, the server has to tell.
pub(super) fn is_constant(value: &Node) -> bool {
    match value.node.as_ref() {
        Some(NodeEnum::AConst(_) | NodeEnum::SqlvalueFunction(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => {
            cast.type_name.as_ref().is_some_and(is_built_in) && cast.arg.as_deref().is_some_and(is_constant)
        }
        Some(NodeEnum::FuncCall(call)) => call.args.is_empty() && matches!(strings(&call.funcname)[..], ["now"]),
        _ => false,
    }
}

/// Whether the value is `NULL`, perhaps cast. It is then the same as no default.
pub(super) fn is_null(value: &Node) -> bool {
    match value.node.as_ref() {
        Some(NodeEnum::AConst(constant)) => constant.isnull,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_null),
        _ => false,
    }
}
