//! The tables that hold values of a domain. ALTER DOMAIN reads all of them while nobody can write to any of them.
//!
//! The question finds them as `get_rels_with_domain` does (`commands/typecmds.c`): by columns of the domain, and of the
//! domains over it.

use crate::pg::RelationName;

/// The question about the domain `$1` (its quoted name). The answer is one row: a JSON array of the schema and name of each table.
/// The question opens no table.
pub const TABLES_SQL: &str = "WITH RECURSIVE domain(oid) AS (\
      SELECT pg_catalog.to_regtype($1::pg_catalog.text)::pg_catalog.oid \
      UNION SELECT t.oid FROM domain d JOIN pg_catalog.pg_type t ON t.typbasetype OPERATOR(pg_catalog.=) d.oid \
       AND t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) 'd') \
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(n.nspname, c.relname) ORDER BY c.oid), '[]')::pg_catalog.text \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'm']) \
    AND EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN domain d ON d.oid OPERATOR(pg_catalog.=) a.atttypid \
      WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)";

/// Reads the answer.
pub fn tables(json: &str) -> Option<Vec<RelationName>> {
    let names: Vec<(String, String)> = serde_json::from_str(json).ok()?;
    Some(names.iter().map(|(schema, name)| RelationName::new(Some(schema), name)).collect())
}
