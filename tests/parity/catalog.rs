//! A database as its catalogue describes it: every row that a user made, with names in place of oids.
//!
//! It needs no program of the server's version, and shows what `pg_dump` does not (dependencies, invalid indexes, comments
//! on anything). The catalogue itself says which tables and columns it has, so the same text holds for every version. Values
//! that differ from run to run without meaning are left out: files, sizes, ages, and flags that are cleared late.

use crate::common::Client;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The first oid that is not of `initdb`'s own making.
const FIRST: u64 = 16384;

/// No part of the schema, or told in other words by [`DEFINITIONS`].
const LEFT_OUT: [&str; 4] = ["pg_statistic", "pg_statistic_ext_data", "pg_largeobject", "pg_largeobject_metadata"];

const MEANINGLESS: [&str; 20] = [
    "relfilenode",
    "relpages",
    "reltuples",
    "relallvisible",
    "relallfrozen",
    // Counts the columns that were dropped too.
    "relnatts",
    "relfrozenxid",
    "relminmxid",
    // Cleared by VACUUM alone, so a build that was undone leaves them.
    "relhasindex",
    "relhasrules",
    "relhastriggers",
    "relhassubclass",
    "relhasoids",
    // Whether an old snapshot was about while it was built.
    "indcheckxmin",
    "attcacheoff",
    // Whether an old row has its value in it or beside it: a rewrite changes that.
    "atthasmissing",
    "attmissingval",
    "enumtypid",
    "xmin",
    "stxdexpr",
];

/// Every column of every catalogue of this database, with its type; the oids that are no column before 12 come first.
const CATALOGUES: &str = "SELECT c.relname, a.attname, a.atttypid::regtype \
     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped \
     WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND NOT c.relisshared \
     AND (a.attnum > 0 OR a.attname = 'oid') ORDER BY c.relname, a.attnum < 0 DESC, a.attnum";

/// What trees of nodes say, and nothing else does.
const DEFINITIONS: [(&str, &str); 9] = [
    ("pg_constraint", "pg_get_constraintdef(oid)"),
    ("pg_attrdef", "pg_get_expr(adbin, adrelid)"),
    ("pg_index", "pg_get_indexdef(indexrelid)"),
    ("pg_rewrite", "pg_get_ruledef(oid)"),
    ("pg_trigger", "pg_get_triggerdef(oid)"),
    ("pg_proc", "pg_get_function_arguments(oid)"),
    ("pg_statistic_ext", "pg_get_statisticsobjdef(oid)"),
    ("pg_partitioned_table", "pg_get_partkeydef(partrelid)"),
    ("pg_class", "pg_get_expr(relpartbound, oid)"),
];

/// Have no description of their own.
const NAMELESS: [&str; 2] = ["pg_enum", "pg_attribute"];

/// One catalogue.
struct Catalogue {
    name: String,
    /// Column and type.
    columns: Vec<(String, String)>,
}

impl Catalogue {
    fn is_oids(kind: &str) -> bool {
        kind == "oid" || kind.starts_with("oid") || kind.starts_with("reg")
    }

    /// The column that tells a user's rows from the server's.
    fn key(&self) -> Option<&str> {
        let oids = self.columns.iter().filter(|(name, kind)| kind == "oid" && name != "classid");
        oids.map(|(name, _)| name.as_str()).next()
    }

    fn has_oids(&self) -> bool {
        self.columns.iter().any(|(name, _)| name == "oid")
    }

    /// Its name, a row of it, and what is told of the row in words.
    fn rows_sql(&self) -> Option<String> {
        let key = self.key()?;
        let shown = |(name, kind): &&(String, String)| {
            name != "oid" && kind != "pg_node_tree" && !MEANINGLESS.contains(&name.as_str())
        };
        let columns: Vec<String> = self.columns.iter().filter(shown).map(|(name, _)| format!("c.{name}")).collect();
        // A session's schema for its temporary tables stays for the next one of the same number.
        let but = match self.name.as_str() {
            "pg_namespace" => "AND c.nspname !~ '^pg_(toast_)?temp_'",
            // A column that was added and taken back leaves its number used; the numbers of later ones tell.
            "pg_attribute" => "AND NOT c.attisdropped",
            _ => "",
        };
        let words = DEFINITIONS.iter().find(|(name, _)| *name == self.name).map_or("NULL", |(_, words)| words);
        Some(format!(
            "SELECT '{}', (SELECT row_to_json(r) FROM (SELECT {}) r)::text, {words} FROM pg_catalog.{} c WHERE {key} >= {FIRST} {but}",
            self.name,
            columns.join(", "),
            self.name
        ))
    }

