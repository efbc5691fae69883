//! The question whether the rows of a table can be updated in batches with no visible effect beyond that of a rewrite.
//!
//! The answer is a [`super::facts::BackfillFacts`]. The question is asked only where a plan may want a backfill.
//!
//! Invariants: those of every question to the catalogue (`reading.rs`).

/// The condition that the session's role may set `session_replication_role`. A superuser may.
///
/// Only servers since 15 can grant the right to set a parameter, and only these have a function that asks for it.
pub(super) fn may_set_role(server_version: i32) -> &'static str {
    match server_version {
        150_000.. => "pg_catalog.has_parameter_privilege(CURRENT_USER, 'session_replication_role', 'SET')",
        _ => "me.rolsuper",
    }
}

/// The question about the table `$1` (an oid as text) and its descendants. The answer is one row with one JSON text, a
/// [`super::facts::BackfillFacts`].
pub fn question(server_version: i32) -> String {
    // Since 16, the right to SET ROLE is separate from membership.
    let may_become = if server_version >= 160_000 { "SET" } else { "MEMBER" };
    let question = include_str!("backfill.sql").replace("whose_code", &super::trust::code_of_tree());
    question.replace("may_set_role", may_set_role(server_version)).replace("may_become", may_become)
}
