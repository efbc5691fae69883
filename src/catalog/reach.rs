//! What the statements of a transaction block touch, and whether the functions that they call may do anything.
//!
//! A relation touches itself, the relations under a view or a rule, its ancestors and descendants, the table of an index or a
//! sequence, and the tables whose foreign keys to it have an action (ON DELETE CASCADE and the like).
//!
//! The file owns no state. `plan/ahead.rs` reads the answers.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`). Triggers are not followed: what a trigger writes is unknown.

use super::query::{array, parameters};
use super::reading::Question;
use crate::pg::RelationName;
use std::collections::BTreeSet;

/// Whether each of the functions may be volatile. The answer is one row, one JSON text. An aggregate is volatile if its functions are.
const VOLATILE: &str = "/* pgsluice: which functions are volatile */ \
    SELECT COALESCE(pg_catalog.json_agg(\
      NOT EXISTS (SELECT FROM pg_catalog.pg_proc p \
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
       WHERE p.proname OPERATOR(pg_catalog.=) f.name::pg_catalog.name \
         AND n.nspname OPERATOR(pg_catalog.=) ANY (CASE WHEN f.schema IS NULL THEN pg_catalog.current_schemas(true) \
                                                        ELSE ARRAY[f.schema::pg_catalog.name] END)) \
      OR EXISTS (SELECT FROM pg_catalog.pg_proc p \
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
        LEFT JOIN pg_catalog.pg_aggregate g ON g.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid \
        JOIN pg_catalog.pg_proc v ON v.oid OPERATOR(pg_catalog.=) \
          ANY (ARRAY[p.oid, g.aggtransfn::pg_catalog.oid, g.aggfinalfn::pg_catalog.oid]) \
       WHERE p.proname OPERATOR(pg_catalog.=) f.name::pg_catalog.name \
         AND v.provolatile::pg_catalog.text OPERATOR(pg_catalog.=) 'v' \
         AND n.nspname OPERATOR(pg_catalog.=) ANY (CASE WHEN f.schema IS NULL THEN pg_catalog.current_schemas(true) \
                                                        ELSE ARRAY[f.schema::pg_catalog.name] END)) \
      ORDER BY f.place), '[]')::pg_catalog.text \
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]), \
                    pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[])) WITH ORDINALITY AS f(schema, name, place)";

/// The question what each of the relations touches. The answer is one row, one JSON text ([`touched`]).
pub fn question(relations: &[RelationName]) -> Question {
    Question { sql: include_str!("reach.sql").into(), parameters: parameters(relations).to_vec() }
}

/// Reads the answer to [`question`]: for each relation, in the order asked, the oids of what it touches. The set is empty if there is
/// no such relation.
///
/// # Errors
/// The text is no answer to the question.
pub fn touched(text: &str) -> Result<Vec<BTreeSet<u32>>, serde_json::Error> {
    serde_json::from_str(text)
}

/// The question whether each of the functions may be volatile. The answer is one row, one JSON text ([`volatile`]).
pub fn volatile_question(functions: &[RelationName]) -> Question {
    let schemas = array(functions.iter().map(|name| name.schema.as_deref()));
    let names = array(functions.iter().map(|name| Some(name.name.as_str())));
    Question { sql: VOLATILE.into(), parameters: vec![schemas, names] }
}

/// Reads the answer to [`volatile_question`]: for each function, in the order asked, whether a function of that name is volatile, or
/// whether there is none.
///
/// # Errors
/// The text is no answer to the question.
pub fn volatile(text: &str) -> Result<Vec<bool>, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_read_in_order() {
        assert_eq!(touched("[[16384,16390],[]]").unwrap(), [BTreeSet::from([16_384, 16_390]), BTreeSet::new()]);
        assert_eq!(volatile("[true, false]").unwrap(), [true, false]);
        assert!(touched("[1]").is_err() && volatile("[1]").is_err());
        let asked = question(&[RelationName::new(None, "a"), RelationName::new(Some("s"), "b")]);
        assert_eq!(asked.parameters, [r#"{NULL,"s"}"#, r#"{"a","b"}"#]);
    }

    /// No text contains a construct that looks an operator up by the session's `search_path`.
    #[test]
    fn no_operator_is_left_to_the_search_path() {
        for sql in [include_str!("reach.sql"), VOLATILE] {
            let (_, sql) = sql.split_once("*/").unwrap();
            let lines: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
            let bare: String = lines.join("\n").split('\'').step_by(2).collect();
            for operator in [" = ", " < ", " > ", " <> ", " || ", " + ", " IN ", "BETWEEN", "NULLIF", "USING"] {
                assert!(!bare.contains(operator), "{operator} is looked up by name");
            }
        }
    }
}
