//! The version of a relation's catalogue rows, as one short text. If the text differs, somebody has changed the relation.
//!
//! Every change of a row gives it a newer `xmin`. So the number of the rows and the sum of their `xmin` tell one state from the
//! next. A false difference (VACUUM FULL has frozen a row) costs a second read of the facts and nothing else.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

use super::Facts;
use crate::pg::relation::quote_literal;

/// The catalogues, each with the column that says which relation a row belongs to.
const CATALOGUES: [(&str, &str); 8] = [
    ("pg_class", "oid"),
    ("pg_attribute", "attrelid"),
    ("pg_attrdef", "adrelid"),
    ("pg_constraint", "conrelid"),
    ("pg_index", "indrelid"),
    ("pg_trigger", "tgrelid"),
    ("pg_inherits", "inhrelid"),
    ("pg_inherits", "inhparent"),
];

/// An expression for the version of the relations that the facts are about, and of the oids that their names resolve to.
pub fn version_of(facts: &Facts) -> String {
    let found = facts.relations.iter().filter_map(|asked| asked.found.as_ref());
    let oids: Vec<String> = found.map(|relation| relation.id.oid.to_string()).collect();
    let mut parts: Vec<String> = facts.relations.iter().map(|asked| meaning(&asked.name.quoted())).collect();
    if !oids.is_empty() {
        let oids = oids.join(",");
        parts.extend(CATALOGUES.iter().map(|(catalogue, column)| {
            format!(
                "(SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
                 FROM pg_catalog.{catalogue} x WHERE x.{column} OPERATOR(pg_catalog.=) ANY ('{{{oids}}}'::pg_catalog.oid[]))"
            )
        }));
    }
    format!("pg_catalog.concat_ws(' ', {})", parts.join(", "))
}

fn meaning(quoted: &str) -> String {
    format!("COALESCE(pg_catalog.to_regclass({})::pg_catalog.oid, 0::pg_catalog.oid)", quote_literal(quoted))
}

/// A condition: the version is still this text.
pub fn is_still(version: &str, text: &str) -> String {
    format!("{version} OPERATOR(pg_catalog.=) {}", quote_literal(text))
}
