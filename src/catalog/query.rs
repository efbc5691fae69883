//! The one question that brings all facts, and how its answer is read.
//!
//! Invariants of `facts.sql`:
//!
//! - *One statement, one row, one text column*, so that it costs one round trip on whatever connection it is
//!   sent over; both parameters are text, so that no type needs to be known.
//! - *It never waits for a relation.* `pg_relation_size`, `pg_get_indexdef` and, for CHECK and EXCLUDE,
//!   `pg_get_constraintdef` open the relation with ACCESS SHARE and would queue behind an ACCESS EXCLUSIVE, held or
//!   waited for (`format_type` and `pg_get_constraintdef` of keys read the catalogue only). So `pg_locks` is read first,
//!   and where such a lock is seen of another backend, sizes come from `relpages` and definitions stay empty.
//!   A lock taken in the instant between is the session's to guard against, by `lock_timeout`.
//! - *It means the same under any `search_path`*: every table, function and type is qualified, every operator is written
//!   `OPERATOR(pg_catalog.…)`, and nothing is used that looks an operator up by name behind the scenes (`IN`, `BETWEEN`,
//!   `CASE x WHEN`, `NULLIF`, `IS DISTINCT FROM`, `USING`). DISTINCT, UNION and ORDER BY go by operator class: safe.
//! - *Names resolve as the server resolves them*: the first schema of `current_schemas(true)` that has the name. Schemas
//!   that the role may not use are not in it, and no error is raised for them.
//! - *It runs on servers 10 to 18*: columns that some of them lack are read through `to_jsonb(row) ->> 'column'`.
//!
//! Whether a relation was created in this transaction is told by the `xmin` of its oldest catalogue row: the row is
//! visible and its transaction (or subtransaction) is still running, hence it is ours.

use super::Facts;
use crate::pg::RelationName;
use crate::sql::{Class, Statement};

/// The question. `$1`: schema names, `$2`: relation names, both as text forms of `text[]` of one length.
///
/// Bind them in text format, or declare their type as `text`: undeclared, the server takes them for arrays.
pub const FACTS_SQL: &str = include_str!("facts.sql");

/// The first key of lanes' advisory locks, "pgsl" in ASCII; the second is the relation's oid. `facts.sql` has it too.
pub const LANE_CLASS: i32 = 0x7067_736c;

/// The parameters of [`FACTS_SQL`].
pub fn parameters(names: &[RelationName]) -> [String; 2] {
    [array(names.iter().map(|name| name.schema.as_deref())), array(names.iter().map(|name| Some(name.name.as_str())))]
}

/// Reads the answer to [`FACTS_SQL`].
pub fn decode(json: &str) -> Result<Facts, serde_json::Error> {
    serde_json::from_str(json)
}

/// Every relation that the plan of a statement asks the facts about, each once.
pub fn relations_of(statement: &Statement) -> Vec<RelationName> {
    let ddl = match &statement.class {
        Class::Ddl(ddl) => ddl,
        Class::ExplainDdl(inner) => return relations_of(inner),
        Class::MayHideDdl { .. } | Class::Transaction(_) | Class::Other => return Vec::new(),
    };
    let mut names: Vec<RelationName> = Vec::new();
    for name in ddl.targets.iter().chain(ddl.parts.iter().flat_map(|part| &part.others)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The text form of a `text[]`: every element quoted, so that commas, braces, blanks and the word NULL are data.
pub fn array<'a>(elements: impl Iterator<Item = Option<&'a str>>) -> String {
    let quoted: Vec<String> = elements
        .map(|element| match element {
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            None => "NULL".to_owned(),
        })
        .collect();
    format!("{{{}}}", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_array_form() {
        let names = [RelationName::new(None, r#"a"b\c"#), RelationName::new(Some("NULL"), "x, {y}")];
        assert_eq!(parameters(&names), [r#"{NULL,"NULL"}"#.to_owned(), r#"{"a\"b\\c","x, {y}"}"#.to_owned()]);
    }

    #[test]
    fn the_lane_class_is_the_same_in_both_places() {
        assert!(FACTS_SQL.contains(&LANE_CLASS.to_string()));
    }

    /// What would look an operator up by the session's `search_path`.
    #[test]
    fn no_operator_is_left_to_the_search_path() {
        let text: String = FACTS_SQL
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
            .replace("/* pgsluice: facts */", "");
        let bare = without_literals(&text);
        for operator in
            [" = ", " < ", " > ", " <> ", " || ", " + ", " * ", " / ", " % ", " IN ", "BETWEEN", "NULLIF", "USING"]
        {
            assert!(!bare.contains(operator), "{operator} is looked up by name");
        }
    }

    fn without_literals(text: &str) -> String {
        text.split('\'').step_by(2).collect()
    }
}
