//! Whose code would run with the rights of the session's user if the rows of a table were updated, or if a copy of the
//! table were made.
//!
//! When ALTER TABLE runs directly, the server builds indexes as the table's owner, in a state that protects the session's
//! user. The proxy's own commands would call the same code as the user who has sent the statement: index expressions (as
//! soon as a statement is planned, if they are constant), predicates, CHECKs, generated columns, statistics, partition
//! keys, and the functions of types and operators.
//!
//! A role is trusted if it may act as the role that has logged in, since such a role gains nothing. Superusers are trusted, too.
//! The current role does not matter, since any code can do RESET ROLE. A relation of another role is copied and updated only as far
//! as that calls nothing but PostgreSQL's own code, or code that a trusted role wrote (`trust/code.sql`).
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

use super::inquiry::ProbeRound;
use super::query::array;
use crate::pg::RelationName;
use serde::Deserialize;

/// The mark of a failed assertion. The server's error contains the mark, and the reason after it.
const UNTRUE: &str = "pgsluice: ";

/// A query for the relation `$1` and all relations under it.
const TREE: &str = "SELECT $1::pg_catalog.text::pg_catalog.oid
  UNION
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent OPERATOR(pg_catalog.=) t.oid";

/// A query for the relation `$1` alone.
const ALONE: &str = "SELECT $1::pg_catalog.text::pg_catalog.oid";

/// The question whether a relation may be copied. It runs after [`MEANT_AS_WRITTEN`].
const COPIED_SQL: &str = concat!(
    "/* pgsluice: may it be copied */ SELECT pg_catalog.json_build_object('code', (SELECT q.code FROM (SELECT the_code AS code) q), ",
    "'indexes', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.pg_get_indexdef(i.indexrelid) ORDER BY i.indexrelid), '[]') ",
    "FROM pg_catalog.pg_index i WHERE i.indislive AND i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid",
    "))::pg_catalog.text"
);

/// Makes names without a schema, in definitions that the server prints, mean PostgreSQL's own objects and nothing else.
pub(super) const MEANT_AS_WRITTEN: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// `code.sql` for these relations. `more` holds further reasons.
fn code(relations: &str, more: &str) -> String {
    include_str!("trust/code.sql").replace("the_tree", relations).replace("and_more", more)
}

/// An expression: whose code an UPDATE of the relation `$1` (an oid as text) and of all relations under it would run, in the words
/// of `code.sql`.
pub(super) fn code_of_tree() -> String {
    code(TREE, "")
}

/// An expression: whose code an UPDATE of some relations would run. `relations` is a query for their oids.
pub(super) fn code_of(relations: &str) -> String {
    code(relations, "")
}

/// Whether an answer of `code.sql` says that only permitted code would run.
pub fn may_run(code: &str) -> bool {
    matches!(code, "" | "-")
}

/// How much of a relation may be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyExtent {
    /// All of it.
    All,
    /// Only these indexes, by their definitions. None of them calls code that is not permitted.
    Indexes(Vec<String>),
    /// Nothing. The text says why, as a fragment that follows "because".
    Nothing(String),
}

#[derive(Debug, Deserialize)]
struct Answer {
    code: String,
    indexes: Vec<Option<String>>,
}

/// The question about the relation with this oid.
pub fn round(oid: u32) -> ProbeRound {
    let question = COPIED_SQL.replace("the_code", &code(ALONE, "")).into();
    ProbeRound { first: vec![MEANT_AS_WRITTEN.to_owned()], question, parameters: vec![oid.to_string()] }
}

/// Reads the answer, if there was one.
pub fn copied(json: Option<&str>) -> CopyExtent {
    let Some(Answer { code, indexes }) = json.and_then(|json| serde_json::from_str(json).ok()) else {
        return CopyExtent::Nothing("it is not known whose code that would run".to_owned());
    };
    match code.as_str() {
        "" => CopyExtent::All,
        "-" => CopyExtent::Indexes(indexes.into_iter().flatten().collect()),
        _ => CopyExtent::Nothing(code),
    }
}

/// The checks that are made as long as rows of other roles' tables are updated.
#[derive(Debug, Clone, Copy)]
pub struct Watch<'a> {
    /// The columns that are updated.
    pub columns: &'a [String],
    /// The update runs under `session_replication_role = replica`.
    pub quiet: bool,
}

