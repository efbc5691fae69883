//! Parity, the heart of the suite: what a script does directly to one database it does to another through the proxy,
//! and nobody can tell the two apart, neither by the messages that come back nor by what is left behind.
//!
//! The scripts are `tests/parity/*.sql`; there are no goldens, as the server itself says what is right.
//! `PARITY=name` (a part of a script's name, then perhaps `/way`) runs less.

mod common;
#[path = "parity/frames.rs"]
mod frames;
#[path = "parity/script.rs"]
mod script;
#[path = "parity/state.rs"]
mod state;
#[path = "parity/ways.rs"]
mod ways;

use common::{Client, port, postgres, proxy};
use pgsluice::dev::Postgres;
use pgsluice::sql::form::FORMS;
use pgsluice::sql::{Class, parse};
use script::Script;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use ways::Way;

/// Where the scripts may not do as they like: roles belong to the whole cluster.
const ROLES: &str =
    "CREATE ROLE parity_owner; CREATE ROLE parity_joe; GRANT parity_owner TO parity_joe; CREATE ROLE parity_none";

/// A proxy's port, and what is special about it.
struct Proxied {
    name: &'static str,
    port: u16,
}

#[test]
fn every_form_has_a_script() {
    let mut seen = BTreeSet::new();
    for script in script::all() {
        for chunk in script.parts.iter().flat_map(|part| &part.chunks) {
            for statement in parse(chunk).unwrap_or_default() {
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
    let postgres = postgres();
    Client::connect(postgres.port, &postgres.user, "postgres").ok(ROLES);
    let tiny = proxy(&postgres, |_| {});
    let concurrent = proxy(&postgres, |config| config.ddl.small_table = 0);
    let proxies =
        [Proxied { name: "small tables", port: port(&tiny) }, Proxied { name: "concurrent", port: port(&concurrent) }];
    let wanted = std::env::var("PARITY").unwrap_or_default();
    let (wanted, way) = wanted.split_once('/').unwrap_or((&wanted, ""));
    let work: Vec<Script> = script::all().into_iter().filter(|script| script.name.contains(wanted)).collect();
    let next = Mutex::new(work.iter());
    let failures = Mutex::new(String::new());
    // One script at a time: what belongs to the cluster is named after the script.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(script) = { next.lock().unwrap().next() } {
                    for way in Way::ALL.into_iter().filter(|w| way.is_empty() || w.name() == way) {
                        let found = compare(&postgres, &proxies, script, way);
                        failures.lock().unwrap().push_str(&found);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "direct (-) and proxied (+) differ:\n{failures}");
}

#[test]
fn frames_bring_the_same_directly_and_through_the_proxy() {
    let postgres = postgres();
    let running = proxy(&postgres, |config| config.ddl.small_table = 0);
    let direct = frames::run(&postgres, postgres.port);
    let proxied = frames::run(&postgres, port(&running));
    let found = difference(&direct, &proxied);
    assert!(found.is_empty(), "direct (-) and proxied (+) differ:\n{found}");
}

/// The differences, as text; empty if there are none.
fn compare(postgres: &Postgres, proxies: &[Proxied], script: &Script, way: Way) -> String {
    let mut failures = String::new();
    let direct = run(postgres, postgres.port, script, way);
    // Amid a transaction nothing is built concurrently.
    let all = if matches!(way, Way::Simple | Way::Extended | Way::Pipeline) { proxies.len() } else { 1 };
    for proxied in &proxies[..all] {
        let found = difference(&direct, &run(postgres, proxied.port, script, way));
        if !found.is_empty() {
            let _ = writeln!(failures, "=== {}/{} ({})\n{found}", script.name, way.name(), proxied.name);
        }
    }
    failures
}

/// What came back, and what is there afterwards, line by line.
fn run(postgres: &Postgres, port: u16, script: &Script, way: Way) -> Vec<String> {
    let database = common::new_database(postgres, "parity");
    let mut client = Client::connect(port, &postgres.user, &database);
    let mut lines = Vec::new();
    let mut parts = script.parts.iter().filter(|part| part.runs(way.name()));
    if parts.all(|part| way.send(&mut client, part, &mut lines)) {
        lines.push("--- the session".to_owned());
        lines.extend(state::of_session(&mut client));
    }
    drop(client);
    lines.push("--- the database".to_owned());
    lines.extend(state::of_database(postgres, &database));
    common::drop_database(postgres, &database);
    lines
}

/// A line-by-line difference with a little context.
fn difference(direct: &[String], proxied: &[String]) -> String {
    let same_start = direct.iter().zip(proxied).take_while(|(a, b)| a == b).count();
    if same_start == direct.len() && same_start == proxied.len() {
        return String::new();
    }
    let rest = direct.len().min(proxied.len()) - same_start;
    let same_end = direct.iter().rev().zip(proxied.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for line in &direct[same_start.saturating_sub(6)..same_start] {
        let _ = writeln!(text, "  {line}");
    }
    for (sign, lines) in [('-', direct), ('+', proxied)] {
        for line in lines[same_start..lines.len() - same_end].iter().take(25) {
            let _ = writeln!(text, "{sign} {line}");
        }
    }
    text
}
