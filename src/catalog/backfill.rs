//! The question whether the rows of a table can be updated in batches without anybody noticing more than a rewrite would
//! change.
//!
//! The answer is a [`super::facts::BackfillFacts`]. The question is asked only where a plan may want a backfill.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

/// Whether the session's role may set `session_replication_role`; a superuser may.
///
/// The right to set a parameter has a name since 15 only, and its question a function.
pub(super) fn may_set_role(server_version: i32) -> &'static str {
    match server_version {
        150_000.. => "pg_catalog.has_parameter_privilege(CURRENT_USER, 'session_replication_role', 'SET')",
        _ => "me.rolsuper",
    }
}

/// The question about the table `$1` (an oid as text) and its descendants: one row, one JSON text, which is a
/// [`super::facts::BackfillFacts`].
pub fn question(server_version: i32) -> String {
    // The right to SET ROLE is apart from membership since 16.
    let may_become = if server_version >= 160_000 { "SET" } else { "MEMBER" };
    let question = include_str!("backfill.sql").replace("whose_code", &super::trust::code_of_tree());
    question.replace("may_set_role", may_set_role(server_version)).replace("may_become", may_become)
}
