//! The names that PostgreSQL chooses for constraints, indexes and sequences.
//!
//! The functions follow `makeObjectName` and `ChooseRelationName` (`commands/indexcmds.c`). A test compares them with a
//! server.

use super::tree::Member;
use super::{FreeName, NameSuffix, RelationFacts};
use crate::sql::{ClauseKind, NewKey, Statement};

/// The longest name, in bytes: `NAMEDATALEN - 1`.
const MOST: usize = 63;

/// How many names the question offers. PostgreSQL itself has no limit.
pub const CANDIDATES: usize = 100;

/// `name1_name2_label`. If the whole would be too long, the names are cut: the longer one first, and never within a character.
pub fn object_name(name1: &str, name2: Option<&str>, label: &str) -> String {
    let room = MOST.saturating_sub(label.len() + 1 + usize::from(name2.is_some()));
    let (mut first, mut second) = (name1.len(), name2.map_or(0, str::len));
    while first + second > room {
        if first > second {
            first -= 1;
        } else {
            second -= 1;
        }
    }
    match name2 {
        Some(name2) => format!("{}_{}_{label}", cut(name1, first), cut(name2, second)),
        None => format!("{}_{label}", cut(name1, first)),
    }
}

/// The beginning of the text: at most `most` bytes, in whole characters.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// The text that the columns of a key add to the key's name.
fn columns_in_a_name(key: &NewKey) -> String {
    // An index names each of its columns once.
    let mut seen: Vec<String> = Vec::new();
    for column in key.columns.iter().chain(&key.include) {
        let mut name = column.clone();
        let mut n = 0;
        while seen.contains(&name) {
            n += 1;
            let suffix = n.to_string();
            name = format!("{}{suffix}", cut(column, MOST - suffix.len()));
        }
        seen.push(name);
    }
    addition(&seen)
}

/// The text that the columns of an index add to the index's name (`ChooseIndexNameAddition`).
fn addition(columns: &[String]) -> String {
    let mut text = String::new();
    for name in columns {
        if !text.is_empty() {
            text.push('_');
        }
        text.push_str(name);
        if text.len() > MOST {
            break;
        }
    }
    text
}

/// How the indexes of a partitioned table and its partitions are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexNames {
    /// The oid of the partitioned table.
    pub table: u32,
    /// `idx`, `key` or `pkey`
    pub label: &'static str,
    /// The indexes belong to constraints.
    pub of_constraint: bool,
    /// The author's name for the index on the partitioned table itself.
    pub given: Option<String>,
}

impl IndexNames {
    /// The name that PostgreSQL would try as its `n`th (from 0) for the index of a table. `None`: PostgreSQL would try no other
    /// name.
    pub fn nth(&self, table: &Member, columns: &[String], n: usize) -> Option<String> {
        if table.id.oid == self.table
            && let Some(given) = &self.given
        {
            return (n == 0).then(|| given.clone());
        }
        let columns = (self.label != "pkey").then_some(columns);
        Some(index_name(&table.id.name, columns, self.label, n))
    }
}

/// The name that PostgreSQL would try as its `n`th (from 0) for an index. The name of a primary key does not contain its columns.
pub fn index_name(table: &str, columns: Option<&[String]>, label: &str, n: usize) -> String {
    object_name(table, columns.map(addition).as_deref(), &numbered(label, n))
}

/// Whether PostgreSQL may have chosen this name for a CHECK of the table.
pub fn is_of_check(name: &str, table: &str) -> bool {
    let label = name.trim_end_matches(|c: char| c.is_ascii_digit());
    // The table's name keeps at least this much room, however long the column's name is.
    let room = (MOST - "__check".len()) / 2 - 2;
    label.ends_with("_check") && name.starts_with(cut(table, room.min(table.len())))
}

fn numbered(label: &str, n: usize) -> String {
    if n == 0 { label.to_owned() } else { format!("{label}{n}") }
}

/// A name that PostgreSQL would choose and that a plan may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameNeeded {
    /// The index of the part among the statement's parts.
    pub part: usize,
    pub label: NameSuffix,
    /// The names, in the order in which PostgreSQL would try them.
    pub candidates: Vec<String>,
}

impl NameNeeded {
    fn new(part: usize, label: NameSuffix, table: &RelationFacts, second: Option<&str>) -> Self {
        let word = label.as_str();
        let labels = (0..CANDIDATES).map(|n| numbered(word, n));
        let candidates = labels.map(|label| object_name(&table.id.name, second, &label)).collect();
        Self { part, label, candidates }
    }

    fn of_key(part: usize, key: &NewKey, table: &RelationFacts) -> Self {
        match key.primary {
            true => Self::new(part, NameSuffix::Pkey, table, None),
            false => Self::new(part, NameSuffix::Key, table, Some(&columns_in_a_name(key))),
        }
    }

    /// Whether PostgreSQL also avoids the names of constraints. For keys it does so since 11.
    pub fn avoids_constraints(&self, server_version: i32) -> bool {
        self.label != NameSuffix::Seq && server_version >= 110_000
    }

