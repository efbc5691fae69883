//! Names of relations, and their quoting.
//!
//! Invariant: a name is kept without quotes, and is always quoted when it is put into SQL. Quotes that are not needed do
//! no harm; quotes that are missing do.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A relation's name as a statement wrote it, with or without a schema. The parts are unquoted, in the case in which the server
/// stores them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RelationName {
    pub schema: Option<String>,
    pub name: String,
}

impl RelationName {
    pub fn new(schema: Option<&str>, name: &str) -> Self {
        Self { schema: schema.filter(|s| !s.is_empty()).map(str::to_owned), name: name.to_owned() }
    }

    /// The name as SQL, every part quoted.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote_identifier(schema), quote_identifier(&self.name)),
            None => quote_identifier(&self.name),
        }
    }
}

/// The name for people. It is quoted only where a reader would be misled.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", display_identifier(schema))?;
        }
        f.write_str(&display_identifier(&self.name))
    }
}

/// `"name"`, with inner quotes doubled.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`, safe under any `standard_conforming_strings`. It is an `E''` literal if the text holds a backslash.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

fn display_identifier(name: &str) -> String {
    let plain = name
        .chars()
        .enumerate()
        .all(|(i, c)| c.is_ascii_lowercase() || c == '_' || (i > 0 && (c.is_ascii_digit() || c == '$')));
    if plain && !name.is_empty() { name.to_owned() } else { quote_identifier(name) }
}

/// `pg_class.relkind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelationKind {
    #[serde(rename = "r")]
    Table,
    #[serde(rename = "p")]
    PartitionedTable,
    #[serde(rename = "i")]
    Index,
    #[serde(rename = "I")]
    PartitionedIndex,
    #[serde(rename = "S")]
    Sequence,
    #[serde(rename = "v")]
    View,
    #[serde(rename = "m")]
    MaterializedView,
    #[serde(rename = "f")]
    ForeignTable,
    #[serde(rename = "c")]
    CompositeType,
    #[serde(rename = "t")]
    Toast,
}

impl RelationKind {
    /// Whether `LOCK TABLE` can name the relation. Views are left out: they can be named only since 11, and they lock the relations
    /// that they read.
    pub fn lockable(self) -> bool {
        matches!(self, Self::Table | Self::PartitionedTable)
    }

    /// Whether the relation's rows stand in files of its own.
    pub fn has_storage(self) -> bool {
        matches!(self, Self::Table | Self::Index | Self::MaterializedView | Self::Sequence | Self::Toast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_quotes_and_backslashes() {
        assert_eq!(RelationName::new(Some("a\"b"), "C d").quoted(), r#""a""b"."C d""#);
        assert_eq!(quote_literal(r"it's \ here"), r"E'it''s \\ here'");
        assert_eq!(RelationName::new(None, "orders").to_string(), "orders");
        assert_eq!(RelationName::new(Some("public"), "Orders").to_string(), "public.\"Orders\"");
    }
}
