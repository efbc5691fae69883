//! The relations that the facts of a statement are about, and PostgreSQL's text form of an array.

use crate::pg::RelationName;
use crate::sql::{Class, Statement};
use std::collections::HashSet;

/// The first key of the advisory locks of lanes, "pgsl" in ASCII. The second key is the relation's oid. `facts/head.sql` has the
/// same key.
pub const LANE_CLASS: i32 = 0x7067_736c;

/// An expression: the role `login` may change the relation with this row of `pg_class`, called `c`, or may lock it as a schema
/// change does. An advisory lock of any other role is not a lane, since anybody may take any advisory lock.
pub fn may_change(login: &str) -> String {
    format!(
        "(pg_catalog.pg_has_role({login}, c.relowner, 'MEMBER') \
         OR pg_catalog.has_table_privilege({login}, c.oid, 'TRIGGER, REFERENCES, TRUNCATE') \
         OR CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 170000 \
           THEN pg_catalog.has_table_privilege({login}, c.oid, 'MAINTAIN') ELSE false END \
         OR pg_catalog.pg_has_role({login}, (SELECT n.nspowner FROM pg_catalog.pg_namespace n \
           WHERE n.oid OPERATOR(pg_catalog.=) c.relnamespace), 'MEMBER'))"
    )
}

/// The schema names and the relation names, each as the text form of a `text[]`. Both arrays have one length.
pub(super) fn parameters(names: &[RelationName]) -> [String; 2] {
    [array(names.iter().map(|name| name.schema.as_deref())), array(names.iter().map(|name| Some(name.name.as_str())))]
}

/// Every relation about which the plan of a statement needs facts, each once.
pub fn relations_of(statement: &Statement) -> Vec<RelationName> {
    let ddl = match &statement.class {
        Class::Ddl(ddl) => ddl,
        Class::ExplainDdl(inner) => return relations_of(inner),
        Class::Lock(lock) => return each_once(lock.relations.iter().map(|locked| &locked.name)),
        Class::MayHideDdl { .. } | Class::Newer | Class::AdvisoryLock(_) | Class::Transaction(_) | Class::Other => {
            return Vec::new();
        }
    };
    let named = ddl.targets.iter().chain(ddl.parts.iter().flat_map(|part| &part.others));
    each_once(named)
}

fn each_once<'n>(names: impl Iterator<Item = &'n RelationName>) -> Vec<RelationName> {
    let mut seen = HashSet::new();
    names.filter(|name| seen.insert(*name)).cloned().collect()
}

/// The text form of a `text[]`. Every element is quoted, so that commas, braces, blanks and the word NULL are data.
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
}
