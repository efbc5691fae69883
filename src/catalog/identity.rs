//! Whether an object is still the object that a plan has made.
//!
//! An object is known by its oid, and a column by its number, which the server never gives twice. Names prove nothing,
//! since somebody may have dropped the object and made another one of its name.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

use super::query::array;
use crate::pg::RelationName;
use crate::pg::relation::quote_literal;

/// The question about the identity of objects. It returns one row for each object, in the order asked, or one row if no object is
/// asked for. A row has the transaction's id (if it has one), the identity of the object, and a third value that marks the row.
/// `$1`: kinds, `$2`: oids of tables, `$3`: names.
pub const IDENTITY_SQL: &str = include_str!("identity.sql");

/// The state of a transaction: `committed`, `aborted`, `in progress`; NULL if the transaction is too long ago.
pub const TRANSACTION_SQL: &str = "SELECT pg_catalog.txid_status($1::pg_catalog.text::pg_catalog.int8)";

/// Whether a constraint is valid.
pub const VALID_SQL: &str = "SELECT k.convalidated FROM pg_catalog.pg_constraint k \
     WHERE k.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid";

/// The name of the index `$1` of the table `$2` (oids as text), unless a constraint owns the index by now.
pub const INDEX_SQL: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid \
     WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
     AND i.indrelid OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.oid \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
       WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
       AND d.objid OPERATOR(pg_catalog.=) c.oid \
       AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass \
       AND d.deptype::pg_catalog.text OPERATOR(pg_catalog.=) 'i')";

/// The name of an index of the table `$1` (an oid as text), if it is called `$3` in the schema `$2`.
pub const NAMED_INDEX_SQL: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid \
     WHERE i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
     AND n.nspname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name \
     AND c.relname OPERATOR(pg_catalog.=) $3::pg_catalog.text::pg_catalog.name";

/// The oid of a valid index of the table `$1` (an oid as text) with the name `$2`, and whether the index is unique.
pub const BUILT_SQL: &str = "SELECT i.indexrelid::pg_catalog.text, i.indisunique FROM pg_catalog.pg_index i \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid \
     WHERE i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
     AND c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name AND i.indisvalid";

/// The valid indexes of the table `$1` (an oid as text) that are not among `$2` (an `oid[]` in its text form): the oid of each, and its
/// definition.
pub const NEW_INDEXES_SQL: &str = "SELECT i.indexrelid::pg_catalog.text, pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i \
     WHERE i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid AND i.indisvalid \
     AND NOT (i.indexrelid OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text::pg_catalog.oid[])) ORDER BY i.indexrelid";

/// The names of those relations of `$1` (an `oid[]` in its text form) that still exist.
pub const NAMES_SQL: &str = "SELECT c.oid::pg_catalog.text, n.nspname, c.relname FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text::pg_catalog.oid[])";

/// The parameters of [`IDENTITY_SQL`].
pub fn parameters<'a>(things: impl Iterator<Item = (&'a str, u32, &'a str)>) -> [String; 3] {
    let (mut kinds, mut tables, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, table, name) in things {
        kinds.push(kind);
        tables.push(table.to_string());
        names.push(name);
    }
    [
        array(kinds.into_iter().map(Some)),
        array(tables.iter().map(|oid| Some(oid.as_str()))),
        array(names.into_iter().map(Some)),
    ]
}

/// A condition: this transaction has created the relation of that name (quoted).
pub fn is_created_here(relation: &RelationName) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_class c \
         WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid \
         AND c.xmin::pg_catalog.text OPERATOR(pg_catalog.=) \
           (pg_catalog.txid_current() OPERATOR(pg_catalog.%) 4294967296::pg_catalog.int8)::pg_catalog.text)",
        quote_literal(&relation.quoted())
    )
}

/// A condition: the table has no column of that name.
pub fn lacks_column(table: u32, name: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid OPERATOR(pg_catalog.=) {table}::pg_catalog.oid AND NOT a.attisdropped \
         AND a.attname OPERATOR(pg_catalog.=) {}::pg_catalog.name)",
        quote_literal(name)
    )
}

/// A condition: the name still belongs to the relation. A name without a schema is looked up as the session would look it up. A
/// name with a schema is looked up in the catalogue, since a lookup by name finds nothing in a schema that the role may not use.
pub fn is_called(relation: &RelationName, oid: u32) -> String {
    let Some(schema) = &relation.schema else {
        let name = quote_literal(&relation.quoted());
        return format!("pg_catalog.to_regclass({name})::pg_catalog.oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid");
    };
    let [schema, name] = [schema, &relation.name].map(|name| quote_literal(name));
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE c.oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid \
         AND c.relname OPERATOR(pg_catalog.=) {name}::pg_catalog.name \
         AND n.nspname OPERATOR(pg_catalog.=) {schema}::pg_catalog.name)"
    )
}

/// A condition: the table still has its name, and the object still has its identity and its name.
pub fn still(kind: &str, table: &RelationName, oid: u32, name: &str, identity: u32) -> String {
    // A relation of its own is its own table here.
    if matches!(kind, "table" | "sequence") {
        return is_called(table, identity);
    }
    let (named, name) = (is_called(table, oid), quote_literal(name));
    let there = match kind {
        "column" => format!(
            "pg_catalog.pg_attribute x WHERE x.attrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid \
             AND x.attnum OPERATOR(pg_catalog.=) {identity} AND x.attname OPERATOR(pg_catalog.=) {name}::pg_catalog.name"
        ),
        "default" => format!(
            "pg_catalog.pg_attrdef x WHERE x.oid OPERATOR(pg_catalog.=) {identity}::pg_catalog.oid \
             AND x.adrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid"
        ),
        "notnull" => format!(
            "pg_catalog.pg_attribute x WHERE x.attrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid AND x.attnotnull \
             AND x.attnum OPERATOR(pg_catalog.=) {identity} AND x.attname OPERATOR(pg_catalog.=) {name}::pg_catalog.name"
        ),
        "index" => format!(
            "pg_catalog.pg_class x JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) x.oid \
             WHERE x.oid OPERATOR(pg_catalog.=) {identity}::pg_catalog.oid \
             AND i.indrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid \
             AND x.relname OPERATOR(pg_catalog.=) {name}::pg_catalog.name"
        ),
        // The name is that of the partition, with its schema.
        "partition" => format!(
            "pg_catalog.pg_class x WHERE x.oid OPERATOR(pg_catalog.=) {identity}::pg_catalog.oid \
             AND x.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({name})::pg_catalog.oid AND NOT x.relispartition"
        ),
        _ => format!(
            "pg_catalog.pg_constraint x WHERE x.oid OPERATOR(pg_catalog.=) {identity}::pg_catalog.oid \
             AND x.conrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid \
             AND x.conname OPERATOR(pg_catalog.=) {name}::pg_catalog.name"
        ),
    };
    format!("{named} AND EXISTS (SELECT FROM {there})")
}
