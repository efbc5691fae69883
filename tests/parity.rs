//! Parity, the core of the suite. A script runs directly on one database and through the proxy on another. Nobody can tell
//! the two apart, neither by the messages that come back nor by what is left behind.
//!
//! The scripts are `tests/parity/*.sql`. There are no goldens, since the server itself says what is right. `PARITY=name` (a
//! part of a script's name, or `name/way`) runs fewer scripts. `tests/servers.rs` runs them on other versions.

#[path = "parity/at_once.rs"]
mod at_once;
#[path = "parity/catalog.rs"]
mod catalog;
mod common;
#[path = "parity/frames.rs"]
mod frames;
#[path = "parity/runner.rs"]
mod runner;
#[path = "parity/script.rs"]
mod script;
#[path = "parity/state.rs"]
mod state;
#[path = "parity/ways.rs"]
mod ways;

use common::postgres;
use pgsluice::sql::form::FORMS;
use pgsluice::sql::{Class, parse};
use std::collections::BTreeSet;
use ways::Way;

#[test]
fn every_form_has_a_script() {
    let mut seen = BTreeSet::new();
    for script in script::all() {
        for chunk in script.parts.iter().flat_map(|part| &part.chunks) {
            for statement in parse(&chunk.text).unwrap_or_default() {
                if let Class::Ddl(ddl) = statement.class {
                    seen.extend(ddl.parts.iter().map(|part| part.form));
                }
            }
        }
    }
    let missing: Vec<_> = FORMS.iter().filter(|row| !seen.contains(&row.form)).map(|row| row.title).collect();
    assert!(missing.is_empty(), "no script of tests/parity has: {missing:?}");
}

#[test]
fn scripts_give_the_same_directly_and_through_the_proxy() {
    let wanted = std::env::var("PARITY").unwrap_or_default();
    let (name, way) = wanted.split_once('/').unwrap_or((&wanted, ""));
    let wanted =
        |script: &script::Script, w: Way, _: &str| script.name.contains(name) && (way.is_empty() || w.name() == way);
    let failures = runner::scripts(&postgres(), &Way::ALL, wanted);
    assert!(failures.is_empty(), "direct (-) and proxied (+) differ:\n{failures}");
}

#[test]
fn several_sessions_at_once_give_the_same() {
    let wanted = std::env::var("PARITY").unwrap_or_default();
    let (name, way) = wanted.split_once('/').unwrap_or((&wanted, ""));
    let failures =
        at_once::scripts(&postgres(), |script| script.name.contains(name) && (way.is_empty() || way == "at-once"));
    assert!(failures.is_empty(), "direct (-) and proxied (+) differ:\n{failures}");
}

#[test]
fn frames_bring_the_same_directly_and_through_the_proxy() {
    let found = runner::conversations(&postgres());
    assert!(found.is_empty(), "direct (-) and proxied (+) differ:\n{found}");
}
