//! Documentation that is made from code: it is compared here, and written anew with `make golden`.

use pgsluice::sql::form::{Cost, FORMS, FormRow, Way};
use std::fmt::Write;

fn way(row: &FormRow) -> &'static str {
    match row.way {
        Way::Relay => "relayed",
        Way::Run => "one brief step",
        Way::Probe => "one brief step if the rewrite probe finds none; else guarded, with a WARNING",
        Way::Fill => "one brief step if the rewrite probe finds none; else in phases, with a backfill",
        Way::Concurrently => "CONCURRENTLY",
        Way::Long => "as written: waits long, blocks neither reads nor writes",
        Way::Phases => "in phases: brief steps, and long ones that block neither reads nor writes",
        Way::Guarded => "guarded, with a WARNING",
    }
}

fn table() -> String {
    let mut text = String::from(
        "# Forms of DDL\n\n\
         Made from the table in `src/sql/form.rs` by `make golden`; `tests/locks.rs` checks the locks against a server.\n\n\
         *Lock* is on the statement's relation, then on further ones (the referenced table of a foreign key, a partition).\n\
         *Directly* is what the statement costs while that lock is held, if it runs as written on a table that is not small.\n\
         A *brief step* runs under a lock attempt, with the hold budget; a *guarded* one without it, as it may be long.\n\n\
         | form | lock | directly | in a transaction | through pgsluice |\n|---|---|---|---|---|\n",
    );
    for row in FORMS {
        let mode = |lock: Option<pgsluice::pg::LockMode>| lock.map(|mode| mode.sql());
        let lock = match (mode(row.lock), mode(row.other_lock)) {
            (Some(own), Some(other)) => format!("{own}; {other}"),
            (Some(own), None) => own.to_owned(),
            (None, Some(other)) => format!("none; {other}"),
            (None, None) => "none on others".to_owned(),
        };
        let cost = match row.cost {
            Cost::Brief => "brief",
            Cost::Scan => "reads the table",
            Cost::Build => "builds",
            Cost::Rewrite => "rewrites the table",
            Cost::Unknown => "not to be told",
        };
        let inside = if row.in_transaction { "yes" } else { "no" };
        writeln!(text, "| {} | {lock} | {cost} | {inside} | {} |", row.title, way(row)).expect("a string");
    }
    text
}

#[test]
fn the_table_of_forms_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/forms.md");
    let table = table();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, &table).expect("docs/forms.md");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == table, "docs/forms.md is not what the code says: run `make golden` and look at the difference");
}

/// `file.rs: name` in a document on security is a test, or a function of it.
#[test]
fn the_tests_that_security_md_names_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/security.md")).expect("docs/security.md");
    let mut found = 0;
    for quoted in text.split('`').skip(1).step_by(2) {
        let Some((file, name)) = quoted.split_once(".rs: ") else { continue };
        let source = std::fs::read_to_string(root.join(format!("tests/{file}.rs"))).unwrap_or_default();
        assert!(source.contains(&format!("fn {name}(")), "{quoted}");
        found += 1;
    }
    assert!(found >= 15, "{found} tests are named");
}
