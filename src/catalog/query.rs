//! What the facts are asked about: the relations that a statement names.

use crate::pg::RelationName;
use crate::sql::{Class, Statement};
use std::collections::HashSet;

/// The first key of lanes' advisory locks, "pgsl" in ASCII; the second is the relation's oid. `facts/head.sql` has it too.
pub const LANE_CLASS: i32 = 0x7067_736c;

/// Schema names and relation names, both as text forms of `text[]` of one length.
pub(super) fn parameters(names: &[RelationName]) -> [String; 2] {
    [array(names.iter().map(|name| name.schema.as_deref())), array(names.iter().map(|name| Some(name.name.as_str())))]
}

/// Every relation that the plan of a statement asks the facts about, each once.
pub fn relations_of(statement: &Statement) -> Vec<RelationName> {
    let ddl = match &statement.class {
        Class::Ddl(ddl) => ddl,
        Class::ExplainDdl(inner) => return relations_of(inner),
        Class::MayHideDdl { .. } | Class::Transaction(_) | Class::Other => return Vec::new(),
    };
    let named = ddl.targets.iter().chain(ddl.parts.iter().flat_map(|part| &part.others));
    let mut seen = HashSet::new();
    named.filter(|name| seen.insert(*name)).cloned().collect()
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
}
