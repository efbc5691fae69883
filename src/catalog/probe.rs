//! The rewrite probe: what to send to learn whether a statement rewrites its table, and how to read the answers.
//!
//! The probe makes an empty temporary copy of the table, runs the statement's subcommand on the copy, and compares the
//! files of the copy and its indexes before and after. A new file is a rewrite. So the server itself answers, with its
//! own version, casts, type modifiers and time zone.
//!
//! The copy belongs to the session's role. If the table belongs to another role, the copy leaves out everything that would call
//! code of that role (`trust.rs`). The copy has indexes only where they matter.
//!
//! The file is pure. The caller sends the commands between BEGIN and ROLLBACK, and never inside a transaction of the client, since
//! an error would abort it. The probe needs TEMP on the database and SELECT on the table. Without an answer, the row of the
//! statement's form decides ([`crate::sql::form`]).

use super::trust::{self, CopyExtent};
use super::{ProbeAnswer, RelationFacts, comparable_index_definition, index_definition_tail};
use crate::pg::RelationName;
use crate::sql::{ClauseKind, Part, Statement};
use std::collections::BTreeMap;

/// The name of the copy. `sql` writes the same name into [`crate::sql::Part::probe`].
pub const PROBE_TABLE: &str = "pg_temp.pgsluice_probe";

/// The question about the files of the copy and of its indexes: one row each, name and file node, both text.
const FILES: &str = "SELECT c.relname::pg_catalog.text, \
     COALESCE(pg_catalog.pg_relation_filenode(c.oid::pg_catalog.regclass), 0)::pg_catalog.text \
     FROM pg_catalog.pg_class c \
     WHERE c.oid OPERATOR(pg_catalog.=) 'pg_temp.pgsluice_probe'::pg_catalog.regclass \
     OR c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index i \
     WHERE i.indrelid OPERATOR(pg_catalog.=) 'pg_temp.pgsluice_probe'::pg_catalog.regclass))";

/// What to send for one part: `make`, `files`, `statement`, `files` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The index of the part that the probe answers for.
    pub part: usize,
    pub make: Vec<String>,
    pub files: &'static str,
    pub statement: String,
}

/// Whether the answer could change the plan. A small table, or one that only this session sees, is brief anyway.
pub fn worth_asking(table: &RelationFacts, small_table: u64) -> bool {
    table.weight() > 0 && table.is_large(small_table)
}

/// One answer of `files`: the name of each relation and its file.
pub type Files = Vec<(String, String)>;

/// Whether an answer depends on the table's indexes. For a new column it does not: no index contains the column, and the server
/// rebuilds the indexes only if it rewrites the table.
pub fn wants_indexes(statement: &Statement) -> bool {
    let Some(ddl) = statement.ddl() else { return false };
    ddl.parts.iter().any(|part| is_probed(part) && part.new_column.is_none())
}

fn is_probed(part: &Part) -> bool {
    part.probe.is_some() && (part.form.needs_probe() || part.new_column.is_some())
}

/// The probes of a statement on `table`. There are none if the cost does not depend on the server. `copied` says how much of the
/// table, such as its indexes, may be copied.
pub fn probes(statement: &Statement, table: &RelationFacts, copied: &CopyExtent) -> Vec<Probe> {
    let Some(ddl) = statement.ddl() else { return Vec::new() };
    ddl.parts
        .iter()
        .enumerate()
        .filter(|(_, part)| is_probed(part))
        .filter_map(|(i, part)| {
            let statement = part.probe.clone()?;
            let make = if part.new_column.is_some() { vec![bare_copy(table)] } else { make(table, copied)? };
            Some(Probe { part: i, make, files: FILES, statement })
        })
        .collect()
}

/// The probe of the column without a value. A domain with a constraint rewrites the table even then; no type of PostgreSQL's own
/// does. The probe is only worth asking if the column with its value rewrites the table.
pub fn bare(statement: &Statement, table: &RelationFacts, part: usize, version: i32) -> Option<Probe> {
    let ddl = statement.ddl()?;
    let new = ddl.parts.get(part)?.new_column.as_deref().filter(|new| !new.built_in)?;
    let statement = format!(
        "ALTER TABLE {PROBE_TABLE} ADD COLUMN {}",
        new.bare(version, |piece| piece.kind == ClauseKind::Collate)
    );
    Some(Probe { part, make: vec![bare_copy(table)], files: FILES, statement })
}

