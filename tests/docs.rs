//! Tests of the documentation that is made from code. They compare it with the code; `make golden` writes it anew.

use pgsluice::sql::form::{Cost, ExecutionKind, FORMS, Form, FormRow};
use std::fmt::Write;

fn way(row: &FormRow) -> &'static str {
    match row.way {
        ExecutionKind::Relay => "relayed",
        ExecutionKind::Run => "one brief step",
        ExecutionKind::Probe => "one brief step if the rewrite probe finds none; else guarded, with a WARNING",
        ExecutionKind::Fill => "one brief step if the rewrite probe finds none; else in phases, with a backfill",
        ExecutionKind::Concurrently => "CONCURRENTLY",
        ExecutionKind::Long => "as written: waits long, blocks neither reads nor writes",
        ExecutionKind::Phases => "in phases: brief steps, and long ones that block neither reads nor writes",
        ExecutionKind::Guarded => "guarded, with a WARNING",
    }
}

/// In a transaction block of the client's, or ahead of it.
fn inside(row: &FormRow) -> String {
    let inside = in_its_place(row);
    let ahead = row.in_transaction && pgsluice::plan::hoist::only_adds(row.form);
    let stalls = inside.ends_with("guarded, with a WARNING");
    match (ahead && stalls, inside.strip_suffix("guarded, with a WARNING")) {
        (true, Some(before)) => format!("{before}ahead of it, else guarded, with a WARNING"),
        _ => inside.to_owned(),
    }
}

fn in_its_place(row: &FormRow) -> &'static str {
    match row.way {
        ExecutionKind::Relay if !row.in_transaction => "relayed: the server refuses most of it",
        _ if !row.in_transaction => "the server refuses it",
        ExecutionKind::Relay => "relayed",
        ExecutionKind::Run => "one brief step",
        ExecutionKind::Concurrently if row.hazard.is_empty() => "one brief step",
        ExecutionKind::Probe if matches!(row.form, Form::AddColumnGenerated | Form::SetExpression) => {
            "guarded, with a WARNING"
        }
        ExecutionKind::Probe | ExecutionKind::Fill => {
            "one brief step if the catalogue shows that no row is written; else guarded, with a WARNING"
        }
        ExecutionKind::Long => {
            "as written; guarded, with a WARNING, where the block holds a lock that makes others wait"
        }
        ExecutionKind::Phases | ExecutionKind::Concurrently | ExecutionKind::Guarded => "guarded, with a WARNING",
    }
}

fn table() -> String {
    let mut text = String::from(
        "# Forms of DDL\n\n\
         `make golden` makes this page from the table in `src/sql/form.rs`. `tests/locks.rs` checks the locks against a server.\n\n\
         - *Lock* is the lock on the statement's relation, then the lock on further relations (the referenced table of a foreign key, a partition).\n\
         - *Directly* is what the statement costs while that lock is held, if it runs as written on a table that is not small.\n\
         - A *brief step* runs under a lock attempt and the hold budget. A *guarded* step runs under a lock attempt without the hold budget, because it may be long.\n\
         - *In a transaction* the statement runs so if it keeps its place. Otherwise it is done ahead of the transaction, as outside of one\n  \
         ([transactions.md](transactions.md)). A guarded step gets its locks by lock attempts there too, and holds them for as long as it runs, unless\n  \
         the table is small. Every lock is kept to the end of the transaction.\n\n\
         The pages by family say which phases a statement has, what others see meanwhile, and what a failure leaves: [columns](forms/columns.md), [constraints](forms/constraints.md),\n\
         [indexes](forms/indexes.md), [partitioned tables](forms/partitions.md), [views, drops and rewrites](forms/maintenance.md). [words.md](words.md) explains the terms.\n\n\
         | form | lock | directly | in a transaction | outside of one |\n|---|---|---|---|---|\n",
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
            Cost::Unknown => "unknown",
        };
        writeln!(text, "| {} | {lock} | {cost} | {} | {} |", row.title, inside(row), way(row)).expect("a string");
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

/// In `docs/forms/` a comment `plan FILE: STATEMENT`, perhaps with `#2` for the second one of that text, stands before a block
/// with the plan that the golden has for it.
#[test]
fn the_plans_in_the_forms_pages_are_the_printers() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = 0;
    for page in std::fs::read_dir(root.join("docs/forms")).expect("docs/forms").filter_map(Result::ok) {
        let there = std::fs::read_to_string(page.path()).expect("a page");
        let filled = with_plans(root, &there);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(page.path(), &filled).expect("a page");
        } else {
            assert!(there == filled, "{}: run `make golden` and look at the difference", page.path().display());
        }
        pages += 1;
    }
    assert!(pages >= 5, "{pages} pages");
}

/// The page with each block behind a comment as the golden has it.
fn with_plans(root: &std::path::Path, page: &str) -> String {
    let mut filled = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(filled, "{line}").expect("a string");
        let Some(asked) = line.strip_prefix("<!-- plan ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        if lines.peek().is_some_and(|next| next.starts_with("```")) {
            lines.next();
            lines.by_ref().find(|line| line.starts_with("```"));
        }
        let (file, statement) = asked.split_once(": ").expect("a file and a statement");
        let golden = std::fs::read_to_string(root.join("tests/plans").join(file)).expect(file);
        let plan = plan_of(&golden, statement).unwrap_or_else(|| panic!("{file} has no plan of {statement}"));
        writeln!(filled, "```text\n{plan}\n```").expect("a string");
    }
    filled
}

fn plan_of<'a>(golden: &'a str, statement: &str) -> Option<&'a str> {
    let (statement, nth) = statement.rsplit_once(" #").unwrap_or((statement, "1"));
    let wanted = format!("plan {statement}\n---\n");
    let (at, _) = golden.match_indices(&wanted).nth(nth.parse::<usize>().ok()?.checked_sub(1)?)?;
    golden[at + wanted.len()..].split("\n\n").next().map(str::trim_end)
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