    fn names_sql(&self) -> Option<String> {
        (self.has_oids() && !NAMELESS.contains(&self.name.as_str())).then(|| {
            format!(
                "SELECT oid::text, pg_describe_object(tableoid, oid, 0) FROM pg_catalog.{} WHERE oid >= {FIRST}",
                self.name
            )
        })
    }
}

fn catalogues(client: &mut Client) -> BTreeMap<String, Catalogue> {
    let mut found: BTreeMap<String, Catalogue> = BTreeMap::new();
    for row in client.ok(CATALOGUES).rows {
        let Ok([Some(name), Some(column), Some(kind)]) = <[Option<String>; 3]>::try_from(row) else { continue };
        if !LEFT_OUT.contains(&name.as_str()) {
            let catalogue = found.entry(name.clone()).or_insert(Catalogue { name, columns: Vec::new() });
            catalogue.columns.push((column, kind));
        }
    }
    found
}

/// Every object of a user's, a line each, sorted.
pub(crate) fn lines(client: &mut Client) -> Vec<String> {
    let catalogues = catalogues(client);
    let union = |parts: Vec<String>| parts.join(" UNION ALL ");
    let names: BTreeMap<String, String> = client
        .ok(&union(catalogues.values().filter_map(Catalogue::names_sql).collect()))
        .rows
        .into_iter()
        .filter_map(|row| <[Option<String>; 2]>::try_from(row).ok())
        .filter_map(|[oid, name]| Some((oid?, without_oids(&name?))))
        .collect();
    let rows = client.ok(&union(catalogues.values().filter_map(Catalogue::rows_sql).collect())).rows;
    // On 11 an index that is built with its parent's depends on its table in another way than one that is attached.
    let is_11 = client.value("SHOW server_version").starts_with("11");
    let mut lines: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let [Some(name), Some(json), words] = row.as_slice() else { return None };
            let mut row: Map<String, Value> = serde_json::from_str(json).expect("a row");
            // Of a key it means nothing, and tells whether a partition's was there before its parent's, also when it is a partition no
            // more: docs/forms/partitions.md.
            if name == "pg_constraint" && matches!(row["contype"].as_str(), Some("p" | "u" | "f")) {
                row.remove("connoinherit");
            }
            Some(line(&catalogues[name], &row, words.as_deref().unwrap_or_default(), &names))
        })
        .collect();
    // So do these.
    let of_attached = |line: &String| {
        let depends = |what: &str| line.starts_with("pg_depend") && line.contains(what);
        let of_trigger = depends("objid=[trigger RI_ConstraintTrigger");
        (of_trigger && (line.contains("deptype=P") || line.contains("deptype=S")))
            || (is_11 && depends("objid=[index") && line.contains("refobjid=[table"))
    };
    lines.retain(|line| !of_attached(line));
    lines.sort();
    lines
}

fn line(catalogue: &Catalogue, row: &Map<String, Value>, words: &str, names: &BTreeMap<String, String>) -> String {
    let mut line = catalogue.name.clone();
    for (column, kind) in &catalogue.columns {
        let Some(value) = row.get(column).filter(|value| !value.is_null()) else { continue };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = if Catalogue::is_oids(kind) { named(&text, names) } else { without_oids(&text) };
        let _ = write!(line, " {column}={text}");
    }
    let _ = write!(line, " {}", without_oids(words));
    line
}

/// Every oid in a text, by its name.
fn named(text: &str, names: &BTreeMap<String, String>) -> String {
    numbers(text, |number| names.get(number).map(|name| format!("[{name}]")))
}

/// Names that the server makes (of TOAST tables, of a foreign key's triggers) have oids in them.
fn without_oids(text: &str) -> String {
    numbers(text, |_| None)
}

/// Every number that may be an oid, as `name` has it, else as `N`.
fn numbers(text: &str, name: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(end);
        out.push_str(before);
        match number.parse::<u64>() {
            Ok(oid) if (FIRST..1 << 32).contains(&oid) => out.push_str(&name(number).unwrap_or_else(|| "N".to_owned())),
            _ => out.push_str(number),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