/// Compares the files before and after. If an index is gone, the server dropped it and made it anew under another name.
pub fn answer(before: &Files, after: &Files) -> ProbeAnswer {
    let after: BTreeMap<&str, &str> = after.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
    let mut answer = ProbeAnswer::default();
    for (name, file) in before {
        if after.get(name.as_str()) == Some(&file.as_str()) {
            continue;
        }
        if name == "pgsluice_probe" {
            answer.rewrites_table = true;
        } else {
            answer.rebuilds_indexes = true;
        }
    }
    answer
}

/// The answer if the probe failed. `statement`: the statement itself failed, and not a command around it. If the error is about
/// what the statement says, the statement would fail on the table, too.
pub fn failed(statement: bool, sqlstate: &str) -> Option<ProbeAnswer> {
    let of_what_it_says = ["0A", "22", "3F", "42"].iter().any(|class| sqlstate.starts_with(class));
    (statement && of_what_it_says).then(|| ProbeAnswer { fails: true, ..ProbeAnswer::default() })
}

/// What to send to learn the definition that an index would have: `make`, `build`, then `definition` gives one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexProbe {
    pub make: String,
    pub build: String,
    pub definition: String,
}

/// The probe of CREATE INDEX; the plan reads its answer (through [`wanted_index`]) as `Facts::wanted_index`.
///
/// The probe is only worth asking if there is an invalid index of the wanted name ([`leftover`]). `build` is
/// [`crate::sql::Part::probe`], the CREATE INDEX on the copy, without CONCURRENTLY and IF NOT EXISTS.
pub fn index_probe(statement: &Statement, table: &RelationFacts) -> Option<IndexProbe> {
    let ddl = statement.ddl()?;
    let part = ddl.parts.first()?;
    leftover(ddl, table)?;
    let build = part.probe.clone()?;
    // The newest index of the copy is the one just built, whatever its name is.
    let definition = format!(
        "SELECT pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i \
         WHERE i.indrelid OPERATOR(pg_catalog.=) '{PROBE_TABLE}'::pg_catalog.regclass \
         ORDER BY i.indexrelid DESC LIMIT 1"
    );
    Some(IndexProbe { make: bare_copy(table), build, definition })
}

/// Reads the answer of [`IndexProbe::definition`].
pub fn wanted_index(definition: &str) -> Option<String> {
    comparable_index_definition(definition)
}

/// An invalid index with the name that CREATE INDEX wants, if no backend is at work on it.
pub fn leftover<'a>(ddl: &crate::sql::Ddl, table: &'a RelationFacts) -> Option<&'a super::IndexFacts> {
    let name = ddl.index_name.as_deref()?;
    table
        .indexes
        .iter()
        .find(|index| index.id.name == name && !index.valid && !index.in_progress && !index.of_constraint)
}

/// The commands that make the copy with its indexes. `None`: the copy may not be made.
fn make(table: &RelationFacts, copied: &CopyExtent) -> Option<Vec<String>> {
    let definitions = match copied {
        CopyExtent::All => return Some(vec![copy(table, "")]),
        CopyExtent::Indexes(definitions) => definitions,
        CopyExtent::Nothing(_) => return None,
    };
    // The indexes are made from the definitions that were checked, even if the table has changed meanwhile. The definitions keep
    // the meaning that was checked.
    let mut make = vec![bare_copy(table), KEEP_PATH.to_owned(), trust::MEANT_AS_WRITTEN.to_owned()];
    for definition in definitions {
        let (unique, tail) = index_definition_tail(definition)?;
        make.push(format!("CREATE {}INDEX ON {PROBE_TABLE}{tail}", if unique { "UNIQUE " } else { "" }));
    }
    make.push(PUT_BACK_PATH.to_owned());
    Some(make)
}

/// The command that makes the copy without its indexes and statistics, whose expressions the server would evaluate or fold while it
/// makes them.
pub(super) fn bare_copy(table: &RelationFacts) -> String {
    copy(table, " EXCLUDING INDEXES EXCLUDING STATISTICS")
}

fn copy(table: &RelationFacts, but: &str) -> String {
    let source: RelationName = table.id.full_name();
    format!("CREATE TEMP TABLE pgsluice_probe (LIKE {} INCLUDING ALL{but}) ON COMMIT DROP", source.quoted())
}

/// The client's statement must find its names where the client would find them, so this command saves the `search_path`. It returns
/// no row.
const KEEP_PATH: &str = "SELECT WHERE pg_catalog.set_config('pgsluice.search_path', \
     pg_catalog.current_setting('search_path'), true) IS NULL";
const PUT_BACK_PATH: &str = "SELECT WHERE pg_catalog.set_config('search_path', \
     pg_catalog.current_setting('pgsluice.search_path'), true) IS NULL";
