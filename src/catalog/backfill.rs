//! Whether the rows of a table can be updated, batch by batch, as unnoticed as a rewrite would change them.
//!
//! Invariants: as those of the facts (`reading.rs`); asked only where a plan may want a backfill.

/// The question about the table `$1` (an oid as text) and its descendants: one row, one JSON text, which is a
/// [`super::facts::BackfillFacts`].
///
/// The right to set a parameter has a name since 15 only, and its question a function: hence texts of their own.
pub fn question(server_version: i32) -> String {
    let may_set = match server_version {
        150_000.. => "pg_catalog.has_parameter_privilege(CURRENT_USER, 'session_replication_role', 'SET')",
        _ => "me.rolsuper",
    };
    // The right to SET ROLE is apart from membership since 16.
    let may_become = if server_version >= 160_000 { "SET" } else { "MEMBER" };
    include_str!("backfill.sql").replace("may_set_role", may_set).replace("may_become", may_become)
}