    /// The name that PostgreSQL chooses if the first candidate is free.
    pub fn first(self) -> Option<FreeName> {
        let Self { part, label, candidates } = self;
        Some(FreeName { part, label, name: candidates.into_iter().next()? })
    }
}

/// The names that the plan of a statement on `table` needs: for keys without a name, and for the sequences of serial and identity
/// columns.
pub fn wanted(statement: &Statement, table: &RelationFacts) -> Vec<NameNeeded> {
    let Some(ddl) = statement.ddl() else { return Vec::new() };
    let mut all = Vec::new();
    for (i, part) in ddl.parts.iter().enumerate() {
        if let Some(key) = part.key.as_deref().filter(|_| part.constraint.is_none()) {
            all.push(NameNeeded::of_key(i, key, table));
        }
        let Some(new) = part.new_column.as_deref() else { continue };
        if new.serial.is_some() || new.identity().is_some() {
            all.push(NameNeeded::new(i, NameSuffix::Seq, table, Some(&new.name)));
        }
        for piece in new.pieces.iter().filter(|piece| piece.name.is_none()) {
            if let ClauseKind::Key(key) = &piece.kind {
                all.push(NameNeeded::of_key(i, key, table));
            }
        }
    }
    all
}

/// The first of the names `$1` (a `text[]` in its text form) that no relation of the schema `$2` has. With `$3`, no constraint may
/// have it either.
pub const FREE_NAME_SQL: &str = "SELECT c.name \
    FROM pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]) WITH ORDINALITY AS c(name, place) \
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) $2::pg_catalog.text::pg_catalog.name \
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.relnamespace OPERATOR(pg_catalog.=) n.oid \
      AND r.relname OPERATOR(pg_catalog.=) c.name::pg_catalog.name) \
    AND NOT ($3::pg_catalog.text::pg_catalog.bool AND EXISTS (SELECT FROM pg_catalog.pg_constraint k \
      WHERE k.connamespace OPERATOR(pg_catalog.=) n.oid AND k.conname OPERATOR(pg_catalog.=) c.name::pg_catalog.name)) \
    ORDER BY c.place LIMIT 1";

/// The question which of the names `$2` in the schemas `$1` (each a `text[]` in its text form, of one length) a relation or a
/// constraint has. The answer is a JSON array of the places of these names, from 1, each with whether a relation has the name.
pub const TAKEN_SQL: &str = "SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(c.place, r.there)), '[]')::pg_catalog.text \
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text::pg_catalog.text[]), \
                    pg_catalog.unnest($2::pg_catalog.text::pg_catalog.text[])) WITH ORDINALITY AS c(schema, name, place) \
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) c.schema::pg_catalog.name \
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_class r \
      WHERE r.relnamespace OPERATOR(pg_catalog.=) n.oid AND r.relname OPERATOR(pg_catalog.=) c.name::pg_catalog.name) AS there) r \
    WHERE r.there OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.connamespace OPERATOR(pg_catalog.=) n.oid \
      AND k.conname OPERATOR(pg_catalog.=) c.name::pg_catalog.name)";

/// The name, quoted, and the oid of a constraint of kind `$2` on the table `$1`, or of an index if the kind is `i`. It is the newest one that
/// the present transaction made, but for `$3` others. The answer has one row, of NULLs if there is none.
pub const LEARN_SQL: &str = "SELECT pg_catalog.quote_ident(m.name) AS name, m.oid FROM (SELECT 1) AS one(row) LEFT JOIN LATERAL ( \
    SELECT n.name, n.oid FROM ( \
      SELECT k.conname AS name, k.oid, k.xmin AS made FROM pg_catalog.pg_constraint k \
       WHERE k.conrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
       AND k.contype::pg_catalog.text OPERATOR(pg_catalog.=) $2::pg_catalog.text \
       AND COALESCE(pg_catalog.to_jsonb(k) OPERATOR(pg_catalog.->>) 'conparentid', '0') OPERATOR(pg_catalog.=) '0' \
      UNION ALL \
      SELECT c.relname, c.oid, i.xmin FROM pg_catalog.pg_index i \
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid \
       WHERE i.indrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.oid \
       AND $2::pg_catalog.text OPERATOR(pg_catalog.=) 'i') AS n \
    WHERE n.made::pg_catalog.text OPERATOR(pg_catalog.=) \
      (pg_catalog.txid_current() OPERATOR(pg_catalog.%) 4294967296::pg_catalog.int8)::pg_catalog.text \
    ORDER BY n.oid DESC OFFSET $3::pg_catalog.text::pg_catalog.int8 LIMIT 1) AS m ON true";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_as_postgresql_cuts_them() {
        assert_eq!(object_name("t", Some("c"), "key"), "t_c_key");
        assert_eq!(object_name("t", None, "pkey"), "t_pkey");
        let (long, wide) = ("a".repeat(60), "é".repeat(30));
        assert_eq!(object_name(&long, Some("column"), "key"), format!("{}_column_key", "a".repeat(52)));
        assert_eq!(object_name(&long, Some(&long), "key"), format!("{}_{}_key", "a".repeat(29), "a".repeat(29)));
        assert!(object_name(&wide, Some(&wide), "key").len() <= MOST);
    }
}