impl Watch<'_> {
    fn code(self, relations: &str) -> String {
        let columns = array(self.columns.iter().map(|column| Some(column.as_str())));
        let columns = format!("{}::pg_catalog.text[]", crate::pg::relation::quote_literal(&columns));
        let states = if self.quiet { "ARRAY['A', 'R']" } else { "ARRAY['A', 'O']" };
        let more = include_str!("trust/watch.sql").replace("the_columns", &columns).replace("the_states", states);
        code(relations, &more)
    }

    /// The question for two texts about the relation `$1`: whose code would run, and a digest that stays the same as long as
    /// nothing changes.
    pub fn question(self) -> String {
        let digest = digest("$1::pg_catalog.text::pg_catalog.oid");
        format!("/* pgsluice: whose code would run */ SELECT {}, {digest}", self.code(ALONE))
    }

    /// A statement that fails, with the reason, if the relation `$1` or a relation under it would run code that is not permitted.
    pub fn assertion_of_tree(self) -> String {
        let words = format!("(SELECT {})", self.code(TREE));
        let fails = "pg_catalog.concat('pgsluice: ', q.code)::pg_catalog.int4 OPERATOR(pg_catalog.=) 0";
        format!(
            "/* pgsluice: whose code would run */ SELECT FROM (SELECT {words} AS code OFFSET 0) q WHERE CASE \
             WHEN q.code OPERATOR(pg_catalog.=) ANY (ARRAY['', '-']) THEN false ELSE {fails} END"
        )
    }
}

/// A statement that fails unless the relation still has its name.
pub fn called(relation: &RelationName, oid: u32) -> String {
    let named = super::identity::is_called(relation, oid);
    format!("SELECT WHERE CASE WHEN {named} THEN false ELSE {} END", fails("its name belongs to another relation now"))
}

fn fails(words: &str) -> String {
    format!("pg_catalog.concat('{UNTRUE}', '{words}')::pg_catalog.int4 OPERATOR(pg_catalog.=) 0")
}

/// A statement that fails unless the relation still has its name and the digest is still `known`.
pub fn unchanged(relation: &RelationName, oid: u32, known: &str) -> String {
    let named = super::identity::is_called(relation, oid);
    let digest = digest(&format!("{oid}::pg_catalog.oid"));
    let known = crate::pg::relation::quote_literal(known);
    format!(
        "/* pgsluice: nothing has changed */ SELECT WHERE CASE WHEN {named} AND {digest} OPERATOR(pg_catalog.=) {known} \
         THEN false ELSE {} END",
        fails("it has changed meanwhile")
    )
}

/// The reason that a failed assertion holds. The server's message cites it in every language.
pub fn untrue(message: &str) -> Option<&str> {
    let (_, reason) = message.split_once(UNTRUE)?;
    Some(reason.trim_end_matches(['"', '»', '«', '”', '“', '\'']).trim_end())
}

fn digest(relation: &str) -> String {
    include_str!("trust/digest.sql").replace("the_relation", relation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(copied(Some(r#"{"code": "", "indexes": ["x"]}"#)), CopyExtent::All);
        assert_eq!(copied(Some(r#"{"code": "-", "indexes": ["x", null]}"#)), CopyExtent::Indexes(vec!["x".to_owned()]));
        assert_eq!(copied(Some(r#"{"code": "its", "indexes": []}"#)), CopyExtent::Nothing("its".to_owned()));
        assert!(matches!(copied(None), CopyExtent::Nothing(_)));
        let message = r#"invalid input syntax for type integer: "pgsluice: its index "I" calls x""#;
        assert_eq!(untrue(message), Some(r#"its index "I" calls x"#));
        assert_eq!(untrue("division by zero"), None);
    }

    /// No text contains a construct that looks an operator up by the session's `search_path`.
    #[test]
    fn no_operator_is_left_to_the_search_path() {
        let columns = ["c".to_owned()];
        let watch = Watch { columns: &columns, quiet: false };
        let name = RelationName::new(Some("s"), "t");
        let copied = round(1).question;
        for sql in
            [code_of_tree(), copied.into_owned(), watch.question(), watch.assertion_of_tree(), unchanged(&name, 1, "x")]
        {
            for rest in ["the_", "and_more"] {
                assert!(!sql.contains(rest), "{rest} is left in {sql}");
            }
            let text: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
            let bare: String = text.join("\n").split('\'').step_by(2).collect();
            for operator in
                [" = ", " < ", " > ", " <> ", " && ", " || ", " + ", " - ", " IN ", "BETWEEN", "NULLIF", "USING"]
            {
                assert!(!bare.contains(operator), "{operator} is looked up by name");
            }
        }
    }
}
