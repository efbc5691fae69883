//! Whether a new column's default is the same for every row, so that PostgreSQL 11 and later write no row for it.
//!
//! The rewrite probe ([`super::probe`]) knows more, but it cannot run in a transaction block.
//!
//! Invariant: several functions or operators may have the same name. The default counts as not volatile only if none of those that
//! the statement could mean is volatile.

use super::ProbeAnswer;
use super::query::array;
use crate::pg::RelationName;
use crate::sql::Part;
use crate::sql::form::Form;

/// The answer is one row, `t` or `f`. $1, $2: schemas and names of functions; $3, $4: schemas and names of operators.
const QUESTION: &str = "/* pgsluice: whether what a default calls is volatile */ \
    SELECT (NOT EXISTS (\
      SELECT FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]), \
                             pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[])) AS f(schema, name) \
        JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) f.name::pg_catalog.name \
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
       WHERE p.provolatile::pg_catalog.text OPERATOR(pg_catalog.=) 'v' \
         AND n.nspname OPERATOR(pg_catalog.=) ANY (CASE WHEN f.schema IS NULL THEN pg_catalog.current_schemas(true) \
                                                        ELSE ARRAY[f.schema::pg_catalog.name] END)) \
    AND NOT EXISTS (\
      SELECT FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.text::pg_catalog.text[]), \
                             pg_catalog.unnest($4::pg_catalog.text::pg_catalog.text[])) AS f(schema, name) \
        JOIN pg_catalog.pg_operator o ON o.oprname OPERATOR(pg_catalog.=) f.name::pg_catalog.name \
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace \
        JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid \
       WHERE p.provolatile::pg_catalog.text OPERATOR(pg_catalog.=) 'v' \
         AND n.nspname OPERATOR(pg_catalog.=) ANY (CASE WHEN f.schema IS NULL THEN pg_catalog.current_schemas(true) \
                                                        ELSE ARRAY[f.schema::pg_catalog.name] END)))::pg_catalog.text";

/// The question about a part, with its parameters. `None`: the answer would not help.
pub fn question(part: &Part, version: i32) -> Option<(&'static str, [String; 4])> {
    let calls = part.default_calls.as_deref()?;
    if part.form != Form::AddColumnDefault || version < 110_000 {
        return None;
    }
    let schemas = |names: &[RelationName]| array(names.iter().map(|name| name.schema.as_deref()));
    let names = |names: &[RelationName]| array(names.iter().map(|name| Some(name.name.as_str())));
    let (functions, operators) = (&calls.functions, &calls.operators);
    Some((QUESTION, [schemas(functions), names(functions), schemas(operators), names(operators)]))
}

/// Reads the answer. The result is the answer of the rewrite probe, where that is certain.
pub fn answer(text: &str) -> Option<ProbeAnswer> {
    text.starts_with('t').then(ProbeAnswer::default)
}
